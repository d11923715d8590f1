"""Grad-CAM: where in an image a network found the reason for its decision.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. The feature maps of the last convolution are added up with weights, each
the mean over positions of the decision's gradient with respect to that map; what is negative is cut
off. The decision is the logit of the positive class where the network calls an image positive, and
its negative where it does not, so that heat always speaks for what was decided. The logit, not the
probability: a saturated sigmoid has no gradient.

Where batch normalization follows the convolution, its output is taken: after ReLU a map is above 0
nearly everywhere, and that level, which says nothing of places, would outweigh their differences
(seen on the demo: heat everywhere for negative images, nowhere for positive ones).

The map is as coarse as the last convolution sees the image (6 × 6 for 96 pixels, 11 × 11 for 180)
and is enlarged smoothly. Of small images the last convolution sees too few places to tell them
apart; then the last one that sees at least `FEWEST_PLACES` × `FEWEST_PLACES` is taken. The map
shows where, never why, and is no proof that the network needs those pixels (Adebayo et al., "Sanity
Checks for Saliency Maps", NeurIPS 2018).

Works on TensorFlow and JAX; the backend is imported when a gradient is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from search.data.decode import load_image
from search.errors import DataError, ModelError
from search.records import DatasetReport, Predictions
from search.run_directory import RunDirectory
from search.scoring.formats import KERAS
from search.scoring.loading import load_model
from search.scoring.predictions import (
    PREDICTION_FILES,
    WINNER,
    read_predictions_csv,
    scored_split,
)

FEWEST_PLACES = 4
"""Places along a side of the map, where any convolution has so many."""

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.DepthwiseConv2D)

PER_GROUP = 4
"""Images of each group: missed, false alarm, found, rightly negative."""

GROUPS = ((1, False), (0, True), (1, True), (0, False))
"""(label, called positive) in that order."""


class Heatmap(NamedTuple):
    """Where in one image a network found the reason for its decision."""

    path: str  # The image, relative to the data folder
    label: int  # 0 or 1
    called: int  # 0 or 1, the decision at the stored threshold
    probability: float  # Of the positive class
    image: np.ndarray  # `uint8` (S, S), gray
    heat: np.ndarray  # `float32` (S, S) in [0, 1]


def look(run: RunDirectory, *, warn: Callable[[str], None]) -> list[Heatmap]:
    """Return where the exported model found the reason for some of its decisions.

    The few images are decoded again from the data folder, so that this works as long as that and
    `model.keras` are there, however old the run is.

    Returns:
        The most confident misses of both kinds and some hits, see `chosen_images`; [] where the
        model, or after a warning an image, cannot be had.

    Raises:
        RunDirectoryError: A file of the run is damaged.
    """
    root = run.root
    if not (root / KERAS.file).exists():
        return []
    predictions = scored_split(read_predictions_csv(root / PREDICTION_FILES[WINNER]))
    if predictions is None:
        return []
    source = run.read(DatasetReport, "dataset.json").source.root
    try:
        loaded = load_model(root / KERAS.file)
        about, threshold = loaded.metadata, loaded.metadata.threshold.value
        shown = predictions.take(chosen_images(predictions, threshold=threshold))
        images = [
            load_image(
                source / path, about.image_size, channels=about.channels, bits=about.depth
            ).pixels
            for path in shown.paths
        ]
        return explain_images(loaded.model, shown, np.stack(images), threshold=threshold)
    except (DataError, ModelError) as error:
        warn(f"no heatmaps: {error}")
        return []


def chosen_images(predictions: Predictions, *, threshold: float) -> np.ndarray:
    """Return, `int64`, the positions of the images that are shown, at most `PER_GROUP` a group.

    Of the misses the most confident ones; of the hits ones spread evenly over their probabilities,
    so that they are not picked for their looks.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    called = probabilities >= threshold
    chosen: list[int] = []
    for label, decision in GROUPS:
        group = np.flatnonzero((labels == label) & (called == decision))
        group = group[np.argsort(probabilities[group], kind="stable")]
        if bool(label) == decision:
            places = np.linspace(0, len(group) - 1, min(PER_GROUP, len(group))).round().astype(int)
            chosen.extend(group[places].tolist())
        else:
            # The missed with the lowest probabilities, the false alarms with the highest.
            ordered = group if label else group[::-1]
            chosen.extend(ordered[:PER_GROUP].tolist())
    return np.array(chosen, dtype=np.int64)


def explain_images(
    model: keras.Model, predictions: Predictions, images: np.ndarray, *, threshold: float
) -> list[Heatmap]:
    """Return where a model found the reason for each of its decisions at a threshold.

    Of several networks in it, as in an ensemble, the heatmaps are averaged. The images, `uint8`
    (n, S, S, channels), are those of the predictions, in their order.

    Raises:
        ModelError: See `gradcam`.
    """
    called = predictions.probabilities >= threshold
    found = [gradcam(one, images, called=called) for one in networks(model) or [model]]
    heat = _scaled(np.mean(found, axis=0))
    return [
        Heatmap(
            path=predictions.paths[i],
            label=int(predictions.labels[i]),
            probability=float(predictions.probabilities[i]),
            called=int(called[i]),
            image=images[i].mean(axis=-1).round().astype(np.uint8),
            heat=heat[i],
        )
        for i in range(len(images))
    ]


def networks(model: keras.Model) -> list[keras.Model]:
    """Return the networks with convolutions in a model: itself, or those it is wrapped around."""
    if any(isinstance(layer, CONVOLUTIONS) for layer in model.layers):
        return [model]
    wrapped = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return [network for layer in wrapped for network in networks(layer)]


def gradcam(
    network: keras.Model, images: np.ndarray, *, called: Sequence[bool] | np.ndarray
) -> np.ndarray:
    """Return the heatmaps of some images.

    Args:
        network: Functional; `uint8` (n, S, S, channels) to probabilities (n, 1), through at least
            one convolution and ending in `Dense(1, activation="sigmoid")`.
        images: `uint8` (n, S, S, channels).
        called: n decisions, true for positive.

    Returns:
        `float32` (n, S, S) in [0, 1], scaled to 1 at the hottest place; all 0 where nothing in the
        last convolution speaks for the decision.

    Raises:
        ModelError: The network has no convolution, does not end in one sigmoid unit, or runs on a
            backend other than TensorFlow and JAX.
    """
    below, above, kernel, bias = _halves(network)
    maps = keras.ops.convert_to_numpy(below(images, training=False))
    signs = np.where(called, 1.0, -1.0).astype(np.float32)
    slopes = _gradient(above, kernel, bias, maps, signs)
    weights = slopes.mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * maps).sum(axis=-1, keepdims=True), 0).astype(np.float32)
    large = keras.ops.image.resize(
        _scaled(heat), images.shape[1:3], interpolation="bicubic", data_format="channels_last"
    )
    return np.clip(keras.ops.convert_to_numpy(large)[..., 0], 0.0, 1.0).astype(np.float32)


def _scaled(heat: np.ndarray) -> np.ndarray:
    """Scale each map to 1 at its hottest place; one that is 0 stays so."""
    peaks = heat.max(axis=tuple(range(1, heat.ndim)), keepdims=True)
    return np.divide(heat, peaks, out=np.zeros_like(heat), where=peaks > 0)


def _halves(network: keras.Model) -> tuple[keras.Model, keras.Model, np.ndarray, np.ndarray]:
    """Split a network at its last convolution and before its last unit."""
    convolutions = [layer for layer in network.layers if isinstance(layer, CONVOLUTIONS)]
    last = network.layers[-1]
    ends_well = (
        isinstance(last, keras.layers.Dense)
        and last.units == 1
        and last.activation is keras.activations.sigmoid
    )
    if not convolutions or not ends_well:
        raise ModelError(
            f"network {network.name}: Grad-CAM needs a convolution and a last layer "
            'Dense(1, activation="sigmoid")'
        )
    fine = [c for c in convolutions if min(c.output.shape[1:3]) >= FEWEST_PLACES]
    maps = (fine or convolutions)[-1].output
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.input is maps:
            maps = layer.output
            break
    below = keras.Model(network.inputs[0], maps)
    above = keras.Model(maps, last.input)
    kernel, bias = (keras.ops.convert_to_numpy(v).astype(np.float32) for v in last.weights)
    return below, above, kernel, bias


def _gradient(
    above: keras.Model, kernel: np.ndarray, bias: np.ndarray, maps: np.ndarray, signs: np.ndarray
) -> np.ndarray:
    """Return, shaped as the maps, the gradient of sign × logit with respect to them."""

    def logits(features: Any) -> Any:
        unit = keras.ops.matmul(keras.ops.cast(features, "float32"), kernel) + bias
        # Images do not mix outside of training, so one sum gives the gradient of each.
        return keras.ops.sum(unit[:, 0] * signs)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        inputs = tf.convert_to_tensor(maps)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = logits(above(inputs, training=False))
        found = tape.gradient(total, inputs)
    elif backend == "jax":
        import jax

        trained = [v.value for v in above.trainable_variables]
        fixed = [v.value for v in above.non_trainable_variables]

        def total_of(values: Any) -> Any:
            features, _ = above.stateless_call(trained, fixed, values, training=False)
            return logits(features)

        found = jax.grad(total_of)(keras.ops.convert_to_tensor(maps))
    else:
        raise ModelError(
            f"backend {backend}: Grad-CAM works on tensorflow and jax; set KERAS_BACKEND to one"
        )
    return np.asarray(keras.ops.convert_to_numpy(found), dtype=np.float32)
