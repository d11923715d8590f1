"""Reads a DICOM image as a viewer would show it; needs the extra `dicom`.

Stored values go through the standard's grayscale pipeline (PS3.3 C.11): modality LUT, then the VOI
LUT or the first window, then inversion where MONOCHROME1 stores bone as dark. Without a window the
range is that of the stored bits, which is what the standard says of an absent VOI LUT; a window
over the values that happen to occur would make one image's gray depend on its markers and padding.
A file that stores all 16 bits it allocates does not tell how many its detector had: there the
range is that of the bits in use. An attribute that is present but empty counts as absent.

Imports pydicom when the first file is read. Knows no sizes of networks and no folders.
"""

from __future__ import annotations

import importlib.util
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

NEEDS_PYDICOM = "DICOM needs pydicom; pip install -e '.[dicom]'"

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that detectors have."""

SPARE = 1.01
"""A pixel may be brighter than a depth allows by this factor, as after a filter."""

MAX_SCANS = 64
"""A JPEG of more scans is rejected: a progressive one has about 10, and each costs a pass."""

MAX_INFLATED = 1_000_000_000
"""Bytes that a deflated file may have when it is inflated."""

OPTIONAL = (
    "NumberOfFrames", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)  # fmt: skip
"""Attributes that are read, and may be absent."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META = b"\x02\x00\x00\x00UL"
_GROUP_8 = (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00")


class DicomError(Exception):
    """A DICOM file that holds no usable image; the message is the reason, without the path."""


def is_dicom(data: bytes) -> bool:
    """Return whether a file's content is DICOM, with its preamble or without."""
    return data[128:132] == b"DICM" or data.startswith((_META, *_GROUP_8))


def installed() -> bool:
    """Return whether pydicom is there; does not import it."""
    return importlib.util.find_spec("pydicom") is not None


def bits_used(brightest: int) -> int:
    """Return the smallest depth of a detector that holds a pixel, or all but holds it."""
    return next((bits for bits in DEPTHS if brightest <= SPARE * (2**bits - 1)), DEPTHS[-1])


def open_dicom(data: bytes) -> Any:
    """Read the attributes of a DICOM file, of which `Rows` and `Columns` are numbers.

    Args:
        data: The file's content.

    Returns:
        pydicom's data set; its pixels are not decoded yet.

    Raises:
        DicomError: pydicom is missing, or the file is damaged, has no image or several, or is
            larger than it looks.
    """
    if not installed():
        raise DicomError(NEEDS_PYDICOM)
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        if data[128:132] == b"DICM":
            _refuse_inflating(data)
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            # Without the header that names it, as in files cut off before it.
            implicit = dataset.original_encoding[0]
            syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = syntax
        for name in OPTIONAL:
            if name in dataset and dataset[name].is_empty:
                del dataset[name]
        frames = int(dataset.get("NumberOfFrames", 1))
        for name in ("Rows", "Columns"):
            setattr(dataset, name, int(dataset.get(name) or 0))
    except DicomError:
        raise
    except Exception as error:
        raise _damaged(error) from error
    if "PixelData" not in dataset or not dataset.Rows * dataset.Columns:
        raise DicomError("DICOM without an image")
    if frames > 1:
        raise DicomError(f"DICOM with {frames} frames; give one image a file")
    scans = dataset.PixelData.count(b"\xff\xda")
    if "JPEG" in dataset.file_meta.TransferSyntaxUID.name and scans > MAX_SCANS:
        raise DicomError(f"a JPEG of {scans:,} scans; give at most {MAX_SCANS}")
    return dataset


def render(dataset: Any, *, bits: int = 0) -> tuple[Image.Image, str, int]:
    """Return the image of a DICOM file as a viewer shows it.

    Args:
        dataset: Of `open_dicom`.
        bits: In use, where the file does not tell; 0 to go by its brightest pixel.

    Returns:
        The image, mode "L" (0 black) or "RGB"; how it was stored, e.g. "DICOM MONOCHROME1 12 bits";
        and the brightest stored value where the file does not tell how many bits are in use, else
        0.

    Raises:
        DicomError: The file is damaged, has pixels in a form that no X-ray has, or compressed ones
            that cannot be decoded here.
    """
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind not in (*GRAY, *COLOUR):
        raise DicomError(f"DICOM of photometric interpretation {kind or 'none'}: cannot be used")
    try:
        pixels = _pixels(dataset)
        stored = f"DICOM {kind} {int(dataset.BitsStored)} bits"
        if kind in COLOUR:
            if pixels.dtype != np.uint8:
                raise DicomError("DICOM in colour with more than 8 bits: cannot be used")
            return Image.fromarray(pixels), stored, 0
        brightest = _brightest(pixels, dataset)
        if brightest:
            bits = bits or bits_used(brightest)
        shown = _shown(pixels, dataset, bits=bits if brightest else int(dataset.BitsStored))
        return Image.fromarray(shown), stored, brightest
    except DicomError:
        raise
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> DicomError:
    # pydicom meets hostile bytes with any exception there is.
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return DicomError(f"corrupt DICOM ({reason})")


def _refuse_inflating(data: bytes) -> None:
    """Refuse a deflated file that would fill the memory: pydicom inflates it whole."""
    # After preamble and mark comes the length of the header; its transfer syntax is in the clear.
    begin = 144 + int.from_bytes(data[140:144], "little")
    if _DEFLATED not in data[:begin]:
        return
    inflater, inflated, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data[begin:]
    while rest and inflated <= MAX_INFLATED:
        inflated += len(inflater.decompress(rest, 1 << 20))
        rest = inflater.unconsumed_tail
    if inflated > MAX_INFLATED:
        raise DicomError("a deflated DICOM that is too large")


def _pixels(dataset: Any) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        pixels: np.ndarray = dataset.pixel_array
    except Exception as error:
        if not syntax.is_compressed:
            raise
        raise DicomError(
            f"DICOM compressed as {syntax.name} cannot be decoded ({str(error).split(':')[0]}); "
            "pip install pylibjpeg with its plug-ins, or convert it"
        ) from error
    return pixels


def _brightest(pixels: np.ndarray, dataset: Any) -> int:
    """Return the largest value where nothing tells the bits in use or a window, else 0.

    Of signed values, twice the largest distance from zero, so that the bits count the sign.
    """
    told = int(dataset.BitsStored) < 16 or _window(dataset) or "VOILUTSequence" in dataset
    if told or "ModalityLUTSequence" in dataset or pixels.dtype.itemsize != 2:
        return 0
    inside = pixels[~_padding(pixels, dataset)]
    if not inside.size:
        return 0
    low, high = int(inside.min()), int(inside.max())
    return max(high, 1) if low >= 0 else 2 * max(high, -low - 1) + 1


def _shown(pixels: np.ndarray, dataset: Any, *, bits: int) -> np.ndarray:
    """Return `uint8` (height, width) as a viewer shows it, 0 black."""
    if pixels.dtype.itemsize > 2:
        return _levels(pixels, dataset, bits=bits)
    # Every step is one of single values: done once for each there is, whatever the image's size.
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    every = np.arange(256**unsigned.itemsize, dtype=unsigned).view(pixels.dtype)
    shown: np.ndarray = _levels(every, dataset, bits=bits)[
        np.ascontiguousarray(pixels).view(unsigned)
    ]
    return shown


def _levels(values: np.ndarray, dataset: Any, *, bits: int) -> np.ndarray:
    """Return the `uint8` levels that stored values are shown at."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    padding = _padding(values, dataset)
    if "ModalityLUTSequence" in dataset:
        rescaled = apply_modality_lut(values, dataset)
    else:
        slope, intercept = _rescale(dataset)
        rescaled = values * slope + intercept
    if "VOILUTSequence" in dataset:
        # Its input are whole numbers, which a rescale by whole numbers has made floats.
        table = np.asarray(apply_voi(np.rint(rescaled).astype(np.int64), dataset))
        top = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = table / (2.0**top - 1)
    elif window := _window(dataset):
        shown = _windowed(rescaled.astype(np.float64), dataset, *window)
    else:
        low, high = _stored_range(dataset, bits)
        shown = (rescaled - low) / (high - low)
    shown = np.clip(shown, 0.0, 1.0)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    shown[padding] = 0.0
    return np.rint(shown * 255).astype(np.uint8)


def _padding(values: np.ndarray, dataset: Any) -> np.ndarray:
    """Return which values lie outside the image, by the one that marks them; shown black."""
    marker = dataset.get("PixelPaddingValue")
    if marker is None:
        return np.zeros(values.shape, dtype=bool)
    ends = sorted((int(marker), int(dataset.get("PixelPaddingRangeLimit", marker))))
    outside: np.ndarray = (values >= ends[0]) & (values <= ends[1])
    return outside


def _window(dataset: Any) -> tuple[float, float] | None:
    """Return centre and width of the first window, or None."""
    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return None
    centre, width = (
        float(value[0] if hasattr(value, "__getitem__") else value)
        for value in (dataset.WindowCenter, dataset.WindowWidth)
    )
    return centre, width


def _windowed(values: np.ndarray, dataset: Any, centre: float, width: float) -> np.ndarray:
    """Apply a window: 0 is black, 1 is white (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    function = str(dataset.get("VOILUTFunction", "LINEAR")).upper()
    if function == "SIGMOID":
        sigmoid: np.ndarray = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        return sigmoid
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width < 0 or (width == 0 and function != "LINEAR"):
        raise DicomError(f"DICOM with a window of width {dataset.WindowWidth}")
    if width == 0:
        return (values > centre).astype(np.float64)
    return (values - centre) / width + 0.5


def _rescale(dataset: Any) -> tuple[float, float]:
    """Return slope and intercept of the modality LUT."""
    slope = float(dataset.get("RescaleSlope", 1))
    return slope or 1.0, float(dataset.get("RescaleIntercept", 0))


def _stored_range(dataset: Any, bits: int) -> tuple[float, float]:
    """Return the lowest and highest value that the modality LUT can give."""
    if "ModalityLUTSequence" in dataset:
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    signed = int(dataset.PixelRepresentation) == 1
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = _rescale(dataset)
    # A negative slope turns black and white: the lowest value is that of the highest stored one.
    ends = low * slope + intercept, high * slope + intercept
    return min(ends), max(ends)
