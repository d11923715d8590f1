"""Opens an image file and turns it into the network's input: the one function for every command.

Differs from the notebook's `decode_jpeg` + `tf.image.resize` in three ways. An image of at least
twice the wanted side is first averaged over blocks of 2, 4 or 8 pixels: in the DCT domain where it
is a JPEG, which is decoded at reduced scale, and in so many words where it is not, so that an image
gives the same pixels in every format. The resize is bilinear with a filter as wide as the
reduction (antialiased), where the notebook's takes four neighbouring pixels whatever the
reduction. And gray is kept as `uint8` instead of three equal `float32` channels. An EXIF
orientation is applied.

Whatever lies under a name is refused before it costs much: pipes and devices, files and images
that are too large, JPEGs of thousands of scans. The limits are on size and work, not on the clock,
so that the same files are used on a slow machine. A large image waits until there is room for it,
which bounds memory in many threads.

An exported model does the same to raw pixels, see `scoring/preprocessing.py`.

Knows nothing of folders, splits or caches.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from search.data.dicom import MAX_SCANS, DicomError, bits_used, is_dicom, open_dicom, render
from search.errors import DataError

DECODER_VERSION = 4
"""Part of every cache key; raise it when the same file would give other pixels."""

BLOCKS = (8, 4, 2)
"""Sides in pixels of the blocks that are averaged, the largest that fits; a JPEG decoder's."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000")
"""Pillow's names of what may be in an image file; some of its other readers start programs."""

SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"GIF8",
    b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
)  # fmt: skip
"""How the content of such a file begins, WEBP apart."""

MIN_SIDE = 8
"""An image with a shorter side in pixels is rejected."""

MAX_PIXELS = 80_000_000
"""A larger image is rejected unread: a detector has 4 to 20 million pixels."""

MAX_BYTES = 256_000_000
"""A larger file is rejected unread: 80 million pixels of 24 bits fit in."""

COLOUR_LIMIT = 3.0
"""Mean distance of chroma from neutral, in gray levels, above which an image has colour."""

_STRIP = 4_000_000
"""Pixels that are averaged at a time, since their sums take four times the memory."""

# Numbers of TIFF tags, and values of theirs.
_ORIENTATION, _SIDEWAYS = 274, range(5, 9)
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_BITS_PER_SAMPLE = 258


class UnusableImageError(Exception):
    """A file that cannot serve as an image; the message is the reason, without the path."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image as the network gets it, and what the file said."""

    pixels: np.ndarray  # `uint8` (S, S, C), 0–255; C is 1 for gray, 3 for colour
    width: int  # Width of the original in pixels, upright
    height: int  # Height of the original in pixels, upright
    # Pillow's mode of the original, e.g. "L", "RGB", "CMYK", "I;16"; for DICOM see `dicom.render`
    mode: str
    colour: bool  # Whether it had real colour, beyond three equal channels
    turned: bool = False  # Whether an EXIF orientation was applied
    # Of pixels of 9 to 16 bits whose number of bits in use the file does not tell, the largest
    # value; else 0
    brightest: int = 0


class _Room:
    """Lets threads in while what they need together fits; a larger need gets in alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, needed: int) -> Iterator[None]:
        """Wait for room, and keep it for the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + needed <= self._size)
            self._used += needed
        try:
            yield
        finally:
            with self._changed:
                self._used -= needed
                self._changed.notify_all()


# A file that has room to be decoded never waits for room to be read: no deadlock.
_room_to_read = _Room(512_000_000)
_room_to_decode = _Room(768_000_000)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[bytes]:
    """Give the content of a regular file for the block.

    Raises:
        UnusableImageError: It cannot be read, is too large, or is a folder, a pipe or a device,
            which might never end.
    """
    with contextlib.ExitStack() as stack:
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode) and not readable(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if not stat.S_ISREG(status.st_mode):
                raise UnusableImageError("not a regular file")
            if status.st_size > MAX_BYTES:
                raise UnusableImageError(f"too large ({status.st_size / 1e9:.1f} GB)")
            stack.enter_context(_room_to_read.of(status.st_size))
            # Should it have become a pipe since, opening it does not wait.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            with open(descriptor, "rb") as handle:
                data = handle.read(MAX_BYTES)
        except OSError as error:
            raise UnusableImageError(f"cannot be read ({error.strerror or error})") from error
        yield data


def readable(folder: Path) -> bool:
    """Return whether this process may list a folder and open what is in it."""
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)


def load_image(
    path_or_bytes: Path | str | bytes, image_size: int, *, channels: int = 1, bits: int = 0
) -> Decoded:
    """Read one image file as the network's input.

    Args:
        path_or_bytes: An image file in any format of `FORMATS`, or DICOM, or its content.
        image_size: Side S in pixels.
        channels: 1 for gray, 3 for colour.
        bits: In use, of a file with 9 to 16 that does not tell; 0 to go by its brightest pixel.

    Raises:
        DataError: The file cannot be read or is no usable image; names it and the reason.
    """
    name = "image" if isinstance(path_or_bytes, bytes) else str(path_or_bytes)
    try:
        if isinstance(path_or_bytes, bytes):
            return decode(path_or_bytes, image_size, channels=channels, bits=bits)
        with opened(Path(path_or_bytes)) as data:
            return decode(data, image_size, channels=channels, bits=bits)
    except UnusableImageError as error:
        raise DataError(f"{name}: {error}; give another file") from error


def is_image(path: Path) -> bool:
    """Return whether a regular file is an image by its content, whatever its name.

    Reads 132 bytes. False where they cannot be read, and for the table of contents of a DICOM disc.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        if not path.is_file():
            return False
        with open(path, "rb", buffering=0) as handle:
            return begins_image(handle.read(132))
    except OSError:
        return False


def begins_image(head: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of an image."""
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith(SIGNATURES) or is_dicom(head)


def decode(data: bytes, image_size: int, *, channels: int = 1, bits: int = 0) -> Decoded:
    """As `load_image`, of a file's content; raises UnusableImageError."""
    if not data:
        raise UnusableImageError("empty file")
    try:
        if is_dicom(data):
            return _decode_dicom(data, image_size, channels=channels, bits=bits)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _decode(data, image, image_size, channels=channels, bits=bits)
    except UnusableImageError:
        raise
    except DicomError as error:
        raise UnusableImageError(str(error)) from error
    except UnidentifiedImageError:
        raise UnusableImageError("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableImageError("too large (more pixels than any image has)") from None
    except Exception as error:
        # Codecs meet hostile bytes with any exception there is; each means the same to the user.
        text = str(error).split("\n")[0]
        kind = "truncated" if "truncated" in text.lower() else "corrupt"
        raise UnusableImageError(f"{kind} ({text or type(error).__name__})") from error


def _decode(
    data: bytes, image: Image.Image, image_size: int, *, channels: int, bits: int
) -> Decoded:
    width, height, mode = image.width, image.height, image.mode
    _refuse_extreme(width, height)
    # Whatever name Pillow has for its kind.
    is_jpeg = data.startswith(b"\xff\xd8\xff")
    packed = image.format == "TIFF" and image.info.get("compression") == "jpeg"
    if is_jpeg or packed:
        # Inside a scan 0xFF is followed by other bytes than this marker's.
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS * (len(getattr(image, "tile", (1,))) if packed else 1):
            raise UnusableImageError(f"a JPEG of {scans:,} scans; give at most {MAX_SCANS}")
    # Pillow turns a TIFF itself while it loads it, and forgets that there was something to do.
    turned = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1) > 1
    if mode in ("L", "RGB"):
        # Only JPEGs take the hint: a reduced decode, straight to luma where it is gray.
        wanted = mode if mode == "L" or channels == 3 else "YCbCr"
        image.draft(wanted, (image_size, image_size))
    reduced = image.size != (width, height)
    with _room_to_decode.of(_bytes_needed(image, width * height)):
        image.load()
        orientation = _orientation(image)
        if orientation > 1:
            ImageOps.exif_transpose(image, in_place=True)
        plain, colour, brightest = _plain(image, channels=channels, bits=bits)
        pixels = shrink(plain, image_size, blocks=not reduced)
        if is_jpeg:
            _refuse_damaged(data)
        # Freed before the next one is let in.
        plain.close()
        image.close()
    if orientation in _SIDEWAYS:
        width, height = height, width
    return Decoded(
        pixels=_with_channels(pixels, channels),
        width=width,
        height=height,
        mode=mode,
        colour=colour,
        turned=turned or orientation > 1,
        brightest=brightest,
    )


def _decode_dicom(data: bytes, image_size: int, *, channels: int, bits: int) -> Decoded:
    dataset = open_dicom(data)
    _refuse_extreme(dataset.Columns, dataset.Rows)
    with _room_to_decode.of(dataset.Columns * dataset.Rows * 12):
        image, stored, brightest = render(dataset, bits=bits)
        plain, colour, _ = _plain(image, channels=channels, bits=bits)
        pixels = shrink(plain, image_size)
    return Decoded(
        pixels=_with_channels(pixels, channels),
        width=image.width,
        height=image.height,
        mode=stored,
        colour=colour,
        brightest=brightest,
    )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, where there is none that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        # Damaged metadata say nothing about the pixels.
        return 1
    return found if found in range(1, 9) else 1


def _refuse_extreme(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(f"too small ({width} × {height} pixels)")
    if width * height > MAX_PIXELS:
        raise UnusableImageError(f"too large ({width} × {height} pixels)")


def _refuse_damaged(data: bytes) -> None:
    """Refuse a JPEG that Pillow fills up with gray: it does not pass the decoder's warnings on.

    Asked for at an eighth, little more is done than to read the compressed data.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        # Other refusals are of what the library cannot read, and Pillow perhaps can.
        if str(error).startswith(("Corrupt JPEG data", "Premature end")):
            raise UnusableImageError(f"damaged ({error})") from error


def _bytes_needed(image: Image.Image, full: int) -> int:
    """Return about what decoding takes: pixels, copies in another mode, and coefficients."""
    each = {"1": 2, "L": 2, "P": 10}.get(image.mode, 12)
    coefficients = 6 * full if image.info.get("progressive") else 0
    return image.width * image.height * each + coefficients


def shrink(image: Image.Image, image_size: int, *, blocks: bool = True) -> np.ndarray:
    """Reduce an image of mode "L" or "RGB" to `uint8` (S, S, 1) or (S, S, 3).

    A JPEG decoder has averaged over blocks already where it decoded at reduced scale.
    """
    side = next((side for side in BLOCKS if min(image.size) >= side * image_size), 1)
    if blocks and side > 1:
        bands = [_block_means(np.asarray(band), side) for band in image.split()]
        image = Image.merge(image.mode, [Image.fromarray(band) for band in bands])
    small = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.uint8).reshape(image_size, image_size, -1)


def _block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return `uint8` (⌈H / side⌉, ⌈W / side⌉), rounded as the pixels of a JPEG have to be.

    Where they came from a JPEG, as a copy of one did, they were rounded one by one, and the
    decoder at reduced scale saw what they were before. At 1/8 it rounds halves up, and halves are
    frequent, since quantization leaves few values: up, then, with a sixteenth for what the pixels
    lost. At the other scales a half may have been either; to even, so that neither is preferred.
    """
    strip = max(1, _STRIP // pixels.shape[1] // side) * side
    means = []
    for top in range(0, len(pixels), strip):
        part = pixels[top : top + strip]
        # Blocks that reach beyond the edge repeat its last pixels, as a JPEG encoder does.
        beyond = [(0, -length % side) for length in part.shape]
        whole = np.pad(part, beyond, mode="edge").astype(np.uint32)
        sums = whole.reshape(whole.shape[0] // side, side, -1, side).sum(axis=(1, 3))
        count = side * side
        half = count // 2 + count // 16 if side == 8 else count // 2 - 1 + sums // count % 2
        means.append(((sums + half) // count).astype(np.uint8))
    return np.concatenate(means)


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return (S, S, C); a gray image has three equal channels among images in colour."""
    return pixels if pixels.shape[-1] == channels else np.repeat(pixels, channels, axis=-1)


def _plain(image: Image.Image, *, channels: int, bits: int) -> tuple[Image.Image, bool, int]:
    """Return the image in 8 bits, whether it has colour, and `Decoded.brightest`.

    Its mode is "L" (ITU-R 601 luma), or "RGB" where three channels are wanted and there.
    """
    mode = image.mode
    if mode == "L":
        return image, False, 0
    if mode == "F":
        raise UnusableImageError("floating-point pixels have no defined scale; save 8 or 16 bits")
    if mode == "I" or mode.startswith("I;"):
        plain, brightest = _from_deep(image, bits)
        return plain, False, brightest
    if mode in ("1", "La") or mode.startswith("LA"):
        return image.convert("L"), False, 0
    if mode == "YCbCr" and channels == 1:
        luma, *chroma = image.split()
        return luma, any(_is_coloured(band) for band in chroma), 0
    rgb = image.convert("RGB")
    # Enough of a large image's pixels to tell whether it has colour.
    large = rgb.width * rgb.height > _STRIP
    sample = rgb.resize((2000, 2000), Image.Resampling.NEAREST) if large else rgb
    colour = any(_is_coloured(band) for band in sample.convert("YCbCr").split()[1:])
    # Not the Y of Pillow's YCbCr, which is cut where this one is rounded.
    return rgb if channels == 3 else rgb.convert("L"), colour, 0


def _is_coloured(band: Image.Image) -> bool:
    # The histogram is far cheaper than the pixels, and most images are gray at a glance.
    values = [value for value, count in enumerate(band.histogram()) if count]
    if max(abs(value - 128) for value in values) <= COLOUR_LIMIT:
        return False
    pixels = np.asarray(band, dtype=np.float32)
    return float(np.abs(pixels - 128).mean()) > COLOUR_LIMIT


def _from_deep(image: Image.Image, bits: int) -> tuple[Image.Image, int]:
    """Scale 9- to 16-bit pixels to 8 bits.

    Detectors store 10, 12 or 14 bits in 16, and a PNG does not say so; dividing by 65,535 would
    make those images black. A TIFF may say it.
    """
    values = np.asarray(image)
    brightest = int(values.max())
    if values.min() < 0 or brightest >= 2**16:
        raise UnusableImageError("pixels beyond 16 bits have no defined scale; save 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    told = int(next(iter(tags.get(_BITS_PER_SAMPLE, (16,)))))
    if told < 16:
        bits, unknown = told, 0
    else:
        bits, unknown = bits or bits_used(brightest), brightest
    table = np.rint(np.minimum(np.arange(2**16), 2**bits - 1) * (255.0 / (2**bits - 1)))
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        table = 255 - table
    return Image.fromarray(table.astype(np.uint8)[values]), unknown
