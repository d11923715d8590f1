"""What an ablation changes, one factor at a time, and its report: the effect of each change.

The notebook's author reports that more epochs or another batch size, no batch normalization, no
dropout, horizontal flips, and other filters or activations did not help: five questions, and a few
factors for each. Batch normalization has two: with Keras' initialization the signal fades from
block to block without it, so that leaving it out says something about the initialization; with the
scaled one it does not fade.

Knows no Keras; what is trained is in `ablation`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from search.errors import ConfigurationError
from search.records import Estimate, Finalist, SeedDifference, Values, with_implied
from search.run_directory import RunDirectory
from search.scoring.bootstrap import Outcome

FILE = "ablation.json"

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
class Change:
    """One factor changed."""

    factor: str  # A key of `FACTORS`
    question: str  # A key of `QUESTIONS`
    name: str  # Short and unique, e.g. "filters=32"
    before: str  # The factor's value in the base, in words
    after: str  # Its value after the change, in words
    values: Values  # All hyperparameters after the change
    epochs: int  # Epochs to train


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one change did. Differences are changed − base: of a loss, below 0 is better."""

    base: str  # "baseline" or "winner"
    change: Change
    parameters: int = 0  # Parameter count after it
    scores: dict[int, float] = field(default_factory=dict)  # Objective on validation by seed
    failure: str = ""  # Why it could not be trained, or ""
    # Difference of the objective over seeds, None without a pair
    validation: Estimate | None = None
    validation_outcome: Outcome = Outcome.UNDECIDED  # What that says
    # Differences on test by metric, {} without a test set
    test: dict[str, SeedDifference] = field(default_factory=dict)
    test_outcome: Outcome = Outcome.UNDECIDED  # What the first of `MEAN_METRICS` says


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """The content of `ablation.json`, written last."""

    run: str
    finished: str  # ISO time
    synthetic: bool  # Whether the images are the demo's
    objective: str  # The metric of validation
    epochs: int  # Of each training
    repeats: int  # Seeds
    images: dict[str, int]  # Number of images by "val", "perturbed" and, if there is one, "test"
    test_evaluations: int  # Networks scored on test
    times_evaluated: int  # How often ablations of this run evaluated the test, this one included
    notes: tuple[str, ...]  # What a reader should know, a sentence each
    bases: tuple[Finalist, ...]  # The unchanged configurations
    effects: tuple[Effect, ...]  # One per change


def parse_factors(text: str) -> list[tuple[str, str]]:
    """Read `--factors`, e.g. "epochs,filters=8,filters=32"; "" and "all" are every factor.

    Returns:
        A key of `FACTORS` and what to change it to, "" to leave that to the factor, for each.

    Raises:
        ConfigurationError: There is no such factor.
    """
    if text in ("", "all"):
        return [(name, "") for name in FACTORS]
    requested = []
    for part in text.split(","):
        name, _, level = part.strip().partition("=")
        if name not in FACTORS:
            raise ConfigurationError(
                f"--factors {part.strip()}: no such factor; choose of {', '.join(FACTORS)}, each "
                "as NAME or NAME=VALUE"
            )
        requested.append((name, level.strip()))
    return requested


def changed(factor: str, level: str, base: Values, epochs: int) -> Change:
    """Change one factor of a configuration, trained for so many epochs, and nothing else.

    Raises:
        ConfigurationError: The level cannot be read, is what the configuration has already, or the
            configuration has no such hyperparameter.
    """
    question, change = FACTORS[factor]
    known = with_implied(base)
    try:
        before, after, values, longer = change(level, known, epochs)
    except ValueError as error:
        raise ConfigurationError(f"--factors {factor}={level}: {error}") from None
    except KeyError as error:
        raise ConfigurationError(
            f"--factors {factor}: the network has no hyperparameter {error}"
        ) from None
    # What holds anyway is not said again: it would look like another configuration.
    values = {name: v for name, v in values.items() if name in base or v != known.get(name)}
    if (values, longer) == (base, epochs):
        raise ConfigurationError(f"--factors {factor}={level}: that is what the configuration has")
    return Change(
        factor=factor,
        question=question,
        name=f"{factor}={after.replace(' ', '_')}",
        before=before,
        after=after,
        values=values,
        epochs=longer,
    )


Changed = tuple[str, str, Values, int]
"""Value before and after in words, all values, epochs."""


Alter = Callable[[str, Values, int], Changed]
"""Takes the level asked for or "", the configuration, and epochs; ValueError: how to write it."""


def _epochs(level: str, base: Values, epochs: int) -> Changed:
    longer = _count(level) if level else 2 * epochs
    return str(epochs), str(longer), base, longer


def _value(name: str, read: Callable[[str], Any], other: Callable[[Any], Any]) -> Alter:
    """Return what changes one hyperparameter to a level, or to another one than it has."""

    def alter(level: str, base: Values, epochs: int) -> Changed:
        before = base[name]
        after = read(level) if level else other(before)
        return _words(before), _words(after), {**base, name: after}, epochs

    return alter


def _batch_norm_scaled(level: str, base: Values, epochs: int) -> Changed:
    after = bool(level) and _switch(level)
    values = {**base, "batch_norm": after, "initializer": "scaled"}
    before = f"{_words(base['batch_norm'])} {base['initializer']}"
    return before, f"{_words(after)} scaled", values, epochs


def _dropout(level: str, base: Values, epochs: int) -> Changed:
    rates = {name: base[name] for name in DROPOUT if name in base}
    present = any(rates.values())
    wanted = _switch(level) if level else not present
    values = base
    if not wanted:
        values = {**base, **dict.fromkeys(rates, 0.0)}
    elif not present:
        # Where there is none, the question is turned round, with one rate for all.
        values = {**base, **dict.fromkeys(rates, 0.3)}
    return _words(present), _words(wanted), values, epochs


def _words(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "on" if value else "off"


def _switch(level: str) -> bool:
    if level not in ("on", "off"):
        raise ValueError("write on or off")
    return level == "on"


def _count(level: str) -> int:
    if not level.isdecimal() or int(level) < 1:
        raise ValueError("write a whole number above 0")
    return int(level)


FACTORS: dict[str, tuple[str, Alter]] = {
    "epochs": ("training", _epochs),
    "batch_size": ("training", _value("batch_size", _count, lambda n: 2 * n if n < 64 else n // 2)),
    "batch_norm": ("batch_norm", _value("batch_norm", _switch, operator.not_)),
    "batch_norm_scaled": ("batch_norm", _batch_norm_scaled),
    "dropout": ("dropout", _dropout),
    "flip": ("flip", _value("flip", _switch, operator.not_)),
    "filters": ("network", _value("base_filters", _count, lambda n: 32 if n < 32 else n // 2)),
    "activation": (
        "network",
        _value("activation", str, lambda a: "gelu" if a == "relu" else "relu"),
    ),
}
"""The question that each factor belongs to, and how it is changed."""


def read_report(run: RunDirectory) -> AblationReport | None:
    """Return the report of a run's ablation, None if there is none.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    directory = RunDirectory(run.root / "ablation")
    if not (directory.root / FILE).exists():
        return None
    return directory.read(AblationReport, FILE)


def sentences(report: AblationReport) -> dict[str, str]:
    """Return one sentence for each question that was asked, by its name in `QUESTIONS`."""
    found = {}
    for name in QUESTIONS:
        parts = []
        for one in (effect for effect in report.effects if effect.change.question == name):
            what = f"{one.change.factor} {one.change.before} → {one.change.after} ({one.base})"
            if one.failure:
                parts.append(f"{what} could not be trained")
                continue
            part = f"{what}: {one.validation_outcome.value} on validation"
            parts.append(f"{part}, {one.test_outcome.value} on test" if one.test else part)
        if parts:
            found[name] = "; ".join(parts) + "."
    return found
