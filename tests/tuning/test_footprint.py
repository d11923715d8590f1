"""Steps whose memory is bounded: when a batch is split, and that splitting changes no gradient."""

import dataclasses
import math

import h5py
import keras
import keras_tuner as kt
import numpy as np
import pytest

from hypermodels import DocumentedCNN
from search.tuning import checkpoint, footprint
from search.tuning.model import Setting, build_model
from search.tuning.trial import train_trial
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


@pytest.fixture
def setting(tiny_dataset) -> Setting:
    return Setting(
        dataset=tiny_dataset,
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )


def test_a_split_trial_says_so_and_steps_once_a_batch(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "parts", lambda *_: 4)
    result = train_trial(spec(tmp_path, "t", values={**VALUES, "batch_size": 16}), setting)
    assert result.failure is None
    assert result.notes == ("batches of 16 computed in 4 parts, to bound the memory of the CPU",)


def test_the_learning_rate_follows_the_batches_and_not_their_parts(setting, monkeypatch):
    network = DocumentedCNN(image_size=32, train_size=36, epochs=4)
    cosine = dataclasses.replace(setting, hypermodel=network)
    values = {"schedule": "cosine", "batch_size": 16}
    whole = build_model(cosine, values, 1).optimizer
    monkeypatch.setattr(footprint, "parts", lambda *_: 4)
    split = build_model(cosine, values, 1).optimizer
    for step in (0, 1, 6, 11):
        whole._iterations.assign(step)
        split._iterations.assign(4 * step + 3)
        assert float(split.learning_rate) == pytest.approx(float(whole.learning_rate))


def moments(optimizer) -> list[int]:
    names = [variable.name for variable in optimizer.variables]
    return [i for i, name in enumerate(names) if name.endswith(("momentum", "velocity"))]


def numpy_of(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


@pytest.mark.parametrize(
    ("before", "after"),
    [((8, 1), (16, 2)), ((16, 1), (16, 2)), ((16, 4), (16, 1)), ((8, 2), (16, 4))],
)
def test_the_optimizer_goes_on_where_the_batches_were_others(
    setting, tmp_path, monkeypatch, before, after
):
    def built(size: int, parts: int) -> keras.Model:
        monkeypatch.setattr(footprint, "parts", lambda *_: parts)
        return build_model(setting, {**VALUES, "batch_size": size}, 1)

    built(*before)
    values = {**VALUES, "batch_size": before[0]}
    train_trial(spec(tmp_path, "parent", values=values, epochs=1), setting)
    parent = tmp_path / "parent" / checkpoint.LAST
    reference, model = built(*before).optimizer, built(*after)
    steps = math.ceil(len(setting.dataset.train) / (after[0] // after[1]))
    checkpoint.load(model, parent, steps=steps)
    assert int(model.optimizer.iterations) == steps // after[1]
    with h5py.File(parent) as file:
        saved = [file["optimizer"]["vars"][str(place)][()] for place in moments(reference)]
    assert len(saved) == 2 * len(model.trainable_variables)
    for place, value in zip(moments(model.optimizer), saved, strict=True):
        assert np.any(value)
        np.testing.assert_array_equal(numpy_of(model.optimizer.variables[place]), value)
    for gradient in getattr(model.optimizer, "_accumulated_gradients", ()):
        assert not np.any(numpy_of(gradient))


def test_a_trial_goes_on_from_one_that_ran_out_of_memory_in_parts(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "parts", lambda _, size: 2 if size > 8 else 1)
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
    promoted = spec(
        tmp_path,
        "b",
        values=values,
        initial_epoch=1,
        epochs=2,
        parent_checkpoint=tmp_path / "a" / checkpoint.LAST,
    )
    second = train_trial(promoted, setting)
    assert second.failure is None
    assert "in 2 parts" in second.notes[0]


def test_a_checkpoint_of_another_optimizer_is_a_failed_trial(setting, tmp_path):
    train_trial(spec(tmp_path, "t", epochs=1, average=0.9), setting)
    result = train_trial(spec(tmp_path, "t", epochs=2), setting)
    assert "another optimizer" in result.failure.message


def test_the_memory_of_this_process_is_known_on_linux():
    assert 50 < footprint.resident_mb() < 100_000
