"""Turns a run's configuration into a schedule and a source of configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from search.config import RunConfig, TunerKind
from search.errors import ConfigurationError
from search.records import Bracket, Rung, Values
from search.tuning import schedule as schedules
from search.tuning import space as spaces
from search.tuning.proposals import (
    Accepts,
    BayesianSource,
    ConfigurationSource,
    GridSource,
    PriorSource,
    UniformSource,
    everything,
    full_listing,
)
from search.tuning.schedule import Schedule
from search.tuning.space import Prior, Space


@dataclass(frozen=True, kw_only=True)
class _Budget:
    """What `--budget` leaves room for."""

    epochs: int  # Epochs that may be trained
    per_trial: float = 0.0  # What starting a trial takes of them

    def share(self, trials: int, most: int) -> int:
        """Return the epochs of each of some trials, at least 1 and not more than `most`."""
        return max(1, min(most, int(self.epochs / trials - self.per_trial)))


def plan_search(
    config: RunConfig,
    *,
    space: Space,
    queue: list[Values],
    prior: Prior | None = None,
    accepts: Accepts = everything,
    seconds_per_epoch: Callable[[], float],
    seconds_per_trial: Callable[[], float] = lambda: 0.0,
    seconds_reserved: Callable[[], float] = lambda: 0.0,
    begun: Sequence[Bracket] = (),
) -> tuple[Schedule, ConfigurationSource]:
    """Return brackets and rungs, and where their configurations come from.

    The source depends on tuner, space, queue and seed alone, so that a schedule that grows goes on
    with the configurations it began with.

    Args:
        config: What was asked for.
        space: The (narrowed) search space.
        queue: Configurations that come first, the baseline leading.
        prior: What Hyperband's configurations are drawn around; None for uniform draws.
        accepts: Says whether a configuration may be proposed; others are drawn again.
        seconds_per_epoch: Gives the measured time of an epoch; called only for a budget in time.
        seconds_per_trial: What a trial takes besides; likewise.
        seconds_reserved: What of the budget is for everything but the search; likewise.
        begun: Brackets that earlier processes of the run began.

    Raises:
        ConfigurationError: The grid is infinite, or the budget too small.
    """
    budget = None
    if config.budget.endswith("epochs"):
        budget = _Budget(epochs=schedules.budget_in_epochs(config.budget, None))
    elif config.budget:
        epoch = seconds_per_epoch()
        budget = _Budget(
            epochs=schedules.budget_in_epochs(config.budget, epoch, reserved=seconds_reserved()),
            per_trial=seconds_per_trial() / epoch,
        )
    planned = _schedule(config, full_listing(space, queue), budget, begun)
    planned = replace(planned, notes=(*planned.notes, *_left_out(config, queue, planned)))
    if budget is not None and seconds_reserved():
        note = (
            f"--budget {config.budget}: {seconds_reserved() / 60:.0f} min of it are for what comes "
            "before and after the search, by the baseline's pace; slower networks take longer"
        )
        planned = replace(planned, notes=(*planned.notes, note))
    source: ConfigurationSource
    if config.tuner is TunerKind.GRID:
        source = GridSource(space, queue=queue, accepts=accepts)
    elif config.tuner is TunerKind.BAYESIAN:
        source = BayesianSource(
            space, queue=queue, seed=config.seed, trials=planned.trials, accepts=accepts
        )
    elif config.tuner is TunerKind.HYPERBAND and prior is not None:
        source = PriorSource(
            space,
            prior=prior,
            queue=queue,
            seed=config.seed,
            levels=planned.levels,
            factor=config.factor,
            max_epochs=planned.max_epochs,
            accepts=accepts,
        )
    else:
        source = UniformSource(space, queue=queue, seed=config.seed, accepts=accepts)
    return planned, source


def _left_out(config: RunConfig, queue: list[Values], planned: Schedule) -> tuple[str, ...]:
    """Say which options have no effect, or not the whole of it."""
    notes: tuple[str, ...] = ()
    too_many = len({spaces.key(values) for values in queue}) - planned.configurations
    # Before them the queue has the baseline and the prior's centre, which nobody named.
    too_many = min(too_many, len(config.enqueue))
    if too_many > 0:
        notes += (
            f"--enqueue: the last {too_many} of its configurations are not tried, the schedule has "
            f"{planned.configurations} in all, the baseline first",
        )
    if config.budget and config.iterations != 1 and config.tuner is TunerKind.HYPERBAND:
        notes += (
            f"--iterations {config.iterations} has no effect beside --budget, which decides how "
            "often Hyperband is repeated",
        )
    return notes


def _schedule(
    config: RunConfig, size: int | None, budget: _Budget | None, begun: Sequence[Bracket]
) -> Schedule:
    if config.tuner is TunerKind.GRID:
        return _grid(config, size, budget)
    if config.tuner is TunerKind.HYPERBAND:
        planned = _hyperband(config, budget)
    else:
        planned = _full(config, config.max_trials, budget)
    if size is None or size > planned.configurations:
        return planned
    epochs = config.max_epochs if budget is None else budget.share(size, config.max_epochs)
    note = (
        f"the space holds {size} configurations, no more than the schedule's "
        f"{planned.configurations}: all of them are trained to {epochs} epochs"
    )
    whole = schedules.full_budget(
        tuner=config.tuner.value, trials=size, epochs=epochs, notes=(note,)
    )
    if budget is None and not schedules.continues(whole, begun):
        return _rest(whole, begun)
    return whole


def _rest(whole: Schedule, begun: Sequence[Bracket]) -> Schedule:
    """Return brackets that were begun, and in one more what they leave of a small space."""
    done = replace(whole, brackets=tuple(begun), notes=())
    left = whole.configurations - done.configurations
    if left < 1:
        return done
    rung = Rung(count=left, initial_epoch=0, epochs=whole.max_epochs)
    last = Bracket(iteration=begun[-1].iteration + 1, bracket=0, rungs=(rung,))
    note = (
        f"the space holds {whole.configurations} configurations: the {left} that the brackets "
        f"before leave out are trained to {whole.max_epochs} epochs"
    )
    return replace(done, brackets=(*begun, last), notes=(note,))


def _hyperband(config: RunConfig, budget: _Budget | None) -> Schedule:
    if budget is not None:
        planned = schedules.fit_to_budget(
            budget.epochs,
            max_epochs=config.max_epochs,
            factor=config.factor,
            min_epochs=config.min_epochs,
            epochs_per_trial=budget.per_trial,
        )
        starts = f", {budget.per_trial:.1f} of them for every trial's start" * bool(
            budget.per_trial
        )
        note = (
            f"--budget {config.budget} is {budget.epochs} epochs{starts}: R = {planned.max_epochs}"
        )
        return replace(planned, notes=(*planned.notes, note))
    return schedules.hyperband(
        max_epochs=config.max_epochs,
        factor=config.factor,
        iterations=config.iterations,
        min_epochs=config.min_epochs,
    )


def _full(config: RunConfig, most: int, budget: _Budget | None) -> Schedule:
    """Return as many trials with all epochs as the budget has room for.

    One trial that does not fit as a whole gets the epochs that there are.
    """
    trials, epochs = most, config.max_epochs
    if budget is not None:
        trials = max(1, min(most, int(budget.epochs / (epochs + budget.per_trial))))
        epochs = budget.share(trials, epochs)
    return schedules.full_budget(tuner=config.tuner.value, trials=trials, epochs=epochs)


def _grid(config: RunConfig, size: int | None, budget: _Budget | None) -> Schedule:
    if size is None:
        raise ConfigurationError(
            "--tuner grid: the space is infinite or has over a million configurations; hold "
            "hyperparameters with --fix name=value, or name the few to vary with --search "
            "(learning_rate is continuous)"
        )
    planned = _full(config, min(size, config.max_trials), budget)
    if planned.trials < size:
        note = f"the grid holds {size} configurations; the first {planned.trials} are tried"
        planned = replace(planned, notes=(note,))
    return planned
