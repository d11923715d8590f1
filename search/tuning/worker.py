"""What a worker process does: takes trials from a pipe, trains them, reports through the pipe.

Imports nothing but the standard library (and `devices.py`, which does not either) at its top,
because the environment that the parent chose for it (threads, GPU, memory share) must be set before
a backend is imported.

One pipe a worker and no shared lock: a worker that is killed while it writes can block nobody.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from search.tuning.devices import set_environment

BEAT_SECONDS = 1.0
"""A worker that makes progress says so at most this often."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The worker has loaded everything and waits for work."""

    device: str


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The worker made progress."""


@dataclass(frozen=True, kw_only=True)
class Holds:
    """The worker tells what main memory it holds after a trial on the CPU."""

    megabytes: int


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """The worker gave a trial back after an epoch, as asked."""

    trial_id: str


@dataclass(frozen=True, kw_only=True)
class Broken:
    """The worker cannot work, whatever the trial."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Ask for the pace of a configuration."""

    values: dict[str, Any]
    seed: int
    precision: str


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The worker has compiled what it is to measure, and waits for `Go`."""


@dataclass(frozen=True, kw_only=True)
class Go:
    """Tell a worker that is prepared to measure now."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Ask to give the trial back after this epoch."""


class Pipe(Protocol):
    """What a worker needs of a connection."""

    def send(self, message: Any, /) -> None:
        """Send an object."""

    def recv(self) -> Any:
        """Wait for an object, and take it."""

    def poll(self) -> bool:
        """Return whether there is an object to take."""


class SharedPipe:
    """A connection that several threads may send through: messages go one after another."""

    def __init__(self, pipe: Pipe) -> None:
        """Send through a pipe that nobody else sends through."""
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, message: Any, /) -> None:
        """Send an object."""
        with self._lock:
            self._pipe.send(message)

    def recv(self) -> Any:
        """Wait for an object, and take it."""
        return self._pipe.recv()

    def poll(self) -> bool:
        """Return whether there is an object to take."""
        return self._pipe.poll()


def serve(
    connection: Connection,
    parent: Connection,
    environment: dict[str, str],
    log_file: Path,
    pickled_setting: bytes,
) -> None:
    """Work until the pipe closes; the target of a spawned process.

    Args:
        connection: To the parent.
        parent: Closes when the parent is gone; nothing is ever sent through it.
        environment: Variables to set before anything else is imported.
        log_file: Gets what is printed, by this process and by libraries.
        pickled_setting: A pickled `Setting`.
    """
    _end_with(parent)
    # Keras may call back from threads of its own, also when a step has failed.
    pipe = SharedPipe(connection)
    set_environment(environment)
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print_to(log_file)
    try:
        from search import backend

        backend.load()
        setting = pickle.loads(pickled_setting)
        pipe.send(Ready(device=backend.device()))
    except Exception:
        traceback.print_exc()
        pipe.send(Broken(message=traceback.format_exc().strip().splitlines()[-1]))
        return
    try:
        while (task := pipe.recv()) is not None:
            work(pipe, task, setting)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, or has no use for this worker any more


def work(pipe: Pipe, task: Any, setting: Any) -> None:
    """Do one task, and send what it gave.

    Args:
        pipe: To whoever gave the task.
        task: A `TrialSpec`, a `Measure`, or a `Stop` that came late.
        setting: A `Setting`.

    Raises:
        Exception: A fault of this program; it was sent as `Broken` before.
    """
    from search import backend
    from search.errors import SearchError, StopRequestedError
    from search.tuning import footprint
    from search.tuning.timing import measure_pace
    from search.tuning.trial import train_trial

    if isinstance(task, Stop):
        return  # came after the trial it was meant for had ended
    try:
        if isinstance(task, Measure):
            pipe.send(
                measure_pace(
                    setting,
                    task.values,
                    seed=task.seed,
                    precision=task.precision,
                    when_compiled=lambda: _await_go(pipe),
                )
            )
            return
        result = train_trial(
            task,
            setting,
            on_epoch=pipe.send,
            should_stop=lambda: _asked_to_stop(pipe),
            on_step=_beats(pipe),
        )
        if not backend.gpus():
            pipe.send(Holds(megabytes=footprint.resident_mb()))
        pipe.send(result)
    except StopRequestedError:
        pipe.send(Stopped(trial_id=task.trial_id))
    except SearchError as error:
        pipe.send(error)
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(Broken(message=f"{type(error).__name__}: {error}"))
        raise


def _await_go(pipe: Pipe) -> None:
    """Wait until all workers are to measure; nothing else is sent to one that measures."""
    pipe.send(Prepared())
    pipe.recv()


def _asked_to_stop(pipe: Pipe) -> bool:
    """Return whether the parent wants the trial back; nothing else is sent to a busy worker."""
    return pipe.poll() and isinstance(pipe.recv(), Stop)


def _beats(pipe: Pipe) -> Callable[[], None]:
    last = 0.0

    def beat() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= BEAT_SECONDS:
            last = now
            pipe.send(Beat())

    return beat


def _end_with(parent: Connection) -> None:
    """End this process as soon as its parent is gone, however that ended.

    A thread may have to wait for seconds while a library is loaded, which holds the interpreter;
    where the kernel signals the parent's end (see `pool.py`) it does not come to that.
    """

    def watch() -> None:
        connections.wait([parent])
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def print_to(log_file: Path) -> None:
    """Send standard output and error, also of C++, to a file: the terminal is the parent's."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
