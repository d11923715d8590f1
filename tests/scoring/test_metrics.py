import math
import warnings

import numpy as np
import pytest
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


def random_case(seed, n=300, digits=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    said = np.clip(np.round(rng.normal(0.4 + 0.2 * labels, 0.25), digits), 0, 1)
    return labels, said


@pytest.mark.parametrize("digits", [1, 2, 12], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_metrics_agree_with_scikit_learn(seed, digits):
    labels, said = random_case(seed, digits=digits)
    found = ranking_metrics(labels, said)
    theirs = {
        "auc": sk.roc_auc_score(labels, said),
        "average_precision": sk.average_precision_score(labels, said),
        "loss": sk.log_loss(labels, np.clip(said, 1e-7, 1 - 1e-7)),
        "brier": sk.brier_score_loss(labels, said),
    }
    assert {name: found[name] for name in theirs} == pytest.approx(theirs)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_threshold_metrics_agree_with_scikit_learn_and_a_tie_counts_as_ill(threshold):
    labels, said = random_case(7)
    called = (said >= threshold).astype(int)
    assert (said == threshold).any()
    theirs = {
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "recall": sk.recall_score(labels, called),
        "specificity": sk.recall_score(labels, called, pos_label=0),
        "precision": sk.precision_score(labels, called, zero_division=np.nan),
        "npv": sk.precision_score(labels, called, pos_label=0, zero_division=np.nan),
        "f1": sk.f1_score(labels, called),
    }
    assert threshold_metrics(labels, said, threshold) == pytest.approx(theirs, nan_ok=True)
    found = confusion(labels, said, threshold)
    cells = [found[name] for name in ("tn", "fp", "fn", "tp")]
    assert cells == sk.confusion_matrix(labels, called).ravel().tolist()


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


@pytest.mark.parametrize(
    ("labels", "undefined"),
    [
        ([1, 1], {"specificity", "balanced_accuracy", "auc"}),
        ([0, 0], {"recall", "balanced_accuracy", "auc", "average_precision"}),
        ([], None),
    ],
    ids=["all ill", "all well", "no images"],
)
def test_metrics_of_an_absent_class_are_nan_without_a_warning(labels, undefined):
    labels, said = np.array(labels), np.array([0.2, 0.8])[: len(labels)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {**threshold_metrics(labels, said, 0.5), **ranking_metrics(labels, said)}
    wanted = set(found) if undefined is None else undefined
    assert {name for name, value in found.items() if math.isnan(value)} == wanted


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
    equal = McNemar(only_winner_right=0, only_baseline_right=0, p_value=1.0)
    assert mcnemar(labels, first, first) == equal
