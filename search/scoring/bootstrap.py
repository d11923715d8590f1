"""Confidence intervals by resampling patients, for one set of probabilities or a pair.

Films of one child resemble each other, so children are drawn with replacement, each with all its
films. Intervals are the 2.5th and 97.5th percentiles of the resampled metric (Efron & Tibshirani,
An Introduction to the Bootstrap, 1993, chapter 13). They describe chance in who came to the test,
not chance in training; the spread over seeds is that.

Resampling cannot draw a miss that was never seen, so a sensitivity of 1 would get an interval of no
width. A share that is exactly 0 or 1 gets the exact binomial interval over its n patients instead
(Clopper & Pearson, Biometrika 26, 1934): the other end lies at 0.025^(1/n), or 1 minus that. The
areas, F1 and the balanced accuracy have no such formula: at their bound, the width is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from search.records import Estimate
from search.scoring.metrics import (
    check_images,
    weighted_ranking_metrics,
    weighted_threshold_metrics,
)

REPEATS = 1000
"""Resamples where the caller does not say otherwise."""

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
        threshold: PNEUMONIA at or above it.
        repeats: Number of resamples.
        seed: Seed of the resampling; the same one gives the same resamples for any probabilities.

    Returns:
        Estimates by name, `THRESHOLD_METRICS` and `RANKING_METRICS`. Resamples in which a metric
        is undefined are left out of its interval; where all are, it is NaN.

    Raises:
        ValueError: The lengths differ, or see `metrics.check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    codes = _codes(patients, labels.size)
    values = _values(labels, probabilities, threshold, np.ones((1, labels.size)))
    blocks = [
        _values(labels, probabilities, threshold, weights)
        for weights in _resamples(codes, repeats=repeats, seed=seed)
    ]
    found = {
        name: estimate(value[0], np.concatenate([block[name] for block in blocks]))
        for name, value in values.items()
    }
    for name, counted in _shares(labels, probabilities >= threshold).items():
        if found[name].value in (0.0, 1.0):
            found[name] = exact_at_bound(found[name].value, len(np.unique(codes[counted])))
    return found


def paired_difference(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: Sequence[str],
    *,
    thresholds: tuple[float, float] = (0.5, 0.5),
    repeats: int = REPEATS,
    seed: int,
) -> dict[str, Estimate]:
    """Return first − second of every metric, with its 95% interval over the same resamples.

    Args:
        labels: (n,), 0 or 1.
        first: (n,) probabilities in [0, 1].
        second: (n,) probabilities in [0, 1], of the same images.
        patients: n identifiers.
        thresholds: Of the first and of the second.
        repeats: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        Estimates by name, as `bootstrap_intervals`.

    Raises:
        ValueError: The lengths differ, or see `metrics.check_images`.
    """
    labels, first = check_images(labels, first)
    labels, second = check_images(labels, second)
    codes = _codes(patients, labels.size)

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        ours = _values(labels, first, thresholds[0], weights)
        theirs = _values(labels, second, thresholds[1], weights)
        return {name: ours[name] - theirs[name] for name in ours}

    values = differences(np.ones((1, labels.size)))
    blocks = [differences(weights) for weights in _resamples(codes, repeats=repeats, seed=seed)]
    return {
        name: estimate(value[0], np.concatenate([block[name] for block in blocks]))
        for name, value in values.items()
    }


def subtype_recall(
    labels: np.ndarray,
    probabilities: np.ndarray,
    subtypes: Sequence[str],
    patients: Sequence[str],
    threshold: float,
    *,
    repeats: int = REPEATS,
    seed: int,
) -> dict[str, Estimate]:
    """Return the sensitivity to bacterial and to viral pneumonia apart.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,) in [0, 1].
        subtypes: n of "bacteria", "virus" or "" where the name tells none.
        patients: n identifiers.
        threshold: PNEUMONIA at or above it.
        repeats: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        {"bacteria", "virus"}, NaN where no image is of that kind.

    Raises:
        ValueError: The lengths differ, or see `metrics.check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    kinds = np.asarray(subtypes, dtype=str).reshape(-1)
    if kinds.size != labels.size:
        raise ValueError(f"{kinds.size} subtypes for {labels.size} images")
    children = np.asarray(patients, dtype=str).reshape(-1)
    found = {}
    for kind in ("bacteria", "virus"):
        chosen = np.flatnonzero((kinds == kind) & (labels == 1))
        found[kind] = bootstrap_intervals(
            labels[chosen],
            probabilities[chosen],
            children[chosen].tolist(),
            threshold,
            repeats=repeats,
            seed=seed,
        )["recall"]
    return found


def patient_resamples(
    patients: Sequence[str], *, repeats: int = REPEATS, seed: int
) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn when patients are drawn with replacement.

    Args:
        patients: n identifiers.
        repeats: Number of resamples.
        seed: Seed of the resampling; the same one gives the resamples of `bootstrap_intervals`.

    Yields:
        `float64` (r, n), in blocks that add up to `repeats` rows.
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


def _values(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        **weighted_threshold_metrics(labels, probabilities, threshold, weights),
        **weighted_ranking_metrics(labels, probabilities, weights),
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
        # Drawing `patients` children with replacement: how often each comes is multinomial.
        drawn = rng.multinomial(
            patients, np.full(patients, 1 / patients), size=min(rows, repeats - start)
        )
        yield drawn[:, codes].astype(np.float64)
