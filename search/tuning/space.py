"""What can be done with a KerasTuner search space: narrow it, count it, list it, sample it.

A space is the `kt.HyperParameters` that a HyperModel declares; values are plain dictionaries of the
active hyperparameters, as KerasTuner keeps them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any, TypeAlias

import keras_tuner as kt

from search.errors import ConfigurationError
from search.records import Values

Space: TypeAlias = kt.HyperParameters


def defaults(space: Space) -> Values:
    """Return the values of the default configuration, active ones only."""
    return complete(space, {})


def complete(space: Space, given: Values) -> Values:
    """Return given values with every other active hyperparameter at its default.

    Args:
        space: The space.
        given: Values by name; those of inactive hyperparameters are dropped. They may lie outside
            their ranges, but not be of another type.

    Raises:
        ConfigurationError: A name is not in the space, or a value has the wrong type.
    """
    names = {hp.name for hp in space.space}
    for name in given:
        if name not in names:
            raise ConfigurationError(
                f"hyperparameter {name!r}: not in the search space; it has "
                + ", ".join(sorted(names))
            )
    walked = Space()
    for hp in space.space:
        walked.merge([hp])
        if walked.is_active(hp):
            walked.values[hp.name] = _of_kind(hp, given.get(hp.name, hp.default))
    return dict(walked.values)


def narrow(space: Space, *, fix: Values, vary: tuple[str, ...]) -> Space:
    """Return a space with some hyperparameters held.

    Args:
        space: The full space.
        fix: Hyperparameters to hold, with their values; text as typed on a command line is read
            as the type of the default.
        vary: If not empty, every hyperparameter not named here is held at its default.

    Raises:
        ConfigurationError: A name is not in the space, or a value has the wrong type or range.
    """
    names = {hp.name for hp in space.space}
    for name in [*fix, *vary]:
        if name not in names:
            raise ConfigurationError(
                f"hyperparameter {name!r}: not in the search space; it has "
                + ", ".join(sorted(names))
            )
    narrowed = Space()
    for hp in space.space:
        if hp.name in fix:
            value = _typed(hp, fix[hp.name])
        elif vary and hp.name not in vary:
            value = hp.default
        else:
            narrowed.merge([hp])
            continue
        narrowed.merge([kt.engine.hyperparameters.Fixed(hp.name, value, conditions=hp.conditions)])
    return narrowed


def _of_kind(hp: Any, value: Any) -> Any:
    """Return a value read from a file as the hyperparameter's type: 0 is 0.0 where it is a float.

    Raises:
        ConfigurationError: It is of another type.
    """
    kind = type(hp.default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigurationError(
            f"hyperparameter {hp.name}={json.dumps(value)}: must be of the same type as "
            f"{json.dumps(hp.default)}"
        )
    return value


def _typed(hp: Any, given: Any) -> Any:
    """Return a command line's text as the hyperparameter's type, checked against its range."""
    kind = type(hp.default)
    value = given
    if isinstance(given, str) and kind is not str:
        try:
            value = ast.literal_eval(given.capitalize() if kind is bool else given)
        except (ValueError, SyntaxError):
            value = None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    low, high = getattr(hp, "min_value", None), getattr(hp, "max_value", None)
    choices = list(hp.values) if low is None else []
    in_range = value in choices if low is None else type(value) is kind and low <= value <= high
    if type(value) is not kind or not in_range:
        allowed = f"{low} to {high}" if low is not None else ", ".join(map(str, choices))
        raise ConfigurationError(f"--fix {hp.name}={given}: must be {allowed}")
    return value


def size(space: Space, *, limit: int = 1_000_000) -> int | None:
    """Return the number of configurations, or None if it is infinite or above the limit."""
    if any(_continuous(hp) for hp in space.space):
        return None
    count = 0
    for _ in configurations(space):
        count += 1
        if count > limit:
            return None
    return count


def configurations(space: Space) -> Iterator[Values]:
    """Yield every configuration of a finite space, the default one first.

    Conditional hyperparameters appear only where they are active, so no two are equal. A
    continuous hyperparameter contributes its default alone.
    """

    def walk(index: int, values: Values) -> Iterator[Values]:
        if index == len(space.space):
            yield dict(values)
            return
        hp = space.space[index]
        walked = Space()
        walked.values = values
        if not all(condition.is_active(values) for condition in hp.conditions):
            yield from walk(index + 1, values)
            return
        choices = [hp.default]
        if not _continuous(hp):
            choices += [value for value in hp.values if value != hp.default]
        for value in choices:
            yield from walk(index + 1, {**values, hp.name: value})

    return walk(0, {})


def ranges(space: Space) -> list[dict[str, Any]]:
    """Return what each hyperparameter that varies may be, for those who draw it.

    Returns:
        {"name", "low", "high"} of numbers between limits, {"name", "values"} of the others; once a
        name, in the order of the space.
    """
    found: dict[str, dict[str, Any]] = {}
    for hp in space.space:
        low = getattr(hp, "min_value", None)
        if low is not None:
            found.setdefault(hp.name, {"name": hp.name, "low": low, "high": hp.max_value})
        elif len(getattr(hp, "values", ())) > 1:
            found.setdefault(hp.name, {"name": hp.name, "values": list(hp.values)})
    return list(found.values())


def _continuous(hp: Any) -> bool:
    """Return whether a hyperparameter is a float without a step."""
    return (
        getattr(hp, "min_value", None) is not None
        and hp.step is None
        and isinstance(hp.min_value, float)
    )


def sample(space: Space, *, seed: str) -> Values:
    """Draw a configuration, the same one for the same seed.

    Args:
        space: The space.
        seed: Any text; the draws of two seeds are independent.
    """
    drawn = random.Random(seed)
    walked = Space()
    for hp in space.space:
        walked.merge([hp])
        # Drawn for inactive ones too, so that a value does not shift the ones after it.
        hp_seed = drawn.getrandbits(31)
        if walked.is_active(hp):
            walked.values[hp.name] = hp.random_sample(hp_seed)
    return dict(walked.values)


def key(values: Values) -> str:
    """Return a text that is equal for equal configurations."""
    return json.dumps(values, sort_keys=True)


def trial_seed(seed: int, values: Values) -> int:
    """Return the seed of a trial, from the run's seed and the configuration alone.

    So initialization, data order and augmentation of a configuration do not depend on when,
    where or in which order it is trained.
    """
    digest = hashlib.sha256(f"{seed}/{key(values)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
