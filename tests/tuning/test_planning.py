"""From options to schedule and source: small spaces, grids, budgets, queues."""

from types import SimpleNamespace

import keras_tuner as kt
import pytest

from search.config import RunConfig, TunerKind
from search.errors import ConfigurationError
from search.tuning import space as spaces
from search.tuning.planning import plan_search


def space(values: int, *, continuous: bool = False) -> kt.HyperParameters:
    new = kt.HyperParameters()
    new.Choice("units", list(range(values)), default=0)
    if continuous:
        new.Float("rate", 1e-4, 1e-1, sampling="log")
    return new


def plan(found: kt.HyperParameters, *, queue=None, begun=(), epoch=1.0, trial=0.0, **options):
    schedule, source = plan_search(
        RunConfig(**options),
        space=found,
        queue=[spaces.defaults(found)] if queue is None else queue,
        seconds_per_epoch=lambda: epoch,
        seconds_per_trial=lambda: trial,
        begun=begun,
    )
    return SimpleNamespace(schedule=schedule, source=source)


def drawn(planned) -> list[dict]:
    return [planned.source.values(number) for number in range(planned.schedule.configurations)]


def test_hyperband_is_the_default_and_starts_with_the_queue():
    queue = [{"units": 0, "rate": 0.01}, {"units": 3, "rate": 0.05}]
    planned = plan(space(5, continuous=True), queue=queue, max_epochs=9)
    assert planned.schedule.configurations == 17
    values = drawn(planned)
    assert values[:2] == queue
    assert len({spaces.key(item) for item in values}) == 17


def test_a_space_smaller_than_the_schedule_is_searched_fully_and_said_so():
    planned = plan(space(6), max_epochs=9)
    assert planned.schedule.trials == 6
    assert planned.schedule.epochs == 6 * 9
    assert "6 configurations" in planned.schedule.notes[0]
    units = [values["units"] for values in drawn(planned)]
    assert units[0] == 0
    assert sorted(units) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", list(TunerKind))
def test_queued_configurations_beyond_the_schedule_are_told(kind):
    queue = [{"units": value} for value in (0, 3, 4, 4)]
    options = {"tuner": kind, "max_epochs": 1, "max_trials": 1}
    planned = plan(space(40), queue=queue, enqueue=tuple(queue[1:]), **options)
    assert planned.schedule.configurations == 1
    assert "--enqueue: the last 2 of its configurations are not tried" in planned.schedule.notes[-1]
    # The prior's centre is in the queue too, and nobody named it.
    notes = plan(space(40), queue=queue[:2], **options).schedule.notes
    assert not any("--enqueue" in note for note in notes)


def test_iterations_beside_a_budget_are_told_to_have_no_effect():
    planned = plan(space(5, continuous=True), budget="100epochs", iterations=3)
    assert "--iterations 3 has no effect beside --budget" in planned.schedule.notes[-1]


def test_a_queued_configuration_outside_the_narrowed_space_is_searched_too():
    found = spaces.narrow(space(4), fix={"units": "2"}, vary=())
    planned = plan(found, queue=[{"units": 0}], max_epochs=9)
    assert [values["units"] for values in drawn(planned)] == [0, 2]


def test_the_grid_is_listed_in_order_and_cut_at_max_trials():
    planned = plan(space(5), tuner=TunerKind.GRID, max_epochs=4, max_trials=3)
    assert [values["units"] for values in drawn(planned)] == [0, 1, 2]
    assert "5 configurations" in planned.schedule.notes[0]
    assert planned.schedule.epochs == 12


def test_an_infinite_grid_is_refused_with_the_remedy():
    with pytest.raises(ConfigurationError, match="--fix"):
        plan(space(5, continuous=True), tuner=TunerKind.GRID)


def test_a_budget_picks_the_largest_schedule_that_fits():
    found = space(5, continuous=True)
    planned = plan(found, max_epochs=81, budget="10m", epoch=6.0)
    assert 90 <= planned.schedule.epochs <= 100
    assert "--budget 10m is 100 epochs" in planned.schedule.notes[-1]
    fewer = plan(found, tuner=TunerKind.RANDOM, max_epochs=10, budget="35epochs")
    assert fewer.schedule.trials == 3


def test_a_budget_in_time_pays_for_starting_trials_too():
    found = space(5, continuous=True)
    schedule = plan(found, queue=[], max_epochs=27, budget="10m", trial=5.0).schedule
    assert "is 600 epochs, 5.0 of them for every trial's start: R = " in schedule.notes[-1]
    assert 300 < schedule.plan(1.0, 5.0).estimated_seconds <= 600


@pytest.mark.parametrize("kind", list(TunerKind))
@pytest.mark.parametrize(("values", "epochs"), [(3, 20), (3, 5), (40, 5), (40, 60)])
def test_no_tuner_and_no_small_space_exceeds_the_budget(kind, values, epochs):
    planned = plan(space(values), tuner=kind, max_epochs=27, budget=f"{epochs}epochs")
    assert 0 < planned.schedule.epochs <= epochs
    assert len(drawn(planned)) == planned.schedule.configurations


@pytest.mark.parametrize("kind", [TunerKind.RANDOM, TunerKind.BAYESIAN])
def test_other_tuners_train_every_trial_to_the_full_budget(kind):
    schedule = plan(space(5, continuous=True), tuner=kind, max_epochs=7, max_trials=4).schedule
    assert (schedule.trials, schedule.epochs, schedule.tuner) == (4, 28, kind.value)
