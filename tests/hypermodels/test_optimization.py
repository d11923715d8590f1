"""Optimization: the course of the learning rate, and which variables decay."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from hypermodels.optimization import adam, cosine_schedule, keep_average


def rate(schedule, step):
    return float(keras.ops.convert_to_numpy(schedule(step)))


def test_cosine_rises_over_one_epoch_and_falls_to_a_hundredth():
    schedule = cosine_schedule(1e-3, epochs=20, steps_per_epoch=10)
    assert rate(schedule, 0) == pytest.approx(1e-5)
    assert rate(schedule, 10) == pytest.approx(1e-3)
    assert rate(schedule, 105) == pytest.approx((1e-3 + 1e-5) / 2)
    assert rate(schedule, 200) == pytest.approx(1e-5, rel=1e-3)
    assert rate(schedule, 1000) == pytest.approx(1e-5, rel=1e-3)


def test_warm_up_of_a_short_run_is_a_tenth_of_it():
    schedule = cosine_schedule(1e-3, epochs=2, steps_per_epoch=10)
    assert rate(schedule, 2) == pytest.approx(1e-3)
    assert rate(schedule, 3) < 1e-3


def test_run_of_a_few_steps_has_no_warm_up():
    assert rate(cosine_schedule(1e-3, epochs=1, steps_per_epoch=2), 0) == pytest.approx(1e-3)


def test_no_weight_decay_means_plain_adam():
    assert type(adam(1e-3, weight_decay=0.0, variables=[])) is keras.optimizers.Adam


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
