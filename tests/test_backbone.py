"""The example of a HyperModel of one's own, with a backbone of keras.applications."""

from pathlib import Path

import keras
import numpy as np
import pytest

from search.config import RunConfig
from search.records import TrialSpec
from search.tuning import space as spaces
from search.tuning.hypermodel import factory
from search.tuning.model import Setting, build_model
from search.tuning.trial import train_trial

EXAMPLE = Path(__file__).parents[1] / "results" / "examples" / "backbone.py"


@pytest.fixture
def hypermodel(tiny_dataset, monkeypatch):
    monkeypatch.delenv("BACKBONE_WEIGHTS", raising=False)
    return made(tiny_dataset)


def made(dataset):
    config = RunConfig(hypermodel=f"{EXAMPLE}:Backbone", image_size=32)
    return factory(config, dataset)(1, len(dataset.train))


def setting(dataset, hypermodel) -> Setting:
    return Setting(
        dataset=dataset,
        hypermodel=hypermodel,
        objective="robust_loss",
        prevalence=dataset.prevalence,
    )


@pytest.mark.slow
def test_a_trial_of_it_is_trained(hypermodel, tiny_dataset, tmp_path):
    values = spaces.defaults(spaces.declared(hypermodel))
    assert set(values) == {"dropout", "batch_size", "learning_rate", "weight_decay"}
    spec = TrialSpec(trial_id="own", values=values, seed=5, epochs=1, directory=tmp_path / "own")
    result = train_trial(spec, setting(tiny_dataset, hypermodel))
    assert result.failure is None
    assert len(result.epochs) == 1


def test_weights_come_from_a_file_and_may_be_held(tiny_dataset, tmp_path, monkeypatch):
    saved = keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), include_top=False, weights=None, pooling="avg"
    )
    file = tmp_path / "backbone.weights.h5"
    saved.save_weights(file)
    monkeypatch.setenv("BACKBONE_WEIGHTS", str(file))
    hypermodel = made(tiny_dataset)
    values = spaces.complete(spaces.declared(hypermodel), {"fine_tune": False})
    model = build_model(setting(tiny_dataset, hypermodel), values, seed=1)
    (backbone,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    for loaded, weight in zip(backbone.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, weight)
    assert len(model.trainable_variables) == 2  # the head's
