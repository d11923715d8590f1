"""What can be done with a KerasTuner search space: narrow it, count it, list it, sample it.

A space is the `kt.HyperParameters` that a HyperModel declares; values are plain dictionaries of the
active hyperparameters, as KerasTuner keeps them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import keras_tuner as kt

from search.errors import ConfigurationError
from search.records import Values

Space: TypeAlias = kt.HyperParameters


def declared(hypermodel: kt.HyperModel) -> Space:
    """Return the space of a HyperModel; one without `declare` builds its defaults to tell it."""
    space = Space()
    if hasattr(hypermodel, "declare"):
        hypermodel.declare(space)
    else:
        hypermodel.build(space)
    return space


def defaults(space: Space) -> Values:
    """Return the values of the default configuration, active ones only."""
    return complete(space, {})


def complete(space: Space, given: Values, *, inside: bool = False) -> Values:
    """Return given values with every other active hyperparameter at its default.

    Args:
        space: The space.
        given: Values by name; those of inactive hyperparameters are dropped. They may not be of
            another type than the hyperparameter.
        inside: Whether they must lie in its range, too.

    Raises:
        ConfigurationError: A name is not in the space, or a value has the wrong type or range.
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
            value = _of_kind(hp, given.get(hp.name, hp.default))
            if inside and not _in_range(hp, value):
                raise ConfigurationError(f"{hp.name}={json.dumps(value)}: must be {_allowed(hp)}")
            walked.values[hp.name] = value
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
    if isinstance(given, str) and kind is bool:
        value = {"true": True, "on": True, "false": False, "off": False}.get(given.lower())
    elif isinstance(given, str) and kind is not str:
        try:
            value = ast.literal_eval(given)
        except (ValueError, SyntaxError):
            value = None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or not _in_range(hp, value):
        raise ConfigurationError(f"--fix {hp.name}={given}: must be {_allowed(hp)}")
    return value


def _in_range(hp: Any, value: Any) -> bool:
    low = getattr(hp, "min_value", None)
    return value in hp.values if low is None else bool(low <= value <= hp.max_value)


def _allowed(hp: Any) -> str:
    if type(hp.default) is bool:
        return "on, off"
    low = getattr(hp, "min_value", None)
    return ", ".join(map(str, hp.values)) if low is None else f"{low} to {hp.max_value}"


def size(space: Space, *, limit: int = 1_000_000) -> int | None:
    """Return the number of configurations, or None if it is infinite or above the limit.

    They are counted, not walked through: what no condition asks for multiplies.
    """
    if any(_continuous(hp) for hp in space.space):
        return None
    asked_for = {condition.name for hp in space.space for condition in hp.conditions}

    def count(index: int, values: Values) -> int:
        if index == len(space.space):
            return 1
        hp = space.space[index]
        if not _active(hp, values):
            return count(index + 1, values)
        choices = _choices(hp)
        if hp.name in asked_for:
            return sum(count(index + 1, {**values, hp.name: value}) for value in choices)
        return len(choices) * count(index + 1, values)

    found = count(0, {})
    return found if found <= limit else None


def contains(space: Space, values: Values) -> bool:
    """Return whether a configuration is among those that `configurations` yields."""
    walked: Values = {}
    for hp in space.space:
        if _active(hp, walked):
            if values.get(hp.name) not in _choices(hp):
                return False
            walked[hp.name] = values[hp.name]
    return walked.keys() == values.keys()


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
        if not _active(hp, values):
            yield from walk(index + 1, values)
            return
        for value in _choices(hp):
            yield from walk(index + 1, {**values, hp.name: value})

    return walk(0, {})


def _active(hp: Any, values: Values) -> bool:
    return all(condition.is_active(values) for condition in hp.conditions)


def _choices(hp: Any) -> list[Any]:
    """Return the values that a hyperparameter is listed with, the default first."""
    others = [] if _continuous(hp) else [v for v in hp.values if v != hp.default]
    return [hp.default, *others]


def nearest(space: Space, values: Values) -> Values:
    """Return a configuration with every value that the space does not allow replaced.

    Args:
        space: The space.
        values: A configuration that `complete` gave.

    Returns:
        It with the nearest of a number's allowed values, the default of a text.
    """
    allowed = {hp.name: _nearest(hp, values[hp.name]) for hp in space.space if hp.name in values}
    return {**values, **allowed}


def _nearest(hp: Any, value: Any) -> Any:
    low = getattr(hp, "min_value", None)
    if low is not None:
        return min(max(value, low), hp.max_value)
    if value in hp.values:
        return value
    if isinstance(value, int | float):
        return min(hp.values, key=lambda allowed: abs(allowed - value))
    return hp.default


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


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What is known of one hyperparameter before a search."""

    value: Any  # The value to draw around
    # For values in order, the standard deviation of draws as a share of the range; 0.25 is
    # PriorBand's. For others, the probability of another value, times the number of values: 0 is
    # certain, 1 knows nothing.
    spread: float = 0.25


Prior: TypeAlias = Mapping[str, Belief]
"""Beliefs by the name of the hyperparameter; what is not named is drawn uniformly."""


def centre(space: Space, prior: Prior) -> Values:
    """Return the configuration of what is believed, every value the nearest that is allowed."""
    believed = {
        hp.name: _nearest(hp, prior[hp.name].value) for hp in space.space if hp.name in prior
    }
    return complete(space, believed)


def sample_around(space: Space, prior: Prior, drawn: random.Random) -> Values:
    """Draw a configuration around what is known.

    Args:
        space: The space.
        prior: Beliefs, whose values may lie outside of the space: the nearest allowed one counts.
        drawn: Where chance comes from.
    """
    walked = Space()
    for hp in space.space:
        walked.merge([hp])
        # Drawn for inactive ones too, so that a value does not shift the ones after it.
        chance, hp_seed = drawn.random(), drawn.getrandbits(31)
        if not walked.is_active(hp):
            continue
        belief = prior.get(hp.name)
        if belief is None or _fixed(hp):
            value = hp.random_sample(hp_seed)
        elif _ordered(hp):
            value = _ordered_draw(hp, belief, chance)
        elif chance >= belief.spread * (1 - 1 / len(hp.values)):
            value = _nearest(hp, belief.value)
        else:
            others = [other for other in hp.values if other != belief.value]
            value = random.Random(hp_seed).choice(others)
        walked.values[hp.name] = value
    return dict(walked.values)


def _ordered_draw(hp: Any, belief: Belief, chance: float) -> Any:
    """Return a draw of the normal distribution cut off at the ends of the range."""
    if not belief.spread:
        return _nearest(hp, belief.value)
    normal = NormalDist(_place(hp, belief.value), belief.spread)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    place = normal.inv_cdf(low + chance * (high - low))
    return hp.prob_to_value(min(max(place, 0.0), 1 - 1e-9))


def likelihood(space: Space, prior: Prior, values: Values) -> float:
    """Return the density of a configuration under a belief, relative to a uniform draw's."""
    product = 1.0
    for hp in space.space:
        belief = prior.get(hp.name)
        if belief is None or hp.name not in values or _fixed(hp):
            continue
        if not _ordered(hp):
            count = len(hp.values)
            other = belief.spread / count
            certain = 1 - other * (count - 1)
            product *= count * (certain if values[hp.name] == belief.value else other)
        elif belief.spread:
            normal = NormalDist(_place(hp, belief.value), belief.spread)
            inside = normal.cdf(1.0) - normal.cdf(0.0)
            product *= normal.pdf(_place(hp, values[hp.name])) / inside
    return product


def _fixed(hp: Any) -> bool:
    """Return whether there is nothing to choose."""
    return getattr(hp, "min_value", None) is None and len(getattr(hp, "values", ())) < 2


def _ordered(hp: Any) -> bool:
    """Return whether values are numbers from small to large."""
    if getattr(hp, "min_value", None) is not None:
        return True
    values = list(hp.values)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and values == sorted(values)


def _place(hp: Any, value: Any) -> float:
    """Return where in the range a value is, 0 to 1."""
    return float(hp.value_to_prob(_nearest(hp, value)))


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
