"""Configuration: the documented values are the defaults, and wrong values are named."""

from __future__ import annotations

import dataclasses
import math

import pytest

from hypermodels import DOCUMENTED, Configuration


def test_defaults_are_the_documented_values():
    assert Configuration() == DOCUMENTED
    assert DOCUMENTED.dense_layers == 3
    assert DOCUMENTED.dense_units == (512, 128, 64)
    assert DOCUMENTED.dense_dropout == (0.7, 0.5, 0.3)
    assert (DOCUMENTED.learning_rate, DOCUMENTED.batch_size) == (1e-3, 16)


def test_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DOCUMENTED.batch_size = 32


@pytest.mark.parametrize(
    "change",
    [
        {"base_filters": 0},
        {"activation": "tanh"},
        {"conv_dropout": 1.0},
        {"head": "attention"},
        {"dense_units": (512, 128, 0)},
        {"dense_units": ()},
        {"dense_units": (8, 8, 8, 8)},
        {"dense_dropout": (0.5,)},
        {"dense_dropout": (0.5, 0.5, 1.0)},
        {"crop_min_area": 0.0},
        {"tone_jitter": 0.5},
        {"rotation": -1.0},
        {"noise": -0.1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"schedule": "linear"},
        {"weight_decay": -1e-3},
        {"label_smoothing": 1.0},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_value_out_of_range_is_named_with_its_field(change):
    ((field, value),) = change.items()
    with pytest.raises(ValueError, match=field) as error:
        Configuration(**change)
    wrong = value[-1] if isinstance(value, tuple) and len(value) == 3 else value
    assert f"{field}={wrong!r}: must" in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"base_filters": 16.0},
        {"batch_size": True},
        {"separable": 1},
        {"flip": "no"},
        {"dense_units": 512},
        {"dense_dropout": [0.5]},
        {"learning_rate": "0.1"},
        {"noise": None},
    ],
    ids=str,
)
def test_value_of_the_wrong_type_is_named_with_its_field(change):
    ((field, value),) = change.items()
    with pytest.raises(TypeError, match=field) as error:
        Configuration(**change)
    assert repr(value) in str(error.value)
