import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.data.views import (
    ViewSettings,
    apply_view,
    draw_view,
)
from search.errors import ConfigurationError

IMAGE = np.random.default_rng(0).integers(1, 256, (40, 40, 1)).astype(np.uint8)
SETTINGS = ViewSettings()


@given(st.text(min_size=1, max_size=20), st.integers(0, 100))
def test_strengths_stay_within_the_settings(path, seed):
    crop, shift, zoom_out, tone = (
        draw_view(kind, path, settings=SETTINGS, seed=seed)
        for kind in ("crop", "shift", "zoom_out", "tone")
    )
    left, top, right, bottom = crop["box"]
    assert 0.5 <= (right - left) * (bottom - top) <= 0.9 + 1e-9
    assert 0 <= min(left, top) <= max(right, bottom) <= 1 + 1e-9
    left, top, right, bottom = shift["box"]
    assert max(abs(left), abs(top)) <= 0.12
    assert right - left == pytest.approx(1)
    left, top, right, bottom = zoom_out["box"]
    assert 1 <= right - left <= 1 / 0.85 + 1e-9
    assert max(left, top) <= 0 < 1 - 1e-9 <= min(right, bottom)
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


def test_a_view_shows_the_part_in_its_box_and_black_outside_of_the_film():
    assert np.array_equal(apply_view(IMAGE), IMAGE)
    shifted = apply_view(IMAGE, box=(0.1, 0.0, 1.1, 1.0))
    assert (shifted[:, 36:] == 0).all()
    assert np.array_equal(shifted[:, :36], IMAGE[:, 4:])
    zoomed = apply_view(np.full((40, 40, 1), 200, np.uint8), box=(-0.1, -0.1, 1.1, 1.1))
    assert ((zoomed[0] == 0).all(), zoomed[20, 20]) == (True, 200)
    assert (zoomed > 100).mean() == pytest.approx(1 / 1.44, abs=0.05)
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
