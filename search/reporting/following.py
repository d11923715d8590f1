"""Follows a run that another process has, by reading its directory; writes nothing there."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from enum import StrEnum
from typing import Any

from search.errors import RunDirectoryError
from search.journal import EventKind
from search.run_directory import RunDirectory

Event = dict[str, Any]

HEAD_BYTES = 256
"""Beginning of a journal by which it is recognized; the first event has its time in it."""

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


class JournalTail:
    """Reads the events that were appended since the last time.

    Attributes:
        damaged: Lines that could not be read, in the journal so far.
    """

    def __init__(self, run: RunDirectory) -> None:
        """Start before the first event."""
        self.run = run
        self.damaged = 0
        self._offset = 0
        self._head = b""

    def read(self) -> tuple[list[Event], bool]:
        """Return the new events, and whether they are of another journal than before.

        A last line that is not ended is left for the next time: it is being written.

        Raises:
            RunDirectoryError: The run was removed, or its journal cannot be read.
        """
        try:
            with open(self.run.journal_file, "rb") as handle:
                head = handle.read(HEAD_BYTES)
                again = not head.startswith(self._head)
                size = handle.seek(0, 2)
                if again or size < self._offset:
                    again = True
                    self._offset, self.damaged = 0, 0
                handle.seek(self._offset)
                text = handle.read()
        except FileNotFoundError:
            return [], self._lose()
        except OSError as error:
            raise RunDirectoryError(f"{self.run.journal_file}: cannot be read ({error})") from None
        self._head = head
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return self._events(whole), again

    def _lose(self) -> bool:
        """Note that there is no journal; return whether there was one.

        Raises:
            RunDirectoryError: The whole run is gone.
        """
        if not self.run.root.is_dir():
            raise RunDirectoryError(
                f"{self.run.root}: the run was removed or renamed while it was watched; "
                "name it again if it is elsewhere now"
            )
        known, self._head, self._offset = bool(self._head), b"", 0
        return known

    def _events(self, text: bytes) -> list[Event]:
        found = []
        for line in text.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                self.damaged += bool(line.strip())
                continue
            if isinstance(event, dict):
                found.append(event)
        return found


def state_of(
    run: RunDirectory, *, last: Event | None, started: Event | None, now: float | None = None
) -> RunState:
    """Return where a run stands.

    Args:
        run: The run.
        last: Its latest event.
        started: Its latest RUN_STARTED event, which says on which machine it runs.
        now: Unix time; None: the present.
    """
    # The lock first: a run that ends between the two looks writes its manifest before.
    if run.holder() is not None:
        return RunState.RUNNING
    if run.complete:
        return RunState.COMPLETE
    if last is not None and last.get("event") == EventKind.STOPPED:
        return RunState.STOPPED
    host = (started or {}).get("host")
    if host and host != socket.gethostname() and last is not None:
        silence = (time.time() if now is None else now) - float(last.get("time") or 0.0)
        if silence < ELSEWHERE_SILENCE:
            return RunState.RUNNING
    return RunState.DEAD


def words(run: RunDirectory, state: RunState, *, last: Event | None, started: Event | None) -> str:
    """Return a sentence on a run that has ended, with what to do; "" for one that goes on."""
    go_on = f"the command that started it, with --resume --name {run.name}, goes on"
    if state is RunState.COMPLETE:
        return f"the run is complete; python -m search.report {run.root} prints its report"
    if state is RunState.STOPPED:
        reason = (last or {}).get("reason")
        return f"the run was stopped{f' ({reason})' if reason else ''}; {go_on}"
    if state is RunState.DEAD:
        started = started or {}
        who = f"process {started['pid']}" if started.get("pid") else "the process that had it"
        with contextlib.suppress(KeyError):
            who += f" on {started['host']}"
        return f"{who} is gone and the run is unfinished; {go_on}"
    return ""
