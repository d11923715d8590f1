"""Several trials at once: what every executor of several workers does, wherever they are.

A worker is given trials, reports through messages, and may be lost at any moment: it dies, hangs
or takes too long. It is then replaced, and its trial goes on in another from its last finished
epoch. Workers are also replaced after a number of trials, or when they hold much memory, because
backends leak it from model to model and keep what their largest took. Where workers come from and
how they are spoken to, `pool.py` and `ray_executor.py` know.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from search.errors import SearchError, StopRequestedError, WorkerError
from search.records import EpochRecord, Failure, FailureKind, TrialResult, TrialSpec, Values
from search.tuning.executors import OnMessage
from search.tuning.messages import TrialStarted, WorkerLost
from search.tuning.timing import Pace
from search.tuning.trial import ShouldStop
from search.tuning.worker import Beat, Broken, Go, Holds, Measure, Prepared, Ready, Stop, Stopped

POLL_SECONDS = 0.5
STARTING_SECONDS = 600.0
"""A worker that loads or measures for longer than this, and than the stall timeout, has hung."""
GRACE_SECONDS = 5.0
"""How long a worker that was told to end may take before it is killed."""


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """When a worker is replaced or given up on.

    Attributes:
        trials_per_worker: A worker is replaced after so many trials.
        worker_memory_mb: A worker that trains on the CPU is replaced after a trial when it holds
            more main memory than this; the next trial may need as much again.
        retries: How often a trial is started again after losing its worker.
        trial_timeout: Seconds a trial may take in one worker; 0 for no limit.
        stall_timeout: Seconds without a training step, validation or checkpoint after which a
            worker counts as hung; 0 for no limit.
        start_failures: Give up after so many workers in a row could not start.
    """

    trials_per_worker: int = 10
    worker_memory_mb: int = 1500
    retries: int = 2
    trial_timeout: float = 0.0
    stall_timeout: float = 600.0
    start_failures: int = 3


class Worker(ABC):
    """The parent's side of one worker.

    Attributes:
        number: 0 for the first.
        place: Where what it prints can be read.
        pid: Its process; known once it is ready.
        ready: Whether it has loaded everything.
        device: What it trains on, in words; known once it is ready.
        measuring: Whether it was asked for a pace and has not told it.
        prepared: Whether it has compiled what it is to measure.
        trials: How many it has ended.
        memory_mb: Main memory it held after the last of them, where it trains on the CPU.
        spec: The trial it trains, None while idle.
        last_sign: When it last made progress, on the monotonic clock.
        last_words: Why it cannot work, where it could say so.
    """

    def __init__(self, number: int, *, place: str) -> None:
        self.number = number
        self.place = place
        self.pid = 0
        self.ready = False
        self.device = ""
        self.measuring = False
        self.prepared = False
        self.trials = 0
        self.memory_mb = 0
        self.spec: TrialSpec | None = None
        self.begun = self.last_sign = time.monotonic()
        self.last_words = ""

    @property
    def busy(self) -> bool:
        """Return whether it has a trial."""
        return self.spec is not None

    @property
    def seconds(self) -> float:
        """Return how long it has had its trial."""
        return time.monotonic() - self.begun

    @property
    def starting(self) -> bool:
        """Return whether it is loading or measuring."""
        return not self.ready or self.measuring

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Return whether it can still send; what it sent before can be read after."""

    @property
    @abstractmethod
    def end_reason(self) -> str:
        """Return why it ended, in words."""

    @abstractmethod
    def send(self, task: Any) -> None:
        """Send it a trial, a measurement, a request to stop, or None to end; never raises."""

    @abstractmethod
    def messages(self) -> Iterator[Any]:
        """Read what has arrived."""

    @abstractmethod
    def dismiss(self) -> None:
        """Begin to end it: an idle one in order, a busy one at once."""

    @abstractmethod
    def end(self, deadline: float) -> None:
        """Wait for its end, and force it at the deadline, on the monotonic clock."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; it may be dead already."""

    def overdue(self, limits: PoolLimits) -> str:
        """Return why the worker must be given up, "" if it need not."""
        silent = time.monotonic() - self.last_sign
        if not self.busy:
            patience = max(limits.stall_timeout, STARTING_SECONDS)
            if limits.stall_timeout and self.starting and silent > patience:
                return f"hung: neither loaded nor measured within {silent:.0f} s"
            return ""
        if limits.trial_timeout and self.seconds > limits.trial_timeout:
            return f"took longer than the trial timeout of {limits.trial_timeout:g} s"
        if limits.stall_timeout and silent > limits.stall_timeout:
            return f"hung: no sign of life for {silent:.0f} s"
        return ""

    def take(self, spec: TrialSpec) -> None:
        """Give it a trial."""
        self.spec = spec
        self.begun = self.last_sign = time.monotonic()
        self.send(spec)

    def measure(self, task: Measure) -> None:
        """Ask it for a pace; it compiles, says so and waits."""
        self.measuring, self.prepared = True, False
        self.last_sign = time.monotonic()
        self.send(task)

    def go(self) -> None:
        """Have it measure, when it is prepared."""
        self.last_sign = time.monotonic()
        self.send(Go())

    def finish(self) -> None:
        """Note that its trial ended, or was given back."""
        self.spec = None
        self.trials += 1

    def ask_to_stop(self) -> None:
        """Ask for its trial back after this epoch."""
        if self.busy:
            self.send(Stop())


class Pool(ABC):
    """An executor of N workers.

    Attributes:
        workers: N.
        way_out: How to train without such workers, for the message when none can be started.
    """

    way_out = ""

    def __init__(
        self, workers: int, *, should_stop: ShouldStop, limits: PoolLimits | None = None
    ) -> None:
        """Start the workers; they load in the background.

        Args:
            workers: How many.
            should_stop: Asked every half second.
            limits: When to replace workers.
        """
        self.workers = workers
        self._should_stop = should_stop
        self._limits = limits or PoolLimits()
        self._queue: deque[TrialSpec] = deque()
        self._results: deque[TrialResult] = deque()
        self._paces: list[Pace] = []
        self._measure: Measure | None = None
        self._going = False
        self._losses: Counter[str] = Counter()
        self._failed_starts = 0
        self._stopping = False
        self._crew = [self._start(number) for number in range(workers)]

    @abstractmethod
    def _start(self, number: int) -> Worker:
        """Start a worker; it loads in the background."""

    @abstractmethod
    def _await_news(self) -> None:
        """Return when a worker has sent something or ended, at the latest after `POLL_SECONDS`."""

    @property
    def free(self) -> int:
        """Return how many more trials can be submitted now."""
        return max(0, self.workers - len(self._queue) - sum(w.busy for w in self._crew))

    def submit(self, spec: TrialSpec) -> None:
        """Queue a trial; the next idle worker takes it."""
        self._queue.append(spec)

    def wait(self, on_message: OnMessage) -> TrialResult:
        """Return the next result, reporting starts, epochs and lost workers meanwhile.

        Raises:
            StopRequestedError: The user asked to stop; every worker finished its epoch.
            WorkerError: No worker can be started.
            SearchError: What a worker met that no other trial could escape, e.g. a full disk.
        """
        while not self._results:
            if self._should_stop() and not self._stopping:
                self._stopping = True
                for worker in self._crew:
                    worker.ask_to_stop()
            if self._stopping and not any(worker.busy for worker in self._crew):
                raise StopRequestedError("stopped after an epoch as asked")
            if not self._stopping:
                self._deal(on_message)
            self._listen(on_message)
        return self._results.popleft()

    def pace(self, values: Values, *, seed: int, precision: str = "float32") -> Pace:
        """Measure a configuration in all workers at once.

        Returns:
            The medians over the workers, each of which shares the machine with the others.

        Raises:
            WorkerError: No worker can be started, or the configuration cannot be trained.
            StopRequestedError: The user asked to stop.
        """
        # All loaded first, then all compiled: either would disturb one that measures already, and
        # those that were done early would measure alone.
        self._listen_until(self._loaded)
        self._paces, self._going = [], False
        self._measure = Measure(values=values, seed=seed, precision=precision)
        for worker in self._crew:
            if worker.ready and not worker.measuring:
                worker.measure(self._measure)
        self._listen_until(self._prepared)
        self._going = True
        for worker in self._crew:
            if worker.prepared:
                worker.go()
        self._listen_until(self._measured)
        ordered = sorted(self._paces, key=lambda pace: pace.epoch)
        return ordered[len(ordered) // 2]

    def _loaded(self) -> bool:
        """Return whether measuring can begin."""
        return all(worker.ready and not worker.measuring for worker in self._crew)

    def _prepared(self) -> bool:
        """Return whether nobody compiles who has loaded; a lost worker is not waited for."""
        measuring = [worker for worker in self._crew if worker.ready and worker.measuring]
        return bool(measuring) and all(worker.prepared for worker in measuring)

    def _measured(self) -> bool:
        """Return whether nobody measures who could still tell; a lost worker is not waited for."""
        return bool(self._paces) and not any(w.ready and w.measuring for w in self._crew)

    def _listen_until(self, done: Callable[[], bool]) -> None:
        while not done():
            if self._should_stop():
                raise StopRequestedError("stopped while measuring")
            self._listen(lambda message: None)

    def close(self) -> None:
        """End the workers: idle ones in order, busy ones at once."""
        for worker in self._crew:
            worker.dismiss()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._crew:
            worker.end(deadline)

    def _deal(self, on_message: OnMessage) -> None:
        """Give queued trials to idle workers that have loaded."""
        for index, worker in enumerate(self._crew):
            if not self._queue or worker.busy or worker.measuring or not worker.ready:
                continue
            limits = self._limits
            tired = worker.trials >= limits.trials_per_worker
            if tired or worker.memory_mb > limits.worker_memory_mb:
                worker.dismiss()
                worker.end(time.monotonic() + GRACE_SECONDS)
                self._crew[index] = self._start(worker.number)
            else:
                spec = self._queue.popleft()
                worker.take(spec)
                on_message(
                    TrialStarted(
                        trial_id=spec.trial_id,
                        worker=worker.number,
                        pid=worker.pid,
                        device=worker.device,
                    )
                )

    def _listen(self, on_message: OnMessage) -> None:
        """Handle what workers send for up to half a second; replace lost ones."""
        self._await_news()
        for index, worker in enumerate(self._crew):
            alive = worker.alive  # before reading, so that last words are heard
            for message in worker.messages():
                self._handle(worker, message, on_message)
            reason = worker.end_reason if not alive else worker.overdue(self._limits)
            if reason:
                self._crew[index] = self._replace(worker, reason, on_message)

    def _handle(self, worker: Worker, message: Any, on_message: OnMessage) -> None:
        worker.last_sign = time.monotonic()
        if isinstance(message, EpochRecord):
            on_message(message)
        elif isinstance(message, TrialResult):
            worker.finish()
            self._results.append(message)
        elif isinstance(message, Ready):
            worker.ready, worker.device = True, message.device
            if not worker.measuring:  # which may break it again and again
                self._failed_starts = 0
        elif isinstance(message, Prepared):
            worker.prepared = True
            if self._going:  # it took the place of one that was lost
                worker.go()
        elif isinstance(message, Pace):
            worker.measuring = False
            self._failed_starts = 0
            self._paces.append(message)
        elif isinstance(message, Holds):
            worker.memory_mb = message.megabytes
        elif isinstance(message, Stopped):
            worker.finish()
        elif isinstance(message, Broken):
            worker.last_words = message.message
        elif isinstance(message, SearchError):
            raise message
        else:
            assert isinstance(message, Beat)

    def _replace(self, worker: Worker, reason: str, on_message: OnMessage) -> Worker:
        """Start another worker in a lost one's place, and see to its trial.

        Raises:
            WorkerError: Workers do not start at all, or fail outside of trials.
        """
        worker.kill()
        if worker.spec is not None:
            self._lose(worker, worker.spec, reason, on_message)
        elif worker.measuring or not worker.ready:
            # An idle one that had loaded is another matter: a whole node of them may go at once.
            self._failed_starts += 1
            if self._failed_starts >= self._limits.start_failures:
                raise WorkerError(
                    f"{self._failed_starts} workers in a row ended before their first trial "
                    f"({reason}); see {worker.place}, or {self.way_out}"
                )
        fresh = self._start(worker.number)
        if worker.measuring and self._measure is not None:
            fresh.measure(self._measure)
        return fresh

    def _lose(self, worker: Worker, spec: TrialSpec, reason: str, on_message: OnMessage) -> None:
        self._losses[spec.trial_id] += 1
        retry = self._losses[spec.trial_id] <= self._limits.retries
        on_message(
            WorkerLost(
                trial_id=spec.trial_id,
                worker=worker.number,
                pid=worker.pid,
                reason=reason,
                retry=retry,
            )
        )
        if retry:
            self._queue.appendleft(spec)
            return
        times = self._losses[spec.trial_id]
        self._results.append(
            TrialResult(
                trial_id=spec.trial_id,
                epochs=(),
                parameters=0,
                seconds=worker.seconds,
                failure=Failure(
                    kind=FailureKind.WORKER_LOST,
                    message=f"lost its worker {times} times, the last time: {reason}",
                ),
            )
        )
