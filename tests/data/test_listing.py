import os

import pytest

from search.data.listing import list_images, list_labelled
from search.errors import DataError
from tests.data.trees import make_tree, write


def test_order_is_that_of_the_notebooks_sorted_glob(tmp_path):
    for name in ("val/NORMAL/a.jpeg", "train/PNEUMONIA/b.jpeg", "train/NORMAL/z.jpeg"):
        write(tmp_path / name, b"x")
    write(tmp_path / "train/NORMAL/IM-0001-0001.jpeg", b"x")
    found = [file.relative for file in list_images(tmp_path).files]
    assert found == [
        "train/NORMAL/IM-0001-0001.jpeg",
        "train/NORMAL/z.jpeg",
        "train/PNEUMONIA/b.jpeg",
        "val/NORMAL/a.jpeg",
    ]


def test_what_operating_systems_leave_behind_is_passed_over(tmp_path):
    make_tree(tmp_path, patients=2)
    before = list_images(tmp_path).files
    for junk in (
        "train/NORMAL/._IM-0100-0001.jpeg",
        "train/NORMAL/.DS_Store",
        "train/NORMAL/Thumbs.db",
        "train/__MACOSX/x.jpeg",
        "__MACOSX/train/NORMAL/._a.jpeg",
        "chest_xray/train/NORMAL/copy.jpeg",
        "train/NORMAL/deeper/copy.jpeg",
    ):
        write(tmp_path / junk, b"x")
    listing = list_images(tmp_path)
    assert listing.files == before
    assert listing.ignored == ("train/NORMAL/deeper",)


def test_files_without_an_images_name_are_told(tmp_path):
    make_tree(tmp_path, patients=2)
    write(tmp_path / "train/NORMAL/notes.txt", b"x")
    assert list_images(tmp_path).ignored == ("train/NORMAL/notes.txt",)


def test_a_name_that_is_not_text_is_told(tmp_path):
    make_tree(tmp_path, patients=2)
    before = list_images(tmp_path).files
    try:
        with open(os.fsencode(tmp_path / "train/NORMAL") + b"/f\xe9.jpeg", "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = list_images(tmp_path)
    assert listing.files == before
    assert listing.ignored == (r"train/NORMAL/f\xe9.jpeg (the name is not UTF-8; rename the file)",)


def test_folder_names_match_whatever_their_case(tmp_path):
    write(tmp_path / "Train/Normal/a.jpeg", b"x")
    write(tmp_path / "Train/pneumonia/b.jpeg", b"x")
    assert [file.label for file in list_images(tmp_path).files] == [0, 1]


def test_missing_train_is_named(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}: no train/ .*--data"):
        list_images(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        list_images(tmp_path / "nowhere")


@pytest.mark.parametrize(("present", "missing"), [("NORMAL", "PNEUMONIA"), ("PNEUMONIA", "NORMAL")])
def test_missing_class_is_named(tmp_path, present, missing):
    write(tmp_path / "train" / present / "a.jpeg", b"x")
    with pytest.raises(DataError, match=f"no {missing} images"):
        list_images(tmp_path)


@pytest.mark.parametrize("prefix", ["test/", "", "chest_xray/test/"])
def test_a_set_to_be_scored_is_found_with_and_without_test(tmp_path, prefix):
    write(tmp_path / f"{prefix}NORMAL/a.jpeg", b"x")
    write(tmp_path / f"{prefix}PNEUMONIA/b.jpeg", b"x")
    assert [file.label for file in list_labelled(tmp_path).files] == [0, 1]


def test_a_set_to_be_scored_without_images_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no images"):
        list_labelled(tmp_path)
