"""What a worker does: receives trials, trains them, sends messages about them.

A worker of this machine is a process with a pipe (`serve`); one on a node of a Ray cluster is an
actor (`RemoteWorker`). Both do the same (`work`). Each has a connection of its own and there is no
shared lock, so a worker that is killed while it writes can block nothing else.

Imports nothing heavy at its top and does not import Ray: the environment that was chosen for a
worker (threads, GPU, share of memory) must be set before a backend is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from search.errors import SearchError, StopRequestedError, storage_errors
from search.records import TrialSpec
from search.tuning.devices import gpu_share_variables, resident_mb, set_environment

BEAT_SECONDS = 1.0
"""A worker that makes progress sends a beat at most this often."""

RECEIVE_SECONDS = 1.0
"""A call for the messages of a remote worker returns after so long, also without any."""

APPEAR_SECONDS = 60.0
"""How long to wait for another node's checkpoint: NFS clients remember for up to a minute that a
file was not there."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The worker has loaded everything and waits for work."""

    device: str


@dataclass(frozen=True, kw_only=True)
class Broken:
    """The worker cannot work, with any trial."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Ask for the pace of a configuration."""

    values: dict[str, Any]
    seed: int
    precision: str


class Signal(Enum):
    """What is said to a worker, or by it, in a word."""

    STOP = auto()
    """Give the trial back after this epoch."""
    STOPPED = auto()
    """The trial was given back, as asked."""
    BEAT = auto()
    """There is progress."""


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
        self._pipe = pipe
        self._lock = threading.Lock()
        self.recv, self.poll = pipe.recv, pipe.poll

    def send(self, message: Any, /) -> None:
        """Send an object."""
        with self._lock:
            self._pipe.send(message)


def serve(
    connection: Connection,
    parent: Connection,
    environment: dict[str, str],
    log_file: Path,
    pickled_setting: bytes,
) -> None:
    """Work until the pipe or the parent's closes; the target of a spawned process."""
    _end_with(parent)
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # That the parent is gone, or has no use for this worker any more, ends it in order.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        # Keras may call back from threads of its own, also when a step has failed.
        _serve(SharedPipe(connection), pickled_setting, environment=environment, log_file=log_file)


def _serve(
    pipe: Pipe,
    pickled_setting: bytes,
    *,
    environment: dict[str, str],
    log_file: Path,
    check: Callable[[], None] = lambda: None,
    place: str = "",
) -> None:
    """Load a backend, then do one task after another until None is sent."""
    try:
        set_environment(environment)
        check()
        print_to(log_file)
        from search import backend

        backend.load()
        setting = pickle.loads(pickled_setting)
        pipe.send(Ready(device=f"{backend.device()}{place}"))
    except SearchError as error:
        pipe.send(error)
        return
    except Exception as error:
        traceback.print_exc()
        pipe.send(Broken(message=f"{type(error).__name__}: {error}"))
        return
    while (task := pipe.recv()) is not None:
        work(pipe, task, setting)


def work(pipe: Pipe, task: Any, setting: Any) -> None:
    """Do one task, and send what it gave.

    Args:
        pipe: To the sender of the task.
        task: A `TrialSpec`, a `Measure`, or a `STOP` that came late.
        setting: A `Setting`.

    Raises:
        Exception: A fault of this program; it was sent as `Broken` before.
    """
    from search import backend
    from search.tuning.executors import measure_pace
    from search.tuning.trial import train_trial

    if task is Signal.STOP:
        return  # came after the trial it was meant for had ended
    try:
        if isinstance(task, Measure):
            pipe.send(measure_pace(setting, task.values, seed=task.seed, precision=task.precision))
            return
        result = train_trial(
            task,
            setting,
            on_epoch=pipe.send,
            should_stop=lambda: _asked_to_stop(pipe),
            on_step=_beats(pipe),
        )
        held = 0 if backend.gpus() else resident_mb()
        pipe.send(dataclasses.replace(result, memory_mb=held))
    except StopRequestedError:
        pipe.send(Signal.STOPPED)
    except SearchError as error:
        pipe.send(error)
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(Broken(message=f"{type(error).__name__}: {error}"))
        raise


def _asked_to_stop(pipe: Pipe) -> bool:
    """Return whether the parent wants the trial back; nothing else is sent to a busy worker."""
    return pipe.poll() and pipe.recv() is Signal.STOP


def _beats(pipe: Pipe) -> Callable[[], None]:
    last = 0.0

    def beat() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= BEAT_SECONDS:
            last = now
            pipe.send(Signal.BEAT)

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
    """Send standard output and error, also of C++, to a file: the terminal is the parent's.

    Raises:
        StorageError: The file cannot be made.
    """
    with storage_errors(log_file):
        log_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


class RemoteWorker:
    """A worker on a node of a cluster; its methods are called from where the search runs.

    The trial is trained in a thread, so that messages can be asked for meanwhile.
    """

    def __init__(
        self,
        setting: bytes,
        *,
        environment: dict[str, str],
        gpus: float,
        log_file: Path,
        shared: tuple[Path, ...],
        versions: dict[str, str],
    ) -> None:
        """Begin to load.

        Args:
            setting: A pickled `Setting`.
            environment: Variables to set before a backend is imported.
            gpus: The share of a GPU that Ray gave it, 0 for none.
            log_file: Gets what it prints.
            shared: Files that every node must see under the same path.
            versions: Packages that must be the same as where the search runs.
        """
        self._mailbox = _Mailbox()
        host = socket.gethostname()

        def serve_here() -> None:
            # What a GPU holds is asked of the node, in this thread.
            _serve(
                self._mailbox,
                setting,
                environment=environment | gpu_share_variables(gpus),
                log_file=log_file,
                check=lambda: _check_node(shared, versions, host),
                place=f" on {host}",
            )

        self._thread = threading.Thread(target=serve_here, name="worker", daemon=True)
        self._thread.start()

    def send(self, task: Any) -> None:
        """Take a task: a trial, a measurement, a request to stop, or None to end."""
        self._mailbox.received.put(task)

    def receive(self) -> tuple[list[Any], int, bool]:
        """Return what it has sent since the last call, after a second at the latest.

        Returns:
            Messages, its process, and whether it will send no more.
        """
        ended = not self._thread.is_alive()  # before reading, so that last words are heard
        messages = []
        with contextlib.suppress(queue.Empty):
            messages.append(self._mailbox.sent.get(timeout=0 if ended else RECEIVE_SECONDS))
            while True:
                messages.append(self._mailbox.sent.get_nowait())
        return messages, os.getpid(), ended


class _Mailbox:
    """The worker's end of a connection, as a pipe is."""

    def __init__(self) -> None:
        self.received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.sent: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, message: Any) -> None:
        self.sent.put(message)

    def recv(self) -> Any:
        task = self.received.get()
        if isinstance(task, TrialSpec):
            _await_checkpoint(task)
        return task

    def poll(self) -> bool:
        return not self.received.empty()


def _check_node(shared: tuple[Path, ...], versions: dict[str, str], host: str) -> None:
    """Make sure that a node sees the same files and has the same packages as the search."""
    for path in shared:
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not there on {host}; put --results-dir and --cache-dir in a folder "
                "that every node mounts under the same path"
            )
    from search import backend

    found = backend.versions()
    for package, version in versions.items():
        if found.get(package) != version:
            raise RuntimeError(
                f"{host} has {package} {found.get(package, 'missing')}, the search {version}; "
                "install the same on every node"
            )


def _await_checkpoint(spec: TrialSpec) -> None:
    """Wait for the parent's checkpoint, which another node may just have written."""
    path = spec.parent_checkpoint
    deadline = time.monotonic() + APPEAR_SECONDS
    while path is not None and not path.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # asks the server, where `exists` may ask a memory
            list(path.parent.iterdir())
        time.sleep(0.5)


def rooted(spec: TrialSpec) -> TrialSpec:
    """Return a trial with absolute paths: a node has another working directory."""
    parent = spec.parent_checkpoint
    return dataclasses.replace(
        spec,
        directory=spec.directory.absolute(),
        parent_checkpoint=parent and parent.absolute(),
    )
