"""Finds the HyperModel of a run and checks, before anything is trained, that it can be searched.

What it must keep to is in README.md beside this file, under "An own HyperModel".
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

from hypermodels import DocumentedCNN
from search.config import Channels, RunConfig
from search.errors import ConfigurationError
from search.records import Dataset

Factory = Callable[[int, int], kt.HyperModel]
"""Gives the HyperModel for trainings of so many epochs on so many images."""

MISREAD = ("bool", "int8", "string")
"""Types of an input that Keras casts pixels to without a word, or not at all."""

PROBES = 4
"""Random images that a HyperModel is tried with."""


def factory(config: RunConfig, dataset: Dataset) -> Factory:
    """Return what gives the HyperModel of a run.

    Raises:
        ConfigurationError: `--hypermodel` names nothing, or something that cannot be searched.
    """
    given: dict[str, Any] = {
        "image_size": config.image_size,
        "channels": 1 if config.channels is Channels.ONE else 3,
        "colour": config.channels is Channels.RGB,
    }
    named = _load(config.hypermodel) if config.hypermodel else DocumentedCNN

    def make(epochs: int, images: int) -> kt.HyperModel:
        if not inspect.isclass(named):
            return named if isinstance(named, kt.HyperModel) else _Function(named)
        wanted = inspect.signature(named).parameters
        every = {**given, "train_size": images, "epochs": epochs}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in wanted.values())
        found: kt.HyperModel = named(
            **{name: value for name, value in every.items() if open_ended or name in wanted}
        )
        return found

    if config.hypermodel:
        _check(config, make, dataset)
    return make


class _Function(kt.HyperModel):
    """A `build(hp)` function as a HyperModel; picklable where the function is."""

    def __init__(self, build: Callable[[kt.HyperParameters], Any]) -> None:
        super().__init__()
        self.function = build

    def build(self, hp: kt.HyperParameters) -> Any:
        return self.function(hp)


def _load(named: str) -> Any:
    """Import what an option names.

    Raises:
        ConfigurationError: There is no such module, file or name, or importing it fails.
    """
    option = f"--hypermodel {named}"
    place, colon, name = named.rpartition(":")
    if not colon or not name.isidentifier():
        raise ConfigurationError(f"{option}: write package.module:Class or path/to/file.py:Class")
    try:
        module = _module(place)
    except FileNotFoundError:
        raise ConfigurationError(f"{option}: there is no file {place}") from None
    except Exception as error:  # whatever the user's module raises
        raise ConfigurationError(
            f"{option}: importing {place} fails: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        public = [n for n, value in vars(module).items() if callable(value) and n[:1] != "_"]
        raise ConfigurationError(
            f"{option}: {place} has no {name}; it has {', '.join(public) or 'nothing to call'}"
        )
    found = getattr(module, name)
    if not (isinstance(found, kt.HyperModel) or callable(found)):
        raise ConfigurationError(
            f"{option}: is a {type(found).__name__}; it must be a kt.HyperModel, its class, or a "
            "function build(hp)"
        )
    return found


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(path)
    # Workers import it by its name, from the same folder, to be sent its classes.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    return importlib.import_module(path.stem)


def _check(config: RunConfig, make: Factory, dataset: Dataset) -> None:
    """Build the defaults and ask them about a few images.

    Raises:
        ConfigurationError: It does not keep to the protocol; says in what.
    """
    option = f"--hypermodel {config.hypermodel}"
    try:
        model = make(config.max_epochs, len(dataset.train)).build(kt.HyperParameters())
    except Exception as error:  # whatever the user's code raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigurationError(
            f"{option}: building its defaults fails: {type(error).__name__}: {error} "
            f"({last.filename}, line {last.lineno}); build(hp) must work with hp's defaults"
        ) from error
    if not isinstance(model, keras.Model):
        raise ConfigurationError(
            f"{option}: build(hp) returns a {type(model).__name__}; it must return a compiled "
            "keras.Model"
        )
    if not getattr(model, "compiled", False):
        raise ConfigurationError(f"{option}: its model is not compiled; call model.compile in it")
    for entry in getattr(model, "inputs", None) or ():
        if entry.dtype in MISREAD:
            raise ConfigurationError(
                f"{option}: its model's input {entry.name} is {entry.dtype}, which cannot hold "
                "pixels from 0 to 255; give keras.Input dtype='uint8' or 'float32'"
            )
    channels = 3 if config.channels is Channels.RGB else 1
    shape = (PROBES, config.image_size, config.image_size, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    try:
        answer = model.predict_on_batch(images)
    except Exception as error:  # of any kind, by its layers
        raise ConfigurationError(
            f"{option}: its model does not take uint8 images of shape {shape}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if isinstance(answer, list | tuple | dict) or np.shape(answer) != (PROBES, 1):
        described = np.shape(answer) if hasattr(answer, "shape") else f"{len(answer)} outputs"
        raise ConfigurationError(
            f"{option}: its model gives {described} for {PROBES} images; it must give one "
            f"probability each, of shape ({PROBES}, 1)"
        )
    if np.asarray(answer).dtype.kind in "biu":
        raise ConfigurationError(
            f"{option}: its model gives {np.asarray(answer).dtype} numbers; they must be float32 "
            "probabilities, which training can improve"
        )
    values = np.asarray(answer, np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ConfigurationError(
            f"{option}: its model gives values from {values.min():g} to {values.max():g}; they "
            "must be probabilities: end it with a sigmoid"
        )
