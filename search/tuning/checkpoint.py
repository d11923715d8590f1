"""A trial's state on disk: weights, optimizer and the epochs behind it, safe against a kill.

The weights file of the last finished epoch carries that epoch's number inside, so one rename makes
both durable at once. The epochs' metrics are appended to a log before that rename; lines beyond the
checkpoint's epoch were not reached by it and are dropped.

Files in a trial's directory: `checkpoint.weights.h5` (KerasTuner's name, so that its tuners load
it), `best.weights.h5` if the best epoch is kept, `epochs.jsonl`. A weights file ends in a checksum
of all before it, which HDF5 does not read; one whose checksum is wrong is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import h5py

from search.errors import RunDirectoryError, storage_errors
from search.journal import drop_cut_line
from search.records import EpochRecord, from_json, to_json
from search.run_directory import KEPT_WEIGHTS, atomic

EPOCH_ATTRIBUTE = "xray_search_epoch"
LAST = "checkpoint.weights.h5"
BEST = KEPT_WEIGHTS
LOG = "epochs.jsonl"
CHECKSUM_BYTES = hashlib.sha256().digest_size


class _MemoryFile(io.BytesIO):
    """A file in memory. HDF5 crashes where a file on disk cannot grow, so it writes to memory."""

    def __str__(self) -> str:
        return LAST  # Keras looks for the suffix of the name


def save(model: Any, path: Path, *, epoch: int) -> None:
    """Write weights, optimizer state and epoch number, atomically.

    Raises:
        StorageError: The disk is full or read-only.
    """
    file = _MemoryFile()
    model.save_weights(file)
    with h5py.File(file, "r+") as content:
        content.attrs[EPOCH_ATTRIBUTE] = epoch
    written = file.getbuffer()
    with atomic(path) as temporary, open(temporary, "wb") as handle:
        handle.write(written)
        handle.write(hashlib.sha256(written).digest())


def saved_epoch(path: Path) -> int:
    """Return the epoch of a checkpoint, 0 where there is none or it is damaged."""
    file = _read(path)
    if file is None:
        return 0
    with h5py.File(file, "r") as content:
        return int(content.attrs[EPOCH_ATTRIBUTE])


def _read(path: Path) -> _MemoryFile | None:
    """Return what `save` wrote, None where it is not there or not as it was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    written, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    return _MemoryFile(written) if hashlib.sha256(written).digest() == checksum else None


def load(model: Any, path: Path, *, steps: int | None = None) -> None:
    """Restore weights, optimizer moments, iteration count and learning rate.

    Args:
        model: A compiled Keras model of the same configuration.
        path: The checkpoint.
        steps: Where training goes on, so that the optimizer must be whole: how many of the batches
            that training goes on with are in the epochs behind it.

    Raises:
        RunDirectoryError: It is gone or damaged.
        ValueError: Training cannot go on from it: it holds the state of another optimizer.
    """
    file = _read(path)
    if file is None:
        raise RunDirectoryError(
            f"{path}: the weights are gone or damaged (wrong checksum); run the same command with "
            "--resume, which trains them again"
        )
    if not model.optimizer.built:
        # Keras creates the optimizer's variables at the first step; loading skips missing ones.
        model.optimizer.build(model.trainable_variables)
    with warnings.catch_warnings():
        # It leaves an optimizer out that has another number of variables; seen to below.
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        model.load_weights(file)
    if steps is None:
        return
    with h5py.File(file, "r") as content:
        saved, own = len(content["optimizer"]["vars"]), len(model.optimizer.variables)
    if saved != own:
        raise ValueError(
            f"{path}: holds the state of another optimizer, {saved} arrays where this one has "
            f"{own}; it was kept by another configuration, or by another version"
        )
    # Others where memory ran out and batches were halved: the learning rate's schedule follows the
    # count, so it must be that of the same epochs in the present batches.
    model.optimizer.iterations.assign(steps)


def append_epoch(directory: Path, record: EpochRecord) -> None:
    """Add an epoch to the trial's log.

    Raises:
        StorageError: The disk is full or read-only.
    """
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        drop_cut_line(directory / LOG)
        with open(directory / LOG, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(to_json(record)) + "\n")


def read_epochs(directory: Path, *, up_to: int) -> list[EpochRecord]:
    """Read the trial's finished epochs.

    Args:
        directory: The trial's directory.
        up_to: Epoch of its checkpoint; later lines are dropped. Of an epoch that was trained
            twice the later line counts.
    """
    path = directory / LOG
    if not path.exists():
        return []
    found: dict[int, EpochRecord] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short by a kill
        record = from_json(EpochRecord, fields, where=str(path))
        if record.epoch <= up_to:
            found[record.epoch] = record
    return [found[epoch] for epoch in sorted(found)]


def tidy(directory: Path) -> int:
    """Delete what a kill in the middle of `save` left behind and return the bytes freed.

    Call it while no trial trains there.
    """
    freed = 0
    for path in directory.glob(".[0-9]*.weights.h5"):
        with contextlib.suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    return freed


def remove(directory: Path) -> int:
    """Delete a trial's checkpoints and return the bytes freed; its log stays."""
    freed = tidy(directory)
    for path in (directory / LAST, directory / BEST):
        if path.exists():
            freed += path.stat().st_size
            path.unlink()
    return freed
