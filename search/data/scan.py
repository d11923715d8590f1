"""Opens every image file once: hashes it, checks it, and decodes it into the cached array.

How many bits the images of 9 to 16 have in use is decided for all of them together, where the
files do not tell: two images of one detector must not differ because one has a brighter pixel.

What was learned of a file is kept by (path, size, modification and change time in ns), so that a
second start need not read 5,000 files again; git trusts the same signature. The key of an array,
though, is the content: paths and SHA-256 of the files, image size, decoder version.

Knows no splits; which file is for training is the caller's business.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search.data.cache import (
    ArrayFile,
    Progress,
    adopt_array,
    array_path,
    in_threads,
    locked,
    new_array,
    read_array,
)
from search.data.decode import DECODER_VERSION, UnusableImageError, decode, opened
from search.data.dicom import NEEDS_PYDICOM, bits_used
from search.data.dicom import installed as dicom_installed
from search.data.listing import ImageFile
from search.run_directory import write_text

FACTS = ("sha256", "width", "height", "mode", "colour", "turned", "brightest", "reason")
"""What opening a file tells: fields of `ImageFile`, in the order of the index."""

INDEX_VERSION = 2
"""Raise it when `FACTS`, or the rules for rejecting a file, change."""

MOST_BRIGHT = 0.95
"""Share of the images whose brightest pixel decides; a few may be brighter, as with a burnt-in
mark."""

Index = dict[str, list[Any]]
"""By relative path: size in bytes, modification and change time in ns, then `FACTS`."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A list of files, each checked and decoded."""

    files: tuple[ImageFile, ...]  # with what each told, rejected ones included
    array: ArrayFile  # `uint8` (len(files), S, S, C); the rows of rejected files are zero
    bits: int  # in use of the images of 9 to 16 bits that do not tell, 0 if there are none

    @property
    def images(self) -> list[ImageFile]:
        """Return the files that can be used."""
        return [file for file in self.files if not file.reason]

    @property
    def rejected(self) -> list[ImageFile]:
        """Return the files that cannot be used."""
        return [file for file in self.files if file.reason]


def scan_files(
    root: Path,
    files: Sequence[ImageFile],
    *,
    image_size: int,
    channels: int,
    bits: int = 0,
    cache_dir: Path,
    label: str,
    progress: Progress,
) -> Scan:
    """Check the files and make sure that their array is in the cache.

    Args:
        root: The data folder.
        files: What to scan, in the order of the array's rows.
        image_size: Side S in pixels.
        channels: 1 for gray, 3 for colour.
        bits: In use of images of 9 to 16 that do not tell; 0 to find it out from these files.
        cache_dir: Where arrays and the index are kept.
        label: Names this list in progress and in file names, e.g. "train" or "test".
        progress: Told of every few files.

    Raises:
        StorageError: The cache cannot be written.
    """
    index_file = _index_file(cache_dir, root, label)
    index = _read_index(index_file)
    signatures = [_signature(root / file.relative) for file in files]
    known = [_known(index, *pair) for pair in zip(files, signatures, strict=True)]
    shape = (len(files), image_size, image_size, channels)

    def place(scanned: Sequence[ImageFile], bits: int) -> Path:
        lines = [f"{DECODER_VERSION} {shape[1:]} {bits}"]
        lines += [f"{file.relative}\0{file.sha256}\0{file.reason != ''}" for file in scanned]
        return array_path(cache_dir, label, "\n".join(lines), image_size)

    damaged = ""
    if all(known):
        scanned = [
            replace(file, row=row, **facts)
            for row, (file, facts) in enumerate(zip(files, known, strict=True))
        ]
        used = bits or bits_in_use(scanned)
        progress(f"Checking the cached {label} images", 0, 0)
        found = read_array(place(scanned, used), shape)
        if isinstance(found, ArrayFile):
            return Scan(files=tuple(scanned), array=found, bits=used)
        damaged = found

    with new_array(cache_dir / "arrays" / f"{label}.npy", shape) as array:

        def decode_row(row: int, bits: int) -> ImageFile:
            facts = _open(root / files[row].relative, array[row], bits)
            return replace(files[row], row=row, **facts)

        # Everything is decoded again even if only some files are new: their rows have moved.
        stage = f"Decoding the {label} images"
        scanned = in_threads(partial(decode_row, bits=bits), range(len(files)), stage, progress)
        used = bits or bits_in_use(scanned)
        other = [
            file.row
            for file in scanned
            if not bits and file.brightest and bits_used(file.brightest) != used
        ]
        if other:
            stage = f"Decoding the {label} images of another depth"
            for file in in_threads(partial(decode_row, bits=used), other, stage, progress):
                scanned[file.row] = file
        stored = adopt_array(array, place(scanned, used), damaged=damaged)
    entries = {
        file.relative: [*signature, *(getattr(file, name) for name in FACTS)]
        for file, signature in zip(scanned, signatures, strict=True)
        if signature is not None
    }
    content = json.dumps({"version": [INDEX_VERSION, DECODER_VERSION], "files": entries})
    write_text(index_file, content, option="--cache-dir")
    return Scan(files=tuple(scanned), array=stored, bits=used)


def scan_lock(root: Path, cache_dir: Path, progress: Progress) -> AbstractContextManager[None]:
    """Hold the lock of a data folder's scans, see `cache.locked`."""
    return locked(cache_dir / "scan" / f"{_folder_key(root)}.lock", progress)


def bits_in_use(files: Sequence[ImageFile]) -> int:
    """Return the bits in use of the images that do not tell, 0 if there are none."""
    brightest = sorted(file.brightest for file in files if file.brightest)
    if not brightest:
        return 0
    return bits_used(brightest[math.ceil(MOST_BRIGHT * len(brightest)) - 1])


def file_hashes(
    root: Path,
    files: Sequence[ImageFile],
    *,
    cache_dir: Path,
    labels: Sequence[str],
    progress: Progress,
) -> list[str]:
    """Return the SHA-256 of every file, "" where it cannot be read.

    Files that earlier scans of these labels know, and that have not changed, are not read.
    """
    index: Index = {}
    for label in labels:
        index |= _read_index(_index_file(cache_dir, root, label))

    def work(file: ImageFile) -> str:
        path = root / file.relative
        if known := _known(index, file, _signature(path)):
            return str(known["sha256"])
        try:
            with opened(path) as data:
                return hashlib.sha256(data).hexdigest()
        except UnusableImageError:
            return ""

    return in_threads(work, files, "Reading the images", progress)


def _open(path: Path, row: np.ndarray, bits: int) -> dict[str, Any]:
    """Read, hash, check and decode one file into its row of the array; return `FACTS` of it."""
    sha256 = ""
    try:
        with opened(path) as data:
            sha256 = hashlib.sha256(data).hexdigest()
            facts = vars(decode(data, row.shape[0], channels=row.shape[-1], bits=bits))
    except UnusableImageError as error:
        return {"sha256": sha256, "reason": str(error)}
    row[:] = facts.pop("pixels")
    return {"sha256": sha256, **facts}


def _folder_key(root: Path) -> str:
    """Return a short name for a folder's place, for what is kept by place and not by content."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]


def _index_file(cache_dir: Path, root: Path, label: str) -> Path:
    return cache_dir / "scan" / f"{_folder_key(root)}-{label}.json"


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _known(index: Index, file: ImageFile, signature: tuple[int, int, int] | None) -> dict[str, Any]:
    """Return `FACTS` of a file that has not changed; nothing, where it is to be opened."""
    entry = index.get(file.relative)
    if entry is None or signature is None or tuple(entry[:3]) != signature:
        return {}
    facts = dict(zip(FACTS, entry[3:], strict=True))
    # What it could not be read with may have come since.
    return {} if facts["reason"] == NEEDS_PYDICOM and dicom_installed() else facts


def _read_index(path: Path) -> Index:
    """Return what is known by relative path; nothing, where the index is missing or damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != [INDEX_VERSION, DECODER_VERSION]:
            return {}
        width = 3 + len(FACTS)
        return {name: entry for name, entry in stored["files"].items() if len(entry) == width}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
