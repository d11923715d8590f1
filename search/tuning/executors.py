"""Where trials are trained: one small protocol, and its simplest form, this process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Protocol

from search.records import TrialResult, TrialSpec, Values
from search.tuning.messages import TrialMessage, TrialStarted
from search.tuning.model import Setting
from search.tuning.timing import Pace, measure_pace
from search.tuning.trial import ShouldStop, train_trial

OnMessage = Callable[[TrialMessage], None]


class Executor(Protocol):
    """Trains trials, one or several at a time.

    Attributes:
        workers: How many trials it trains at once.
    """

    workers: int

    @property
    def free(self) -> int:
        """Return how many more trials can be submitted now."""

    def submit(self, spec: TrialSpec) -> None:
        """Take a trial; returns at once."""

    def wait(self, on_message: OnMessage) -> TrialResult:
        """Return the result of the next trial that ends, reporting on all of them meanwhile.

        Raises:
            StopRequestedError: The user asked to stop; finished epochs are kept.
            SearchError: The run cannot go on, e.g. a full disk.
        """

    def pace(self, values: Values, *, seed: int, precision: str = "float32") -> Pace:
        """Measure what a configuration costs here, while every worker trains it."""

    def close(self) -> None:
        """Free what it holds; trials that are running are abandoned."""


class InProcessExecutor:
    """Trains one trial after another in this process."""

    workers = 1

    def __init__(self, setting: Setting, *, should_stop: ShouldStop) -> None:
        """Train with a setting until asked to stop."""
        self._setting = setting
        self._should_stop = should_stop
        self._queue: deque[TrialSpec] = deque()

    @property
    def free(self) -> int:
        """Return 1 when idle, else 0."""
        return max(0, 1 - len(self._queue))

    def submit(self, spec: TrialSpec) -> None:
        """Queue a trial; it is trained by `wait`."""
        self._queue.append(spec)

    def wait(self, on_message: OnMessage) -> TrialResult:
        """Train the trial that was queued first.

        Raises:
            StopRequestedError: The user asked to stop; finished epochs are kept.
        """
        spec = self._queue.popleft()
        on_message(
            TrialStarted(trial_id=spec.trial_id, worker=0, pid=os.getpid(), device="this process")
        )
        return train_trial(spec, self._setting, on_epoch=on_message, should_stop=self._should_stop)

    def pace(self, values: Values, *, seed: int, precision: str = "float32") -> Pace:
        """Measure what a configuration costs in this process."""
        return measure_pace(self._setting, values, seed=seed, precision=precision)

    def close(self) -> None:
        """Do nothing; there is nothing to free."""
