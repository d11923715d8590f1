"""One model's probabilities as curves with 95% limits: what a report draws of them.

Limits are those of the bootstrap over patients, point by point: at every abscissa the 2.5th and
97.5th percentiles of the resampled ordinate (the "vertical averaging" of Fawcett, Pattern
Recognition Letters 27, 2006). They hold for one point at a time, not for the whole curve.

Knows no model, no file and no drawing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from search.records import Estimate, Predictions
from search.scoring.bootstrap import LIMITS, REPEATS, patient_resamples
from search.scoring.metrics import calibration_bin, check_images

GRID = np.linspace(0.0, 1.0, 101)
"""1 − specificity of the points of a ROC curve."""


class Band(NamedTuple):
    """Sensitivities at the points of `GRID`, with their 95% limits."""

    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def roc_band(predictions: Predictions, *, repeats: int = REPEATS, seed: int) -> Band | None:
    """Return the ROC curve of one model on one split, None where a class is absent.

    Raises:
        ValueError: See `metrics.check_images`.
    """
    labels, probabilities = check_images(predictions.labels, predictions.probabilities)
    if len(np.unique(labels)) < 2:
        return None
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
    blocks = patient_resamples(predictions.patients, repeats=repeats, seed=seed)
    resampled = np.concatenate([ordinates(block) for block in blocks])
    low = high = np.full(GRID.size, math.nan)
    if len(resampled):
        low, high = np.percentile(resampled, LIMITS, axis=0)
    return Band(*(tuple(line.tolist()) for line in (value, low, high)))


def _sensitivity(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Return the sensitivity at every 1 − specificity of the grid, straight between points."""
    x = np.concatenate([[0.0], false / false[-1]])
    y = np.concatenate([[0.0], true / true[-1]])
    # Of several sensitivities at one specificity the highest is what can be had there.
    keep = np.append(np.diff(x) > 0, True)
    return np.interp(GRID, x[keep], y[keep])


def calibration_bins(predictions: Predictions) -> list[tuple[int, float, Estimate]]:
    """Return a reliability diagram (Murphy & Winkler, Applied Statistics 26, 1977).

    The bins are those of the expected calibration error, of equal width. Their intervals are
    Wilson's (Journal of the American Statistical Association 22, 1927), which behave at shares of
    0 and 1, where most bins lie, and in bins of few images; they take images as independent.

    Returns:
        Number of images, their mean probability and the share that is positive, of each bin that
        holds an image.

    Raises:
        ValueError: See `metrics.check_images`.
    """
    labels, probabilities = check_images(predictions.labels, predictions.probabilities)
    place = calibration_bin(probabilities)
    found = []
    for i in np.unique(place):
        mine = place == i
        count = int(mine.sum())
        share = wilson(int(labels[mine].sum()), count)
        found.append((count, float(probabilities[mine].mean()), share))
    return found


def wilson(hits: int, count: int) -> Estimate:
    """Return a share of at least one image with Wilson's 95% score interval."""
    from scipy.stats import binomtest  # takes a good part of a second

    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return Estimate(value=hits / count, low=float(found.low), high=float(found.high))
