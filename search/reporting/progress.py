"""Where a run stands, from its events: what the live view, the plain log and reports look at.

Feeding it every line of a journal gives the same state as listening from the start. A strange
event is counted and skipped: a display must never stop a search.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from search import history
from search.config import direction
from search.journal import EventKind
from search.records import TrialRecord, TrialStatus, Values
from search.reporting.facts import mapping
from search.reporting.trials import finalists
from search.reporting.wording import documented_values, is_number

Event = dict[str, Any]
RungKey = tuple[int, int, int]

RATE_WINDOW = 60
"""Events whose pace gives the time left; enough to smooth, short enough to follow a change."""


@dataclass(kw_only=True)
class Retraining:
    """One candidate being retrained, or done.

    Attributes:
        role: "documented", "winner", …
        seed: The repetition.
        epochs: Epochs it is to train.
        epoch: Epochs done.
        scores: The objective epoch by epoch.
        seconds: Wall time of its epochs so far.
        ended: Whether it is done.
    """

    role: str
    seed: int
    epochs: int
    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    ended: bool = False


class RunProgress:
    """What happened so far.

    Attributes:
        objective: The metric shown; set it before the first event.
        plan: Fields of the PLAN event.
        trials: Trials by id, in the order of creation.
        closed: Rungs (iteration, bracket, rung) that are closed.
        retrainings: Candidates by (role, seed).
        device: What the run computes on, "" if unknown.
        search_ended: Whether the search is over.
        strange: Events that could not be read.
        last: Unix time of the latest event.
    """

    def __init__(self, objective: str = "robust_loss") -> None:
        """Start before the first event."""
        self.objective = objective
        self.plan: dict[str, Any] = {}
        self.trials: dict[str, TrialRecord] = {}
        self.closed: set[RungKey] = set()
        self.retrainings: dict[tuple[str, int], Retraining] = {}
        self.device = ""
        self.search_ended = False
        self.strange = 0
        self.started: float | None = None
        self.last: float | None = None
        self._previous: float | None = None
        self._pace: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)

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
        except (KeyError, TypeError, ValueError, AttributeError):
            self.strange += 1
            return False
        return True

    def _apply(self, event: Event) -> None:
        kind, time = event["event"], event.get("time")
        if is_number(time):
            self.last = float(time)
            if self.started is None:
                self.started = self.last
        if kind == EventKind.RUN_STARTED:
            # The time between a kill and the resumption is nobody's work.
            self._previous, self.started = None, self.last
            self.device = _device(event.get("device")) or self.device
        elif kind == EventKind.PLAN:
            self.plan = dict(event)
        elif kind == EventKind.TRIAL_CREATED:
            record = history.created(event)
            self.trials[record.trial_id] = record
            self._count_pace(0)
        elif kind == EventKind.EPOCH:
            record = history.with_epoch(self.trials[event["trial_id"]], event)
            self.trials[record.trial_id] = record
            self._count_pace(1)
        elif kind == EventKind.TRIAL_ENDED:
            record = history.ended(self.trials[event["trial_id"]], event)
            self.trials[record.trial_id] = record
            self._count_pace(0)
        elif kind == EventKind.RUNG_CLOSED:
            self.closed.add((event["iteration"], event["bracket"], event["rung"]))
        elif kind == EventKind.SEARCH_ENDED:
            self.search_ended = True
        elif kind in (EventKind.REFIT_STARTED, EventKind.REFIT_EPOCH, EventKind.REFIT_ENDED):
            self._apply_refit(kind, event)

    def _apply_refit(self, kind: str, event: Event) -> None:
        key = (str(event["role"]), int(event["seed"]))
        if kind == EventKind.REFIT_STARTED:
            self.retrainings[key] = Retraining(
                role=key[0], seed=key[1], epochs=int(event["epochs"])
            )
            return
        run = self.retrainings.setdefault(key, Retraining(role=key[0], seed=key[1], epochs=0))
        if kind == EventKind.REFIT_ENDED:
            run.ended = True
            return
        run.epoch = int(event["epoch"])
        run.seconds += float(event["seconds"])
        value = mapping(event["metrics"]).get(self.objective)
        run.scores.append(float(value) if is_number(value) else float("nan"))

    def _count_pace(self, epochs: int) -> None:
        """Count wall time between events of one process, so that overhead and workers count."""
        if self._previous is not None and self.last is not None:
            self._pace.append((max(0.0, self.last - self._previous), epochs))
        self._previous = self.last

    @property
    def records(self) -> list[TrialRecord]:
        """Return the trials in the order of creation."""
        return list(self.trials.values())

    @property
    def running(self) -> list[TrialRecord]:
        """Return the trials that are being trained."""
        return [r for r in self.trials.values() if r.status is TrialStatus.RUNNING]

    @property
    def failed(self) -> list[TrialRecord]:
        """Return the trials that failed."""
        return [r for r in self.trials.values() if r.status is TrialStatus.FAILED]

    @property
    def top(self) -> list[TrialRecord]:
        """Return each configuration's furthest completed trial, best first."""
        return finalists(self.trials.values(), self.direction)

    @property
    def documented(self) -> Values:
        """Return the documented configuration's values, as far as known."""
        return documented_values(self.trials.values())

    @property
    def epochs_done(self) -> int:
        """Return the epochs trained, those of failed trials included."""
        return sum(r.epochs - r.initial_epoch for r in self.trials.values())

    @property
    def epochs_left(self) -> int:
        """Return the epochs the plan still needs; what a failed trial spent is trained again."""
        if self.search_ended:
            return 0
        useful = sum(
            r.epochs - r.initial_epoch
            for r in self.trials.values()
            if r.status is not TrialStatus.FAILED
        )
        planned = self.plan.get("epochs")
        started = sum(max(0, r.target_epochs - r.epochs) for r in self.running)
        left = int(planned) - useful if is_number(planned) else 0
        return max(left, started)

    @property
    def seconds_per_epoch(self) -> float | None:
        """Return wall time per epoch: measured lately, else as the plan measured it."""
        epochs = sum(count for _, count in self._pace)
        if epochs:
            return sum(seconds for seconds, _ in self._pace) / epochs
        planned = self.plan.get("seconds_per_epoch")
        return float(planned) if is_number(planned) and planned is not None else None

    def seconds_left(self, now: float | None = None) -> float | None:
        """Return the time the search still needs, None if nothing is measured.

        Args:
            now: Unix time; what passed since the last event is taken off.
        """
        pace = self.seconds_per_epoch
        if pace is None:
            return None
        passed = 0.0 if now is None or self.last is None else max(0.0, now - self.last)
        # An epoch that takes longer than expected does not run the clock below the epochs after it.
        return max(self.epochs_left * pace - min(passed, pace), 0.0)

    def elapsed(self, now: float) -> float:
        """Return the time since this process took the run."""
        return 0.0 if self.started is None else max(0.0, now - self.started)

    def occupancy(self) -> Counter[RungKey]:
        """Return how many trials completed each (iteration, bracket, rung)."""
        return Counter(
            (r.iteration, r.bracket, r.rung)
            for r in self.trials.values()
            if r.status is TrialStatus.COMPLETED
        )

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


def _device(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(item) for item in value.values() if isinstance(item, str | int))
    return str(value) if value else ""
