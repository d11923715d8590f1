"""Where a run stands, from its events: what the live view, the plain log and `watch` look at.

Feeding it every line of a journal gives the same state as listening from the start.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.errors import RunDirectoryError
from search.journal import Event, EventKind, created, ended, plan, with_epoch
from search.records import Bracket, Metrics, PlanRecord, TrialRecord, TrialStatus, Values
from search.reporting.format import baseline_values, one_line, reason
from search.tuning.selection import lineage, winners

RECENT = 5
"""Epochs of a training whose length tells that of its next ones."""

RungKey = tuple[int, int, int]
"""Iteration, bracket and rung."""

STAGES = ("data", "plan", "search", "retrain", "score", "report", "done")
"""Stages of a run, in order; "done" is after the last."""

STAGE_WORDS = {
    "data": "reading the data",
    "plan": "planning",
    "score": "choosing thresholds, evaluating on the test set, exporting",
    "report": "writing the report",
    "done": "finished",
}
"""What is done in the stages that have no epochs to count."""


@dataclass(kw_only=True)
class Worker:
    """A process that trains trials, or its place while it is replaced."""

    name: str  # its number, "" where there is one worker without a process of its own
    pid: int | None = None  # None before it took a trial
    device: str = ""  # what it trains on, "" if unknown
    trial_id: str | None = None  # what it trains, None when it has none
    lost: bool = False  # whether its replacement has not taken a trial yet


@dataclass(kw_only=True)
class Retraining:
    """One configuration being retrained with one seed, or done."""

    role: str  # "baseline", "finalist_1", …
    seed: int  # the repetition
    epochs: int  # that it is to train
    values: Values = field(default_factory=dict)
    metrics: list[Metrics] = field(default_factory=list)  # epoch by epoch, as the next two
    scores: list[float] = field(default_factory=list)  # the objective
    seconds: list[float] = field(default_factory=list)
    ended: bool = False
    failed: bool = False  # whether it ended without a usable model

    @property
    def epoch(self) -> int:
        """Return the epochs done."""
        return len(self.scores)

    @property
    def left(self) -> int:
        """Return the epochs to come; one that ended early needs no more."""
        return 0 if self.ended else max(0, self.epochs - self.epoch)


@dataclass
class RunProgress:
    """What happened so far; set the objective, which is shown, before the first event."""

    objective: str = ""
    plan: PlanRecord | None = None
    trials: dict[str, TrialRecord] = field(default_factory=dict)  # by id, in order of creation
    closed: set[RungKey] = field(default_factory=set)  # rungs
    workers: dict[str, Worker] = field(default_factory=dict)  # by name
    # By (role, seed), in the order in which they began.
    retraining: dict[tuple[str, int], Retraining] = field(default_factory=dict)
    device: str = ""  # what the run computes on, "" if unknown
    stage: str = STAGES[0]
    problems: list[str] = field(default_factory=list)  # failed trials, lost workers, in order
    begun: dict[str, float] = field(default_factory=dict)  # last event of each running trial
    starts: Counter[str] = field(default_factory=Counter)  # how often workers took each trial
    strange: int = 0  # events that could not be read
    started: float | None = None  # Unix time when this process took the run
    last: float | None = None  # Unix time of the latest event
    _planned_retraining: int = 0  # epochs
    _starting: dict[str, float] = field(default_factory=dict)  # seconds of each trial's start

    def apply(self, event: Event) -> bool:
        """Take one event in."""
        try:
            self._apply(event)
        except (KeyError, TypeError, ValueError, AttributeError, RunDirectoryError):
            self.strange += 1
            return False
        return True

    def _apply(self, event: Event) -> None:
        kind = event["event"]
        self.last = float(event["time"])
        if self.started is None:
            self.started = self.last
        if kind == EventKind.RUN_STARTED:
            self.started, self.stage = self.last, "plan"
            self.device = str(event["device"])
            self.workers.clear()
            self.begun.clear()
        elif kind == EventKind.PLAN:
            self.plan = plan(event)
            if self.plan.workers > 1:
                self.workers = {str(n): Worker(name=str(n)) for n in range(self.plan.workers)}
        elif kind == EventKind.STAGE and event["name"] in STAGES:
            self.stage = STAGES[STAGES.index(event["name"]) + 1]
        elif kind in (EventKind.TRIAL_CREATED, EventKind.TRIAL_STARTED, EventKind.EPOCH):
            self._train(kind, event)
        elif kind == EventKind.TRIAL_ENDED:
            record = ended(self.trials[event["trial_id"]], event)
            self.trials[record.trial_id] = record
            if costs := event.get("costs"):
                self._starting[record.trial_id] = costs["build"] + costs["compile"]
            self.begun.pop(record.trial_id, None)
            self._release(record.trial_id)
            if record.status is TrialStatus.FAILED:
                self.problems.append(f"trial {record.trial_id} failed, {reason(record)}")
        elif kind == EventKind.WORKER_LOST:
            self._lose(event)
        elif kind == EventKind.RUNG_CLOSED:
            self.closed.add((event["iteration"], event["bracket"], event["rung"]))
        elif kind == EventKind.SEARCH_ENDED:
            self.stage = "retrain"
            self.workers.clear()
        elif kind in (EventKind.REFIT_STARTED, EventKind.REFIT_EPOCH, EventKind.REFIT_ENDED):
            self._retrain(kind, event)

    def _train(self, kind: str, event: Event) -> None:
        self.stage = "search"
        if kind == EventKind.TRIAL_CREATED:
            record = created(event)
        elif kind == EventKind.TRIAL_STARTED:
            record = self.trials[event["trial_id"]]
            self.starts[record.trial_id] += 1
            self._release(record.trial_id)
            name = str(event["worker"])
            self.workers[name] = Worker(
                name=name, pid=event["pid"], device=event["device"], trial_id=record.trial_id
            )
        else:
            record = with_epoch(self.trials[event["trial_id"]], event)
        self.trials[record.trial_id] = record
        self.begun[record.trial_id] = float(event["time"])

    def _release(self, trial_id: str) -> None:
        for worker in self.workers.values():
            if worker.trial_id == trial_id:
                worker.trial_id = None

    def _lose(self, event: Event) -> None:
        name, trial = str(event["worker"]), event["trial_id"]
        self.workers[name] = Worker(name=name, lost=True)
        text = f"lost worker {name} (process {event['pid']}): {one_line(event['reason'])}"
        after = "goes on in another worker" if event["retry"] else "is given up"
        self.problems.append(f"{text}; trial {trial} {after}" if trial else text)

    def _retrain(self, kind: str, event: Event) -> None:
        self.stage = "retrain"
        key = (event["role"], event["seed"])
        if kind == EventKind.REFIT_STARTED:
            self._planned_retraining = event["all_epochs"]
            fresh = Retraining(
                role=key[0], seed=key[1], epochs=event["epochs"], values=event["values"]
            )
            known = self.retraining.get(key)
            # A resumed one goes on where it was, unless another configuration has its name now.
            if known is None or (known.values, known.epochs) != (fresh.values, fresh.epochs):
                self.retraining[key] = fresh
            return
        run = self.retraining[key]
        if kind == EventKind.REFIT_ENDED:
            run.ended, run.failed = True, event["failure"] is not None
            return
        # Of an epoch that was trained again after a kill, the later result stays.
        done, value = event["epoch"] - 1, event["metrics"].get(self.objective)
        run.metrics = [*run.metrics[:done], event["metrics"]]
        run.scores = [*run.scores[:done], math.nan if value is None else value]
        run.seconds = [*run.seconds[:done], event["seconds"]]

    @property
    def baseline(self) -> Values:
        """Return the baseline's values, as far as known."""
        return baseline_values(self.trials.values())

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """Return the plan's brackets."""
        return self.plan.brackets if self.plan else ()

    @property
    def search_ended(self) -> bool:
        """Return whether the search is over."""
        return STAGES.index(self.stage) > STAGES.index("search")

    def with_status(self, status: TrialStatus) -> list[TrialRecord]:
        """Return the trials of a status, in the order of creation."""
        return [record for record in self.trials.values() if record.status is status]

    @property
    def top(self) -> list[TrialRecord]:
        """Return each configuration's furthest completed trial, best first by epochs trained."""
        return winners(self.trials.values(), self.objective)

    def in_rung(self, key: RungKey) -> list[TrialRecord]:
        """Return the trials of a rung."""
        return [r for r in self.trials.values() if (r.iteration, r.bracket, r.rung) == key]

    def scores(self, record: TrialRecord) -> list[float]:
        """Return a configuration's objective epoch by epoch, its parents' epochs first."""
        epochs = [epoch for link in lineage(record, self.trials) for epoch in link.history]
        return [epoch.metrics.get(self.objective, math.nan) for epoch in epochs]

    def elapsed(self, now: float) -> float:
        """Return the time since this process took the run."""
        return 0.0 if self.started is None else max(0.0, now - self.started)

    @property
    def epochs(self) -> tuple[int, int]:
        """Return the epochs done and left, of the search or after it of the retraining."""
        if self.search_ended:
            done = sum(run.epoch for run in self.retraining.values())
            known = sum(run.epoch + run.left for run in self.retraining.values())
            spared = sum(r.epochs - r.epoch for r in self.retraining.values() if r.ended)
            return done, max(known, self._planned_retraining - spared) - done
        done = sum(record.epochs - record.initial_epoch for record in self.trials.values())
        # What a failed trial spent is trained again.
        failed = self.with_status(TrialStatus.FAILED)
        useful = done - sum(record.epochs - record.initial_epoch for record in failed)
        started = sum(r.target_epochs - r.epochs for r in self.with_status(TrialStatus.RUNNING))
        return done, max((self.plan.epochs if self.plan else 0) - useful, started, 0)

    @property
    def pace(self) -> tuple[float, float] | None:
        """Return a worker's seconds of an epoch and what a trial takes besides; None while unknown.

        Building and compiling count for the trial: early in a search most trials have one epoch,
        and taking its length for the pace promises far too much time. Trials that ended tell what
        their start took; of one in training the first epoch tells it, beside the later ones.
        """
        starts, seconds, epochs = [], 0.0, 0
        first = [r.history[0].seconds for r in self.trials.values() if r.history]
        for record in self.trials.values():
            own = [epoch.seconds for epoch in record.history]
            start = self._starting.get(record.trial_id)
            if start is None and len(own) > 1:
                start = max(0.0, own[0] - statistics.fmean(own[1:]))
            if own and start is not None:
                starts.append(start)
                seconds += max(0.0, max(record.seconds, sum(own)) - start)
                epochs += len(own)
        if starts:
            return seconds / epochs, statistics.fmean(starts)
        if self.plan is None or self.plan.seconds_per_epoch is None:
            return (statistics.fmean(first), 0.0) if first else None
        # The plan's are of all workers together, and of the baseline.
        planned = self.plan.seconds_per_epoch, self.plan.seconds_per_trial or 0.0
        scale = statistics.fmean(first) / (sum(planned) or 1.0) if first else self._workers
        return planned[0] * scale, planned[1] * scale

    @property
    def _workers(self) -> int:
        return max(1, self.plan.workers if self.plan else 1)

    def seconds_left(self, now: float | None = None) -> float | None:
        """Return the time the search, or after it the retraining, still needs; None if unknown."""
        if self.search_ended:
            return self._retraining_left(now)
        if self.pace is None:
            return None
        each, besides = self.pace
        begun = sum(bool(r.history) or r.failure is not None for r in self.trials.values())
        waiting = max(0, (self.plan.trials if self.plan else 0) - begun)
        running = [
            (r.target_epochs - r.epochs, [epoch.seconds for epoch in r.history])
            for r in self.with_status(TrialStatus.RUNNING)
        ]
        own = [left * (recent(seconds) if len(seconds) > 1 else each) for left, seconds in running]
        others = max(0, self.epochs[1] - sum(left for left, _ in running))
        together = (sum(own) + others * each + waiting * besides) / self._workers
        # Epochs of one configuration follow one another, however many workers are idle.
        longest = self._chain() * each if waiting else max(own, default=0.0)
        return self._since(now, max(together, longest), each)

    def _since(self, now: float | None, left: float, most: float) -> float:
        """Return what is left of a time since the latest event, which came an epoch ago at most."""
        passed = 0.0 if now is None or self.last is None else max(0.0, now - self.last)
        return max(left - min(passed, most), 0.0)

    def _retraining_left(self, now: float | None) -> float | None:
        runs = self.retraining.values()
        paces = [recent(run.seconds) for run in runs if run.epoch > 1]
        if not any(run.epoch for run in runs) or not (paces or self.pace):
            planned = self.retraining_seconds()
            return None if planned is None else self._since(now, planned, planned)
        each, besides = self.pace or (0.0, 0.0)
        area = self.plan.refit_area if self.plan else 1.0
        each = statistics.fmean(paces) if paces else each * area
        own = [run.left * (recent(run.seconds) if run.epoch > 1 else each) for run in runs]
        waiting = self.epochs[1] - sum(run.left for run in runs)
        starts = waiting / max(run.epochs for run in runs)
        together = (sum(own) + waiting * each + starts * besides) / self._workers
        return self._since(now, max(together, *own), each)

    def retraining_seconds(self) -> float | None:
        """Return what the retraining after the search will take, None if unknown."""
        if self.plan is None or not self.plan.refit_epochs or self.pace is None:
            return None
        each, besides = self.pace
        trainings = self.plan.trainings or self._workers
        rounds = -(-trainings // self._workers)
        return rounds * (self.plan.refit_epochs / trainings * each * self.plan.refit_area + besides)

    def _chain(self) -> int:
        """Return the most epochs that any bracket must still train one after another."""
        longest = 0
        for bracket in self.brackets:
            for number, rung in enumerate(bracket.rungs):
                key = (bracket.iteration, bracket.bracket, number)
                here = self.in_rung(key)
                reached = [r.epochs for r in here if r.status is TrialStatus.RUNNING]
                if len(here) < rung.count:
                    reached.append(rung.initial_epoch)
                if reached and key not in self.closed:
                    longest = max(longest, bracket.rungs[-1].epochs - min(reached))
                    break
        return longest


def recent(seconds: Sequence[float]) -> float:
    """Return the mean of a training's latest epochs, without its first, which compiles."""
    return statistics.fmean(seconds[1:][-RECENT:])
