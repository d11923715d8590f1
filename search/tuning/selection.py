"""Scores a history and chooses the winners of a search from its records, at equal budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.config import cost
from search.records import TrialRecord, TrialStatus

SMOOTHING = 3
"""A score is the mean of at most this many last epochs."""


def smoothed(history: Sequence[float], *, epochs: int) -> float:
    """Return the score of a history: the mean of the metric over its last epochs.

    The last ⌈epochs / 3⌉ epochs count, at most three: a longer trial has more epochs to be lucky
    in, so a best epoch would favour it, and a mean over a fixed share does not.

    Args:
        history: The metric, epoch by epoch; the trial's own epochs suffice.
        epochs: Epochs trained in all, parents included.

    Raises:
        ValueError: The history is empty.
    """
    if not history:
        raise ValueError("a trial without an epoch has no score")
    last = history[-min(SMOOTHING, math.ceil(epochs / 3)) :]
    return sum(last) / len(last)


def ranked(records: Sequence[TrialRecord], metric: str) -> list[TrialRecord]:
    """Return completed trials, best first.

    More epochs come first, since scores of different budgets cannot be compared; among equals the
    smoothed metric decides, then the smaller model, then the earlier configuration.

    Args:
        records: All trials.
        metric: The logged metric to choose by; the search's objective or another one.
    """

    def key(record: TrialRecord) -> tuple[int, float, int, int]:
        score = smoothed([epoch.metrics[metric] for epoch in record.history], epochs=record.epochs)
        # NaN, e.g. an AUC where one class was never seen, ranks last.
        return -record.epochs, cost(metric, score), record.parameters, record.configuration

    return sorted((r for r in records if r.status is TrialStatus.COMPLETED), key=key)


def winners(records: Sequence[TrialRecord], metric: str, *, top: int) -> list[TrialRecord]:
    """Return the best trials of different configurations.

    Args:
        records: All trials.
        metric: The logged metric to choose by.
        top: How many.
    """
    chosen: dict[int, TrialRecord] = {}
    for record in ranked(records, metric):
        chosen.setdefault(record.configuration, record)
    return list(chosen.values())[:top]
