"""Augmentation: known parameters give known images, random ones stay in bounds and repeat."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from hypermodels.augmentation import (
    RandomResizedCrop,
    RandomRotation,
    RandomTone,
    augmentation_layers,
)
from hypermodels.seeding import layer_seed
from search.tuning.model import reseed

LAYERS = [
    pytest.param(lambda **options: RandomResizedCrop(0.3, **options), id="crop"),
    pytest.param(lambda **options: RandomTone(0.3, **options), id="tone"),
    pytest.param(lambda **options: RandomRotation(15, **options), id="rotation"),
]


def images(batch=3, height=16, width=16, channels=1):
    return np.random.default_rng(0).random((batch, height, width, channels), dtype=np.float32)


def parameters(**values):
    return {name: keras.ops.convert_to_tensor(v, "float32") for name, v in values.items()}


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(
    ("layer", "neutral"),
    [
        (RandomResizedCrop, {"top": 0, "left": 0, "height": 1, "width": 1}),
        (RandomTone, {"gamma": 1, "contrast": 1, "brightness": 0}),
        (RandomRotation, {"angle": 0}),
    ],
)
def test_neutral_parameters_are_the_identity(layer, neutral):
    x = images(batch=2, height=180, width=180)
    twice = parameters(**{name: [value] * 2 for name, value in neutral.items()})
    np.testing.assert_allclose(to_numpy(layer(0.3).apply(x, twice)), x, atol=1e-5)


def test_known_crop_equals_bilinear_sampling_of_its_window():
    x = images(batch=2, height=16, width=12, channels=2)
    window = {"top": [0.25, 0.1], "left": [0.5, 0.0], "height": [0.5, 0.9], "width": [0.25, 0.6]}
    cropped = to_numpy(RandomResizedCrop(0.3).apply(x, parameters(**window)))
    for n in range(2):
        top, left, height, width = (window[k][n] for k in ("top", "left", "height", "width"))
        rows = (top + height * (np.arange(16) + 0.5) / 16) * 16 - 0.5
        columns = (left + width * (np.arange(12) + 0.5) / 12) * 12 - 0.5
        grid = np.meshgrid(rows, columns, indexing="ij")
        for channel in range(2):
            # Linear, with edge values outside.
            expected = map_coordinates(x[n, :, :, channel], grid, order=1, mode="nearest")
            np.testing.assert_allclose(cropped[n, :, :, channel], expected, atol=1e-5)


def test_drawn_crops_lie_in_the_frame_and_have_the_asked_area():
    drawn = {k: to_numpy(v) for k, v in RandomResizedCrop(0.3, seed=1).draw(500).items()}
    for start, side in (("top", "height"), ("left", "width")):
        assert np.all(drawn[start] >= 0)
        assert np.all(drawn[start] + drawn[side] <= 1 + 1e-6)
    area = drawn["height"] * drawn["width"]
    uncut = (drawn["height"] < 1) & (drawn["width"] < 1)
    assert 0.3 <= area[uncut].min() < 0.35
    assert area.max() > 0.9
    ratio = drawn["width"] / drawn["height"]
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.34


def test_known_tone_follows_the_documented_formulas():
    x = images(batch=1)
    tone = parameters(gamma=[1.2], contrast=[0.7], brightness=[0.1])
    powered = x**1.2
    expected = np.clip(powered.mean() + 0.7 * (powered - powered.mean()) + 0.1, 0, 1)
    np.testing.assert_allclose(to_numpy(RandomTone(0.3).apply(x, tone)), expected, atol=1e-5)


def test_drawn_tones_stay_within_their_strength():
    drawn = {k: to_numpy(v) for k, v in RandomTone(0.4, seed=1).draw(500).items()}
    for values, low, high in [
        (np.log(drawn["gamma"]), -0.4, 0.4),
        (drawn["contrast"], 0.6, 1.4),
        (drawn["brightness"], -0.2, 0.2),
    ]:
        width = high - low
        assert low - 1e-5 <= values.min() < low + 0.05 * width
        assert high - 0.05 * width < values.max() <= high + 1e-5


def test_tone_keeps_images_between_zero_and_one():
    x = np.concatenate([images(), np.zeros((1, 16, 16, 1)), np.ones((1, 16, 16, 1))])
    changed = to_numpy(RandomTone(0.4, seed=1)(x.astype("float32"), training=True))
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_rotation_by_a_right_angle_turns_counter_clockwise():
    x = images(batch=1)
    turned = to_numpy(RandomRotation(90).apply(x, parameters(angle=[np.pi / 2])))
    # Corners may fall outside the frame by a rounding error.
    np.testing.assert_allclose(turned[0, 1:-1, 1:-1], np.rot90(x[0])[1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize("make", LAYERS)
def test_layer_changes_each_image_differently_and_in_training_alone(make):
    layer, x = make(seed=1), np.repeat(images(batch=1), 2, axis=0)
    first, second = to_numpy(layer(x, training=True))
    assert not np.allclose(first, x[0])
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(to_numpy(layer(x, training=False)), x)
    np.testing.assert_array_equal(to_numpy(layer(x)), x)
    assert make()(keras.Input((32, 24, 1))).shape == (None, 32, 24, 1)


@pytest.mark.parametrize("make", LAYERS)
def test_layer_survives_serialization_with_its_seed(make):
    layer, x = make(seed=7, name="augment"), images()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(
        to_numpy(layer(x, training=True)), to_numpy(copy(x, training=True))
    )


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_layer_computes_in_float32_and_returns_the_policys_dtype(make, policy):
    x = images()
    mixed = make(seed=1, dtype=policy)(x, training=True)
    assert keras.backend.standardize_dtype(mixed.dtype) == policy.removeprefix("mixed_")
    exact = to_numpy(make(seed=1)(x, training=True))
    np.testing.assert_allclose(to_numpy(keras.ops.cast(mixed, "float32")), exact, atol=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(0), "min_area=0"),
        (lambda: RandomResizedCrop(1.5), r"min_area=1\.5"),
        (lambda: RandomResizedCrop(0.5, aspect_ratio=(2, 1)), "aspect_ratio"),
        (lambda: RandomTone(0.5), r"strength=0\.5"),
        (lambda: RandomRotation(-1), "max_degrees=-1"),
    ],
)
def test_value_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_active_settings_come_in_order_each_with_a_seed_of_its_own():
    assert augmentation_layers() == []
    layers = augmentation_layers(
        flip=True, rotation=10, crop_min_area=0.3, tone_jitter=0.2, noise=0.04, seed=5
    )
    names = ["flip", "rotation", "crop", "tone", "noise"]
    assert [layer.name for layer in layers] == [f"augment_{name}" for name in names]
    assert len({layer.seed for layer in layers}) == 5
    (alone,) = augmentation_layers(noise=0.04, seed=5)
    assert alone.seed == layers[-1].seed


def test_layer_seed_depends_on_seed_and_name_and_fits_31_bits():
    seeds = [layer_seed(seed, name) for seed in (0, 1, 2**40) for name in ("a", "b")]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert layer_seed(0, "a") == seeds[0]
    assert layer_seed(None, "a") is None


def test_reseeded_model_draws_the_same_again_and_another_epoch_draws_differently():
    inputs = x = keras.Input((16, 16, 1))
    for layer in augmentation_layers(
        flip=True, rotation=10, crop_min_area=0.3, tone_jitter=0.2, noise=0.1
    ):
        x = layer(x)
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(x))
    images = np.random.default_rng(0).random((4, 16, 16, 1), dtype=np.float32)

    def draw(seed, epoch):
        reseed(model, seed=seed, epoch=epoch)
        return keras.ops.convert_to_numpy(model(images, training=True))

    first = draw(3, 0)
    assert not np.array_equal(first, draw(3, 1))
    assert not np.array_equal(first, draw(4, 0))
    np.testing.assert_array_equal(first, draw(3, 0))
