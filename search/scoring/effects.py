"""Whether one change to a configuration did anything: paired differences and their intervals.

Two kinds of chance are kept apart. Chance in training: both networks of a pair are trained with the
same seed, and the mean of the differences over S seeds has the interval of Student's t with S − 1
degrees of freedom ("The Probable Error of a Mean", Biometrika 6, 1908). With three seeds it is
wide, as it should be; with one there is none. Chance in who came to the test: children are drawn
with replacement, the same for all networks, and the mean difference over seeds is computed of every
draw, see `bootstrap`.

A change helps or hurts only where every interval lies on that side of 0; otherwise it can't be told
apart from no change, which does not mean that it has no effect. Pure: knows no network and no file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from search.config import direction
from search.records import Estimate
from search.scoring.bootstrap import REPEATS, estimate, patient_resamples
from search.scoring.metrics import (
    check_images,
    weighted_ranking_metrics,
    weighted_threshold_metrics,
)

TEST_METRICS = (
    "loss",
    "auc",
    "accuracy",
    "accuracy_at_threshold",
    "recall_at_threshold",
    "specificity_at_threshold",
)
"""Metrics whose difference on test is given; the first one decides. `accuracy` is at 0.5,
`accuracy_at_threshold` at each network's own threshold."""


class Answer(StrEnum):
    """What can be said of a change."""

    HELPS = "helps"
    """Every interval lies on the better side of 0."""
    HURTS = "hurts"
    """Every interval lies on the worse side of 0."""
    UNDECIDED = "can't be told apart"
    """An interval holds 0, or there is none."""


def over_seeds(differences: Sequence[float]) -> Estimate:
    """Return the mean of paired differences with its 95% interval by Student's t.

    Args:
        differences: One a seed.

    Returns:
        The interval is NaN for fewer than two seeds.

    Raises:
        ValueError: There is no difference.
    """
    if not differences:
        raise ValueError("no seed has both networks of the pair")
    from scipy.stats import t  # takes a good part of a second

    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Estimate(value=mean, low=math.nan, high=math.nan)
    reach = float(t.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return Estimate(value=mean, low=mean - reach, high=mean + reach)


def over_patients(
    labels: np.ndarray,
    changed: np.ndarray,
    base: np.ndarray,
    patients: Sequence[str],
    *,
    thresholds: tuple[Sequence[float], Sequence[float]],
    repeats: int = REPEATS,
    seed: int,
) -> dict[str, Estimate]:
    """Return the mean difference over seeds of every metric, with its interval over patients.

    Args:
        labels: (n,), 0 or 1.
        changed: (s, n) probabilities of the changed networks, a row a seed.
        base: (s, n) probabilities of the unchanged ones, the same seeds.
        patients: n identifiers.
        thresholds: Of the s changed and of the s unchanged networks.
        repeats: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        changed − base by name, `TEST_METRICS`.

    Raises:
        ValueError: The shapes differ, or see `metrics.check_images`.
    """
    ours, theirs = (_checked(labels, rows) for rows in (changed, base))
    if ours.shape != theirs.shape:
        raise ValueError(f"{ours.shape} and {theirs.shape} probabilities are no pairs")
    labels = np.asarray(labels, dtype=np.int64).reshape(-1)

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        pairs = zip(ours, theirs, *thresholds, strict=True)
        found = [
            (_values(labels, one, cut, weights), _values(labels, other, other_cut, weights))
            for one, other, cut, other_cut in pairs
        ]
        return {
            name: np.mean([one[name] - other[name] for one, other in found], axis=0)
            for name in TEST_METRICS
        }

    values = differences(np.ones((1, labels.size)))
    blocks = [
        differences(weights) for weights in patient_resamples(patients, repeats=repeats, seed=seed)
    ]
    return {
        name: estimate(value[0], np.concatenate([block[name] for block in blocks]))
        for name, value in values.items()
    }


def scores(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, float]:
    """Return `TEST_METRICS` of one network.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,).
        threshold: Its own.
    """
    labels, probabilities = check_images(labels, probabilities)
    found = _values(labels, probabilities, threshold, np.ones((1, labels.size)))
    return {name: float(value[0]) for name, value in found.items()}


def answer(metric: str, intervals: Sequence[Estimate]) -> Answer:
    """Return what can be said of a change, from all its intervals.

    Args:
        metric: Name of the metric, which tells whether less is better.
        intervals: Estimates of changed − base.
    """
    sign = -1 if direction(metric) == "min" else 1
    ends = [sorted((sign * one.low, sign * one.high)) for one in intervals]
    # Written so that NaN, which compares false with everything, decides nothing.
    if ends and all(low > 0 for low, _ in ends):
        return Answer.HELPS
    if ends and all(high < 0 for _, high in ends):
        return Answer.HURTS
    return Answer.UNDECIDED


def _checked(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.stack([check_images(labels, row)[1] for row in rows])


def _values(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    ranking = weighted_ranking_metrics(labels, probabilities, weights)
    at_half = weighted_threshold_metrics(labels, probabilities, 0.5, weights)
    at_threshold = weighted_threshold_metrics(labels, probabilities, threshold, weights)
    return {
        "loss": ranking["loss"],
        "auc": ranking["auc"],
        "accuracy": at_half["accuracy"],
        **{
            f"{name}_at_threshold": at_threshold[name]
            for name in ("accuracy", "recall", "specificity")
        },
    }
