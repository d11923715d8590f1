"""Clean, stressed and robust metrics from probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss

from search.tuning.validation import above_chance, log_loss, validation_metrics

LABELS = np.array([0, 0, 1, 1])
GOOD = np.array([0.1, 0.2, 0.8, 0.9])
BAD = np.array([0.6, 0.7, 0.4, 0.3])


def metrics(clean, stressed, view, prevalence=0.5):
    return validation_metrics(
        clean, LABELS, stressed, np.tile(LABELS, 2), np.array(view), prevalence=prevalence
    )


def test_robust_metrics_are_those_of_the_worst_view_or_of_the_clean_images():
    found = metrics(GOOD, np.concatenate([GOOD, BAD]), [0] * 4 + [1] * 4)
    assert found["robust_loss"] == pytest.approx(log_loss(BAD, LABELS, 0.5))
    assert found["robust_auc"] == 0.0
    assert found["val_auc"] == 1.0
    assert found["stress_accuracy"] == 0.5
    found = metrics(BAD, np.concatenate([GOOD, GOOD]), [0] * 4 + [1] * 4)
    assert found["robust_loss"] == pytest.approx(found["val_loss"])


@given(st.floats(0.01, 0.99))
@settings(deadline=None)
def test_the_prior_weighs_the_classes_mean_losses(prevalence):
    labels = np.array([0, 1, 1, 1])
    weights = np.where(labels == 1, prevalence / 3, 1 - prevalence)
    expected = sklearn_log_loss(labels, GOOD, sample_weight=weights)
    assert log_loss(GOOD, labels, prevalence) == pytest.approx(expected)


def test_probabilities_that_are_not_finite_give_no_auc():
    broken = np.array([0.1, np.nan, 0.8, 0.9])
    found = metrics(broken, np.concatenate([GOOD, GOOD]), [0] * 4 + [1] * 4)
    assert np.isnan(found["val_auc"])
    assert np.isnan(found["robust_loss"])


def test_recall_specificity_and_precision_are_at_one_half():
    found = metrics(np.array([0.6, 0.2, 0.5, 0.9]), np.concatenate([GOOD, GOOD]), [0] * 8)
    assert found["val_recall"] == 1.0
    assert found["val_specificity"] == 0.5
    assert found["val_precision"] == pytest.approx(2 / 3)


def test_a_ranking_is_above_chance_by_more_than_its_standard_error():
    labels = np.array([0] * 268 + [1] * 775)
    assert not above_chance(0.5, labels)
    assert not above_chance(0.52, labels)
    assert above_chance(0.522, labels)
    assert not above_chance(0.1, labels)
