"""Inputs that other software failed on, after public reports, and kin of them.

Each is made here. A row says what is right: the pixels of an input that is read, or the reason why
one is refused.
"""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.config import RunConfig
from search.data.__main__ import main
from search.data.decode import UnusableImageError, decode, load_image
from search.data.listing import list_images
from search.data.sources import find_source
from search.errors import DataError
from tests.data.trees import dicom_file, encoded, film, make_tree, prepared, write

ROOT = Path(__file__).parents[2]
SIDE = 64
UPRIGHT = np.asarray(film(4, 200, 160))


def gray(data: bytes, **options) -> np.ndarray:
    return decode(data, SIDE, **options).pixels[:, :, 0].astype(int)


def close(first: np.ndarray, second: np.ndarray, levels: int = 2) -> bool:
    return np.abs(first - second).max() <= levels


WANTED = gray(encoded(Image.fromarray(UPRIGHT), "PNG"))


def deep(top: int, kind: str = "PNG", **options) -> bytes:
    """The image with `top` as its brightest pixel, in 16 bits."""
    values = np.rint(UPRIGHT * (top / UPRIGHT.max())).astype(np.uint16)
    content = io.BytesIO()
    Image.fromarray(values).save(content, kind, **options)
    return content.getvalue()


# 3. Depth.


@pytest.mark.parametrize("top", [1023, 4095, 16383])
def test_one_gray_level_more_does_not_make_another_image(top):
    below, above = (decode(deep(value), SIDE) for value in (top, top + 1))
    assert close(below.pixels.astype(int), above.pixels.astype(int))
    assert below.brightest == top  # so that a command can say that the depth is unknown


@pytest.mark.parametrize("top", [900, 4095, 60000])
def test_a_depth_that_training_found_is_used_for_every_file(top):
    values = gray(deep(top), bits=12)
    assert abs(values.max() - 255 * min(top, 4095) / 4095) <= 12


# 4. Polarity and orientation.


def white_is_zero(bits: int) -> bytes:
    levels = UPRIGHT.astype(np.uint16) * (257 if bits == 16 else 1)
    pixels = (2**bits - 1 - levels).astype("<u2" if bits == 16 else np.uint8)
    image = Image.fromarray(pixels)
    content = io.BytesIO()
    image.save(content, "TIFF", tiffinfo={262: 0} if bits == 16 else {})
    data = bytearray(content.getvalue())
    offset = struct.unpack("<I", data[4:8])[0]
    for entry in range(struct.unpack("<H", data[offset : offset + 2])[0]):
        start = offset + 2 + 12 * entry
        if struct.unpack("<H", data[start : start + 2])[0] == 262:
            data[start + 8 : start + 10] = struct.pack("<H", 0)
    return bytes(data)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_zero_is_no_negative(bits):
    assert close(gray(white_is_zero(bits)), WANTED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied_and_counted(kind, orientation):
    ways = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = Image.fromarray(UPRIGHT)
    stored = image.transpose(ways[orientation]) if orientation > 1 else image
    exif = stored.getexif()
    exif[274] = orientation
    content = io.BytesIO()
    stored.save(content, kind, exif=exif)
    found = decode(content.getvalue(), SIDE)
    assert close(found.pixels[:, :, 0].astype(int), WANTED, 8)
    assert (found.width, found.height, found.turned) == (200, 160, orientation > 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_do_not_make_an_image_unusable():
    exif = Image.Exif()
    exif[274] = 6
    content = io.BytesIO()
    Image.fromarray(UPRIGHT).save(content, "JPEG", exif=exif)
    data = content.getvalue()
    place = data.index(b"Exif\0\0") + 10
    assert decode(data[:place] + b"\xff" * 12 + data[place + 12 :], SIDE).width in (200, 160)


# 5. DICOM.
LEVELS = np.rint(UPRIGHT * (4095 / 255))


def empty(*tags: str) -> bytes:
    return dicom_file(LEVELS, bits=12, **dict.fromkeys(tags))


DICOM = {
    "window is empty": lambda: empty("WindowCenter", "WindowWidth"),
    "rescale is empty": lambda: empty("RescaleSlope", "RescaleIntercept"),
    "function and frames are empty": lambda: empty("VOILUTFunction", "NumberOfFrames"),
    "padding is empty": lambda: empty("PixelPaddingValue"),
    "no preamble": lambda: empty()[132:],
    "no header": lambda: empty()[144 + int.from_bytes(empty()[140:144], "little") :],
    "16 bits declared, 12 used": lambda: dicom_file(LEVELS, bits=16),
    "16 bits declared, 12 used, signed": lambda: dicom_file(LEVELS - 2048, bits=16),
}


@pytest.mark.parametrize("name", DICOM)
def test_a_dicom_file_with_less_than_usual_is_read(name):
    pytest.importorskip("pydicom")
    found = decode(DICOM[name](), SIDE)
    assert close(found.pixels[:, :, 0].astype(int), WANTED)
    assert (found.brightest > 0) == name.startswith("16 bits")


def test_dicom_of_unknown_depth_in_a_data_set_is_noted(tmp_path):
    pytest.importorskip("pydicom")
    for number in range(12):
        for name in ("a", "b"):
            values = np.asarray(film(number, 40, 40)).astype(int) * (12 if number else 16)
            write(tmp_path / f"tree/train/{name}/{number}.dcm", dicom_file(values, bits=16))
    dataset, _ = prepared(tmp_path / "tree", tmp_path / "cache")
    assert dataset.report.depth == 12
    assert any("24 images have 16 bits a pixel" in note for note in dataset.report.notes)


def test_a_deflated_dicom_that_fills_the_memory_is_refused(monkeypatch):
    pydicom = pytest.importorskip("pydicom")
    monkeypatch.setattr("search.data.dicom.MAX_INFLATED", 1_000_000)
    data = dicom_file(np.zeros((1500, 1500)), bits=8)
    begin = 144 + int.from_bytes(data[140:144], "little")
    deflater = zlib.compressobj(wbits=-15)
    rest = deflater.compress(data[begin:]) + deflater.flush()
    uid = pydicom.uid.DeflatedExplicitVRLittleEndian.encode()
    explicit = pydicom.uid.ExplicitVRLittleEndian.encode() + b"\0"
    head = data[:begin].replace(struct.pack("<H", 20) + explicit, struct.pack("<H", 22) + uid, 1)
    head = head[:140] + struct.pack("<I", len(head) - 144) + head[144:]
    with pytest.raises(UnusableImageError, match="deflated DICOM that is too large"):
        decode(head + rest, SIDE)


# 6. Damaged inside.


def jpeg(**options) -> bytes:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 60, UPRIGHT.shape)
    Image.fromarray((UPRIGHT // 2 + noise).astype(np.uint8)).save(content, "JPEG", **options)
    return content.getvalue()


def zeros_in_the_middle() -> bytes:
    data = jpeg()
    half = len(data) // 2
    return data[:half] + bytes(len(data) - half - 2) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (jpeg()[: len(jpeg()) // 2] + b"\xff\xd9", "damaged .*premature end of data segment"),
        (jpeg(progressive=True)[:-2000] + b"\xff\xd9", "damaged .*premature end"),
        (zeros_in_the_middle(), "damaged .*Corrupt JPEG data"),
        (jpeg()[:-2], "truncated|damaged"),
    ],
)
def test_what_a_decoder_warns_of_is_damage(data, reason):
    with pytest.raises(UnusableImageError, match=reason):
        decode(data, SIDE)


# 7. Files that are none, and images that are too much.


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with open(path, "wb") as handle:
        handle.truncate(12_000_000_000)


def loop(path: Path) -> None:
    path.symlink_to(path)


def many_scans(path: Path) -> None:
    data = jpeg(progressive=True)
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:last] + data[last:-2] * 300 + b"\xff\xd9")


def many_pixels(path: Path) -> None:
    Image.new("L", (9000, 9000)).save(path, "PNG")


NOT_IMAGES = [
    (os.mkfifo, "not a regular file"),
    (device, "not a regular file"),
    (Path.mkdir, "not a regular file"),
    (sparse, r"too large \(12\.0 GB\)"),
    (loop, "cannot be read"),
    (many_scans, "a JPEG of 3[01][0-9] scans"),
    (many_pixels, r"too large \(9000 × 9000 pixels\)"),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("make", "reason"), NOT_IMAGES)
def test_what_is_no_image_is_refused_at_once(make, reason, tmp_path):
    make(tmp_path / "x.jpeg")
    with pytest.raises(DataError, match=rf"x\.jpeg: .*{reason}"):
        load_image(tmp_path / "x.jpeg", SIDE)


@pytest.mark.timeout(60)
def test_a_folder_with_all_of_them_is_read_and_they_are_listed(tmp_path, capsys):
    tree = make_tree(tmp_path / "tree")
    exif = Image.Exif()
    exif[274] = 6
    film(99).save(tree / "train/NORMAL/turned.jpeg", exif=exif)
    for make, _ in NOT_IMAGES:
        if make is not Path.mkdir:
            make(tree / "train/NORMAL" / f"{make.__name__}.jpeg")
    for number in range(4):
        (tree / "train/NORMAL" / f"loop{number}").symlink_to(tree)
    assert main([str(tree), "--cache-dir", str(tmp_path / "cache"), "--image-size", "32"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "6 image file(s) cannot be used" in printed
    assert "4 other file(s) are left out" in printed
    assert "1 turned upright" in printed


BOMBS = """
import os, resource, sys
from pathlib import Path
os.cpu_count = lambda: 8
from search.data.listing import ImageFile
from search.data.scan import scan_files
root = Path(sys.argv[1])
files = [ImageFile(relative=f"{n}.png", folder="train", label=0) for n in range(8)]
scan_files(root, files, image_size=64, channels=3, cache_dir=root / "cache", label="train",
           progress=lambda *_: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_eight_small_files_that_unpack_to_80_megapixels_stay_within_memory(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (8900, 8900)).save(content, "PNG")
    for number in range(8):
        write(tmp_path / f"{number}.png", content.getvalue())
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 1.5e9


# 2 and 8. What is left out, in folders and archives.


def third(root: Path) -> Path:
    make_tree(root)
    for split, count in (("train", 5), ("test", 3)):
        for number in range(count):
            write(root / split / "COVID19" / f"{number}.jpeg", encoded(film(number)))
    return root


def as_folder(tree: Path) -> Path:
    return tree


def as_archive(tree: Path) -> Path:
    path = tree.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*")):
            if file.is_file():
                archive.write(file, f"chest_xray/{file.relative_to(tree)}")
    return path


@pytest.mark.parametrize("packed", [as_folder, as_archive])
def test_a_third_class_is_an_error_that_names_all_and_is_left_out_on_request(
    packed, tmp_path, capsys
):
    place = packed(third(tmp_path / "tree"))
    command = [str(place), "--cache-dir", str(tmp_path / "cache"), "--image-size", "32"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("COVID19", "NORMAL", "PNEUMONIA", "--classes A,B"))
    assert main([*command, "--classes", "NORMAL,PNEUMONIA"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "train/COVID19: 5, COVID19 is none of the two classes" in printed
    assert "test/COVID19: 3, COVID19 is none of the two classes" in printed


@pytest.mark.parametrize("packed", [as_folder, as_archive])
def test_patients_folders_and_odd_suffixes_are_read_and_the_rest_is_counted(packed, tmp_path):
    tree = make_tree(tmp_path / "tree")
    write(tree / "train/PNEUMONIA/patient000/img.jpeg", encoded(film(0)))
    for name, kind in (("a.jfif", "JPEG"), ("b.jp2", "JPEG2000"), ("c", "PNG"), ("d.7", "TIFF")):
        write(tree / "validation/NORMAL" / name, encoded(film(ord(name[0])), kind))
    write(tree / "train/NORMAL/notes.txt", b"x")
    write(tree / "holdout/NORMAL/1.png", encoded(film(1), "PNG"))
    source = find_source(RunConfig(data=str(packed(tree)), cache_dir=str(tmp_path / "cache")))
    listing = list_images(source.root, RunConfig())
    names = {file.relative for file in listing.files}
    assert "train/PNEUMONIA/patient000/img.jpeg" in names
    assert {f"validation/NORMAL/{name}" for name in ("a.jfif", "b.jp2", "c", "d.7")} <= names
    assert sum(row.files for row in (*source.left_out, *listing.left_out)) == 2
    dataset, _ = prepared(source.root, tmp_path / "cache")
    assert dataset.report.rejected == ()


# Tables.


def table(tmp_path: Path, text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return str(write(tmp_path / "table.csv", data))


@pytest.fixture
def images(tmp_path) -> Path:
    for number in range(40):
        write(tmp_path / f"set/images/{number:02d}.png", encoded(film(number), "PNG"))
    return tmp_path / "set"


def test_a_table_says_label_patient_and_split(images, tmp_path):
    splits = ["train"] * 24 + ["Validation"] * 8 + ["test"] * 6
    lines = [
        f"{number:02d}{'.png' if number % 2 else ''},{'sick' if number % 2 else 'healthy'},"
        f"P{number // 4},{split}"
        for number, split in enumerate(splits)
    ]
    said = table(tmp_path, "\ufeffFile,label,patient,split\n" + "\n".join(lines) + "\n\n")
    listing = list_images(images, RunConfig(table=said))
    assert listing.classes == ("healthy", "sick")
    assert [len(listing.of(name)) for name in ("train", "val", "test")] == [24, 8, 6]
    assert {file.patient for file in listing.files} == {f"P{n}" for n in range(10)}
    assert [(row.files, row.reason) for row in listing.left_out] == [(2, "not in the table")]


def test_another_label_in_the_table_is_another_data_set(images, tmp_path):
    prints = set()
    for first in ("healthy", "sick"):
        lines = [f"{n:02d},{'sick' if n % 2 else 'healthy'}" for n in range(1, 40)]
        said = table(tmp_path, f"file,label\n00,{first}\n" + "\n".join(lines))
        dataset, _ = prepared(images, tmp_path / "cache", table=said)
        prints.add(dataset.fingerprint)
    assert len(prints) == 2


def test_a_table_of_patients_alone_leaves_labels_to_the_folders(tmp_path):
    tree = make_tree(tmp_path / "tree", patients=2)
    names = [file.relative for file in list_images(tree, RunConfig()).files]
    said = table(tmp_path, "file,patient\n" + "\n".join(f"{name},one" for name in names))
    listing = list_images(tree, RunConfig(table=said))
    assert listing.classes == ("NORMAL", "PNEUMONIA")
    assert {file.patient for file in listing.files} == {"one"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\na\n", "no column file"),
        ("", "no column file"),
        ("file,label\n00.png,a\nnone.png,b\n", r"1 of 2 files are no images below .*line 3: none"),
        ("file,label\n00.png,a\n01.png,b\n00,b\n", r"line 4: says label b of 00, and line 2 says"),
        ("file,label\n00.png,a\n01.png,\n", "line 3: no label for 01.png"),
        ("file,label,split\n00.png,a,train\n01.png,b,holdout\n", "line 3: split 'holdout'"),
        ("file,label\n00.png,a\n01.png,b\n02.png,c\n", "3 classes, a, b, c"),
        (b"file,label\n\xf6.png,a\n", "not UTF-8"),
    ],
)
def test_a_table_that_does_not_fit_is_one_error_with_its_line(images, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        list_images(images, RunConfig(table=table(tmp_path, text)))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("make", "reason"), NOT_IMAGES[:5])
def test_a_table_that_is_no_file_is_one_error(images, tmp_path, make, reason):
    make(tmp_path / "table.csv")
    with pytest.raises(DataError, match=reason):
        list_images(images, RunConfig(table=str(tmp_path / "table.csv")))
