"""Optimization: the course of the learning rate, and which variables decay."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from hypermodels.optimization import adam, cosine_schedule, keep_average


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "rates"),
    [
        (20, 10, {0: 1e-5, 10: 1e-3, 105: (1e-3 + 1e-5) / 2, 200: 1e-5, 1000: 1e-5}),
        (2, 10, {0: 1e-5, 2: 1e-3, 11: (1e-3 + 1e-5) / 2}),
        (1, 2, {0: 1e-3}),
    ],
    ids=["one epoch", "a tenth of a short run", "no warm-up in a few steps"],
)
def test_cosine_warms_up_and_falls_to_a_hundredth(epochs, steps_per_epoch, rates):
    schedule = cosine_schedule(1e-3, epochs=epochs, steps_per_epoch=steps_per_epoch)
    for step, rate in rates.items():
        assert float(keras.ops.convert_to_numpy(schedule(step))) == pytest.approx(rate, rel=1e-3)


def test_only_kernels_decay():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()]
    )
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer = adam(0.1, weight_decay=0.5, variables=model.trainable_variables)
    # Without a gradient, only decay moves a variable.
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    values = {v.name: keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables}
    np.testing.assert_allclose(values.pop("kernel"), 0.95, rtol=1e-6)
    assert set(values) == {"bias", "gamma", "beta"}
    for value in values.values():
        np.testing.assert_array_equal(value, 1.0)


def test_the_average_has_a_decay_that_grows_to_its_limit():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    keep_average(optimizer, 0.25)
    model.compile(optimizer, "mse")
    x, y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)
    expected = None
    for step in range(6):
        model.train_on_batch(x, y)
        weights = keras.ops.convert_to_numpy(model.trainable_variables[0]).copy()
        decay = min(0.25, (1 + step) / (10 + step)) if step else 0.0
        expected = weights if expected is None else decay * expected + (1 - decay) * weights
    optimizer.finalize_variable_values(model.trainable_variables)
    found = keras.ops.convert_to_numpy(model.trainable_variables[0])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_average_is_refused_when_asked_too_late():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="built already"):
        keep_average(optimizer, 0.9)
