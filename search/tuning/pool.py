"""Several trials at once, in worker processes of this machine.

Each worker is a spawned process with one pipe; the parent watches pipes and processes, nothing is
shared that a killed worker could leave locked. A worker that dies, hangs or takes too long is
replaced and its trial goes on in another from its last finished epoch. Workers are replaced after
a number of trials, because backends leak memory from model to model; if the parent dies, they end
by themselves. Images are not sent: workers map the same file.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection as connections
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from search.errors import SearchError, StopRequestedError, WorkerError
from search.records import (
    EpochRecord,
    Failure,
    FailureKind,
    TrialResult,
    TrialSpec,
    Values,
)
from search.tuning.executors import OnMessage
from search.tuning.messages import TrialStarted, WorkerLost
from search.tuning.timing import Pace
from search.tuning.trial import Setting, ShouldStop
from search.tuning.worker import Beat, Broken, Measure, Ready, Stop, Stopped, serve

POLL_SECONDS = 0.5
GRACE_SECONDS = 5.0
"""How long a worker that was told to end may take before it is killed."""


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """When a worker is replaced or given up on.

    Attributes:
        trials_per_worker: A worker is replaced after so many trials.
        retries: How often a trial is started again after losing its worker.
        trial_timeout: Seconds a trial may take in one worker; 0 for no limit.
        stall_timeout: Seconds without a training step, validation or checkpoint after which a
            worker counts as hung; 0 for no limit.
        start_failures: Give up after so many workers in a row could not start.
    """

    trials_per_worker: int = 10
    retries: int = 2
    trial_timeout: float = 0.0
    stall_timeout: float = 600.0
    start_failures: int = 3


class WorkerPool:
    """An executor of N worker processes.

    Attributes:
        workers: N.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        environments: Sequence[dict[str, str]],
        log_dir: Path,
        should_stop: ShouldStop,
        limits: PoolLimits | None = None,
    ) -> None:
        """Start the workers; they load in the background.

        Args:
            setting: Data and HyperModel; pickled once, the arrays stay on disk.
            environments: Environment variables of each worker; one worker for each.
            log_dir: Where `worker-N.log` goes, what workers and their libraries print.
            should_stop: Asked every half second.
            limits: When to replace workers.
        """
        self.workers = len(environments)
        self._should_stop = should_stop
        self._limits = limits or PoolLimits()
        self._setting = pickle.dumps(setting)
        self._log_dir = log_dir
        self._queue: deque[TrialSpec] = deque()
        self._results: deque[TrialResult] = deque()
        self._paces: list[Pace] = []
        self._measure: Measure | None = None
        self._losses: Counter[str] = Counter()
        self._failed_starts = 0
        self._stopping = False
        self._crew = [
            self._start(number, environment) for number, environment in enumerate(environments)
        ]

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def free(self) -> int:
        """Return how many more trials can be submitted now."""
        return max(0, self.workers - len(self._queue) - sum(w.busy for w in self._crew))

    @property
    def pids(self) -> list[int]:
        """Return the processes of the workers."""
        return [worker.pid for worker in self._crew]

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
        self._paces = []
        # All loaded first: importing a backend would disturb the one that measures already.
        self._listen_until(lambda: all(worker.ready for worker in self._crew))
        self._measure = Measure(values=values, seed=seed, precision=precision)
        for worker in self._crew:
            worker.send(self._measure)
        self._listen_until(lambda: len(self._paces) == self.workers)
        ordered = sorted(self._paces, key=lambda pace: pace.epoch)
        return ordered[len(ordered) // 2]

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

    def _start(self, number: int, environment: dict[str, str]) -> _Worker:
        return _Worker(number, environment, self._log_dir / f"worker-{number}.log", self._setting)

    def _deal(self, on_message: OnMessage) -> None:
        """Give queued trials to idle workers that have loaded."""
        for index, worker in enumerate(self._crew):
            if not self._queue or worker.busy or not worker.ready:
                continue
            if worker.trials >= self._limits.trials_per_worker:
                worker.dismiss()
                worker.end(time.monotonic() + GRACE_SECONDS)
                self._crew[index] = self._start(worker.number, worker.environment)
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
        sources: list[Any] = [w.pipe for w in self._crew]
        sources += [w.process.sentinel for w in self._crew]
        connections.wait(sources, timeout=POLL_SECONDS)
        for index, worker in enumerate(self._crew):
            alive = worker.process.is_alive()  # before reading, so that last words are heard
            for message in worker.messages():
                self._handle(worker, message, on_message)
            reason = worker.end_reason if not alive else worker.overdue(self._limits)
            if reason:
                self._crew[index] = self._replace(worker, reason, on_message)

    def _handle(self, worker: _Worker, message: Any, on_message: OnMessage) -> None:
        worker.last_sign = time.monotonic()
        if isinstance(message, EpochRecord):
            on_message(message)
        elif isinstance(message, TrialResult):
            worker.finish()
            self._results.append(message)
        elif isinstance(message, Ready):
            worker.ready, worker.device = True, message.device
            self._failed_starts = 0
        elif isinstance(message, Pace):
            worker.measuring = False
            self._paces.append(message)
        elif isinstance(message, Stopped):
            worker.finish()
        elif isinstance(message, Broken):
            worker.last_words = message.message
        elif isinstance(message, SearchError):
            raise message
        else:
            assert isinstance(message, Beat)

    def _replace(self, worker: _Worker, reason: str, on_message: OnMessage) -> _Worker:
        """Start another worker in a lost one's place, and see to its trial.

        Raises:
            WorkerError: Workers do not start at all, or fail outside of trials.
        """
        worker.kill()
        if worker.spec is None:
            self._failed_starts += 1
            if self._failed_starts >= self._limits.start_failures:
                raise WorkerError(
                    f"{self._failed_starts} worker processes in a row ended before their first "
                    f"trial ({reason}); see {worker.log_file}, or train in this process with "
                    "--workers 0"
                )
        else:
            self._lose(worker, worker.spec, reason, on_message)
        fresh = self._start(worker.number, worker.environment)
        if worker.measuring and self._measure is not None:
            fresh.send(self._measure)
        return fresh

    def _lose(self, worker: _Worker, spec: TrialSpec, reason: str, on_message: OnMessage) -> None:
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


class _Worker:
    """The parent's side of one worker process."""

    def __init__(
        self, number: int, environment: dict[str, str], log_file: Path, setting: bytes
    ) -> None:
        self.number = number
        self.environment = environment
        self.log_file = log_file
        self.ready = False
        self.measuring = False
        self.device = ""
        self.trials = 0
        self.spec: TrialSpec | None = None
        self.begun = self.last_sign = time.monotonic()
        self.last_words = ""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=serve,
            args=(theirs, environment, log_file, setting),
            name=f"xray-search worker {number}",
            daemon=True,
        )
        self.process.start()
        self.pid: int = self.process.pid or 0
        theirs.close()

    @property
    def busy(self) -> bool:
        return self.spec is not None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    @property
    def end_reason(self) -> str:
        """Return why the process ended, in words."""
        if self.last_words:
            return self.last_words
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            return f"killed by {name}"
        return f"ended with exit code {code}"

    def overdue(self, limits: PoolLimits) -> str:
        """Return why the worker must be given up, "" if it need not."""
        if not self.busy:
            return ""
        if limits.trial_timeout and self.seconds > limits.trial_timeout:
            return f"took longer than the trial timeout of {limits.trial_timeout:g} s"
        silent = time.monotonic() - self.last_sign
        if limits.stall_timeout and silent > limits.stall_timeout:
            return f"hung: no sign of life for {silent:.0f} s"
        return ""

    def take(self, spec: TrialSpec) -> None:
        self.spec = spec
        self.begun = self.last_sign = time.monotonic()
        self.send(spec)

    def finish(self) -> None:
        self.spec = None
        self.trials += 1

    def ask_to_stop(self) -> None:
        if self.busy:
            self.send(Stop())

    def send(self, task: Any) -> None:
        self.measuring = isinstance(task, Measure)
        with contextlib.suppress(OSError):  # it died; `_listen` will see that
            self.pipe.send(task)

    def messages(self) -> Iterator[Any]:
        """Read what has arrived."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return  # cut short by its end

    def dismiss(self) -> None:
        """Tell an idle worker to end; a busy one is killed."""
        if self.busy or not self.ready or self.measuring:
            self.process.kill()
        else:
            self.send(None)

    def end(self, deadline: float) -> None:
        """Wait for the process's end, and force it at the deadline."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()
