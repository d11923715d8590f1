"""Curves with their bands, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk
from tiny import make_predictions

from search.scoring.bootstrap import bootstrap_intervals
from search.scoring.curves import GRID, calibration_bins, score_curves, wilson
from search.scoring.metrics import PREVALENCES, npv_at_prevalence, ppv_at_prevalence


def drawn(n=200, patients=None, seed=0, digits=2):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 > 0).astype(np.int8)
    said = np.round(np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1), digits)
    return make_predictions(labels, said, patients or [f"p{i // 2}" for i in range(n)])


def curves(predictions, **options):
    return score_curves(predictions, 0.4, **{"repeats": 100, "seed": 0, **options})


def test_the_roc_is_that_of_scikit_learn_also_with_ties():
    predictions = drawn()
    band = curves(predictions).roc
    x, y, _ = sk.roc_curve(predictions.labels, predictions.probabilities, drop_intermediate=False)
    last = np.append(np.diff(x) > 0, True)
    assert band.x == tuple(GRID.tolist())
    assert band.value == pytest.approx(np.interp(GRID, x[last], y[last]))
    assert band.value[-1] == 1


def test_precision_is_a_step_not_a_line():
    predictions = make_predictions([1, 0, 0, 1], [0.9, 0.8, 0.7, 0.6])
    band = curves(predictions).precision_recall
    assert band.value[0] == band.value[50] == 1
    assert band.value[51] == band.value[-1] == 0.5


def test_bands_enclose_their_curve_nearly_everywhere_and_never_leave_the_square():
    found = curves(drawn())
    for band in (found.roc, found.precision_recall):
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
    many = curves(make_predictions(labels, said, [f"p{i}" for i in range(200)])).roc
    few = curves(make_predictions(labels, said, [f"p{i % 40}" for i in range(200)])).roc
    width = [np.mean(np.array(b.high) - np.array(b.low)) for b in (many, few)]
    assert many.value == few.value
    assert width[1] > 1.5 * width[0]


def test_the_same_seed_gives_the_same_bands():
    assert curves(drawn()).roc == curves(drawn()).roc
    assert curves(drawn()).roc != curves(drawn(), seed=1).roc


def test_predictive_values_are_those_of_the_metrics_with_limits():
    predictions = drawn()
    called = predictions.probabilities >= 0.4
    rates = {
        "sensitivity": called[predictions.labels == 1].mean(),
        "specificity": 1 - called[predictions.labels == 0].mean(),
    }
    positive = ppv_at_prevalence(**rates, prevalences=PREVALENCES)
    negative = npv_at_prevalence(**rates, prevalences=PREVALENCES)
    found = curves(predictions).predictive_values
    assert [v.prevalence for v in found] == list(PREVALENCES)
    for v in found:
        key = f"{v.prevalence:g}"
        assert v.positive.value == pytest.approx(positive[key])
        assert v.negative.value == pytest.approx(negative[key])
        assert v.positive.low < v.positive.value < v.positive.high
        assert v.negative.low < v.negative.value < v.negative.high


def test_a_perfect_specificity_leaves_the_predictive_values_uncertain():
    # Ten healthy children with two films each; none is called ill. Six of eight ill ones are.
    labels = np.array([0] * 20 + [1] * 8)
    said = np.array([0.1] * 20 + [0.9] * 6 + [0.1] * 2)
    patients = [f"h{i // 2}" for i in range(20)] + [f"i{i}" for i in range(8)]
    rates = bootstrap_intervals(labels, said, patients, 0.4, repeats=1000, seed=0)
    sensitivity, specificity = rates["recall"].low, rates["specificity"].low
    assert specificity == 0.025 ** (1 / 10)  # Clopper and Pearson
    lowest = {"sensitivity": sensitivity, "specificity": specificity, "prevalences": PREVALENCES}
    positive, negative = ppv_at_prevalence(**lowest), npv_at_prevalence(**lowest)
    found = curves(make_predictions(labels, said, patients), repeats=1000).predictive_values
    for v in found:
        key = f"{v.prevalence:g}"
        assert (v.positive.value, v.positive.high) == (1, 1)
        assert v.positive.low == pytest.approx(positive[key], abs=1e-3)
        # The healthy share of those called healthy would fall with the specificity as well.
        assert v.negative.low == pytest.approx(negative[key], abs=1e-3)
        assert v.negative.low < v.negative.value < v.negative.high


def test_a_perfect_sensitivity_leaves_the_predictive_values_uncertain():
    labels, said = [1] * 20 + [0] * 10, [0.9] * 23 + [0.1] * 7
    found = curves(make_predictions(labels, said)).predictive_values
    for v in found:
        assert (v.negative.value, v.negative.high) == (1, 1)
        assert v.negative.low < 1


def test_predictive_values_of_nobody_are_undefined_and_have_no_limits():
    found = curves(make_predictions([1, 1, 0], [0.1, 0.2, 0.3])).predictive_values
    for v in found:
        assert np.isnan([v.positive.value, v.positive.low, v.positive.high]).all()
        assert np.isfinite([v.negative.low, v.negative.high]).all()


def test_one_class_has_no_curves():
    assert curves(make_predictions([1, 1], [0.3, 0.6])) is None


def test_bins_are_those_of_the_calibration_error():
    bins = calibration_bins(np.array([0, 1, 1, 1]), np.array([0.1, 0.19, 0.95, 1.0]))
    assert [b.count for b in bins] == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bins[1].low, bins[1].high) == (0.1, 0.2)
    assert bins[1].probability == pytest.approx(0.145)
    assert bins[1].share.value == 0.5
    assert np.isnan(bins[0].probability)
    assert np.isnan(bins[0].share.value)


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
