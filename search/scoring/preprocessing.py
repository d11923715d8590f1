"""What comes before and after the network in an exported model: raw images, calibrated output.

`raw_images` repeats what decoding does to a training image once its pixels are known: ITU-R 601
luma where the network is one for gray images; where the image has at least twice the wanted side,
averages over blocks of 2, 4 or 8 pixels, which is what a JPEG decoder gives at reduced scale; and
Pillow's bilinear resize, antialiased, in its fixed-point arithmetic, so that all backends and
runtimes round to the same gray levels. `calibrated` divides the logit by a temperature.

Both are functions over symbolic tensors and use operations of Keras alone, so that an exported
model holds no class of this project: Keras loads it where nothing else is installed. The sizes of
images stay open; where arithmetic needs one, it is counted from a tensor of ones.

Knows Keras on any backend; nothing of files, data sets or training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from search.scoring.calibration import CLIP

Tensor = Any

BLOCKS = (8, 4, 2)
"""Sides of the blocks that are averaged, the largest that fits; a JPEG decoder's scales."""

_LIMB = 2048
"""Pillow's weights are integers of 22 bits; two limbs of 11 keep every product and sum exact, in
float32 and also where a GPU multiplies matrices in TF32."""

_LUMA = (19595.0, 38470.0, 7471.0)
"""ITU-R 601 weights 0.299, 0.587, 0.114 in units of 1/65536, as Pillow has them."""


def raw_images(inputs: Tensor, image_size: int, *, channels: int = 1) -> Tensor:
    """Turn raw images of any size into the network's input.

    An image that is S × S with the wanted channels comes out as it went in.

    Args:
        inputs: Symbolic float32 (batch, height, width, any), 0–255. Channels are gray, RGB, or RGB
            with a fourth that is ignored; sizes need not be known.
        image_size: Side S in pixels of the network's input.
        channels: 1 for a network that takes gray images, 3 for real colour.

    Returns:
        float32 (batch, S, S, channels), whole levels 0–255.
    """
    planes = _planes(_round(ops.clip(inputs, 0.0, 255.0)), channels)
    shorter = ops.minimum(_length(planes[0], 1), _length(planes[0], 2))
    small = _resized(planes, image_size)
    # Whether to average first is known with the image only, so all of it is computed: little
    # beside the network, since most of the work is in the resize of the whole image.
    for side in reversed(BLOCKS):
        averaged = _resized([_block_means(plane, side) for plane in planes], image_size)
        large = ops.expand_dims(ops.greater_equal(shorter, side * image_size), -1)
        small = ops.where(large, averaged, small)
    # The sizes are known now; converters cannot infer them through all of this.
    return ops.reshape(small, (-1, image_size, image_size, channels))


def calibrated(probability: Tensor, temperature: float) -> Tensor:
    """Divide the logit of a symbolic float32 (batch, 1) probability, see `calibration`."""
    clipped = ops.clip(probability, CLIP, 1.0 - CLIP)
    # Not log1p, which LiteRT lacks; 1 − p is exact where p is close to 1.
    logit = ops.log(clipped) - ops.log(1.0 - clipped)
    return ops.sigmoid(logit / temperature)


def _planes(images: Tensor, channels: int) -> list[Tensor]:
    """Return float32 (batch, height, width) of whole levels, one for each channel wanted."""
    ones = ops.ones_like(images[:1, :1, :1, :])
    place = ops.cumsum(ones, axis=-1)  # 1, 2, … along the channels
    gray = ops.less(ops.sum(ones, axis=-1, keepdims=True), 3.0)
    first, *others = (ops.cast(ops.equal(place, number), "float32") for number in (1.0, 2.0, 3.0))
    if channels == 3:
        # A gray image has three equal channels.
        picked = [first, *(ops.where(gray, first, other) for other in others)]
        return [ops.sum(images * one, axis=-1) for one in picked]
    luma = first * _LUMA[0] + others[0] * _LUMA[1] + others[1] * _LUMA[2]
    # Sums stay below 2^24, so float32 holds them exactly.
    total = ops.sum(images * ops.where(gray, first * 65536.0, luma), axis=-1)
    return [ops.floor((total + 32768.0) / 65536.0)]


def _round(levels: Tensor) -> Tensor:
    """Round halves up, as Pillow; `ops.round` would round them to even."""
    return ops.floor(levels + 0.5)


def _length(plane: Tensor, axis: int) -> Tensor:
    """Return the number of rows (axis 1) or columns (axis 2), float32 (1, 1, 1)."""
    return ops.sum(_ones_along(plane, axis), axis=axis, keepdims=True)


def _ones_along(plane: Tensor, axis: int) -> Tensor:
    """Return ones, (1, height, 1) or (1, 1, width)."""
    return ops.ones_like(plane[:1, :, :1] if axis == 1 else plane[:1, :1, :])


def _block_means(plane: Tensor, side: int) -> Tensor:
    """Return float32 (batch, ⌈height / side⌉, ⌈width / side⌉), the means over square blocks.

    Rounded to whole levels as `data/decode.py` does, where the reason stands. Blocks that reach
    beyond the edge repeat its last pixels, as a JPEG encoder does.
    """
    plane = ops.concatenate([plane, *[plane[:, -1:]] * (side - 1)], axis=1)
    plane = ops.concatenate([plane, *[plane[:, :, -1:]] * (side - 1)], axis=2)
    count = float(side * side)
    # A power of two, so that the mean times the count is the exact sum.
    means = ops.average_pool(
        ops.expand_dims(plane, -1),
        side,
        strides=side,
        padding="valid",
        data_format="channels_last",
    )
    sums = count * ops.squeeze(means, -1)
    below = ops.floor(sums / count)
    if side == 8:
        half: Any = count / 2 + count / 16
    else:
        half = count / 2 - 1 + (below - 2 * ops.floor(below / 2))
    return ops.floor((sums + half) / count)


def _resized(planes: list[Tensor], size: int) -> Tensor:
    """Return float32 (batch, S, S, channels): Pillow's bilinear resize, antialiased."""
    height, width = _length(planes[0], 1), _length(planes[0], 2)
    rows = [ops.transpose(limb) for limb in _triangle_weights(planes[0], 1, size)]
    columns = _triangle_weights(planes[0], 2, size)

    def along_rows(plane: Tensor) -> Tensor:
        return _levels(*(ops.matmul(limb, plane) for limb in rows))

    def along_columns(plane: Tensor) -> Tensor:
        return _levels(*(ops.matmul(plane, limb) for limb in columns))

    # The order decides what is rounded, by one level in a quarter of the pixels. This is what
    # Pillow 13 was measured to do; it puts rows first in tall images only.
    rows_first = ops.logical_and(
        ops.greater(height, float(size)), ops.greater(height + size, width * 2.0)
    )
    # Plane by plane: TensorFlow 2.21 on oneDNN crashes in broadcast products of four dimensions.
    small = [
        ops.where(rows_first, along_columns(along_rows(one)), along_rows(along_columns(one)))
        for one in planes
    ]
    return ops.stack(small, axis=-1)


def _triangle_weights(plane: Tensor, axis: int, new: int) -> tuple[Tensor, Tensor]:
    """Return how much each old pixel counts in each new one, in units of 2⁻²².

    Pillow's bilinear filter: a triangle about the new pixel's centre whose half-width is one old
    pixel, or one new pixel where the image shrinks. Distances are kept in units of 1 / (2 · new)
    old pixels, where they are integers, and divided as by hand, six or five bits at a time, since
    not every backend has integers of 64 bits.

    Returns:
        Upper and lower limb, float32 (old, new), whole numbers: the weight is
        upper · 2048 + lower.
    """
    line = ops.reshape(_ones_along(plane, axis), (-1, 1))
    old = ops.cast(ops.sum(line, axis=0, keepdims=True), "int32")
    place = ops.cast(ops.cumsum(line, axis=0), "int32")
    centre_new = ops.multiply(old, 2 * np.arange(new, dtype=np.int32) + 1)
    centre_old = (2 * place - 1) * new
    distance = ops.abs(centre_old - centre_new)
    rest = ops.maximum(2 * ops.maximum(old, new) - distance, 0)
    total = ops.sum(rest, axis=0, keepdims=True)
    limbs = []
    for half in (0, ops.floor_divide(total, 2)):
        upper, rest = _divide(64 * rest, total)
        # In this order: the other way round Keras adds it as a bias, which LiteRT has no integers
        # for.
        lower, rest = _divide(half + 32 * rest, total)
        limbs.append(ops.cast(32 * upper + lower, "float32"))
    return limbs[0], limbs[1]


def _divide(dividend: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    quotient = ops.floor_divide(dividend, divisor)
    return quotient, dividend - quotient * divisor


def _levels(upper: Tensor, lower: Tensor) -> Tensor:
    """Return whole levels 0–255 from sums of pixels weighted by the two limbs."""
    carried = upper + ops.floor(lower / _LIMB) + _LIMB / 2
    return ops.clip(ops.floor(carried / _LIMB), 0.0, 255.0)
