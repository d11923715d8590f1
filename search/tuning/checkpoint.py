"""A trial's state on disk: weights, optimizer and the epochs behind it, safe against a kill.

The weights file of the last finished epoch carries that epoch's number inside, so one rename makes
both durable at once. The epochs' metrics are appended to a log before that rename; lines beyond the
checkpoint's epoch were not reached by it and are dropped.

Files in a trial's directory: `checkpoint.weights.h5` (KerasTuner's name, so that its tuners load
it), `best.weights.h5` if the best epoch is kept, `epochs.jsonl`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from search.errors import RunDirectoryError
from search.journal import KEPT_WEIGHTS, cut_short, storage_errors
from search.records import EpochRecord, to_json

EPOCH_ATTRIBUTE = "xray_search_epoch"
LAST = "checkpoint.weights.h5"
BEST = KEPT_WEIGHTS
LOG = "epochs.jsonl"
ERRNO = re.compile(r"\berrno = (\d+)")
"""How HDF5 words the number of a system error."""


def save(model: Any, path: Path, *, epoch: int) -> None:
    """Write weights, optimizer state and epoch number, atomically.

    Args:
        model: A compiled Keras model.
        path: Where to; the name ends in `.weights.h5`.
        epoch: Number of the epoch just finished.

    Raises:
        StorageError: The disk is full or read-only.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            with _system_errors():
                model.save_weights(temporary)
                with h5py.File(temporary, "r+") as file:
                    file.attrs[EPOCH_ATTRIBUTE] = epoch
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raise what the system refused to HDF5 as an OSError that has its number.

    HDF5 tells of a full disk when it closes a file, as a RuntimeError with the number in its text.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = ERRNO.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def saved_epoch(path: Path) -> int:
    """Return the epoch of a checkpoint, 0 where there is none or it cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            return int(file.attrs[EPOCH_ATTRIBUTE])
    except (OSError, KeyError):
        return 0


def load(model: Any, path: Path, *, training: bool = False) -> None:
    """Restore weights, optimizer moments, iteration count and learning rate.

    Args:
        model: A compiled Keras model of the same configuration.
        path: The checkpoint.
        training: Whether training goes on, for which the optimizer must fit too. It does not where
            the checkpoint was trained in another number of parts, see `footprint.py`, as on
            another kind of device; Keras would leave it out.

    Raises:
        RunDirectoryError: Training cannot go on from it.
    """
    if not model.optimizer.built:
        # Keras creates the optimizer's variables at the first step; loading skips missing ones.
        model.optimizer.build(model.trainable_variables)
    if training:
        with h5py.File(path, "r") as file:
            saved = len(file["optimizer"]["vars"])
        if saved != len(model.optimizer.variables):
            raise RunDirectoryError(
                f"{path}: kept by a training whose batches were split otherwise, as on another "
                "kind of device (GPU or CPU); resume where the run was begun"
            )
    model.load_weights(path)


def append_epoch(directory: Path, record: EpochRecord) -> None:
    """Add an epoch to the trial's log.

    Raises:
        StorageError: The disk is full or read-only.
    """
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        begin = "\n" if cut_short(directory / LOG) else ""
        with open(directory / LOG, "a", encoding="utf-8") as handle:
            handle.write(begin + json.dumps(to_json(record)) + "\n")


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
            record = EpochRecord(**json.loads(line))
        except json.JSONDecodeError:
            continue  # cut short by a kill
        if record.epoch <= up_to:
            found[record.epoch] = record
    return [found[epoch] for epoch in sorted(found)]


def remove(directory: Path) -> int:
    """Delete a trial's checkpoints and return the bytes freed; its log stays."""
    freed = 0
    for name in (LAST, BEST):
        path = directory / name
        if path.exists():
            freed += path.stat().st_size
            path.unlink()
    return freed
