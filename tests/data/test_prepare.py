import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.config import Channels, SplitKind
from search.data.decode import load_image
from search.data.report import table
from search.errors import DataError
from search.records import DatasetReport, from_json, to_json
from tests.data.trees import encoded, film, make_tree, prepared, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path) -> Path:
    return make_tree(tmp_path / "tree")


def test_every_row_holds_its_own_image_and_the_test_has_a_file_of_its_own(tree, tmp_path):
    told = []
    dataset, sealed = prepared(tree, tmp_path / "cache", progress=lambda *said: told.append(said))
    assert ("Decoding the train images", 40, 40) in told
    assert ("Decoding the test images", 20, 20) in told
    assert sealed.open().array_file != dataset.train.array_file == dataset.val.array_file
    assert len(dataset.train.open_array()) == len(dataset.train) + len(dataset.val)
    for subset in (dataset.train, dataset.val, sealed.open()):
        array = subset.open_array()
        assert array.dtype == np.uint8
        assert array.shape[1:] == (32, 32, 1)
        for row, path, label in zip(subset.rows, subset.paths, subset.labels, strict=True):
            assert np.array_equal(array[row], load_image(tree / path, 32).pixels)
            assert label == ("PNEUMONIA" in path)
    assert len(dataset.views.open_array()) == len(dataset.views) == 2 * len(dataset.val)
    assert np.array_equal(dataset.views.labels, dataset.val.labels[dataset.views.source])
    for label in (0, 1):  # each kind is met as often
        kinds = dataset.views.view[dataset.views.labels == label]
        assert np.ptp(np.bincount(kinds, minlength=len(dataset.views.names))) <= 1


@pytest.mark.parametrize("layout", ["", "train"], ids=["splits", "classes"])
def test_second_start_opens_no_image(tree, tmp_path, monkeypatch, layout):
    tree = tree / layout
    first, _ = prepared(tree, tmp_path / "cache")

    def fail(*_, **__):
        raise AssertionError("an image was opened")

    monkeypatch.setattr("search.data.scan.opened", fail)
    monkeypatch.setattr("search.data.views.apply_view", fail)
    second, _ = prepared(tree, tmp_path / "cache")
    assert second.report.cache.reused
    assert not first.report.cache.reused
    assert second.train.array_file == first.train.array_file


def test_changed_content_is_noticed_at_equal_size_and_modification_time(tree, tmp_path):
    path = next((tree / "train/NORMAL").iterdir())
    before, _ = prepared(tree, tmp_path / "cache")
    status = path.stat()
    data = encoded(film(4242), "BMP")
    write(path, data)
    write(path, data[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after, _ = prepared(tree, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert after.train.array_file != before.train.array_file


def test_content_and_size_decide_on_the_array_and_times_do_not(tree, tmp_path):
    small, _ = prepared(tree, tmp_path / "cache")
    for path in tree.rglob("*.jpeg"):
        os.utime(path)
    touched, _ = prepared(tree, tmp_path / "cache")
    assert touched.train.array_file == small.train.array_file
    assert touched.fingerprint == small.fingerprint
    large, _ = prepared(tree, tmp_path / "cache", image_size=40)
    assert small.train.array_file != large.train.array_file
    assert small.fingerprint == large.fingerprint
    assert large.train.open_array().shape[1:] == (40, 40, 1)
    strong, _ = prepared(tree, tmp_path / "cache", view_strength={"shift": 0.1})
    assert strong.train.array_file == small.train.array_file
    assert strong.views.array_file != small.views.array_file


@pytest.mark.parametrize("prefix", ["train", "test", "views"])
def test_a_damaged_array_is_rebuilt_and_told_and_a_damaged_index_made_again(tree, tmp_path, prefix):
    before, _ = prepared(tree, tmp_path / "cache")
    (damaged,) = (tmp_path / "cache/arrays").glob(f"{prefix}-*.npy")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9] + bytes(9))
    after, _ = prepared(tree, tmp_path / "cache")
    assert damaged.read_bytes() == whole
    (note,) = after.report.notes
    assert damaged.name in note
    assert before.report.notes == ()
    for index in (tmp_path / "cache/scan").glob("*.json"):
        index.write_text('{"version": 3')
    again, _ = prepared(tree, tmp_path / "cache")
    assert again.train.paths == before.train.paths


def test_patient_split_is_the_same_on_another_file_system_and_in_another_order(tree, tmp_path):
    copy = tmp_path / "elsewhere"
    for path in sorted(tree.rglob("*.jpeg"), reverse=True):
        target = copy / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    here, _ = prepared(tree, tmp_path / "cache")
    there, _ = prepared(copy, tmp_path / "other_cache")
    assert here.val.paths == there.val.paths
    assert here.train.paths == there.train.paths
    assert here.fingerprint == there.fingerprint
    assert not set(here.train.patients) & set(here.val.patients)
    assert here.report.val_sharing_patients == 0
    assert np.array_equal(here.views.open_array(), there.views.open_array())


def test_a_film_has_the_same_views_whatever_the_seed_of_the_run(tree, tmp_path):
    drawn = {}
    for seed in (8, 9, 10):
        dataset, _ = prepared(tree, tmp_path / "cache", seed=seed, val_fraction=0.5)
        pixels = dataset.views.open_array()
        paths = [dataset.val.paths[position] for position in dataset.views.source]
        for path, kind, view in zip(paths, dataset.views.view, pixels, strict=True):
            drawn.setdefault((path, int(kind)), []).append(view)
    several = [views for views in drawn.values() if len(views) > 1]
    assert several
    for first, *others in several:
        assert all(np.array_equal(first, other) for other in others)


def test_notebook_split_counts_what_leaks_and_a_bad_file_moves_no_other(tree, tmp_path):
    dataset, _ = prepared(tree, tmp_path / "cache", split=SplitKind.NOTEBOOK)
    shared = sum(patient in set(dataset.train.patients) for patient in dataset.val.patients)
    assert shared > 0
    assert dataset.report.val_sharing_patients == shared
    assert any("share a patient" in line for line in dataset.report.alarms)
    write(tree / dataset.train.paths[3], b"")
    after, _ = prepared(tree, tmp_path / "cache", split=SplitKind.NOTEBOOK)
    assert after.val.paths == dataset.val.paths
    assert after.train.paths == dataset.train.paths[:3] + dataset.train.paths[4:]


def test_bad_files_are_listed_and_left_out(tree, tmp_path):
    whole = encoded(film(1, 200, 160))
    bad = {
        "empty.jpeg": (b"", "empty file"),
        "page.jpeg": (b"<html>not found</html>", "not an image"),
        "cut.jpeg": (whole[: len(whole) // 2], "truncated"),
        "dot.png": (encoded(film(1, 4, 4), "PNG"), "too small"),
    }
    for name, (data, _) in bad.items():
        write(tree / "train/NORMAL" / name, data)
    (tree / "train/NORMAL/link.jpeg").symlink_to(tmp_path / "gone.jpeg")
    dataset, _ = prepared(tree, tmp_path / "cache")
    reasons = {Path(file.path).name: file.reason for file in dataset.report.rejected}
    assert set(reasons) == {*bad, "link.jpeg"}
    for name, (_, reason) in bad.items():
        assert reason in reasons[name]
    assert "No such file" in reasons["link.jpeg"]
    assert len(dataset.train) + len(dataset.val) == 40
    assert any("5 image file(s) cannot be used" in line for line in dataset.report.alarms)
    again, _ = prepared(tree, tmp_path / "cache")
    assert again.report.rejected == dataset.report.rejected
    written = json.loads(json.dumps(to_json(dataset.report)))
    assert from_json(DatasetReport, written) == dataset.report


def test_a_folder_of_mostly_bad_files_is_an_error(tree, tmp_path):
    for number in range(50):
        write(tree / f"train/NORMAL/{number}.jpeg", b"bad")
    with pytest.raises(DataError, match=r"50 of 90 files are unusable.*not an image"):
        prepared(tree, tmp_path / "cache")


def test_a_class_of_one_patient_cannot_be_split_by_patient(tmp_path):
    tree = make_tree(tmp_path / "tree", patients=1)
    with pytest.raises(DataError, match="no NORMAL image is left for validation"):
        prepared(tree, tmp_path / "cache")


@pytest.mark.parametrize(
    ("gone", "alarm", "error"),
    [
        ("test", "NORMAL and no PNEUMONIA image: .* on validation only", "no test images"),
        ("test/NORMAL", "test has no usable NORMAL image", "no usable NORMAL images"),
    ],
)
def test_a_test_without_both_classes_is_an_error_only_when_it_is_opened(
    tree, tmp_path, gone, alarm, error
):
    shutil.rmtree(tree / gone)
    dataset, sealed = prepared(tree, tmp_path / "cache")
    assert dataset.report.counts["test"]["NORMAL"] == 0
    assert any(re.search(alarm, line) for line in dataset.report.alarms)
    with pytest.raises(DataError, match=error):
        sealed.open()


def test_duplicates_and_test_patients_in_train_are_counted_and_alarms(tree, tmp_path):
    normal = sorted((tree / "train/NORMAL").iterdir())
    shutil.copyfile(normal[0], tree / "train/NORMAL/IM-0800-0001.jpeg")
    shutil.copyfile(normal[1], tree / "train/PNEUMONIA/person800_virus_1.jpeg")
    shutil.copyfile(normal[2], tree / "test/NORMAL/IM-0801-0001.jpeg")
    write(tree / "test/NORMAL/IM-0100-0009.jpeg", encoded(film(77)))
    dataset, _ = prepared(tree, tmp_path / "cache")
    assert [len(group) for group in dataset.report.identical] == [2, 2, 2]
    crossing = {border: len(groups) for border, groups in dataset.report.crossing.items()}
    assert crossing == {"test": 1, "validation": 0, "classes": 1, "patients": 3}
    assert dataset.report.test_patients_in_train == ("IM-0100",)
    alarms = " ".join(dataset.report.alarms)
    assert all(said in alarms for said in ("train and in test", "both labels", "not independent"))


def test_identical_films_of_two_children_are_on_one_side(tree, tmp_path):
    for number, path in enumerate(sorted((tree / "train/NORMAL").iterdir())[::2]):
        shutil.copyfile(path, tree / f"train/NORMAL/IM-{800 + number:04d}-0001.jpeg")
    dataset, _ = prepared(tree, tmp_path / "cache")
    assert dataset.report.crossing["validation"] == ()


def test_unmatched_names_and_colour_are_counted(tree, tmp_path):
    write(tree / "train/NORMAL/holiday.jpeg", encoded(film(5).convert("RGB")))
    red = film(6).convert("RGB").point(lambda v: v // 2)
    red.paste((250, 10, 10), (0, 0, 30, 40))
    write(tree / "train/NORMAL/IM-0700-0001.jpeg", encoded(red))
    dataset, _ = prepared(tree, tmp_path / "cache")
    assert dataset.report.unmatched_names == 1
    assert dataset.report.colour == ("train/NORMAL/IM-0700-0001.jpeg",)
    assert dataset.report.modes["RGB"] == 2


def test_weights_prevalence_and_sizes_are_those_of_the_files(tree, tmp_path):
    for number in range(20):
        name = f"train/PNEUMONIA/person{500 + number}_virus_1.jpeg"
        write(tree / name, encoded(film(500 + number, 60, 50)))
    dataset, _ = prepared(tree, tmp_path / "cache")
    ill = int(dataset.train.labels.sum())
    healthy = len(dataset.train) - ill
    assert dataset.class_weights[0] == pytest.approx(len(dataset.train) / (2 * healthy))
    assert dataset.class_weights[1] == pytest.approx(len(dataset.train) / (2 * ill))
    assert dataset.prevalence == pytest.approx(40 / 60)
    assert dataset.report.sizes["NORMAL"]["width"] == (48, 48, 48)
    assert dataset.report.sizes["PNEUMONIA"]["height"][2] == 50


STARTER = """
import sys
from pathlib import Path
from tests.data.trees import prepared
dataset, _ = prepared(Path(sys.argv[1]), Path(sys.argv[2]), image_size=64)
print(dataset.train.open_array().sum(), dataset.train.array_file.name)
"""


def test_processes_that_start_at_once_agree(tmp_path):
    tree = make_tree(tmp_path / "tree", patients=60)
    command = [sys.executable, "-c", STARTER, str(tree), str(tmp_path / "cache")]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(outputs)) == 1
    left = [path.name for path in (tmp_path / "cache/arrays").iterdir()]
    assert not [name for name in left if name.endswith(".tmp")]


# What an image set of any two classes needs.


def two_classes(root: Path, *names: str, colour: bool = False) -> Path:
    """Write folders of classes without train/."""
    for number, name in enumerate(names):
        for index in range(30):
            image = film(1000 * number + index)
            if colour:
                image = Image.merge("RGB", [image, image.rotate(180), image.rotate(90)])
            write(root / name / f"P{index // 2:03d}_{index}.png", encoded(image, "PNG"))
    return root


def test_classes_without_train_get_a_test_by_patient_that_no_seed_moves(tmp_path):
    root = two_classes(tmp_path / "tree", "malignant", "benign")
    tests = []
    for seed in (1, 2):
        dataset, sealed = prepared(root, tmp_path / "cache", seed=seed, patients=r"(P\d+)_")
        test = sealed.open()
        assert dataset.classes == ("benign", "malignant")
        assert not set(test.patients) & {*dataset.train.patients, *dataset.val.patients}
        assert len(test) == 12
        assert any("12 of 60 images were set aside as the test, by patient" in note
                   for note in dataset.report.notes)  # fmt: skip
        assert dataset.report.patients_known
        tests.append(test.paths)
    assert tests[0] == tests[1]


def test_patients_are_said_to_be_unknown_and_identical_files_still_kept_together(tmp_path):
    root = two_classes(tmp_path / "tree", "no", "yes")
    dataset, _ = prepared(root, tmp_path / "cache")
    assert not dataset.report.patients_known
    assert any("the patient of 60 images is unknown" in line for line in dataset.report.alarms)
    assert ("leakage", "patients are unknown; the split is by image") in table(dataset.report)
    for index, path in enumerate(sorted((root / "no").iterdir())):
        shutil.copyfile(path, root / f"no/copy{index}.png")
    dataset, _ = prepared(root, tmp_path / "cache")
    assert dataset.report.crossing["test"] == ()


def test_real_colour_is_kept_on_request_and_a_mix_is_told(tmp_path):
    root = two_classes(tmp_path / "tree", "benign", "malignant", colour=True)
    gray, _ = prepared(root, tmp_path / "cache")
    assert gray.channels == 1
    assert any("60 of 60 images have real colour and are" in a for a in gray.report.alarms)
    dataset, sealed = prepared(root, tmp_path / "cache", channels=Channels.RGB)
    assert dataset.channels == 3
    for subset in (dataset.train, dataset.val, sealed.open()):
        array = subset.open_array()
        assert array.shape[1:] == (32, 32, 3)
        for row, path in zip(subset.rows, subset.paths, strict=True):
            assert np.array_equal(array[row], load_image(root / path, 32, channels=3).pixels)
    assert dataset.views.open_array().shape[1:] == (32, 32, 3)
    assert not any("mix" in line for line in dataset.report.alarms)
    write(root / "benign/gray.png", encoded(film(9), "PNG"))
    mixed, _ = prepared(root, tmp_path / "cache", channels=Channels.RGB)
    assert any("a mix: 1 of 61 images are gray" in line for line in mixed.report.alarms)


def test_the_users_own_validation_folder_is_used_or_joined(tmp_path):
    tree = make_tree(tmp_path / "tree")
    for number in range(20):
        for name in ("NORMAL", "PNEUMONIA"):
            write(tree / "valid" / name / f"{number}.png", encoded(film(700 + number), "PNG"))
    own, _ = prepared(tree, tmp_path / "cache", split=SplitKind.FOLDERS)
    assert {path.split("/")[0] for path in own.val.paths} == {"valid"}
    assert {path.split("/")[0] for path in own.train.paths} == {"train"}
    joined, _ = prepared(tree, tmp_path / "cache")
    assert {path.split("/")[0] for path in joined.train.paths} == {"train", "valid"}
    assert any("val/ (20 NORMAL and 20 PNEUMONIA) is joined" in n for n in joined.report.notes)


def test_a_validation_folder_too_small_to_rank_is_an_error_with_its_number(tmp_path):
    tree = make_tree(tmp_path / "tree")
    write(tree / "val/NORMAL/a.png", encoded(film(1), "PNG"))
    with pytest.raises(DataError, match=r"val/ has 1 NORMAL and 0 PNEUMONIA images, too few"):
        prepared(tree, tmp_path / "cache", split=SplitKind.FOLDERS)


@pytest.mark.parametrize(("top", "bits"), [(1023, 10), (4096, 12), (16383, 14)])
def test_the_depth_of_16_bit_images_is_that_of_the_set(tmp_path, top, bits):
    for folder, count in (("train", 30), ("test", 6)):
        for number in range(count):
            for name in ("a", "b"):
                brightest = 900 if number % 3 else top
                values = np.linspace(0, brightest, 40 * 40).astype(np.uint16).reshape(40, 40)
                values[0, number] = 0
                image = Image.fromarray(values)
                write(tmp_path / f"tree/{folder}/{name}/{number}.png", encoded(image, "PNG"))
    dataset, sealed = prepared(tmp_path / "tree", tmp_path / "cache")
    assert dataset.report.depth == bits
    assert any(f"taken as {bits}" in note for note in dataset.report.notes)
    for subset in (dataset.train, sealed.open()):
        pixels = subset.open_array()
        for row, path in zip(subset.rows, subset.paths, strict=True):
            number = int(Path(path).stem)
            wanted = 255 * (900 if number % 3 else min(top, 2**bits - 1)) / (2**bits - 1)
            assert abs(int(pixels[row].max()) - wanted) <= 8
    again, _ = prepared(tmp_path / "tree", tmp_path / "cache")
    assert again.report.cache.reused
    assert again.report.depth == bits
