"""Watches a run from another terminal: `python -m search.watch RUN`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from search import cli
from search.config import RunConfig
from search.errors import SearchError
from search.journal import EventKind
from search.records import Comparison, DatasetReport
from search.reporting.console import Console
from search.reporting.following import Event, JournalTail, RunState, state_of, words
from search.run_directory import RunDirectory, locate

POLL_SECONDS = 0.25
STATE_SECONDS = 2.0
"""How often it is asked whether the run's process still lives."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the command's name; None: those of the process.

    Returns:
        The exit code: 0 when the run ended in order or was left with Ctrl-C, 1 when its process is
        gone and it is unfinished, 2 when there is no such run.
    """
    options = parser().parse_args(arguments)
    console = Console(
        live=False if options.no_live or options.once else None, dated=not options.once
    )
    try:
        run = locate(options.run, Path(options.results_dir))
        watched = Watched(run, console)
        return watched.show_once() if options.once else watched.follow()
    except SearchError as error:
        console.close()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        console.close()
        console.info("no longer watching; the run is left alone")
        return 0
    finally:
        console.close()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = cli.Parser(
        prog="python -m search.watch",
        description="Watch a run from another terminal, by reading its journal; Ctrl-C leaves it "
        "alone.",
    )
    made.add_argument("run", metavar="RUN", help="a run directory, or its name")
    made.add_argument(
        "--results-dir",
        default="results",
        metavar="DIR",
        help="where names are looked for (results)",
    )
    made.add_argument("--once", action="store_true", help="print where it stands, and end")
    made.add_argument("--no-live", action="store_true", help="plain lines, no live view")
    return made


class Watched:
    """A run that another process has, and the console it is shown on."""

    def __init__(self, run: RunDirectory, console: Console) -> None:
        """Read what there is, silently.

        Raises:
            RunDirectoryError: The journal cannot be read.
        """
        self.run = run
        self.console = console
        self._tail = JournalTail(run)
        self._last: Event | None = None
        self._started: Event | None = None
        self._described = False
        self._describe()
        events, _ = self._tail.read()
        self._note(events)
        console.replay(events)

    @property
    def state(self) -> RunState:
        """Return where the run stands."""
        return state_of(self.run, last=self._last, started=self._started)

    def show_once(self) -> int:
        """Print one frame of the view; the exit code is 0 whatever the run's state."""
        self._show_frame(self.state)
        return 0

    def follow(self) -> int:
        """Show the run until it ends, then its verdict, if there is one.

        Returns:
            The exit code.

        Raises:
            RunDirectoryError: The run was removed meanwhile.
        """
        state = self.state
        if state is RunState.RUNNING:
            self.console.watch(self.run.name)
        asked = time.monotonic()
        while state is RunState.RUNNING:
            time.sleep(POLL_SECONDS)
            self._take_in()
            if time.monotonic() - asked >= STATE_SECONDS:
                state, asked = self.state, time.monotonic()
                if state is not RunState.RUNNING:
                    # Its last words may have come after they were looked for.
                    self._take_in()
                    state = self.state
        self.console.close()
        return self._show_end(state)

    def _take_in(self) -> None:
        events, again = self._tail.read()
        if again:
            self.console.begin_again()
            self._last = self._started = None
            self._described = False
            self.console.info("the run was begun again from nothing")
        self._describe()
        self._note(events)
        for event in events:
            self.console.listen(event)

    def _note(self, events: list[Event]) -> None:
        """Remember what tells whether the run lives."""
        if events:
            self._last = events[-1]
        for event in events:
            if event.get("event") == EventKind.RUN_STARTED:
                self._started = event

    def _describe(self) -> None:
        """Take the objective and the data's description once they are written."""
        if self._described or not (self.run.root / "dataset.json").exists():
            return
        self.console.follow(self.run.read(RunConfig, "config.json").objective)
        self.console.know_data(self.run.read(DatasetReport, "dataset.json"))
        self._described = True

    def _show_frame(self, state: RunState) -> None:
        running = state is RunState.RUNNING
        self.console.show_progress(
            name=self.run.name,
            note="" if running else state.value,
            now=None if running else self.console.state.last,
        )
        if not running:
            self.console.info(words(self.run, state, last=self._last, started=self._started))

    def _show_end(self, state: RunState) -> int:
        if state is RunState.COMPLETE:
            self.console.show_end(self.run.read(Comparison, "evaluation.json"), self.run.root)
        else:
            self._show_frame(state)
        return 1 if state is RunState.DEAD else 0


if __name__ == "__main__":
    sys.exit(cli.execute(main))
