"""Several trials at once: what every executor of several workers does, and worker processes.

A worker receives trials, sends messages, and may be lost at any moment: it dies, hangs or takes too
long. It is then replaced, and its trial goes on in another from its last finished epoch. Workers
are also replaced after a number of trials, or when they hold much memory, because backends leak it
from model to model and keep what their largest took.

Worker processes are spawned, each with one pipe; the parent watches pipes and processes, nothing is
shared that a killed worker could leave locked. If the parent dies, workers end by themselves.
Images are not sent: workers map the same file. Workers elsewhere: `ray.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import multiprocessing.process
import os
import pickle
import signal
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from search import backend
from search.errors import SearchError, StopRequestedError, WorkerError
from search.records import (
    Dataset,
    EpochRecord,
    Failure,
    FailureKind,
    TrialResult,
    TrialSpec,
    Values,
)
from search.tuning.devices import (
    Gpu,
    default_workers,
    find_gpus,
    threads_per_worker,
    usable_cores,
    worker_environments,
)
from search.tuning.executors import (
    Executor,
    InProcessExecutor,
    OnMessage,
    Pace,
    TrialStarted,
    WorkerLost,
)
from search.tuning.model import Setting
from search.tuning.trial import ShouldStop, refuse_machine_faults
from search.tuning.worker import Broken, Measure, Ready, Signal, serve

POLL_SECONDS = 0.5

SUSPENDED_SECONDS = 10.0
"""A pool that did not look at its workers for longer was suspended, and its workers with it."""

STARTING_SECONDS = 600.0
"""A worker that loads or measures for longer than this, and than the stall timeout, has hung."""

GRACE_SECONDS = 5.0
"""How long a worker that was asked to end may take before it is killed."""

KILLED_SECONDS = 10.0
"""A killed worker that is not gone by then waits for the kernel, as for a file server or a driver
that does not answer, and is left behind."""


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """When a worker is replaced or given up on."""

    trials_per_worker: int = 10  # A worker is replaced after so many trials
    # A worker that trains on the CPU is replaced after a trial when it holds more main memory than
    # this; the next trial may need as much again
    worker_memory_mb: int = 1500
    retries: int = 2  # How often a trial is started again after losing its worker
    trial_timeout: float = 0.0  # Seconds a trial may take in one worker; 0 for no limit
    # Seconds without a training step, validation or checkpoint after which a worker counts as hung;
    # 0 for no limit
    stall_timeout: float = 600.0
    start_failures: int = 3  # Give up after so many workers in a row could not start


class Worker(ABC):
    """The parent's side of one worker.

    Attributes:
        number: 0 for the first.
        log_file: Gets what it prints.
        pid: Its process; known once it is ready.
        ready: Whether it has loaded everything.
        device: What it trains on, in words; known once it is ready.
        measuring: Whether it was asked for a pace and has not sent it.
        trials: How many it has ended.
        memory_mb: Main memory it held after the last of them, where it trains on the CPU.
        spec: The trial it trains, None while idle.
        begun: When it got that trial, on the monotonic clock.
        last_sign: When it last made progress, likewise.
        last_words: Why it cannot work, where it could say so.
    """

    def __init__(self, number: int, *, log_file: Path) -> None:
        self.number = number
        self.log_file = log_file
        self.pid = 0
        self.ready = False
        self.device = ""
        self.measuring = False
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
    def stop(self) -> None:
        """Begin to end it: an idle one in order, a busy one at once."""

    @abstractmethod
    def end(self, deadline: float) -> None:
        """Wait for its end, and force it at the deadline, on the monotonic clock."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; it may be dead already."""

    def overdue(self, limits: PoolLimits) -> str:
        """Return why the worker must be given up, "" if it need not."""
        now = time.monotonic()
        silent = now - self.last_sign
        if not self.busy:
            patience = max(limits.stall_timeout, STARTING_SECONDS)
            if limits.stall_timeout and self.starting and silent > patience:
                return f"hung: neither loaded nor measured within {silent:.0f} s"
            return ""
        if limits.trial_timeout and now - self.begun > limits.trial_timeout:
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
        """Ask it for a pace."""
        self.measuring = True
        self.last_sign = time.monotonic()
        self.send(task)

    def finish(self) -> None:
        """Note that its trial ended, or was given back."""
        self.spec = None
        self.trials += 1

    def excuse(self, seconds: float) -> None:
        """Do not count a time in which everything was suspended."""
        self.begun += seconds
        self.last_sign += seconds


class Pool(ABC):
    """An executor of N workers.

    Attributes:
        workers: N.
        description: What it is, for the plan.
        remedy: How to train without such workers, for the message when none can be started.
    """

    remedy = ""

    def __init__(
        self,
        workers: int,
        *,
        dataset: Dataset,
        description: str,
        should_stop: ShouldStop,
        limits: PoolLimits | None = None,
    ) -> None:
        """Start the workers; they load in the background.

        Args:
            workers: How many.
            dataset: What trials read.
            description: What they are, for the plan.
            should_stop: Asked every half second.
            limits: When to replace workers.
        """
        self.workers = workers
        self.description = description
        self._dataset = dataset
        self._should_stop = should_stop
        self._limits = limits or PoolLimits()
        self._queue: deque[TrialSpec] = deque()
        self._results: deque[TrialResult] = deque()
        self._paces: list[Pace] = []
        self._losses: Counter[str] = Counter()
        self._failed_starts = 0
        self._stopping = False
        self._looked = time.monotonic()
        self._workers = [self._start(number) for number in range(workers)]

    @abstractmethod
    def _start(self, number: int) -> Worker:
        """Start a worker; it loads in the background."""

    @abstractmethod
    def _await_messages(self) -> None:
        """Return when a worker has sent something or ended, at the latest after `POLL_SECONDS`."""

    @property
    def free(self) -> int:
        """Return how many more trials can be submitted now."""
        return max(0, self.workers - len(self._queue) - sum(w.busy for w in self._workers))

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
                for worker in self._workers:
                    if worker.busy:
                        worker.send(Signal.STOP)
            if self._stopping and not any(worker.busy for worker in self._workers):
                raise StopRequestedError("stopped after an epoch as asked")
            if not self._stopping:
                self._distribute(on_message)
            self._listen(on_message)
        return self._results.popleft()

    def pace(self, values: Values, *, seed: int, precision: str = "float32") -> Pace:
        """Measure what a configuration costs the whole machine while every worker trains it.

        Raises:
            StopRequestedError: The user asked to stop.
            WorkerError: No worker can be started.
        """
        task = Measure(values=dict(values), seed=seed, precision=precision)
        self._paces.clear()
        while not self._paces or any(worker.measuring for worker in self._workers):
            if self._should_stop():
                raise StopRequestedError("stopped while measuring")
            # One that replaces a lost worker is not waited for where others have measured.
            if not self._paces and self._loaded:
                for worker in self._workers:
                    if worker.ready:
                        worker.measure(task)
            self._listen(lambda message: None)
        # All of them together do in a second what each does in as many seconds as there are.
        return Pace(
            epoch=statistics.median(pace.epoch for pace in self._paces) / self.workers,
            trial=statistics.median(pace.trial for pace in self._paces) / self.workers,
        )

    @property
    def _loaded(self) -> bool:
        """Return whether measuring can begin."""
        return not any(worker.starting for worker in self._workers)

    def close(self) -> None:
        """End the workers: idle ones in order, busy ones at once."""
        for worker in self._workers:
            worker.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            worker.end(deadline)

    def _distribute(self, on_message: OnMessage) -> None:
        """Give queued trials to idle workers that have loaded."""
        limits = self._limits
        for index, worker in enumerate(self._workers):
            if not self._queue or worker.busy or worker.starting:
                continue
            worn = worker.trials >= limits.trials_per_worker
            if worn or worker.memory_mb > limits.worker_memory_mb:
                worker.stop()
                worker.end(time.monotonic() + GRACE_SECONDS)
                self._workers[index] = self._start(worker.number)
                continue
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
        self._excuse_suspension()
        self._await_messages()
        self._excuse_suspension()
        for index, worker in enumerate(self._workers):
            alive = worker.alive  # before reading, so that last words are heard
            for message in worker.messages():
                self._handle(worker, message, on_message)
            reason = worker.end_reason if not alive else worker.overdue(self._limits)
            if reason:
                self._workers[index] = self._replace(worker, reason, on_message)

    def _excuse_suspension(self) -> None:
        """Notice that this process slept, as by Ctrl-Z: its workers slept too and are not hung."""
        now = time.monotonic()
        if now - self._looked > SUSPENDED_SECONDS:
            for worker in self._workers:
                worker.excuse(now - self._looked)
        self._looked = now

    def _handle(self, worker: Worker, message: Any, on_message: OnMessage) -> None:
        worker.last_sign = time.monotonic()
        if isinstance(message, EpochRecord):
            on_message(message)
        elif isinstance(message, TrialResult):
            worker.finish()
            worker.memory_mb = message.memory_mb
            self._failed_starts = 0
            self._results.append(message)
        elif isinstance(message, Ready):
            worker.ready, worker.device = True, message.device
        elif isinstance(message, Pace):
            worker.measuring = False
            self._failed_starts = 0
            self._paces.append(message)
        elif message is Signal.STOPPED:
            worker.finish()
        elif isinstance(message, Broken):
            worker.last_words = message.message
        elif isinstance(message, SearchError):
            raise message
        else:
            assert message is Signal.BEAT

    def _replace(self, worker: Worker, reason: str, on_message: OnMessage) -> Worker:
        """Start another worker in place of a lost one, and see to its trial.

        Raises:
            WorkerError: Workers do not start at all, or fail outside of trials.
        """
        worker.kill()
        if worker.spec is not None:
            self._lose(worker, worker.spec, reason, on_message)
        elif worker.starting:
            # An idle one that had loaded is another matter: a whole node of them may go at once.
            self._failed_starts += 1
            if self._failed_starts >= self._limits.start_failures:
                raise WorkerError(
                    f"{self._failed_starts} workers in a row ended before their first trial "
                    f"({reason}); see {worker.log_file}, or {self.remedy}"
                )
        return self._start(worker.number)

    def _lose(self, worker: Worker, spec: TrialSpec, reason: str, on_message: OnMessage) -> None:
        """Put the trial of a lost worker back into the queue, or fail it after its last retry.

        Raises:
            SearchError: It was lost by a fault of the machine, see `trial.refuse_machine_faults`.
        """
        # A file of images that is cut short kills the process that reads it (SIGBUS).
        refuse_machine_faults(self._dataset)
        self._losses[spec.trial_id] += 1
        times = self._losses[spec.trial_id]
        retry = times <= self._limits.retries
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
        failure = Failure(
            kind=FailureKind.WORKER_LOST,
            message=f"lost its worker {times} times, the last time: {reason}",
        )
        self._results.append(
            TrialResult(
                trial_id=spec.trial_id,
                epochs=(),
                parameters=0,
                seconds=time.monotonic() - worker.begun,
                failure=failure,
            )
        )


def open_executor(
    setting: Setting,
    workers: int | None,
    *,
    trials: int,
    log_dir: Path,
    should_stop: ShouldStop,
    limits: PoolLimits,
    gpus: Sequence[Gpu] | None = None,
) -> Executor:
    """Start worker processes on this machine, or with 0 train in this process.

    Args:
        setting: Data and HyperModel.
        workers: How many; None for as many as the rule gives, see `devices.default_workers`.
        trials: How many trials there are, at most.
        log_dir: Where workers' logs go.
        should_stop: Asked after each epoch.
        limits: When workers are replaced.
        gpus: The GPUs to use; those that the backend can use by default.

    Raises:
        WorkerError: No worker can be started.
    """
    if workers == 0:
        return InProcessExecutor(setting, should_stop=should_stop)
    found = usable_gpus() if gpus is None else gpus
    count = workers or default_workers(trials, gpus=found)
    return WorkerPool(
        setting,
        environments=worker_environments(count, gpus=found),
        log_dir=log_dir,
        should_stop=should_stop,
        limits=limits,
        description=_described(count, gpus=len(found)),
    )


def usable_gpus() -> tuple[Gpu, ...]:
    """Return the machine's GPUs, none where the backend is made for the CPU alone."""
    return find_gpus() if backend.gpus() else ()


def _described(workers: int, *, gpus: int) -> str:
    count = "1 worker" if workers == 1 else f"{workers} workers"
    if gpus:
        return f"{count} on {gpus} GPU{'' if gpus == 1 else 's'}"
    cores = usable_cores()
    return f"{count} with {threads_per_worker(workers)} of {cores} CPU cores each"


class WorkerPool(Pool):
    """An executor of N worker processes."""

    remedy = "train in this process with --workers 0"

    def __init__(
        self,
        setting: Setting,
        *,
        environments: Sequence[dict[str, str]],
        log_dir: Path,
        should_stop: ShouldStop,
        limits: PoolLimits | None = None,
        description: str = "",
    ) -> None:
        """Start the workers, one for each set of environment variables; else as for `Pool`."""
        self._environments = list(environments)
        self._setting = pickle.dumps(setting)
        self._log_dir = log_dir
        super().__init__(
            len(environments),
            dataset=setting.dataset,
            description=description,
            should_stop=should_stop,
            limits=limits,
        )

    def _start(self, number: int) -> Worker:
        log_file = self._log_dir / f"worker-{number}.log"
        return _ProcessWorker(
            number,
            environment=self._environments[number],
            log_file=log_file,
            setting=self._setting,
        )

    def _await_messages(self) -> None:
        sources: list[Any] = []
        for worker in self._workers:
            assert isinstance(worker, _ProcessWorker)
            sources += [worker.pipe, worker.process.sentinel]
        connections.wait(sources, timeout=POLL_SECONDS)


class _ProcessWorker(Worker):
    """The parent's side of one worker process."""

    def __init__(
        self, number: int, *, environment: dict[str, str], log_file: Path, setting: bytes
    ) -> None:
        super().__init__(number, log_file=log_file)
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # This end closes with this process, however that ends, and with it the worker.
        watched, self._life = context.Pipe(duplex=False)
        self.process = context.Process(
            target=serve,
            args=(theirs, watched, environment, log_file, setting),
            name=f"xray-search worker {number}",
            daemon=True,
        )
        self.process.start()
        self.pid = self.process.pid or 0
        _kill_at_close(watched, self.pid)
        theirs.close()
        watched.close()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def end_reason(self) -> str:
        if self.last_words:
            return self.last_words
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            # The kernel ends a process this way when memory is used up, and leaves no other trace.
            perhaps = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
            return f"killed by {name}{perhaps}"
        return f"ended with exit code {code}"

    def send(self, task: Any) -> None:
        with contextlib.suppress(OSError):  # it died; the pool will see that
            self.pipe.send(task)

    def messages(self) -> Iterator[Any]:
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return  # cut short by its end

    def stop(self) -> None:
        if self.busy or self.starting:
            self.process.kill()
        else:
            self.send(None)

    def end(self, deadline: float) -> None:
        self.process.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join(KILLED_SECONDS)
        if self.process.is_alive():
            self._leave_behind()
        self.pipe.close()
        self._life.close()

    def _leave_behind(self) -> None:
        """Go on without waiting for its end, now and when this process ends."""
        with contextlib.suppress(OSError), open(self.log_file, "a", encoding="utf-8") as log:
            log.write(
                f"process {self.pid} was killed and is not gone after {KILLED_SECONDS:g} s; it is "
                "left behind\n"
            )
        # At exit multiprocessing joins all that are in this set, without a limit, also daemons.
        # There is no public way to take one out; test_pool.py fails when the set changes.
        multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]


def _kill_at_close(pipe: Connection, pid: int) -> None:
    """Have the kernel kill a process when the other end of a pipe is closed.

    So a worker ends with its parent from its first moment on: also while it imports the parent's
    main module or loads a backend, when no code of its own could act, and while it is stopped
    (SIGSTOP), when only SIGKILL is obeyed. macOS ignores this; there the worker's own thread ends
    it, see `worker.py`.
    """
    descriptor = pipe.fileno()
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, pid)
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
