"""The tables of the live view: workers, the best, the retraining, failures; pure.

The caller says how many lines each may take, the heading included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from search.reporting.progress import RunProgress
from search.reporting.retraining import Retraining
from search.reporting.tables import BAD, DIM, DOCUMENTED, GOOD, HEAD, RUNNING, live_table
from search.reporting.wording import (
    clock,
    described,
    metric,
    one_line,
    plural,
    sparkline,
    stopwatch,
)
from search.reporting.workers import Worker

SHOWN_WORKERS = 8
SHOWN_PROBLEMS = 3
NARROW, WIDE = 72, 120
EPOCH_WIDTH = 9


def worker_rows(progress: RunProgress) -> list[Worker]:
    """Return the workers; where the journal names none, a nameless one for every trial."""
    return progress.workers.rows() or [
        Worker(name="", trial_id=record.trial_id) for record in progress.running
    ]


def workers_table(progress: RunProgress, *, now: float, width: int, rows: int) -> Table:
    """Return a line a worker: its trial, epoch, time in it, objective so far, what it tries.

    Args:
        progress: Where the run stands.
        now: Unix time.
        width: Columns there are.
        rows: Lines to use, the heading included.
    """
    workers = worker_rows(progress)
    named = len(workers) > 1 and any(worker.name for worker in workers)
    arrow = "↓" if progress.direction == "min" else "↑"
    heads = [*(["worker"] if named else []), "trial", "epoch", f"{progress.objective} {arrow}"]
    table = live_table(*heads, "differs from the documented")
    several_devices = len({worker.device for worker in workers if worker.device}) > 1
    shown, hidden = shown_workers(workers, rows - 1)
    for worker in shown:
        cells = [Text(worker.name)] if named else []
        if several_devices and worker.device:
            cells[0].append(f" {worker.device}", style=DIM)
        table.add_row(*cells, *_doing(worker, progress, now=now, width=width))
    if hidden:
        training = sum(worker.trial_id is not None for worker in hidden)
        table.add_row(Text(f"+{len(hidden)}"), Text(f"{training} busy", style=DIM))
    return table


def shown_workers(workers: Sequence[Worker], rows: int) -> tuple[list[Worker], list[Worker]]:
    """Return the workers to show, in order, and those that are only counted; busy ones first."""
    if len(workers) <= min(rows, SHOWN_WORKERS):
        return list(workers), []
    kept = max(1, min(rows - 1, SHOWN_WORKERS))
    busy_first = sorted(workers, key=lambda worker: worker.trial_id is None)
    shown = [worker for worker in workers if any(worker is b for b in busy_first[:kept])]
    return shown, busy_first[kept:]


def _doing(worker: Worker, progress: RunProgress, *, now: float, width: int) -> list[Text]:
    """Return the cells of what a worker does."""
    record = progress.trials.get(worker.trial_id or "")
    if record is None:
        words, style = ("idle", DIM) if worker.pid is not None else ("starting", DIM)
        if worker.lost:
            words, style = "restarting", BAD
        return [Text(words, style=style)]
    scores = progress.scores(record)
    epoch = Text(f"{min(record.epochs + 1, record.target_epochs)}/{record.target_epochs}")
    begun = progress.begun.get(record.trial_id)
    if width >= NARROW:
        passed = "" if begun is None else stopwatch(now - begun)
        # Of one width however long it takes, so that the columns beside it stand still.
        epoch.append(f" {passed:<{EPOCH_WIDTH - len(epoch)}}", style=DIM)
    sparks = _spark_width(width)
    objective = Text(f"{sparkline(scores, sparks):<{sparks}}", style=RUNNING)
    objective.append(f" {metric(scores[-1]) if scores else '':<5}", style="default")
    tries = described(record, progress.documented, short=True)
    style = DOCUMENTED if record.configuration == 0 else ""
    return [Text(record.trial_id), epoch, objective, line(tries, style=style)]


def top_table(progress: RunProgress, *, rows: int) -> Table:
    """Return the best configurations, and the documented one, with only what differs."""
    table = live_table("best", "epochs", progress.objective, "differs from the documented")
    top = progress.top
    shown = top[: rows - 1]
    control = next((record for record in top if record.configuration == 0), None)
    if control is not None and control not in shown:
        shown[-1] = control
    for record in shown:
        style = DOCUMENTED if record.configuration == 0 else ""
        table.add_row(
            record.trial_id,
            str(record.epochs),
            Text(metric(record.score), style=HEAD),
            line(described(record, progress.documented, short=True), style=style),
        )
    return table


def retraining_table(progress: RunProgress, *, width: int, rows: int) -> Table:
    """Return a line a candidate that is or was retrained, the latest ones."""
    table = live_table("retraining", "epoch", progress.objective, "time left")
    runs = list(progress.retraining.runs.values())
    kept = runs[-(rows - 1) :]
    for run in kept:
        style = BAD if run.failed else GOOD if run.ended else RUNNING
        sparks = _spark_width(width)
        objective = Text(f"{sparkline(run.scores, sparks):<{sparks}}", style=RUNNING)
        objective.append(f" {metric(run.scores[-1]) if run.scores else ''}", style="default")
        table.add_row(
            Text(f"{run.role}, seed {run.seed}", style=style),
            f"{run.epoch}/{run.epochs}" if run.epochs else str(run.epoch),
            objective,
            _time_left(run),
        )
    return table


def _time_left(run: Retraining) -> str:
    if run.ended:
        return "failed" if run.failed else "done"
    if not run.epoch:
        return ""
    return clock(run.seconds / run.epoch * max(0, run.epochs - run.epoch))


def problem_lines(progress: RunProgress, *, rows: int) -> Iterator[Text]:
    """Yield a line for each of the latest failed trials and lost workers, and how many there are.

    Args:
        progress: Where the run stands.
        rows: Lines to use.
    """
    problems = progress.problems
    counted = len(problems) > rows or len(problems) > SHOWN_PROBLEMS
    shown = min(SHOWN_PROBLEMS, rows - 1 if counted and rows > 1 else rows)
    for text in problems[-shown:]:
        yield line(one_line(text), style=BAD)
    if counted and rows > 1:
        failed, lost = len(progress.failed), len(progress.workers.losses)
        parts = [f"{plural(failed, 'trial')} failed" if failed else ""]
        parts.append(f"{plural(lost, 'worker')} lost" if lost else "")
        yield line(", ".join(part for part in parts if part) + " in all", style=BAD)


def _spark_width(width: int) -> int:
    return 8 if width < NARROW else 12 if width < WIDE else 24


def line(text: str, *, style: str = "") -> Text:
    """Return a text that is cut at the end of the line and never wrapped."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
