"""Sources of configurations: none twice, none left out, and a Gaussian process with company."""

import keras_tuner as kt
import pytest
from threadpoolctl import threadpool_info

from search.tuning import sources
from search.tuning import space as spaces
from search.tuning.sources import AdvisedSource, DrawnSource, ListedSource


def finite(values: int) -> kt.HyperParameters:
    new = kt.HyperParameters()
    new.Choice("units", list(range(values)), default=0)
    new.Boolean("flip", default=False)
    return new


def endless() -> kt.HyperParameters:
    new = kt.HyperParameters()
    new.Choice("units", [16, 32, 64], default=32)
    new.Choice("activation", ["relu", "gelu"], default="relu")
    new.Float("rate", 1e-4, 1e-1, sampling="log", default=1e-2)
    return new


def score(values: dict) -> float:
    return abs(values["units"] - 32) / 64 + values["rate"]


def advised(*, queue=None, trials=9) -> AdvisedSource:
    found = endless()
    queue = [spaces.defaults(found)] if queue is None else queue
    return AdvisedSource(found, queue=queue, seed=3, trials=trials)


def drawn(kind: str) -> DrawnSource | AdvisedSource:
    found = finite(5)
    queue = [spaces.defaults(found)]
    if kind == "listed":
        return ListedSource(found, queue=queue)
    if kind == "advised":
        return AdvisedSource(found, queue=queue, seed=3, trials=10)
    return DrawnSource(found, queue=queue, seed=3)


@pytest.mark.parametrize("kind", ["drawn", "listed", "advised"])
def test_every_source_gives_all_of_a_finite_space_and_then_no_more(kind, monkeypatch):
    # One draw alone finds nothing new more often than not.
    monkeypatch.setattr(sources, "MAX_DRAWS", 1)
    source = drawn(kind)
    found = []
    for number in range(10):
        values = source.values(number)
        source.observe(number, values, float(number))
        found.append(values)
    assert found[0] == {"units": 0, "flip": False}
    assert len({spaces.key(values) for values in found}) == 10
    assert source.values(10) is None


@pytest.mark.parametrize("late", [0, 3, 4])
def test_a_running_trial_is_guessed_and_never_given_the_score_of_another(late, monkeypatch):
    source = advised()
    for number in range(6):
        values = source.values(number)
        if number not in (late, 5):
            source.observe(number, values, score(values))
    learned, threads = [], set()
    fit = source._oracle.gpr.fit

    def spy(x, y):
        learned.append(list(y))
        threads.update(pool["num_threads"] for pool in threadpool_info())
        return fit(x, y)

    monkeypatch.setattr(source._oracle.gpr, "fit", spy)
    assert source.values(6) is not None
    scores = [score(source.values(n)) for n in range(5) if n != late]
    known, guessed = learned
    assert known == scores
    assert len(guessed) == 6
    assert guessed[late] not in scores
    assert guessed[5] not in scores
    assert threads == {1}, "the cores are the workers'"


def test_what_is_proposed_beside_running_trials_is_proposed_again_after_a_kill():
    whole, resumed = advised(), advised()
    for number in range(7):
        values = whole.values(number)
        resumed.restore(number, values)
        if number < 5:
            whole.observe(number, values, score(values))
            resumed.observe(number, values, score(values))
    assert resumed.values(7) == whole.values(7)


def test_a_queued_value_that_is_not_listed_is_learned_from_as_the_nearest_and_kept():
    queued = {"units": 100, "activation": "tanh", "rate": 0.0}
    source = advised(queue=[spaces.defaults(endless()), queued])
    again = advised(queue=[spaces.defaults(endless()), queued])
    for number in range(7):
        values = source.values(number)
        again.restore(number, values)
        for one in (source, again):
            one.observe(number, values, score(values))
    assert source.values(1) == queued
    assert again.values(7) == source.values(7)


def test_a_longer_bayesian_search_of_a_finite_space_repeats_nothing():
    first = drawn("advised")
    found = finite(5)
    longer = AdvisedSource(found, queue=[spaces.defaults(found)], seed=3, trials=30)
    for number in range(7):
        values = first.values(number)
        first.observe(number, values, float(number % 3))
        longer.restore(number, values)
        longer.observe(number, values, float(number % 3))
    more = [longer.values(number) for number in range(10)]
    assert len({spaces.key(values) for values in more}) == 10
