"""The average of weights: what is validated and kept; training goes on without it."""

import dataclasses

import keras
import numpy as np
import pytest

from search.records import TrialSpec
from search.tuning import checkpoint, footprint
from search.tuning.averaging import averaged, begin_averaging
from search.tuning.model import Setting, build_model
from search.tuning.trial import train_trial
from tests.tuning.fakes import TinyHyperModel
from tests.tuning.test_trial import VALUES, assert_same_weights


@pytest.fixture
def setting(tiny_dataset) -> Setting:
    return Setting(
        dataset=tiny_dataset,
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )


def spec(folder, name, **changes) -> TrialSpec:
    fields = {"values": VALUES, "seed": 5, "epochs": 3, "directory": folder / name, "average": 0.9}
    return TrialSpec(trial_id=name, keep_best=True, **{**fields, **changes})


@pytest.mark.parametrize("parts", [1, 2])
def test_it_is_the_mean_with_a_decay_that_grows_to_its_limit(setting, monkeypatch, parts):
    monkeypatch.setattr(footprint, "parts", lambda *_: parts)
    model = build_model(setting, VALUES, 5, average=0.25)
    images, labels = setting.dataset.train.open_array()[:8], np.ones((8, 1), np.float32)
    expected = None
    for step in range(6):
        # A batch that is computed in parts makes one step, and one step of the average.
        for _ in range(parts):
            model.train_on_batch(images, labels)
        weights = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
        # The first step begins the average.
        decay = min(0.25, (1 + step) / (10 + step)) if step else 0.0
        expected = (
            weights
            if expected is None
            else [
                decay * mean + (1 - decay) * value
                for mean, value in zip(expected, weights, strict=True)
            ]
        )
    with averaged(model):
        for variable, mean in zip(model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), mean, atol=1e-6)
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


def test_stopping_and_going_on_gives_the_same_average(setting, tmp_path):
    train_trial(spec(tmp_path, "straight"), setting)
    train_trial(spec(tmp_path, "paused", epochs=1), setting)
    train_trial(spec(tmp_path, "paused"), setting)
    for name in (checkpoint.LAST, checkpoint.BEST):
        assert_same_weights(tmp_path / "straight" / name, tmp_path / "paused" / name)


def test_it_does_not_touch_training_and_its_metrics_are_those_of_what_is_kept(setting, tmp_path):
    from search.tuning.validation import Validator

    result = train_trial(spec(tmp_path, "with"), setting)
    plain = train_trial(spec(tmp_path, "without", average=0.0), setting)
    for one, other in zip(result.epochs, plain.epochs, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], abs=1e-6)
    assert result.epochs[0].metrics["val_loss"] != plain.epochs[0].metrics["val_loss"]
    model = build_model(setting, VALUES, 0, average=0.9)
    checkpoint.load(model, tmp_path / "with" / checkpoint.BEST)
    again = Validator(setting.dataset, prevalence=setting.prevalence).metrics(model)
    kept = result.epochs[result.best_epoch - 1].metrics
    assert again["robust_loss"] == pytest.approx(kept["robust_loss"], abs=1e-6)


def test_it_is_refused_when_asked_too_late(setting):
    model = build_model(setting, VALUES, 5)
    with pytest.raises(ValueError, match="too late"):
        begin_averaging(model.optimizer, 0.9)


def test_without_validation_the_last_epoch_is_kept_and_only_training_is_measured(setting, tmp_path):
    blind = dataclasses.replace(setting, validated=False)
    result = train_trial(spec(tmp_path, "blind"), blind)
    assert result.best_epoch == 3
    assert checkpoint.saved_epoch(tmp_path / "blind" / checkpoint.BEST) == 3
    assert not [name for name in result.epochs[0].metrics if name.startswith(("val", "robust"))]
