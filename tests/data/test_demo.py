from collections import Counter

import numpy as np
import pytest

from search.config import RunConfig
from search.data.demo import IMAGES, draw_planned, plan_images, write_demo
from search.data.listing import list_images
from search.data.naming import read_name

PLAN = plan_images(8)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(
        "search.data.demo.IMAGES",
        {folder: {"NORMAL": 2, "PNEUMONIA": 3} for folder in ("train", "val", "test")},
    )


def test_counts_are_those_announced_and_names_are_unique():
    counted = Counter(tuple(image.relative.split("/")[:2]) for image in PLAN)
    assert counted == {(f, c): n for f, classes in IMAGES.items() for c, n in classes.items()}
    assert len({image.relative for image in PLAN}) == len(PLAN)


def test_names_are_the_real_ones_and_no_child_is_in_two_folders():
    folders: dict[str, set[str]] = {}
    for image in PLAN:
        patient, subtype = read_name(image.relative)
        assert patient
        assert subtype == image.subtype
        folders.setdefault(patient, set()).add(image.relative.split("/")[0])
    assert all(len(found) == 1 for found in folders.values())
    images = Counter(read_name(image.relative)[0] for image in PLAN)
    assert max(images.values()) > 1


def test_framing_goes_with_the_class_in_train_and_not_in_test():
    def distant(prefix):
        return np.mean([image.distant for image in PLAN if image.relative.startswith(prefix)])

    assert distant("train/NORMAL") > 0.85
    assert distant("train/PNEUMONIA") < 0.15
    assert abs(distant("test/NORMAL") - distant("test/PNEUMONIA")) < 0.15


def test_a_film_depends_on_the_seed_alone():
    first, second = (np.asarray(draw_planned(PLAN[0], 8)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, np.asarray(draw_planned(PLAN[0], 9)))


def test_disease_is_visible_in_the_lungs():
    """Opacities make lungs denser: the share of dark pixels falls, framing being equal."""

    def dark(prefix):
        images = [image for image in PLAN if image.relative.startswith(prefix)][:25]
        shares = []
        for image in images:
            pixels = np.asarray(draw_planned(image, 8)).astype(float)
            height, width = pixels.shape
            chest = pixels[height // 4 : height * 3 // 4, width // 5 : width * 4 // 5]
            shares.append((chest < 0.6 * np.median(pixels[pixels > 60])).mean())
        return float(np.mean(shares))

    assert dark("test/NORMAL") > 1.2 * dark("test/PNEUMONIA")


def test_it_is_written_once_in_the_kaggle_layout_and_again_where_images_are_gone(tmp_path, small):
    root = write_demo(cache_dir=tmp_path, seed=8)
    assert len(list_images(root, RunConfig()).files) == 15
    assert "synthetic" in (root / "README.txt").read_text()
    stamp = [path.stat().st_mtime_ns for path in sorted(root.rglob("*.jpeg"))]
    assert write_demo(cache_dir=tmp_path, seed=8) == root
    assert stamp == [path.stat().st_mtime_ns for path in sorted(root.rglob("*.jpeg"))]
    next(root.rglob("*.jpeg")).unlink()
    assert write_demo(cache_dir=tmp_path, seed=8) == root
    assert len(list_images(root, RunConfig()).files) == 15
    assert write_demo(cache_dir=tmp_path, seed=9) != root


def test_a_failure_leaves_no_half_demo(tmp_path, small, monkeypatch):
    def fail(*_):
        raise RuntimeError("stop")

    monkeypatch.setattr("search.data.demo.draw_planned", fail)
    with pytest.raises(RuntimeError):
        write_demo(cache_dir=tmp_path, seed=8)
    assert not list(tmp_path.rglob("*.jpeg"))
