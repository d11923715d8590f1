"""Chooses the decision threshold by a rule stated beforehand, on images that are not the test's.

Decisions change only where a threshold passes a probability that occurs, so between two
neighbouring ones all thresholds are equal on these images. The chosen one lies midway, where it
is least sensitive to small changes of either. Below the lowest probability it lies midway to 0,
above the highest midway to 1; above a probability of exactly 1, which a saturated sigmoid gives,
it is the next number after 1, so that no image is called positive.
"""

from __future__ import annotations

import math
import re

import numpy as np

from search.errors import ConfigurationError, DataError
from search.records import Threshold
from search.scoring.metrics import check_images, threshold_metrics

_QUANTITY_RULE = re.compile(r"^(sensitivity|specificity)=(0?\.\d+|1(?:\.0*)?)$")

_ROUNDING = 1e-9
"""19 of 20 must count as 95% whatever the binary digits of 0.95."""


def choose_threshold(
    labels: np.ndarray,
    probabilities: np.ndarray,
    rule: str,
    *,
    chosen_on: str,
    classes: tuple[str, str] = ("negative", "positive"),
) -> Threshold:
    """Choose the threshold that a rule asks for.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,) in [0, 1].
        rule: One of
            "sensitivity=0.95": the largest threshold whose sensitivity on these images is at
            least 0.95; "specificity=0.95": the smallest whose specificity is at least 0.95;
            "youden": the largest sensitivity + specificity − 1 (Youden, Cancer 3, 1950), among
            equals the lowest threshold, since a missed finding costs more than a false alarm;
            "0.5": one half, whatever the images.
        chosen_on: What to call the images, e.g. "perturbed validation images (n = 2002)".
        classes: Names of label 0 and label 1, for messages.

    Returns:
        The threshold; `reached` is the sensitivity, the specificity, or Youden's J on these
        images, and for "0.5" the accuracy.

    Raises:
        ConfigurationError: No such rule.
        DataError: A class that the rule needs is not among the images.
        ValueError: See `metrics.check_images`.
    """
    labels, probabilities = check_images(labels, probabilities)
    if rule == "0.5":
        accuracy = threshold_metrics(labels, probabilities, 0.5)["accuracy"]
        return Threshold(value=0.5, rule=rule, chosen_on=chosen_on, reached=accuracy)
    quantity, target = _parse(rule)
    needed = {"sensitivity": (1,), "specificity": (0,), "youden": (0, 1)}[quantity]
    for label in needed:
        if not np.any(labels == label):
            raise DataError(
                f"threshold rule {rule}: no {classes[label]} image in {chosen_on}; the rule "
                "needs some. Use --threshold-rule 0.5, or add images"
            )
    # Position i calls positive what has the i-th lowest distinct probability or a higher one.
    distinct, inverse = np.unique(probabilities, return_inverse=True)
    positive = np.bincount(inverse, weights=labels == 1, minlength=distinct.size)
    negative = np.bincount(inverse, weights=labels == 0, minlength=distinct.size)
    sensitivity = 1 - _below(positive)
    specificity = _below(negative)
    if quantity == "sensitivity":
        position = int(np.flatnonzero(sensitivity >= target - _ROUNDING)[-1])
        reached = sensitivity[position]
    elif quantity == "specificity":
        position = int(np.flatnonzero(specificity >= target - _ROUNDING)[0])
        reached = specificity[position]
    else:
        index = sensitivity + specificity - 1
        position = int(np.flatnonzero(index >= index.max() - _ROUNDING)[0])
        reached = index[position]
    return Threshold(
        value=_between(distinct, position), rule=rule, chosen_on=chosen_on, reached=float(reached)
    )


def _parse(rule: str) -> tuple[str, float]:
    if rule == "youden":
        return rule, math.nan
    if found := _QUANTITY_RULE.match(rule):
        return found[1], float(found[2])
    raise ConfigurationError(
        f"threshold rule {rule!r}: must be youden, 0.5, sensitivity=0.NN or specificity=0.NN"
    )


def _below(counts: np.ndarray) -> np.ndarray:
    """Return, (k + 1,), the share of the images that lie below each position."""
    total = counts.sum()
    below = np.concatenate([[0.0], np.cumsum(counts)])
    return below / total if total else np.full(below.shape, np.nan)


def _between(distinct: np.ndarray, position: int) -> float:
    """Return a threshold that separates position − 1 from position."""
    if position == distinct.size:
        top = float(distinct[-1])
        return max((top + 1) / 2, math.nextafter(top, math.inf))
    upper = float(distinct[position])
    lower = float(distinct[position - 1]) if position else 0.0
    middle = (lower + upper) / 2
    # Neighbouring floating-point numbers have no middle; "at or above" includes the upper one.
    return middle if middle > lower else upper
