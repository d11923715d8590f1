"""Sources of configurations: none twice, none left out, and a Gaussian process with company."""

import keras_tuner as kt
import pytest
from threadpoolctl import threadpool_info

from search.tuning import proposals
from search.tuning import space as spaces
from search.tuning.proposals import BayesianSource, GridSource, PriorSource, UniformSource
from search.tuning.space import Belief


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


OPTIONS = {
    UniformSource: {"seed": 3},
    GridSource: {},
    PriorSource: {"seed": 3, "prior": {}, "levels": (1,) * 40, "factor": 3, "max_epochs": 9},
    BayesianSource: {"seed": 3, "trials": 10},
}


def source_of(kind: type, found: kt.HyperParameters, **options):
    queue = [spaces.defaults(found)]
    return kind(found, **{"queue": queue, **OPTIONS[kind], **options})


def advised(**options) -> BayesianSource:
    return source_of(BayesianSource, endless(), **options)


@pytest.mark.parametrize("kind", [UniformSource, GridSource, BayesianSource])
def test_every_source_gives_all_of_a_finite_space_and_then_no_more(kind, monkeypatch):
    # One draw alone finds nothing new more often than not.
    monkeypatch.setattr(proposals, "MAX_DRAWS", 1)
    source = source_of(kind, finite(5))
    found = []
    for number in range(10):
        values = source.values(number)
        source.observe(number, values, float(number), epochs=1)
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
            source.observe(number, values, score(values), epochs=1)
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


def test_a_queued_value_that_is_not_listed_is_learned_from_as_the_nearest_and_kept():
    queued = {"units": 100, "activation": "tanh", "rate": 0.0}
    source = advised(queue=[spaces.defaults(endless()), queued])
    again = advised(queue=[spaces.defaults(endless()), queued])
    for number in range(7):
        values = source.values(number)
        again.restore(number, values)
        for one in (source, again):
            one.observe(number, values, score(values), epochs=1)
    assert source.values(1) == queued
    assert again.values(7) == source.values(7)


PRIOR = {"units": Belief(value=64), "activation": Belief(value="gelu"), "rate": Belief(value=1e-3)}


def prior_source(**options) -> PriorSource:
    return source_of(PriorSource, endless(), **{"prior": PRIOR, **options})


# A belief of spread 0.25 in one of two values means 7 of 8 draws.
@pytest.mark.parametrize(("level", "share"), [(0, 0.6875), (2, 0.8375)])
def test_half_of_the_lowest_rungs_draws_are_around_the_prior_and_higher_ones_more(level, share):
    source = prior_source(levels=(level,) * 200)
    drawn = [source.values(number)["activation"] for number in range(1, 200)]
    assert drawn.count("gelu") / len(drawn) == pytest.approx(share, abs=0.08)


def test_an_incumbent_shares_the_draws_once_a_configuration_had_the_full_budget():
    source = prior_source(levels=(2,) * 200)
    incumbent = {"units": 16, "activation": "relu", "rate": 1e-4}
    for number, score_of in enumerate((0.1, 0.2, 0.3)):
        values = source.values(number)
        source.observe(number, values, score_of, epochs=3)
    assert source.incumbent is None
    source._known[0] = incumbent
    source.observe(0, incumbent, 0.05, epochs=9)
    assert source.incumbent == incumbent
    later = [source.values(number) for number in range(3, 200)]
    near = [values for values in later if values["activation"] == "relu"]
    assert len(near) > 0.3 * len(later)  # 0.16 without it


@pytest.mark.parametrize(("make", "observed"), [(advised, 5), (prior_source, 8)])
def test_what_is_proposed_is_proposed_again_after_a_kill_also_beside_running_trials(make, observed):
    whole, resumed = make(), make()
    for number in range(8):
        values = whole.values(number)
        resumed.restore(number, values)
        if number < observed:
            for source in (whole, resumed):
                source.observe(number, values, score(values), epochs=9)
    assert resumed.values(8) == whole.values(8)


def test_a_configuration_of_another_space_is_not_restored():
    with pytest.raises(ValueError, match="not in the space"):
        prior_source().restore(1, {"units": 16, "activation": "relu"})


def test_a_prior_may_name_hyperparameters_that_are_held():
    prior = {**PRIOR, "held": Belief(value=1)}
    assert prior_source(prior=prior).values(3).keys() == {"units", "activation", "rate"}


@pytest.mark.parametrize("kind", OPTIONS)
def test_what_is_not_accepted_is_drawn_again_and_the_queue_is_left_alone(kind):
    queue = [{"units": 19, "flip": True}]
    source = source_of(kind, finite(20), queue=queue, accepts=lambda values: values["units"] < 10)
    units = []
    for number in range(9):
        values = source.values(number)
        source.observe(number, values, float(number), epochs=1)
        units.append(values["units"])
    assert units[0] == 19
    assert max(units[1:]) < 10
