"""Charts of how a run went: the best score so far, learning curves, the retraining; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from search.config import cost
from search.journal import Event, EventKind
from search.records import TrialRecord, TrialStatus
from search.reporting.format import baseline_values, described, metric, training
from search.reporting.plots.style import Chart, Panel, Series, round_for_page
from search.reporting.progress import Retraining, finalists, lineage

SHOWN_CURVES = 5


def history(
    events: Sequence[Event], trials: dict[str, TrialRecord], objective: str
) -> Chart | None:
    """Return every ended trial and the best score so far, against epochs and against time.

    The best so far is that among trials of as many epochs as the longest one until then: a score
    after one epoch says little about one after nine.
    """
    begun: float | None = None
    passed, previous = 0.0, 0.0
    epochs = 0
    steps: list[tuple[TrialRecord, float, float]] = []
    for event in events:
        kind, now = event["event"], float(event["time"])
        if kind == EventKind.TRIAL_CREATED and begun is None:
            begun = previous = now
        if begun is not None:
            # The time between a kill and the resumption is nobody's work.
            passed += 0.0 if kind == EventKind.RUN_STARTED else now - previous
            previous = now
        epochs += kind == EventKind.EPOCH
        if kind != EventKind.TRIAL_ENDED:
            continue
        record = trials[event["trial_id"]]
        if record.status is TrialStatus.COMPLETED and record.score is not None:
            steps.append((record, epochs, passed / 60))
    if len(steps) < 3:
        return None
    best: list[TrialRecord] = []
    for record, _, _ in steps:
        best.append(_better([*best[-1:], record], objective))
    panels = []
    axes = {"epochs trained": [s[1] for s in steps], "minutes": [s[2] for s in steps]}
    for name, where in axes.items():
        records = [step[0] for step in steps]
        panels.append(
            Panel(
                x=name,
                y=objective,
                series=(
                    Series(
                        name="trials",
                        x=tuple(where),
                        y=tuple(r.score or 0.0 for r in records),
                        kind="points",
                        colour="dim",
                        labels=tuple(f"trial {r.trial_id}, {r.epochs} epochs" for r in records),
                        ids=tuple(r.trial_id for r in records),
                    ),
                    Series(
                        name="best so far",
                        x=tuple(where),
                        y=tuple(r.score or 0.0 for r in best),
                        kind="steps",
                        colour="best",
                        labels=tuple(f"best: trial {r.trial_id}" for r in best),
                    ),
                ),
            )
        )
    return Chart(
        name="history",
        title="Optimization history",
        note="Best so far: of the trials with the most epochs until then.",
        panels=tuple(panels),
    )


def _better(records: Sequence[TrialRecord], objective: str) -> TrialRecord:
    return min(records, key=lambda r: (-r.epochs, cost(objective, r.score)))


def curves(trials: dict[str, TrialRecord], objective: str) -> dict[str, dict[str, Any]]:
    """Return every configuration's objective by epoch, for the page: {trial: {x, y, label}}."""
    baseline = baseline_values(trials.values())
    found = {}
    for record in trials.values():
        epochs = [epoch for link in lineage(record, trials) for epoch in link.history]
        score = f"{objective} {metric(record.score)}"
        found[record.trial_id] = {
            "x": [epoch.epoch for epoch in epochs],
            "y": [round_for_page(epoch.metrics.get(objective, math.nan)) for epoch in epochs],
            "label": f"{record.trial_id}: {described(record, baseline, short=True)}, {score}",
            "baseline": record.configuration == 0,
        }
    return found


def learning_curves(trials: dict[str, TrialRecord], objective: str) -> Chart | None:
    """Return the learning curves of the best configurations and of the baseline."""
    best = finalists(trials.values(), objective)
    shown = best[:SHOWN_CURVES]
    shown += [r for r in best[SHOWN_CURVES:] if r.configuration == 0]
    if not shown:
        return None
    data = curves(trials, objective)
    series = tuple(
        Series(
            name=f"{r.trial_id}, baseline" if r.configuration == 0 else r.trial_id,
            x=tuple(data[r.trial_id]["x"]),
            y=tuple(math.nan if y is None else y for y in data[r.trial_id]["y"]),
            colour="baseline" if r.configuration == 0 else "winner" if r is best[0] else "other",
            dashed=r.configuration == 0,
            ids=(r.trial_id,) * len(data[r.trial_id]["x"]),
        )
        for r in shown
    )
    return Chart(
        name="curves",
        title="Learning curves",
        note="The best configurations and the baseline. Click a trial in the table or a point "
        "above to add its curve.",
        panels=(Panel(x="epoch", y=objective, series=series),),
    )


def retraining(runs: Iterable[Retraining], objective: str) -> Chart | None:
    """Return the objective by epoch of every retraining."""
    series = tuple(
        Series(
            name=training(run.role, run.seed),
            x=tuple(range(1, run.epoch + 1)),
            y=tuple(run.scores),
            colour=run.role if run.role in ("winner", "baseline") else "finalist",
            dashed=run.role == "baseline",
        )
        for run in runs
        if run.epoch
    )
    if not series:
        return None
    return Chart(
        name="retraining",
        title="Retraining",
        note="One line per seed.",
        panels=(Panel(x="epoch", y=objective, series=series),),
    )
