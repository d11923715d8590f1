"""Reads a DICOM film as a gray picture, as a viewer would show it; needs the extra `dicom`.

Stored values go through the standard's grayscale pipeline (PS3.3 C.11): modality LUT, then the VOI
LUT or the first window, then inversion where MONOCHROME1 stores bone as dark. Without a window the
range is that of the stored bits, which is what the standard says of an absent VOI LUT; a window
over the values that happen to occur would make one film's gray depend on its markers and padding.

Imports pydicom when the first file is read. Knows no sizes of networks and no folders.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NEEDS_PYDICOM = "DICOM needs pydicom; pip install -e '.[dicom]'"

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


class DicomError(Exception):
    """A DICOM file that holds no usable film; the message is the reason, without the path."""


def is_dicom(data: bytes) -> bool:
    """Return whether a file's content is DICOM."""
    return data[128:132] == b"DICM"


def is_film_of_any_name(file: Path) -> bool:
    """Return whether a file may hold a DICOM film, as many do without a suffix.

    Reads 132 bytes. False where they cannot be read, and for the table of contents of a disc.
    """
    if file.name.upper() == "DICOMDIR":
        return False
    try:
        with open(file, "rb", buffering=0) as handle:
            return is_dicom(handle.read(132))
    except OSError:
        return False


def installed() -> bool:
    """Return whether pydicom is there; does not import it."""
    return importlib.util.find_spec("pydicom") is not None


def read_film(data: bytes, *, max_pixels: int) -> tuple[Image.Image, str]:
    """Read the one picture of a DICOM file.

    Args:
        data: The file's content.
        max_pixels: A larger picture is refused before its pixels are read.

    Returns:
        The picture, mode "L" (0 black) or "RGB", and how it was stored, e.g.
        "DICOM MONOCHROME1 12 bits".

    Raises:
        DicomError: pydicom is missing, or the file is damaged, has no picture or several, has
            pixels in a form that no film has, or compressed ones that cannot be decoded here.
    """
    if not installed():
        raise DicomError(NEEDS_PYDICOM)
    import pydicom

    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        kind = str(dataset.get("PhotometricInterpretation", ""))
        frames = int(dataset.get("NumberOfFrames") or 1)
        count = int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
        if "PixelData" not in dataset or not count:
            raise DicomError("DICOM without a picture")
        if frames > 1:
            raise DicomError(f"DICOM with {frames} frames; a film has one")
        if kind not in (*GRAY, *COLOUR):
            raise DicomError(f"DICOM of photometric interpretation {kind or 'none'}: no film")
        if count > max_pixels:
            raise DicomError(f"too large ({dataset.Columns} × {dataset.Rows} pixels)")
        pixels = _pixels(dataset)
        stored = f"DICOM {kind} {int(dataset.BitsStored)} bits"
        if kind in COLOUR:
            if pixels.dtype != np.uint8:
                raise DicomError("DICOM in colour with more than 8 bits: no film")
            return Image.fromarray(pixels), stored
        return Image.fromarray(_shown(pixels, dataset, inverted=kind == "MONOCHROME1")), stored
    except DicomError:
        raise
    except Exception as error:
        # pydicom meets hostile bytes with any exception there is.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DicomError(f"corrupt DICOM ({reason})") from error


def _pixels(dataset: Any) -> np.ndarray:
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    try:
        pixels: np.ndarray = dataset.pixel_array
    except Exception as error:
        if not compressed:
            raise
        raise DicomError(
            f"DICOM compressed as {dataset.file_meta.TransferSyntaxUID.name} cannot be decoded "
            f"({str(error).split(':')[0]}); pip install pylibjpeg with its plug-ins, or convert it"
        ) from error
    return pixels


def _shown(pixels: np.ndarray, dataset: Any, *, inverted: bool) -> np.ndarray:
    """Return `uint8` (height, width) as a viewer shows it, 0 black."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    padding = _padding(pixels, dataset)
    values = apply_modality_lut(pixels, dataset)
    if dataset.get("VOILUTSequence"):
        # Its input are whole numbers, which a rescale by whole numbers has made floats.
        table = np.asarray(apply_voi(np.rint(values).astype(np.int64), dataset))
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = table / (2.0**bits - 1)
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        shown = _windowed(values.astype(np.float64), dataset)
    else:
        low, high = _stored_range(dataset)
        shown = (values - low) / (high - low)
    shown = np.clip(shown, 0.0, 1.0)
    if inverted:
        shown = 1 - shown
    shown[padding] = 0.0
    return np.rint(shown * 255).astype(np.uint8)


def _padding(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    """Return which pixels lie outside the film, by the value that marks them; shown black."""
    marker = dataset.get("PixelPaddingValue")
    if marker is None:
        return np.zeros(pixels.shape, dtype=bool)
    ends = sorted((int(marker), int(dataset.get("PixelPaddingRangeLimit", marker))))
    outside: np.ndarray = (pixels >= ends[0]) & (pixels <= ends[1])
    return outside


def _windowed(values: np.ndarray, dataset: Any) -> np.ndarray:
    """Apply the first window: 0 is black, 1 is white (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
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


def _stored_range(dataset: Any) -> tuple[float, float]:
    """Return the lowest and highest value that the modality LUT can give."""
    bits = int(dataset.BitsStored)
    if dataset.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    signed = int(dataset.PixelRepresentation) == 1
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope = float(dataset.get("RescaleSlope") or 1)
    intercept = float(dataset.get("RescaleIntercept") or 0)
    # A negative slope turns black and white: the lowest value is that of the highest stored one.
    ends = low * slope + intercept, high * slope + intercept
    return min(ends), max(ends)


def _first(value: Any) -> float:
    """Return a number, or the first of several."""
    return float(value[0] if hasattr(value, "__getitem__") else value)
