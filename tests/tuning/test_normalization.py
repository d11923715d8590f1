"""Batch normalization's statistics, re-estimated for the current weights."""

import dataclasses

import keras
import numpy as np
import pytest

from search.tuning.normalization import StatisticsImages, reestimated


@pytest.fixture
def images(tiny_dataset) -> StatisticsImages:
    return StatisticsImages(tiny_dataset.train)


@pytest.fixture
def model() -> keras.Model:
    inputs = keras.Input((32, 32, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 2550)(inputs)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    new = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    new.compile("sgd", "binary_crossentropy")
    return new


def statistics(model: keras.Model) -> tuple[float, float]:
    layer = model.get_layer("norm")
    return float(layer.moving_mean[0]), float(layer.moving_variance[0])


def test_the_statistics_are_those_of_the_training_images_without_dropout(model, images):
    pixels = np.concatenate(images.batches()).astype(np.float64) / 2550
    signs, found = [], []
    for _ in range(2):
        with reestimated(model, images, on_batch=lambda: signs.append(1)):
            found.append(statistics(model))
    assert found[0] == found[1] == pytest.approx((pixels.mean(), pixels.var()), rel=0.02)
    assert model.get_layer("drop").rate == 0.5
    # Every batch is a sign of life.
    assert len(signs) == 2 * len(images.batches())


def test_the_moving_ones_come_back_even_after_an_error(model, images):
    with pytest.raises(RuntimeError), reestimated(model, images):
        raise RuntimeError
    assert statistics(model) == (0.0, 1.0)


def test_layers_inside_of_layers_are_estimated_too(model, images):
    inputs = keras.Input((32, 32, 1), dtype="uint8")
    with reestimated(keras.Model(inputs, model(inputs)), images):
        assert statistics(model)[1] < 0.1


def test_a_model_without_the_layer_is_left_alone(images):
    plain = keras.Sequential(
        [keras.Input((32, 32, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    before = plain.get_weights()
    with reestimated(plain, images):
        pass
    for one, two in zip(before, plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_images_are_the_same_in_every_run_and_as_many_as_asked(tiny_dataset):
    few = StatisticsImages(tiny_dataset.train, count=12)
    again = StatisticsImages(tiny_dataset.train, count=12)
    np.testing.assert_array_equal(few.batches()[0], again.batches()[0])
    assert [len(batch) for batch in few.batches()] == [12]


@pytest.mark.parametrize(("images", "used"), [(100, 100), (600, 256), (2000, 500), (9000, 1024)])
def test_a_quarter_of_the_images_within_bounds_is_used(tiny_dataset, images, used):
    rows = np.arange(images) % len(tiny_dataset.train)
    many = dataclasses.replace(
        tiny_dataset.train, rows=rows, labels=rows, paths=("",) * images, patients=("",) * images
    )
    left_out = used % min(128, used)
    assert sum(map(len, StatisticsImages(many).batches())) == used - left_out


def test_a_frozen_layer_keeps_its_statistics(model, images):
    model.get_layer("norm").trainable = False
    with reestimated(model, images):
        assert statistics(model) == (0.0, 1.0)
