"""A trial's files: what the disk refuses, and lines that were cut short."""

import math

import pytest

from search.errors import StorageError
from search.records import EpochRecord
from search.tuning import checkpoint

FULL = (
    "Can't decrement id ref count (file write failed: filename = 'x', file descriptor = 4, "
    "errno = 28, error message = 'No space left on device', buf = 0x1)"
)


class Model:
    """Cannot be saved."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def save_weights(self, path):
        path.write_bytes(b"half")
        raise self.error


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_disk_that_is_full_for_hdf5_is_a_storage_error_and_leaves_nothing(tmp_path, kind):
    with pytest.raises(StorageError, match=r"no space left.*--resume"):
        checkpoint.save(Model(kind(FULL)), tmp_path / checkpoint.LAST, epoch=1)
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_is_not_a_number_comes_back_as_such(tmp_path):
    metrics = {"loss": 0.5, "val_auc": float("nan")}
    written = EpochRecord(trial_id="a", epoch=1, metrics=metrics, seconds=1.0)
    checkpoint.append_epoch(tmp_path, written)
    (read,) = checkpoint.read_epochs(tmp_path, up_to=1)
    assert read.metrics["loss"] == 0.5
    assert math.isnan(read.metrics["val_auc"])


def test_any_other_error_of_hdf5_passes_through(tmp_path):
    with pytest.raises(RuntimeError, match="no such thing"):
        checkpoint.save(Model(RuntimeError("no such thing")), tmp_path / checkpoint.LAST, epoch=1)


def test_an_epochs_line_cut_short_does_not_swallow_the_next(tmp_path):
    first, second = (
        EpochRecord(trial_id="a", epoch=epoch, metrics={"loss": 0.5}, seconds=1.0)
        for epoch in (1, 2)
    )
    checkpoint.append_epoch(tmp_path, first)
    with open(tmp_path / checkpoint.LOG, "a") as log:
        log.write('{"trial_id": "a", "ep')
    checkpoint.append_epoch(tmp_path, second)
    assert checkpoint.read_epochs(tmp_path, up_to=2) == [first, second]


def test_removing_a_trials_checkpoints_leaves_only_its_log(tmp_path):
    names = (checkpoint.LAST, checkpoint.BEST, f".7.{checkpoint.LAST}", f".1234.{checkpoint.BEST}")
    for name in (*names, checkpoint.LOG):
        (tmp_path / name).write_bytes(b"12345")
    assert checkpoint.remove(tmp_path) == 20
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.LOG]
    assert checkpoint.remove(tmp_path / "none") == 0
