"""The blocks of the documented network as plain Keras functions: values in, tensors out.

Every layer is named after its block (`block1_conv1`, `dense2_norm`), so that summaries, variable
paths and `get_layer` speak the same language; Keras itself numbers layers by class in weights
files. Knows nothing of hyperparameters.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from hypermodels.seeding import layer_seed

Tensor = Any


def stem(x: Tensor, *, filters: int, activation: str, name: str = "stem") -> Tensor:
    """Two 3 × 3 convolutions and a max pool which halves the image.

    Args:
        x: (batch, height, width, channels).
        filters: Channels of both convolutions.
        activation: Name of a Keras activation, applied after each convolution.
        name: Prefix of the layers' names.

    Returns:
        (batch, height // 2, width // 2, filters).
    """
    for i in (1, 2):
        x = layers.Conv2D(
            filters, 3, padding="same", activation=activation, name=f"{name}_conv{i}"
        )(x)
    return layers.MaxPooling2D(name=f"{name}_pool")(x)


def convolution_block(
    x: Tensor,
    *,
    filters: int,
    separable: bool,
    activation: str,
    batch_norm: bool,
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
        dropout: Share of values dropped while training, after the pool; 0 adds no layer.
        seed: The model's seed; the dropout's is made from it.
        name: Prefix of the layers' names.

    Returns:
        (batch, height // 2, width // 2, filters).
    """
    convolution = layers.SeparableConv2D if separable else layers.Conv2D
    for i in (1, 2):
        x = convolution(filters, 3, padding="same", activation=activation, name=f"{name}_conv{i}")(
            x
        )
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
        dropout: Share of values dropped while training; 0 adds no layer.
        seed: The model's seed; the dropout's is made from it.
        name: Name of the dense layer and prefix of the others.

    Returns:
        (batch, units).
    """
    x = layers.Dense(units, activation=activation, name=name)(x)
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
