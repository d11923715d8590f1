"""Trials as people read them: their order, `trials.csv`, and the retraining's `history.csv`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from search.journal import EventKind
from search.records import Metrics, TrialRecord, TrialStatus, from_json
from search.reporting.facts import mapping
from search.reporting.wording import one_line

TRIAL_COLUMNS = (
    "trial_id",
    "configuration",
    "iteration",
    "bracket",
    "rung",
    "parent",
    "status",
    "initial_epoch",
    "epochs",
    "seconds",
    "score",
    "parameters",
    "failure",
    "notes",
)
"""The first columns of `trials.csv`; metrics and `hp_…` columns follow."""

HISTORY_COLUMNS = ("role", "seed", "epoch", "seconds")
"""The first columns of `history.csv`; metrics follow."""

Row = dict[str, Any]


def ordered(records: Iterable[TrialRecord], direction: str) -> list[TrialRecord]:
    """Sort trials for reading: most epochs first, best score first among equals, failures last.

    Args:
        records: Trials in any order.
        direction: "min" or "max", which scores are better.
    """
    sign = 1.0 if direction == "min" else -1.0

    def key(record: TrialRecord) -> tuple[int, int, float, int, str]:
        group = {TrialStatus.COMPLETED: 0, TrialStatus.RUNNING: 1}.get(record.status, 2)
        usable = record.score is not None and math.isfinite(record.score)
        score = sign * record.score if usable and record.score is not None else math.inf
        # Of equal scores the smaller model comes first, as in the selection.
        return group, -record.epochs, score, record.parameters, record.trial_id

    return sorted(records, key=key)


def finalists(records: Iterable[TrialRecord], direction: str) -> list[TrialRecord]:
    """Return each completed configuration's furthest trial, in reading order."""
    furthest: dict[tuple[int, int], TrialRecord] = {}
    for record in records:
        if record.status is not TrialStatus.COMPLETED:
            continue
        key = (record.iteration, record.configuration)
        if key not in furthest or record.epochs > furthest[key].epochs:
            furthest[key] = record
    return ordered(furthest.values(), direction)


def reason(record: TrialRecord) -> str:
    """Write on one line why a trial failed, "" if it did not."""
    if record.failure is None:
        return ""
    return f"{record.failure.kind.value}: {one_line(record.failure.message)}"


def trials_csv(records: Sequence[TrialRecord]) -> str:
    """Write a row a trial, in the order given, with every metric and every hyperparameter.

    A metric of the last epoch has its own name as the column, a hyperparameter `hp_<name>`;
    inactive ones are empty.
    """
    metrics = names(record.metrics for record in records)
    values = names(record.values for record in records)
    rows = []
    for record in records:
        row: Row = {
            "trial_id": record.trial_id,
            "configuration": record.configuration,
            "iteration": record.iteration,
            "bracket": record.bracket,
            "rung": record.rung,
            "parent": record.parent or "",
            "status": record.status.value,
            "initial_epoch": record.initial_epoch,
            "epochs": record.epochs,
            "seconds": round(record.seconds, 3),
            "score": record.score,
            "parameters": record.parameters,
            "failure": reason(record),
            "notes": "; ".join(record.notes),
        }
        row.update(record.metrics)
        row.update({f"hp_{name}": value for name, value in record.values.items()})
        rows.append(row)
    return as_csv([*TRIAL_COLUMNS, *metrics, *(f"hp_{name}" for name in values)], rows)


def refit_rows(
    events: Iterable[dict[str, Any]], *, evaluation: dict[str, Any] | None = None
) -> list[Row]:
    """Return a row an epoch of the retraining: role, seed, epoch, seconds and every metric.

    A retraining that was begun again after a kill counts from where it began again: of an epoch
    that was trained twice the later one stays.

    Args:
        events: Journal lines, oldest first.
        evaluation: Content of `evaluation.json`, where there is one: the finalist that it says won
            is called "winner". The documented configuration keeps its name.
    """
    won = mapping(mapping(evaluation).get("retraining")).get("trained_as")
    rows: dict[tuple[str, int, int], Row] = {}
    for event in events:
        if event.get("event") != EventKind.REFIT_EPOCH:
            continue
        role, seed, epoch = event["role"], event["seed"], event["epoch"]
        if role == won != "documented":
            role = "winner"
        for stale in [key for key in rows if key[:2] == (role, seed) and key[2] >= epoch]:
            del rows[stale]
        metrics = from_json(Metrics, event["metrics"])
        rows[role, seed, epoch] = {
            "role": role,
            "seed": seed,
            "epoch": epoch,
            "seconds": event["seconds"],
            **metrics,
        }
    return list(rows.values())


def refit_histories(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows of the retraining by candidate: "winner, seed 0" and so on."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{row['role']}, seed {row['seed']}", []).append(row)
    return found


def history_csv(rows: Sequence[Row]) -> str:
    """Write the retraining epoch by epoch, as `refit_rows` gives it."""
    return as_csv([*HISTORY_COLUMNS, *(n for n in names(rows) if n not in HISTORY_COLUMNS)], rows)


def names(mappings: Iterable[dict[str, Any]]) -> list[str]:
    """Return the keys of all mappings, in the order of first appearance."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def as_csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Write rows under the columns; what is missing, None or not finite is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                name: ""
                if value is None or (isinstance(value, float) and not math.isfinite(value))
                else value
                for name, value in row.items()
            }
        )
    return text.getvalue()
