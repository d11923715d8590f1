"""Training one trial for real, on tiny images: continuation, failures, stopping."""

import dataclasses
import errno
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from hypermodels import DocumentedCNN
from search.errors import DataError, StopRequestedError, StorageError
from search.records import EpochRecord, FailureKind
from search.tuning import checkpoint, executors, validation
from search.tuning import trial as trials
from search.tuning.executors import measure_pace
from search.tuning.model import Setting, build_model
from search.tuning.trial import train_trial
from tests.tuning.fakes import VALUES, TinyHyperModel, setting_of, spec
from tests.tuning.faulty import HungryHyperModel


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def arrays(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = arrays(first), arrays(second)
    assert one.keys() == two.keys()
    assert any("optimizer" in name for name in one)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-6, err_msg=name)


def assert_same_epochs(first: Iterable[EpochRecord], second: Iterable[EpochRecord]) -> None:
    for one, two in zip(first, second, strict=True):
        assert one.epoch == two.epoch
        assert one.metrics == pytest.approx(two.metrics, abs=1e-6)


REAL = {
    **{"base_filters": 8, "separable": True, "activation": "gelu", "batch_norm": True},
    **{"conv_dropout": 0.2, "head": "flatten", "dense_layers": 1, "dense_units_1": 32},
    **{"dense_dropout_1": 0.3, "crop_min_area": 0.6, "tone_jitter": 0.2, "flip": True},
    **{"rotation": 10.0, "noise": 0.02, "learning_rate": 1e-3, "schedule": "cosine"},
    **{"weight_decay": 1e-3, "label_smoothing": 0.02, "batch_size": 16},
}
"""Values of the documented network: all of its layers that have a state."""


@pytest.fixture
def real(tiny_dataset) -> Setting:
    """What trials of the documented network have in common."""
    return setting_of(tiny_dataset, DocumentedCNN(image_size=32, train_size=36, epochs=9))


@pytest.mark.parametrize(
    ("which", "changes"),
    [("setting", {}), pytest.param("real", {"values": REAL}, marks=pytest.mark.slow)],
)
def test_one_two_and_six_epochs_through_promotions_equal_nine_straight(
    request, tmp_path, which, changes
):
    found = request.getfixturevalue(which)
    straight = train_trial(spec(tmp_path, "straight", epochs=9, **changes), found)
    assert straight.failure is None
    parent, done = None, 0
    for name, epochs in (("a", 1), ("b", 3), ("c", 9)):
        step = {"initial_epoch": done, "epochs": epochs, "parent_checkpoint": parent}
        result = train_trial(spec(tmp_path, name, **step, **changes), found)
        assert result.failure is None
        parent, done = tmp_path / name / checkpoint.LAST, epochs
    assert_same_weights(tmp_path / "straight" / checkpoint.LAST, parent)
    assert_same_epochs(straight.epochs[3:], result.epochs)


def test_a_model_over_the_limit_is_a_recorded_failure_before_anything_is_trained(setting, tmp_path):
    result = train_trial(spec(tmp_path, "t"), dataclasses.replace(setting, max_parameters=100))
    assert result.failure.kind is FailureKind.TOO_LARGE
    assert re.search(r"has \d+ parameters, more than --max-parameters 100", result.failure.message)
    assert result.epochs == ()
    assert not (tmp_path / "t").exists()
    wide = dataclasses.replace(setting, max_parameters=10**6)
    assert train_trial(spec(tmp_path, "t", epochs=1), wide).failure is None


def test_the_network_learns_and_logs_every_metric(setting, tmp_path):
    result = train_trial(spec(tmp_path, "t", epochs=12), setting)
    last = result.epochs[-1].metrics
    assert last["val_auc"] > 0.95
    assert last["robust_loss"] >= max(last["val_loss"], 0)
    assert {"loss", "accuracy", "val_recall", "val_precision", "stress_auc"} <= set(last)
    assert result.parameters > 0
    assert tuple(result.costs) == trials.COSTS


def test_training_and_validation_give_signs_of_life(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "PIXELS", 8 * 32**2)
    signs = []
    train_trial(spec(tmp_path, "t", epochs=2), setting, on_step=lambda: signs.append(1))
    # 36 images in batches of 8; 24 to validate on, and as many views, likewise.
    assert len(signs) == 2 * (5 + 3 + 3)


def test_keras_waits_for_no_step_and_those_told_of_by_many_threads_are_all_counted(
    setting, tmp_path, monkeypatch
):
    from keras.src.callbacks import callback_list

    signs = []
    run = trials._Run(
        spec(tmp_path, "t"),
        setting,
        on_epoch=lambda record: None,
        should_stop=lambda: False,
        on_step=lambda: signs.append(1),
    )
    told = trials._EpochEnd(run, None, None)
    monkeypatch.setattr(callback_list.backend, "IS_THREAD_SAFE", True)  # as on JAX
    assert keras.callbacks.CallbackList([told])._async_train
    told.begin = time.perf_counter() - 5
    together = threading.Barrier(16)

    def tell(batch):
        together.wait()
        told.on_train_batch_end(batch)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(tell, range(16)))
    assert len(signs) == 16
    # Compiling is counted once.
    assert told.run.costs["compile"] == pytest.approx(5, abs=1)
    assert told.run.costs["train"] == pytest.approx(-5, abs=1)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_stop_keeps_the_epoch_and_the_next_start_continues(setting, tmp_path, ema):
    changes, seen = {"epochs": 4, "keep_best": True, "ema": ema}, []
    with pytest.raises(StopRequestedError):
        train_trial(
            spec(tmp_path, "t", **changes),
            setting,
            on_epoch=seen.append,
            should_stop=lambda: len(seen) == 2,
        )
    result = train_trial(spec(tmp_path, "t", **changes), setting)
    whole = train_trial(spec(tmp_path, "whole", **changes), setting)
    assert_same_epochs(whole.epochs, result.epochs)
    for name in (checkpoint.LAST, checkpoint.BEST):
        assert_same_weights(tmp_path / "t" / name, tmp_path / "whole" / name)


def test_the_average_does_not_touch_training_and_its_metrics_are_those_of_what_is_kept(
    setting, tmp_path
):
    average = spec(tmp_path, "with", ema=0.9, epochs=3, keep_best=True)
    result = train_trial(average, setting)
    plain = train_trial(spec(tmp_path, "without", epochs=3), setting)
    for one, other in zip(result.epochs, plain.epochs, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], abs=1e-6)
    assert result.epochs[0].metrics["val_loss"] != plain.epochs[0].metrics["val_loss"]
    model = build_model(setting, average.values, 0)
    checkpoint.load(model, average.directory / checkpoint.BEST)
    again = validation.Validator(setting.dataset, prevalence=setting.prevalence).metrics(model)
    kept = result.epochs[result.best_epoch - 1].metrics
    assert again["robust_loss"] == pytest.approx(kept["robust_loss"], abs=1e-6)


def test_without_validation_the_last_epoch_is_kept_and_only_training_is_measured(setting, tmp_path):
    blind = dataclasses.replace(setting, validated=False)
    result = train_trial(spec(tmp_path, "t", epochs=3, keep_best=True), blind)
    assert result.best_epoch == checkpoint.saved_epoch(tmp_path / "t" / checkpoint.BEST) == 3
    assert not [name for name in result.epochs[0].metrics if name.startswith(("val", "robust"))]


def test_what_a_kill_left_is_gone_and_a_log_line_beyond_the_checkpoint_not_believed(
    setting, tmp_path
):
    train_trial(spec(tmp_path, "t", epochs=1), setting)
    (tmp_path / "t" / f".99.{checkpoint.LAST}").write_bytes(b"half")
    (first,) = checkpoint.read_epochs(tmp_path / "t", up_to=1)
    checkpoint.append_epoch(tmp_path / "t", dataclasses.replace(first, epoch=2, seconds=99.0))
    with open(tmp_path / "t" / checkpoint.LOG, "a") as handle:
        handle.write('{"trial_id": "t", "epo')
    result = train_trial(spec(tmp_path, "t", epochs=2), setting)
    assert [e.epoch for e in result.epochs] == [1, 2]
    assert result.epochs[1].seconds != 99.0
    assert {path.name for path in (tmp_path / "t").iterdir()} == {checkpoint.LAST, checkpoint.LOG}


@pytest.mark.parametrize(
    ("changes", "kind", "message", "traceback"),
    [
        ({"boom": True}, FailureKind.ERROR, "boom in build", "fakes.py"),
        ({"nan": True}, FailureKind.DIVERGED, "nan", ""),
    ],
)
def test_an_exception_and_a_loss_that_is_not_finite_are_recorded_failures(
    setting, tmp_path, changes, kind, message, traceback
):
    failure = train_trial(spec(tmp_path, "t", **changes), setting).failure
    assert failure.kind is kind
    assert message in failure.message
    assert traceback in failure.traceback


def test_out_of_memory_is_retried_once_at_half_the_batch(tiny_dataset, tmp_path):
    setting = setting_of(tiny_dataset, HungryHyperModel(4))
    result = train_trial(spec(tmp_path, "t", batch_size=8), setting)
    assert result.failure is None
    assert result.notes == ("out of memory at batch size 8; retried at 4",)
    result = train_trial(spec(tmp_path, "u", batch_size=16), setting)
    assert result.failure.kind is FailureKind.OUT_OF_MEMORY


def test_the_best_epoch_is_kept_beside_the_last(setting, tmp_path):
    result = train_trial(spec(tmp_path, "t", epochs=5, keep_best=True), setting)
    losses = [e.metrics["robust_loss"] for e in result.epochs]
    smooth = [*losses[:3], sum(losses[2:4]) / 2, sum(losses[3:5]) / 2]
    assert result.best_epoch == smooth.index(min(smooth)) + 1
    assert checkpoint.saved_epoch(tmp_path / "t" / checkpoint.BEST) == result.best_epoch
    assert checkpoint.saved_epoch(tmp_path / "t" / checkpoint.LAST) == 5


def test_early_stopping_ends_a_trial_that_gets_no_better(setting, tmp_path):
    changes = {"epochs": 60, "early_stopping": 2, "learning_rate": 0.1}
    result = train_trial(spec(tmp_path, "t", **changes), setting)
    assert result.failure is None
    assert result.epochs[-1].epoch - result.best_epoch == 2
    assert result.epochs[-1].epoch < 60


@pytest.mark.slow
def test_continuation_is_exact_on_jax_too():
    pytest.importorskip("jax")
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "one_two_and_six or a_stop"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_and_output_in_float32(
    real, tmp_path
):
    model = build_model(real, {}, 1, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    convolution = next(x for x in model.layers if isinstance(x, keras.layers.SeparableConv2D))
    assert convolution.compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert model.output.dtype == "float32"
    assert build_model(real, {}, 1).layers[-2].compute_dtype == "float32"
    changes = {"values": REAL, "epochs": 1, "precision": "mixed_bfloat16"}
    result = train_trial(spec(tmp_path, "mixed", **changes), real)
    assert result.failure is None
    assert np.isfinite(result.epochs[0].metrics["robust_loss"])


def test_a_promoted_trial_goes_on_from_one_whose_batch_was_halved(tiny_dataset, tmp_path):
    setting = setting_of(tiny_dataset, HungryHyperModel(8))
    first = train_trial(spec(tmp_path, "a", batch_size=16, epochs=1), setting)
    assert "retried at 8" in first.notes[0]
    setting.hypermodel.memory = 16
    parent = tmp_path / "a" / checkpoint.LAST
    child = spec(tmp_path, "b", batch_size=16, initial_epoch=1, parent_checkpoint=parent)
    assert train_trial(child, setting).failure is None
    # The learning rate's schedule goes on from the steps of whole batches.
    model = build_model(setting, child.values, 1)
    steps = math.ceil(len(setting.dataset.train) / 16)
    checkpoint.load(model, parent, steps=steps)
    assert int(model.optimizer.iterations) == steps


def test_a_checkpoint_of_another_optimizer_is_a_failed_trial(setting, tmp_path, monkeypatch):
    train_trial(spec(tmp_path, "t", epochs=1), setting)
    monkeypatch.setattr(keras.optimizers, "Adam", keras.optimizers.SGD)
    result = train_trial(spec(tmp_path, "t", epochs=2), setting)
    assert "another optimizer" in result.failure.message


@pytest.mark.parametrize("harm", [Path.unlink, cut_short])
def test_without_a_parents_checkpoint_its_epochs_are_trained_again(setting, tmp_path, harm):
    straight = train_trial(spec(tmp_path, "straight", epochs=3), setting)
    train_trial(spec(tmp_path, "parent", epochs=1), setting)
    parent = tmp_path / "parent" / checkpoint.LAST
    harm(parent)
    heard = []
    child = spec(tmp_path, "child", initial_epoch=1, epochs=3, parent_checkpoint=parent)
    result = train_trial(child, setting, on_epoch=heard.append)
    assert result.failure is None
    assert "gone or damaged; trained from the beginning" in result.notes[0]
    # Only its own epochs are reported, and they are those of training without a pause.
    assert [e.epoch for e in heard] == [2, 3]
    assert_same_epochs(straight.epochs[1:], result.epochs)


@pytest.mark.parametrize("name", [checkpoint.LAST, checkpoint.BEST])
def test_a_damaged_checkpoint_of_its_own_is_trained_again_with_a_note(setting, tmp_path, name):
    trial = spec(tmp_path, "t", keep_best=True)
    whole = train_trial(trial, setting)
    cut_short(trial.directory / name)
    result = train_trial(trial, setting)
    assert checkpoint.saved_epoch(trial.directory / name) in (1, 2)
    assert "damaged; its epochs were trained again" in result.notes[0]
    assert result.epochs[-1].metrics == pytest.approx(whole.epochs[-1].metrics, abs=1e-6)


@pytest.mark.parametrize("part", ["train", "views"])
@pytest.mark.parametrize("harm", [Path.unlink, cut_short])
def test_prepared_images_that_are_gone_or_cut_short_are_no_failure_of_the_trial(
    setting, tmp_path, part, harm
):
    harm(getattr(setting.dataset, part).array_file)
    with pytest.raises(DataError, match=r"gone or cut short.*--resume"):
        train_trial(spec(tmp_path, "t"), setting)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_no_failure_of_the_trial_wherever_it_is_met(
    setting, tmp_path, monkeypatch, number
):
    def refused(self, *_, **__):  # as a print to a log that cannot grow
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(TinyHyperModel, "fit", refused)
    with pytest.raises(StorageError, match="--resume"):
        train_trial(spec(tmp_path, "t"), setting)


def test_the_pace_is_that_of_whole_batches_timed_for_a_while(setting, monkeypatch):
    step, sizes = keras.Model.train_on_batch, []

    def counted(model, images, *args, **kwargs):
        sizes.append(len(images))
        return step(model, images, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "train_on_batch", counted)
    monkeypatch.setattr(executors, "MEASURED_SECONDS", 0.4)
    begin = time.monotonic()
    pace = measure_pace(setting, VALUES, seed=1)
    assert time.monotonic() - begin >= 0.4
    assert len(sizes) >= executors.WARM_STEPS + executors.MEASURED_STEPS
    # Never the last batch, whose 4 images would be compiled for.
    assert set(sizes) == {8}
    assert pace.epoch > 0
    assert pace.trial > 0
