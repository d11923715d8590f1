"""Classification metrics of weighted images, computed for many sets of weights at once.

A weight of 1 for every image gives the plain metric; a bootstrap resample is a weight per image
that says how often it was drawn. So one implementation gives the estimate and its interval.

Labels are 0 (negative) and 1 (positive), probabilities are those of the positive class, and an
image is called positive at or above the threshold. A metric whose denominator is empty, e.g. the
specificity of images that are all positive, is NaN, never an exception. Knows neither Keras nor
files.
"""

from __future__ import annotations

import numpy as np

from search.records import McNemar

THRESHOLD_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "recall",
    "specificity",
    "precision",
    "npv",
    "f1",
)
"""Names of the metrics that depend on the threshold."""

RANKING_METRICS = ("auc", "average_precision", "loss", "brier", "expected_calibration_error")
"""Names of the metrics that do not."""

LOSS_CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss, as Keras does in float32."""

CALIBRATION_BINS = 10


def threshold_metrics(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float
) -> dict[str, float]:
    """Return `THRESHOLD_METRICS` by name, as fractions, NaN where undefined.

    `recall` is the sensitivity, `precision` the positive and `npv` the negative predictive value.

    Raises:
        ValueError: See `check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    found = weighted_threshold_metrics(labels, probabilities, threshold, np.ones((1, labels.size)))
    return {name: float(values[0]) for name, values in found.items()}


def ranking_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return `RANKING_METRICS` by name, NaN where undefined.

    `auc` is the area under the ROC curve, ties counting one half; `average_precision` the sum over
    distinct probabilities of precision × increase of recall (as scikit-learn, without
    interpolation); `loss` the mean log loss in nats, clipped at `LOSS_CLIP`; `brier` the mean
    squared error (Brier, Monthly Weather Review 78, 1950); `expected_calibration_error`, over 10
    equal-width bins of the probability, the mean of |share of positives − mean probability|
    weighted by images (Naeini, Cooper & Hauskrecht, AAAI 2015).

    Raises:
        ValueError: See `check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    found = weighted_ranking_metrics(labels, probabilities, np.ones((1, labels.size)))
    return {name: float(values[0]) for name, values in found.items()}


def confusion(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, int]:
    """Return the counts {"tn", "fp", "fn", "tp"} of the decisions at a threshold.

    Raises:
        ValueError: See `check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    counts = _confusion(labels, probabilities, threshold, np.ones((1, labels.size)))
    return {name: int(values[0]) for name, values in counts.items()}


def mcnemar(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    thresholds: tuple[float, float] = (0.5, 0.5),
) -> McNemar:
    """Test whether the decisions of two networks, the winner first, are equally often right.

    The exact two-sided form: under the null hypothesis an image that only one of the two gets
    right is as likely to be the first's as the second's (McNemar, Psychometrika 12, 1947). It
    counts images as independent, which those of one patient are not; the paired intervals of
    `bootstrap.paired_differences` do not. p is 1 when the decisions never differ.

    Raises:
        ValueError: See `check_images`.
    """
    labels, first = check_images(labels, first)
    labels, second = check_images(labels, second)
    from scipy.stats import binomtest  # takes a good part of a second

    right = (first >= thresholds[0]) == (labels == 1)
    other = (second >= thresholds[1]) == (labels == 1)
    only_first, only_second = int(np.sum(right & ~other)), int(np.sum(other & ~right))
    differ = only_first + only_second
    return McNemar(
        only_winner_right=only_first,
        only_baseline_right=only_second,
        p_value=float(binomtest(only_first, differ).pvalue) if differ else 1.0,
    )


def check_images(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as `int64` and probabilities as `float64`, both (n,).

    Raises:
        ValueError: Not the same length, a label other than 0 and 1, or a probability that is not
            in [0, 1].
    """
    labels = np.asarray(labels).astype(np.int64).reshape(-1)
    probabilities = np.asarray(probabilities, dtype=np.float64).reshape(-1)
    if labels.shape != probabilities.shape:
        raise ValueError(f"{labels.size} labels for {probabilities.size} probabilities")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels {np.unique(labels)}: must be 0 or 1")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities: must be numbers in [0, 1]")
    return labels, probabilities


def weighted_threshold_metrics(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `THRESHOLD_METRICS`, each (r,), of n images checked before and weights (r, n)."""
    counts = _confusion(labels, probabilities, threshold, weights)
    tn, fp, fn, tp = (counts[name] for name in ("tn", "fp", "fn", "tp"))
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "accuracy": _ratio(tp + tn, tp + tn + fp + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "recall": recall,
        "specificity": specificity,
        "precision": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def weighted_ranking_metrics(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `RANKING_METRICS`, each (r,), of n images checked before and weights (r, n)."""
    total = weights.sum(axis=1)
    clipped = np.clip(probabilities, LOSS_CLIP, 1 - LOSS_CLIP)
    losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    auc, average_precision = _areas(labels, probabilities, weights)
    gaps = np.zeros((labels.size, CALIBRATION_BINS))
    gaps[np.arange(labels.size), calibration_bin(probabilities)] = labels - probabilities
    return {
        "auc": auc,
        "average_precision": average_precision,
        "loss": _ratio(weights @ losses, total),
        "brier": _ratio(weights @ (probabilities - labels) ** 2, total),
        "expected_calibration_error": _ratio(np.abs(weights @ gaps).sum(axis=1), total),
    }


def _areas(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC's area and the average precision, by counting at distinct probabilities."""
    if not labels.size:
        empty = np.full(len(weights), np.nan)
        return empty, empty
    order = np.argsort(-probabilities, kind="stable")
    starts = np.flatnonzero(np.diff(probabilities[order], prepend=np.inf))
    ordered = weights[:, order]
    positive = np.add.reduceat(ordered * labels[order], starts, axis=1)
    negative = np.add.reduceat(ordered * (1 - labels[order]), starts, axis=1)
    true, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    positives, negatives = true[:, -1], false[:, -1]
    # A positive outranks the negatives that come after it, and half of those it ties with.
    outranked = negatives[:, None] - false + negative / 2
    auc = _ratio(np.sum(positive * outranked, axis=1), positives * negatives)
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
    return auc, _ratio(np.sum(positive * precision, axis=1), positives)


def calibration_bin(probabilities: np.ndarray) -> np.ndarray:
    """Return, `int64` (n,), which of `CALIBRATION_BINS` bins of equal width each lies in."""
    return np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def _confusion(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    called = probabilities >= threshold
    positive = labels == 1
    cells = {
        "tn": ~called & ~positive,
        "fp": called & ~positive,
        "fn": ~called & positive,
        "tp": called & positive,
    }
    return {name: weights @ cell.astype(np.float64) for name, cell in cells.items()}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator = np.asarray(numerator, dtype=np.float64)
    nothing = np.full(numerator.shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=nothing, where=denominator > 0))
