"""Where trials are trained: one small protocol, and its simplest form, this process."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from search.records import TrialResult, TrialSpec
from search.tuning.trial import OnEpoch, Setting, ShouldStop, train_trial


class Executor(Protocol):
    """Trains trials, one or several at a time."""

    @property
    def free(self) -> int:
        """Return how many more trials can be submitted now."""

    def submit(self, spec: TrialSpec) -> None:
        """Take a trial; returns at once."""

    def wait(self, on_epoch: OnEpoch) -> TrialResult:
        """Return the result of the next trial that ends, reporting epochs meanwhile.

        Raises:
            StopRequestedError: The user asked to stop; finished epochs are kept.
        """


class InProcessExecutor:
    """Trains one trial after another in this process."""

    def __init__(self, setting: Setting, *, should_stop: ShouldStop) -> None:
        """Train with a setting until asked to stop."""
        self._setting = setting
        self._should_stop = should_stop
        self._queue: deque[TrialSpec] = deque()

    @property
    def free(self) -> int:
        """Return 1 when idle, else 0."""
        return 1 - len(self._queue)

    def submit(self, spec: TrialSpec) -> None:
        """Queue a trial; it is trained by `wait`."""
        self._queue.append(spec)

    def wait(self, on_epoch: OnEpoch) -> TrialResult:
        """Train the queued trial.

        Raises:
            StopRequestedError: The user asked to stop; finished epochs are kept.
        """
        spec = self._queue.popleft()
        return train_trial(spec, self._setting, on_epoch=on_epoch, should_stop=self._should_stop)
