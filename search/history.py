"""Rebuilds trials from journal events: the one reading of the journal that everything shares.

Resuming, `trials.csv`, the terminal tables and the report all start from these records. Pure: it
takes event dictionaries and returns frozen records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from search.journal import EventKind
from search.records import EpochRecord, Failure, FailureKind, TrialRecord, TrialStatus

Event = dict[str, Any]


def trial_records(events: Iterable[Event]) -> list[TrialRecord]:
    """Return one record per trial, in the order of creation.

    Args:
        events: Journal lines, oldest first. An epoch that was trained twice, because a kill fell
            between its checkpoint and its line, counts once: the later line wins.
    """
    trials: dict[str, TrialRecord] = {}
    for event in events:
        kind = event["event"]
        if kind == EventKind.TRIAL_CREATED:
            trials[event["trial_id"]] = created(event)
        elif kind == EventKind.EPOCH:
            trial = trials[event["trial_id"]]
            trials[trial.trial_id] = with_epoch(trial, event)
        elif kind == EventKind.TRIAL_ENDED:
            trial = trials[event["trial_id"]]
            trials[trial.trial_id] = ended(trial, event)
    return list(trials.values())


def created(event: Event) -> TrialRecord:
    """Return the running trial that a TRIAL_CREATED event announces."""
    return TrialRecord(
        trial_id=event["trial_id"],
        configuration=event["configuration"],
        iteration=event["iteration"],
        bracket=event["bracket"],
        rung=event["rung"],
        parent=event["parent"],
        status=TrialStatus.RUNNING,
        values=event["values"],
        initial_epoch=event["initial_epoch"],
        epochs=event["initial_epoch"],
        target_epochs=event["target_epochs"],
    )


def with_epoch(trial: TrialRecord, event: Event) -> TrialRecord:
    """Return the trial with one more epoch."""
    record = EpochRecord(
        trial_id=trial.trial_id,
        epoch=event["epoch"],
        metrics=from_json(event["metrics"]),
        seconds=event["seconds"],
    )
    earlier = tuple(epoch for epoch in trial.history if epoch.epoch < record.epoch)
    return dataclasses.replace(
        trial, history=(*earlier, record), epochs=record.epoch, metrics=record.metrics
    )


def ended(trial: TrialRecord, event: Event) -> TrialRecord:
    """Return the trial as a TRIAL_ENDED event leaves it."""
    failure = event["failure"]
    return dataclasses.replace(
        trial,
        status=TrialStatus(event["status"]),
        score=event["score"],
        epochs=event["epochs"],
        seconds=event["seconds"],
        parameters=event["parameters"],
        failure=None
        if failure is None
        else Failure(
            kind=FailureKind(failure["kind"]),
            message=failure["message"],
            traceback=failure["traceback"],
        ),
        notes=tuple(event["notes"]),
    )


def from_json(metrics: dict[str, float | None]) -> dict[str, float]:
    """Undo the journal's None for NaN."""
    return {name: float("nan") if value is None else value for name, value in metrics.items()}
