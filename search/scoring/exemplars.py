"""Picks the images that stand for how a model decides; knows no model and no pixels."""

from __future__ import annotations

import numpy as np

from search.records import Predictions

PER_GROUP = 4
"""Images of each group: missed, false alarm, found, healthy."""

GROUPS = ((1, False), (0, True), (1, True), (0, False))
"""(label, called PNEUMONIA) in that order."""


def chosen_images(predictions: Predictions, *, threshold: float) -> np.ndarray:
    """Return, `int64`, the positions of the images that are shown, at most `PER_GROUP` a group.

    Of the misses the most confident ones; of the hits ones spread evenly over their probabilities,
    so that nobody picks the pretty ones.

    Args:
        predictions: What the model said.
        threshold: PNEUMONIA at or above it.
    """
    said, labels = predictions.probabilities, predictions.labels
    called = said >= threshold
    chosen: list[int] = []
    for label, decision in GROUPS:
        group = np.flatnonzero((labels == label) & (called == decision))
        group = group[np.argsort(said[group], kind="stable")]
        if bool(label) == decision:
            places = np.linspace(0, len(group) - 1, min(PER_GROUP, len(group))).round().astype(int)
            chosen.extend(group[places].tolist())
        else:
            # The missed with the lowest probabilities, the false alarms with the highest.
            ordered = group if label else group[::-1]
            chosen.extend(ordered[:PER_GROUP].tolist())
    return np.array(chosen, dtype=np.int64)
