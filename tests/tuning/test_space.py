"""Search spaces: narrowing, counting, listing, sampling."""

import math
import random

import keras_tuner as kt
import pytest

from search.errors import ConfigurationError
from search.tuning import space as spaces
from search.tuning.space import Belief


@pytest.fixture
def space() -> kt.HyperParameters:
    new = kt.HyperParameters()
    new.Choice("layers", [1, 2], default=2)
    with new.conditional_scope("layers", [2]):
        new.Choice("units", [16, 32, 64], default=32)
    new.Boolean("flip", default=False)
    return new


def test_the_listing_holds_every_active_combination_once_default_first_and_nothing_else(space):
    listed = list(spaces.configurations(space))
    assert listed[0] == {"layers": 2, "units": 32, "flip": False}
    assert len(listed) == (1 + 3) * 2 == spaces.size(space)
    assert len({spaces.key(values) for values in listed}) == len(listed)
    assert all(("units" in values) == (values["layers"] == 2) for values in listed)
    assert all(spaces.contains(space, values) for values in listed)
    for wrong in (
        {"layers": 2, "units": 17, "flip": False},
        {"layers": 1, "units": 16, "flip": False},
        {"layers": 2, "units": 16},
        {"layers": 1, "flip": False, "flop": 1},
    ):
        assert not spaces.contains(space, wrong)


def test_what_is_counted_is_what_is_listed():
    nested = kt.HyperParameters()
    nested.Choice("layers", [1, 2, 3], default=3)
    for layer in (1, 2, 3):
        with nested.conditional_scope("layers", list(range(layer, 4))):
            nested.Choice(f"units_{layer}", [16, 32], default=16)
            nested.Boolean(f"drop_{layer}", default=False)
            with nested.conditional_scope(f"drop_{layer}", [True]):
                nested.Choice(f"rate_{layer}", [0.1, 0.2, 0.3], default=0.1)
    assert spaces.size(nested) == len(list(spaces.configurations(nested))) == 8 + 64 + 512


def test_a_large_space_is_counted_without_a_walk_through_it_and_a_continuous_one_is_infinite():
    large = kt.HyperParameters()
    for number in range(40):
        large.Boolean(f"flag_{number}")
    assert spaces.size(large, limit=2**40) == 2**40
    assert spaces.size(large) is None
    large.Float("rate", 1e-4, 1e-2, sampling="log")
    assert spaces.size(large, limit=2**60) is None


def test_samples_are_reproducible_active_only_and_within_the_space(space):
    listed = {spaces.key(values) for values in spaces.configurations(space)}
    drawn = [spaces.sample(space, seed=str(number)) for number in range(50)]
    assert drawn == [spaces.sample(space, seed=str(number)) for number in range(50)]
    assert {spaces.key(values) for values in drawn} == listed


@pytest.mark.parametrize("given", ["true", "on", "On", True])
def test_fixing_and_varying_narrow_the_space(space, given):
    held = spaces.narrow(space, fix={"flip": given}, vary=("units",))
    listed = list(spaces.configurations(held))
    assert [values["units"] for values in listed] == [32, 16, 64]
    assert all(values["flip"] is True and values["layers"] == 2 for values in listed)


@pytest.mark.parametrize(
    ("fix", "vary", "said"),
    [
        ({"flop": "1"}, (), "flop"),
        ({"units": "17"}, (), "16, 32, 64"),
        ({"flip": "maybe"}, (), "flip=maybe: must be on, off"),
        ({}, ("nonsense",), "nonsense"),
    ],
)
def test_what_cannot_be_fixed_or_varied_is_named_with_what_is_allowed(space, fix, vary, said):
    with pytest.raises(ConfigurationError, match=said):
        spaces.narrow(space, fix=fix, vary=vary)


def test_completing_drops_inactive_values_and_knows_numbers_by_their_type(space):
    assert spaces.complete(space, {"layers": 1, "units": 64}) == {"layers": 1, "flip": False}
    space.Float("rate", 0.0, 1.0, default=0.5)
    assert type(spaces.complete(space, {"rate": 0})["rate"]) is float
    for wrong in ({"rate": "fast"}, {"units": 16.0}, {"flip": 1}, {"layers": None}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            spaces.complete(space, wrong)


def test_values_from_outside_lie_in_the_range_of_each_hyperparameter(space):
    space.Float("rate", 0.1, 1.0, default=0.5)
    outside = [("rate", math.nan), ("rate", 1e9), ("rate", 0), ("layers", 4), ("layers", -(10**9))]
    for name, value in outside:
        assert spaces.complete(space, {name: value})
        with pytest.raises(ConfigurationError, match=f"{name}=.*: must be "):
            spaces.complete(space, {name: value}, inside=True)
    assert spaces.complete(space, {"rate": 1, "layers": 1}, inside=True)["rate"] == 1.0


def test_trial_seeds_depend_on_run_and_configuration_only():
    values = {"a": 1, "b": 2.0}
    assert spaces.trial_seed(0, values) == spaces.trial_seed(0, {"b": 2.0, "a": 1})
    assert spaces.trial_seed(0, values) != spaces.trial_seed(1, values)
    assert spaces.trial_seed(0, values) != spaces.trial_seed(0, {"a": 1, "b": 3.0})


def test_draws_around_a_belief_gather_at_its_value_and_stay_in_range():
    new = kt.HyperParameters()
    new.Choice("area", [0.2, 0.4, 0.6, 0.8, 1.0], default=1.0)
    new.Float("rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    new.Boolean("flip", default=False)
    prior = {
        "area": Belief(value=0.1),
        "rate": Belief(value=1e-3, spread=0.05),
        "flip": Belief(value=True, spread=0.0),
    }
    drawn = [spaces.sample_around(new, prior, random.Random(n)) for n in range(300)]
    areas = [values["area"] for values in drawn]
    assert areas.count(0.2) > areas.count(0.4) > areas.count(0.8)
    assert all(4e-4 < values["rate"] < 2.5e-3 for values in drawn)
    assert all(values["flip"] for values in drawn)


def test_the_centre_of_a_belief_is_a_configuration_of_a_narrowed_space_too():
    new = kt.HyperParameters()
    new.Choice("start", ["keras", "scaled"], default="keras")
    with new.conditional_scope("start", ["scaled"]):
        new.Boolean("norm", default=True)
    new.Choice("area", [0.2, 0.4], default=0.4)
    prior = {"start": Belief(value="scaled"), "area": Belief(value=0.1)}
    assert spaces.centre(new, prior) == {"start": "scaled", "norm": True, "area": 0.2}
    held = spaces.narrow(new, fix={}, vary=("area",))
    assert spaces.centre(held, prior) == {"start": "keras", "area": 0.2}


def test_without_a_belief_draws_and_likelihood_are_uniform_and_with_one_it_averages_to_one():
    new = kt.HyperParameters()
    new.Choice("activation", ["relu", "gelu", "silu"], default="relu")
    drawn = [spaces.sample_around(new, {}, random.Random(n))["activation"] for n in range(400)]
    assert all(100 < drawn.count(value) < 166 for value in ("relu", "gelu", "silu"))
    prior = {"activation": Belief(value="gelu", spread=0.3)}
    each = [spaces.likelihood(new, prior, {"activation": a}) for a in ("relu", "gelu", "silu")]
    assert sum(each) / 3 == pytest.approx(1)
    assert each[1] == pytest.approx(3 * 0.8)
    assert spaces.likelihood(new, {}, {"activation": "relu"}) == 1
