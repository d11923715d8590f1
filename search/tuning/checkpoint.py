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
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from search.errors import storage_errors
from search.journal import drop_cut_line
from search.records import EpochRecord, from_json, to_json
from search.run_directory import KEPT_WEIGHTS

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


def load(model: Any, path: Path, *, steps: int | None = None) -> None:
    """Restore weights, optimizer moments, iteration count and learning rate.

    Args:
        model: A compiled Keras model of the same configuration.
        path: The checkpoint.
        steps: Where training goes on, so that the optimizer must be whole: how many of the batches
            that training goes on with are in the epochs behind it.

    Raises:
        ValueError: Training cannot go on from it: it holds the state of another optimizer.
    """
    if not model.optimizer.built:
        # Keras creates the optimizer's variables at the first step; loading skips missing ones.
        model.optimizer.build(model.trainable_variables)
    with warnings.catch_warnings():
        # It leaves an optimizer out that has another number of variables; seen to below.
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        model.load_weights(path)
    if steps is None:
        return
    with h5py.File(path, "r") as file:
        saved, own = len(file["optimizer"]["vars"]), len(model.optimizer.variables)
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

    Call it while nobody trains there.
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
