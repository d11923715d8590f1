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
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Sequence[str],
    threshold: float,
    *,
    repeats: int = REPEATS,
    seed: int,
) -> dict[str, Estimate]:
    """Return every metric with its 95% interval over patients.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,) in [0, 1].
        patients: n identifiers.
        threshold: Positive at or above it.
        repeats: Number of resamples.
        seed: Seed of the resampling; the same one gives the same resamples for any probabilities.

    Returns:
        Estimates by name: `RANKING_METRICS`, `THRESHOLD_METRICS` at 0.5, and the latter with
        "_at_threshold" at the threshold. Resamples in which a metric is undefined are left out of
        its interval; where all are, it is NaN.

    Raises:
        ValueError: The lengths differ, or see `metrics.check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    codes = _codes(patients, labels.size)
    values = _metrics(labels, probabilities, threshold, np.ones((1, labels.size)))
    blocks = [
        _metrics(labels, probabilities, threshold, weights)
        for weights in _resamples(codes, repeats=repeats, seed=seed)
    ]
    found = {
        name: estimate(value[0], np.concatenate([block[name] for block in blocks]))
        for name, value in values.items()
    }
    for suffix, cut in (("", 0.5), (AT_THRESHOLD, threshold)):
        for name, counted in _shares(labels, probabilities >= cut).items():
            share = found[name + suffix].value
            if share in (0.0, 1.0):
                found[name + suffix] = exact_at_bound(share, len(np.unique(codes[counted])))
    return found


def paired_differences(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: Sequence[str],
    *,
    thresholds: tuple[Sequence[float], Sequence[float]],
    names: Sequence[str] = MEAN_METRICS,
    repeats: int = REPEATS,
    seed: int,
) -> dict[str, SeedDifference]:
    """Return first − second of metrics, the means over seeds, with two intervals.

    One seed's metrics are half chance; the mean is what the next training may be expected to give.

    Args:
        labels: (n,), 0 or 1.
        first: (s, n) probabilities, one row per seed.
        second: (s, n) probabilities of the same seeds and images.
        patients: n identifiers.
        thresholds: Of the s first and of the s second networks.
        names: Metrics, named as by `bootstrap_intervals`.
        repeats: Number of resamples, the same ones for both.
        seed: Seed of the resampling.

    Raises:
        ValueError: The shapes differ, or see `metrics.check_images`.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"{first.shape} and {second.shape} probabilities are no pairs")
    labels = check_images(labels, first[0])[0]
    pairs = [
        (check_images(labels, one)[1], check_images(labels, other)[1], cut, other_cut)
        for one, other, cut, other_cut in zip(first, second, *thresholds, strict=True)
    ]

    def differences(weights: np.ndarray) -> list[dict[str, np.ndarray]]:
        found = []
        for one, other, cut, other_cut in pairs:
            ours = _metrics(labels, one, cut, weights)
            theirs = _metrics(labels, other, other_cut, weights)
            found.append({name: ours[name] - theirs[name] for name in names})
        return found

    plain = differences(np.ones((1, labels.size)))
    blocks = [
        differences(weights) for weights in patient_resamples(patients, repeats=repeats, seed=seed)
    ]
    result = {}
    for name in names:
        single = [float(one[name][0]) for one in plain]
        resampled = np.concatenate([np.mean([one[name] for one in b], axis=0) for b in blocks])
        result[name] = SeedDifference(
            over_patients=estimate(float(np.mean(single)), resampled),
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
    labels, probabilities = check_images(predictions.labels, predictions.probabilities)
    kinds = np.asarray(predictions.subtypes, dtype=str)
    patients = np.asarray(predictions.patients, dtype=str)
    found = {}
    for kind in sorted(set(kinds[labels == 1]) - {""}):
        chosen = np.flatnonzero((kinds == kind) & (labels == 1))
        found[str(kind)] = bootstrap_intervals(
            labels[chosen],
            probabilities[chosen],
            patients[chosen].tolist(),
            threshold,
            repeats=repeats,
            seed=seed,
        )["recall_at_threshold"]
    return found


def patient_resamples(
    patients: Sequence[str], *, repeats: int = REPEATS, seed: int
) -> Iterator[np.ndarray]:
    """Yield how often each of n images is drawn when patients are drawn with replacement.

    `float64` (r, n), in blocks that add up to `repeats` rows; for a seed those of
    `bootstrap_intervals`.
    """
    yield from _resamples(_codes(patients, len(patients)), repeats=repeats, seed=seed)


def estimate(value: float, resampled: np.ndarray) -> Estimate:
    """Return a value with the percentile interval of its resamples, undefined ones left out."""
    defined = resampled[np.isfinite(resampled)]
    low, high = np.percentile(defined, LIMITS) if defined.size else (np.nan, np.nan)
    return Estimate(value=float(value), low=float(low), high=float(high))


def exact_at_bound(value: float, patients: int) -> Estimate:
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


def _codes(patients: Sequence[str], count: int) -> np.ndarray:
    """Return, `int64` (n,), the number of each image's patient."""
    if len(patients) != count:
        raise ValueError(f"{len(patients)} patients for {count} images")
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(p, len(numbers)) for p in patients], dtype=np.int64)


def _resamples(codes: np.ndarray, *, repeats: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the images' weights, `float64` (r, n), in blocks that add up to `repeats` rows."""
    if not codes.size:
        yield np.ones((1, 0))
        return
    patients = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_CELLS // codes.size)
    for start in range(0, repeats, rows):
        # Drawing `patients` patients with replacement: how often each comes is multinomial.
        drawn = rng.multinomial(
            patients, np.full(patients, 1 / patients), size=min(rows, repeats - start)
        )
        yield drawn[:, codes].astype(np.float64)
