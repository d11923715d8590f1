"""When what was trained, and by which worker: the run as bars over time, from the journal.

Time in which no process had the run, between a stop or a kill and the resumption, is cut out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from search.journal import EventKind
from search.reporting.figures import (
    AMBER,
    GREEN,
    INK,
    PINK,
    SKY,
    STAMP,
    house_style,
    legend_above,
    new_figure,
    role_colour,
)
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.wording import duration, is_number, plural

RUNGS = (SKY, GREEN, AMBER, PINK, "#555555")
UNITS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (180, 60, "minutes"))


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of training.

    Attributes:
        what: Trial id, or candidate and seed.
        kind: "trial" or "retraining".
        worker: Number of the worker, -1 for the retraining.
        bracket: Of a trial, else -1.
        rung: Of a trial, else -1.
        begin: Seconds since the run began, pauses cut out.
        seconds: Length.
        outcome: "completed", "failed", "interrupted" or "worker lost".
    """

    what: str
    kind: str
    worker: int
    bracket: int
    rung: int
    begin: float
    seconds: float
    outcome: str


def timeline(material: Material) -> list[Insight]:
    """Return when every trial and retraining ran."""
    data, pauses = bars(material.events)
    if not data:
        return []
    trials = [bar for bar in data if bar.kind == "trial"]
    end = max(bar.begin + bar.seconds for bar in data)
    workers = len({bar.worker for bar in trials})
    words = f"The run trained for {duration(end)}"
    if trials:
        begin, last = min(b.begin for b in trials), max(b.begin + b.seconds for b in trials)
        busy = sum(b.seconds for b in trials) / max(1e-9, (last - begin) * max(1, workers))
        words += (
            f": the search took {duration(last - begin)} with {plural(workers, 'worker')}, busy "
            f"{min(1.0, busy):.0%} of the time"
        )
    if pauses:
        words += f"; {plural(len(pauses), 'interruption')} cut out"
    return [
        Insight(
            name="timeline",
            section=Section.COURSE,
            title="Timeline",
            reading=words + ".",
            caption="A bar is a trial, its colour the rung; hatched ones failed or were cut short. "
            "Below, the retraining. Dashed lines are interruptions, whose time is cut out.",
            columns=("what", "kind", "worker", "bracket", "rung", "begin s", "seconds", "outcome"),
            rows=tuple(
                (
                    b.what,
                    b.kind,
                    *(None if n < 0 else n for n in (b.worker, b.bracket, b.rung)),
                    round(b.begin, 1),
                    round(b.seconds, 1),
                    b.outcome,
                )
                for b in data
            ),
            draw=partial(draw_timeline, data, pauses),
        )
    ]


def bars(events: Iterable[dict[str, Any]]) -> tuple[list[Bar], list[float]]:
    """Read stretches of training from the journal.

    Returns:
        The bars in the order they ended, and the times of interruptions, in the same seconds.
    """
    reader = _Reader()
    for event in events:
        if is_number(event.get("time")):
            reader.read(event)
    reader.cut("interrupted")
    return reader.bars, reader.pauses


class _Reader:
    """Follows the journal, line by line."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []
        self.pauses: list[float] = []
        self._origin: float | None = None
        self._prepared = False
        self._last = 0.0
        self._trials: dict[str, dict[str, Any]] = {}
        self._open: dict[str, tuple[float, int]] = {}

    def read(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if self._origin is None:
            self._origin = float(event["time"])
        self._resume(event, kind)
        now = self._last = float(event["time"]) - self._origin
        trial = str(event.get("trial_id"))
        if kind == EventKind.TRIAL_CREATED:
            self._trials[trial] = event
        elif kind == EventKind.TRIAL_STARTED:
            self._open[trial] = (now, int(event.get("worker") or 0))
        elif kind == EventKind.EPOCH and trial not in self._open:
            # Journals of earlier versions do not say when a trial was taken.
            self._open[trial] = (now - float(event.get("seconds") or 0), 0)
        elif kind == EventKind.WORKER_LOST:
            self._close(trial, "worker lost")
        elif kind == EventKind.TRIAL_ENDED:
            self._close(trial, str(event.get("status")))
        elif kind == EventKind.REFIT_STARTED:
            self._open[_candidate(event)] = (now, -1)
        elif kind == EventKind.REFIT_ENDED:
            self._close(_candidate(event), "failed" if event.get("failure") else "completed")

    def _resume(self, event: dict[str, Any], kind: Any) -> None:
        """Cut out the time in which no process had the run, if one takes it up here."""
        prepared = kind == EventKind.STAGE and event.get("name") == "data"
        began = kind == EventKind.RUN_STARTED
        if self._trials and (prepared or (began and not self._prepared)):
            self.cut("interrupted")
            spent = float(event.get("seconds") or 0) if prepared else 0.0
            # What passed since the last line is nobody's work: it is taken off all that follows.
            gap = float(event["time"]) - spent - (self._origin or 0.0) - self._last
            self._origin = (self._origin or 0.0) + max(0.0, gap)
            self.pauses.append(self._last)
        # A process reads the images before it says that it has begun.
        self._prepared = prepared

    def cut(self, outcome: str) -> None:
        """Close what is open: the process has ended."""
        for what in list(self._open):
            self._close(what, outcome)

    def _close(self, what: str, outcome: str) -> None:
        if what not in self._open:
            return
        begin, worker = self._open.pop(what)
        trial = self._trials.get(what, {})
        self.bars.append(
            Bar(
                what=what,
                kind="trial" if worker >= 0 else "retraining",
                worker=worker,
                bracket=int(trial.get("bracket", -1)),
                rung=int(trial.get("rung", -1)),
                begin=begin,
                seconds=max(0.0, self._last - begin),
                outcome=outcome,
            )
        )


def _candidate(event: dict[str, Any]) -> str:
    return f"{event.get('role')}, seed {event.get('seed')}"


def draw_timeline(data: Sequence[Bar], pauses: Sequence[float]) -> Figure:
    """Draw a line of bars for every worker, and one for every candidate retrained."""
    workers = sorted({bar.worker for bar in data if bar.kind == "trial"})
    roles = list(dict.fromkeys(_role(bar) for bar in data if bar.kind == "retraining"))
    names = [f"worker {w}" for w in workers] + [f"retraining:\n{role}" for role in roles]
    end = max(bar.begin + bar.seconds for bar in data)
    unit, word = next(((u, w) for least, u, w in UNITS if end >= least), (1, "seconds"))
    figure = new_figure(10, 1.7 + 0.5 * len(names))
    axes = figure.subplots()
    for bar in data:
        trial = bar.kind == "trial"
        place = workers.index(bar.worker) if trial else len(workers) + roles.index(_role(bar))
        colour = RUNGS[min(bar.rung, len(RUNGS) - 1)] if trial else role_colour(bar.what)
        axes.barh(
            place,
            bar.seconds / unit,
            left=bar.begin / unit,
            height=0.62,
            color=colour,
            edgecolor="white" if bar.outcome == "completed" else STAMP,
            linewidth=0.5,
            hatch=None if bar.outcome == "completed" else "////",
        )
    for pause in pauses:
        axes.axvline(pause / unit, color=INK, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.set_xlabel(f"{word} since the run began")
    house_style(axes)
    patches = [
        Patch(color=RUNGS[min(rung, len(RUNGS) - 1)], label=f"rung {rung}")
        for rung in sorted({bar.rung for bar in data if bar.kind == "trial"})
    ]
    if any(bar.outcome != "completed" for bar in data):
        patches.append(Patch(facecolor="white", edgecolor=STAMP, hatch="////", label="cut short"))
    legend_above(figure, handles=patches)
    return figure


def _role(bar: Bar) -> str:
    return bar.what.split(",")[0]
