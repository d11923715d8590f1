"""The one reporter for a person: a live view on a terminal, dated plain lines everywhere else.

Prints what others made: tables from `tables`, the screen from `live`, lines from `plain`. Nothing
a run does depends on it, and no event, however strange, makes it raise.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

import rich.console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.rule import Rule
from rich.text import Text

from search.errors import RunDirectoryError
from search.journal import EventKind
from search.records import TrialRecord
from search.reporting import facts, tables
from search.reporting.ablation import ablation_view
from search.reporting.live import LiveView
from search.reporting.plain import PlainLog, milestone, standing
from search.reporting.progress import RunProgress
from search.reporting.screen import REFRESH_SECONDS, Screen
from search.reporting.terminal import LastingFile, is_terminal
from search.reporting.verdict import read_verdict
from search.reporting.wording import duration, one_line, stamp, whole

PROGRESS_STEP = 0.1
PROGRESS_INTERVAL = 2.0
LIVE_EVENTS = frozenset(
    {
        EventKind.TRIAL_CREATED,
        EventKind.TRIAL_STARTED,
        EventKind.EPOCH,
        EventKind.TRIAL_ENDED,
        EventKind.REFIT_STARTED,
        EventKind.REFIT_EPOCH,
    }
)
"""Events that open the live view when it is closed."""


class Console:
    """Tells a person what a run does.

    Attributes:
        live: Whether there is a live view; else plain lines.
        quiet: Whether only notices, warnings, errors and the verdict are printed.
        progress_state: What the events so far add up to.
    """

    def __init__(
        self,
        *,
        live: bool | None = None,
        quiet: bool = False,
        file: TextIO | None = None,
        dated: bool = True,
    ) -> None:
        """Choose how to print.

        Args:
            live: Live view or not; None: on a terminal that can, unless `quiet`.
            quiet: Print only notices, warnings, errors and the verdict.
            file: Where to print; standard output by default.
            dated: Begin plain lines with date and time, as a log; a report does not.
        """
        target = sys.stdout if file is None else file
        if live is None:
            # Not rich's own test: FORCE_COLOR in CI must colour lines, not start a live view.
            live = is_terminal(target) and os.environ.get("TERM") not in ("dumb", "unknown")
        self.quiet = quiet
        self.live = live and not quiet
        self._dated = dated and not self.live
        self.progress_state = RunProgress()
        self._rich = rich.console.Console(
            file=cast(TextIO, LastingFile(target)),
            force_terminal=True if self.live else None,
            highlight=False,
        )
        self._display: Screen | Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._plain_log = PlainLog()
        self._plain_progress: dict[str, tuple[float, float]] = {}
        self._notices: list[str] = []
        self._data = ""
        self._watched = ""
        self._also: list[Callable[[dict[str, Any]], None]] = []

    @property
    def width(self) -> int:
        """Return the columns there are to print in."""
        return self._rich.width

    def follow(self, objective: str) -> None:
        """Name the metric that the search ranks by; the live view and the lines show it."""
        self.progress_state.objective = objective

    def also(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Pass every further event on to another listener, which must not raise."""
        self._also.append(listener)

    def notice(self, text: str) -> None:
        """Print a banner nobody can miss, and again with the verdict."""
        if text not in self._notices:
            self._notices.append(text)
        self._banner(text)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Print the heading of a stage, and the time it took when it ends well."""
        start = time.monotonic()
        self.heading(title)
        try:
            yield
        finally:
            self._close_display()
        if not self.quiet:
            self._line(f"{title}: done in {duration(time.monotonic() - start)}", style="dim")

    def heading(self, title: str) -> None:
        """Print the heading of what follows."""
        self._close_display()
        if self.quiet:
            return
        if self._dated:
            self._line(f"== {title}")
        else:
            self._rich.print(Rule(Text(title, style="bold"), align="left", style="dim"))

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far a long piece of work is; a total of 0 announces one of unknown length."""
        if self.quiet:
            return
        if self.live:
            self._live_progress(label, done, total)
        else:
            self._sparse_progress(label, done, total)

    def know_data(self, report: dict[str, Any]) -> None:
        """Take a few words on the data from `dataset.json`, for the header of the live view."""
        self._data = facts.data_words(report)

    def show_data(self, report: dict[str, Any]) -> None:
        """Print the summary of `dataset.json`."""
        self.know_data(report)
        self._show(lambda: tables.data_table(report))

    def show_plan(self, plan: dict[str, Any]) -> None:
        """Print brackets, rungs, totals, the estimated time and the notes of a PLAN event."""
        self.progress_state.plan = dict(plan)
        self._show(lambda: tables.plan_table(plan))

    def listen(self, event: dict[str, Any]) -> None:
        """Take in a journal event, and show it live or as a line; never raises."""
        known = self.progress_state.apply(event)
        for listener in self._also:
            listener(event)
        if self.quiet or not known:
            return
        kind = event.get("event")
        # A display must not end a search, whatever an event of another version holds.
        with contextlib.suppress(Exception):
            if self.live:
                self._listen_live(kind, event)
            else:
                text = self._plain_log.line(event, self.progress_state)
                if text is not None:
                    self._line(text)

    def replay(self, events: Iterable[dict[str, Any]]) -> None:
        """Take in the events of earlier processes, silently, before a resumed run goes on."""
        for event in events:
            self.progress_state.apply(event)

    def watch(self, name: str) -> None:
        """Show a run that another process has: the live view stays open until `close`.

        Args:
            name: The run's name, for the header.
        """
        self._watched = name
        if self.live:
            self._open_screen()
        else:
            self.info(f"watching {name}: {standing(self.progress_state)}")

    def begin_again(self) -> None:
        """Forget every event: the run is begun anew."""
        self.progress_state = RunProgress(self.progress_state.objective)

    def show_progress(self, *, name: str, note: str = "", now: float | None = None) -> None:
        """Print where the run stands: the live view once, or in a log a line.

        Args:
            name: The run's name.
            note: What it is in a word if it does not run.
            now: Unix time; None: the present.
        """
        self._close_display()
        self._watched = name
        if self._dated:
            self._line(f"{name}: {standing(self.progress_state)}")
        else:
            self._rich.print(self._view(note=note, now=now))

    def show_trials(self, records: list[TrialRecord], *, objective: str, direction: str) -> None:
        """Print the table of trials, best first at equal budget, failures last."""
        self._show(
            lambda: tables.trials_table(
                records, objective=objective, direction=direction, width=self.width
            )
        )

    def show_verdict(self, evaluation: dict[str, Any]) -> None:
        """Print the content of `evaluation.json`, with the notices again."""
        self._close_display()
        said = str(evaluation.get("notice") or "")
        notices = [*self._notices, *([said] if said and said not in self._notices else [])]
        for text in notices:
            self._banner(text)
        self._rich.print(tables.verdict_view(read_verdict(evaluation)))
        for text in notices:
            self._banner(text)

    def show_answers(self, ablation: dict[str, Any]) -> None:
        """Print the content of `ablation.json`, also when quiet."""
        self._close_display()
        self._rich.print(ablation_view(ablation))

    def info(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        """Print a warning, also when quiet."""
        self._line(f"warning: {text}", style="yellow")

    def error(self, text: str) -> None:
        """Print an error, also when quiet."""
        self._line(f"error: {text}", style="bold red")

    def close(self) -> None:
        """Take the live view off the screen; the console can go on printing."""
        self._close_display()

    def _line(self, text: str, style: str = "") -> None:
        words = Text(text, style=style)
        if self._dated:
            words = Text(f"{stamp(time.time())}  ", style="dim") + words
        # A log line is not wrapped: whoever reads the pipe may want to search it.
        self._rich.print(words, soft_wrap=self._dated)

    def _banner(self, text: str) -> None:
        self._rich.print(Panel(Text(text, justify="center"), style="bold yellow", expand=True))

    def _show(self, build: Callable[[], rich.console.RenderableType]) -> None:
        """Print what a builder returns; a dictionary of another version costs only this table."""
        if self.quiet:
            return
        self._close_display()
        try:
            self._rich.print(build())
        except (KeyError, TypeError, ValueError, AttributeError, RunDirectoryError) as problem:
            self.warn(f"this summary cannot be shown: {one_line(repr(problem))}")

    def _listen_live(self, kind: Any, event: dict[str, Any]) -> None:
        if kind in LIVE_EVENTS and not isinstance(self._display, Screen):
            self._open_screen()
        if kind == EventKind.SEARCH_ENDED:
            if not self._watched:
                self._close_display()
            # The view showed them while it was there; what follows has no place for them.
            for loss in self.progress_state.workers.losses:
                self._line(str(loss), style="red")
        elif kind == EventKind.WORKER_LOST and self.progress_state.search_ended:
            self._line(str(self.progress_state.workers.losses[-1]), style="red")
        # Of the rest, what the view shows leaves no line behind.
        if kind not in (EventKind.RUNG_CLOSED, EventKind.REFIT_STARTED, EventKind.WORKER_LOST):
            text = milestone(event, self.progress_state)
            if text is not None:
                self._line(text)

    def _view(
        self, height: int | None = None, *, note: str = "", now: float | None = None
    ) -> LiveView:
        return LiveView(
            progress=self.progress_state,
            now=time.time() if now is None else now,
            data=self._data,
            name=self._watched,
            note=note,
            height=height,
        )

    def _open_screen(self) -> None:
        self._open(Screen(self._rich, self._view))

    def _open(self, display: Screen | Progress) -> None:
        self._close_display()
        self._display = display
        display.start()

    def _close_display(self) -> None:
        display, self._display = self._display, None
        self._tasks = {}
        if isinstance(display, Progress):
            # It stays on the screen: what was of unknown length must not look unfinished.
            for task in display.tasks:
                if task.total is None:
                    display.update(task.id, total=1, completed=1)
        if display is not None:
            display.stop()

    def _live_progress(self, label: str, done: int, total: int) -> None:
        if not isinstance(self._display, Progress):
            self._open(
                Progress(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(bar_width=24),
                    TextColumn("{task.fields[count]}", markup=False),
                    TimeRemainingColumn(),
                    console=self._rich,
                    refresh_per_second=1 / REFRESH_SECONDS,
                )
            )
        if isinstance(self._display, Progress):
            if label not in self._tasks:
                # Unknown until it is said: rich would take 100 for it.
                self._tasks[label] = self._display.add_task(
                    one_line(label, 36), total=None, count=""
                )
            self._display.update(
                self._tasks[label],
                completed=done,
                total=total or None,
                count=f"{whole(done)}/{whole(total)}" if total else "",
            )

    def _sparse_progress(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if total <= 0:
            if label not in self._plain_progress:
                self._plain_progress[label] = (now, 0.0)
                self._line(f"{label} …")
            return
        last, reached = self._plain_progress.get(label, (float("-inf"), 0.0))
        share = done / total
        finished = done >= total and reached < 1
        if finished or (share >= reached + PROGRESS_STEP and now - last >= PROGRESS_INTERVAL):
            self._plain_progress[label] = (now, share)
            self._line(f"{label}: {whole(done)} of {whole(total)} ({share:.0%})")
