"""Grad-CAM: where in an image a network found the reason for its decision.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. The feature maps of the last convolution are added up with weights, each
the mean over positions of the decision's gradient with respect to that map; what is negative is cut
off. The decision is the logit for PNEUMONIA where the network calls PNEUMONIA, and its negative
where it calls NORMAL, so that heat always speaks for what was decided. The logit, not the
probability: a saturated sigmoid has no gradient.

The map is as coarse as the last convolution sees the image (6 × 6 for 96 pixels, 11 × 11 for 180)
and is enlarged smoothly. It shows where, never why, and is no proof that the network needs those
pixels (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018).

Works on TensorFlow and JAX; the backend is imported when a gradient is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from search.errors import ModelError
from search.evidence import Heatmap
from search.records import Predictions

PER_GROUP = 4
"""Images of each group: missed, false alarm, found, healthy."""

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.SeparableConv2D,
    keras.layers.DepthwiseConv2D,
)


def explain_images(
    network: keras.Model, predictions: Predictions, images: np.ndarray, *, threshold: float
) -> list[Heatmap]:
    """Return heatmaps of the most confident misses and of hits of every kind.

    Args:
        network: Functional; `uint8` (n, S, S, 1) to probabilities (n, 1), through at least one
            convolution and ending in `Dense(1, activation="sigmoid")`.
        predictions: What it said of n images.
        images: `uint8` (n, S, S, 1), the same images in the same order; may be memory-mapped.
        threshold: PNEUMONIA at or above it.

    Returns:
        Missed pneumonias, false alarms, pneumonias found and healthy ones called so, at most
        `PER_GROUP` each.

    Raises:
        ModelError: See `gradcam`.
    """
    chosen = chosen_images(predictions, threshold=threshold)
    if not chosen.size:
        return []
    picked = np.stack([images[i] for i in chosen])
    called = predictions.probabilities[chosen] >= threshold
    heat = gradcam(network, picked, called=called)
    return [
        Heatmap(
            path=predictions.paths[i],
            label=int(predictions.labels[i]),
            probability=float(predictions.probabilities[i]),
            called=int(called[place]),
            image=picked[place, :, :, 0],
            heat=heat[place],
        )
        for place, i in enumerate(chosen)
    ]


def chosen_images(predictions: Predictions, *, threshold: float) -> np.ndarray:
    """Return, `int64`, the positions of the images that are shown.

    Of the misses the most confident ones, by the log odds' distance from the threshold's; of the
    hits ones spread evenly over their probabilities, so that nobody picks the pretty ones.
    """
    said, labels = predictions.probabilities, predictions.labels
    called = said >= threshold
    chosen: list[int] = []
    for label, decision in ((1, False), (0, True), (1, True), (0, False)):
        group = np.flatnonzero((labels == label) & (called == decision))
        group = group[np.argsort(said[group], kind="stable")]
        if bool(label) == decision:
            places = np.linspace(0, len(group) - 1, min(PER_GROUP, len(group))).round().astype(int)
            chosen.extend(group[places].tolist())
        else:
            # The missed with the lowest probabilities, the false alarms with the highest.
            ordered = group if label else group[::-1]
            chosen.extend(ordered[:PER_GROUP].tolist())
    return np.array(chosen, dtype=np.int64)


def gradcam(network: keras.Model, images: np.ndarray, *, called: Sequence[bool]) -> np.ndarray:
    """Return the heatmaps of some images.

    Args:
        network: See `explain_images`.
        images: `uint8` (n, S, S, 1).
        called: n decisions, true for PNEUMONIA.

    Returns:
        `float32` (n, S, S) in [0, 1], scaled to 1 at the hottest place; all 0 where nothing in the
        last convolution speaks for the decision.

    Raises:
        ModelError: The network has no convolution, does not end in one sigmoid unit, or runs on a
            backend other than TensorFlow and JAX.
    """
    below, above, kernel, bias = _halves(network)
    maps = keras.ops.convert_to_numpy(below(images, training=False))
    signs = np.where(np.asarray(called, dtype=bool), 1.0, -1.0).astype(np.float32)
    slopes = _gradient(above, kernel, bias, maps, signs)
    weights = slopes.mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * maps).sum(axis=-1, keepdims=True), 0).astype(np.float32)
    peaks = heat.max(axis=(1, 2, 3), keepdims=True)
    heat = np.divide(heat, peaks, out=np.zeros_like(heat), where=peaks > 0)
    large = keras.ops.image.resize(
        heat, images.shape[1:3], interpolation="bicubic", data_format="channels_last"
    )
    return np.clip(keras.ops.convert_to_numpy(large)[..., 0], 0.0, 1.0).astype(np.float32)


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
            'Dense(1, activation="sigmoid"); use --no-pictures'
        )
    maps = convolutions[-1].output
    below = keras.Model(network.inputs, maps)
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
            f"backend {backend}: Grad-CAM works on tensorflow and jax; set KERAS_BACKEND, or use "
            "--no-pictures"
        )
    return np.asarray(keras.ops.convert_to_numpy(found), dtype=np.float32)
