"""Workers that are processes of this machine.

Each worker is a spawned process with one pipe; the parent watches pipes and processes, nothing is
shared that a killed worker could leave locked. If the parent dies, workers end by themselves.
Images are not sent: workers map the same file.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import multiprocessing.process
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from search.tuning.model import Setting
from search.tuning.pooling import POLL_SECONDS, Pool, PoolLimits, Worker
from search.tuning.trial import ShouldStop
from search.tuning.worker import serve

KILLED_SECONDS = 10.0
"""A killed worker that is not gone by then waits for the kernel, as for a file server or a driver
that does not answer, and is left behind."""


class WorkerPool(Pool):
    """An executor of N worker processes.

    Attributes:
        workers: N.
    """

    way_out = "train in this process with --workers 0"

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
        self._environments = list(environments)
        self._setting = pickle.dumps(setting)
        self._log_dir = log_dir
        super().__init__(len(environments), should_stop=should_stop, limits=limits)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Return the processes of the workers."""
        return [worker.pid for worker in self._crew]

    def _start(self, number: int) -> Worker:
        return _ProcessWorker(
            number,
            self._environments[number],
            self._log_dir / f"worker-{number}.log",
            self._setting,
        )

    def _await_news(self) -> None:
        """Wait for any pipe or the end of any process."""
        sources: list[Any] = []
        for worker in self._crew:
            assert isinstance(worker, _ProcessWorker)
            sources += [worker.pipe, worker.process.sentinel]
        connections.wait(sources, timeout=POLL_SECONDS)


class _ProcessWorker(Worker):
    """The parent's side of one worker process."""

    def __init__(
        self, number: int, environment: dict[str, str], log_file: Path, setting: bytes
    ) -> None:
        super().__init__(number, place=str(log_file))
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # This end closes with this process, however that ends, and with it the worker.
        watched, self._life = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(
            target=serve,
            args=(theirs, watched, environment, log_file, setting),
            name=f"xray-search worker {number}",
            daemon=True,
        )
        self.process.start()
        self.pid = self.process.pid or 0
        _signal_end(watched, self.pid)
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
            # The kernel's way of ending a process when memory is used up; it leaves no other trace.
            perhaps = ", perhaps for want of memory" * (-code == signal.SIGKILL)
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

    def dismiss(self) -> None:
        if self.busy or not self.ready or self.measuring:
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
        with contextlib.suppress(OSError), open(self.place, "a", encoding="utf-8") as log:
            log.write(
                f"process {self.pid} was killed and is not gone after {KILLED_SECONDS:g} s; it is "
                "left behind\n"
            )
        # Those that are listed are waited for at exit, without a limit.
        multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]


def _signal_end(pipe: Connection, pid: int) -> None:
    """Have the kernel end a process by SIGIO when the other end of a pipe is closed.

    So a worker ends with its parent from its first moment on, also while it imports the parent's
    main module or loads a backend, when no code of its own could act. macOS ignores that signal.

    Args:
        pipe: The end that the process holds as well.
        pid: The process.
    """
    flags = fcntl.fcntl(pipe.fileno(), fcntl.F_GETFL)
    fcntl.fcntl(pipe.fileno(), fcntl.F_SETOWN, pid)
    fcntl.fcntl(pipe.fileno(), fcntl.F_SETFL, flags | os.O_ASYNC)
