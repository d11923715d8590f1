"""Where trials are trained: one small protocol, and its simplest form, this process."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from search.records import EpochRecord, TrialResult, TrialSpec, Values
from search.tuning.model import Setting, build_model, release_memory, training_feed
from search.tuning.trial import ShouldStop, train_trial
from search.tuning.validation import Validator

WARM_STEPS = 2
MEASURED_STEPS = 6
MEASURED_SECONDS = 2.0
"""Steps are timed for so long, and at least so many: workers that share a machine then step at the
same time for most of it."""


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A worker took a trial."""

    trial_id: str
    worker: int  # Number of the worker, 0 for the first
    pid: int  # Its process
    device: str  # What it trains on, in words


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """A worker died, hung or took too long, in the middle of a trial."""

    trial_id: str  # The trial it was training
    worker: int  # Number of the worker
    pid: int  # Its process
    reason: str  # One line, e.g. "killed by SIGKILL"
    retry: bool  # Whether the trial goes on elsewhere, from its last epoch


TrialMessage = EpochRecord | TrialStarted | WorkerLost
"""What an executor reports of trials that have not ended."""

OnMessage = Callable[[TrialMessage], None]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a configuration costs."""

    epoch: float  # Seconds of an epoch, validation included
    trial: float  # Seconds a trial takes besides its epochs: building and compiling


class Executor(Protocol):
    """Trains trials, one or several at a time."""

    workers: int  # How many trials it trains at once
    description: str  # What it is, for the plan, e.g. "2 workers, each with 1 of 2 CPU cores"

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
        """Measure what a configuration costs the whole executor while all of it is busy.

        Raises:
            StopRequestedError: The user asked to stop.
            WorkerError: No worker can be started.
        """

    def close(self) -> None:
        """Free what it holds; trials that are running are abandoned."""


class InProcessExecutor:
    """Trains one trial after another in this process."""

    workers = 1
    description = "this process"

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


def measure_pace(
    setting: Setting, values: Values, *, seed: int, precision: str = "float32"
) -> Pace:
    """Time a few training steps and validation batches, and scale them to an epoch."""
    start = time.perf_counter()
    model = build_model(setting, values, seed, precision=precision)
    feed = training_feed(setting, values, seed)
    validator = Validator(setting.dataset, prevalence=setting.prevalence)
    # The last batch may be a smaller one, which would be compiled in the middle.
    whole = max(1, feed.num_batches - 1)

    def step(index: int) -> None:
        images, labels, weights = feed[index % whole]
        model.train_on_batch(images, labels, sample_weight=weights)

    step(0)
    compiled = time.perf_counter() - start
    for index in range(1, WARM_STEPS):
        step(index)
    validator.seconds(model)
    begin, steps = time.perf_counter(), 0
    while steps < MEASURED_STEPS or time.perf_counter() - begin < MEASURED_SECONDS:
        step(steps)
        steps += 1
    # The mean: where workers take turns on a GPU, some steps are long and the others quick.
    each = (time.perf_counter() - begin) / steps
    validation = validator.seconds(model)
    release_memory()
    return Pace(epoch=each * feed.num_batches + validation, trial=compiled)
