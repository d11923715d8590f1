"""The factors of an ablation: what is changed, one at a time, and which question that answers.

The notebook's author reports that more epochs or another batch size, no batch normalization, no
dropout, horizontal flips, and other filters or activations did not help: five questions, seven
factors. Pure: values in, values out; knows no Keras and no run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from search.errors import ConfigurationError
from search.records import Values

QUESTIONS = {
    "training": "Do more epochs or another batch size help?",
    "batch_norm": "Does leaving out batch normalization help?",
    "dropout": "Does leaving out dropout help?",
    "flip": "Do horizontal flips help?",
    "network": "Do other filters or activations help?",
}
"""The five questions, by name."""

DROPOUT = ("conv_dropout", "dense_dropout_1", "dense_dropout_2", "dense_dropout_3")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A factor as asked for.

    Attributes:
        factor: A key of `FACTORS`.
        level: What to change it to; "" leaves that to the factor.
    """

    factor: str
    level: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One factor changed.

    Attributes:
        factor: A key of `FACTORS`.
        question: A key of `QUESTIONS`.
        name: Short and unique, e.g. "filters=32".
        before: The factor's value in the base, in words.
        after: Its value after the change, in words.
        values: All hyperparameters after the change.
        epochs: Epochs to train.
    """

    factor: str
    question: str
    name: str
    before: str
    after: str
    values: Values
    epochs: int


def parse_factors(text: str) -> list[Wish]:
    """Read `--factors`.

    Args:
        text: "epochs,filters=8,filters=32"; "" or "all" for every factor at its own level.

    Raises:
        ConfigurationError: There is no such factor.
    """
    if text in ("", "all"):
        return [Wish(factor=name) for name in FACTORS]
    wishes = []
    for part in text.split(","):
        name, _, level = part.strip().partition("=")
        if name not in FACTORS:
            raise ConfigurationError(
                f"--factors {part.strip()}: no such factor; choose of {', '.join(FACTORS)}, each "
                "as NAME or NAME=VALUE"
            )
        wishes.append(Wish(factor=name, level=level.strip()))
    return wishes


def changed(wish: Wish, base: Values, epochs: int) -> Change:
    """Change one factor of a configuration and nothing else.

    Args:
        wish: Which, and to what.
        base: The configuration, complete.
        epochs: Epochs it is trained.

    Raises:
        ConfigurationError: The level cannot be read, or is what the configuration has already.
    """
    question, change = FACTORS[wish.factor]
    try:
        before, after, values, longer = change(wish.level, base, epochs)
    except ValueError:
        raise ConfigurationError(
            f"--factors {wish.factor}={wish.level}: write a whole number above 0"
        ) from None
    if (values, longer) == (base, epochs):
        raise ConfigurationError(
            f"--factors {wish.factor}={wish.level}: that is what the configuration has already"
        )
    return Change(
        factor=wish.factor,
        question=question,
        name=f"{wish.factor}={after.replace(' ', '_')}",
        before=before,
        after=after,
        values=values,
        epochs=longer,
    )


Changed = tuple[str, str, Values, int]
"""Value before and after in words, all values, epochs."""


def _epochs(level: str, base: Values, epochs: int) -> Changed:
    longer = _count(level) if level else 2 * epochs
    return str(epochs), str(longer), base, longer


def _batch_size(level: str, base: Values, epochs: int) -> Changed:
    before = int(base["batch_size"])
    after = _count(level) if level else (2 * before if before < 64 else before // 2)
    return str(before), str(after), {**base, "batch_size": after}, epochs


def _filters(level: str, base: Values, epochs: int) -> Changed:
    before = int(base["base_filters"])
    after = _count(level) if level else (32 if before < 32 else before // 2)
    return str(before), str(after), {**base, "base_filters": after}, epochs


def _activation(level: str, base: Values, epochs: int) -> Changed:
    before = str(base["activation"])
    after = level or ("gelu" if before == "relu" else "relu")
    return before, after, {**base, "activation": after}, epochs


def _switch(name: str) -> Callable[[str, Values, int], Changed]:
    def change(level: str, base: Values, epochs: int) -> Changed:
        before = bool(base[name])
        after = not before if not level else level == "on"
        if level not in ("", "on", "off"):
            raise ConfigurationError(f"--factors {name}={level}: write on or off")
        return _on(before), _on(after), {**base, name: after}, epochs

    return change


def _dropout(level: str, base: Values, epochs: int) -> Changed:
    rates = {name: base[name] for name in DROPOUT if name in base}
    present = any(rates.values())
    if level not in ("", "on", "off"):
        raise ConfigurationError(f"--factors dropout={level}: write on or off")
    if not present and level != "off":
        # Where there is none, the question is turned round, with one rate for all.
        return "off", "on", {**base, **dict.fromkeys(rates, 0.3)}, epochs
    after = base if level == "on" else {**base, **dict.fromkeys(rates, 0.0)}
    return _on(present), _on(after is base), after, epochs


def _on(value: bool) -> str:
    return "on" if value else "off"


def _count(level: str) -> int:
    number = int(level)
    if number < 1:
        raise ValueError(level)
    return number


FACTORS: dict[str, tuple[str, Callable[[str, Values, int], Changed]]] = {
    "epochs": ("training", _epochs),
    "batch_size": ("training", _batch_size),
    "batch_norm": ("batch_norm", _switch("batch_norm")),
    "dropout": ("dropout", _dropout),
    "flip": ("flip", _switch("flip")),
    "filters": ("network", _filters),
    "activation": ("network", _activation),
}
"""The question that each factor belongs to, and how it is changed."""


def summary(answers: Sequence[dict[str, Any]]) -> str:
    """Return one sentence on the answers to one question.

    Args:
        answers: Entries of "answers" in `ablation.json`, of one question.
    """
    parts = []
    for one in answers:
        what = f"{one['factor']} {one['before']} → {one['after']} ({one['base']})"
        if one["failed"]:
            parts.append(f"{what} could not be trained")
            continue
        said = f"{what} {one['validation']['answer']} on validation"
        if one["test"]:
            said += f", {one['test']['answer']} on test"
        parts.append(said)
    return "; ".join(parts) + "."
