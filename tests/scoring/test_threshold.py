import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import ConfigurationError, DataError
from search.scoring.metrics import threshold_metrics
from search.scoring.threshold import choose_threshold

ON = "validation (n = 8)"

# Few distinct values make ties, single-precision values what a network gives.
PROBABILITIES = st.one_of(
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1, width=32), st.floats(0, 1)
)


@st.composite
def both_classes(draw):
    ill = draw(st.lists(PROBABILITIES, min_size=1, max_size=20))
    well = draw(st.lists(PROBABILITIES, min_size=1, max_size=20))
    return np.array([1] * len(ill) + [0] * len(well)), np.array(ill + well)


def every_threshold(said):
    """One threshold for each set of decisions that any threshold can give."""
    return [*np.unique(said), math.nextafter(said.max(), math.inf)]


@pytest.mark.parametrize(
    ("rule", "labels", "said", "value", "reached"),
    [
        ("sensitivity=0.75", [0, 1, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.8, 0.9], 0.45, 0.75),
        ("specificity=0.75", [0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.5, 0.9, 0.6, 0.95], 0.55, 0.75),
        ("sensitivity=0.95", [1] * 20 + [0], [*np.linspace(0.1, 2, 20) / 2, 0.01], 0.075, 0.95),
        ("youden", [0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9], 0.5, 1),
        ("0.5", [0, 1], [0.7, 0.9], 0.5, 0.5),
    ],
)
def test_a_threshold_lies_midway_between_the_last_that_counts_and_the_next(
    rule, labels, said, value, reached
):
    found = choose_threshold(np.array(labels), np.array(said), rule, chosen_on=ON)
    assert (found.value, found.reached) == pytest.approx((value, reached))
    assert (found.rule, found.chosen_on) == (rule, ON)


def test_a_false_alarm_of_probability_one_can_still_be_avoided():
    found = choose_threshold(
        np.array([0, 0, 1]), np.array([1.0, 0.2, 1.0]), "specificity=0.9", chosen_on=ON
    )
    assert found.value > 1
    assert found.reached == 1


def test_neighbouring_floating_point_numbers_are_told_apart():
    low = 0.3
    high = math.nextafter(low, 1)
    found = choose_threshold(np.array([0, 1]), np.array([low, high]), "sensitivity=1", chosen_on=ON)
    assert low < found.value <= high


@pytest.mark.parametrize(
    ("kind", "metric", "sign"), [("sensitivity", "recall", 1), ("specificity", "specificity", -1)]
)
@settings(max_examples=200, deadline=None)
@given(case=both_classes(), percent=st.integers(1, 100))
def test_no_threshold_further_from_the_other_class_reaches_what_was_asked_for(
    kind, metric, sign, case, percent
):
    labels, said = case
    found = choose_threshold(labels, said, f"{kind}={percent / 100}", chosen_on=ON)
    reached = threshold_metrics(labels, said, found.value)[metric]
    assert reached == pytest.approx(found.reached)
    assert reached >= percent / 100 - 1e-9
    for other in (t for t in every_threshold(said) if sign * t > sign * found.value):
        value = threshold_metrics(labels, said, other)[metric]
        assert value == reached or value < percent / 100 - 1e-9


@settings(max_examples=200, deadline=None)
@given(both_classes())
def test_no_other_threshold_has_a_larger_youden_index(case):
    labels, said = case
    found = choose_threshold(labels, said, "youden", chosen_on=ON)

    def index(threshold):
        at = threshold_metrics(labels, said, threshold)
        return at["recall"] + at["specificity"] - 1

    assert index(found.value) == pytest.approx(found.reached)
    assert found.reached >= max(index(t) for t in every_threshold(said)) - 1e-9


@pytest.mark.parametrize(
    ("rule", "labels"),
    [("sensitivity=0.9", [0, 0]), ("specificity=0.9", [1, 1]), ("youden", [1, 1])],
)
def test_a_rule_without_the_class_it_needs_is_refused(rule, labels):
    with pytest.raises(DataError, match=f"{rule}.*no (negative|positive) image in {ON[:5]}"):
        choose_threshold(np.array(labels), np.array([0.1, 0.9]), rule, chosen_on=ON)


@pytest.mark.parametrize("rule", ["", "0.6", "sensitivity=2", "sensitivity", "recall=0.9"])
def test_an_unknown_rule_is_refused(rule):
    with pytest.raises(ConfigurationError, match="must be youden"):
        choose_threshold(np.array([0, 1]), np.array([0.1, 0.9]), rule, chosen_on=ON)
