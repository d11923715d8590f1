"""One model's probabilities as curves with 95% limits: what a report draws of them.

Limits are those of the bootstrap over patients, point by point: at every abscissa the 2.5th and
97.5th percentiles of the resampled ordinate (the "vertical averaging" of Fawcett, Pattern
Recognition Letters 27, 2006). They hold for one point at a time, not for the whole curve.

Knows no model, no file and no drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.records import Estimate, Predictions
from search.scoring.bootstrap import LIMITS, REPEATS, patient_resamples
from search.scoring.metrics import CALIBRATION_BINS, check_images

GRID = np.linspace(0.0, 1.0, 101)
"""Abscissae of the bands."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve with its 95% limits at every point.

    Attributes:
        x: k abscissae, ascending.
        value: k ordinates.
        low: k lower limits.
        high: k upper limits.
    """

    x: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """The images whose probability lies in one interval.

    Attributes:
        low: Its lower end, inclusive.
        high: Its upper end, exclusive but for 1.
        count: Number of images.
        probability: Their mean probability of the positive class, NaN without images.
        share: Share of them that is positive.
    """

    low: float
    high: float
    count: int
    probability: float
    share: Estimate


@dataclass(frozen=True, kw_only=True)
class ScoreCurves:
    """One model's probabilities on one split as curves.

    Attributes:
        predictions: The probabilities.
        threshold: The stored threshold.
        roc: Sensitivity by 1 − specificity.
        calibration: Bins of the probability, ascending.
    """

    predictions: Predictions
    threshold: float
    roc: Band
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Where in one image a network found the reason for its decision, see `gradcam`.

    Attributes:
        path: The image, relative to the data folder.
        label: 0 or 1.
        probability: Of the positive class.
        called: 0 or 1, the decision at the stored threshold.
        image: `uint8` (S, S), gray.
        heat: `float32` (S, S) in [0, 1].
    """

    path: str
    label: int
    probability: float
    called: int
    image: np.ndarray
    heat: np.ndarray


def score_curves(
    predictions: Predictions, threshold: float, *, repeats: int = REPEATS, seed: int
) -> ScoreCurves | None:
    """Return the curves of one model on one split.

    Args:
        predictions: Its probabilities.
        threshold: Its stored threshold.
        repeats: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        None where a class is absent: there is no such curve then.

    Raises:
        ValueError: See `metrics.check_images`.
    """
    labels, probabilities = check_images(predictions.labels, predictions.probabilities)
    if len(np.unique(labels)) < 2:
        return None
    return ScoreCurves(
        predictions=predictions,
        threshold=threshold,
        roc=_roc(labels, probabilities, predictions.patients, repeats=repeats, seed=seed),
        calibration=calibration_bins(labels, probabilities),
    )


def calibration_bins(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = CALIBRATION_BINS
) -> tuple[CalibrationBin, ...]:
    """Return a reliability diagram (Murphy & Winkler, Applied Statistics 26, 1977).

    The bins are those of the expected calibration error, of equal width. Their intervals are
    Wilson's (Journal of the American Statistical Association 22, 1927), which behave at shares of
    0 and 1, where most bins lie, and in bins of few images; they take images as independent.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,) in [0, 1].
        bins: How many.

    Raises:
        ValueError: See `metrics.check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    found = []
    for i in range(bins):
        mine = place == i
        count = int(mine.sum())
        found.append(
            CalibrationBin(
                low=i / bins,
                high=(i + 1) / bins,
                count=count,
                probability=float(probabilities[mine].mean()) if count else float("nan"),
                share=wilson(int(labels[mine].sum()), count),
            )
        )
    return tuple(found)


def wilson(hits: int, count: int) -> Estimate:
    """Return a share with Wilson's 95% score interval; NaN for no images."""
    if not count:
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    from scipy.stats import binomtest  # takes a good part of a second

    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return Estimate(value=hits / count, low=float(found.low), high=float(found.high))


def _roc(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Sequence[str],
    *,
    repeats: int,
    seed: int,
) -> Band:
    order = np.argsort(-probabilities, kind="stable")
    # Images of equal probability are called together: one point for all of them.
    last = np.append(np.flatnonzero(np.diff(probabilities[order])), labels.size - 1)
    positive = labels[order]

    def ordinates(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        true = np.cumsum(ordered * positive, axis=1)[:, last]
        false = np.cumsum(ordered * (1 - positive), axis=1)[:, last]
        both = (true[:, -1] > 0) & (false[:, -1] > 0)
        pairs = zip(true[both], false[both], strict=True)
        return np.array([_sensitivity(t, f) for t, f in pairs]).reshape(-1, GRID.size)

    value = ordinates(np.ones((1, labels.size)))[0]
    resampled = np.concatenate(
        [ordinates(block) for block in patient_resamples(patients, repeats=repeats, seed=seed)]
    )
    low, high = (
        np.percentile(resampled, LIMITS, axis=0) if len(resampled) else (value * np.nan,) * 2
    )
    return Band(
        x=tuple(GRID.tolist()),
        value=tuple(value.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


def _sensitivity(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Return the sensitivity at every 1 − specificity of the grid, straight between points."""
    x = np.concatenate([[0.0], false / false[-1]])
    y = np.concatenate([[0.0], true / true[-1]])
    # Of several sensitivities at one specificity the highest is what can be had there.
    keep = np.append(np.diff(x) > 0, True)
    return np.interp(GRID, x[keep], y[keep])
