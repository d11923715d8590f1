"""A trial's files: damage, what the disk refuses, and lines that were cut short."""

import errno
import math
import os
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from search.errors import RunDirectoryError, StorageError
from search.records import EpochRecord
from search.tuning import checkpoint


@pytest.fixture
def model() -> keras.Model:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    made.compile(keras.optimizers.Adam(), "mse")
    made.optimizer.build(made.trainable_variables)
    return made


def test_what_was_saved_comes_back(model, tmp_path):
    path = tmp_path / "new" / checkpoint.LAST
    assert checkpoint.saved_epoch(path) == 0
    checkpoint.save(model, path, epoch=3)
    assert checkpoint.saved_epoch(path) == 3
    kept = [weights.copy() for weights in model.get_weights()]
    model.set_weights([weights + 1 for weights in kept])
    checkpoint.load(model, path, steps=12)
    for mine, theirs in zip(model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert int(model.optimizer.iterations) == 12
    # KerasTuner's tuners and Keras itself read the same file.
    model.load_weights(path)


def flip_a_bit(path: Path, data: bytes) -> None:
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def change_the_epoch(path: Path, data: bytes) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[checkpoint.EPOCH_ATTRIBUTE] = 7


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        change_the_epoch,
        lambda path, data: path.write_bytes(data[: len(data) // 2]),
        lambda path, data: path.write_bytes(data + b"more"),
        lambda path, data: path.write_bytes(b""),
        lambda path, data: path.unlink(),
    ],
)
def test_a_damaged_checkpoint_is_as_good_as_none(model, tmp_path, damage):
    path = tmp_path / checkpoint.LAST
    checkpoint.save(model, path, epoch=3)
    damage(path, path.read_bytes())
    assert checkpoint.saved_epoch(path) == 0
    with pytest.raises(RunDirectoryError, match=r"gone or damaged.*--resume"):
        checkpoint.load(model, path)


def test_what_the_disk_refuses_is_a_storage_error_and_leaves_nothing(model, tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EDQUOT, "quota exceeded")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=r"quota.*--resume"):
        checkpoint.save(model, tmp_path / checkpoint.LAST, epoch=1)
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
import keras
from search.errors import StorageError
from search.tuning import checkpoint
model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(100)])
model.compile(keras.optimizers.Adam(), "mse")
checkpoint.save(model, Path(sys.argv[1]), epoch=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    checkpoint.save(model, Path(sys.argv[1]), epoch=2)
except StorageError as error:
    print(error)
"""


def test_a_file_that_may_not_grow_neither_crashes_nor_harms_the_last_checkpoint(tmp_path):
    path = tmp_path / checkpoint.LAST
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert "may not grow" in done.stdout
    assert checkpoint.saved_epoch(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [checkpoint.LAST]


def test_an_epochs_line_cut_short_does_not_swallow_the_next_nor_a_nan_the_others(tmp_path):
    first, second = (
        EpochRecord(
            trial_id="a", epoch=epoch, metrics={"loss": 0.5, "val_auc": math.nan}, seconds=1.0
        )
        for epoch in (1, 2)
    )
    checkpoint.append_epoch(tmp_path, first)
    with open(tmp_path / checkpoint.LOG, "a") as log:
        log.write('{"trial_id": "a", "ep')
    checkpoint.append_epoch(tmp_path, second)
    assert str(checkpoint.read_epochs(tmp_path, up_to=2)) == str([first, second])


def test_removing_a_trials_checkpoints_leaves_only_its_log(tmp_path):
    names = (checkpoint.LAST, checkpoint.BEST, f".7.{checkpoint.LAST}", f".1234.{checkpoint.BEST}")
    for name in (*names, checkpoint.LOG):
        (tmp_path / name).write_bytes(b"12345")
    assert checkpoint.remove(tmp_path) == 20
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.LOG]
    assert checkpoint.remove(tmp_path / "none") == 0
