"""Seeds of random layers: fixed, different from layer to layer, independent of the build order."""

from __future__ import annotations

import zlib


def layer_seed(seed: int | None, name: str) -> int | None:
    """Returns the seed of the layer called `name` in a model built with `seed`.

    Made from the name rather than counted, so that switching one augmentation on leaves the
    dropout masks of all other layers as they were.

    Args:
        seed: The model's seed; None asks for arbitrary seeds.
        name: The layer's name, unique within the model.

    Returns:
        An integer in [0, 2**31), which fits the seed state of every backend; None for None.
    """
    if seed is None:
        return None
    return _hash(f"{seed}/{name}")


def _hash(text: str) -> int:
    return zlib.crc32(text.encode()) & 0x7FFFFFFF
