"""Configuration: the documented values are the defaults, and wrong values are named."""

from __future__ import annotations

import math
import re

import pytest

from hypermodels import DOCUMENTED, Configuration


def test_defaults_are_the_documented_values():
    assert Configuration() == DOCUMENTED
    assert DOCUMENTED.dense_layers == 3
    assert DOCUMENTED.dense_units == (512, 128, 64)
    assert DOCUMENTED.dense_dropout == (0.7, 0.5, 0.3)
    assert (DOCUMENTED.learning_rate, DOCUMENTED.batch_size) == (1e-3, 16)


@pytest.mark.parametrize(
    ("error", "field", "value"),
    [
        (ValueError, "base_filters", 0),
        (ValueError, "activation", "tanh"),
        (ValueError, "conv_dropout", 1.0),
        (ValueError, "head", "attention"),
        (ValueError, "dense_units", (512, 128, 0)),
        (ValueError, "dense_units", ()),
        (ValueError, "dense_units", (8, 8, 8, 8)),
        (ValueError, "dense_dropout", (0.5,)),
        (ValueError, "dense_dropout", (0.5, 0.5, 1.0)),
        (ValueError, "crop_min_area", 0.0),
        (ValueError, "tone_jitter", 0.5),
        (ValueError, "rotation", -1.0),
        (ValueError, "noise", -0.1),
        (ValueError, "learning_rate", 0.0),
        (ValueError, "learning_rate", math.nan),
        (ValueError, "schedule", "linear"),
        (ValueError, "weight_decay", -1e-3),
        (ValueError, "label_smoothing", 1.0),
        (ValueError, "batch_size", 0),
        (TypeError, "base_filters", 16.0),
        (TypeError, "batch_size", True),
        (TypeError, "separable", 1),
        (TypeError, "flip", "no"),
        (TypeError, "dense_units", 512),
        (TypeError, "dense_dropout", [0.5]),
        (TypeError, "learning_rate", "0.1"),
        (TypeError, "noise", None),
    ],
)
def test_value_out_of_range_or_of_the_wrong_type_is_named_with_its_field(error, field, value):
    # Of three dense layers the one that is wrong.
    wrong = value[-1] if isinstance(value, tuple) and len(value) == 3 else value
    with pytest.raises(error, match=re.escape(f"{field}={wrong!r}: must")):
        Configuration(**{field: value})
