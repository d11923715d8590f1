"""Opens every image file once: hashes it, checks it, and decodes it into the cached array.

What was learned of a file is kept by (path, size, modification and change time in ns), so that a
second start need not read 5,000 files again; git trusts the same signature. The key of an array,
though, is the content: paths and SHA-256 of the files, image size, decoder version.

Knows no splits; which file is for training is the caller's business.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.data.cache import (
    ArrayFile,
    Progress,
    adopt_array,
    array_folder,
    cache_errors,
    read_array,
    reserved_array,
    temporary_file,
)
from search.data.decode import DECODER_VERSION, UnusableImageError, decode
from search.data.dicom import NEEDS_PYDICOM
from search.data.dicom import installed as dicom_installed
from search.data.listing import FoundFile

INDEX_VERSION = 1
"""Raise it when a record's fields, or the rules for rejecting a file, change."""

_CHUNK = 16
"""Files a thread takes at a time; progress is told as often."""

Signature = tuple[int, int, int]
"""Size in bytes, modification time and change time in ns."""


@dataclass(frozen=True)
class FileRecord:
    """What opening a file told.

    Attributes:
        sha256: Of its content, "" if it cannot be read.
        width: Of the original, in pixels; 0 if rejected.
        height: Of the original, in pixels; 0 if rejected.
        mode: Pillow's mode of the original.
        colour: Whether it had real colour; it is used as gray.
        reason: Why it is left out, "" if it is used.
    """

    sha256: str
    width: int = 0
    height: int = 0
    mode: str = ""
    colour: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A list of files, each checked and decoded.

    Attributes:
        files: The files, rejected ones included.
        records: What each told, aligned with `files`.
        array: `uint8` (len(files), S, S, 1); the rows of rejected files are zero.
        opened: How many files had to be opened for it.
    """

    files: tuple[FoundFile, ...]
    records: tuple[FileRecord, ...]
    array: ArrayFile
    opened: int


def scan_files(
    root: Path,
    files: Sequence[FoundFile],
    *,
    image_size: int,
    cache_dir: Path,
    label: str,
    progress: Progress,
) -> Scan:
    """Check the files and make sure that their array is in the cache.

    Args:
        root: The data folder.
        files: What to scan, in the order of the array's rows.
        image_size: Side S in pixels.
        cache_dir: Where arrays and the index are kept.
        label: Names this list in progress and in file names, e.g. "train" or "test".
        progress: Told of every few files.

    Raises:
        StorageError: The cache cannot be written.
    """
    index_file = cache_dir / "scan" / f"{folder_key(root)}-{label}.json"
    index = _read_index(index_file)
    signatures = [_signature(root / file.relative) for file in files]
    known: list[FileRecord | None] = [
        _known(index, file, signature) for file, signature in zip(files, signatures, strict=True)
    ]
    shape = (len(files), image_size, image_size, 1)
    damaged = ""
    if all(record is not None for record in known):
        records = [record for record in known if record is not None]
        path = _array_path(cache_dir, files, records, image_size, label)
        progress(f"Checking the cached {label} images", 0, 0)
        found = read_array(path, shape)
        if isinstance(found, ArrayFile):
            return Scan(files=tuple(files), records=tuple(records), array=found, opened=0)
        damaged = found

    def work(position: int) -> FileRecord:
        return _open(root / files[position].relative, array[position, :, :, 0])

    with reserved_array(array_folder(cache_dir) / f"{label}.npy", shape) as (temporary, array):
        # Everything is decoded again even if only some files are new: their rows have moved.
        stage = f"Decoding the {label} images"
        results = list(_parallel(work, len(files), stage, progress))
        path = _array_path(cache_dir, files, results, image_size, label)
        with cache_errors(path):
            stored = adopt_array(temporary, path, array, damaged=damaged)
    _write_index(index_file, files, signatures, results)
    return Scan(files=tuple(files), records=tuple(results), array=stored, opened=len(files))


def _open(path: Path, row: np.ndarray) -> FileRecord:
    """Read, hash, check and decode one file into its row of the array."""
    try:
        if not path.is_file():
            return FileRecord(sha256="", reason="not a regular file")
        data = path.read_bytes()
    except OSError as error:
        return FileRecord(sha256="", reason=f"cannot be read ({error.strerror or error})")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        decoded = decode(data, row.shape[0])
    except UnusableImageError as error:
        return FileRecord(sha256=sha256, reason=str(error))
    row[:] = decoded.pixels
    return FileRecord(
        sha256=sha256,
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        colour=decoded.colour,
    )


def _parallel(
    work: Callable[[int], FileRecord], count: int, label: str, progress: Progress
) -> Iterator[FileRecord]:
    """Map over 0 … count − 1 in threads, in order: Pillow and hashlib release Python's lock."""

    def work_through(first: int) -> list[FileRecord]:
        return [work(position) for position in range(first, min(first + _CHUNK, count))]

    progress(label, 0, count)
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        done = 0
        for records in pool.map(work_through, range(0, count, _CHUNK)):
            yield from records
            done += len(records)
            progress(label, done, count)
    finally:
        # After Ctrl-C nobody wants to wait for the files that are still queued.
        pool.shutdown(cancel_futures=True)


def folder_key(root: Path) -> str:
    """Return a short name for a folder's place, for what is kept by place and not by content."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]


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
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != [INDEX_VERSION, DECODER_VERSION]:
            return {}
        files: dict[str, list[Any]] = stored["files"]
        return {name: entry for name, entry in files.items() if len(entry) == 9}
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
    with cache_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, path)


def _array_path(
    cache_dir: Path,
    files: Sequence[FoundFile],
    records: Sequence[FileRecord],
    image_size: int,
    label: str,
) -> Path:
    digest = hashlib.sha256(f"{DECODER_VERSION} {image_size}".encode())
    for file, record in zip(files, records, strict=True):
        digest.update(f"\n{file.relative}\0{record.sha256}\0{record.reason != ''}".encode())
    name = f"{label}-{digest.hexdigest()[:24]}-{image_size}.npy"
    return array_folder(cache_dir) / name
