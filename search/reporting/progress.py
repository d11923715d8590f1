"""Where a run stands, from its events: what the live view, the plain log and reports look at.

Feeding it every line of a journal gives the same state as listening from the start. A strange
event is counted and skipped: a display must never stop a search. What is costly to add up is kept
until the next event, so that a screen that is redrawn in between costs next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from search import journal
from search.config import direction
from search.errors import RunDirectoryError
from search.journal import EventKind
from search.records import TrialRecord, TrialStatus, Values
from search.reporting import remaining, stages
from search.reporting.facts import mapping
from search.reporting.retraining import Retrainings
from search.reporting.throughput import Throughput
from search.reporting.trials import finalists, reason
from search.reporting.wording import documented_values, is_number
from search.reporting.workers import Workers

Event = dict[str, Any]
RungKey = remaining.RungKey
T = TypeVar("T")


class RunProgress:
    """What happened so far.

    Attributes:
        objective: The metric shown; set it before the first event.
        plan: Fields of the PLAN event.
        trials: Trials by id, in the order of creation.
        closed: Rungs (iteration, bracket, rung) that are closed.
        workers: What each worker does.
        retraining: Where the retraining stands.
        device: What the run computes on, "" if unknown.
        stage: The stage the run is in, of `stages.STAGES`.
        search_ended: Whether the search is over.
        problems: A line for every failed trial and lost worker, in order.
        begun: Unix time of the last event of each running trial.
        strange: Events that could not be read.
        started: Unix time when this process took the run.
        last: Unix time of the latest event.
        version: Grows with every event; what is shown changes only with it and with the time.
    """

    def __init__(self, objective: str = "robust_loss") -> None:
        """Start before the first event."""
        self.objective = objective
        self.plan: dict[str, Any] = {}
        self.trials: dict[str, TrialRecord] = {}
        self.closed: set[RungKey] = set()
        self.workers = Workers()
        self.retraining = Retrainings()
        self.device = ""
        self.stage = stages.STAGES[0]
        self.search_ended = False
        self.problems: list[str] = []
        self.begun: dict[str, float] = {}
        self.strange = 0
        self.started: float | None = None
        self.last: float | None = None
        self.version = 0
        self._throughput = Throughput()
        self._kept: dict[str, tuple[int, Any]] = {}

    @property
    def direction(self) -> str:
        """Return "min" or "max", for the objective."""
        return direction(self.objective)

    def apply(self, event: Event) -> bool:
        """Take one event in.

        Returns:
            Whether it could be read.
        """
        try:
            self._apply(event)
        except (KeyError, TypeError, ValueError, AttributeError, RunDirectoryError):
            self.strange += 1
            return False
        finally:
            # Last, so that what another thread added up meanwhile is not kept.
            self.version += 1
        return True

    def _apply(self, event: Event) -> None:
        kind, time = event["event"], event.get("time")
        if is_number(time):
            self.last = float(time)
            if self.started is None:
                self.started = self.last
        if kind == EventKind.RUN_STARTED:
            self._take(event)
        elif kind == EventKind.PLAN:
            self.plan = dict(event)
            self.workers.plan(event.get("workers"))
        elif kind == EventKind.STAGE:
            self.stage = stages.after(event["name"])
        elif kind in (EventKind.TRIAL_CREATED, EventKind.TRIAL_STARTED, EventKind.EPOCH):
            self._apply_training(kind, event)
        elif kind == EventKind.TRIAL_ENDED:
            self._end_trial(event)
        elif kind == EventKind.WORKER_LOST:
            self.workers.lose(event)
            self.problems.append(str(self.workers.losses[-1]))
        elif kind == EventKind.RUNG_CLOSED:
            self.closed.add((event["iteration"], event["bracket"], event["rung"]))
        elif kind == EventKind.SEARCH_ENDED:
            self.search_ended, self.stage = True, "retrain"
            self._throughput.forget()
            self.workers.dismiss()
        elif kind in (EventKind.REFIT_STARTED, EventKind.REFIT_EPOCH, EventKind.REFIT_ENDED):
            self._apply_refit(kind, event)

    def _take(self, event: Event) -> None:
        """Take in that a process took the run, the first or one that resumes."""
        # The time between a kill and the resumption is nobody's work.
        self._throughput.pause()
        self.started, self.stage = self.last, "plan"
        self.device = _device(event.get("device")) or self.device
        self.workers.dismiss()
        self.workers.plan(event.get("workers"))
        self.begun.clear()

    def _apply_training(self, kind: str, event: Event) -> None:
        seconds: float | None = None
        if kind == EventKind.TRIAL_CREATED:
            record = journal.created(event)
            self.workers.start(event)
        elif kind == EventKind.TRIAL_STARTED:
            record = self.trials[event["trial_id"]]
            self.workers.start(event)
        else:
            record = journal.with_epoch(self.trials[event["trial_id"]], event)
            seconds = float(event["seconds"])
        self.trials[record.trial_id] = record
        self.stage = "search"
        if self.last is not None:
            self.begun[record.trial_id] = self.last
        self._throughput.count(self.last, epoch_seconds=seconds)

    def _end_trial(self, event: Event) -> None:
        record = journal.ended(self.trials[event["trial_id"]], event)
        self.trials[record.trial_id] = record
        self.workers.release(record.trial_id)
        self.begun.pop(record.trial_id, None)
        if record.status is TrialStatus.FAILED:
            self.problems.append(f"failed {record.trial_id} {reason(record)}")
        self._throughput.count(self.last)

    def _apply_refit(self, kind: str, event: Event) -> None:
        self.retraining.apply(event, self.objective)
        self.stage = "retrain"
        done = kind == EventKind.REFIT_EPOCH
        self._throughput.count(self.last, epoch_seconds=float(event["seconds"]) if done else None)

    @property
    def records(self) -> list[TrialRecord]:
        """Return the trials in the order of creation."""
        return list(self.trials.values())

    @property
    def running(self) -> list[TrialRecord]:
        """Return the trials that are being trained or wait for a worker."""
        return self._keep("running", lambda: self._with_status(TrialStatus.RUNNING))

    @property
    def failed(self) -> list[TrialRecord]:
        """Return the trials that failed."""
        return self._keep("failed", lambda: self._with_status(TrialStatus.FAILED))

    @property
    def top(self) -> list[TrialRecord]:
        """Return each configuration's furthest completed trial, best first."""
        return self._keep("top", lambda: finalists(self.trials.values(), self.direction))

    @property
    def documented(self) -> Values:
        """Return the documented configuration's values, as far as known."""
        return documented_values(self.trials.values())

    @property
    def epochs_done(self) -> int:
        """Return the epochs trained, those of failed trials included."""
        return self._keep("epochs", self._count_epochs)[0]

    @property
    def epochs_left(self) -> int:
        """Return the epochs the plan still needs; what a failed trial spent is trained again."""
        if self.search_ended:
            return 0
        planned, useful = self.plan.get("epochs"), self._keep("epochs", self._count_epochs)[1]
        started = sum(max(0, r.target_epochs - r.epochs) for r in self.running)
        return max(int(planned) - useful if is_number(planned) else 0, started)

    def _count_epochs(self) -> tuple[int, int]:
        """Return the epochs trained, in all and without those of failed trials."""
        done = useful = 0
        for record in self.trials.values():
            trained = record.epochs - record.initial_epoch
            done += trained
            useful += trained if record.status is not TrialStatus.FAILED else 0
        return done, useful

    @property
    def seconds_per_epoch(self) -> float | None:
        """Return wall time per epoch, all workers together: measured lately, else the plan's."""
        measured = self._throughput.per_epoch
        return remaining.planned_pace(self.plan) if measured is None else measured

    def seconds_left(self, now: float | None = None) -> float | None:
        """Return the time the search, or after it the retraining, still needs; None if unknown.

        Args:
            now: Unix time; what passed since the last event is taken off.
        """
        pace = self.seconds_per_epoch
        if pace is None:
            return None
        over, retraining = self.search_ended, self.retraining
        return remaining.seconds_left(
            epochs=retraining.epochs_left if over else self.epochs_left,
            in_a_row=retraining.in_a_row if over else self._keep("chain", self._longest_chain),
            pace=pace,
            within_worker=self._throughput.within_worker,
            passed=0.0 if now is None or self.last is None else max(0.0, now - self.last),
        )

    def retraining_seconds(self) -> float | None:
        """Return what the retraining after the search will take, None if unknown."""
        return remaining.planned_retraining(self.plan, pace=self.seconds_per_epoch)

    def _longest_chain(self) -> int:
        return remaining.longest_chain(self.brackets, self.trials.values(), self.closed)

    @property
    def brackets(self) -> list[dict[str, Any]]:
        """Return the plan's brackets."""
        found = self.plan.get("brackets")
        return [mapping(bracket) for bracket in found] if isinstance(found, list) else []

    def elapsed(self, now: float) -> float:
        """Return the time since this process took the run."""
        return 0.0 if self.started is None else max(0.0, now - self.started)

    def occupancy(self) -> Counter[RungKey]:
        """Return how many trials completed each (iteration, bracket, rung)."""
        return self._keep("occupancy", lambda: self._by_rung(TrialStatus.COMPLETED))

    def training(self) -> Counter[RungKey]:
        """Return how many trials are running in each (iteration, bracket, rung)."""
        return self._keep("training", lambda: self._by_rung(TrialStatus.RUNNING))

    def scores(self, record: TrialRecord) -> list[float]:
        """Return a configuration's objective epoch by epoch, its parents' epochs first."""
        chain = [record]
        while chain[-1].parent is not None and chain[-1].parent in self.trials:
            chain.append(self.trials[chain[-1].parent])
        return [
            epoch.metrics.get(self.objective, float("nan"))
            for link in reversed(chain)
            for epoch in link.history
        ]

    def _with_status(self, status: TrialStatus) -> list[TrialRecord]:
        return [record for record in self.trials.values() if record.status is status]

    def _by_rung(self, status: TrialStatus) -> Counter[RungKey]:
        return Counter((r.iteration, r.bracket, r.rung) for r in self._with_status(status))

    def _keep(self, name: str, compute: Callable[[], T]) -> T:
        """Return what was computed since the last event, or compute it."""
        version = self.version
        kept = self._kept.get(name)
        if kept is None or kept[0] != version:
            kept = (version, compute())
            self._kept[name] = kept
        value: T = kept[1]
        return value


def _device(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(item) for item in value.values() if isinstance(item, str | int))
    return str(value) if value else ""
