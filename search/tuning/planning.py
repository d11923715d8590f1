"""Turns a run's configuration into a schedule and a source of configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from search.config import RunConfig, TunerKind
from search.errors import ConfigurationError
from search.records import Values
from search.tuning import schedule as schedules
from search.tuning.schedule import Schedule
from search.tuning.sources import (
    AdvisedSource,
    ConfigurationSource,
    DrawnSource,
    ListedSource,
    full_listing,
)
from search.tuning.space import Space


@dataclass(frozen=True, kw_only=True)
class PlannedSearch:
    """What a search will do.

    Attributes:
        schedule: Brackets and rungs.
        source: Configurations by number.
    """

    schedule: Schedule
    source: ConfigurationSource


def plan_search(
    config: RunConfig,
    *,
    space: Space,
    queue: list[Values],
    seconds_per_epoch: Callable[[], float],
) -> PlannedSearch:
    """Plan a search.

    Args:
        config: What was asked for.
        space: The (narrowed) search space.
        queue: Configurations that come first, the documented one leading.
        seconds_per_epoch: Gives the measured time of an epoch; called only for a budget in time.

    Raises:
        ConfigurationError: The grid is infinite, or the budget too small.
    """
    epochs = None
    if config.budget:
        timed = not config.budget.endswith("epochs")
        epochs = schedules.budget_in_epochs(config.budget, seconds_per_epoch() if timed else None)
    size = full_listing(space, queue)
    if config.tuner is TunerKind.GRID:
        return _grid(config, space, queue, size, epochs)
    if config.tuner is TunerKind.HYPERBAND:
        planned = _hyperband(config, epochs)
    else:
        trials = config.max_trials
        if epochs is not None:
            trials = max(1, min(trials, epochs // config.max_epochs))
        planned = schedules.full_budget(
            tuner=config.tuner.value, trials=trials, epochs=config.max_epochs
        )
    if size is not None and size <= planned.configurations:
        note = (
            f"the space holds {size} configurations, no more than the schedule's "
            f"{planned.configurations}: all of them are trained to {config.max_epochs} epochs"
        )
        return PlannedSearch(
            schedule=schedules.full_budget(
                tuner=config.tuner.value, trials=size, epochs=config.max_epochs, notes=(note,)
            ),
            source=ListedSource(space, queue=queue),
        )
    if config.tuner is TunerKind.BAYESIAN:
        source: ConfigurationSource = AdvisedSource(
            space, queue=queue, seed=config.seed, trials=planned.trials
        )
    else:
        source = DrawnSource(space, queue=queue, seed=config.seed)
    return PlannedSearch(schedule=planned, source=source)


def _hyperband(config: RunConfig, epochs: int | None) -> Schedule:
    if epochs is not None:
        planned = schedules.fit_to_budget(
            epochs, max_epochs=config.max_epochs, factor=config.factor
        )
        note = f"--budget {config.budget} is {epochs} epochs: R = {planned.max_epochs}"
        return replace(planned, notes=(*planned.notes, note))
    return schedules.hyperband(
        max_epochs=config.max_epochs, factor=config.factor, iterations=config.iterations
    )


def _grid(
    config: RunConfig, space: Space, queue: list[Values], size: int | None, epochs: int | None
) -> PlannedSearch:
    if size is None:
        raise ConfigurationError(
            "--tuner grid: the space is infinite or has over a million configurations; hold "
            "hyperparameters with --fix name=value, or name the few to vary with --search "
            "(learning_rate is continuous)"
        )
    trials = min(size, config.max_trials)
    if epochs is not None:
        trials = max(1, min(trials, epochs // config.max_epochs))
    notes: tuple[str, ...] = ()
    if trials < size:
        notes = (f"the grid holds {size} configurations; the first {trials} are tried",)
    return PlannedSearch(
        schedule=schedules.full_budget(
            tuner="grid", trials=trials, epochs=config.max_epochs, notes=notes
        ),
        source=ListedSource(space, queue=queue),
    )
