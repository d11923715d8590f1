import math
import time

import numpy as np
import pytest
from tiny import make_predictions

from search.records import Estimate
from search.scoring.bootstrap import (
    MEAN_METRICS,
    Outcome,
    bootstrap_intervals,
    judge,
    over_seeds,
    paired_differences,
    subtype_recall,
)
from search.scoring.metrics import threshold_metrics


def case(seed, patients=200, films=1):
    """Films of one patient share their label and most of what the model says."""
    rng = np.random.default_rng(seed)
    labels = rng.random(patients) < 0.5
    said = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1)
    names = [f"p{i}" for i in range(patients) for _ in range(films)]
    return np.repeat(labels, films).astype(int), np.repeat(said, films), names


def intervals(labels, said, patients, cut=0.5, **options):
    return bootstrap_intervals(make_predictions(labels, said, patients), cut, **options)


def one_pair(labels, first, second, patients, **options):
    pair = ([(0.5, make_predictions(labels, said, patients))] for said in (first, second))
    return paired_differences(*pair, seed=0, **options)


def width(estimate):
    return estimate.high - estimate.low


def test_the_interval_of_the_accuracy_covers_its_true_value_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        labels = rng.integers(0, 2, 150)
        said = np.where(rng.random(150) < 0.8, labels, 1 - labels).astype(float)
        names = [str(i) for i in range(150)]
        found = intervals(labels, said, names, repeats=200, seed=seed)["accuracy"]
        covered += found.low <= 0.8 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_films_of_one_patient_count_as_one_observation():
    labels, said, patients = case(3, patients=60, films=6)
    by_patient = intervals(labels, said, patients, repeats=500, seed=0)
    alone = [str(i) for i in range(len(labels))]
    by_film = intervals(labels, said, alone, repeats=500, seed=0)
    for name in ("accuracy", "auc", "loss"):
        # Six copies of everything: the intervals by film are too narrow by about √6.
        assert 2.0 < width(by_patient[name]) / width(by_film[name]) < 3.0


def test_an_absent_class_gives_nan_and_leaves_the_other_metrics():
    found = intervals([1, 1, 1], [0.2, 0.6, 0.9], ["a", "b", "c"], seed=0)
    assert math.isnan(found["auc"].value)
    assert math.isnan(found["auc"].low)
    assert found["recall"].value == pytest.approx(2 / 3)


def test_subtypes_are_scored_apart_and_only_among_the_ill():
    labels = [1, 1, 1, 1, 0, 0]
    said = [0.9, 0.2, 0.8, 0.7, 0.9, 0.1]
    kinds = ["bacteria", "bacteria", "virus", "virus", "", "virus"]
    predictions = make_predictions(labels, said, subtypes=kinds)
    found = subtype_recall(predictions, 0.5, repeats=50, seed=0)
    assert found["bacteria"].value == pytest.approx(0.5)
    assert found["virus"].value == pytest.approx(1.0)
    unknown = make_predictions(labels, said)
    assert subtype_recall(unknown, 0.5, repeats=10, seed=0) == {}


def test_the_difference_over_seeds_is_the_mean_of_the_seeds_own():
    labels, said, patients = case(9)
    worse = np.stack([said, case(10)[1]])
    better = np.clip(worse + 0.05 * (2 * labels - 1), 0, 1)
    cuts = ((0.5, 0.4), (0.6, 0.5))
    networks = (
        [(cut, make_predictions(labels, said, patients)) for cut, said in zip(*side, strict=True)]
        for side in ((cuts[0], better), (cuts[1], worse))
    )
    found = paired_differences(*networks, repeats=50, seed=0)
    assert found.keys() == set(MEAN_METRICS)
    single = [
        threshold_metrics(labels, one, cut)["recall"]
        - threshold_metrics(labels, other, low)["recall"]
        for one, other, cut, low in zip(better, worse, *cuts, strict=True)
    ]
    recall = found["recall_at_threshold"]
    assert recall.over_patients.value == pytest.approx(np.mean(single))
    assert recall.over_seeds == over_seeds(single)
    assert judge("loss", found["loss"].over_patients) is Outcome.BETTER


def test_the_interval_over_seeds_is_students():
    found = over_seeds([1.0, 2.0, 3.0])
    assert (found.value, found.low) == (2.0, pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-4))
    assert math.isnan(over_seeds([1.0]).low)
    with pytest.raises(ValueError, match="no seed"):
        over_seeds([])


@pytest.mark.parametrize(
    ("metric", "intervals", "outcome"),
    [
        ("auc", [(0.01, 0.02)], Outcome.BETTER),
        ("loss", [(0.01, 0.02)], Outcome.WORSE),
        ("auc", [(0.01, 0.02), (-0.1, 0.1)], Outcome.UNDECIDED),
        ("auc", [(0.0, 0.02)], Outcome.UNDECIDED),
        ("auc", [(math.nan, math.nan)], Outcome.UNDECIDED),
        ("auc", [], Outcome.UNDECIDED),
    ],
)
def test_a_difference_is_judged_by_all_its_intervals(metric, intervals, outcome):
    found = [Estimate(value=(low + high) / 2, low=low, high=high) for low, high in intervals]
    assert judge(metric, *found) is outcome


def test_a_thousand_resamples_of_the_official_test_set_take_under_two_seconds():
    labels, said, patients = case(8, patients=312, films=2)
    start = time.perf_counter()
    intervals(labels, said, patients, repeats=1000, seed=0)
    assert time.perf_counter() - start < 2
