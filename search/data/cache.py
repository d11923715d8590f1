"""Keeps decoded images on disk: arrays keyed by content, written once, checked at every start.

An array is a `.npy` file beside a JSON file with its checksum. It is written to a temporary name
and renamed, the JSON last; an array without JSON, of another shape, or with another checksum
counts as damaged and is made again. A lock keeps two processes from doing the same work; where a
file system has no locks both work and the last rename wins, with equal content.

Knows no splits and no layouts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from search.config import RunConfig
from search.errors import ConfigurationError, storage_errors
from search.run_directory import write_text

Progress = Callable[[str, int, int], None]
"""Called from one thread with a stage's label, steps done, and steps in all (0: unknown)."""

_BLOCK = 1 << 22
_DAY = 24 * 3600
_CHUNK = 16
"""Files a thread takes at a time; progress is told as often."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def silent(_label: str, _done: int, _total: int) -> None:
    """Show no progress."""


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/xray-search`, or `~/.cache/xray-search`."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "xray-search"


def cache_of(config: RunConfig) -> Path:
    """Return where the decoded images of a run are kept."""
    return Path(config.cache_dir) if config.cache_dir else default_cache_dir()


def expanded(path: str) -> Path:
    """Return a path with `~` replaced.

    Raises:
        ConfigurationError: The user it names has no home, as in a container without users.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"{path}: there is no such home folder; set HOME, or give --data and --cache-dir as "
            "full paths"
        ) from error


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """One cached array."""

    path: Path  # the `.npy` file
    reused: bool  # whether it was there, whole, before it was asked for
    damaged: str  # why the one that was there could not be used, or ""


cache_errors = partial(storage_errors, option="--cache-dir")
"""Turns a refusal to write into the cache into StorageError, which names the option."""


def in_threads(
    work: Callable[[_T], _R], items: Sequence[_T], label: str, progress: Progress
) -> list[_R]:
    """Map in threads: Pillow, hashlib and NumPy release Python's lock."""

    def work_through(first: int) -> list[_R]:
        return [work(item) for item in items[first : first + _CHUNK]]

    results: list[_R] = []
    progress(label, 0, len(items))
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        for done in pool.map(work_through, range(0, len(items), _CHUNK)):
            results += done
            progress(label, len(results), len(items))
    finally:
        # After Ctrl-C nobody wants to wait for what is still queued.
        pool.shutdown(cancel_futures=True)
    return results


@contextlib.contextmanager
def locked(path: Path, progress: Progress = silent) -> Iterator[None]:
    """Hold a lock file for the block; the kernel releases it however the process ends.

    Waits for another holder, and says so. On a file system without locks the block runs
    unlocked: every write below is by rename, so the worst is work done twice.
    """
    with cache_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a")  # noqa: SIM115 (held for the whole block)
    with handle:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("Waiting for another process to decode the same images", 0, 0)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def array_path(cache_dir: Path, label: str, recipe: str, image_size: int) -> Path:
    """Return the `.npy` file of an array, named by all that determines its content."""
    key = hashlib.sha256(recipe.encode()).hexdigest()[:24]
    return cache_dir / "arrays" / f"{label}-{key}-{image_size}.npy"


def read_array(path: Path, shape: tuple[int, ...]) -> ArrayFile | str:
    """Check a cached array against its checksum.

    Args:
        path: The `.npy` file.
        shape: What its shape must be; the type must be `uint8`.

    Returns:
        The array's file, or why it cannot be used; "" when it is just not there.
    """
    sidecar = path.with_suffix(".json")
    if not path.exists() and not sidecar.exists():
        return ""
    try:
        stored = json.loads(sidecar.read_text(encoding="utf-8"))
        array = np.load(path, mmap_mode="r")
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, EOFError) as error:
        return f"unreadable ({error})"
    if array.shape != shape or array.dtype != np.uint8:
        return f"holds {array.dtype} {array.shape} instead of uint8 {shape}"
    if not isinstance(stored, dict) or stored.get("blake2b") != _checksum(array):
        return "its checksum does not match"
    return ArrayFile(path=path, reused=True, damaged="")


@contextlib.contextmanager
def new_array(path: Path, shape: tuple[int, ...]) -> Iterator[np.memmap]:
    """Give a memory map of `uint8` zeros, a temporary file beside `path`, for `adopt_array`.

    Raises:
        StorageError: No space or no permission; says to choose another `--cache-dir`.
    """
    with cache_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in path.parent.glob(".*.tmp"):
            # Of a process that was killed; one that is at work writes more often than daily.
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left_over.stat().st_mtime > _DAY:
                    left_over.unlink()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # A disk that fills up under a memory map kills the process; claim the space now.
                with open(temporary, "rb+") as file:
                    os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
            yield array
        finally:
            temporary.unlink(missing_ok=True)


def adopt_array(array: np.memmap, path: Path, *, damaged: str = "") -> ArrayFile:
    """Give the finished array of `new_array` its name and write its checksum beside it."""
    # Not synced to disk: after a power failure the checksum tells, and the array is made again.
    content = json.dumps({"blake2b": _checksum(array), "shape": array.shape})
    path.with_suffix(".json").unlink(missing_ok=True)
    os.replace(str(array.filename), path)
    write_text(path.with_suffix(".json"), content, option="--cache-dir")
    return ArrayFile(path=path, reused=False, damaged=damaged)


def _checksum(array: np.ndarray) -> str:
    """Return BLAKE2b over the bytes of an array, read in blocks; about 1 GB a second."""
    digest = hashlib.blake2b(digest_size=16)
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        digest.update(flat[start : start + _BLOCK].data)
    return digest.hexdigest()
