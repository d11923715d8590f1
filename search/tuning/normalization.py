"""Batch normalization's statistics, re-estimated for the weights as they are now.

Keras' moving averages start at mean 0 and variance 1 and follow the weights over hundreds of steps.
In the documented network the variances themselves are about 1e-6, so at momentum 0.99 the 1 it
started from outweighs them, and Keras' epsilon of 1e-3, for some 700 steps: until then the network
answers the same to every image in inference, whatever it has learned. A search that stops trials
after one epoch would rank noise, and a network trained on few images would be useless at the end.

So the statistics are averaged over training images, passed through the current weights, before the
network is validated or kept for use ("precise" batch normalization: Wu and Johnson, "Rethinking
'Batch' in BatchNorm", arXiv:2105.07576, section 3). The images are the same in every epoch and
every trial, augmented in the same way, and dropout is off: with 256 images drawn every time and
dropout on, the log losses of one network move with the draw alone, which
`results/studies/objective` measures. Training itself is untouched: there, a batch normalizes
itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from search.records import Subset
from search.tuning.model import reseed

FEWEST, MOST = 256, 1024
"""Training images that the statistics are averaged over: a quarter of all, within these bounds, so
that they cost less than a tenth of an epoch; all where there are fewer."""

BATCH = 128
"""Images passed at once: the mean of a batch's variances is that of its images, less 1 / BATCH."""

SEED = 8
"""Of the choice of images and of their augmentation, the same in every run."""


class StatisticsImages:
    """The training images that statistics are estimated on, read when they are needed."""

    def __init__(self, subset: Subset, *, count: int | None = None, seed: int = SEED) -> None:
        """Choose the images; reads nothing yet."""
        self._array = subset.open_array()
        if count is None:
            count = max(FEWEST, min(MOST, len(subset) // 4))
        chosen = np.random.default_rng(seed).permutation(len(subset))[:count]
        self._rows = subset.rows[chosen]
        self.seed = seed

    def batches(self) -> list[np.ndarray]:
        """Return `uint8` batches (b, S, S, C) of equal size; what is left over is left out."""
        size = min(BATCH, len(self._rows))
        whole = len(self._rows) // size * size
        return [self._array[self._rows[start : start + size]] for start in range(0, whole, size)]


@contextlib.contextmanager
def reestimated(
    model: Any,
    images: StatisticsImages,
    *,
    dropout: bool = False,
    on_batch: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Give the model re-estimated statistics for the block, then put the moving ones back.

    Random layers are left in another state; it is set when the next epoch begins.

    Args:
        model: A Keras model that takes the images.
        images: What to estimate on.
        dropout: Whether dropout is active meanwhile.
        on_batch: Called after each batch.
    """
    # A frozen layer keeps the statistics it came with: passing images through it updates none.
    layers = [
        layer
        for layer in _layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    variables = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    try:
        if layers:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(np.zeros_like(value))
            reseed(model, seed=images.seed, epoch=0)
            batches = images.batches()
            with contextlib.nullcontext() if dropout else _without_dropout(model):
                for batch in batches:
                    model(batch, training=True)
                    on_batch()
            for layer in layers:
                # From zero, k steps of a moving average hold 1 − mᵏ of the mean of what was seen.
                share = 1 - layer.momentum ** len(batches)
                for variable in (layer.moving_mean, layer.moving_variance):
                    variable.assign(keras.ops.divide(variable, share))
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


@contextlib.contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Switch dropout layers off, also where the model is called in training mode."""
    kinds = (
        keras.layers.Dropout,
        keras.layers.SpatialDropout1D,
        keras.layers.SpatialDropout2D,
        keras.layers.GaussianDropout,
        keras.layers.AlphaDropout,
    )
    layers = [layer for layer in _layers(model) if isinstance(layer, kinds)]
    rates = [layer.rate for layer in layers]
    try:
        for layer in layers:
            layer.rate = 0.0
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.rate = rate


def _layers(model: Any) -> Sequence[Any]:
    """Return every layer of a model, those inside of layers too."""
    found: list[Any] = []
    for layer in getattr(model, "layers", ()):
        found += [layer, *_layers(layer)]
    return found
