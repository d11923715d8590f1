"""The live view of a running search: one screen from a RunProgress; pure, the caller refreshes it.

Made for 80 columns and 24 lines; wider and higher terminals show more of the hyperparameters.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.records import TrialRecord
from search.reporting.facts import mapping
from search.reporting.progress import Retraining, RunProgress
from search.reporting.tables import BAD, DIM, DOCUMENTED, GOOD, HEAD
from search.reporting.trials import reason
from search.reporting.wording import (
    clock,
    described,
    duration,
    is_number,
    metric,
    sparkline,
    whole,
)

SHOWN_BRACKETS = 5
SHOWN_RUNNING = 4
SHOWN_TOP = 5
SHOWN_FAILURES = 3
RUNNING = "cyan"


def live_view(progress: RunProgress, *, now: float, data: str = "") -> RenderableType:
    """Return the screen.

    Args:
        progress: Where the run stands.
        now: Unix time.
        data: A few words on the data, for the header.
    """
    if progress.retrainings and (progress.search_ended or not progress.running):
        return Group(header(progress, now=now, data=data), retraining_table(progress))
    parts: list[RenderableType] = [
        header(progress, now=now, data=data),
        epochs_line(progress),
        *bracket_lines(progress),
    ]
    if progress.running:
        parts += [Text("now", style=HEAD), running_table(progress)]
    if progress.top:
        parts += [Text("best so far, most epochs first", style=HEAD), top_table(progress)]
    failed = progress.failed
    for record in failed[-SHOWN_FAILURES:]:
        parts.append(_line(f"failed {record.trial_id} {reason(record)}", style=BAD))
    if len(failed) > SHOWN_FAILURES:
        parts.append(_line(f"{len(failed)} trials failed in all", style=BAD))
    return Group(*parts)


def header(progress: RunProgress, *, now: float, data: str) -> RenderableType:
    """Return one line: what runs on the left, elapsed and remaining time on the right."""
    arrow = "↓" if progress.direction == "min" else "↑"
    words = [
        str(progress.plan.get("tuner", "")),
        f"{progress.objective} {arrow}",
        data,
        progress.device,
    ]
    times = f"{clock(progress.elapsed(now))} elapsed"
    if not progress.search_ended and progress.plan:
        times += f" · {clock(progress.seconds_left(now))} left"
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_row(_line(" · ".join(w for w in words if w), style=HEAD), Text(times))
    return table


def epochs_line(progress: RunProgress) -> RenderableType:
    """Return the overall progress in epochs."""
    done = progress.epochs_done
    total = max(done + progress.epochs_left, 1)
    pace = progress.seconds_per_epoch
    text = f"{whole(done)}/{whole(total)} epochs"
    if pace is not None:
        text += f" · {duration(pace)} each"
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_row(ProgressBar(total=total, completed=done), Text(text))
    return table


def bracket_lines(progress: RunProgress) -> list[RenderableType]:
    """Return a line a bracket: trials done of those planned in each rung, @ its epochs."""
    brackets = [mapping(b) for b in progress.plan.get("brackets") or []]
    if not brackets:
        return []
    done = progress.occupancy()
    busy = {(r.iteration, r.bracket, r.rung) for r in progress.running}
    rounds = len({b.get("iteration", 0) for b in brackets}) > 1
    lines: list[tuple[bool, Text]] = []
    for bracket in brackets:
        iteration, number = bracket.get("iteration", 0), bracket.get("bracket", 0)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{f'round {iteration + 1} ' if rounds else ''}bracket {number}  ", style=DIM)
        finished = True
        for i, rung in enumerate(bracket.get("rungs") or []):
            key = (iteration, number, i)
            count, planned = done[key], rung.get("count", 0)
            closed = key in progress.closed or (is_number(planned) and count >= planned)
            finished = finished and closed
            style = GOOD if closed else RUNNING if key in busy or count else DIM
            line.append(" → " if i else "", style=DIM)
            line.append(f"{count}/{planned}", style=style)
            line.append(f" @{rung.get('epochs', '?')}", style=DIM)
        lines.append((finished, line))
    first = next((i for i, (finished, _) in enumerate(lines) if not finished), len(lines) - 1)
    # Keep one finished bracket above the first open one, for orientation.
    start = max(0, min(first - 1, len(lines) - SHOWN_BRACKETS))
    shown: list[RenderableType] = [line for _, line in lines[start : start + SHOWN_BRACKETS]]
    hidden = len(lines) - len(shown)
    if hidden:
        finished_count = sum(finished for finished, _ in lines)
        shown.append(Text(f"{len(lines)} brackets, {finished_count} finished", style=DIM))
    return shown


def running_table(progress: RunProgress) -> Table:
    """Return a line a running trial: epoch, sparkline and value of the objective, what it tries."""
    table = _grid(4)
    running = progress.running
    documented = progress.documented
    for record in running[-SHOWN_RUNNING:]:
        scores = progress.scores(record)
        table.add_row(
            Text(record.trial_id, style=RUNNING),
            f"epoch {min(record.epochs + 1, record.target_epochs)}/{record.target_epochs}",
            Text(sparkline(scores, 12), style=RUNNING),
            metric(scores[-1]) if scores else "",
            _description(record, documented),
        )
    if len(running) > SHOWN_RUNNING:
        table.add_row(f"+{len(running) - SHOWN_RUNNING}", "more")
    return table


def top_table(progress: RunProgress) -> Table:
    """Return the best configurations, and the documented one, with only what differs."""
    table = _grid(3)
    documented = progress.documented
    top = progress.top
    shown = top[:SHOWN_TOP]
    control = next((record for record in top if record.configuration == 0), None)
    if control is not None and control not in shown:
        shown[-1] = control
    for record in shown:
        table.add_row(
            record.trial_id,
            f"@{record.epochs}",
            Text(metric(record.score), style=HEAD),
            _description(record, documented),
        )
    return table


def retraining_table(progress: RunProgress) -> Table:
    """Return a line a candidate that is or was retrained."""
    table = _grid(5)
    for run in progress.retrainings.values():
        table.add_row(
            Text(f"retrain {run.role}, seed {run.seed}", style=GOOD if run.ended else RUNNING),
            f"epoch {run.epoch}/{run.epochs}" if run.epochs else f"epoch {run.epoch}",
            Text(sparkline(run.scores, 16), style=RUNNING),
            metric(run.scores[-1]) if run.scores else "",
            _time_left(run),
            Text(""),
        )
    return table


def _time_left(run: Retraining) -> str:
    if run.ended:
        return "done"
    if not run.epoch:
        return ""
    return f"{clock(run.seconds / run.epoch * max(0, run.epochs - run.epoch))} left"


def _grid(fixed: int) -> Table:
    """Return a grid with some columns as wide as needed and one that takes the rest."""
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in range(fixed):
        table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def _description(record: TrialRecord, documented: dict[str, Any]) -> Text:
    style = DOCUMENTED if record.configuration == 0 else ""
    return _line(described(record, documented, short=True), style=style)


def _line(text: str, *, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
