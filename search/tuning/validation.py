"""The metrics logged every epoch, on the clean validation images and on their perturbed views.

`val_*` are comparable with the notebook's. `stress_*` take all views together. `robust_loss` is the
log loss of the worst condition, the clean images being one of them, and `robust_auc` the AUC of the
worst: what an image taken elsewhere may meet. Log losses are computed at a stated prior, so that
they speak of the population a user has in mind, whatever the share of positives in the files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from search.records import Dataset, Metrics

EPSILON = 1e-7
"""Probabilities are clipped to [EPSILON, 1 - EPSILON], as Keras does."""

PIXELS = 2**20
"""Pixels of a batch: 32 images of 180 × 180, 64 of 96 × 96; larger ones cost memory, not time."""


OnBatch = Callable[[], None]


class Validator:
    """Scores a model on clean and perturbed validation images."""

    def __init__(
        self, dataset: Dataset, *, prevalence: float, on_batch: OnBatch = lambda: None
    ) -> None:
        """Open the arrays.

        Args:
            dataset: Training and validation images.
            prevalence: Prior of the positive class for the log losses.
            on_batch: Called after each batch.
        """
        self.prevalence = prevalence
        self._on_batch = on_batch
        self._clean = dataset.val.open_array()
        self._rows = dataset.val.rows
        self._labels = dataset.val.labels.astype(np.int64)
        self._views = dataset.views
        self._stressed = dataset.views.open_array()

    def metrics(self, model: Any) -> Metrics:
        """Return every metric of the model as it is now.

        Args:
            model: Keras model, `uint8` (n, S, S, 1) to probabilities (n, 1).
        """
        rows, on_batch = np.arange(len(self._views)), self._on_batch
        clean = predict(model, self._clean, self._rows, on_batch=on_batch)
        stressed = predict(model, self._stressed, rows, on_batch=on_batch)
        return validation_metrics(
            clean,
            self._labels,
            stressed,
            self._views.labels.astype(np.int64),
            self._views.view,
            prevalence=self.prevalence,
        )

    def seconds(self, model: Any) -> float:
        """Return the time of `metrics`, estimated from the median of three batches."""
        full = batch_size(self._clean.shape[1])
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            predict(model, self._clean, self._rows[:full])
            times.append(time.perf_counter() - begin)
        batches = -(-len(self._rows) // full) + -(-len(self._views) // full)
        return float(np.median(times[1:])) * batches


def batch_size(side: int) -> int:
    """Return how many images of a side are predicted at once: a power of two, 8 to 128."""
    fitting = max(8, min(128, PIXELS // side**2))
    return 1 << (fitting.bit_length() - 1)


def predict(
    model: Any, array: np.ndarray, rows: np.ndarray, *, on_batch: OnBatch = lambda: None
) -> np.ndarray:
    """Return a model's probabilities for some rows of an array.

    Args:
        model: Keras model, `uint8` (n, S, S, 1) to probabilities (n, 1).
        array: `uint8` (N, S, S, 1), memory-mapped or not.
        rows: `int64` (n,).
        on_batch: Called after each batch.

    Returns:
        `float64` (n,).
    """
    parts = []
    full = batch_size(array.shape[1])
    for start in range(0, len(rows), full):
        chunk = rows[start : start + full]
        batch = array[chunk]
        if len(chunk) < full:
            # One batch shape means one compilation.
            padding = np.zeros((full - len(chunk), *batch.shape[1:]), batch.dtype)
            batch = np.concatenate([batch, padding])
        output = np.asarray(model.predict_on_batch(batch), dtype=np.float64)
        parts.append(output.reshape(full)[: len(chunk)])
        on_batch()
    return np.concatenate(parts) if parts else np.zeros(0)


def validation_metrics(
    clean: np.ndarray,
    labels: np.ndarray,
    stressed: np.ndarray,
    stressed_labels: np.ndarray,
    view: np.ndarray,
    *,
    prevalence: float,
) -> Metrics:
    """Compute the metrics of an epoch from probabilities.

    Args:
        clean: Probabilities (n,) for the validation images.
        labels: 0 or 1 (n,).
        stressed: Probabilities (m,) for their views.
        stressed_labels: 0 or 1 (m,).
        view: Kind of each view (m,), 0, 1, …
        prevalence: Prior of label 1 for the log losses.
    """
    found: Metrics = {}
    for prefix, probabilities, truth in (
        ("val", clean, labels),
        ("stress", stressed, stressed_labels),
    ):
        for name, value in condition_metrics(probabilities, truth, prevalence).items():
            found[f"{prefix}_{name}"] = value
    losses, aucs = [found["val_loss"]], [found["val_auc"]]
    for kind in np.unique(view):
        chosen = view == kind
        losses.append(log_loss(stressed[chosen], stressed_labels[chosen], prevalence))
        aucs.append(auc(stressed[chosen], stressed_labels[chosen]))
    found["robust_loss"] = float(np.max(losses))
    found["robust_auc"] = float(np.min(aucs))
    return found


def condition_metrics(
    probabilities: np.ndarray, labels: np.ndarray, prevalence: float
) -> dict[str, float]:
    """Return loss, auc and, at threshold 0.5, accuracy, precision, recall and specificity."""
    called = probabilities >= 0.5
    true_positive = int(np.sum(called & (labels == 1)))
    true_negative = int(np.sum(~called & (labels == 0)))
    positives, negatives = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    return {
        "loss": log_loss(probabilities, labels, prevalence),
        "auc": auc(probabilities, labels),
        "accuracy": _ratio(true_positive + true_negative, len(labels)),
        "precision": _ratio(true_positive, int(np.sum(called))),
        "recall": _ratio(true_positive, positives),
        "specificity": _ratio(true_negative, negatives),
    }


def log_loss(probabilities: np.ndarray, labels: np.ndarray, prevalence: float) -> float:
    """Return the log loss (nats) at a prior: the classes' mean losses, weighted by the prior.

    With the files' own share as the prior this is the plain mean log loss.
    """
    clipped = np.clip(probabilities, EPSILON, 1 - EPSILON)
    total = 0.0
    for label, weight, likelihood in (
        (1, prevalence, clipped),
        (0, 1 - prevalence, 1 - clipped),
    ):
        chosen = labels == label
        if chosen.any():
            total -= weight * float(np.mean(np.log(likelihood[chosen])))
    return total


def auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve, NaN with one class only or non-finite values."""
    if len(np.unique(labels)) < 2 or not np.isfinite(probabilities).all():
        return float("nan")
    return float(roc_auc_score(labels, probabilities))


def above_chance(auc: float, labels: np.ndarray) -> bool:
    """Return whether an AUC is above 0.5 by more than the standard error of a chance ranking.

    That error is √((n₀ + n₁ + 1) / (12 n₀ n₁)) (Mann and Whitney, Ann. Math. Stat. 18, 1947). A
    constant output has an AUC of 0.5; its log loss, ln 2, is better than a young network's.
    """
    positives = int(np.sum(labels == 1))
    negatives = len(labels) - positives
    error = math.sqrt((len(labels) + 1) / (12 * positives * negatives))
    return auc > 0.5 + error


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
