"""Charts of how a run went: the best score so far, learning curves, the retraining; pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from search.config import cost
from search.journal import Event, EventKind
from search.records import TrialRecord, TrialStatus
from search.reporting.format import baseline_values, described, metric, training
from search.reporting.plots.style import Chart, Panel, Series, round_for_page, score, trial_points
from search.reporting.progress import Retraining
from search.tuning.selection import lineage, winners

SHOWN_CURVES = 5


def history(
    events: Sequence[Event], trials: dict[str, TrialRecord], objective: str
) -> Chart | None:
    """Return every ended trial and the best score so far, against epochs and against time.

    The best so far is that among trials of as many epochs as the longest one until then: a score
    after one epoch says little about one after nine.
    """
    passed, epochs = 0.0, 0
    previous: float | None = None
    records: list[TrialRecord] = []
    where: dict[str, list[float]] = {"epochs trained": [], "minutes": []}
    for event in events:
        kind, now = event["event"], float(event["time"])
        # The time between a kill and the resumption is nobody's work.
        if previous is not None and kind != EventKind.RUN_STARTED:
            passed += now - previous
        if previous is not None or kind == EventKind.TRIAL_CREATED:
            previous = now
        epochs += kind == EventKind.EPOCH
        if kind == EventKind.TRIAL_ENDED:
            record = trials[event["trial_id"]]
            if record.status is TrialStatus.COMPLETED:
                records.append(record)
                where["epochs trained"].append(epochs)
                where["minutes"].append(passed / 60)
    if len(records) < 3:
        return None

    def better(one: TrialRecord, other: TrialRecord) -> TrialRecord:
        return min(one, other, key=lambda r: (-r.epochs, cost(objective, r.score)))

    best = list(itertools.accumulate(records, better))
    panels = []
    for name, at in where.items():
        so_far = Series(
            "best so far",
            tuple(at),
            tuple(map(score, best)),
            kind="steps",
            colour="best",
            labels=tuple(f"best: trial {r.trial_id}" for r in best),
        )
        points = trial_points("trials", "dim", records, at)
        panels.append(Panel(name, objective, (points, so_far)))
    note = "Best so far: of the trials with the most epochs until then."
    return Chart("history", "Optimization history", note, tuple(panels))


def curves(trials: dict[str, TrialRecord], objective: str) -> dict[str, dict[str, Any]]:
    """Return every configuration's objective by epoch, for the page: {trial: {x, y, label}}."""
    baseline = baseline_values(trials.values())
    found = {}
    for record in trials.values():
        epochs = [epoch for link in lineage(record, trials) for epoch in link.history]
        reached = f"{objective} {metric(record.score)}"
        found[record.trial_id] = {
            "x": [epoch.epoch for epoch in epochs],
            "y": [round_for_page(epoch.metrics.get(objective, math.nan)) for epoch in epochs],
            "label": f"{record.trial_id}: {described(record, baseline, short=True)}, {reached}",
            "baseline": record.configuration == 0,
        }
    return found


def learning_curves(trials: dict[str, TrialRecord], objective: str) -> Chart | None:
    """Return the learning curves of the best configurations and of the baseline."""
    best = winners(trials.values(), objective)
    if not best:
        return None
    shown = [r for i, r in enumerate(best) if i < SHOWN_CURVES or r.configuration == 0]
    data = curves(trials, objective)
    series = tuple(
        Series(
            f"{r.trial_id}, baseline" if r.configuration == 0 else r.trial_id,
            tuple(data[r.trial_id]["x"]),
            tuple(math.nan if y is None else y for y in data[r.trial_id]["y"]),
            colour="baseline" if r.configuration == 0 else "winner" if r is best[0] else "other",
            dashed=r.configuration == 0,
            ids=(r.trial_id,) * len(data[r.trial_id]["x"]),
        )
        for r in shown
    )
    note = (
        "The best configurations and the baseline. Click a trial in the table or a point above to "
        "add its curve."
    )
    return Chart("curves", "Learning curves", note, (Panel("epoch", objective, series),))


def retraining(runs: Iterable[Retraining], objective: str) -> Chart | None:
    """Return the objective by epoch of every retraining."""
    series = tuple(
        Series(
            training(run.role, run.seed),
            tuple(range(1, run.epoch + 1)),
            tuple(run.scores),
            colour=run.role if run.role in ("winner", "baseline") else "finalist",
            dashed=run.role == "baseline",
        )
        for run in runs
        if run.epoch
    )
    if not series:
        return None
    panel = Panel("epoch", objective, series)
    return Chart("retraining", "Retraining", "One line per seed.", (panel,))
