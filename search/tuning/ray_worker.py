"""What runs on a node of a Ray cluster: the worker of `worker.py`, reached by calls, not a pipe.

An actor of Ray holds it. The trial is trained in a thread, so that the actor can be asked meanwhile
what there is to report. Imports nothing heavy at its top: the environment must be set before a
backend is imported. Does not import Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import queue
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.records import TrialSpec
from search.tuning.devices import gpu_share_variables, set_environment
from search.tuning.worker import Broken, Ready, print_to, work

HEAR_SECONDS = 1.0
"""A call for news returns after so long, also without any."""

APPEAR_SECONDS = 60.0
"""How long to wait for another node's checkpoint: NFS clients remember for up to a minute that a
file was not there."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What a worker has sent since it was last asked.

    Attributes:
        messages: As `worker.py` sends them.
        pid: Its process.
        ended: Whether it will send no more.
    """

    messages: tuple[Any, ...]
    pid: int
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Post:
    """What a worker needs to know besides the setting.

    Attributes:
        environment: Variables to set before a backend is imported.
        gpus: The share of a GPU that Ray gave it, 0 for none.
        log_file: Gets what it prints.
        shared: Files that every node must see under the same path.
        versions: Packages that must be the same as where the search runs.
    """

    environment: dict[str, str]
    gpus: float
    log_file: Path
    shared: tuple[Path, ...]
    versions: dict[str, str]


class RemoteWorker:
    """A worker; its methods are called from where the search runs."""

    def __init__(self, post: Post, setting: bytes) -> None:
        """Begin to load.

        Args:
            post: Its place.
            setting: A pickled `Setting`.
        """
        self._mailbox = _Mailbox()
        self._thread = threading.Thread(
            target=self._serve, args=(post, setting), name="worker", daemon=True
        )
        self._thread.start()

    def tell(self, task: Any) -> None:
        """Take a task: a trial, a measurement, a request to stop, or None to end."""
        self._mailbox.received.put(task)

    def hear(self) -> News:
        """Return what it has sent since the last call, after a second at the latest."""
        ended = not self._thread.is_alive()  # before reading, so that last words are heard
        messages = []
        with contextlib.suppress(queue.Empty):
            messages.append(self._mailbox.sent.get(timeout=0 if ended else HEAR_SECONDS))
            while True:
                messages.append(self._mailbox.sent.get_nowait())
        return News(messages=tuple(messages), pid=os.getpid(), ended=ended)

    def _serve(self, post: Post, pickled_setting: bytes) -> None:
        host = socket.gethostname()
        try:
            set_environment(post.environment | gpu_share_variables(post.gpus))
            _check_shared(post.shared, host)
            print_to(post.log_file)
            from search import backend

            _check_versions(post.versions, backend.versions(), host)
            backend.load()
            setting = pickle.loads(pickled_setting)
            self._mailbox.send(Ready(device=f"{backend.device()} on {host}"))
        except Exception as error:
            traceback.print_exc()
            self._mailbox.send(Broken(message=f"{type(error).__name__}: {error}"))
            return
        # A fault was sent as Broken before it is raised; the thread ends with it.
        while (task := self._mailbox.recv()) is not None:
            if isinstance(task, TrialSpec):
                _await_checkpoint(task)
            work(self._mailbox, task, setting)


class _Mailbox:
    """The worker's end of a connection, as a pipe is."""

    def __init__(self) -> None:
        self.received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.sent: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, message: Any) -> None:
        self.sent.put(message)

    def recv(self) -> Any:
        return self.received.get()

    def poll(self) -> bool:
        return not self.received.empty()


def _check_shared(files: tuple[Path, ...], host: str) -> None:
    for path in files:
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not there on {host}; put --results-dir and --cache-dir in a folder "
                "that every node mounts under the same path"
            )


def _check_versions(wanted: dict[str, str], found: dict[str, str], host: str) -> None:
    for package, version in wanted.items():
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
