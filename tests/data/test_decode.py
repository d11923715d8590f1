import numpy as np
import pytest
from PIL import Image

from search.data.decode import MAX_PIXELS, UnusableImageError, decode, load_image
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
        (_PNG[:16] + bytes(8) + _PNG[24:], ""),  # of no size
    ],
)
def test_unusable_file_is_refused_with_its_reason(data, reason):
    with pytest.raises(UnusableImageError, match=reason):
        decode(data, 32)


def test_implausibly_large_picture_is_refused_unread():
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(UnusableImageError, match="too large"):
        decode(encoded(Image.new("1", (side, side)), "PNG"), 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_formats_agree(kind):
    wanted = decode(encoded(film(2), "PNG"), 32).pixels[..., 0].astype(int)
    found = decode(encoded(film(2), kind), 32).pixels[..., 0].astype(int)
    assert np.abs(found - wanted).mean() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(kind):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    decoded = decode(encoded(Image.fromarray(ramp.astype(np.uint16)), kind), 64)
    assert decoded.mode == "I;16"
    np.testing.assert_allclose(decoded.pixels[..., 0], ramp / 257, atol=0.51)


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
    assert (
        abs(int(decoded.pixels[..., 0].mean()) - round(0.299 * 200 + 0.587 * 20 + 0.114 * 20)) <= 2
    )


def test_a_small_coloured_marker_does_not_make_a_film_coloured():
    image = film(4, 200, 200).convert("RGB")
    image.paste((255, 0, 0), (5, 5, 15, 15))
    assert not decode(encoded(image), 32).colour


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "1"])
def test_other_modes_are_read(mode):
    decoded = decode(encoded(film(6).convert(mode), "PNG"), 32)
    assert decoded.pixels[..., 0].shape == (32, 32)
    assert not decoded.colour


def test_large_jpeg_is_decoded_at_reduced_scale_to_nearly_the_same():
    image = film(7, 1400, 1000)
    full = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    decoded = decode(encoded(image), 64)
    assert (decoded.width, decoded.height) == (1400, 1000)
    assert np.abs(decoded.pixels[..., 0] - full).max() <= 6


def test_fine_stripes_average_out_instead_of_aliasing():
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encoded(Image.fromarray(stripes), "PNG"), 64).pixels[..., 0]
    assert np.abs(pixels[:, 1:-1].astype(int) - 127).max() <= 2


def test_load_image_takes_a_path_or_bytes(tmp_path):
    path = write(tmp_path / "a.jpeg", WHOLE)
    assert np.array_equal(load_image(path, 32).pixels, load_image(WHOLE, 32).pixels)
    assert load_image(path, 32).pixels.dtype == np.uint8


def test_load_image_names_the_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpeg: cannot be read"):
        load_image(tmp_path / "none.jpeg", 32)
    with pytest.raises(DataError, match=r"bad\.jpeg: not an image"):
        load_image(write(tmp_path / "bad.jpeg", b"bad"), 32)
