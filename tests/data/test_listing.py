import os
import re

import pytest

from search.config import RunConfig
from search.data.listing import find_images, list_images, list_labelled
from search.errors import ConfigurationError, DataError
from tests.data.trees import encoded, film, make_tree, write

IMAGE = encoded(film(1))
CLASSES = ("NORMAL", "PNEUMONIA")


def fill(root, *paths, data=b"x"):
    for path in paths:
        write(root / path, data)
    return root


def found(root, **said):
    return {file.relative: file for file in list_images(root, RunConfig(**said)).files}


def left_out(root, **said):
    rows = list_images(root, RunConfig(**said)).left_out
    return {(row.path, row.files, row.reason) for row in rows}


def test_order_is_that_of_the_notebooks_sorted_glob(tmp_path):
    names = ["train/NORMAL/IM-1.jpeg", "train/NORMAL/z.jpeg", "train/PNEUMONIA/b.jpeg"]
    names.append("val/NORMAL/a.jpeg")
    fill(tmp_path, *names[::-1])
    assert list(found(tmp_path)) == names


JUNK = [
    *("train/NORMAL/._IM-0100-0001.jpeg", "train/NORMAL/.DS_Store", "train/NORMAL/Thumbs.db"),
    *("train/__MACOSX/x.jpeg", "__MACOSX/train/NORMAL/._a.jpeg", "README.md"),
]


def test_what_is_left_out_is_counted_by_place_and_reason_and_junk_of_systems_is_not(tmp_path):
    make_tree(tmp_path, patients=2)
    before = list_images(tmp_path, RunConfig()).files
    fill(tmp_path, *JUNK)
    assert left_out(tmp_path) == set()
    fill(tmp_path, "train/NORMAL/notes.txt", "train/PNEUMONIA/a.csv", "train/PNEUMONIA/b.csv")
    fill(tmp_path, "train/loose.jpeg", "loose.png", "chest_xray/train/NORMAL/copy.jpeg")
    fill(tmp_path, "unlabelled/1.jpeg", "unlabelled/deeper/2.jpeg")
    (tmp_path / "train/NORMAL/loop").symlink_to(tmp_path)
    assert list_images(tmp_path, RunConfig()).files == before
    assert left_out(tmp_path) == {
        ("train/NORMAL/notes.txt", 1, "not an image"),
        ("train/PNEUMONIA", 2, "not an image"),
        ("train/loose.jpeg", 1, "in no class's folder"),
        ("loose.png", 1, "beside train/, in no split"),
        ("chest_xray/train/NORMAL/copy.jpeg", 1, "beside train/, in no split"),
        ("unlabelled", 2, "beside train/, in no split"),
        ("train/NORMAL/loop", 1, "a link to a folder; links are not followed"),
    }


def test_images_in_folders_of_patients_are_read_and_each_folder_is_a_patient(tmp_path):
    make_tree(tmp_path, patients=2)
    fill(tmp_path, *(f"train/PNEUMONIA/patient{n}/study/IM-0001-0001.dcm" for n in range(6)))
    files = found(tmp_path)
    patients = {file.patient for path, file in files.items() if "study" in path}
    assert patients == {f"folder:patient{n}" for n in range(6)}
    assert files["train/NORMAL/IM-0100-0001.jpeg"].patient == "IM-0100"


def test_a_few_folders_inside_a_class_are_no_patients(tmp_path):
    make_tree(tmp_path, patients=2)
    fill(tmp_path, "train/PNEUMONIA/BACTERIA/person7_bacteria_1.jpeg")
    fill(tmp_path, "train/PNEUMONIA/VIRUS/x.jpeg")
    files = found(tmp_path)
    assert files["train/PNEUMONIA/BACTERIA/person7_bacteria_1.jpeg"].patient == "person7_bacteria"
    assert files["train/PNEUMONIA/VIRUS/x.jpeg"].patient == ""


def test_a_name_that_is_not_text_is_told(tmp_path):
    make_tree(tmp_path, patients=2)
    try:
        with open(os.fsencode(tmp_path / "train/NORMAL") + b"/f\xe9.jpeg", "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    reason = "the name is not UTF-8; rename the file"
    assert left_out(tmp_path) == {(r"train/NORMAL/f\xe9.jpeg", 1, reason)}


@pytest.mark.parametrize("names", [("Train", "Valid", "Testing"), ("training", "dev", "test")])
def test_splits_and_classes_are_known_under_other_names_and_cases(tmp_path, names):
    train, val, test = names
    fill(tmp_path, f"{train}/Normal/a.jpeg", f"{train}/pneumonia/b.jpeg", f"{val}/NORMAL/c.jpeg")
    fill(tmp_path, f"{test}/normal/d.jpeg", f"{test}/pneumonia/e.jpeg")
    listing = list_images(tmp_path, RunConfig())
    assert [file.label for file in listing.files] == [0, 1, 0, 0, 1]
    assert [len(listing.of(name)) for name in ("train", "val", "test")] == [2, 1, 2]


@pytest.mark.parametrize(
    ("names", "said", "classes"),
    [
        (("NORMAL", "PNEUMONIA"), {}, ("NORMAL", "PNEUMONIA")),
        (("covid", "normal"), {}, ("normal", "covid")),
        (("benign", "malignant"), {}, ("benign", "malignant")),
        (("0", "1"), {}, ("0", "1")),
        (("cat", "dog"), {}, ("cat", "dog")),
        (("cat", "dog"), {"positive": "CAT"}, ("dog", "cat")),
        (("healthy", "normal"), {}, ("healthy", "normal")),
        (("a", "b", "c"), {"classes": ("c", "a")}, ("c", "a")),
        (("a", "b", "normal"), {"classes": ("b", "Normal")}, ("normal", "b")),
        (("a", "b", "c"), {"classes": ("c", "a"), "positive": "c"}, ("a", "c")),
    ],
)
@pytest.mark.parametrize("layout", ["train/{}/1.png", "{}/1.png"])
def test_classes_are_those_of_the_folders(tmp_path, names, said, classes, layout):
    fill(tmp_path, *(layout.format(name) for name in names))
    listing = list_images(tmp_path, RunConfig(**said))
    assert listing.classes == classes
    assert [file.label for file in listing.files] == [0, 1]
    assert sum(row.files for row in listing.left_out) == len(names) - 2


TWO = ["train/a/1.png", "train/b/1.png"]


@pytest.mark.parametrize(
    ("paths", "said", "message"),
    [
        (
            *([*TWO, "train/b/2.png", "train/c/1.png"], {}),
            r"3 classes, a, b, c .*a \(1 images\), b \(2 images\).*--classes A,B",
        ),
        (
            *([*TWO, "test/a/1.png", "test/bs/1.png"], {}),
            r"3 classes, a, b, bs .train/ has a .*, b .*; test/ has a .*, bs .*alike",
        ),
        (["train/a/1.png"], {}, r"one class only, a \(1 images\)"),
        (["train/a/1.png", "train/b/note.txt"], {}, r"one class only, a \(1 images\)"),
        (["train/a/1.png", "test/b/1.png"], {}, "no b images to train on"),
        (["train/a/note.txt"], {}, "no images; looked for train/CLASS/"),
        (TWO, {"positive": "c"}, "--positive c: .*choose a or b"),
        (TWO, {"classes": ("a", "x")}, r"--classes a,x: .*no images of x; it has a \(1 .*, b \(1 "),
        (
            TWO,
            {"patients": r"(\d+)-"},
            r"--patients .*: matches none of 2 files, such as train/a/1",
        ),
    ],
)
def test_what_is_no_data_set_of_two_classes_is_one_error(tmp_path, paths, said, message):
    fill(tmp_path, *paths)
    with pytest.raises((DataError, ConfigurationError), match=message):
        list_images(tmp_path, RunConfig(**said))


def test_patients_are_found_in_the_name_and_then_in_the_path(tmp_path):
    fill(tmp_path, "a/P1_1.png", "a/P1_2.png", "b/P2/x.png", "b/other.png")
    files = found(tmp_path, patients=r"(P\d+)")
    assert [file.patient for file in files.values()] == ["P1", "P1", "P2", ""]


@pytest.mark.parametrize("prefix", ["test/", "", "chest_xray/test/", "Testing/"])
def test_a_set_to_be_scored_is_found_with_and_without_test(tmp_path, prefix):
    fill(tmp_path, f"{prefix}NORMAL/a.jpeg", f"{prefix}PNEUMONIA/b.jpeg", f"{prefix}COVID/c.jpeg")
    listing = list_labelled(tmp_path, CLASSES)
    assert [file.label for file in listing.files] == [0, 1]
    assert [row.files for row in listing.left_out] == [1]


# Files, folders and globs of a command.


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (("a.png", "b", "*.png"), ["a.png", "b/1.png", "b/deeper/2.png", "b/scan", "[a].png"]),
        (("a.png", "none.png", "*.tif"), ["a.png", "none.png", "*.tif"]),  # to be told
        (("[a].png",), ["[a].png"]),
    ],
)
def test_files_folders_and_globs_are_found_once_and_in_order(tmp_path, asked, names):
    fill(tmp_path, "b/1.png", "b/deeper/2.png", "b/notes.txt", "b/.hidden.png", "a.png", "[a].png")
    write(tmp_path / "b/scan", IMAGE)
    found = find_images([str(tmp_path / name) for name in asked])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == names


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["", "**", "**/*.png"])
def test_folders_that_hold_each_other_end(tmp_path, pattern):
    fill(tmp_path, "a/1.png", "b/2.png")
    for name in ("a", "b"):
        for number in range(6):
            (tmp_path / name / f"loop{number}").symlink_to(tmp_path)
    asked = [f"{tmp_path}/{pattern}"]
    assert {path.name for path in find_images(asked)} == {"1.png", "2.png"}


@pytest.mark.parametrize(
    ("asked", "message"), [("", "IMAGE ''"), ("{}", "no images in this folder")]
)
def test_nothing_to_predict_is_an_error(tmp_path, asked, message):
    with pytest.raises(DataError, match=re.escape(message)):
        find_images([asked.format(tmp_path)])
