import zipfile
from pathlib import Path

import pytest

from search.data.archive import extract
from search.data.cache import silent
from search.errors import DataError, StorageError
from tests.data.trees import encoded, film

FILM = encoded(film(1))


def make_zip(path: Path, names) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, FILM if name.endswith("jpeg") else b"other")
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
def test_only_images_of_the_shallowest_set_are_extracted(tmp_path, prefix):
    names = [prefix + name for name in WANTED]
    others = [
        f"{prefix}chest_xray/train/NORMAL/a.jpeg",
        f"__MACOSX/{prefix}train/NORMAL/._a.jpeg",
        f"{prefix}train/.DS_Store",
        f"{prefix}train/NORMAL/notes.txt",
        f"{prefix}README.md",
    ]
    path = make_zip(tmp_path / "a.zip", names + others)
    root = extract(path, cache_dir=tmp_path / "cache", progress=silent)
    assert extracted(root) == sorted(WANTED)


def test_members_cannot_leave_the_folder(tmp_path):
    names = [*WANTED, "../../evil/train/NORMAL/x.jpeg", "/abs/train/NORMAL/y.jpeg", "../z.jpeg"]
    path = make_zip(tmp_path / "a.zip", names)
    root = extract(path, cache_dir=tmp_path / "cache", progress=silent)
    outside = [p for p in tmp_path.rglob("*.jpeg") if root not in p.parents]
    assert outside == []
    assert extracted(root) == sorted(WANTED)


def test_second_time_nothing_is_extracted_and_content_decides(tmp_path):
    first = make_zip(tmp_path / "a.zip", WANTED)
    told = []

    def progress(label, done, total):
        told.append((done, total))

    root = extract(first, cache_dir=tmp_path / "cache", progress=progress)
    assert told[-1] == (4, 4)
    told.clear()
    copy = tmp_path / "copy.zip"
    copy.write_bytes(first.read_bytes())
    assert extract(copy, cache_dir=tmp_path / "cache", progress=progress) == root
    assert told == []
    other = make_zip(tmp_path / "b.zip", WANTED[:3])
    assert extract(other, cache_dir=tmp_path / "cache", progress=progress) != root


def test_an_archive_cut_short_leaves_nothing_behind(tmp_path):
    path = make_zip(tmp_path / "a.zip", WANTED)
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip: not a usable \.zip"):
        extract(path, cache_dir=tmp_path / "cache", progress=silent)
    assert not any((tmp_path / "cache/zip").rglob("*.jpeg"))
    assert not any(p.is_dir() for p in (tmp_path / "cache/zip").iterdir())


def test_a_damaged_compressed_member_is_an_error(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in WANTED:
            archive.writestr(name, FILM * 9)
    data = bytearray(path.read_bytes())
    begin = 30 + len(WANTED[0])
    data[begin : begin + 40] = bytes(byte ^ 255 for byte in data[begin : begin + 40])
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip: not a usable \.zip"):
        extract(path, cache_dir=tmp_path / "cache", progress=silent)


def test_what_was_swept_from_the_cache_is_extracted_again(tmp_path):
    path = make_zip(tmp_path / "a.zip", WANTED)
    root = extract(path, cache_dir=tmp_path / "cache", progress=silent)
    (root / WANTED[0]).unlink()
    (root / WANTED[1]).write_bytes(b"cut")
    assert extract(path, cache_dir=tmp_path / "cache", progress=silent) == root
    assert extracted(root) == sorted(WANTED)
    assert (root / WANTED[1]).read_bytes() == FILM


def test_a_file_that_is_no_archive_is_an_error(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"not a usable \.zip"):
        extract(path, cache_dir=tmp_path / "cache", progress=silent)


def test_an_archive_without_training_images_is_an_error(tmp_path):
    path = make_zip(tmp_path / "a.zip", ["test/NORMAL/a.jpeg", "photos/b.jpeg"])
    with pytest.raises(DataError, match="no training images"):
        extract(path, cache_dir=tmp_path / "cache", progress=silent)


def test_a_full_disk_is_told_before_extracting(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", WANTED)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("search.data.archive.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="--cache-dir"):
        extract(path, cache_dir=tmp_path / "cache", progress=silent)
