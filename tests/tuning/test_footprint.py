"""Steps whose memory is bounded: when a batch is split, and that splitting changes no gradient."""

import keras
import keras_tuner as kt
import numpy as np
import pytest

from hypermodels import DocumentedCNN
from search.errors import RunDirectoryError
from search.tuning import footprint
from search.tuning import trial as trials
from search.tuning.trial import Setting, train_trial
from tests.tuning.fakes import TinyHyperModel
from tests.tuning.test_trial import VALUES, spec


def build(side: int, **values) -> keras.Model:
    hyperparameters = kt.HyperParameters()
    hyperparameters.values = values
    return DocumentedCNN(image_size=side).build(hyperparameters)


@pytest.mark.parametrize(
    ("side", "activation", "base_filters", "batch_size", "number"),
    [
        (180, "relu", 16, 16, 1),
        (180, "relu", 16, 32, 1),
        (180, "relu", 16, 64, 2),
        (180, "gelu", 16, 16, 1),
        (180, "gelu", 16, 32, 2),
        (180, "relu", 32, 16, 1),
        (180, "relu", 32, 64, 4),
        (180, "gelu", 32, 64, 8),
        (96, "relu", 24, 64, 1),
        (96, "gelu", 16, 64, 1),
    ],
)
def test_only_what_would_not_fit_is_split(side, activation, base_filters, batch_size, number):
    model = build(side, activation=activation, base_filters=base_filters)
    assert footprint.parts(model, batch_size) == number


def test_parts_are_equal_and_not_too_small():
    model = build(96)
    assert footprint.parts(model, 64, limit=1) == 8
    assert footprint.parts(model, 48, limit=1) == 4
    assert footprint.parts(model, 49, limit=1) == 1


def test_half_precision_takes_half():
    policy = keras.config.dtype_policy()
    whole = footprint.bytes_per_image(build(96))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = footprint.bytes_per_image(build(96))
    finally:
        keras.config.set_dtype_policy(policy)
    assert 0.5 <= half / whole < 0.6


def test_accumulated_parts_make_the_step_of_the_whole_batch():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 5)).astype("float32")
    labels, weights = rng.integers(0, 2, (8, 1)), rng.uniform(0.5, 2, 8)

    def trained(parts: int) -> np.ndarray:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
        optimizer = keras.optimizers.Adam(0.1)
        if parts > 1:
            optimizer.gradient_accumulation_steps = parts
        model.compile(optimizer, "binary_crossentropy")
        size = 8 // parts
        for begin in range(0, 8, size):
            rows = slice(begin, begin + size)
            model.train_on_batch(images[rows], labels[rows], sample_weight=weights[rows])
        assert int(optimizer.iterations) == 1
        return model.get_weights()[0]

    # The loss is divided by the number of images, not by the sum of their weights.
    np.testing.assert_allclose(trained(2), trained(1), atol=1e-6)


def test_a_split_trial_says_so_and_steps_once_a_batch(tiny_dataset, tmp_path, monkeypatch):
    setting = Setting(
        dataset=tiny_dataset,
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )
    monkeypatch.setattr(trials.footprint, "parts", lambda *_: 4)
    result = train_trial(spec(tmp_path, "t", values={**VALUES, "batch_size": 16}), setting)
    assert result.failure is None
    assert result.notes == ("batches of 16 computed in 4 parts, to bound the memory of the CPU",)


def test_training_does_not_go_on_from_a_checkpoint_of_another_number_of_parts(
    tiny_dataset, tmp_path, monkeypatch
):
    setting = Setting(
        dataset=tiny_dataset,
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )
    values = {**VALUES, "batch_size": 16}
    train_trial(spec(tmp_path, "t", values=values, epochs=1), setting)
    monkeypatch.setattr(trials.footprint, "parts", lambda *_: 2)
    with pytest.raises(RunDirectoryError, match=r"split otherwise.*where the run was begun"):
        train_trial(spec(tmp_path, "t", values=values, epochs=2), setting)


def test_the_memory_of_this_process_is_known_on_linux():
    assert 50 < footprint.resident_mb() < 100_000
