"""Curves with their bands, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk
from tiny import make_predictions

from search.scoring.curves import GRID, calibration_bins, roc_band, wilson


def drawn(n=200, patients=None, seed=0, digits=2):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 > 0).astype(np.int8)
    said = np.round(np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1), digits)
    return make_predictions(labels, said, patients or [f"p{i // 2}" for i in range(n)])


def roc(predictions, **options):
    return roc_band(predictions, **{"repeats": 100, "seed": 0, **options})


def test_the_roc_is_that_of_scikit_learn_also_with_ties():
    predictions = drawn()
    band = roc(predictions)
    x, y, _ = sk.roc_curve(predictions.labels, predictions.probabilities, drop_intermediate=False)
    last = np.append(np.diff(x) > 0, True)
    assert band.value == pytest.approx(np.interp(GRID, x[last], y[last]))
    assert band.value[-1] == 1


def test_bands_enclose_their_curve_nearly_everywhere_and_never_leave_the_square():
    band = roc(drawn())
    value, low, high = (np.array(v) for v in (band.value, band.low, band.high))
    assert (low <= high).all()
    assert low.min() >= 0
    assert high.max() <= 1
    assert np.mean((low <= value) & (value <= high)) > 0.95
    assert (high - low)[30:70].max() > 0.02


def test_fewer_patients_of_the_same_films_are_less_certain():
    # Five films of every child, all alike, as if of as many children and as what they are.
    once = drawn(n=40)
    labels, said = np.tile(once.labels, 5), np.tile(once.probabilities, 5)
    many = roc(make_predictions(labels, said, [f"p{i}" for i in range(200)]))
    few = roc(make_predictions(labels, said, [f"p{i % 40}" for i in range(200)]))
    width = [np.mean(np.array(b.high) - np.array(b.low)) for b in (many, few)]
    assert many.value == few.value
    assert width[1] > 1.5 * width[0]


def test_one_class_has_no_curves():
    assert roc(make_predictions([1, 1], [0.3, 0.6])) is None


def test_bins_are_those_of_the_calibration_error():
    bins = calibration_bins(make_predictions([0, 1, 1, 1], [0.1, 0.19, 0.95, 1.0]))
    assert [count for count, _, _ in bins] == [2, 2]
    assert [probability for _, probability, _ in bins] == pytest.approx([0.145, 0.975])
    assert [share.value for _, _, share in bins] == [0.5, 1]


def test_wilsons_interval_is_the_published_one():
    # Newcombe, Statistics in Medicine 17, 1998, table I: 81/263 and 0/20.
    found = wilson(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    none = wilson(0, 20)
    assert none.low == 0
    assert none.high == pytest.approx(0.1611, abs=1e-4)
    every = wilson(20, 20)
    assert every.high == 1
    assert every.low == pytest.approx(1 - none.high)
