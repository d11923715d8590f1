"""Temperature scaling: one number that makes a network's probabilities mean what they say.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: the logit
is divided by a temperature T > 0 that minimizes the log loss on validation images. The order of
the images stays, and with it the ROC curve and every decision at 0.5; log loss, Brier score,
calibration error and the value of the threshold change.

Fitted on the clean validation images, which no weight has seen, and before the threshold is
chosen; the test set plays no part. The images count as they are, whatever the share of the positive
class. NumPy and SciPy; knows no Keras.
"""

from __future__ import annotations

import numpy as np

from search.scoring.metrics import check_images, ranking_metrics

CLIP = 2.0**-23
"""Probabilities are kept this far from 0 and 1 before their logit is taken; exact in float32."""

LIMITS = (0.05, 20.0)
"""The temperature is looked for between these."""


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities whose logits are the given ones' divided by a temperature.

    The same clipping and formula as `preprocessing.calibrated`, in `float64`; a
    temperature of 1 gives the probabilities as they are.
    """
    if temperature == 1:
        return probabilities
    return np.asarray(np.exp(-np.logaddexp(0, -logits(probabilities) / temperature)))


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, str]:
    """Fit the temperature on validation images.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,), uncalibrated.

    Returns:
        The logit's divisor, above 1 for a network that is too sure of itself, and "". Or 1 and the
        reason why there is no best one: a class is missing, the network is right at 0.5 on every
        image (colder is always better), or worse than a coin (hotter is).

    Raises:
        ValueError: See `metrics.check_images`.
    """
    from scipy.optimize import minimize_scalar

    labels, probabilities = check_images(labels, probabilities)
    if len(np.unique(labels)) < 2:
        return 1.0, "validation lacks a class; not calibrated"
    # Signed so that a positive logit is right: the loss is then log(1 + exp(−logit / T)).
    signed = np.where(labels == 1, 1, -1) * logits(probabilities)

    def loss(inverse: float) -> float:
        return float(np.logaddexp(0, -signed * inverse).mean())

    # Convex in 1 / T, so that there is one minimum.
    low, high = 1 / LIMITS[1], 1 / LIMITS[0]
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    if found.x > 0.99 * high:
        count = len(labels)
        return 1.0, f"every validation image is on its side of 0.5 (n = {count}); not calibrated"
    if found.x < 1.01 * low:
        return 1.0, "the network is no better than a coin on validation; not calibrated"
    return float(1 / found.x), ""


def reported(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the metrics that are reported before and after calibration."""
    found = ranking_metrics(labels, probabilities)
    return {name: found[name] for name in ("expected_calibration_error", "loss", "brier")}


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the log odds of probabilities, which are kept `CLIP` from 0 and 1."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)
