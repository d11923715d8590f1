"""One configuration of the documented network: its values, validated once. Knows no Keras."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

ACTIVATIONS = ("relu", "gelu", "silu")
HEADS = ("flatten", "global_average")
SCHEDULES = ("constant", "cosine")
INITIALIZERS = ("keras", "scaled")
MAX_DENSE_LAYERS = 3

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "activation": ACTIVATIONS,
    "head": HEADS,
    "schedule": SCHEDULES,
    "initializer": INITIALIZERS,
}

_RANGES: Mapping[str, tuple[float, float, str]] = {
    "conv_dropout": (0.0, math.nextafter(1, 0), "from 0 to below 1"),
    "dense_dropout": (0.0, math.nextafter(1, 0), "from 0 to below 1"),
    "crop_min_area": (math.nextafter(0, 1), 1.0, "above 0 and at most 1 (1 is off)"),
    "tone_jitter": (0.0, 0.4, "from 0 (off) to 0.4"),
    "rotation": (0.0, 180.0, "degrees from 0 (off) to 180"),
    "noise": (0.0, 1.0, "from 0 (off) to 1"),
    "learning_rate": (math.nextafter(0, 1), 1.0, "above 0 and at most 1"),
    "weight_decay": (0.0, math.nextafter(1, 0), "from 0 (off) to below 1"),
    "label_smoothing": (0.0, math.nextafter(1, 0), "from 0 (off) to below 1"),
    "ema": (0.0, math.nextafter(1, 0), "from 0 (off) to below 1"),
}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The values of one configuration; the defaults are the documented network.

    Accepts what makes sense, which is more than the search space of `DocumentedCNN` proposes.

    Attributes:
        base_filters: Channels of the stem; the four blocks have 2, 4, 8 and 16 times as many.
        separable: Depthwise separable convolutions in the blocks instead of full ones.
        activation: One of `ACTIVATIONS`, everywhere but at the output.
        batch_norm: Batch normalization in every block and after every dense layer.
        initializer: One of `INITIALIZERS`: Keras' defaults, or variance-preserving (`blocks.py`).
        conv_dropout: Share of values dropped after the third and the fourth block.
        head: One of `HEADS`.
        dense_units: Widths of the one to three dense layers.
        dense_dropout: Share of values dropped after each of them; as long as `dense_units`.
        crop_min_area: Smallest area of a random resized crop as a fraction; 1 is off.
        tone_jitter: Strength of random brightness, contrast and gamma; 0 is off.
        flip: Random mirroring of left and right.
        rotation: Largest random rotation, in degrees; 0 is off.
        noise: Standard deviation of Gaussian noise on images in [0, 1]; 0 is off.
        learning_rate: The highest learning rate of the schedule.
        schedule: One of `SCHEDULES`.
        weight_decay: Decoupled weight decay, times the learning rate in every step; 0 is off.
        label_smoothing: Share by which the targets 0 and 1 are moved towards one half.
        ema: Decay of the moving average of the weights that is validated and kept; 0 is off.
        batch_size: Images per training step.

    Raises:
        ValueError: At construction, when a value is out of range; names the field and the value.
        TypeError: At construction, when a value has the wrong type; names the field and the value.
    """

    base_filters: int = 16
    separable: bool = True
    activation: str = "relu"
    batch_norm: bool = True
    initializer: str = "keras"
    conv_dropout: float = 0.2
    head: str = "flatten"
    dense_units: tuple[int, ...] = (512, 128, 64)
    dense_dropout: tuple[float, ...] = (0.7, 0.5, 0.3)
    crop_min_area: float = 1.0
    tone_jitter: float = 0.0
    flip: bool = False
    rotation: float = 0.0
    noise: float = 0.0
    learning_rate: float = 1e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name in ("dense_units", "dense_dropout"):
            value = getattr(self, name)
            if not isinstance(value, tuple):
                raise TypeError(f"{name}={value!r}: must be a tuple, one value a dense layer")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "dense_units":
                for units in value:
                    _check_count(field.name, units)
            elif field.name == "dense_dropout":
                for rate in value:
                    _check_range(field.name, rate)
            elif field.name in _CHOICES:
                _check_choice(field.name, value)
            elif field.name in _RANGES:
                _check_range(field.name, value)
            elif isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise TypeError(f"{field.name}={value!r}: must be True or False")
            else:
                _check_count(field.name, value)
        if not 1 <= len(self.dense_units) <= MAX_DENSE_LAYERS:
            raise ValueError(
                f"dense_units={self.dense_units!r}: must have 1 to {MAX_DENSE_LAYERS} widths"
            )
        if len(self.dense_dropout) != len(self.dense_units):
            raise ValueError(
                f"dense_dropout={self.dense_dropout!r}: must have one rate for each of "
                f"dense_units={self.dense_units!r}"
            )

    @property
    def dense_layers(self) -> int:
        """Number of dense layers before the output."""
        return len(self.dense_units)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: must be a whole number")
    if value < 1:
        raise ValueError(f"{name}={value!r}: must be at least 1")


def _check_range(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: must be a number")
    low, high, meaning = _RANGES[name]
    # Written so that NaN, which compares false with everything, is refused too.
    if not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be {meaning}")


def _check_choice(name: str, value: Any) -> None:
    if value not in _CHOICES[name]:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(_CHOICES[name])}")


DOCUMENTED = Configuration()
"""The documented network: 3,496,801 parameters with 180 × 180 × 3 input."""
