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
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from search.data.cache import (
    ArrayFile,
    Progress,
    adopt_array,
    array_folder,
    cache_errors,
    read_array,
    reserved_array,
)
from search.data.decode import DECODER_VERSION, UnusableImageError, decode, opened
from search.data.dicom import NEEDS_PYDICOM, bits_used
from search.data.dicom import installed as dicom_installed
from search.data.listing import FoundFile
from search.run_directory import write_text

INDEX_VERSION = 2
"""Raise it when a record's fields, or the rules for rejecting a file, change."""

MOST_BRIGHT = 0.95
"""Share of the images whose brightest pixel decides; a few may be brighter, as with a burnt-in
mark."""

_CHUNK = 16
"""Files a thread takes at a time; progress is told as often."""

_T = TypeVar("_T")

Signature = tuple[int, int, int]
"""Size in bytes, modification time and change time in ns."""


@dataclass(frozen=True)
class FileRecord:
    """What opening a file told."""

    sha256: str  # of its content, "" if it cannot be read
    width: int = 0  # of the original, in pixels; 0 if rejected
    height: int = 0  # of the original, in pixels; 0 if rejected
    mode: str = ""  # Pillow's mode of the original
    colour: bool = False  # whether it had real colour
    turned: bool = False  # whether an EXIF orientation was applied
    brightest: int = 0  # as in `decode.Decoded`
    reason: str = ""  # why it is left out, "" if it is used


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A list of files, each checked and decoded."""

    files: tuple[FoundFile, ...]  # the files, rejected ones included
    records: tuple[FileRecord, ...]  # what each told, aligned with `files`
    array: ArrayFile  # `uint8` (len(files), S, S, C); the rows of rejected files are zero
    bits: int  # in use of the images of 9 to 16 bits that do not tell, 0 if there are none


def scan_files(
    root: Path,
    files: Sequence[FoundFile],
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
    known: list[FileRecord | None] = [
        _known(index, file, signature) for file, signature in zip(files, signatures, strict=True)
    ]
    shape = (len(files), image_size, image_size, channels)

    def array_path(records: Sequence[FileRecord], bits: int) -> Path:
        digest = hashlib.sha256(f"{DECODER_VERSION} {shape[1:]} {bits}".encode())
        for file, record in zip(files, records, strict=True):
            digest.update(f"\n{file.relative}\0{record.sha256}\0{record.reason != ''}".encode())
        name = f"{label}-{digest.hexdigest()[:24]}-{image_size}.npy"
        return array_folder(cache_dir) / name

    damaged = ""
    if all(record is not None for record in known):
        records = [record for record in known if record is not None]
        used = bits or bits_in_use(records)
        progress(f"Checking the cached {label} images", 0, 0)
        found = read_array(array_path(records, used), shape)
        if isinstance(found, ArrayFile):
            return Scan(files=tuple(files), records=tuple(records), array=found, bits=used)
        damaged = found

    def decode_row(position: int, bits: int) -> FileRecord:
        return _open(root / files[position].relative, array[position], bits)

    with reserved_array(array_folder(cache_dir) / f"{label}.npy", shape) as (temporary, array):
        # Everything is decoded again even if only some files are new: their rows have moved.
        stage = f"Decoding the {label} images"
        work = partial(decode_row, bits=bits)
        records = list(_parallel(work, range(len(files)), stage, progress))
        used = bits or bits_in_use(records)
        other = [
            position
            for position, record in enumerate(records)
            if not bits and record.brightest and bits_used(record.brightest) != used
        ]
        if other:
            stage = f"Decoding the {label} images of another depth"
            again = list(_parallel(partial(decode_row, bits=used), other, stage, progress))
            for position, record in zip(other, again, strict=True):
                records[position] = record
        path = array_path(records, used)
        with cache_errors(path):
            stored = adopt_array(temporary, path, array, damaged=damaged)
    _write_index(index_file, files, signatures, records)
    return Scan(files=tuple(files), records=tuple(records), array=stored, bits=used)


def bits_in_use(records: Sequence[FileRecord]) -> int:
    """Return the bits in use of the images that do not tell, 0 if there are none."""
    brightest = sorted(record.brightest for record in records if record.brightest)
    if not brightest:
        return 0
    return bits_used(brightest[math.ceil(MOST_BRIGHT * len(brightest)) - 1])


def file_hashes(
    root: Path,
    files: Sequence[FoundFile],
    *,
    cache_dir: Path,
    labels: Sequence[str],
    progress: Progress,
) -> list[str]:
    """Return the SHA-256 of every file, "" where it cannot be read.

    Files that earlier scans of these labels know, and that have not changed, are not read.
    """
    index: dict[str, list[Any]] = {}
    for label in labels:
        index |= _read_index(_index_file(cache_dir, root, label))

    def work(position: int) -> str:
        file = files[position]
        path = root / file.relative
        if known := _known(index, file, _signature(path)):
            return known.sha256
        try:
            with opened(path) as data:
                return hashlib.sha256(data).hexdigest()
        except UnusableImageError:
            return ""

    return list(_parallel(work, range(len(files)), "Reading the images", progress))


def _open(path: Path, row: np.ndarray, bits: int) -> FileRecord:
    """Read, hash, check and decode one file into its row of the array."""
    sha256 = ""
    try:
        with opened(path) as data:
            sha256 = hashlib.sha256(data).hexdigest()
            decoded = decode(data, row.shape[0], channels=row.shape[-1], bits=bits)
    except UnusableImageError as error:
        return FileRecord(sha256=sha256, reason=str(error))
    row[:] = decoded.pixels
    return FileRecord(
        sha256=sha256,
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        colour=decoded.colour,
        turned=decoded.turned,
        brightest=decoded.brightest,
    )


def _parallel(
    work: Callable[[int], _T], positions: Sequence[int], label: str, progress: Progress
) -> Iterator[_T]:
    """Map in threads, in order: Pillow and hashlib release Python's lock."""

    def work_through(first: int) -> list[_T]:
        return [work(position) for position in positions[first : first + _CHUNK]]

    count = len(positions)
    progress(label, 0, count)
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        done = 0
        for results in pool.map(work_through, range(0, count, _CHUNK)):
            yield from results
            done += len(results)
            progress(label, done, count)
    finally:
        # After Ctrl-C nobody wants to wait for the files that are still queued.
        pool.shutdown(cancel_futures=True)


def folder_key(root: Path) -> str:
    """Return a short name for a folder's place, for what is kept by place and not by content."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]


def _index_file(cache_dir: Path, root: Path, label: str) -> Path:
    return cache_dir / "scan" / f"{folder_key(root)}-{label}.json"


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _known(
    index: dict[str, list[Any]], file: FoundFile, signature: Signature | None
) -> FileRecord | None:
    entry = index.get(file.relative)
    if entry is None or signature is None or tuple(entry[:3]) != signature:
        return None
    record = FileRecord(*entry[3:])
    if record.reason == NEEDS_PYDICOM and dicom_installed():
        return None  # what it could not be read with has come since
    return record


def _read_index(path: Path) -> dict[str, list[Any]]:
    """Return what is known by relative path; nothing, where the index is missing or damaged."""
    width = 3 + len(fields(FileRecord))
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != [INDEX_VERSION, DECODER_VERSION]:
            return {}
        files: dict[str, list[Any]] = stored["files"]
        return {name: entry for name, entry in files.items() if len(entry) == width}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_index(
    path: Path,
    files: Sequence[FoundFile],
    signatures: Sequence[Signature | None],
    records: Sequence[FileRecord],
) -> None:
    entries = {
        file.relative: [*signature, *astuple(record)]
        for file, signature, record in zip(files, signatures, records, strict=True)
        if signature is not None
    }
    content = json.dumps({"version": [INDEX_VERSION, DECODER_VERSION], "files": entries})
    write_text(path, content, option="--cache-dir")
