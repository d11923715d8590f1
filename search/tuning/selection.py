"""Chooses the winners of a search from its records, at equal budget."""

from __future__ import annotations

from collections.abc import Sequence

from search.records import TrialRecord, TrialStatus


def ranked(records: Sequence[TrialRecord], *, direction: str) -> list[TrialRecord]:
    """Return completed trials, best first.

    More epochs come first, since scores of different budgets cannot be compared; among equals the
    smoothed objective decides, then the smaller model, then the earlier configuration.

    Args:
        records: All trials.
        direction: "min" or "max".
    """
    sign = 1.0 if direction == "min" else -1.0
    completed = [
        (record, record.score)
        for record in records
        if record.status is TrialStatus.COMPLETED and record.score is not None
    ]
    ordered = sorted(
        completed,
        key=lambda pair: (
            -pair[0].epochs,
            sign * pair[1],
            pair[0].parameters,
            pair[0].configuration,
        ),
    )
    return [record for record, _ in ordered]


def winners(records: Sequence[TrialRecord], *, direction: str, top: int) -> list[TrialRecord]:
    """Return the best trials of different configurations.

    Args:
        records: All trials.
        direction: "min" or "max".
        top: How many.
    """
    chosen: dict[int, TrialRecord] = {}
    for record in ranked(records, direction=direction):
        chosen.setdefault(record.configuration, record)
    return list(chosen.values())[:top]
