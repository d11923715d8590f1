"""Hyperband's brackets and rungs, in integers, and what they cost; imports no Keras.

Algorithm 1 of Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based
Approach to Hyperparameter Optimization", JMLR 18 (2018): with s_max = ⌊log_η R⌋, bracket s starts
n = ⌈(s_max + 1)·ηˢ / (s + 1)⌉ configurations and keeps ⌊n·η⁻ⁱ⌋ (at least 1) of them in rung i, each
trained to R·ηⁱ⁻ˢ epochs. Where R is no power of η the epochs of a rung are rounded down; the last
rung is always exactly R. No rung is shorter than `min_epochs`, the unit that the paper counts R in:
s_max is ⌊log_η (R / min_epochs)⌋.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from search.config import BUDGET
from search.errors import ConfigurationError
from search.records import Bracket, PlanRecord, Rung

SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """All brackets of a search, in the order they are started."""

    tuner: str  # Name of the tuner, for the plan
    max_epochs: int  # R
    brackets: tuple[Bracket, ...]
    notes: tuple[str, ...] = ()  # What a reader should know about how it came about

    @property
    def configurations(self) -> int:
        """Return the number of configurations started."""
        return sum(bracket.rungs[0].count for bracket in self.brackets)

    @property
    def levels(self) -> tuple[int, ...]:
        """Return, by configuration, how many rungs above the lowest of all it starts."""
        highest = max(bracket.bracket for bracket in self.brackets)
        return tuple(
            highest - bracket.bracket
            for bracket in self.brackets
            for _ in range(bracket.rungs[0].count)
        )

    @property
    def trials(self) -> int:
        """Return the number of trials; a configuration is one trial a rung."""
        return sum(rung.count for bracket in self.brackets for rung in bracket.rungs)

    @property
    def epochs(self) -> int:
        """Return the epochs trained, continued trials counting only what they add."""
        return sum(rung.trained for bracket in self.brackets for rung in bracket.rungs)

    def plan(
        self, seconds_per_epoch: float | None = None, seconds_per_trial: float = 0.0
    ) -> PlanRecord:
        """Return what is going to be done, and how long it takes."""
        seconds = None
        if seconds_per_epoch is not None:
            seconds = seconds_per_epoch * self.epochs + seconds_per_trial * self.trials
        return PlanRecord(
            tuner=self.tuner,
            max_epochs=self.max_epochs,
            brackets=self.brackets,
            configurations=self.configurations,
            trials=self.trials,
            epochs=self.epochs,
            seconds_per_epoch=seconds_per_epoch,
            seconds_per_trial=seconds_per_trial,
            estimated_seconds=seconds,
            notes=self.notes,
        )


def continues(schedule: Schedule, begun: Sequence[Bracket]) -> bool:
    """Return whether a search that began with some brackets can go on with a schedule.

    Args:
        schedule: The one to go on with.
        begun: They must be its first ones; the last may have grown where it is the last of both
            and has a single rung, which promotes nothing.
    """
    if len(begun) > len(schedule.brackets):
        return False
    for place, old in enumerate(begun):
        new = schedule.brackets[place]
        if old != new and not (len(schedule.brackets) == place + 1 and _grown(old, new)):
            return False
    return True


def _grown(old: Bracket, new: Bracket) -> bool:
    if len(old.rungs) != 1 or len(new.rungs) != 1 or old.rungs[0].count > new.rungs[0].count:
        return False
    return replace(old, rungs=(replace(old.rungs[0], count=new.rungs[0].count),)) == new


def hyperband(
    *, max_epochs: int, factor: int, iterations: int = 1, min_epochs: int = 1
) -> Schedule:
    """Return the paper's schedule of R = `max_epochs` and η = `factor`.

    Raises:
        ConfigurationError: An argument is out of range.
    """
    if not 1 <= min_epochs <= max_epochs or factor < 2 or iterations < 1:
        raise ConfigurationError(
            f"Hyperband with --min-epochs {min_epochs}, --max-epochs {max_epochs}, --factor "
            f"{factor}, --iterations {iterations}: they must be at least 1, --min-epochs, 2 and 1"
        )
    s_max = 0
    while min_epochs * factor ** (s_max + 1) <= max_epochs:
        s_max += 1
    brackets = []
    for iteration in range(iterations):
        for s in range(s_max, -1, -1):
            start = -(-(s_max + 1) * factor**s // (s + 1))
            rungs: list[Rung] = []
            for i in range(s + 1):
                rungs.append(
                    Rung(
                        count=max(1, start // factor**i),
                        initial_epoch=rungs[-1].epochs if rungs else 0,
                        epochs=max_epochs // factor ** (s - i),
                    )
                )
            brackets.append(Bracket(iteration=iteration, bracket=s, rungs=tuple(rungs)))
    notes: tuple[str, ...] = ()
    if max_epochs % factor**s_max:
        notes = (
            f"{max_epochs} epochs cannot be divided by {factor} {s_max} times: those of the lower "
            "rungs are rounded down",
        )
    planned = Schedule(tuner="hyperband", max_epochs=max_epochs, brackets=tuple(brackets))
    continued = planned.trials - planned.configurations
    if continued:
        notes += (
            f"{planned.configurations} trials are new; {continued} (after →) continue one of "
            "the best before, from its last epoch, and train only the epochs they add",
        )
    return replace(planned, notes=notes)


def full_budget(*, tuner: str, trials: int, epochs: int, notes: tuple[str, ...] = ()) -> Schedule:
    """Return the schedule of a tuner without halving: every trial gets all epochs."""
    rung = Rung(count=trials, initial_epoch=0, epochs=epochs)
    return Schedule(
        tuner=tuner,
        max_epochs=epochs,
        brackets=(Bracket(iteration=0, bracket=0, rungs=(rung,)),),
        notes=notes,
    )


def budget_in_epochs(budget: str, seconds_per_epoch: float | None, *, reserved: float = 0.0) -> int:
    """Turn `--budget` into a number of epochs.

    Args:
        budget: "300epochs", "45s", "90m" or "2h".
        seconds_per_epoch: Measured time of an epoch; needed for a time.
        reserved: Seconds of a time that are for something else.

    Raises:
        ConfigurationError: The budget is not understood or smaller than one epoch.
    """
    match = BUDGET.match(budget)
    if match is None:
        raise ConfigurationError(f"--budget {budget}: write a time such as 90m or 2h, or 300epochs")
    amount, unit = float(match[1]), match[2]
    if unit == "epochs":
        epochs = int(amount)
    else:
        if seconds_per_epoch is None:
            raise ValueError("a budget in time needs a measured epoch")
        epochs = int((amount * SECONDS_PER_UNIT[unit] - reserved) / seconds_per_epoch)
        if epochs < 1 and reserved:
            raise ConfigurationError(
                f"--budget {budget}: about {math.ceil(reserved / 60)} min go to what comes before "
                "and after the search, which leaves less than one epoch for it; give more, or "
                "lower --refit-seeds or --refit-epochs"
            )
    if epochs < 1:
        raise ConfigurationError(
            f"--budget {budget}: less than one epoch on this machine; give more"
        )
    return epochs


def fit_to_budget(
    epochs: int,
    *,
    max_epochs: int,
    factor: int,
    min_epochs: int = 1,
    epochs_per_trial: float = 0.0,
) -> Schedule:
    """Return the largest Hyperband schedule within a number of epochs.

    The largest R up to `max_epochs` whose single iteration fits comes first, then as many
    iterations as fit.

    Args:
        epochs: Epochs that may be trained.
        max_epochs: Upper limit of R.
        factor: η.
        min_epochs: Of the shortest rung; a smaller R has a single one.
        epochs_per_trial: What starting a trial costs, in epochs; a part of a budget in time.

    Raises:
        ConfigurationError: Not even R = 1 fits.
    """
    # The cost is not monotonic in R: a new bracket makes it jump at powers of the factor.
    for candidate in range(min(max_epochs, epochs), 0, -1):
        least = min(min_epochs, candidate)
        once = hyperband(max_epochs=candidate, factor=factor, min_epochs=least)
        cost = once.epochs + epochs_per_trial * once.trials
        if cost <= epochs:
            return hyperband(
                max_epochs=candidate,
                factor=factor,
                iterations=int(epochs // cost),
                min_epochs=least,
            )
    raise ConfigurationError(
        f"--budget: {epochs} epochs are left for the search, which not even the smallest fits in; "
        "give more"
    )
