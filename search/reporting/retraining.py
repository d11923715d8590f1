"""Where the retraining stands, from its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from search.journal import EventKind
from search.records import Values
from search.reporting.facts import mapping
from search.reporting.wording import is_number

Event = dict[str, Any]


@dataclass(kw_only=True)
class Retraining:
    """One candidate being retrained, or done.

    Attributes:
        role: "documented", "winner", …
        seed: The repetition.
        epochs: Epochs it is to train.
        values: Its hyperparameters.
        epoch: Epochs done.
        scores: The objective epoch by epoch.
        seconds: Wall time of its epochs so far.
        ended: Whether it is done.
        failed: Whether it ended without a usable model.
    """

    role: str
    seed: int
    epochs: int
    values: Values | None = None
    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    ended: bool = False
    failed: bool = False


class Retrainings:
    """Every retraining of a run so far.

    Attributes:
        runs: Candidates by (role, seed), in the order in which they began.
        planned: Epochs of all retrainings together, None if unknown.
    """

    def __init__(self) -> None:
        """Start before the first one."""
        self.runs: dict[tuple[str, int], Retraining] = {}
        self.planned: int | None = None

    def apply(self, event: Event, objective: str) -> None:
        """Take in REFIT_STARTED, REFIT_EPOCH or REFIT_ENDED."""
        key = (str(event["role"]), int(event["seed"]))
        if event["event"] == EventKind.REFIT_STARTED:
            self._start(key, event)
            return
        run = self.runs.setdefault(key, Retraining(role=key[0], seed=key[1], epochs=0))
        if event["event"] == EventKind.REFIT_ENDED:
            run.ended, run.failed = True, bool(event.get("failure"))
            return
        epoch, value = int(event["epoch"]), mapping(event["metrics"]).get(objective)
        run.epoch = epoch
        run.seconds += float(event["seconds"])
        # Of an epoch that was trained again after a kill, the later result stays.
        run.scores = run.scores[: epoch - 1]
        run.scores.append(float(value) if is_number(value) else float("nan"))

    def _start(self, key: tuple[str, int], event: Event) -> None:
        planned = event.get("all_epochs")
        self.planned = int(planned) if is_number(planned) else None
        fresh = Retraining(
            role=key[0], seed=key[1], epochs=int(event["epochs"]), values=event.get("values")
        )
        known = self.runs.get(key)
        # A resumed one goes on where it was, unless another configuration has its name now.
        if known is None or (known.values, known.epochs) != (fresh.values, fresh.epochs):
            self.runs[key] = fresh

    @property
    def epochs_done(self) -> int:
        """Return the epochs trained."""
        return sum(run.epoch for run in self.runs.values())

    @property
    def epochs_left(self) -> int:
        """Return the epochs to come, as far as known; one that ended early needs no more."""
        total = sum(run.epochs for run in self.runs.values())
        if self.planned is not None:
            total = max(total, self.planned)
        spared = sum(max(0, run.epochs - run.epoch) for run in self.runs.values() if run.ended)
        return max(0, total - self.epochs_done - spared)

    @property
    def in_a_row(self) -> int:
        """Return the most epochs that one training under way must still do, one after another."""
        return max(
            (run.epochs - run.epoch for run in self.runs.values() if not run.ended), default=0
        )
