"""The blocks of the documented network as plain Keras functions: values in, tensors out.

Every layer is named after its block (`block1_conv1`, `dense2_norm`), so that summaries, variable
paths and `get_layer` speak the same language; Keras itself numbers layers by class in weights
files. Knows nothing of hyperparameters.

Two initializations. "keras" is what Keras does by default, and what the documented network has:
Glorot & Bengio (AISTATS 2010). For a depthwise kernel of shape (3, 3, C, 1) Keras computes a fan-in
of 9 C where every output is made of 9 inputs, so its weights are √C too small and activations fade
from block to block: without batch normalization nothing is learned. "scaled" keeps the variance: a
standard deviation of √(1 / (fan-in · E[φ(z)²])), z standard normal, for every kernel that an
activation φ follows, which for ReLU is √(2 / fan-in) (He et al., ICCV 2015; the general form: Poole
et al., NeurIPS 2016), and √(1 / fan-in) = 1/3 for the depthwise kernels, which none follows.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from hypermodels.seeding import layer_seed

Tensor = Any


_SECOND_MOMENT = {"relu": 0.5, "gelu": 0.4252, "silu": 0.3558}
"""E[φ(z)²] of each activation for a standard normal z."""


def _variance_preserving(activation: str, seed: int | None, name: str) -> Any:
    return keras.initializers.VarianceScaling(
        1 / _SECOND_MOMENT[activation], mode="fan_in", seed=layer_seed(seed, name)
    )


def _kernels(initializer: str, activation: str, seed: int | None, name: str) -> dict[str, Any]:
    """Return the argument that initializes the kernel of a full convolution or dense layer."""
    if initializer == "keras":
        return {}
    return {"kernel_initializer": _variance_preserving(activation, seed, name)}


def _separable_kernels(
    initializer: str, activation: str, seed: int | None, name: str
) -> dict[str, Any]:
    """Return the arguments that initialize the two kernels of a separable convolution."""
    if initializer == "keras":
        return {}
    return {
        "depthwise_initializer": keras.initializers.RandomNormal(
            stddev=1 / 3, seed=layer_seed(seed, f"{name}_depthwise")
        ),
        "pointwise_initializer": _variance_preserving(activation, seed, name),
    }


def stem(
    x: Tensor,
    *,
    filters: int,
    activation: str,
    initializer: str = "keras",
    seed: int | None = None,
    name: str = "stem",
) -> Tensor:
    """Two 3 × 3 convolutions and a max pool which halves the image.

    Args:
        x: (batch, height, width, channels).
        filters: Channels of both convolutions.
        activation: Name of a Keras activation, applied after each convolution.
        initializer: "keras" or "scaled".
        seed: The model's seed; those of the initial weights are made from it.
        name: Prefix of the layers' names.

    Returns:
        (batch, height // 2, width // 2, filters).
    """
    for i in (1, 2):
        own = f"{name}_conv{i}"
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation=activation,
            name=own,
            **_kernels(initializer, activation, seed, own),
        )(x)
    return layers.MaxPooling2D(name=f"{name}_pool")(x)


def convolution_block(
    x: Tensor,
    *,
    filters: int,
    separable: bool,
    activation: str,
    batch_norm: bool,
    initializer: str = "keras",
    dropout: float = 0.0,
    seed: int | None = None,
    name: str,
) -> Tensor:
    """Two 3 × 3 convolutions, batch normalization, a max pool which halves the image, dropout.

    Args:
        x: (batch, height, width, channels).
        filters: Channels of both convolutions.
        separable: Depthwise separable convolutions (Chollet, "Xception", CVPR 2017) instead of
            full ones.
        activation: Name of a Keras activation, applied after each convolution.
        batch_norm: Whether to normalize (Ioffe & Szegedy, ICML 2015), once, after both.
        initializer: "keras" or "scaled".
        dropout: Share of values dropped while training, after the pool; 0 adds no layer.
        seed: The model's seed; those of dropout and initial weights are made from it.
        name: Prefix of the layers' names.

    Returns:
        (batch, height // 2, width // 2, filters).
    """
    convolution = layers.SeparableConv2D if separable else layers.Conv2D
    kernels = _separable_kernels if separable else _kernels
    for i in (1, 2):
        own = f"{name}_conv{i}"
        x = convolution(
            filters,
            3,
            padding="same",
            activation=activation,
            name=own,
            **kernels(initializer, activation, seed, own),
        )(x)
    if batch_norm:
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
    x = layers.MaxPooling2D(name=f"{name}_pool")(x)
    return _dropout(x, rate=dropout, seed=seed, name=f"{name}_dropout")


def dense_block(
    x: Tensor,
    *,
    units: int,
    activation: str,
    batch_norm: bool,
    initializer: str = "keras",
    dropout: float,
    seed: int | None = None,
    name: str,
) -> Tensor:
    """A dense layer, batch normalization, dropout.

    Args:
        x: (batch, features).
        units: Width of the layer.
        activation: Name of a Keras activation.
        batch_norm: Whether to normalize the activations.
        initializer: "keras" or "scaled".
        dropout: Share of values dropped while training; 0 adds no layer.
        seed: The model's seed; those of dropout and initial weights are made from it.
        name: Name of the dense layer and prefix of the others.

    Returns:
        (batch, units).
    """
    x = layers.Dense(
        units, activation=activation, name=name, **_kernels(initializer, activation, seed, name)
    )(x)
    if batch_norm:
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return _dropout(x, rate=dropout, seed=seed, name=f"{name}_dropout")


def head(x: Tensor, *, kind: str) -> Tensor:
    """Turns feature maps into one vector per image.

    Args:
        x: (batch, height, width, channels).
        kind: `flatten` keeps every position; `global_average` keeps the mean over positions.

    Returns:
        (batch, height * width * channels) or (batch, channels).

    Raises:
        ValueError: When `kind` is neither.
    """
    heads: dict[str, type[keras.layers.Layer]] = {
        "flatten": layers.Flatten,
        "global_average": layers.GlobalAveragePooling2D,
    }
    if kind not in heads:
        raise ValueError(f"head kind={kind!r}: must be one of {', '.join(heads)}")
    return heads[kind](name="head")(x)


def _dropout(x: Tensor, *, rate: float, seed: int | None, name: str) -> Tensor:
    if rate == 0:
        return x
    return layers.Dropout(rate, seed=layer_seed(seed, name), name=name)(x)
