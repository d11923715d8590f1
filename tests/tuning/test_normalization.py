"""Batch normalization's statistics, re-estimated for the current weights."""

import keras
import numpy as np
import pytest

from search.tuning.feed import TrainingFeed
from search.tuning.normalization import reestimated


@pytest.fixture
def feed(tiny_dataset) -> TrainingFeed:
    return TrainingFeed(tiny_dataset.train, class_weights={0: 1, 1: 1}, batch_size=12, seed=0)


@pytest.fixture
def model() -> keras.Model:
    inputs = keras.Input((32, 32, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 2550)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    new = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    new.compile("sgd", "binary_crossentropy")
    return new


def test_the_statistics_are_those_of_the_training_images(model, feed):
    layer = model.get_layer("norm")
    pixels = np.concatenate(feed.first_images(256)).astype(np.float64) / 2550
    with reestimated(model, feed):
        assert float(layer.moving_mean[0]) == pytest.approx(pixels.mean(), rel=0.02)
        assert float(layer.moving_variance[0]) == pytest.approx(pixels.var(), rel=0.02)
        assert float(layer.moving_variance[0]) < 1e-3


def test_the_moving_ones_come_back_even_after_an_error(model, feed):
    with pytest.raises(RuntimeError), reestimated(model, feed):
        raise RuntimeError
    assert float(model.get_layer("norm").moving_variance[0]) == 1.0
    assert float(model.get_layer("norm").moving_mean[0]) == 0.0


def test_every_batch_is_a_sign_of_life(model, feed):
    signs = []
    with reestimated(model, feed, on_batch=lambda: signs.append(1)):
        assert len(signs) == len(feed.first_images(256))


def test_a_model_without_the_layer_is_left_alone(feed):
    inputs = keras.Input((32, 32, 1), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(inputs))
    plain = keras.Model(inputs, keras.layers.Dense(1)(x))
    before = plain.get_weights()
    with reestimated(plain, feed):
        pass
    for one, two in zip(before, plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_only_whole_batches_are_used(feed):
    assert [len(batch) for batch in feed.first_images(256)] == [12, 12, 12]
    assert len(feed.first_images(13)) == 2
