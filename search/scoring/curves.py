"""One model's probabilities as curves with 95% limits: what a report draws of them.

Limits are those of the bootstrap over patients, point by point: at every abscissa the 2.5th and
97.5th percentiles of the resampled ordinate (the "vertical averaging" of Fawcett, Pattern
Recognition Letters 27, 2006). They hold for one point at a time, not for the whole curve.

Predictive values rise with sensitivity and with specificity. Where one of these is exactly 0 or 1,
which no resample changes, its exact limits take the place of its resamples, see `bootstrap`.

Knows no model, no file and no drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from search.evidence import Band, CalibrationBin, PredictiveValues, ScoreCurves
from search.records import (
    Estimate,
    Predictions,
)
from search.scoring.bootstrap import (
    LIMITS,
    REPEATS,
    estimate,
    exact_at_bound,
    patient_resamples,
)
from search.scoring.metrics import (
    CALIBRATION_BINS,
    PREVALENCES,
    check_images,
    weighted_threshold_metrics,
)

GRID = np.linspace(0.0, 1.0, 101)
"""Abscissae of the bands."""

NORMAL_QUANTILE = 1.959964
"""Of the 97.5th percentile."""

Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]


def score_curves(
    predictions: Predictions, threshold: float, *, repeats: int = REPEATS, seed: int
) -> ScoreCurves | None:
    """Return the curves of one model on one split.

    Args:
        predictions: What it said.
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

    def band(curve: Curve) -> Band:
        return _band(curve, labels, probabilities, predictions.patients, repeats=repeats, seed=seed)

    return ScoreCurves(
        predictions=predictions,
        threshold=threshold,
        roc=band(_sensitivity),
        precision_recall=band(_precision),
        calibration=calibration_bins(labels, probabilities),
        predictive_values=_predictive_values(
            labels, probabilities, predictions.patients, threshold, repeats=repeats, seed=seed
        ),
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
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    share, z2 = hits / count, NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = (
        NORMAL_QUANTILE
        * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
        / (1 + z2 / count)
    )
    # Rounding must not put an end beyond the share itself.
    low, high = min(share, centre - reach), max(share, centre + reach)
    return Estimate(value=share, low=max(0.0, float(low)), high=min(1.0, float(high)))


def _band(
    curve: Curve,
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
    ill = labels[order]

    def ordinates(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        true = np.cumsum(ordered * ill, axis=1)[:, last]
        false = np.cumsum(ordered * (1 - ill), axis=1)[:, last]
        both = (true[:, -1] > 0) & (false[:, -1] > 0)
        pairs = zip(true[both], false[both], strict=True)
        return np.array([curve(t, f) for t, f in pairs]).reshape(-1, GRID.size)

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


def _precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Return the precision of the fewest calls that reach every sensitivity of the grid.

    A step, as scikit-learn's average precision: straight lines between points would flatter
    (Davis & Goadrich, ICML 2006).
    """
    called = true > 0
    recall, precision = (true / true[-1])[called], (true / np.maximum(true + false, 1e-12))[called]
    place = np.minimum(np.searchsorted(recall, GRID - 1e-12), recall.size - 1)
    return precision[place]


def _predictive_values(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Sequence[str],
    threshold: float,
    *,
    repeats: int,
    seed: int,
) -> tuple[PredictiveValues, ...]:
    def rates(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = weighted_threshold_metrics(labels, probabilities, threshold, weights)
        return found["recall"], found["specificity"]

    plain = rates(np.ones((1, labels.size)))
    blocks = [rates(b) for b in patient_resamples(patients, repeats=repeats, seed=seed)]
    children = np.asarray(patients, dtype=str)
    lows, highs = [], []
    for value, drawn, label in zip(plain, zip(*blocks, strict=True), (1, 0), strict=True):
        low = high = np.concatenate(drawn)
        if value[0] in (0.0, 1.0):
            exact = exact_at_bound(value[0], len(np.unique(children[labels == label])))
            low, high = np.full(repeats, exact.low), np.full(repeats, exact.high)
        lows.append(low)
        highs.append(high)
    values = []
    for prevalence in PREVALENCES:
        named = [
            _between(value[0], low, high)
            for value, low, high in zip(
                _bayes(*plain, prevalence),
                _bayes(lows[0], lows[1], prevalence),
                _bayes(highs[0], highs[1], prevalence),
                strict=True,
            )
        ]
        values.append(PredictiveValues(prevalence=prevalence, positive=named[0], negative=named[1]))
    return tuple(values)


def _between(value: float, low: np.ndarray, high: np.ndarray) -> Estimate:
    """Return a value with the lower limit of the one and the upper limit of the other resamples.

    One that is undefined has no limits.
    """
    if np.isnan(value):
        return estimate(value, np.array([]))
    return Estimate(
        value=float(value), low=estimate(value, low).low, high=estimate(value, high).high
    )


def _bayes(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return both predictive values, as `metrics.ppv_at_prevalence` and `npv_at_prevalence`."""
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    well, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    with np.errstate(invalid="ignore", divide="ignore"):
        return true / (true + false), well / (well + missed)
