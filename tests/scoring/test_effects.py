"""What can be said of a change: differences, intervals, answers."""

import math

import numpy as np
import pytest
from search.scoring.effects import TEST_METRICS, Answer, answer, over_patients, over_seeds, scores

from search.records import Estimate


def test_the_interval_over_seeds_is_students():
    # 2.5, 3.5, 4.5: standard deviation 1, t of 2 degrees of freedom 4.3027.
    found = over_seeds([2.5, 3.5, 4.5])
    assert found.value == pytest.approx(3.5)
    assert found.high - found.value == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_one_seed_has_no_interval_and_decides_nothing():
    found = over_seeds([0.2])
    assert math.isnan(found.low)
    assert answer("loss", [found]) is Answer.UNDECIDED
    with pytest.raises(ValueError, match="pair"):
        over_seeds([])


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("robust_loss", -0.3, -0.1, Answer.HELPS),
        ("robust_loss", 0.1, 0.3, Answer.HURTS),
        ("robust_loss", -0.1, 0.3, Answer.UNDECIDED),
        ("auc", 0.1, 0.3, Answer.HELPS),
        ("auc", -0.3, -0.1, Answer.HURTS),
        ("auc", 0.0, 0.3, Answer.UNDECIDED),
    ],
)
def test_a_change_helps_or_hurts_where_its_interval_excludes_0(metric, low, high, expected):
    assert answer(metric, [Estimate(value=(low + high) / 2, low=low, high=high)]) is expected


def test_every_interval_must_agree():
    sure = Estimate(value=0.2, low=0.1, high=0.3)
    unsure = Estimate(value=0.2, low=-0.1, high=0.5)
    assert answer("auc", [sure, sure]) is Answer.HELPS
    assert answer("auc", [sure, unsure]) is Answer.UNDECIDED


@pytest.fixture
def images():
    drawn = np.random.default_rng(0)
    labels = np.arange(60) % 2
    base = np.clip(0.5 + (labels - 0.5) * 0.2 + drawn.normal(0, 0.2, (2, 60)), 0.02, 0.98)
    return labels, base, [f"p{i // 2}" for i in range(60)]


def test_over_patients_gives_the_mean_difference_of_the_pairs(images):
    labels, base, patients = images
    better = np.clip(base + (labels - 0.5) * 0.3, 0.01, 0.99)
    cuts = ([0.5, 0.5], [0.3, 0.7])
    found = over_patients(labels, better, base, patients, thresholds=cuts, repeats=200, seed=8)
    expected = [
        scores(labels, one, 0.5)["loss"] - scores(labels, other, cut)["loss"]
        for one, other, cut in zip(better, base, cuts[1], strict=True)
    ]
    assert set(found) == set(TEST_METRICS)
    assert found["loss"].value == pytest.approx(np.mean(expected))
    assert found["loss"].low < found["loss"].value < found["loss"].high < 0
    assert answer("loss", [found["loss"]]) is Answer.HELPS
    assert answer("auc", [found["auc"]]) is Answer.HELPS
    assert found["accuracy_at_threshold"].value != found["accuracy"].value


def test_no_change_is_no_difference(images):
    labels, base, patients = images
    cuts = ([0.5, 0.5], [0.5, 0.5])
    found = over_patients(labels, base, base, patients, thresholds=cuts, repeats=50, seed=8)
    assert {(one.value, one.low, one.high) for one in found.values()} == {(0.0, 0.0, 0.0)}
    with pytest.raises(ValueError, match="no pairs"):
        over_patients(labels, base, base[:1], patients, thresholds=cuts, repeats=5, seed=8)
