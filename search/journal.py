"""The journal: events appended one line each, and read back as the records of trials.

The journal is the truth. An event is one line of JSON, flushed and fsynced before the caller goes
on. Resuming, tables and reports all start from `trial_records`. Knows no Keras and no KerasTuner.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

from search.errors import RunDirectoryError, read_errors, storage_errors
from search.records import (
    EpochRecord,
    PlanRecord,
    TrialRecord,
    TrialStatus,
    fields_from_json,
    from_json,
    to_json,
)

Event = dict[str, Any]


class EventKind(StrEnum):
    """The kinds of journal event; each line has "event" and "time" (Unix seconds) besides.

    Listeners (the terminal, the plain log) receive the same dictionaries.
    """

    RUN_STARTED = "run_started"
    """A process took the run: pid, host, resumed, versions, backend (Keras'), device."""
    PLAN = "plan"
    """The schedule, see `tuning/schedule.py`: tuner, brackets [{iteration, bracket, rungs
    [{count, initial_epoch, epochs}]}], configurations, trials, epochs, seconds_per_epoch,
    seconds_per_trial, estimated_seconds (both None while unmeasured), after_seconds,
    reserved_seconds, refit_epochs (of all retrainings together, at most), refit_area, trainings,
    workers, notes [str]."""
    TRIAL_CREATED = "trial_created"
    """trial_id, configuration, iteration, bracket, rung, parent, values, initial_epoch,
    target_epochs, seed."""
    EPOCH = "epoch"
    """A finished epoch, written after its checkpoint: trial_id, epoch, metrics, seconds."""
    TRIAL_STARTED = "trial_started"
    """A worker took the trial, the first or after another one was lost: trial_id, worker, pid,
    device."""
    WORKER_LOST = "worker_lost"
    """A worker died, hung or took too long: trial_id, worker, pid, reason, retry (whether the
    trial goes on elsewhere)."""
    TRIAL_ENDED = "trial_ended"
    """trial_id, status, score, epochs (count, parents included), parameters, seconds, costs,
    failure {kind, message, traceback} or None, notes [str]."""
    RUNG_CLOSED = "rung_closed"
    """iteration, bracket, rung, ranked (trial ids, best first), promoted (trial ids)."""
    SEARCH_ENDED = "search_ended"
    """trials, failed, epochs, seconds, oracle_seconds (asking and telling the oracle, its files
    and the journal's lines about whole trials, in this process of the run)."""
    REFIT_STARTED = "refit_started"
    """A worker took a retraining, the first or after another one was lost: role ("baseline",
    "finalist_1", …; "winner_train+val" for the winner's second one), seed (repetition 0, 1, …),
    epochs, values, folder (under `refit/`; two trainings that differ in anything have two), worker,
    pid, all_epochs (of all retrainings together)."""
    REFIT_EPOCH = "refit_epoch"
    """role, seed, epoch, metrics, seconds."""
    REFIT_ENDED = "refit_ended"
    """role, seed, folder, kept_epoch, epochs, parameters, seconds, failure."""
    TEST_SCORED = "test_scored"
    """The test set was evaluated: scorings [{role, seed (None for an ensemble), accuracy (at 0.5),
    auc}]."""
    STAGE = "stage"
    """name, seconds: a stage of the run ended."""
    STOPPED = "stopped"
    """The process ended early, in order: reason."""


def append(path: Path, kind: EventKind, **fields: Any) -> Event:
    """Write one event, durable on return; return it, for listeners.

    Raises:
        StorageError: The disk is full or read-only; the run can be resumed later.
    """
    event = {"event": kind.value, "time": time.time(), **to_json(fields)}
    with storage_errors(path):
        drop_cut_line(path)
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(event) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
    return event


def read(path: Path) -> list[Event]:
    """Return the events of a journal, oldest first, [] where there is none.

    A last line without its end was cut short by a kill and is left out.

    Raises:
        RunDirectoryError: A line is no event of this version; names file, line and remedy.
    """
    with read_errors(path):
        if not path.exists() and not path.is_symlink():
            return []
        lines = path.read_bytes().split(b"\n")
    return [_event(line, f"{path}, line {number}") for number, line in enumerate(lines[:-1], 1)]


def _event(line: bytes, where: str) -> Event:
    try:
        event = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunDirectoryError(f"{where}: damaged ({error}); {REMEDY}") from None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise RunDirectoryError(f"{where}: holds no event; {REMEDY}")
    if event["event"] not in KINDS:
        raise RunDirectoryError(
            f"{where}: an event of kind {event['event']!r} is not known to this version; use the "
            "version that wrote it"
        )
    return event


KINDS = frozenset(EventKind)
REMEDY = "restore the file from a copy, or give another --name"


def drop_cut_line(path: Path) -> None:
    """Remove a last line without its end, which a kill or a full disk left."""
    if not path.exists():
        return
    with open(path, "rb+") as handle:
        size = handle.seek(0, os.SEEK_END)
        end = size
        while end:
            begin = max(0, end - 65536)
            handle.seek(begin)
            newline = handle.read(end - begin).rfind(b"\n")
            end = begin + newline + 1 if newline >= 0 else begin
            if newline >= 0:
                break
        if end < size:
            handle.truncate(end)


def trial_records(events: Iterable[Event], *, where: str = "journal.jsonl") -> list[TrialRecord]:
    """Return one record per trial, in the order of creation.

    Args:
        events: Of a journal, oldest first. An epoch that was trained twice, because a kill fell
            between its checkpoint and its line, counts once: the later line wins.
        where: The file, for messages.

    Raises:
        RunDirectoryError: A field is missing or wrong, or a line was lost.
    """
    trials: dict[str, TrialRecord] = {}
    for number, event in enumerate(events, 1):
        kind, line = event["event"], f"{where}, line {number}"
        if kind == EventKind.TRIAL_CREATED:
            trial = created(event, where=line)
            if trial.trial_id in trials:
                raise RunDirectoryError(
                    f"{line}: trial {trial.trial_id} is created a second time; {REMEDY}"
                )
        elif kind in (EventKind.EPOCH, EventKind.TRIAL_ENDED):
            known = trials.get(str(event.get("trial_id")))
            if known is None:
                raise RunDirectoryError(
                    f"{line}: no line before it creates trial {event.get('trial_id')}; {REMEDY}"
                )
            step = with_epoch if kind == EventKind.EPOCH else ended
            trial = step(known, event, where=line)
        else:
            continue
        trials[trial.trial_id] = trial
    return list(trials.values())


CREATED = (
    "trial_id",
    "configuration",
    "iteration",
    "bracket",
    "rung",
    "parent",
    "values",
    "initial_epoch",
    "target_epochs",
)
EPOCH = ("trial_id", "epoch", "metrics", "seconds")
ENDED = ("status", "score", "epochs", "seconds", "parameters", "failure", "notes")


def plan(event: Event, *, where: str = "journal") -> PlanRecord:
    """Return the plan of a PLAN event."""
    fields = {name: value for name, value in event.items() if name not in ("event", "time")}
    return from_json(PlanRecord, fields, where=where)


def plans(events: Iterable[Event]) -> list[PlanRecord]:
    """Return the plan of every process of the run, the first one leading."""
    return [plan(event) for event in events if event["event"] == EventKind.PLAN]


def stage_seconds(events: Iterable[Event]) -> dict[str, float]:
    """Return the wall time of every stage, all processes that finished it together.

    What a process spent in the stage that it was stopped in is not journaled.
    """
    found: Counter[str] = Counter()
    for event in events:
        if event["event"] == EventKind.STAGE:
            found[event["name"]] += event["seconds"]
    return dict(found)


def search_costs(events: Iterable[Event]) -> dict[str, float]:
    """Return what the search's seconds went into, all trials and workers together."""
    found: Counter[str] = Counter()
    for event in events:
        if event["event"] == EventKind.TRIAL_ENDED:
            found.update(event["costs"])
        elif event["event"] == EventKind.SEARCH_ENDED:
            found["oracle"] += event["oracle_seconds"]
    return {name: round(seconds, 3) for name, seconds in found.items()}


def created(event: Event, *, where: str = "journal") -> TrialRecord:
    """Return the running trial that a TRIAL_CREATED event announces."""
    found = fields_from_json(TrialRecord, event, CREATED, where=where)
    return TrialRecord(**found, status=TrialStatus.RUNNING, epochs=found["initial_epoch"])


def with_epoch(trial: TrialRecord, event: Event, *, where: str = "journal") -> TrialRecord:
    """Return the trial with one more epoch."""
    record = EpochRecord(**fields_from_json(EpochRecord, event, EPOCH, where=where))
    earlier = tuple(epoch for epoch in trial.history if epoch.epoch < record.epoch)
    return dataclasses.replace(
        trial, history=(*earlier, record), epochs=record.epoch, metrics=record.metrics
    )


def ended(trial: TrialRecord, event: Event, *, where: str = "journal") -> TrialRecord:
    """Return the trial as a TRIAL_ENDED event leaves it."""
    return dataclasses.replace(trial, **fields_from_json(TrialRecord, event, ENDED, where=where))
