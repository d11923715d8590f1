"""Turns an image file into the network's input: the one function for training and prediction.

Differs from the notebook's `decode_jpeg` + `tf.image.resize` in three ways. A picture of at least
twice the wanted side is first averaged over blocks of 2, 4 or 8 pixels: in the DCT domain where it
is a JPEG, which is decoded at reduced scale, and in so many words where it is not, so that a film
gives the same pixels in every format. The resize is bilinear with a filter as wide as the
reduction (antialiased), where the notebook's takes four neighbouring pixels whatever the
reduction. And gray is kept as `uint8` instead of three equal `float32` channels. EXIF orientation
is not applied, as in the notebook.

An exported model does the same to raw pixels, see `scoring/preprocessing.py`.

Knows nothing of folders, splits or caches.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from search.data.dicom import DicomError, is_dicom, read_film
from search.errors import DataError

DECODER_VERSION = 3
"""Part of every cache key; raise it when the same file would give other pixels."""

BLOCKS = (8, 4, 2)
"""Sides in pixels of the blocks that are averaged, the largest that fits; a JPEG decoder's."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000")
"""Pillow's names of what may be in an image file; some of its other readers start programs."""

MIN_SIDE = 8
"""A film with a shorter side in pixels is rejected."""

MAX_PIXELS = 80_000_000
"""A larger picture is rejected unread: a detector has 4 to 20 million pixels."""

COLOUR_LIMIT = 3.0
"""Mean distance of chroma from neutral, in gray levels, above which a picture has colour."""


class UnusableImageError(Exception):
    """A file that cannot serve as a film; the message is the reason, without the path."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A film as the network gets it, and what the file said.

    Attributes:
        pixels: `uint8` (S, S), gray, 0–255.
        width: Width of the original in pixels.
        height: Height of the original in pixels.
        mode: Pillow's mode of the original, e.g. "L", "RGB", "CMYK", "I;16"; for DICOM see
            `dicom.read_film`.
        colour: Whether it had real colour, beyond three equal channels.
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str
    colour: bool


def load_gray(path_or_bytes: Path | str | bytes, image_size: int) -> np.ndarray:
    """Read one image file as the network's input.

    Args:
        path_or_bytes: An image file in any format that Pillow reads, or DICOM, or its content.
        image_size: Side S in pixels.

    Returns:
        `uint8` (S, S), gray, 0–255.

    Raises:
        DataError: The file cannot be read or is no usable image; names it and the reason.
    """
    if isinstance(path_or_bytes, bytes):
        name, data = "image", path_or_bytes
    else:
        name = str(path_or_bytes)
        try:
            data = Path(path_or_bytes).read_bytes()
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    try:
        return decode(data, image_size).pixels
    except UnusableImageError as error:
        raise DataError(f"{name}: {error}; give another file") from error


def decode(data: bytes, image_size: int) -> Decoded:
    """Decode the content of an image file and reduce it to S × S gray.

    Raises:
        UnusableImageError: Empty, truncated, corrupt, no image, too small or too large.
    """
    if not data:
        raise UnusableImageError("empty file")
    if is_dicom(data):
        return _decode_dicom(data, image_size)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height, mode = image.width, image.height, image.mode
            if min(width, height) < MIN_SIDE:
                raise UnusableImageError(f"too small ({width} × {height} pixels)")
            if width * height > MAX_PIXELS:
                raise UnusableImageError(f"too large ({width} × {height} pixels)")
            if mode in ("L", "RGB"):
                # Only JPEGs take the hint: a reduced decode, straight to luma where it is gray.
                image.draft("L" if mode == "L" else "YCbCr", (image_size, image_size))
            reduced = image.size != (width, height)
            gray, colour = _to_gray(image)
            pixels = shrink(gray, image_size, blocks=not reduced)
    except UnusableImageError:
        raise
    except UnidentifiedImageError:
        raise UnusableImageError("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableImageError("too large (more pixels than any film has)") from None
    except Exception as error:
        # Codecs meet hostile bytes with any exception there is; each means the same to the user.
        raise UnusableImageError(_reason(error)) from error
    return Decoded(pixels=pixels, width=width, height=height, mode=mode, colour=colour)


def _decode_dicom(data: bytes, image_size: int) -> Decoded:
    try:
        image, mode = read_film(data, max_pixels=MAX_PIXELS)
    except DicomError as error:
        raise UnusableImageError(str(error)) from error
    if min(image.size) < MIN_SIDE:
        raise UnusableImageError(f"too small ({image.width} × {image.height} pixels)")
    gray, colour = _to_gray(image)
    return Decoded(
        pixels=shrink(gray, image_size),
        width=image.width,
        height=image.height,
        mode=mode,
        colour=colour,
    )


def shrink(gray: Image.Image, image_size: int, *, blocks: bool = True) -> np.ndarray:
    """Reduce a gray picture to the network's input.

    Args:
        gray: Mode "L".
        image_size: Side S in pixels.
        blocks: Whether to average over blocks first; a JPEG decoder has done it already where it
            decoded at reduced scale.

    Returns:
        `uint8` (S, S).
    """
    side = next((side for side in BLOCKS if min(gray.size) >= side * image_size), 1)
    if blocks and side > 1:
        gray = Image.fromarray(_block_means(np.asarray(gray), side))
    small = gray.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.uint8)


def _block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return `uint8` (⌈H / side⌉, ⌈W / side⌉), rounded as the pixels of a JPEG have to be.

    Where they came from a JPEG, as a copy of one did, they were rounded one by one, and the
    decoder at reduced scale saw what they were before. At 1/8 it rounds halves up, and halves are
    frequent, since quantization leaves few values: up, then, with a sixteenth for what the pixels
    lost. At the other scales a half may have been either; to even, so that neither is preferred.
    """
    # Blocks that reach beyond the edge repeat its last pixels, as a JPEG encoder does.
    beyond = [(0, -length % side) for length in pixels.shape]
    whole = np.pad(pixels, beyond, mode="edge").astype(np.uint32)
    sums = whole.reshape(whole.shape[0] // side, side, -1, side).sum(axis=(1, 3))
    count = side * side
    half = count // 2 + count // 16 if side == 8 else count // 2 - 1 + sums // count % 2
    return ((sums + half) // count).astype(np.uint8)


def _reason(error: Exception) -> str:
    text = str(error).split("\n")[0]
    if "truncated" in text.lower():
        return f"truncated ({text})"
    return f"corrupt ({text or type(error).__name__})"


def _to_gray(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the film as mode "L" (ITU-R 601 luma), and whether it had colour."""
    if image.mode == "L":
        image.load()
        return image, False
    if image.mode == "F":
        raise UnusableImageError("floating-point pixels have no defined scale; save 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;"):
        return _from_deep(image), False
    if image.mode == "1" or image.mode.startswith("LA") or image.mode == "La":
        return image.convert("L"), False
    if image.mode == "YCbCr":
        luma, *chroma = image.split()
    else:
        rgb = image.convert("RGB")
        # Not the Y of Pillow's YCbCr, which is cut where this one is rounded.
        luma, chroma = rgb.convert("L"), list(rgb.convert("YCbCr").split()[1:])
    colour = any(_is_coloured(band) for band in chroma)
    return luma, colour


def _is_coloured(band: Image.Image) -> bool:
    # The histogram is far cheaper than the pixels, and most films are gray at a glance.
    values = [value for value, count in enumerate(band.histogram()) if count]
    if max(abs(value - 128) for value in values) <= COLOUR_LIMIT:
        return False
    pixels = np.asarray(band, dtype=np.float32)
    return float(np.abs(pixels - 128).mean()) > COLOUR_LIMIT


def _from_deep(image: Image.Image) -> Image.Image:
    """Scale 9- to 16-bit pixels to 8 bits.

    Detectors store 10, 12 or 14 bits in 16; dividing by 65,535 would make those films black. The
    depth is the smallest of 8, 10, 12, 14 and 16 bits that holds the brightest pixel.
    """
    values = np.asarray(image).astype(np.int64)
    top = int(values.max())
    if values.min() < 0 or top >= 2**16:
        raise UnusableImageError("pixels beyond 16 bits have no defined scale; save 8 or 16 bits")
    bits = next(depth for depth in (8, 10, 12, 14, 16) if top < 2**depth)
    scaled = np.rint(values * (255.0 / (2**bits - 1))).astype(np.uint8)
    return Image.fromarray(scaled)
