from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.data.views import (
    KINDS,
    ViewSettings,
    apply_view,
    assign_kinds,
    draw_view,
    make_views,
)
from search.errors import ConfigurationError
from search.records import Subset

IMAGE = np.random.default_rng(0).integers(1, 256, (40, 40, 1)).astype(np.uint8)
SETTINGS = ViewSettings()


def subset(tmp_path: Path, count: int = 41) -> Subset:
    array_file = tmp_path / "val.npy"
    pixels = np.random.default_rng(1).integers(0, 256, (count, 24, 24, 1)).astype(np.uint8)
    np.save(array_file, pixels)
    return Subset(
        array_file=array_file,
        rows=np.arange(count),
        labels=(np.arange(count) % 3 > 0).astype(np.int8),
        paths=tuple(f"train/X/{i}.jpeg" for i in range(count)),
        patients=tuple(str(i) for i in range(count)),
        subtypes=("",) * count,
    )


def reordered(val: Subset, order: np.ndarray) -> Subset:
    paths = tuple(val.paths[i] for i in order)
    return replace(val, rows=val.rows[order], labels=val.labels[order], paths=paths)


def by_path(val: Subset, views) -> dict:
    array = views.open_array()
    return {
        (val.paths[source], views.names[kind]): array[row].tobytes()
        for row, (source, kind) in enumerate(zip(views.source, views.view, strict=True))
    }


@given(st.integers(1, 4), st.lists(st.integers(0, 1), max_size=80), st.integers(0, 3))
def test_kinds_are_balanced_in_each_class(per_image, labels, seed):
    settings = ViewSettings(views_per_image=per_image)
    paths = [f"{i}.jpeg" for i in range(len(labels))]
    assigned = assign_kinds(paths, labels, settings=settings, seed=seed)
    for label in (0, 1):
        mine = [kinds for kinds, value in zip(assigned, labels, strict=True) if value == label]
        used = Counter(dict.fromkeys(KINDS, 0))
        used.update(kind for kinds in mine for kind in kinds)
        assert max(used.values()) - min(used.values()) <= 1
        assert all(len(set(kinds)) == per_image for kinds in mine)


def test_default_costs_no_more_than_two_clean_evaluations(tmp_path):
    val = subset(tmp_path)
    views, _ = make_views(val, settings=SETTINGS, seed=8, cache_dir=tmp_path)
    assert len(views) == 2 * len(val)
    assert views.open_array().shape == (82, 24, 24, 1)
    assert views.open_array().dtype == np.uint8
    assert np.array_equal(views.labels, val.labels[views.source])


def test_views_depend_on_seed_and_path_and_not_on_order(tmp_path):
    val = subset(tmp_path)
    mixed = reordered(val, np.random.default_rng(2).permutation(len(val)))
    views, _ = make_views(val, settings=SETTINGS, seed=8, cache_dir=tmp_path / "a")
    again, _ = make_views(mixed, settings=SETTINGS, seed=8, cache_dir=tmp_path / "b")
    other, _ = make_views(val, settings=SETTINGS, seed=0, cache_dir=tmp_path / "a")
    assert by_path(val, views) == by_path(mixed, again)
    assert by_path(val, views) != by_path(val, other)


def test_views_are_made_once(tmp_path, monkeypatch):
    val = subset(tmp_path)
    first, _ = make_views(val, settings=SETTINGS, seed=8, cache_dir=tmp_path)

    def fail(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr("search.data.views.apply_view", fail)
    second, _ = make_views(val, settings=SETTINGS, seed=8, cache_dir=tmp_path)
    assert second.array_file == first.array_file


def test_settings_are_part_of_the_cache_key(tmp_path):
    val = subset(tmp_path)
    files = {
        make_views(val, settings=settings, seed=8, cache_dir=tmp_path)[0].array_file
        for settings in (SETTINGS, ViewSettings(shift=0.1), ViewSettings(views_per_image=3))
    }
    assert len(files) == 3


@given(st.text(min_size=1, max_size=20), st.integers(0, 100))
def test_strengths_stay_within_the_settings(path, seed):
    def drawn(kind):
        return draw_view(kind, path, settings=SETTINGS, seed=seed)

    left, top, right, bottom = drawn("crop")["box"]
    assert 0.5 <= (right - left) * (bottom - top) <= 0.9 + 1e-9
    assert min(left, top) >= 0
    assert max(right, bottom) <= 1 + 1e-9
    left, top, right, bottom = drawn("shift")["box"]
    assert max(abs(left), abs(top)) <= 0.12
    assert right - left == pytest.approx(1)
    left, top, right, bottom = drawn("zoom_out")["box"]
    assert 1 <= right - left <= 1 / 0.85 + 1e-9
    assert max(left, top) <= 0
    assert min(right, bottom) >= 1 - 1e-9
    tone = drawn("tone")
    assert 0.7 <= tone["gamma"] <= 1.4
    assert 0.75 <= tone["contrast"] <= 1.25


def test_a_view_of_colour_alters_every_channel_alike():
    colour = np.concatenate([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]], axis=-1)
    box = (0.1, -0.2, 0.8, 0.9)
    altered = apply_view(colour, box=box)
    assert altered.shape == colour.shape
    for channel in range(3):
        alone = apply_view(colour[..., channel : channel + 1], box=box)
        assert np.array_equal(altered[..., channel : channel + 1], alone)


def test_no_view_leaves_the_image_as_it_is():
    assert np.array_equal(apply_view(IMAGE), IMAGE)


def test_shift_brings_black_in():
    shifted = apply_view(IMAGE, box=(0.1, 0.0, 1.1, 1.0))
    assert (shifted[:, 36:] == 0).all()
    assert np.array_equal(shifted[:, :36], IMAGE[:, 4:])


def test_zoom_out_puts_the_film_on_black():
    zoomed = apply_view(np.full((40, 40, 1), 200, np.uint8), box=(-0.1, -0.1, 1.1, 1.1))
    assert (zoomed[0] == 0).all()
    assert zoomed[20, 20] == 200
    assert (zoomed > 100).mean() == pytest.approx(1 / 1.44, abs=0.05)


def test_crop_enlarges_a_part():
    image = np.zeros((40, 40, 1), np.uint8)
    image[10:30, 10:30] = 255
    assert (apply_view(image, box=(0.3, 0.3, 0.7, 0.7)) == 255).all()


def test_tone_keeps_black_white_order():
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))[..., None]
    toned = apply_view(ramp, gamma=1.3, contrast=0.8)
    assert (np.diff(toned[0, :, 0].astype(int)) >= 0).all()
    assert not np.array_equal(toned, ramp)


@pytest.mark.parametrize(
    "options",
    [
        {"kinds": ()},
        {"kinds": ("crop", "crop")},
        {"kinds": ("blur",)},
        {"kinds": ("crop",), "views_per_image": 2},
        {"views_per_image": 0},
        {"views_per_image": 5},
        {"crop_area": (0.9, 0.5)},
        {"crop_area": (0.5, 1.2)},
        {"shift": 0.6},
        {"zoom_out": -0.1},
        {"gamma": (0.0, 1.0)},
        {"contrast": (2.0, 1.0)},
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ConfigurationError, match=r"^--view"):
        ViewSettings(**options)
