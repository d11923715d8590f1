"""The schedule against the paper's formulas, written independently with fractions."""

import dataclasses
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.errors import ConfigurationError
from search.tuning.schedule import (
    budget_in_epochs,
    continues,
    fit_to_budget,
    full_budget,
    hyperband,
)


def test_81_by_3_is_the_papers_table():
    brackets = hyperband(max_epochs=81, factor=3).brackets
    counts = [[rung.count for rung in bracket.rungs] for bracket in brackets]
    assert counts == [[81, 27, 9, 3, 1], [34, 11, 3, 1], [15, 5, 1], [8, 2], [5]]
    assert [rung.epochs for rung in brackets[0].rungs] == [1, 3, 9, 27, 81]


def test_ten_epochs_do_not_inflate():
    schedule = hyperband(max_epochs=10, factor=3)
    assert schedule.trials == 22
    assert schedule.epochs < 90
    assert "cannot be divided" in schedule.notes[0]


@given(max_epochs=st.integers(1, 3000), factor=st.integers(2, 10), least=st.integers(1, 30))
@example(max_epochs=5**6, factor=5, least=1)  # float logarithms miscount its brackets
@settings(deadline=None)
def test_any_schedule_follows_the_papers_formulas(max_epochs, factor, least):
    least = min(least, max_epochs)
    s_max = max(s for s in range(13) if least * Fraction(factor) ** s <= max_epochs)
    schedule = hyperband(max_epochs=max_epochs, factor=factor, min_epochs=least)
    assert schedule.brackets[0].rungs[0].epochs >= least
    assert [bracket.bracket for bracket in schedule.brackets] == list(range(s_max, -1, -1))
    for bracket in schedule.brackets:
        s = bracket.bracket
        n = ceil(Fraction((s_max + 1) * factor**s, s + 1))
        assert len(bracket.rungs) == s + 1
        for i, rung in enumerate(bracket.rungs):
            assert rung.count == max(1, floor(n * Fraction(factor) ** -i))
            assert rung.epochs == floor(max_epochs * Fraction(factor) ** (i - s))
            assert rung.initial_epoch == (bracket.rungs[i - 1].epochs if i else 0)
        assert bracket.rungs[-1].epochs == max_epochs
        assert all(rung.epochs > rung.initial_epoch for rung in bracket.rungs)


@given(st.integers(1, 400), st.integers(2, 5), st.integers(1, 9))
@settings(deadline=None)
def test_a_budget_in_epochs_is_never_exceeded(epochs, factor, least):
    schedule = fit_to_budget(epochs, max_epochs=81, factor=factor, min_epochs=least)
    assert schedule.epochs <= epochs
    one_more = hyperband(
        max_epochs=schedule.max_epochs,
        factor=factor,
        min_epochs=min(least, schedule.max_epochs),
        iterations=schedule.brackets[-1].iteration + 2,
    )
    assert one_more.epochs > epochs


def test_budgets_are_read_in_epochs_and_in_time():
    assert budget_in_epochs("300epochs", None) == 300
    assert budget_in_epochs("2h", 10.0) == 720
    assert budget_in_epochs("90m", 60.0) == 90


@pytest.mark.parametrize("budget", ["2 hours", "-1h", "epochs", "1s"])
def test_a_budget_that_cannot_be_met_is_an_error_that_names_it(budget):
    with pytest.raises(ConfigurationError, match=budget):
        budget_in_epochs(budget, 10.0)


def test_the_plan_adds_up_and_says_what_is_new_and_what_continues():
    schedule = hyperband(max_epochs=9, factor=3)
    plan = schedule.plan(2.0)
    assert plan.configurations == 9 + 5 + 3
    assert plan.trials == 13 + 6 + 3
    assert plan.epochs == 9 + 6 + 6 + 15 + 6 + 27
    assert plan.estimated_seconds == 2.0 * plan.epochs
    (note,) = schedule.notes
    assert "17 trials are new; 5 (after →) continue" in note
    assert hyperband(max_epochs=2, factor=3).notes == ()


def test_a_schedule_continues_what_is_its_beginning():
    once, twice = (hyperband(max_epochs=9, factor=3, iterations=n) for n in (1, 2))
    assert continues(twice, once.brackets)
    assert continues(once, once.brackets)
    assert continues(once, ())
    assert not continues(once, twice.brackets)
    assert not continues(hyperband(max_epochs=10, factor=3), once.brackets)
    assert not continues(hyperband(max_epochs=9, factor=2), once.brackets)


def test_a_schedule_of_one_rung_continues_a_shorter_one_with_the_same_epochs():
    def random(trials, epochs=5):
        return full_budget(tuner="random", trials=trials, epochs=epochs)

    assert continues(random(9), random(4).brackets)
    assert not continues(random(4), random(9).brackets)
    assert not continues(random(9, epochs=6), random(4).brackets)
    # What Hyperband draws after its last bracket of one rung has its numbers already.
    grown = dataclasses.replace(random(9), brackets=random(9).brackets * 2)
    assert not continues(grown, random(4).brackets)
