"""What each worker does, from the events that name workers; older journals have none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from search.journal import EventKind
from search.reporting.wording import is_number, one_line

Event = dict[str, Any]


@dataclass(kw_only=True)
class Worker:
    """A process that trains trials, or its place while it is replaced.

    Attributes:
        name: Its number.
        pid: Its process, None if unknown.
        device: What it trains on, "" if unknown.
        trial_id: The trial it trains, None when it has none.
        lost: Whether it was lost and its replacement has not taken a trial yet.
    """

    name: str
    pid: int | None = None
    device: str = ""
    trial_id: str | None = None
    lost: bool = False


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A worker that died, hung or took too long.

    Attributes:
        name: Its number.
        pid: Its process, None if unknown.
        trial_id: The trial it was training, None if unknown.
        reason: Why it was given up.
        retry: Whether the trial goes on elsewhere.
    """

    name: str
    pid: int | None
    trial_id: str | None
    reason: str
    retry: bool

    def __str__(self) -> str:
        pid = "" if self.pid is None else f" (process {self.pid})"
        text = f"lost worker {self.name}{pid}: {self.reason}"
        if self.trial_id is None:
            return text
        return f"{text}; trial {self.trial_id} {'goes on elsewhere' if self.retry else 'given up'}"


class Workers:
    """The workers of the process that has the run.

    Attributes:
        planned: How many there should be, None if unknown.
        losses: Workers that were lost, in order, over all processes of the run.
        starts: How often each trial was taken by a worker.
    """

    def __init__(self) -> None:
        """Know of no worker."""
        self.planned: int | None = None
        self.losses: list[Loss] = []
        self.starts: Counter[str] = Counter()
        self._known: dict[str, Worker] = {}

    def plan(self, count: Any) -> None:
        """Take in how many there should be, from RUN_STARTED or PLAN, where it says so."""
        if is_number(count):
            self.planned = int(count)

    def dismiss(self) -> None:
        """Forget all of them: their process or their work has ended."""
        self._known.clear()
        self.planned = None

    def start(self, event: Event) -> None:
        """Take in that a worker took a trial: TRIAL_STARTED, or TRIAL_CREATED if it says so."""
        if event.get("worker") is None:
            return
        name, trial_id = str(event["worker"]), str(event["trial_id"])
        if event["event"] == EventKind.TRIAL_STARTED:
            self.starts[trial_id] += 1
        self.release(trial_id)
        pid = event.get("pid")
        self._known[name] = Worker(
            name=name,
            pid=int(pid) if is_number(pid) else None,
            device=str(event.get("device") or ""),
            trial_id=trial_id,
        )

    def release(self, trial_id: str) -> None:
        """Note that a trial is in no worker any more."""
        for worker in self._known.values():
            if worker.trial_id == trial_id:
                worker.trial_id = None

    def lose(self, event: Event) -> None:
        """Take in WORKER_LOST."""
        pid, trial_id = event.get("pid"), event.get("trial_id")
        loss = Loss(
            name=str(event["worker"]),
            pid=int(pid) if is_number(pid) else None,
            trial_id=None if trial_id is None else str(trial_id),
            reason=one_line(event.get("reason") or "no reason given"),
            retry=bool(event.get("retry")),
        )
        self.losses.append(loss)
        self._known[loss.name] = Worker(name=loss.name, lost=True)

    def rows(self) -> list[Worker]:
        """Return the workers by number, those that have taken no trial yet included."""
        found = dict(self._known)
        for number in range(self.planned or 0):
            found.setdefault(str(number), Worker(name=str(number)))
        return sorted(found.values(), key=lambda worker: (len(worker.name), worker.name))

    def training(self, trial_id: str) -> Worker | None:
        """Return the worker that trains a trial, None if none is known to."""
        return next((w for w in self._known.values() if w.trial_id == trial_id), None)
