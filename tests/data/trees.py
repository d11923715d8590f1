"""Makes tiny data sets in the Kaggle layout."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from search.config import RunConfig
from search.data.cache import Progress, silent
from search.data.prepare import SealedTest, prepare
from search.records import Dataset, Source


def film(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth gray picture, different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def normal_name(patient: int, film_number: int = 1) -> str:
    return f"IM-{patient:04d}-{film_number:04d}.jpeg"


def make_tree(root: Path, *, patients: int = 10, films: int = 2, test: bool = True) -> Path:
    """Write `patients` children of each class with `films` films each; half as many for test.

    Every third ill child has a virus.
    """
    seed = 0
    for folder, first, count in (("train", 100, patients), ("test", 1, patients // 2)):
        if folder == "test" and not test:
            continue
        for patient in range(first, first + count):
            subtype = "virus" if patient % 3 == 0 else "bacteria"
            for number in range(1, films + 1):
                names = {
                    "NORMAL": normal_name(patient, number),
                    "PNEUMONIA": f"person{patient}_{subtype}_{patient * 10 + number}.jpeg",
                }
                for class_name, name in names.items():
                    seed += 1
                    write(root / folder / class_name / name, encoded(film(seed)))
    return root


def prepared(
    root: Path, cache_dir: Path, progress: Progress = silent, **options
) -> tuple[Dataset, SealedTest]:
    """Prepare a folder at 32 pixels."""
    config = RunConfig(**{"image_size": 32, "cache_dir": str(cache_dir), **options})
    return prepare(config, Source(kind="folder", root=root, origin="test"), progress=progress)


def dicom_file(values, *, bits, kind="MONOCHROME2", syntax=None, **tags):
    """A DICOM file of some values, as bytes."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    signed = bool(np.min(values) < 0)
    depth = 8 if bits <= 8 else 16
    dtype = np.dtype(f"{'int' if signed else 'uint'}{depth}")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PhotometricInterpretation = kind
    colour = values.ndim == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = depth, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.astype(dtype).tobytes()
    if syntax is not None:
        dataset.compress(syntax)
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()
