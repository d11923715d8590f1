"""Confidence intervals by resampling patients, for one set of probabilities or a pair.

Images of one patient resemble each other, so patients are drawn with replacement, each with all
their images. Intervals are the 2.5th and 97.5th percentiles of the resampled metric (Efron &
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). They describe chance in who came to
the test, not chance in training; the spread over seeds is that.

Resampling cannot draw a miss that was never seen, so a sensitivity of 1 would get an interval of no
width. A share that is exactly 0 or 1 gets the exact binomial interval over its n patients instead
(Clopper & Pearson, Biometrika 26, 1934): the other end lies at 0.025^(1/n), or 1 minus that. The
areas, F1 and the balanced accuracy have no such formula: at their bound, the width is 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from enum import StrEnum

import numpy as np

from search.config import direction
from search.records import Estimate, Predictions, SeedDifference
from search.scoring.metrics import (
    check_images,
    weighted_ranking_metrics,
    weighted_threshold_metrics,
)

Tested = tuple[float, Predictions]
"""Threshold of a network, and what it predicts of the test."""

REPEATS = 1000
"""Resamples where the caller does not say otherwise."""

AT_THRESHOLD = "_at_threshold"
"""What the names of metrics at the stored threshold end in; without it they are at 0.5."""

MEAN_METRICS = (
    "loss",
    "auc",
    "accuracy",
    "accuracy_at_threshold",
    "recall_at_threshold",
    "specificity_at_threshold",
)
"""Metrics whose difference is given over several seeds. The first decides."""


class Outcome(StrEnum):
    """What can be said of a difference."""

    BETTER = "better"
    """Every interval lies on the better side of 0."""
    WORSE = "worse"
    """Every interval lies on the worse side of 0."""
    UNDECIDED = "undecided"
    """An interval includes 0, or there is none: no significant difference, which does not mean
    that there is no difference."""


LIMITS = (2.5, 97.5)
"""Percentiles between which an interval lies."""

_BLOCK_CELLS = 2_000_000
"""Weights held at once, 16 MB as `float64`, whatever the number of images."""


def bootstrap_intervals(
    predictions: Predictions, threshold: float, *, repeats: int = REPEATS, seed: int
) -> dict[str, Estimate]:
    """Return every metric with its 95% interval over patients.

    A seed gives the same resamples for any probabilities.

    Returns:
        Estimates by name: `RANKING_METRICS`, `THRESHOLD_METRICS` at 0.5, and the latter with
        "_at_threshold" at the threshold. Resamples in which a metric is undefined are left out of
        its interval; where all are, it is NaN.

    Raises:
        ValueError: See `metrics.check_images`.
    """
    labels, probabilities = check_images(predictions.labels, predictions.probabilities)
    patients = np.asarray(predictions.patients, dtype=str)
    values = _metrics(labels, probabilities, threshold, np.ones((1, labels.size)))
    blocks = [
        _metrics(labels, probabilities, threshold, weights)
        for weights in patient_resamples(predictions.patients, repeats=repeats, seed=seed)
    ]
    found = {
        name: _estimate(value[0], np.concatenate([block[name] for block in blocks]))
        for name, value in values.items()
    }
    for suffix, cut in (("", 0.5), (AT_THRESHOLD, threshold)):
        for name, counted in _shares(labels, probabilities >= cut).items():
            share = found[name + suffix].value
            if share in (0.0, 1.0):
                found[name + suffix] = _exact_at_bound(share, len(np.unique(patients[counted])))
    return found


def paired_differences(
    first: Sequence[Tested],
    second: Sequence[Tested],
    *,
    names: Sequence[str] = MEAN_METRICS,
    repeats: int = REPEATS,
    seed: int,
) -> dict[str, SeedDifference]:
    """Return first − second of metrics, the means over seeds, with two intervals.

    One seed's metrics are half chance; the mean is what the next training may be expected to give.

    Args:
        first: One network per seed.
        second: The networks of the same seeds, on the same images; both get the same resamples.
        names: Metrics, named as by `bootstrap_intervals`.
        repeats: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: The seeds or images differ, or see `metrics.check_images`.
    """
    images = first[0][1]
    for _, other in (*first, *second):
        if other.paths != images.paths or not np.array_equal(other.labels, images.labels):
            raise ValueError("the two sets of predictions are not of the same images")
    labels = check_images(images.labels, images.probabilities)[0]

    def differences(weights: np.ndarray) -> list[dict[str, np.ndarray]]:
        found = []
        for (cut, one), (other_cut, other) in zip(first, second, strict=True):
            ours = _metrics(labels, one.probabilities, cut, weights)
            theirs = _metrics(labels, other.probabilities, other_cut, weights)
            found.append({name: ours[name] - theirs[name] for name in names})
        return found

    plain = differences(np.ones((1, labels.size)))
    blocks = [
        differences(weights)
        for weights in patient_resamples(images.patients, repeats=repeats, seed=seed)
    ]
    result = {}
    for name in names:
        single = [float(one[name][0]) for one in plain]
        resampled = np.concatenate([np.mean([one[name] for one in b], axis=0) for b in blocks])
        result[name] = SeedDifference(
            over_patients=_estimate(float(np.mean(single)), resampled),
            over_seeds=over_seeds(single),
        )
    return result


def over_seeds(differences: Sequence[float]) -> Estimate:
    """Return the mean of paired differences, one per seed, with its 95% interval by Student's t.

    "The Probable Error of a Mean", Biometrika 6, 1908. With three seeds it is wide, as it should
    be; for fewer than two it is NaN.

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


def judge(metric: str, *intervals: Estimate) -> Outcome:
    """Say whether a difference is better, worse or undecided: the one place that decides it.

    Args:
        metric: Name of the metric, which tells whether less is better.
        intervals: Estimates of the same difference, e.g. over patients and over seeds; all of them
            must agree.
    """
    sign = -1 if direction(metric) == "min" else 1
    ends = [sorted((sign * one.low, sign * one.high)) for one in intervals]
    # Written so that NaN, which compares false with everything, decides nothing.
    if ends and all(low > 0 for low, _ in ends):
        return Outcome.BETTER
    if ends and all(high < 0 for _, high in ends):
        return Outcome.WORSE
    return Outcome.UNDECIDED


def subtype_recall(
    predictions: Predictions, threshold: float, *, repeats: int = REPEATS, seed: int
) -> dict[str, Estimate]:
    """Return the sensitivity by subtype of the positive class, of those that names tell."""
    kinds = np.asarray(predictions.subtypes, dtype=str)
    ill = np.asarray(predictions.labels) == 1
    found = {}
    for kind in sorted(set(kinds[ill]) - {""}):
        chosen = predictions.take(np.flatnonzero((kinds == kind) & ill))
        every = bootstrap_intervals(chosen, threshold, repeats=repeats, seed=seed)
        found[str(kind)] = every["recall_at_threshold"]
    return found


def patient_resamples(
    patients: Sequence[str], *, repeats: int = REPEATS, seed: int
) -> Iterator[np.ndarray]:
    """Yield how often each of n images is drawn when patients are drawn with replacement.

    `float64` (r, n), in blocks that add up to `repeats` rows.
    """
    if not patients:
        yield np.ones((1, 0))
        return
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(one, len(numbers)) for one in patients])
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_CELLS // codes.size)
    for start in range(0, repeats, rows):
        # Drawing as many patients with replacement: how often each comes is multinomial.
        count = len(numbers)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(rows, repeats - start))
        yield drawn[:, codes].astype(np.float64)


def _estimate(value: float, resampled: np.ndarray) -> Estimate:
    """Return a value with the percentile interval of its resamples, undefined ones left out."""
    defined = resampled[np.isfinite(resampled)]
    low, high = np.percentile(defined, LIMITS) if defined.size else (np.nan, np.nan)
    return Estimate(value=float(value), low=float(low), high=float(high))


def _exact_at_bound(value: float, patients: int) -> Estimate:
    """Return the Clopper–Pearson interval of a share of so many patients that is 0 or 1."""
    reach = 0.025 ** (1 / patients)
    low, high = (reach, 1.0) if value == 1 else (0.0, 1 - reach)
    return Estimate(value=value, low=low, high=high)


def _shares(labels: np.ndarray, called: np.ndarray) -> dict[str, np.ndarray]:
    """Return, `bool` (n,), the images that each metric is a share of."""
    return {
        "accuracy": np.ones(labels.size, dtype=bool),
        "recall": labels == 1,
        "specificity": labels == 0,
        "precision": called,
        "npv": ~called,
    }


def _metrics(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return every metric for each set of weights, named as by `bootstrap_intervals`."""
    at_half = weighted_threshold_metrics(labels, probabilities, 0.5, weights)
    at_threshold = at_half
    if threshold != 0.5:
        at_threshold = weighted_threshold_metrics(labels, probabilities, threshold, weights)
    return {
        **weighted_ranking_metrics(labels, probabilities, weights),
        **at_half,
        **{f"{name}{AT_THRESHOLD}": values for name, values in at_threshold.items()},
    }
