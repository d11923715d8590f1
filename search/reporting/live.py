"""The live view of a run: one screen from a RunProgress; pure, `console` refreshes it.

Made for 80 columns and 24 lines. Wider terminals show more of the hyperparameters and longer
sparklines, higher ones more rows; lower ones lose rows of every section before they lose a section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import direction
from search.records import Bracket, TrialStatus
from search.reporting import format, tables
from search.reporting.progress import STAGE_WORDS, Retraining, RunProgress, Worker
from search.reporting.tables import BAD, BASELINE, DIM, GOOD, HEAD, RUNNING, line, live_table

HEADER_LINES = 3
SHOWN_BEST, SHOWN_BRACKETS, SHOWN_WORKERS, SHOWN_PROBLEMS = 6, 5, 8, 3
NARROW, WIDE = 72, 120
EPOCH_WIDTH = 9

Draw = Callable[[int], RenderableType]
"""Draws a section in so many lines."""


class Section(NamedTuple):
    """A part of the screen."""

    wanted: int  # lines it takes when there is room
    least: int  # lines it never gives up
    draw: Draw


@dataclass(frozen=True, kw_only=True)
class LiveView:
    """The screen at one moment; fits itself to the width it is printed in."""

    progress: RunProgress
    now: float  # Unix time
    data: str = ""  # a few words on the data, for the header
    name: str = ""  # the run's, "" to leave it out
    note: str = ""  # what it is in a word if it does not run, e.g. "stopped"
    height: int | None = None  # lines to fit in; None takes what is needed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the sections from top to bottom."""
        progress, width = self.progress, options.max_width
        yield from self._header(width)
        parts: list[tuple[int, Draw]]
        if progress.stage == "retrain" and progress.retraining:
            parts = [(len(progress.retraining), partial(self._retrained, width))]
        else:
            parts = [
                (min(len(progress.brackets), SHOWN_BRACKETS), self._brackets),
                (min(len(self._workers()), SHOWN_WORKERS), partial(self._training, width)),
                (min(len(progress.top), SHOWN_BEST), self._best),
            ]
        # A heading stands above the rows, and one row is kept.
        sections = [Section(wanted=rows + 1, least=2, draw=draw) for rows, draw in parts if rows]
        problems = min(len(progress.problems) + self._dead(), SHOWN_PROBLEMS)
        sections.append(Section(wanted=problems, least=min(1, problems), draw=self._problems))
        space = None if self.height is None else self.height - HEADER_LINES
        counts, spaced = allot(sections, space)
        for section, count in zip(sections, counts, strict=True):
            if count:
                if spaced:
                    yield Text("")
                yield section.draw(count)

    def _header(self, width: int) -> Iterator[RenderableType]:
        """Yield what runs, the progress bar, and the times."""
        progress, plan = self.progress, self.progress.plan
        workers = format.plural(plan.workers, "worker") if plan and plan.workers > 1 else ""
        tuner = plan.tuner if plan else ""
        objective = self._objective() if progress.objective else ""
        words = [self.name, tuner, objective, self.data, workers, progress.device]
        text = " · ".join(word for word in words if word)
        # Of "CPU, 2 cores (tensorflow)" the backend is what is missed least.
        yield line(text if len(text) <= width else text.partition(" (")[0], style=HEAD)
        elapsed = f"{format.clock(progress.elapsed(self.now))} elapsed"
        if progress.stage in STAGE_WORDS:
            parts = (STAGE_WORDS[progress.stage], self.note, elapsed)
            yield line(" · ".join(part for part in parts if part))
            return
        done, left = progress.epochs
        total = max(done + left, 1)
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        doing = "retraining" if progress.stage == "retrain" else "search"
        bar.add_row(
            ProgressBar(total=total, completed=done, complete_style=RUNNING),
            f"{doing} {done / total:.0%}",
        )
        yield bar
        epochs = f"{format.whole(done)}/{format.whole(done + left)} epochs"
        times = [(0, epochs), (0, self.note), (2, elapsed)]
        if not progress.search_ended and progress.pace is not None:
            times.insert(2, (4, f"{format.duration(progress.pace[0])} each"))
        times.append((1, f"{format.clock(progress.seconds_left(self.now))} left"))
        then = progress.retraining_seconds()
        if then and not progress.search_ended:
            times.append((3, f"then {format.clock(then)} retraining"))
        yield line(format.fitting([part for part in times if part[1]], width))

    def _objective(self) -> str:
        """Return the objective with the direction in which it gets better."""
        objective = self.progress.objective
        return f"{objective} {'↓' if direction(objective) == 'min' else '↑'}"

    def _brackets(self, rows: int) -> RenderableType:
        """Return a line for each bracket and a column for each number of epochs."""
        brackets = self.progress.brackets
        steps = sorted({rung.epochs for bracket in brackets for rung in bracket.rungs})
        rounds = len({bracket.iteration for bracket in brackets}) > 1
        rungs = [
            [self._rung(bracket, n) for n in range(len(bracket.rungs))] for bracket in brackets
        ]
        finished = [all(closed for *_, closed in found) for found in rungs]
        first = next((i for i, done in enumerate(finished) if not done), len(finished) - 1)
        # Keep one finished bracket above the first open one, for orientation.
        start = max(0, min(first - 1, len(brackets) - (rows - 1)))
        shown = brackets[start : start + rows - 1]
        legend = "done + training / planned"
        if len(shown) < len(brackets):
            legend = f"{sum(finished)} of {len(brackets)} brackets finished; {legend}"
        table = live_table("bracket", *(f"@{epochs}" for epochs in steps), legend)
        for bracket, found in zip(shown, rungs[start:], strict=False):
            cells = {}
            for rung, (ended, busy, closed) in zip(bracket.rungs, found, strict=True):
                style = GOOD if closed else RUNNING if busy or ended else DIM
                text = f"{ended}{f'+{busy}' if busy else ''}/{rung.count}"
                # Of one width whatever is being trained: the columns beside it stand still.
                width = 2 * len(str(rung.count)) + 3
                cells[rung.epochs] = Text(f"{text:<{width}}", style=style)
            name = tables.bracket_name(bracket, rounds=rounds)
            table.add_row(name, *(cells.get(epochs, Text("")) for epochs in steps))
        return table

    def _rung(self, bracket: Bracket, number: int) -> tuple[int, int, bool]:
        """Return how many trials of a rung ended and how many train, and whether it is closed."""
        key = (bracket.iteration, bracket.bracket, number)
        found = [record.status for record in self.progress.in_rung(key)]
        completed = found.count(TrialStatus.COMPLETED)
        closed = key in self.progress.closed or completed >= bracket.rungs[number].count
        ended = completed + found.count(TrialStatus.LEARNED_NOTHING)
        return ended, found.count(TrialStatus.RUNNING), closed

    def _workers(self) -> list[Worker]:
        """Return the workers by number; where no process is named, one for every running trial."""
        found = sorted(self.progress.workers.values(), key=lambda w: (len(w.name), w.name))
        running = self.progress.with_status(TrialStatus.RUNNING)
        return found or [Worker(name="", trial_id=record.trial_id) for record in running]

    def _training(self, width: int, rows: int) -> RenderableType:
        """Return one line per worker: trial, epoch, time in it, objective so far."""
        workers = self._workers()
        named = len(workers) > 1 and any(worker.name for worker in workers)
        heads = [*(["worker"] if named else []), "trial", "epoch"]
        table = live_table(*heads, self._objective(), "differs from baseline")
        fits = rows - 1 if len(workers) < rows else max(1, rows - 2)
        kept = sorted(workers, key=lambda worker: worker.trial_id is None)[:fits]  # busy first
        devices = len({worker.device for worker in workers if worker.device}) > 1
        for worker in workers:
            if worker in kept:
                name = f"{worker.name} {worker.device}" if devices else worker.name
                table.add_row(*([name] if named else []), *self._doing(worker, width))
        if len(workers) > fits:
            table.add_row(Text(f"+{len(workers) - fits} more", style=DIM))
        return table

    def _doing(self, worker: Worker, width: int) -> list[Text]:
        """Return the cells of what a worker does."""
        progress = self.progress
        record = progress.trials.get(worker.trial_id or "")
        if record is None:
            if worker.lost:
                return [Text("restarting", style=BAD)]
            return [Text("starting" if worker.pid is None else "idle", style=DIM)]
        epoch = Text(f"{min(record.epochs + 1, record.target_epochs)}/{record.target_epochs}")
        begun = progress.begun.get(record.trial_id)
        if width >= NARROW and begun is not None:
            # Of one width however long it takes, so that the columns beside it stand still.
            passed = format.stopwatch(self.now - begun)
            epoch.append(f" {passed:<{EPOCH_WIDTH - len(epoch)}}", style=DIM)
        scores = _scores(progress.scores(record), width)
        return [Text(record.trial_id), epoch, scores, tables.tried(record, progress.baseline)]

    def _best(self, rows: int) -> RenderableType:
        """Return the best configurations by epochs trained, and the baseline."""
        top = self.progress.top
        shown = top[: rows - 1]
        baseline = next((record for record in top if record.configuration == 0), None)
        if baseline is not None and baseline not in shown:
            shown[-1] = baseline
        return tables.best_table(shown, self.progress.objective, self.progress.baseline)

    def _retrained(self, width: int, rows: int) -> RenderableType:
        """Return one line per retraining, the latest ones."""
        table = live_table("retraining", "epoch", self.progress.objective, "time left")
        for run in list(self.progress.retraining.values())[-(rows - 1) :]:
            style = BAD if run.failed else GOOD if run.ended else RUNNING
            name = Text(format.training(run.role, run.seed), style=style)
            table.add_row(
                name, f"{run.epoch}/{run.epochs}", _scores(run.scores, width), _time_left(run)
            )
        return table

    def _dead(self) -> int:
        return len(self.progress.with_status(TrialStatus.LEARNED_NOTHING))

    def _problems(self, rows: int) -> RenderableType:
        """Return how many trials learned nothing, and the latest failures and lost workers."""
        problems, dead = self.progress.problems, self._dead()
        lines = []
        if dead:
            lines.append(line(f"{format.plural(dead, 'trial')} learned nothing", style=BASELINE))
        shown = problems[-(rows - len(lines)) :] if rows > len(lines) else []
        lines += [line(format.one_line(text), style=BAD) for text in shown]
        if len(shown) < len(problems):
            count = format.plural(len(problems), "problem")
            lines[-1] = line(f"{count}, last: {problems[-1]}", style=BAD)
        return Group(*lines)


def allot(sections: list[Section], space: int | None) -> tuple[list[int], bool]:
    """Return the lines of each section, None: as many as wanted, and whether gaps fit between."""
    given = [section.wanted for section in sections]
    gaps = sum(1 for count in given if count)
    if space is None or sum(given) + gaps <= space:
        return given, True
    while sum(given) > space:
        spare = [count - section.least for count, section in zip(given, sections, strict=True)]
        if max(spare) <= 0:
            break
        given[spare.index(max(spare))] -= 1
    return given, False


def _scores(scores: list[float], width: int) -> Text:
    """Return a curve of the objective and its last value, of one width for any number of epochs."""
    sparks = 8 if width < NARROW else 12 if width < WIDE else 24
    text = Text(f"{format.sparkline(scores, sparks):<{sparks}}", style=RUNNING)
    return text.append(f" {format.metric(scores[-1]) if scores else '':<5}", style="default")


def _time_left(run: Retraining) -> str:
    if run.ended:
        return "failed" if run.failed else "done"
    return format.clock(sum(run.seconds) / run.epoch * run.left) if run.epoch else ""
