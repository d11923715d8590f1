"""Main memory: how much a training step on the CPU takes, and how much a process holds.

Training keeps every layer's output until the gradient has passed it, so memory grows with image
area, channels and batch. At 180 × 180 a batch of 64 of the widest network takes TensorFlow over
4 GB, and the process never gives it back. On a CPU a batch is therefore computed in parts where it
would keep more than `STEP_BYTES`: their gradients are averaged and the optimizer makes one step,
as Keras' `gradient_accumulation_steps` does. Batch normalization then normalizes each part by
itself ("ghost batches": Hoffer, Hubara and Soudry, "Train longer, generalize better", NeurIPS
2017), and no part is smaller than 8 images. The documented configuration is never split up to
180 × 180, and no network with the documented filters is up to 96 × 96.
"""

from __future__ import annotations

import math
import os
from typing import Any

import keras

STEP_BYTES = 380_000_000
"""Layer outputs of a training step on the CPU, in bytes: 32 images of the documented network at
180 × 180. The whole step takes two to three times as much."""

SMALLEST_PART = 8

KEPT = {"gelu": 2}
"""Arrays that an activation keeps for its gradient where it is not 1: Keras composes this one of
several steps."""


def parts(model: Any, batch_size: int, *, limit: int = STEP_BYTES) -> int:
    """Return in how many equal parts a batch is to be computed.

    Args:
        model: A Keras model; one whose layers do not tell their output shapes is never split.
        batch_size: Images in a step.
        limit: Bytes of layer outputs that a part may keep.

    Returns:
        1, or a power of two that divides the batch size, no part below `SMALLEST_PART` images.
    """
    number = 1
    each = bytes_per_image(model)
    while (
        batch_size * each > limit * number
        and batch_size % (2 * number) == 0
        and batch_size // (2 * number) >= SMALLEST_PART
    ):
        number *= 2
    return number


def compute_in_parts(optimizer: Any, number: int) -> None:
    """Have an optimizer make one step of so many parts of a batch.

    Args:
        optimizer: A Keras optimizer, not built yet.
        number: Parts of a batch, at least 2.
    """
    optimizer.gradient_accumulation_steps = number
    schedule = optimizer._learning_rate
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        optimizer.learning_rate = _ByBatch(schedule, number)


class _ByBatch(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule over batches, which Keras tells the number of parts."""

    def __init__(self, schedule: Any, number: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.number = number

    def __call__(self, step: Any) -> Any:
        return self.schedule(keras.ops.floor_divide(step, self.number))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "number": self.number}


def parts_of(optimizer: Any) -> int:
    """Return in how many parts an optimizer's batches are computed, 1 for whole ones."""
    return optimizer.gradient_accumulation_steps or 1


def begun_gradients(optimizer: Any) -> list[int]:
    """Return which of a built optimizer's variables hold the gradients of a batch's first parts."""
    if parts_of(optimizer) == 1:
        return []
    held = {id(variable) for variable in optimizer._accumulated_gradients}
    return [place for place, variable in enumerate(optimizer.variables) if id(variable) in held]


def bytes_per_image(model: Any) -> int:
    """Return the bytes that layers keep for one image, 0 where they do not tell their shapes."""
    total = 0
    for layer in model._flatten_layers(include_self=False):
        try:
            shape = layer.output.shape
        except (AttributeError, ValueError, RuntimeError):  # no single symbolic output
            continue
        width = 2 if "16" in str(layer.compute_dtype) else 4
        arrays = KEPT.get(getattr(getattr(layer, "activation", None), "__name__", ""), 1)
        total += math.prod(side or 1 for side in shape[1:]) * width * arrays
    return total


def resident_mb() -> int:
    """Return the main memory this process holds, in MB, mapped files included; 0 if unknown."""
    try:
        with open("/proc/self/statm", encoding="ascii") as handle:
            pages = int(handle.read().split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
