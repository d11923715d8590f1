"""Search spaces: narrowing, counting, listing, sampling."""

import keras_tuner as kt
import pytest

from search.errors import ConfigurationError
from search.tuning import space as spaces


@pytest.fixture
def space() -> kt.HyperParameters:
    new = kt.HyperParameters()
    new.Choice("layers", [1, 2], default=2)
    with new.conditional_scope("layers", [2]):
        new.Choice("units", [16, 32, 64], default=32)
    new.Boolean("flip", default=False)
    return new


def test_the_listing_holds_every_active_combination_once_default_first(space):
    listed = list(spaces.configurations(space))
    assert listed[0] == {"layers": 2, "units": 32, "flip": False}
    assert len(listed) == (1 + 3) * 2 == spaces.size(space)
    assert len({spaces.key(values) for values in listed}) == len(listed)
    assert all(("units" in values) == (values["layers"] == 2) for values in listed)


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


def test_a_large_space_is_counted_without_a_walk_through_it():
    large = kt.HyperParameters()
    for number in range(40):
        large.Boolean(f"flag_{number}")
    assert spaces.size(large, limit=2**40) == 2**40
    assert spaces.size(large) is None


def test_a_space_contains_what_it_lists_and_nothing_else(space):
    listed = list(spaces.configurations(space))
    assert all(spaces.contains(space, values) for values in listed)
    for wrong in (
        {"layers": 2, "units": 17, "flip": False},
        {"layers": 1, "units": 16, "flip": False},
        {"layers": 2, "units": 16},
        {"layers": 1, "flip": False, "flop": 1},
    ):
        assert not spaces.contains(space, wrong)


def test_a_continuous_hyperparameter_makes_the_space_infinite(space):
    space.Float("rate", 1e-4, 1e-2, sampling="log")
    assert spaces.size(space) is None


def test_samples_are_reproducible_active_only_and_within_the_space(space):
    listed = {spaces.key(values) for values in spaces.configurations(space)}
    drawn = [spaces.sample(space, seed=str(number)) for number in range(50)]
    assert drawn == [spaces.sample(space, seed=str(number)) for number in range(50)]
    assert {spaces.key(values) for values in drawn} == listed


def test_fixing_and_varying_narrow_the_space(space):
    held = spaces.narrow(space, fix={"flip": "true"}, vary=("units",))
    listed = list(spaces.configurations(held))
    assert [values["units"] for values in listed] == [32, 16, 64]
    assert all(values["flip"] is True and values["layers"] == 2 for values in listed)


@pytest.mark.parametrize(
    ("fix", "said"),
    [
        ({"flop": "1"}, "flop"),
        ({"units": "17"}, "16, 32, 64"),
        ({"flip": "maybe"}, "flip=maybe: must be True, False"),
    ],
)
def test_a_wrong_fix_names_the_value_and_what_is_allowed(space, fix, said):
    with pytest.raises(ConfigurationError, match=said):
        spaces.narrow(space, fix=fix, vary=())


def test_varying_an_unknown_name_is_an_error(space):
    with pytest.raises(ConfigurationError, match="nonsense"):
        spaces.narrow(space, fix={}, vary=("nonsense",))


def test_completing_drops_inactive_values(space):
    assert spaces.complete(space, {"layers": 1, "units": 64}) == {"layers": 1, "flip": False}


def test_completing_knows_numbers_by_their_type(space):
    space.Float("rate", 0.0, 1.0, default=0.5)
    assert type(spaces.complete(space, {"rate": 0})["rate"]) is float
    for wrong in ({"rate": "fast"}, {"units": 16.0}, {"flip": 1}, {"layers": None}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            spaces.complete(space, wrong)


def test_trial_seeds_depend_on_run_and_configuration_only():
    values = {"a": 1, "b": 2.0}
    assert spaces.trial_seed(0, values) == spaces.trial_seed(0, {"b": 2.0, "a": 1})
    assert spaces.trial_seed(0, values) != spaces.trial_seed(1, values)
    assert spaces.trial_seed(0, values) != spaces.trial_seed(0, {"a": 1, "b": 3.0})
