"""Seeding: fixed seeds, different by layer, and epochs that repeat."""

from __future__ import annotations

import keras
import numpy as np

from hypermodels.augmentation import augmentation_layers
from hypermodels.seeding import layer_seed
from search.tuning.model import reseed


def test_layer_seed_depends_on_seed_and_name_and_fits_31_bits():
    seeds = [layer_seed(seed, name) for seed in (0, 1, 2**40) for name in ("a", "b")]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert layer_seed(0, "a") == seeds[0]


def test_no_seed_stays_no_seed():
    assert layer_seed(None, "a") is None


def test_reseeded_model_draws_the_same_again_and_another_epoch_draws_differently():
    inputs = keras.Input((16, 16, 1))
    x = inputs
    for layer in augmentation_layers(flip=True, crop_min_area=0.3, tone_jitter=0.2, noise=0.1):
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
