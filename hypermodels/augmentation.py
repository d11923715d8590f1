"""Random image augmentation as Keras layers: crop, tone and rotation, batched and on the device.

Every layer acts only when called with ``training=True`` and passes its input through otherwise.
A layer draws its random parameters in `draw` and uses them in `apply`, so that a known set of
parameters can be applied without randomness. All randomness comes from one
`keras.random.SeedGenerator` per layer: writing ``layer.seed_generator.state`` before an epoch makes
that epoch reproducible. Knows Keras, and neither hyperparameters nor models.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import keras
from keras import ops

from hypermodels.seeding import layer_seed

Tensor = Any
Parameters = dict[str, Tensor]

_PACKAGE = "hypermodels"


class _RandomImageLayer(keras.layers.Layer):
    """A layer which changes every image of a batch by its own random draw while training.

    Input and output: (batch, height, width, channels), floating point, same shape. Parameters and
    arithmetic are float32 whatever the dtype policy: bfloat16 keeps 8 bits of a coordinate, which
    is not enough to address 180 pixels. The result has the layer's compute dtype.
    """

    def __init__(self, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @abc.abstractmethod
    def draw(self, batch_size: Any) -> Parameters:
        """Draws the parameters of `batch_size` images, float32 tensors of shape (batch,)."""

    @abc.abstractmethod
    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Returns the images, float32 (batch, height, width, channels), after the change."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Changes the images when `training` is true; returns them as they are otherwise."""
        if not training:
            return inputs
        images = ops.cast(inputs, "float32")
        outputs = self.apply(images, self.draw(ops.shape(images)[0]))
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `input_shape`: no layer here changes the shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to make the layer again."""
        return {**super().get_config(), "seed": self.seed}

    def _uniform(self, batch_size: Any, *bounds: tuple[float, float]) -> list[Tensor]:
        """Draws one value per image for every (low, high), with a single call of the generator."""
        unit = keras.random.uniform(
            (batch_size, len(bounds)), dtype="float32", seed=self.seed_generator
        )
        return [low + (high - low) * unit[:, i] for i, (low, high) in enumerate(bounds)]


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomResizedCrop(_RandomImageLayer):
    """Crops a random window from every image and stretches it back to the frame.

    The "Inception crop" of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015: the window
    has a share U(`min_area`, 1) of the frame's area, a log-uniform ratio of width to height (both
    as fractions of the frame), and a uniform position inside the frame. A side longer than the
    frame is cut to it. The window is resized by bilinear interpolation with pixel centres at
    half-integers and edge values outside, so the full window is the identity.

    Bilinear resizing is separable, so it is done as two batched matrix products: on a CPU several
    times cheaper than gathering four neighbours of every pixel.

    Args:
        min_area: Smallest area of the window as a fraction of the frame, in (0, 1].
        aspect_ratio: Smallest and largest ratio of the window's width to its height.
        seed: Seed of the random generator; None for an arbitrary one.
        **kwargs: Passed to `keras.layers.Layer`: `name`, `dtype`.

    Raises:
        ValueError: When `min_area` or `aspect_ratio` is out of range.
    """

    def __init__(
        self,
        min_area: float,
        aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        if not 0 < min_area <= 1:
            raise ValueError(f"min_area={min_area!r}: must be above 0 and at most 1")
        low, high = aspect_ratio
        if not 0 < low <= high:
            raise ValueError(f"aspect_ratio={aspect_ratio!r}: must be (low, high), 0 < low <= high")
        self.min_area = float(min_area)
        self.aspect_ratio = (float(low), float(high))

    def draw(self, batch_size: Any) -> Parameters:
        """Draws a window per image.

        Returns:
            `top`, `left`, `height`, `width`: float32 (batch,), fractions of the frame, with
            ``top + height <= 1`` and ``left + width <= 1``.
        """
        low, high = self.aspect_ratio
        area, log_ratio, vertical, horizontal = self._uniform(
            batch_size, (self.min_area, 1), (math.log(low), math.log(high)), (0, 1), (0, 1)
        )
        half_ratio = ops.exp(0.5 * log_ratio)
        side = ops.sqrt(area)
        height = ops.minimum(side / half_ratio, 1.0)
        width = ops.minimum(side * half_ratio, 1.0)
        return {
            "top": vertical * (1.0 - height),
            "left": horizontal * (1.0 - width),
            "height": height,
            "width": width,
        }

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Resizes the windows given by `parameters`, as `draw` returns them, to the frame."""
        rows = _interpolation_matrices(parameters["top"], parameters["height"], images.shape[1])
        columns = _interpolation_matrices(parameters["left"], parameters["width"], images.shape[2])
        planes = ops.transpose(images, (0, 3, 1, 2))
        planes = ops.matmul(ops.expand_dims(rows, 1), planes)
        planes = ops.matmul(planes, ops.expand_dims(ops.transpose(columns, (0, 2, 1)), 1))
        return ops.transpose(planes, (0, 2, 3, 1))

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to make the layer again."""
        return {
            **super().get_config(),
            "min_area": self.min_area,
            "aspect_ratio": self.aspect_ratio,
        }


def _interpolation_matrices(start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Weights which resample [start, start + extent] of an axis of `size` pixels to `size` pixels.

    Args:
        start: float32 (batch,), where the window begins, as a fraction of the axis.
        extent: float32 (batch,), the window's length as a fraction of the axis, at most 1. Up to
            there the triangle kernel needs no widening against aliasing.
        size: Number of pixels on the axis.

    Returns:
        float32 (batch, size, size); row i holds the weights of the source pixels of target pixel i
        and sums to 1.
    """
    pixels = ops.arange(size, dtype="float32")
    # In pixels rather than fractions, so that the whole frame maps to itself without rounding.
    source = start[:, None] * size + extent[:, None] * (pixels[None, :] + 0.5) - 0.5
    source = ops.clip(source, 0.0, size - 1.0)
    return ops.relu(1.0 - ops.abs(source[:, :, None] - pixels[None, None, :]))


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomTone(_RandomImageLayer):
    """Changes gamma, contrast and brightness of every image; images are in [0, 1].

    With strength s, each image x becomes, in this order and clipped to [0, 1] at the end,

    - gamma: ``x ** g`` with ``g = exp(U(-s, s))``
    - contrast: ``mean + c * (x - mean)`` around the image's mean with ``c = 1 + U(-s, s)``
    - brightness: ``x + b`` with ``b = U(-s, s) / 2``

    Args:
        strength: The s above, in [0, 0.4]; beyond that a film is no longer one.
        seed: Seed of the random generator; None for an arbitrary one.
        **kwargs: Passed to `keras.layers.Layer`: `name`, `dtype`.

    Raises:
        ValueError: When `strength` is out of range.
    """

    def __init__(self, strength: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        if not 0 <= strength <= 0.4:
            raise ValueError(f"strength={strength!r}: must be from 0 to 0.4")
        self.strength = float(strength)

    def draw(self, batch_size: Any) -> Parameters:
        """Draws a tone per image.

        Returns:
            `gamma`, `contrast`, `brightness`: float32 (batch,), the g, c and b of the class.
        """
        s = self.strength
        log_gamma, contrast, brightness = self._uniform(
            batch_size, (-s, s), (1 - s, 1 + s), (-s / 2, s / 2)
        )
        return {"gamma": ops.exp(log_gamma), "contrast": contrast, "brightness": brightness}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Applies the tones given by `parameters`, as `draw` returns them."""
        gamma, contrast, brightness = (
            parameters[name][:, None, None, None] for name in ("gamma", "contrast", "brightness")
        )
        # Below zero the power is not a number.
        images = ops.power(ops.maximum(images, 0.0), gamma)
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        # One multiplication and one addition per pixel: the rest is per image.
        return ops.clip(images * contrast + (mean * (1.0 - contrast) + brightness), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to make the layer again."""
        return {**super().get_config(), "strength": self.strength}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomRotation(_RandomImageLayer):
    """Rotates every image about its centre by U(-max_degrees, max_degrees); 0 outside.

    Bilinear. `keras.layers.RandomRotation` declares itself unfit for compilation on every backend,
    which makes Keras run the whole JAX model operation by operation; here only TensorFlow, whose
    projective transform has no XLA kernel, goes without compilation.

    Args:
        max_degrees: Largest angle, in degrees, from 0 to 180.
        seed: Seed of the random generator; None for an arbitrary one.
        **kwargs: Passed to `keras.layers.Layer`: `name`, `dtype`.

    Raises:
        ValueError: When `max_degrees` is out of range.
    """

    def __init__(self, max_degrees: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        if not 0 <= max_degrees <= 180:
            raise ValueError(f"max_degrees={max_degrees!r}: must be from 0 to 180")
        self.max_degrees = float(max_degrees)
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def draw(self, batch_size: Any) -> Parameters:
        """Draws an angle per image.

        Returns:
            `angle`: float32 (batch,), radians, positive counter-clockwise.
        """
        limit = math.radians(self.max_degrees)
        return {"angle": self._uniform(batch_size, (-limit, limit))[0]}

    def apply(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Rotates by the angles given by `parameters`, as `draw` returns them."""
        angle = parameters["angle"]
        sine, cosine = ops.sin(angle), ops.cos(angle)
        middle_y, middle_x = (images.shape[1] - 1) / 2, (images.shape[2] - 1) / 2
        zero = ops.zeros_like(angle)
        # Maps a target pixel (x, y), y downwards, to its source: a0 x + a1 y + a2, b0 x + b1 y + b2
        transform = ops.stack(
            [
                cosine,
                -sine,
                middle_x - cosine * middle_x + sine * middle_y,
                sine,
                cosine,
                middle_y - sine * middle_x - cosine * middle_y,
                zero,
                zero,
            ],
            axis=1,
        )
        return ops.image.affine_transform(
            images,
            transform,
            interpolation="bilinear",
            fill_mode="constant",
            fill_value=0.0,
            data_format="channels_last",
        )

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to make the layer again."""
        return {**super().get_config(), "max_degrees": self.max_degrees}


def augmentation_layers(
    *,
    flip: bool = False,
    rotation: float = 0.0,
    crop_min_area: float = 1.0,
    tone_jitter: float = 0.0,
    noise: float = 0.0,
    seed: int | None = None,
) -> list[keras.layers.Layer]:
    """Returns the layers of the active settings, in the order they are to be applied.

    Geometry comes before tone, because the crop's interpolation would smooth noise and the
    rotation's black corners belong to the picture the crop then cuts from. All layers compute in
    float32, on images in [0, 1].

    Args:
        flip: Whether to mirror left and right with probability one half.
        rotation: Largest angle in degrees; 0 is off.
        crop_min_area: Smallest area of a random resized crop as a fraction; 1 is off.
        tone_jitter: Strength of `RandomTone`; 0 is off.
        noise: Standard deviation of additive Gaussian noise, in units of the [0, 1] range; 0 is
            off.
        seed: Every layer gets its own seed made from this one and its name; None for arbitrary
            seeds.

    Returns:
        Layers named `augment_flip`, `augment_rotation`, `augment_crop`, `augment_tone` and
        `augment_noise`; those whose setting is off are missing.

    Raises:
        ValueError: When a value is out of the range of its layer.
    """

    def options(name: str) -> dict[str, Any]:
        return {"name": name, "seed": layer_seed(seed, name), "dtype": "float32"}

    layers: list[keras.layers.Layer] = []
    if flip:
        layers.append(keras.layers.RandomFlip("horizontal", **options("augment_flip")))
    if rotation != 0:
        layers.append(RandomRotation(rotation, **options("augment_rotation")))
    if crop_min_area != 1:
        layers.append(RandomResizedCrop(crop_min_area, **options("augment_crop")))
    if tone_jitter != 0:
        layers.append(RandomTone(tone_jitter, **options("augment_tone")))
    if noise != 0:
        layers.append(keras.layers.GaussianNoise(noise, **options("augment_noise")))
    return layers
