import zipfile
from pathlib import Path

import pytest

from search.data.sources import extract
from search.errors import DataError, StorageError
from tests.data.trees import encoded, film, write

IMAGE = encoded(film(1))


def make_zip(path: Path, names) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"other" if name.endswith((".txt", ".md")) else IMAGE)
    return path


def extracted(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


WANTED = [
    "train/NORMAL/a.jpeg",
    "train/PNEUMONIA/b.jpeg",
    "val/NORMAL/c.jpeg",
    "test/NORMAL/d.jpeg",
]


@pytest.mark.parametrize("prefix", ["", "chest_xray/", "CellData/chest_xray/", "a/b/c/d/"])
def test_the_images_of_the_shallowest_set_are_extracted_and_the_rest_is_counted(tmp_path, prefix):
    names = [prefix + name for name in WANTED]
    others = [
        f"{prefix}chest_xray/train/NORMAL/a.jpeg",
        f"__MACOSX/{prefix}train/NORMAL/._a.jpeg",
        f"{prefix}train/.DS_Store",
        f"{prefix}train/NORMAL/notes.txt",
        f"{prefix}README.md",
    ]
    path = make_zip(tmp_path / "a.zip", names + others)
    root, left_out = extract(path, cache_dir=tmp_path / "cache")
    assert extracted(root) == sorted(WANTED)
    assert {(row.files, row.reason) for row in left_out} == {
        (1, "beside the data set"),
        (1, "not an image"),
    }
    assert sum(row.files for row in left_out) == 3


@pytest.mark.parametrize("prefix", ["", "set/", "a/b/"])
def test_classes_without_train_are_extracted_and_a_table_makes_up_for_a_layout(tmp_path, prefix):
    names = [f"{prefix}{name}/{n}.png" for name in ("benign", "malignant") for n in range(3)]
    path = make_zip(tmp_path / "a.zip", names)
    root, _ = extract(path, cache_dir=tmp_path / "cache")
    assert extracted(root) == sorted(name.removeprefix(prefix) for name in names)
    root, _ = extract(path, cache_dir=tmp_path / "other", any_layout=True)
    assert extracted(root) == names


def test_members_cannot_leave_the_folder(tmp_path):
    names = [*WANTED, "../../evil/train/NORMAL/x.jpeg", "/abs/train/NORMAL/y.jpeg", "../z.jpeg"]
    root, _ = extract(make_zip(tmp_path / "a.zip", names), cache_dir=tmp_path / "cache")
    outside = [p for p in tmp_path.rglob("*.jpeg") if root not in p.parents]
    assert outside == []
    assert extracted(root) == sorted(WANTED)


def test_the_same_content_is_extracted_once_and_again_where_it_was_swept_from_the_cache(tmp_path):
    told = []
    options = {"cache_dir": tmp_path / "cache", "progress": lambda *said: told.append(said[1:])}
    first = make_zip(tmp_path / "a.zip", WANTED)
    root, _ = extract(first, **options)
    assert told[-1] == (4, 4)
    told.clear()
    copy = write(tmp_path / "copy.zip", first.read_bytes())
    assert (extract(copy, **options)[0], told) == (root, [])
    (root / WANTED[0]).unlink()
    write(root / WANTED[1], b"cut")
    assert extract(copy, **options)[0] == root
    assert extracted(root) == sorted(WANTED)
    assert (root / WANTED[1]).read_bytes() == IMAGE
    assert extract(make_zip(tmp_path / "b.zip", WANTED[:3]), **options)[0] != root


def damage_local_header(data: bytearray) -> None:
    data[200:260] = bytes(60)


def damage_compressed_data(data: bytearray) -> None:
    begin = 30 + len(WANTED[0])
    data[begin : begin + 40] = bytes(byte ^ 255 for byte in data[begin : begin + 40])


def mark_names_as_utf8_that_are_not(data: bytearray) -> None:
    for start in (0, data.find(b"PK\x01\x02")):
        flags, name = (6, 30) if start == 0 else (8, 46)
        data[start + flags + 1] |= 0x08
        data[start + name] = 0xF6


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_local_header, r"not a usable \.zip"),
        (damage_compressed_data, r"not a usable \.zip"),
        (mark_names_as_utf8_that_are_not, "marked as UTF-8 and are not"),
        (lambda data: data.clear(), r"not a usable \.zip"),
    ],
)
def test_a_damaged_archive_is_one_error_and_leaves_nothing_behind(tmp_path, damage, said):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in WANTED:
            archive.writestr(name, IMAGE * 9)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.zip: .*{said}"):
        extract(path, cache_dir=tmp_path / "cache")
    assert not any((tmp_path / "cache").rglob("*.jpeg"))


@pytest.mark.parametrize("names", [["test/NORMAL/a.jpeg", "photos/b.jpeg"], ["a.jpeg"], ["x/a.md"]])
def test_an_archive_without_training_images_is_an_error(tmp_path, names):
    path = make_zip(tmp_path / "a.zip", names)
    with pytest.raises(DataError, match="no training images"):
        extract(path, cache_dir=tmp_path / "cache")


def test_a_full_disk_is_told_before_extracting(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", WANTED)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("search.data.sources.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="--cache-dir"):
        extract(path, cache_dir=tmp_path / "cache")
