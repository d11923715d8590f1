"""The Keras layers before and after an exported network: raw image in, calibrated answer out.

`RawImages` repeats what decoding does to a training image once its pixels are known: ITU-R 601
luma; where the image has at least twice the wanted side, averages over blocks of 2, 4 or 8 pixels,
which is what a JPEG decoder gives at reduced scale; and Pillow's bilinear resize, antialiased, in
its fixed-point arithmetic, so that all backends and runtimes round to the same gray levels. It
carries the decision threshold and the model's papers in its configuration, so that they cannot be
parted from the weights. `TemperatureScaling` calibrates the probability. Importing this module is
enough to load an exported model.

Knows Keras on any backend; nothing of files, data sets or training.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any

FORMAT_VERSION = 1
"""Raise it when an older reader would misread a newer layer's configuration."""

BLOCKS = (8, 4, 2)
"""Sides of the blocks that are averaged, the largest that fits; a JPEG decoder's scales."""

CLIP = 2.0**-23
"""Probabilities are kept this far from 0 and 1 before their logit is taken; exact in float32."""

_LIMB = 2048
"""Pillow's weights are integers of 22 bits; two limbs of 11 keep every product and sum exact, in
float32 and also where a GPU multiplies matrices in TF32."""

_LUMA = (19595.0, 38470.0, 7471.0)
"""ITU-R 601 weights 0.299, 0.587, 0.114 in units of 1/65536, as Pillow has them."""


@keras.saving.register_keras_serializable(package="search")
class RawImages(keras.layers.Layer):
    """Raw images of any size, gray or colour, to gray S × S images of whole levels 0–255.

    Input: (batch, height, width, channels), 0–255, any numeric type; channels are gray, RGB, or
    RGB with a fourth that is ignored. Output: float32 (batch, S, S, 1). Arithmetic is float32
    whatever the dtype policy, since bfloat16 has too few bits for a pixel's position.

    An image that is S × S and gray already comes out as it went in.
    """

    def __init__(
        self,
        image_size: int,
        *,
        threshold: dict[str, Any] | None = None,
        class_names: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ) -> None:
        """Describe the network's input and the meaning of its output.

        Args:
            image_size: Side S in pixels of the network's input.
            threshold: Fields of the `Threshold` record.
            class_names: Names of label 0 and label 1.
            metadata: Where the model came from; JSON values.
            format_version: Of this configuration.
            **kwargs: As every Keras layer; the dtype is float32 unless given.

        Raises:
            ValueError: The image size is not positive, or the format is a newer one.
        """
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if image_size < 1:
            raise ValueError(f"image_size={image_size}: must be at least 1")
        if format_version > FORMAT_VERSION:
            raise ValueError(
                f"format_version={format_version}: this version reads up to {FORMAT_VERSION}; "
                "install a newer xray-search"
            )
        self.image_size = int(image_size)
        self.threshold = dict(threshold or {})
        self.class_names = list(class_names or [])
        # Not `metadata`: Keras tracks attributes, and these are only carried along.
        self.papers = dict(metadata or {})

    def call(self, inputs: Tensor) -> Tensor:
        """Return float32 (batch, S, S, 1), whole levels 0–255.

        Raises:
            ValueError: The number of channels is known and is not 1, 3 or 4.
        """
        channels = inputs.shape[-1]
        if channels not in (None, 1, 3, 4):
            raise ValueError(f"images with {channels} channels: must have 1 (gray) or 3 (RGB)")
        gray = _luma(ops.cast(inputs, "float32"))
        _, height, width = ops.shape(gray)
        gray = _block_means(gray, _block_side(height, width, self.image_size))
        _, height, width = ops.shape(gray)
        rows = _triangle_weights(height, self.image_size)
        columns = tuple(ops.transpose(limb) for limb in _triangle_weights(width, self.image_size))

        def along_rows(image: Tensor) -> Tensor:
            return _levels(*(ops.matmul(limb, image) for limb in rows))

        def along_columns(image: Tensor) -> Tensor:
            return _levels(*(ops.matmul(image, limb) for limb in columns))

        # The order decides what is rounded, by one level in a quarter of the pixels. This is what
        # Pillow 13 was measured to do; it puts rows first in tall films only.
        rows_first = ops.logical_and(height > self.image_size, height + self.image_size > 2 * width)
        small = ops.cond(
            rows_first,
            lambda: along_columns(along_rows(gray)),
            lambda: along_rows(along_columns(gray)),
        )
        return ops.expand_dims(small, -1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (batch, S, S, 1)."""
        return (input_shape[0], self.image_size, self.image_size, 1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to make the layer again."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "threshold": dict(self.threshold),
            "class_names": list(self.class_names),
            "metadata": dict(self.papers),
            "format_version": FORMAT_VERSION,
        }


def _luma(images: Tensor) -> Tensor:
    """Return float32 (batch, height, width) of whole levels from 1, 3 or 4 channels.

    With one channel all three weights meet the same value, and since they add up to 65536 it comes
    back unchanged: one formula serves both, also where the number of channels is unknown when the
    graph is made. Sums stay below 2^24, so float32 holds them exactly.
    """
    images = _round(ops.clip(images, 0.0, 255.0))
    last = ops.shape(images)[-1] - 1
    red, green, blue = (ops.take(images, ops.minimum(last, wanted), axis=-1) for wanted in range(3))
    total = red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
    return ops.floor((total + 32768.0) / 65536.0)


def _round(levels: Tensor) -> Tensor:
    """Round halves up, as Pillow; `ops.round` would round them to even."""
    return ops.floor(levels + 0.5)


def _block_side(height: Any, width: Any, size: int) -> Any:
    """Return 8, 4, 2 or 1: the largest by which both sides can be divided and still be `size`."""
    if isinstance(height, int) and isinstance(width, int):
        return next((side for side in BLOCKS if min(height, width) >= side * size), 1)
    shorter = ops.minimum(height, width)
    side: Any = 1
    for longer in reversed(BLOCKS):
        side = ops.where(shorter >= longer * size, longer, side)
    return side


def _block_means(gray: Tensor, side: Any) -> Tensor:
    """Return float32 (batch, ⌈height / side⌉, ⌈width / side⌉), the means over square blocks.

    Rounded to whole levels as `data/decode.py` does, where the reason stands. Blocks that reach
    beyond the edge repeat its last pixels, as a JPEG encoder does.
    """
    if isinstance(side, int) and side == 1:
        return gray
    batch, height, width = ops.shape(gray)
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    gray = ops.take(gray, ops.minimum(ops.arange(rows * side), height - 1), axis=1)
    gray = ops.take(gray, ops.minimum(ops.arange(columns * side), width - 1), axis=2)
    sums = ops.sum(ops.reshape(gray, (batch, rows, side, columns, side)), axis=(2, 4))
    count = ops.cast(side * side, "float32")
    below = ops.floor(sums / count)
    to_even = count / 2 - 1 + below - 2 * ops.floor(below / 2)
    # A block of one pixel, met where the sides are unknown when the graph is made, stays.
    half = ops.where(ops.equal(side, 8), count / 2 + count / 16, ops.maximum(to_even, 0.0))
    return ops.floor((sums + half) / count)


def _triangle_weights(old: Any, new: int) -> tuple[Tensor, Tensor]:
    """Return how much each old pixel counts in each new one, in units of 2⁻²².

    Pillow's bilinear filter: a triangle about the new pixel's centre whose half-width is one old
    pixel, or one new pixel where the image shrinks. Distances are kept in units of 1 / (2 · new)
    old pixels, where they are integers, and divided as by hand, six or five bits at a time, since
    not every backend has integers of 64 bits.

    Args:
        old: Pixels along the side of the raw image, a number or a scalar tensor.
        new: Pixels along the side of the result.

    Returns:
        Upper and lower limb, float32 (new, old), whole numbers: the weight is upper · 2048 + lower.
    """
    # Not cast: where the side is a plain number, as on JAX, it must stay one to be a shape.
    centre_new = (2 * ops.arange(new, dtype="int32") + 1) * old
    centre_old = (2 * ops.arange(old, dtype="int32") + 1) * new
    distance = ops.abs(ops.expand_dims(centre_old, 0) - ops.expand_dims(centre_new, 1))
    rest = ops.maximum(2 * ops.maximum(old, new) - distance, 0)
    total = ops.sum(rest, axis=1, keepdims=True)
    limbs = []
    for half in (0, total // 2):
        upper, rest = _divide(64 * rest, total)
        lower, rest = _divide(32 * rest + half, total)
        limbs.append(ops.cast(32 * upper + lower, "float32"))
    return limbs[0], limbs[1]


def _divide(dividend: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    quotient = dividend // divisor
    return quotient, dividend - quotient * divisor


def _levels(upper: Tensor, lower: Tensor) -> Tensor:
    """Return whole levels 0–255 from sums of pixels weighted by the two limbs."""
    carried = upper + ops.floor(lower / _LIMB) + _LIMB / 2
    return ops.clip(ops.floor(carried / _LIMB), 0.0, 255.0)


@keras.saving.register_keras_serializable(package="search")
class TemperatureScaling(keras.layers.Layer):
    """Divides the logit of a probability by a temperature (Guo et al., ICML 2017).

    Input and output: float32 (batch, 1) in [0, 1]. It changes no order and leaves 0.5 where it is.
    """

    def __init__(self, temperature: float, **kwargs: Any) -> None:
        """Keep the temperature.

        Args:
            temperature: Above 1 for a network that is too sure of itself.
            **kwargs: As every Keras layer; the dtype is float32 unless given.

        Raises:
            ValueError: The temperature is not positive.
        """
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: must be above 0")
        self.temperature = float(temperature)

    def call(self, inputs: Tensor) -> Tensor:
        """Return the calibrated probability."""
        clipped = ops.clip(inputs, CLIP, 1.0 - CLIP)
        # Not log1p, which LiteRT lacks; 1 − p is exact where p is close to 1.
        logit = ops.log(clipped) - ops.log(1.0 - clipped)
        return ops.sigmoid(logit / self.temperature)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to make the layer again."""
        return {**super().get_config(), "temperature": self.temperature}
