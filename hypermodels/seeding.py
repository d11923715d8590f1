"""Seeds of random layers: fixed, different from layer to layer, independent of the build order."""

from __future__ import annotations

import zlib

import keras


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


def reseed(model: keras.Model, *, seed: int, epoch: int) -> None:
    """Sets the random state of every layer of `model` to a function of `seed` and `epoch` only.

    Keras saves the state of dropout and augmentation in no file. Called at the beginning of every
    epoch (`Callback.on_epoch_begin` works on TensorFlow and JAX), this makes an epoch after a
    resume draw what it would have drawn without the interruption.

    Args:
        model: A model without nested models.
        seed: Seed of the trial.
        epoch: Number of the epoch about to be trained.
    """
    for layer in model.layers:
        states = [v for v in layer.variables if v.path.endswith("seed_generator_state")]
        for i, state in enumerate(states):
            state.assign([_hash(f"{seed}/{epoch}/{layer.name}/{i}"), 0])


def _hash(text: str) -> int:
    return zlib.crc32(text.encode()) & 0x7FFFFFFF
