"""A configuration's network: the average of weights is what is validated and kept."""

import dataclasses

import pytest

from hypermodels.optimization import keep_average
from search.records import TrialSpec
from search.tuning import checkpoint
from search.tuning.model import Setting, build_model
from search.tuning.trial import train_trial
from search.tuning.validation import Validator
from tests.tuning.fakes import TinyHyperModel
from tests.tuning.test_trial import VALUES, assert_same_weights


class Averaging(TinyHyperModel):
    """Keeps an average of the weights where its values ask for one."""

    def build(self, hp):
        model = super().build(hp)
        if decay := hp.values.get("ema", 0.0):
            keep_average(model.optimizer, decay)
        return model


@pytest.fixture
def setting(tiny_dataset) -> Setting:
    return Setting(
        dataset=tiny_dataset,
        hypermodel=Averaging(),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )


def spec(folder, name, *, ema=0.9, **changes) -> TrialSpec:
    fields = {"values": {**VALUES, "ema": ema}, "seed": 5, "epochs": 3, "directory": folder / name}
    return TrialSpec(trial_id=name, keep_best=True, **{**fields, **changes})


def test_stopping_and_going_on_gives_the_same_average(setting, tmp_path):
    train_trial(spec(tmp_path, "straight"), setting)
    train_trial(spec(tmp_path, "paused", epochs=1), setting)
    train_trial(spec(tmp_path, "paused"), setting)
    for name in (checkpoint.LAST, checkpoint.BEST):
        assert_same_weights(tmp_path / "straight" / name, tmp_path / "paused" / name)


def test_the_average_does_not_touch_training_and_its_metrics_are_those_of_what_is_kept(
    setting, tmp_path
):
    result = train_trial(spec(tmp_path, "with"), setting)
    plain = train_trial(spec(tmp_path, "without", ema=0.0), setting)
    for one, other in zip(result.epochs, plain.epochs, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], abs=1e-6)
    assert result.epochs[0].metrics["val_loss"] != plain.epochs[0].metrics["val_loss"]
    model = build_model(setting, {**VALUES, "ema": 0.9}, 0)
    checkpoint.load(model, tmp_path / "with" / checkpoint.BEST)
    again = Validator(setting.dataset, prevalence=setting.prevalence).metrics(model)
    kept = result.epochs[result.best_epoch - 1].metrics
    assert again["robust_loss"] == pytest.approx(kept["robust_loss"], abs=1e-6)


def test_without_validation_the_last_epoch_is_kept_and_only_training_is_measured(setting, tmp_path):
    blind = dataclasses.replace(setting, validated=False)
    result = train_trial(spec(tmp_path, "blind"), blind)
    assert result.best_epoch == 3
    assert checkpoint.saved_epoch(tmp_path / "blind" / checkpoint.BEST) == 3
    assert not [name for name in result.epochs[0].metrics if name.startswith(("val", "robust"))]
