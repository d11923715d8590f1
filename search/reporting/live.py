"""The live view of a run: one screen from a RunProgress; pure, the caller refreshes it.

Made for 80 columns and 24 lines. Wider terminals show more of the hyperparameters and longer
sparklines, higher ones more rows; lower ones lose rows of every section before they lose a section.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.reporting import occupancy, panels
from search.reporting.panels import line
from search.reporting.progress import RunProgress
from search.reporting.stages import STAGE_WORDS
from search.reporting.tables import HEAD, RUNNING
from search.reporting.wording import clock, duration, fitting, plural, whole

SHOWN_TOP = 5
HEADER_LINES = 3


@dataclass(frozen=True, kw_only=True)
class LiveView:
    """The screen at one moment; fits itself to the width it is printed in.

    Attributes:
        progress: Where the run stands.
        now: Unix time.
        data: A few words on the data, for the header.
        name: The run's name, "" to leave it out.
        note: What it is in a word if it does not run, e.g. "stopped".
        height: Lines to fit in; None takes what is needed.
    """

    progress: RunProgress
    now: float
    data: str = ""
    name: str = ""
    note: str = ""
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the sections from top to bottom."""
        progress, width = self.progress, options.max_width
        yield from self._header(width)
        training = progress.stage in ("data", "plan", "search") or not progress.retraining.runs
        needs = _search_needs(progress) if training else _retraining_needs(progress)
        rows, spaced = allot(needs, None if self.height is None else self.height - HEADER_LINES)
        for name, count in rows.items():
            if not count:
                continue
            if spaced:
                yield Text("")
            if name == "brackets":
                yield occupancy.occupancy_table(progress, rows=count)
            elif name == "workers":
                yield panels.workers_table(progress, now=self.now, width=width, rows=count)
            elif name == "top":
                yield panels.top_table(progress, rows=count)
            elif name == "retraining":
                yield panels.retraining_table(progress, width=width, rows=count)
            else:
                yield from panels.problem_lines(progress, rows=count)

    def _header(self, width: int) -> Iterator[RenderableType]:
        """Yield what runs, the progress bar, and the times."""
        progress = self.progress
        arrow = "↓" if progress.direction == "min" else "↑"
        count = len(progress.workers.rows())
        words = [
            self.name,
            str(progress.plan.get("tuner", "")),
            f"{progress.objective} {arrow}",
            self.data,
            plural(count, "worker") if count > 1 else "",
            progress.device,
        ]
        text = " · ".join(word for word in words if word)
        # Of "CPU, 2 cores (tensorflow)" the backend is what is missed least.
        yield line(text if len(text) <= width else text.partition(" (")[0], style=HEAD)
        if progress.stage in STAGE_WORDS:
            elapsed = f"{clock(progress.elapsed(self.now))} elapsed"
            doing = STAGE_WORDS[progress.stage]
            yield line(" · ".join(word for word in (doing, self.note, elapsed) if word))
            return
        done, left = _epochs(progress)
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        total = max(done + left, 1)
        doing = "retraining" if progress.stage == "retrain" else "search"
        bar.add_row(
            ProgressBar(total=total, completed=done, complete_style=RUNNING),
            f"{doing} {done / total:.0%}",
        )
        yield bar
        yield line(fitting(self._times(done, left), width))

    def _times(self, done: int, left: int) -> list[tuple[int, str]]:
        """Return the words on epochs and times, each with its importance for `fitting`."""
        progress = self.progress
        pace, then = progress.seconds_per_epoch, progress.retraining_seconds()
        times = [(0, f"{whole(done)}/{whole(done + left)} epochs")]
        if self.note:
            times.append((0, self.note))
        if pace is not None:
            times.append((4, f"{duration(pace)} each"))
        times.append((2, f"{clock(progress.elapsed(self.now))} elapsed"))
        if progress.plan or progress.search_ended:
            times.append((1, f"{clock(progress.seconds_left(self.now))} left"))
        if then and not progress.search_ended:
            times.append((3, f"retraining {clock(then)}"))
        return times


@dataclass(frozen=True, kw_only=True)
class Need:
    """Lines of a section, its heading included.

    Attributes:
        wanted: What it takes when there is room; 0 where it is absent.
        useful: What it gives up only after every other section is down to this.
        least: What it never gives up.
    """

    wanted: int
    useful: int
    least: int


def need(rows: int, *, useful: int, least: int, heading: int = 1) -> Need:
    """Return the lines of a section with so many rows."""
    if not rows:
        return Need(wanted=0, useful=0, least=0)
    return Need(
        wanted=rows + heading, useful=min(rows, useful) + heading, least=min(rows, least) + heading
    )


def allot(needs: dict[str, Need], space: int | None) -> tuple[dict[str, int], bool]:
    """Divide the lines of a screen.

    Args:
        needs: Lines by section.
        space: Lines there are; None for as many as are wanted.

    Returns:
        Lines of each section, and whether empty lines fit between them.
    """
    given = {name: section.wanted for name, section in needs.items()}
    gaps = sum(1 for count in given.values() if count)
    if space is None or sum(given.values()) + gaps <= space:
        return given, True
    for floor in ("useful", "least"):
        while sum(given.values()) > space:
            name = max(given, key=lambda name: given[name] - getattr(needs[name], floor))
            if given[name] <= getattr(needs[name], floor):
                break
            given[name] -= 1
    return given, False


def _search_needs(progress: RunProgress) -> dict[str, Need]:
    """Return the lines of each section while trials are trained."""
    workers = min(len(panels.worker_rows(progress)), panels.SHOWN_WORKERS + 1)
    return {
        "brackets": need(occupancy.lines(progress), useful=4, least=2),
        "workers": need(workers, useful=6, least=2),
        "top": need(min(SHOWN_TOP, len(progress.top)), useful=3, least=1),
        "problems": _problem_needs(progress),
    }


def _retraining_needs(progress: RunProgress) -> dict[str, Need]:
    runs = len(progress.retraining.runs)
    return {
        "retraining": need(runs, useful=3, least=1),
        "problems": _problem_needs(progress),
    }


def _problem_needs(progress: RunProgress) -> Need:
    rows = min(len(progress.problems), panels.SHOWN_PROBLEMS + 1)
    return need(rows, useful=2, least=1, heading=0)


def _epochs(progress: RunProgress) -> tuple[int, int]:
    """Return the epochs done and left of the search, or of the retraining after it."""
    if progress.stage == "retrain":
        return progress.retraining.epochs_done, progress.retraining.epochs_left
    return progress.epochs_done, progress.epochs_left
