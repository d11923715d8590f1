import numpy as np
import pytest
from PIL import Image

from search.data.decode import UnusableImageError, decode, load_image
from search.errors import DataError
from tests.data.trees import encoded, film, write

WHOLE = encoded(film(1, 200, 160))
_PNG = encoded(film(1), "PNG")
BROKEN = _PNG[:60] + bytes(20) + _PNG[80:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is no image at all" * 20, "not an image"),
        (b"<html>403 Forbidden</html>", "not an image"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (encoded(film(1), "PNG")[:-40], "truncated"),
        (b"\xff\xd8\xff" + bytes(500), "not an image"),
        (BROKEN, "corrupt"),
        (encoded(Image.new("L", (1, 1))), "too small"),
        (encoded(Image.new("L", (400, 3))), "too small"),
        (bytes(128) + b"DICM" + bytes(100), "DICOM"),
        (encoded(Image.new("F", (20, 20)), "TIFF"), "floating-point"),
        (encoded(Image.new("I", (20, 20), 1_000_000), "TIFF"), "16 bits"),
        (_PNG[:16] + bytes(8) + _PNG[24:], "not an image"),  # of no size
    ],
)
def test_unusable_file_is_refused_with_its_reason(data, reason):
    with pytest.raises(UnusableImageError, match=reason):
        decode(data, 32)


@pytest.mark.parametrize(("mode", "off"), [("RGB", 3), ("CMYK", 8)])
def test_gray_stored_as_colour_is_gray(mode, off):
    decoded = decode(encoded(film(3).convert("RGB").convert(mode)), 32)
    assert decoded.mode == mode
    assert not decoded.colour
    wanted = decode(encoded(film(3)), 32).pixels[..., 0].astype(int)
    assert np.abs(decoded.pixels[..., 0] - wanted).max() <= off


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_real_colour_is_noticed_and_becomes_luma(kind):
    red = Image.new("RGB", (40, 40), (200, 20, 20))
    decoded = decode(encoded(red, kind), 32)
    assert decoded.colour
    assert decoded.pixels[..., 0].mean() == pytest.approx(0.299 * 200 + 0.701 * 20, abs=2)
    marked = film(4, 200, 200).convert("RGB")
    marked.paste((255, 0, 0), (5, 5, 15, 15))  # a small marker makes no coloured film
    assert not decode(encoded(marked, kind), 32).colour


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "1"])
def test_other_modes_are_read(mode):
    decoded = decode(encoded(film(6).convert(mode), "PNG"), 32)
    assert decoded.pixels[..., 0].shape == (32, 32)
    assert not decoded.colour


def test_fine_stripes_average_out_instead_of_aliasing():
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encoded(Image.fromarray(stripes), "PNG"), 64).pixels[..., 0]
    assert np.abs(pixels[:, 1:-1].astype(int) - 127).max() <= 2


def test_an_image_is_read_from_a_path_or_bytes_and_a_bad_file_is_named(tmp_path):
    path = write(tmp_path / "a.jpeg", WHOLE)
    assert np.array_equal(load_image(path, 32).pixels, load_image(WHOLE, 32).pixels)
    with pytest.raises(DataError, match=r"none\.jpeg: cannot be read"):
        load_image(tmp_path / "none.jpeg", 32)
    with pytest.raises(DataError, match=r"bad\.jpeg: not an image"):
        load_image(write(tmp_path / "bad.jpeg", b"bad"), 32)
