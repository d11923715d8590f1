"""DICOM films written by pydicom here, as detectors and archives write them."""

import numpy as np
import pytest

from search.data import dicom
from search.data.decode import UnusableImageError, decode
from search.data.dicom import NEEDS_PYDICOM
from tests.data.trees import dicom_file

SIDE = 64


@pytest.fixture
def pydicom():
    return pytest.importorskip("pydicom")


def ramp(low, high, side=SIDE):
    """A square that rises from left to right."""
    return np.tile(np.rint(np.linspace(low, high, side)), (side, 1))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_without_a_window_the_range_is_that_of_the_stored_bits(pydicom, bits):
    top = 2**bits - 1
    found = decode(dicom_file(ramp(0, top), bits=bits), SIDE).pixels[..., 0]
    np.testing.assert_allclose(found, ramp(0, top) * 255 / top, atol=0.51)
    half = decode(dicom_file(ramp(0, top // 2), bits=bits), SIDE).pixels[..., 0]
    assert 127 <= half.max() <= 128


RISE = ramp(0, 4095)
LINEAR = np.clip((RISE - 500) / 1000, 0, 1) * 255
"""PS3.3 C.11.2.1.2.1 with centre 1000.5 and width 1001: black up to 500, white from 1500."""


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({"WindowCenter": 1000.5, "WindowWidth": 1001}, LINEAR),
        ({"WindowCenter": [1000.5, 3000], "WindowWidth": [1001, 9]}, LINEAR),
        ({"WindowCenter": 1000.5, "WindowWidth": 1001, "kind": "MONOCHROME1"}, 255 - LINEAR),
        (
            {"RescaleSlope": 2, "RescaleIntercept": -1000, "RescaleType": "US",
             "WindowCenter": 1000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
            np.clip((2 * RISE - 1500) / 1000, 0, 1) * 255,
        ),
        (
            {"WindowCenter": 2000, "WindowWidth": 800, "VOILUTFunction": "SIGMOID"},
            255 / (1 + np.exp(-4 * (RISE - 2000) / 800)),
        ),
    ],
    ids=["its ends are black and white", "the first of several", "before inversion",
         "of rescaled values", "sigmoid"],
)  # fmt: skip
def test_a_window_maps_values_as_the_standard_says(pydicom, tags, wanted):
    found = decode(dicom_file(RISE, bits=12, **tags), SIDE).pixels[..., 0]
    np.testing.assert_allclose(found, wanted, atol=0.51)


@pytest.mark.parametrize("slope", [-1, 1])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_monochrome1_and_a_negative_slope_each_turn_black_and_white(pydicom, kind, slope):
    film = ramp(0, 255)
    tags = {"RescaleSlope": -1, "RescaleIntercept": 255} if slope < 0 else {}
    turned = (kind == "MONOCHROME1") != (slope < 0)
    found = decode(dicom_file(film, bits=8, kind=kind, **tags), SIDE)
    np.testing.assert_array_equal(found.pixels[..., 0], 255 - film if turned else film)
    assert (found.mode, found.colour) == (f"DICOM {kind} 8 bits", False)


def test_a_lookup_table_is_used_before_a_window(pydicom):
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [256, 0, 12]
    table.LUTData = (16 * np.arange(255, -1, -1)).astype("<u2").tobytes()
    data = dicom_file(
        ramp(0, 255), bits=8, VOILUTSequence=[table], WindowCenter=10, WindowWidth=5
    )  # fmt: skip
    wanted = 16 * (255 - ramp(0, 255)) * 255 / 4095
    np.testing.assert_allclose(decode(data, SIDE).pixels[..., 0], wanted, atol=0.51)


def test_padding_is_black_in_either_polarity(pydicom):
    film = ramp(0, 4000)
    film[:, :8] = 4095
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        data = dicom_file(film, bits=12, kind=kind, PixelPaddingValue=4095)
        pixels = decode(data, SIDE).pixels[..., 0]
        assert pixels[:, :8].max() == 0
        assert pixels[:, 8:].max() > 200


def test_a_lossless_compressed_film_is_read(pydicom):
    from pydicom.uid import RLELossless

    film = np.random.default_rng(2).integers(0, 65536, (SIDE, SIDE))
    plain = dicom_file(film, bits=16)
    packed = dicom_file(film, bits=16, syntax=RLELossless)
    np.testing.assert_array_equal(
        decode(packed, SIDE).pixels[..., 0], decode(plain, SIDE).pixels[..., 0]
    )


def test_colour_becomes_gray_and_is_noticed(pydicom):
    red = np.full((SIDE, SIDE, 3), (200, 20, 20))
    found = decode(dicom_file(red, bits=8, kind="RGB"), SIDE)
    assert found.colour
    assert found.pixels[..., 0].mean() == pytest.approx(0.299 * 200 + 0.701 * 20, abs=1)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"Rows": 0}, "without an image"),
        ({"Rows": 60000, "Columns": 60000}, "too large"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "window of width 0"),
        ({"Rows": 500}, "corrupt DICOM"),
    ],
    ids=str,
)
def test_what_is_no_film_is_refused_with_its_reason(pydicom, tags, said):
    data = dicom_file(ramp(0, 255), bits=8, **tags)
    with pytest.raises(UnusableImageError, match=said):
        decode(data, SIDE)
    with pytest.raises(UnusableImageError, match="corrupt DICOM"):
        decode(dicom_file(ramp(0, 255), bits=8)[:-1000], SIDE)


def test_without_pydicom_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(dicom, "installed", lambda: False)
    with pytest.raises(UnusableImageError, match="pip install") as caught:
        decode(bytes(128) + b"DICM" + bytes(100), SIDE)
    assert str(caught.value) == NEEDS_PYDICOM
