"""Batch normalization's statistics, re-estimated for the weights as they are now.

Keras' moving averages start at mean 0 and variance 1 and follow the weights over hundreds of steps.
In the documented network the variances themselves are about 1e-6, so at momentum 0.99 the 1 it
started from outweighs them, and Keras' epsilon of 1e-3, for some 700 steps: until then the network
answers the same to every image in inference, whatever it has learned. The notebook's first two
epochs, with a validation recall of exactly 1, show it. A search that stops trials after one epoch
would rank noise, and a network trained on few images would be useless at the end.

So the statistics are averaged over a few hundred training images, passed through the current
weights in training mode, before the network is validated or kept for use ("precise" batch
normalization: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3).
Every configuration gets this, the documented one included; training itself is untouched, because
in training mode a batch normalizes itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from search.tuning.feed import TrainingFeed

IMAGES = 256
"""Training images that the statistics are averaged over, rounded up to whole batches."""


@contextlib.contextmanager
def reestimated(
    model: Any, feed: TrainingFeed, *, on_batch: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Give the model re-estimated statistics for the block, then put the moving ones back.

    The images are the first of the feed's current epoch, augmented as in training, so the result
    depends on trial seed and epoch alone. Random layers advance their state; it is set anew when
    the next epoch begins.

    Args:
        model: A Keras model that takes the feed's images.
        feed: Training batches.
        on_batch: Called after each batch.
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    variables = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    try:
        if layers:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(np.zeros_like(value))
            images = feed.first_images(IMAGES)
            for batch in images:
                model(batch, training=True)
                on_batch()
            for layer in layers:
                # From zero, k steps of a moving average hold 1 − mᵏ of the mean of what was seen.
                share = 1 - layer.momentum ** len(images)
                for variable in (layer.moving_mean, layer.moving_variance):
                    variable.assign(keras.ops.divide(variable, share))
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
