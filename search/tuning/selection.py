"""Scores a history and chooses the winners of a search from its records, at equal budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

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


def ranked(records: Iterable[TrialRecord], metric: str) -> list[TrialRecord]:
    """Return completed trials, best first.

    More epochs come first, since scores of different budgets cannot be compared; among equals the
    smoothed metric decides, then the smaller model, then the earlier configuration.

    Args:
        records: All trials.
        metric: The logged metric to choose by; the search's objective or another one.
    """

    def key(record: TrialRecord) -> tuple[int, float, int, int]:
        # NaN ranks last: an AUC where one class was never seen, a metric that was not logged.
        scores = [epoch.metrics.get(metric, math.nan) for epoch in record.history]
        score = smoothed(scores, epochs=record.epochs)
        return -record.epochs, cost(metric, score), record.parameters, record.configuration

    return sorted((r for r in records if r.status is TrialStatus.COMPLETED), key=key)


def winners(
    records: Iterable[TrialRecord], metric: str, *, top: int | None = None
) -> list[TrialRecord]:
    """Return the best trials of different configurations, each one's furthest.

    Args:
        records: All trials.
        metric: The logged metric to choose by.
        top: How many; None for all.
    """
    chosen: dict[int, TrialRecord] = {}
    for record in ranked(records, metric):
        chosen.setdefault(record.configuration, record)
    return list(chosen.values())[:top]


RANKS = {TrialStatus.COMPLETED: 0, TrialStatus.RUNNING: 1, TrialStatus.LEARNED_NOTHING: 2}
"""Order of the statuses in a table; failed trials come last."""


def ordered(records: Iterable[TrialRecord], objective: str) -> list[TrialRecord]:
    """Sort trials for reading: most epochs first, best score first among equals, failures last."""

    def key(one: TrialRecord) -> tuple[int, int, float, int, str]:
        score = cost(objective, one.score)
        return RANKS.get(one.status, 3), -one.epochs, score, one.parameters, one.trial_id

    return sorted(records, key=key)


def lineage(record: TrialRecord, trials: Mapping[str, TrialRecord]) -> list[TrialRecord]:
    """Return a trial with the trials it continues, the first of them first."""
    chain = [record]
    while chain[0].parent is not None:
        chain.insert(0, trials[chain[0].parent])
    return chain
