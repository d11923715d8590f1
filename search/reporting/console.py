"""The one reporter for a person: a live view on a terminal, dated plain lines everywhere else.

Prints what others made: tables from `tables`, the screen from `live`. Nothing a run does depends on
it, and no event and no closed pipe makes it raise.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import rich.console
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

from search.journal import Event, EventKind
from search.records import Comparison, DatasetReport, PlanRecord, TrialRecord, TrialStatus
from search.reporting import format, tables
from search.reporting.live import LiveView
from search.reporting.progress import STAGE_WORDS, RunProgress
from search.tuning.selection import smoothed

REFRESH_SECONDS = 0.25
"""Least time between two redrawings for events; the clock alone is redrawn once a second."""

LINE_WIDTH = 118
"""Longest plain line, date included."""

EPOCH_SECONDS, NOTEBOOK_SECONDS = 5.0, 10.0
"""Least seconds between two plain lines about epochs, and about anything in a notebook."""

SIGN_SECONDS, MANY_DOTS = 2.5, 24
"""Seconds of silence after which a log gets a dot, and how many of them a line has."""


class Console:
    """Tells a person what a run does; a `records.Reporter`.

    Attributes:
        live: Whether there is a live view; else plain lines.
        state: What the events so far add up to.
    """

    def __init__(
        self,
        *,
        live: bool | None = None,  # live view or not; None: on a terminal and in a kernel
        quiet: bool = False,  # print only notices, warnings, errors and the end
        file: TextIO | None = None,  # standard output by default, nowhere if that is closed
        dated: bool = True,  # begin plain lines with date and time, as a log; a report does not
    ) -> None:
        """Choose how to print."""
        target = file or sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (for good)
        self._kernel = file is None and _kernel_display() is not None
        self.quiet = quiet
        self.live = (self._kernel or is_terminal(target)) if live is None else live
        self.live = self.live and not quiet
        self.state = RunProgress()
        self._dated = dated and not self.live
        self._rich = rich.console.Console(
            file=cast(TextIO, LastingFile(target)),
            force_terminal=True if self.live and not self._kernel else None,
            force_jupyter=False,
            highlight=False,
        )
        self._view: Live | _KernelView | None = None
        self._drawn = 0.0
        self._interval = NOTEBOOK_SECONDS if in_notebook() else EPOCH_SECONDS
        self._told = float("-inf")
        self._shown: dict[str, float] = {}
        self._spoke, self._dots = time.monotonic(), False
        self._notices: list[str] = []
        self._data = self._name = self._note = self._doing = ""
        self._now: float | None = None
        self._also: list[Callable[[Event], None]] = []

    def follow(self, objective: str) -> None:
        """Name the metric that the search ranks by; the live view and the lines show it."""
        self.state.objective = objective

    def also(self, listener: Callable[[Event], None]) -> None:
        """Pass every further event on to another listener, which must not raise."""
        self._also.append(listener)

    def notice(self, text: str) -> None:
        """Print a banner that cannot be missed, and again at the end."""
        if text not in self._notices:
            self._notices.append(text)
        self._banner(text)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Announce a stage, show that it lives, and print the time it took when it ends well."""
        start, over = time.monotonic(), threading.Event()
        self.heading(title)
        self._doing = title
        if self.live:
            self._open()
        elif not self.quiet:
            threading.Thread(target=self._signs, args=(title, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()
            self._doing = ""
            self.close()
        self.info(f"{title}: done in {format.duration(time.monotonic() - start)}")

    def heading(self, title: str) -> None:
        """Print the heading of what follows."""
        self.close()
        if self.quiet:
            return
        if self._dated:
            self._line(f"== {title}")
        else:
            self._print(Rule(Text(title, style="bold"), align="left", style="dim"))

    def progress(self, text: str, done: int, total: int) -> None:
        """Show how far a long piece of work is; a total of 0 announces one of unknown length."""
        share = f" {format.whole(done)} of {format.whole(total)}" if total else " …"
        self._doing = f"{text}{share}"
        now, before = time.monotonic(), self._shown.get(text)
        due = before is None or now - before >= EPOCH_SECONDS or (total and done >= total)
        if due and not self.quiet and not self.live:
            self._shown[text] = now
            self._line(self._doing)

    def know_data(self, report: DatasetReport) -> None:
        """Take a few words on the data for the header of the live view."""
        images = sum(report.counts["train"].values())
        kind = "SYNTHETIC images" if report.source.synthetic else "images"
        self._data = f"{images:,} {kind}"

    def show_data(self, report: DatasetReport) -> None:
        """Print the data in six lines, and the alarms."""
        self.know_data(report)
        self._show(tables.data_view(report))

    def show_plan(self, plan: PlanRecord) -> None:
        """Print the plan in eight lines."""
        self.state.plan = plan
        self._show(tables.plan_view(plan))

    def show_trials(self, records: Sequence[TrialRecord], *, objective: str) -> None:
        """Print the best trials by epochs trained, and how many failed."""
        self._show(tables.trials_view(records, objective))

    def show_end(self, comparison: Comparison, root: Path) -> None:
        """Print the end of a run: the result, where things are, and what one can type next."""
        self.close()
        for text in self._notices:
            self._banner(text)
        self._print(tables.end_view(comparison, width=self._rich.width))
        for name, file in (("report", "report.html"), ("model", "model.keras")):
            if (root / file).exists():
                self._print(Text(f"{name:<8}{root / file}"), soft_wrap=True)
        for arguments in ("predict {} IMAGE...", "evaluate {} --data FOLDER", "report {} --html"):
            command = Text(f"        python -m search.{arguments.format(root)}", style="cyan")
            self._print(command, soft_wrap=True)

    def show(self, view: rich.console.RenderableType) -> None:
        """Print what a command made, also when quiet."""
        self.close()
        self._print(view)

    def listen(self, event: Event) -> None:
        """Take in a journal event, and show it live or as a line; never raises."""
        known = self.state.apply(event)
        for listener in self._also:
            listener(event)
        if self.quiet or not known:
            return
        now = time.monotonic()
        if self._view is not None and now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._view.refresh()
        text, at = _milestone(event, self.state), float(event["time"])
        if text is None and not self.live:
            ended = event["event"] == EventKind.TRIAL_ENDED and self._interval < NOTEBOOK_SECONDS
            if ended or at - self._told >= self._interval:
                text = _step(event, self.state)
                self._told = self._told if text is None else at
        if text is not None:
            self._line(text)

    def replay(self, events: Iterable[Event]) -> None:
        """Take in the events of earlier processes, silently, before a resumed run goes on."""
        for event in events:
            self.state.apply(event)

    def watch(self, name: str) -> None:
        """Show a run that another process has: the live view stays open until `close`."""
        self._name = name
        if self.live:
            self._open()
        else:
            self.info(f"watching {name}: {standing(self.state)}")

    def begin_again(self) -> None:
        """Forget every event: the run begins from nothing."""
        self.state = RunProgress(self.state.objective)

    def show_progress(self, *, name: str, note: str = "", now: float | None = None) -> None:
        """Print where the run stands: the live view once, or in a log a line.

        The note is a word on a run that does not run, `now` Unix time or None for the present.
        """
        self.close()
        self._name, self._note, self._now = name, note, now
        if self._dated:
            self._line(f"{name}: {standing(self.state)}")
        else:
            self._print(self._frame(None))

    def info(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        """Print a warning, also when quiet."""
        self._line(f"warning: {text}", style="yellow", cut=False)

    def error(self, text: str) -> None:
        """Print an error, also when quiet."""
        self._line(f"error: {text}", style="bold red", cut=False)

    def close(self) -> None:
        """Take the live view off the screen; the console can go on printing."""
        view, self._view = self._view, None
        if view is not None:
            view.stop()

    def _line(self, text: str, *, style: str = "", cut: bool = True) -> None:
        if not self._dated:
            self._print(Text(text, style=style))
            return
        date = format.stamp(time.time()) + "  "
        text = format.one_line(text, LINE_WIDTH - len(date)) if cut else text
        # A log line is not wrapped: what reads the pipe may want to search it.
        self._print(Text(date, style="dim") + Text(text, style=style), soft_wrap=True)

    def _banner(self, text: str) -> None:
        self._print(Panel(Text(text, justify="center"), style="bold yellow", expand=True))

    def _show(self, view: rich.console.RenderableType) -> None:
        if self.quiet:
            return
        live = self._view is not None
        self.close()
        self._print(view)
        if live:
            self._open()

    def _signs(self, title: str, over: threading.Event) -> None:
        """Add a dot to the last line whenever a stage has been silent for long."""
        dots = 0
        while not over.wait(0.1):
            if time.monotonic() - self._spoke >= SIGN_SECONDS:
                dots = dots if self._dots else 0
                if dots == MANY_DOTS:
                    self._print(end="")
                    dots = 0
                words = f"{format.stamp(time.time())}  {self._doing or title} ."
                self._rich.print(Text("." if self._dots else words), end="", soft_wrap=True)
                self._dots, self._spoke = True, time.monotonic()
                dots += 1

    def _print(self, *views: Any, **options: Any) -> None:
        """Print, on a line of its own."""
        if self._dots:
            self._dots = False
            self._rich.print()
        self._spoke = time.monotonic()
        self._rich.print(*views, **options)

    def _frame(self, height: int | None) -> LiveView:
        doing = "" if self._doing == STAGE_WORDS.get(self.state.stage) else self._doing
        return LiveView(
            progress=self.state,
            now=self._now or time.time(),
            data=self._data,
            name=self._name,
            note=self._note or doing,
            height=height,
        )

    def _open(self) -> None:
        self.close()
        frame = _Frame(self._frame)
        if self._kernel:
            self._view = _KernelView(frame)
            return
        self._view = _SteadyLive(frame, console=self._rich, refresh_per_second=1, transient=True)
        self._view.start(refresh=True)


def _milestone(event: Event, state: RunProgress) -> str | None:
    """Return a line about the events that a live view leaves behind on the screen too."""
    kind = event["event"]
    if kind == EventKind.WORKER_LOST:
        return state.problems[-1]
    if kind == EventKind.SEARCH_ENDED:
        trials, epochs = format.plural(event["trials"], "trial"), event["epochs"]
        failed = f" ({event['failed']} failed)" if event["failed"] else ""
        took = f"{format.plural(epochs, 'epoch')} in {format.duration(event['seconds'])}"
        return f"search ended: {trials}{failed}, {took}{_best(state)}"
    if kind == EventKind.REFIT_ENDED:
        run = state.retraining[event["role"], event["seed"]]
        which = format.training(run.role, run.seed)
        if event["failure"] is not None:
            return f"retraining {which} failed: {format.one_line(event['failure']['message'])}"
        kept = event["kept_epoch"]
        known = 0 < kept <= run.epoch  # the score by which it is judged
        value = format.metric(smoothed(run.scores[:kept], epochs=kept)) if known else ""
        took = format.duration(event["seconds"])
        return f"retrained {which}: epoch {kept} kept, {state.objective} {value}, {took}"
    if kind == EventKind.TEST_SCORED:
        return f"evaluated on the test set: {format.plural(len(event['scorings']), 'network')}"
    return f"stopped: {event['reason']}" if kind == EventKind.STOPPED else None


def _step(event: Event, state: RunProgress) -> str | None:
    """Return a line about the events of which a log tells some, None about others."""
    kind = event["event"]
    if kind == EventKind.REFIT_EPOCH:
        run = state.retraining[event["role"], event["seed"]]
        return _epoch(f"retraining {format.training(run.role, run.seed)}", run.epochs, event, state)
    if kind not in (EventKind.TRIAL_STARTED, EventKind.EPOCH, EventKind.TRIAL_ENDED):
        return None
    record = state.trials[event["trial_id"]]
    trial = f"trial {record.trial_id}"
    if kind == EventKind.EPOCH:
        return _epoch(trial, record.target_epochs, event, state)
    if kind == EventKind.TRIAL_STARTED:
        # The first start is no news; after a kill or a lost worker it is.
        again = f"{trial} goes on after epoch {record.epochs} in worker {event['worker']}"
        return again if state.starts[record.trial_id] > 1 else None
    if record.status is TrialStatus.FAILED:
        return f"{trial} failed{_best(state)}: {format.reason(record)}"
    if record.status is TrialStatus.LEARNED_NOTHING:
        return f"{trial} learned nothing @{record.epochs}{_best(state)}"
    score = f"{state.objective} {format.metric(record.score)}"
    tries = format.described(record, state.baseline, short=True)
    return f"{trial} @{record.epochs} {score}{_best(state)}: {tries}"


def _epoch(what: str, planned: int, event: Event, state: RunProgress) -> str:
    value = format.metric(event["metrics"].get(state.objective))
    where = f"{what} epoch {event['epoch']}/{planned}"
    return f"{where}: {state.objective} {value}; {', '.join(_left(state))}"


def standing(state: RunProgress) -> str:
    """Return where a run stands on one line."""
    if state.stage in STAGE_WORDS:
        return STAGE_WORDS[state.stage]
    failed = len(state.with_status(TrialStatus.FAILED))
    epochs, *left = _left(state)
    parts = [epochs, *([f"{format.plural(failed, 'trial')} failed"] if failed else []), *left]
    doing = "retraining" if state.stage == "retrain" else "search"
    return f"{doing}: {', '.join(parts)}{_best(state)}"


def _left(state: RunProgress) -> list[str]:
    """Return the epochs done of all, and the time left where it is known."""
    done, left = state.epochs
    seconds = state.seconds_left()
    counts = f"{format.whole(done)}/{format.whole(done + left)} epochs"
    return [counts] if seconds is None else [counts, f"{format.duration(seconds)} left"]


def _best(state: RunProgress) -> str:
    if not state.top:
        return ""
    best = state.top[0]
    return f"; best {format.metric(best.score)} ({best.trial_id} @{best.epochs})"


class LastingFile:
    """A text file that never raises: a search does not end because `head` or a log's disk did.

    What its encoding cannot write is replaced; after the reader of a pipe has left, or the disk of
    a redirected output is full, everything is dropped.
    """

    def __init__(self, file: TextIO) -> None:
        """Wrap a file."""
        self._file = file
        self._lost = False

    def write(self, text: str) -> int:
        """Write, or drop."""
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        self._try(lambda: self._file.write(text.encode(encoding, "replace").decode(encoding)))
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        self._try(self._file.flush)

    def _try(self, act: Callable[[], Any]) -> None:
        if self._lost:
            return
        try:
            act()
        except (OSError, ValueError):
            self._lost = True
            if self._file is sys.stdout:
                # What is buffered would raise again when the interpreter flushes it at exit.
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def is_terminal(file: TextIO) -> bool:
    """Return whether a file is a terminal that can redraw; a notebook's `!command` cannot.

    Not rich's own test: FORCE_COLOR in CI must colour lines, not start a live view.
    """
    if os.environ.get("TERM") in ("dumb", "unknown") or in_notebook():
        return False
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return file.isatty()
    return False


def in_notebook() -> bool:
    """Return whether this is a command that a notebook's kernel started: `!command`."""
    return "JPY_PARENT_PID" in os.environ and _kernel_display() is None


def _kernel_display() -> Callable[..., Any] | None:
    """Return IPython's `display` inside a kernel, None elsewhere; imports nothing new."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    found: Callable[..., Any] = display
    return found


class _Frame:
    """The lines of the view; those of before if an event changes the state while they are made."""

    def __init__(self, draw: Callable[[int | None], LiveView]) -> None:
        self.draw = draw
        self._lines: list[list[Segment]] = []

    def __rich_console__(
        self, console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> rich.console.RenderResult:
        # No lock, since a signal handler that prints could wait for it forever. The last line of
        # a terminal is left free: a full screen would scroll.
        with contextlib.suppress(Exception):
            self._lines = console.render_lines(self.draw(console.height - 1), options, pad=False)
        for line in self._lines:
            yield from line
            yield Segment.line()


class _SteadyLive(Live):
    """Asks the terminal to show each redrawing at once, where it can (DEC private mode 2026).

    Rich erases the old lines and writes the new ones; a terminal that paints in between flickers.
    """

    def process_renderables(
        self, renderables: list[rich.console.ConsoleRenderable]
    ) -> list[rich.console.ConsoleRenderable]:
        drawn = super().process_renderables(renderables)
        return [_control("\x1b[?2026h"), *drawn, _control("\x1b[?2026l")]


def _control(code: str) -> Segments:
    # Rich prints the text of a control segment as it is; the kind named here has no effect.
    codes: Sequence[Any] = [(ControlType.CARRIAGE_RETURN,)]
    return Segments([Segment(code, None, codes)])


class _KernelView:
    """The live view in the output of a notebook's cell, updated in place once a second."""

    def __init__(self, frame: _Frame) -> None:
        self._frame = frame
        self._over = threading.Event()
        display = _kernel_display()
        assert display is not None, "opened inside a kernel only"
        self._handle = display(self._text(), raw=True, display_id=True)
        threading.Thread(target=self._tick, daemon=True).start()

    def stop(self) -> None:
        """Leave the last state in the cell."""
        self._over.set()
        self._handle.update(self._text(), raw=True)

    def refresh(self) -> None:
        """Show the present state."""
        with contextlib.suppress(Exception):
            self._handle.update(self._text(), raw=True)

    def _tick(self) -> None:
        while not self._over.wait(1.0):
            self.refresh()

    def _text(self) -> dict[str, str]:
        page = rich.console.Console(
            width=100, height=40, file=io.StringIO(), record=True, force_jupyter=False
        )
        page.print(self._frame.draw(None))
        return {"text/plain": page.export_text()}
