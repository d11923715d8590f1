"""Successive halving: promotions do not depend on order, and failures starve no rung."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.tuning.halving import Halving, Slot
from search.tuning.schedule import hyperband


def quality(configuration: int, rung: int) -> float:
    return random.Random(f"{configuration}/{rung}").random()


def run(halving: Halving, *, workers: int, seed: int, fails=frozenset()) -> list[Slot]:
    """Run a whole search with several workers that finish in a random order."""
    drawn = random.Random(seed)
    running: list[Slot] = []
    done: list[Slot] = []
    while True:
        while len(running) < workers and (slot := halving.next_slot()) is not None:
            halving.start(slot)
            running.append(slot)
        if not running:
            return done
        slot = running.pop(drawn.randrange(len(running)))
        done.append(slot)
        if (slot.configuration, slot.rung) in fails:
            halving.fail(slot)
        else:
            score = quality(slot.configuration, slot.rung)
            halving.complete(slot, score=score, parameters=1)


def started(halving: Halving, count: int) -> list[Slot]:
    """Start the next trials."""
    slots = []
    for _ in range(count):
        slots.append(halving.next_slot())
        halving.start(slots[-1])
    return slots


@given(st.integers(1, 30), st.integers(2, 4), st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_any_number_of_workers_trains_the_same_trials(max_epochs, factor, workers, seed):
    schedule = hyperband(max_epochs=max_epochs, factor=factor)
    alone = run(Halving(schedule), workers=1, seed=0)
    together = run(Halving(schedule), workers=workers, seed=seed)
    assert len(alone) == len(set(alone)) == schedule.trials
    assert set(alone) == set(together)


@given(
    fails=st.sets(st.tuples(st.integers(0, 48), st.integers(0, 3)), max_size=25),
    workers=st.integers(1, 9),
    seed=st.integers(0, 10**6),
)
@example(fails=set(), workers=3, seed=1)
@example(fails={(configuration, 0) for configuration in range(27)}, workers=2, seed=0)
@settings(max_examples=80, deadline=None)
def test_each_rung_holds_the_best_of_the_one_below_and_failures_are_replaced(fails, workers, seed):
    halving = Halving(hyperband(max_epochs=27, factor=3))
    done = run(halving, workers=workers, seed=seed, fails=fails)
    assert halving.finished
    assert len(done) == len(set(done))
    for index, bracket in enumerate(halving.schedule.brackets):
        for rung in range(1, len(bracket.rungs)):
            wanted = bracket.rungs[rung].count
            here = [s for s in done if (s.bracket_index, s.rung) == (index, rung)]
            failed = sum((s.configuration, s.rung) in fails for s in here)
            survivors = len(halving.ranked(index, rung - 1))
            most = max(2 * wanted, wanted + 2) if rung == 1 else survivors
            assert len(here) == min(wanted + failed, most, survivors)
            prefix = halving.ranked(index, rung - 1)[: len(here)]
            assert {s.configuration for s in here} == set(prefix)


def test_a_trial_is_promoted_before_its_rung_ends_once_that_is_certain():
    halving = Halving(hyperband(max_epochs=3, factor=3))
    first, second, third = started(halving, 3)
    halving.complete(first, score=0.1, parameters=1)
    halving.complete(second, score=0.2, parameters=1)
    # The third could still be better than the first, so nothing of this bracket may go on yet.
    assert halving.next_slot().bracket_index == 1
    halving.fail(third)
    assert halving.next_slot() == Slot(bracket_index=0, rung=1, configuration=0)


def test_equal_scores_are_ranked_by_size_then_number():
    halving = Halving(hyperband(max_epochs=3, factor=3))
    for slot, parameters in zip(started(halving, 3), (9, 5, 5), strict=True):
        halving.complete(slot, score=0.5, parameters=parameters)
    assert halving.ranked(0, 0) == [1, 2, 0]


@pytest.mark.parametrize(("max_epochs", "rung"), [(3, 1), (9, 2)])
def test_a_rung_of_one_trial_stands_two_failures_where_a_third_survived_below(max_epochs, rung):
    halving = Halving(hyperband(max_epochs=max_epochs, factor=3))
    failures = 0
    while (slot := halving.next_slot()) is not None and slot.bracket_index == 0:
        halving.start(slot)
        if slot.rung == rung and failures < 2:
            failures += 1
            halving.fail(slot)
        else:
            halving.complete(slot, score=float(slot.configuration), parameters=1)
    assert failures == 2
    assert len(halving.ranked(0, rung)) == 1
