"""Watches a run from another terminal: `python -m search.watch RUN`."""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Sequence
from enum import StrEnum

from search import cli
from search.config import RunConfig
from search.errors import RunDirectoryError, SearchError
from search.journal import Event, EventKind
from search.records import Comparison, DatasetReport
from search.reporting.console import Console
from search.run_directory import RunDirectory, locate

POLL_SECONDS = 0.25
STATE_SECONDS = 2.0
"""How often it is asked whether the run's process still lives."""

ELSEWHERE_SILENCE = 900.0
"""Seconds without an event after which a run of another machine counts as dead, where a lock that
is free here says little: file systems differ in whether locks reach other machines."""


class RunState(StrEnum):
    """Where a run stands, seen from outside."""

    RUNNING = "running"
    """A process has it."""
    COMPLETE = "complete"
    """It ended, the manifest is written."""
    STOPPED = "stopped"
    """Its process ended early, in order."""
    DEAD = "dead"
    """Its process is gone without a word."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 when the run ended in order or was left with Ctrl-C, 1 when its process is
        gone and it is unfinished, 2 when there is no such run.
    """
    options = parser().parse_args(arguments)
    console = Console(
        live=False if options.no_live or options.once else None, dated=not options.once
    )
    try:
        run = locate(options.run, options.results_dir)
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
    cli.add_results_dir(made)
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
        self._events: list[Event] = []
        self._size = -1
        self._described = False
        self._describe()
        console.replay(self._new_events())

    @property
    def state(self) -> RunState:
        """Return where the run stands."""
        # The lock first: a run that ends between the two looks writes its manifest before.
        if self.run.holder() is not None:
            return RunState.RUNNING
        if self.run.complete:
            return RunState.COMPLETE
        if not self._events:
            return RunState.DEAD
        last = self._events[-1]
        if last["event"] == EventKind.STOPPED:
            return RunState.STOPPED
        elsewhere = self._started.get("host", socket.gethostname()) != socket.gethostname()
        silent = time.time() - last["time"] >= ELSEWHERE_SILENCE
        return RunState.RUNNING if elsewhere and not silent else RunState.DEAD

    def show_once(self) -> int:
        """Print one frame of the view; the exit code is 0 whatever the run's state."""
        self._show_frame(self.state)
        return 0

    def follow(self) -> int:
        """Show the run until it ends, then its result, if there is one.

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
        if state is RunState.COMPLETE:
            self.console.show_end(self.run.read(Comparison, "evaluation.json"), self.run.root)
        else:
            self._show_frame(state)
        return 1 if state is RunState.DEAD else 0

    def _take_in(self) -> None:
        new = self._new_events()
        self._describe()
        for event in new:
            self.console.listen(event)

    def _new_events(self) -> list[Event]:
        """Return the events since the last time; all of them where the run began from nothing.

        Raises:
            RunDirectoryError: The run was removed, or its journal is damaged.
        """
        journal = self.run.journal_file
        if not self.run.root.is_dir():
            raise RunDirectoryError(
                f"{self.run.root}: the run was removed or renamed while it was watched; name it "
                "again if it is elsewhere now"
            )
        size = journal.stat().st_size if journal.exists() else 0
        if size == self._size:
            return []
        known, self._events, self._size = self._events, self.run.events(), size
        if self._events[: len(known)] == known:
            return self._events[len(known) :]
        self.console.begin_again()
        self.console.info("the run was begun again from nothing")
        self._described = False
        return self._events

    @property
    def _started(self) -> Event:
        """Return the latest RUN_STARTED event, {} before there is one."""
        begun = [event for event in self._events if event["event"] == EventKind.RUN_STARTED]
        return begun[-1] if begun else {}

    def _describe(self) -> None:
        """Take the objective and the data's description once they are written."""
        if not self._described and (self.run.root / "config.json").exists():
            self.console.follow(self.run.read(RunConfig, "config.json").objective)
            self._described = (self.run.root / "dataset.json").exists()
            if self._described:
                self.console.know_data(self.run.read(DatasetReport, "dataset.json"))

    def _show_frame(self, state: RunState) -> None:
        running = state is RunState.RUNNING
        note = "" if running else state.value
        now = None if running else self.console.state.last
        self.console.show_progress(name=self.run.name, note=note, now=now)
        if not running:
            self.console.info(self._ending(state))

    def _ending(self, state: RunState) -> str:
        """Say how the run ended, and what to do."""
        go_on = f"the command that started it, with --resume --name {self.run.name}, goes on"
        if state is RunState.COMPLETE:
            return f"the run is complete; python -m search.report {self.run.root} prints its report"
        if state is RunState.STOPPED:
            return f"the run was stopped ({self._events[-1]['reason']}); {go_on}"
        started = self._started
        who = f"process {started['pid']} on {started['host']}" if started else "its process"
        return f"{who} is gone and the run is unfinished; {go_on}"


if __name__ == "__main__":
    sys.exit(cli.execute(main))
