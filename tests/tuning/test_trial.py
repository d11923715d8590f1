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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from hypermodels import DocumentedCNN
from search.errors import DataError, StopRequestedError, StorageError
from search.records import FailureKind, TrialResult, TrialSpec
from search.tuning import checkpoint, validation
from search.tuning import trial as trials
from search.tuning.executors import measure_pace
from search.tuning.model import Setting, build_model
from search.tuning.trial import train_trial
from tests.tuning.fakes import TinyHyperModel

VALUES = {"filters": 4, "learning_rate": 0.01, "batch_size": 8, "boom": False, "nan": False}


@pytest.fixture
def setting(tiny_dataset) -> Setting:
    return Setting(
        dataset=tiny_dataset,
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )


def spec(folder: Path, name: str, **changes) -> TrialSpec:
    fields = {"values": VALUES, "seed": 5, "epochs": 2, "directory": folder / name}
    return TrialSpec(trial_id=name, **{**fields, **changes})


def arrays(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = arrays(first), arrays(second)
    assert one.keys() == two.keys()
    assert any("optimizer" in name for name in one)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-6, err_msg=name)


def promoted(setting: Setting, folder: Path, **changes) -> tuple[Path, TrialResult]:
    """Train 1 + 2 + 6 epochs through promotions; return the last checkpoint and result."""
    parent, done = None, 0
    for name, epochs in (("a", 1), ("b", 3), ("c", 9)):
        step = {"initial_epoch": done, "epochs": epochs, "parent_checkpoint": parent}
        result = train_trial(spec(folder, name, **step, **changes), setting)
        assert result.failure is None
        parent, done = folder / name / checkpoint.LAST, epochs
    return parent, result


def test_one_two_and_six_epochs_through_promotions_equal_nine_straight(setting, tmp_path):
    straight = train_trial(spec(tmp_path, "straight", epochs=9), setting)
    last, result = promoted(setting, tmp_path)
    assert_same_weights(tmp_path / "straight" / checkpoint.LAST, last)
    assert [e.epoch for e in result.epochs] == [4, 5, 6, 7, 8, 9]
    for one, two in zip(straight.epochs[3:], result.epochs, strict=True):
        assert one.metrics == pytest.approx(two.metrics, abs=1e-6)


@pytest.mark.slow
def test_the_documented_network_continues_exactly_with_all_that_has_a_state(setting, tmp_path):
    real = dataclasses.replace(
        setting, hypermodel=DocumentedCNN(image_size=32, train_size=36, epochs=9)
    )
    values = {
        **{"base_filters": 8, "separable": True, "activation": "gelu", "batch_norm": True},
        **{"conv_dropout": 0.2, "head": "flatten", "dense_layers": 1, "dense_units_1": 32},
        **{"dense_dropout_1": 0.3, "crop_min_area": 0.6, "tone_jitter": 0.2, "flip": True},
        **{"rotation": 10.0, "noise": 0.02, "learning_rate": 1e-3, "schedule": "cosine"},
        **{"weight_decay": 1e-3, "label_smoothing": 0.02, "batch_size": 16},
    }
    straight = train_trial(spec(tmp_path, "straight", values=values, epochs=9), real)
    assert straight.failure is None
    last, result = promoted(real, tmp_path, values=values)
    assert_same_weights(tmp_path / "straight" / checkpoint.LAST, last)
    for one, two in zip(straight.epochs[3:], result.epochs, strict=True):
        assert one.metrics == pytest.approx(two.metrics, abs=1e-6)


def test_a_model_over_the_limit_is_a_recorded_failure_before_anything_is_trained(setting, tmp_path):
    limited = dataclasses.replace(setting, max_parameters=100)
    result = train_trial(spec(tmp_path, "t"), limited)
    assert result.failure.kind is FailureKind.TOO_LARGE
    assert re.search(r"has \d+ parameters, more than --max-parameters 100", result.failure.message)
    assert result.epochs == ()
    assert not (tmp_path / "t").exists()
    wide = dataclasses.replace(setting, max_parameters=10**6)
    assert train_trial(spec(tmp_path, "t", epochs=1), wide).failure is None


def test_the_pace_of_a_model_over_the_limit_is_measured_all_the_same(setting):
    limited = dataclasses.replace(setting, max_parameters=100)
    assert measure_pace(limited, VALUES, seed=1).epoch > 0


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


@pytest.fixture
def callback(setting, tmp_path):
    """The callback of a trial, and the signs of life that it gave."""
    signs = []
    run = trials._Run(
        spec(tmp_path, "t"),
        setting,
        on_epoch=lambda record: None,
        should_stop=lambda: False,
        on_step=lambda: signs.append(1),
    )
    return trials._EpochEnd(run, None, None), signs


def test_keras_need_not_wait_for_every_step(callback, monkeypatch):
    from keras.src.callbacks import callback_list

    monkeypatch.setattr(callback_list.backend, "IS_THREAD_SAFE", True)  # as on JAX
    assert keras.callbacks.CallbackList([callback[0]])._async_train


def test_steps_told_of_by_many_threads_are_all_counted_and_compiling_once(callback):
    told, signs = callback
    told.begin = time.perf_counter() - 5
    together = threading.Barrier(16)

    def tell(batch):
        together.wait()
        told.on_train_batch_end(batch)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(tell, range(16)))
    assert len(signs) == 16
    assert told.run.costs["compile"] == pytest.approx(5, abs=1)
    assert told.run.costs["train"] == pytest.approx(-5, abs=1)


def test_a_stop_keeps_the_epoch_and_the_next_start_continues(setting, tmp_path):
    seen = []
    with pytest.raises(StopRequestedError):
        train_trial(
            spec(tmp_path, "t", epochs=4),
            setting,
            on_epoch=seen.append,
            should_stop=lambda: len(seen) == 2,
        )
    result = train_trial(spec(tmp_path, "t", epochs=4), setting)
    whole = train_trial(spec(tmp_path, "whole", epochs=4), setting)
    assert [e.epoch for e in result.epochs] == [1, 2, 3, 4]
    assert_same_weights(tmp_path / "t" / checkpoint.LAST, tmp_path / "whole" / checkpoint.LAST)
    assert result.epochs[-1].metrics == pytest.approx(whole.epochs[-1].metrics, abs=1e-6)


def test_a_finished_trial_is_not_trained_again(setting, tmp_path):
    first = train_trial(spec(tmp_path, "t"), setting)
    before = (tmp_path / "t" / checkpoint.LAST).stat().st_mtime_ns
    again = train_trial(spec(tmp_path, "t"), setting)
    assert (tmp_path / "t" / checkpoint.LAST).stat().st_mtime_ns == before
    assert again.epochs == first.epochs


def test_what_a_kill_left_of_a_checkpoint_is_gone_when_the_trial_goes_on(setting, tmp_path):
    train_trial(spec(tmp_path, "t", epochs=1), setting)
    (tmp_path / "t" / f".99.{checkpoint.LAST}").write_bytes(b"half")
    train_trial(spec(tmp_path, "t"), setting)
    assert {path.name for path in (tmp_path / "t").iterdir()} == {checkpoint.LAST, checkpoint.LOG}


def test_a_log_line_beyond_the_checkpoint_is_not_believed(setting, tmp_path):
    train_trial(spec(tmp_path, "t", epochs=1), setting)
    ahead = dataclasses.replace(
        checkpoint.read_epochs(tmp_path / "t", up_to=1)[0], epoch=2, seconds=99.0
    )
    checkpoint.append_epoch(tmp_path / "t", ahead)
    with open(tmp_path / "t" / checkpoint.LOG, "a") as handle:
        handle.write('{"trial_id": "t", "epo')
    result = train_trial(spec(tmp_path, "t", epochs=2), setting)
    assert [e.epoch for e in result.epochs] == [1, 2]
    assert result.epochs[1].seconds != 99.0


def test_an_exception_in_build_is_a_recorded_failure(setting, tmp_path):
    result = train_trial(spec(tmp_path, "t", values={**VALUES, "boom": True}), setting)
    assert result.failure.kind is FailureKind.ERROR
    assert "boom in build" in result.failure.message
    assert "fakes.py" in result.failure.traceback


def test_a_loss_that_is_not_finite_is_a_recorded_failure(setting, tmp_path):
    result = train_trial(spec(tmp_path, "t", values={**VALUES, "nan": True}), setting)
    assert result.failure.kind is FailureKind.DIVERGED
    assert "nan" in result.failure.message


def test_out_of_memory_is_retried_once_at_half_the_batch(setting, tmp_path, monkeypatch):
    whole = setting.hypermodel.fit
    sizes = []

    def hungry(hp, *args, **options):
        sizes.append(hp.values["batch_size"])
        if sizes[-1] > 4:
            raise MemoryError("not that much")
        return whole(hp, *args, **options)

    monkeypatch.setattr(setting.hypermodel, "fit", hungry)
    result = train_trial(spec(tmp_path, "t"), setting)
    assert sizes == [8, 4]
    assert result.failure is None
    assert "retried at 4" in result.notes[0]
    result = train_trial(spec(tmp_path, "u", values={**VALUES, "batch_size": 16}), setting)
    assert result.failure.kind is FailureKind.OUT_OF_MEMORY
    assert sizes == [8, 4, 16, 8]


def test_the_best_epoch_is_kept_beside_the_last(setting, tmp_path):
    result = train_trial(spec(tmp_path, "t", epochs=5, keep_best=True), setting)
    losses = [e.metrics["robust_loss"] for e in result.epochs]
    smooth = [*losses[:3], sum(losses[2:4]) / 2, sum(losses[3:5]) / 2]
    assert result.best_epoch == smooth.index(min(smooth)) + 1
    assert checkpoint.saved_epoch(tmp_path / "t" / checkpoint.BEST) == result.best_epoch
    assert checkpoint.saved_epoch(tmp_path / "t" / checkpoint.LAST) == 5


def test_early_stopping_ends_a_trial_that_gets_no_better(setting, tmp_path):
    result = train_trial(
        spec(
            tmp_path,
            "t",
            epochs=60,
            early_stopping=2,
            values={**VALUES, "learning_rate": 0.1},
        ),
        setting,
    )
    assert result.failure is None
    assert result.epochs[-1].epoch - result.best_epoch == 2
    assert result.epochs[-1].epoch < 60


@pytest.mark.slow
def test_continuation_is_exact_on_jax_too(tmp_path):
    pytest.importorskip("jax")
    script = tmp_path / "run.py"
    script.write_text(
        "import pytest, sys\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', sys.argv[1], '-k',\n"
        "    'one_two_and_six or stop_keeps']))\n"
    )
    import os

    done = subprocess.run(
        [sys.executable, str(script), __file__],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_and_output_in_float32(setting):
    mixed = dataclasses.replace(setting, hypermodel=DocumentedCNN(image_size=32))
    model = build_model(mixed, {}, 1, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    convolution = next(x for x in model.layers if isinstance(x, keras.layers.SeparableConv2D))
    assert convolution.compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert model.output.dtype == "float32"
    assert build_model(mixed, {}, 1).layers[-2].compute_dtype == "float32"


def test_a_trial_trains_in_mixed_precision(setting, tmp_path):
    mixed = dataclasses.replace(setting, hypermodel=DocumentedCNN(image_size=32))
    values = {"base_filters": 8, "dense_layers": 1, "dense_units_1": 32, "batch_size": 8}
    result = train_trial(
        spec(tmp_path, "mixed", values=values, epochs=1, precision="mixed_bfloat16"), mixed
    )
    assert result.failure is None
    assert np.isfinite(result.epochs[0].metrics["robust_loss"])


def test_a_promoted_trial_goes_on_from_one_whose_batch_was_halved(setting, tmp_path, monkeypatch):
    fit, refused = TinyHyperModel.fit, []

    def hungry(self, hp, model, feed, *args, **kwargs):
        if hp.values["batch_size"] > 8 and not refused:
            refused.append(hp.values["batch_size"])
            raise MemoryError
        return fit(self, hp, model, feed, *args, **kwargs)

    monkeypatch.setattr(TinyHyperModel, "fit", hungry)
    values = {**VALUES, "batch_size": 16}
    first = train_trial(spec(tmp_path, "a", values=values, epochs=1), setting)
    assert "retried at 8" in first.notes[0]
    parent = tmp_path / "a" / checkpoint.LAST
    child = {"initial_epoch": 1, "epochs": 2, "parent_checkpoint": parent}
    assert train_trial(spec(tmp_path, "b", values=values, **child), setting).failure is None
    # The learning rate's schedule goes on from the steps of whole batches.
    model = build_model(setting, values, 1)
    steps = math.ceil(len(setting.dataset.train) / 16)
    checkpoint.load(model, parent, steps=steps)
    assert int(model.optimizer.iterations) == steps


def test_a_checkpoint_of_another_optimizer_is_a_failed_trial(setting, tmp_path, monkeypatch):
    train_trial(spec(tmp_path, "t", epochs=1), setting)
    monkeypatch.setattr(keras.optimizers, "Adam", keras.optimizers.SGD)
    monkeypatch.setattr(keras.optimizers, "AdamW", keras.optimizers.SGD)
    result = train_trial(spec(tmp_path, "t", epochs=2), setting)
    assert "another optimizer" in result.failure.message


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_without_a_parents_checkpoint_its_epochs_are_trained_again(setting, tmp_path, harm):
    straight = train_trial(spec(tmp_path, "straight", epochs=3), setting)
    train_trial(spec(tmp_path, "parent", epochs=1), setting)
    parent = tmp_path / "parent" / checkpoint.LAST
    if harm == "gone":
        parent.unlink()
    else:
        parent.write_bytes(parent.read_bytes()[:-1])
    heard = []
    child = {"initial_epoch": 1, "epochs": 3, "parent_checkpoint": parent}
    result = train_trial(spec(tmp_path, "child", **child), setting, on_epoch=heard.append)
    assert result.failure is None
    assert "gone or damaged; trained from the beginning" in result.notes[0]
    # Only its own epochs are reported, and they are those of training without a pause.
    assert [e.epoch for e in result.epochs] == [e.epoch for e in heard] == [2, 3]
    for one, two in zip(straight.epochs[1:], result.epochs, strict=True):
        assert one.metrics == pytest.approx(two.metrics, abs=1e-6)


@pytest.mark.parametrize("name", [checkpoint.LAST, checkpoint.BEST])
def test_a_damaged_checkpoint_of_its_own_is_trained_again_with_a_note(setting, tmp_path, name):
    whole = train_trial(spec(tmp_path, "t", epochs=2, keep_best=True), setting)
    own = tmp_path / "t" / name
    own.write_bytes(own.read_bytes()[:-1])
    result = train_trial(spec(tmp_path, "t", epochs=2, keep_best=True), setting)
    assert checkpoint.saved_epoch(own) in (1, 2)
    assert "damaged; its epochs were trained again" in result.notes[0]
    assert result.epochs[-1].metrics == pytest.approx(whole.epochs[-1].metrics, abs=1e-6)


@pytest.mark.parametrize("part", ["train", "views"])
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 1000)])
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
