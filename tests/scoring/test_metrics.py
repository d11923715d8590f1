import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from search.records import McNemar
from search.scoring.metrics import (
    confusion,
    mcnemar,
    ranking_metrics,
    threshold_metrics,
    weighted_ranking_metrics,
    weighted_threshold_metrics,
)

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
SAID = np.array([0.1, 0.2, 0.5, 0.9, 0.1, 0.5, 0.6, 0.7, 0.8, 0.95])


def random_case(seed, n=300, digits=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    said = np.clip(np.round(rng.normal(0.4 + 0.2 * labels, 0.25), digits), 0, 1)
    return labels, said


def test_hand_made_case_at_one_half_counts_a_tie_with_the_threshold_as_ill():
    assert confusion(LABELS, SAID, 0.5) == {"tn": 2, "fp": 2, "fn": 1, "tp": 5}
    found = threshold_metrics(LABELS, SAID, 0.5)
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["recall"] == pytest.approx(5 / 6)
    assert found["specificity"] == pytest.approx(0.5)
    assert found["balanced_accuracy"] == pytest.approx((5 / 6 + 0.5) / 2)
    assert found["precision"] == pytest.approx(5 / 7)
    assert found["npv"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(10 / 13)


@pytest.mark.parametrize("digits", [1, 2, 12], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_metrics_agree_with_scikit_learn(seed, digits):
    labels, said = random_case(seed, digits=digits)
    found = ranking_metrics(labels, said)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(labels, said))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(labels, said))
    assert found["loss"] == pytest.approx(sk.log_loss(labels, np.clip(said, 1e-7, 1 - 1e-7)))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(labels, said))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_threshold_metrics_agree_with_scikit_learn(threshold):
    labels, said = random_case(7)
    called = (said >= threshold).astype(int)
    found = threshold_metrics(labels, said, threshold)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, called))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, called))
    assert found["recall"] == pytest.approx(sk.recall_score(labels, called))
    assert found["specificity"] == pytest.approx(sk.recall_score(labels, called, pos_label=0))
    assert found["f1"] == pytest.approx(sk.f1_score(labels, called))
    if called.any():
        assert found["precision"] == pytest.approx(sk.precision_score(labels, called))


def test_weights_mean_the_same_as_repeating_images():
    labels, said = random_case(11, n=60, digits=1)
    counts = np.random.default_rng(0).integers(0, 4, (5, 60))
    by_weight = {
        **weighted_ranking_metrics(labels, said, counts.astype(float)),
        **weighted_threshold_metrics(labels, said, 0.45, counts.astype(float)),
    }
    for row, repeats in enumerate(counts):
        again = np.repeat(labels, repeats), np.repeat(said, repeats)
        plain = {**ranking_metrics(*again), **threshold_metrics(*again, 0.45)}
        assert {k: v[row] for k, v in by_weight.items()} == pytest.approx(plain)


def test_calibration_error_of_a_case_computed_by_hand():
    # Bin 0.2–0.3: mean probability 0.25, share 0.5; bin 0.9–1.0: 0.95 and 1; weights 2/4 each.
    labels, said = [0, 1, 1, 1], [0.22, 0.28, 0.9, 1.0]
    found = ranking_metrics(np.array(labels), np.array(said))["expected_calibration_error"]
    assert found == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)


def test_probabilities_of_exactly_zero_and_one_give_a_finite_loss():
    loss = ranking_metrics(np.array([1, 0]), np.array([0.0, 1.0]))["loss"]
    assert loss == pytest.approx(-math.log(1e-7), rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "undefined"),
    [
        ([1, 1], {"specificity", "balanced_accuracy", "auc"}),
        ([0, 0], {"recall", "balanced_accuracy", "auc", "average_precision"}),
    ],
    ids=["all ill", "all well"],
)
def test_metrics_of_an_absent_class_are_nan_without_a_warning(labels, undefined):
    labels, said = np.array(labels), np.array([0.2, 0.8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {**threshold_metrics(labels, said, 0.5), **ranking_metrics(labels, said)}
    assert {name for name, value in found.items() if math.isnan(value)} == undefined


def test_no_images_at_all_give_nan_everywhere():
    nothing = np.array([])
    found = {**threshold_metrics(nothing, nothing, 0.5), **ranking_metrics(nothing, nothing)}
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 1], [0.5]), ([0, 2], [0.5, 0.5]), ([0, 1], [0.5, 1.1]), ([0, 1], [0.5, math.nan])],
)
def test_what_is_no_label_or_probability_is_refused(labels, said):
    with pytest.raises(ValueError, match=r"labels|probabilities"):
        ranking_metrics(np.array(labels), np.array(said))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 64)), min_size=1, max_size=30))
def test_swapping_the_classes_mirrors_the_metrics(pairs):
    labels, said = (np.array(column) for column in zip(*pairs, strict=True))
    auc = ranking_metrics(labels, said / 64)["auc"]
    mirrored = ranking_metrics(1 - labels, 1 - said / 64)["auc"]
    assert auc == pytest.approx(mirrored, nan_ok=True)


def test_mcnemar_agrees_with_the_exact_binomial_test():
    labels, first = random_case(1, n=500)
    _, second = random_case(2, n=500)
    found = mcnemar(labels, first, second, thresholds=(0.4, 0.6))
    right = (first >= 0.4) == labels
    other = (second >= 0.6) == labels
    assert found.only_winner_right == np.sum(right & ~other)
    assert found.only_baseline_right == np.sum(~right & other)
    n = found.only_winner_right + found.only_baseline_right
    fewer = min(found.only_winner_right, found.only_baseline_right)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_of_equal_decisions_is_one():
    found = mcnemar(LABELS, SAID, SAID)
    assert found == McNemar(only_winner_right=0, only_baseline_right=0, p_value=1.0)
