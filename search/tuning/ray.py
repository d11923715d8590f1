"""Workers on the nodes of a Ray cluster; `RAY.md` says how to start one.

Ray finds a place for each worker and reports when one is lost with its process or its node; what
then happens is what happens in `pool.py` to every lost worker. Data and checkpoints are files in a
folder that all nodes mount under the same path. Workers belong to this process: they end with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search import backend
from search.errors import ConfigurationError, WorkerError
from search.records import Dataset, TrialSpec
from search.tuning.devices import thread_variables
from search.tuning.model import Setting
from search.tuning.pool import POLL_SECONDS, Pool, PoolLimits, Worker
from search.tuning.trial import ShouldStop
from search.tuning.worker import RemoteWorker, rooted

KNOCK_SECONDS = 10.0

LOCAL_STORE_BYTES = 80 * 2**20
"""Ray's shared memory in a cluster of our own: next to nothing goes through it."""

START_SECONDS = 600.0
"""How long to wait for the first place: a cluster may have to start its nodes."""

MEASURE_SECONDS = 60.0
"""How long to wait for the last place before measuring with the workers that there are."""

SAME_EVERYWHERE = ("python", "keras", "keras-tuner", "tensorflow", "jax")


class RayCluster:
    """The connection to a cluster, and the packages it was given.

    Attributes:
        ray: The package.
        cpus: CPU cores of a trial, as Ray counts them.
        gpus: The share of a GPU that a trial takes, 0 to train on CPUs.
    """

    def __init__(
        self, *, address: str = "", cpus: int = 1, gpus: float = 0.0, hypermodel: Any
    ) -> None:
        """Connect.

        Args:
            address: Of the cluster; "" for this machine's, which is started if there is none.
            cpus: CPU cores of a trial, as Ray counts them.
            gpus: The share of a GPU that a trial takes, 0 to train on CPUs.
            hypermodel: The package of its class is sent to the nodes, with this one.

        Raises:
            ConfigurationError: Ray is not installed.
            WorkerError: No cluster answers.
        """
        if importlib.util.find_spec("ray") is None:
            raise ConfigurationError(
                "--executor ray: the package ray is not installed; pip install "
                "'xray-search[ray]', or leave the option out"
            )
        # It would tell its makers of every cluster; a hospital has not agreed to that.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Imported here: an extra, and slow to load.
        self.ray: Any = importlib.import_module("ray")
        self.cpus, self.gpus = cpus, gpus
        packages = {"search", type(hypermodel).__module__.partition(".")[0]} - {"__main__"}
        self._environment = {
            "py_modules": [importlib.import_module(name) for name in sorted(packages)]
        }
        self._connect(address)

    def _connect(self, address: str) -> None:
        try:
            _knock(address)
            self._init(address or "auto")
        except (OSError, RuntimeError, ValueError) as error:
            if not address and "find any running" in str(error):  # there is none on this machine
                self._init("local", include_dashboard=False, object_store_memory=LOCAL_STORE_BYTES)
                return
            named = f"--address {address}" if address else "--executor ray"
            raise WorkerError(
                f"{named}: no Ray cluster that can be used ({_one_line(error)}). This machine must "
                "be a node of it, see search/tuning/RAY.md; if it asks for a token, set "
                "RAY_AUTH_MODE=token and the token here as there"
            ) from None

    def _init(self, address: str, **options: Any) -> None:
        self.ray.init(
            address=address,
            runtime_env=self._environment,
            log_to_driver=False,
            logging_level="ERROR",
            **options,
        )

    @property
    def places(self) -> int:
        """Return how many trials the nodes of now have room for at once."""
        found = 0
        for node in self.ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                room = int(resources.get("CPU", 0) // self.cpus)
                if self.gpus:
                    # A fifth of a GPU five times is a whole one, in spite of rounding.
                    room = min(room, int(resources.get("GPU", 0) / self.gpus + 1e-6))
                found += room
        return found

    @property
    def nodes(self) -> int:
        """Return how many nodes there are now."""
        return sum(node["Alive"] for node in self.ray.nodes())

    def close(self) -> None:
        """Disconnect; a cluster that was started here ends."""
        self.ray.shutdown()


def _knock(address: str) -> None:
    """Make sure that something answers, since Ray tries for ten minutes.

    Raises:
        OSError: There is no answer.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _one_line(error: Exception) -> str:
    """Return the message of an exception in one line."""
    return " ".join(str(error).split())


def open_on_ray(
    setting: Setting,
    workers: int | None,
    *,
    address: str,
    cpus: int,
    gpus: float,
    trials: int,
    log_dir: Path,
    should_stop: ShouldStop,
    limits: PoolLimits,
) -> RayPool:
    """Connect to a cluster and ask for workers.

    Raises:
        ConfigurationError: Ray is not installed.
        WorkerError: No cluster answers, or it has no room for a trial.
    """
    cluster = RayCluster(address=address, cpus=cpus, gpus=gpus, hypermodel=setting.hypermodel)
    try:
        count = workers or min(trials, _room(cluster))
        return RayPool(
            setting,
            workers=count,
            cluster=cluster,
            log_dir=log_dir,
            should_stop=should_stop,
            limits=limits,
        )
    except BaseException:
        cluster.close()
        raise


def _room(cluster: RayCluster) -> int:
    if not (places := cluster.places):
        gpu = f" and {cluster.gpus:g} GPU" if cluster.gpus else ""
        raise WorkerError(
            f"--executor ray: no node of the cluster has {cluster.cpus} CPU{gpu} for a trial; ask "
            "for less with --cpus-per-trial and --gpus-per-trial, start nodes, or, where nodes "
            "are started on demand, give --workers N"
        )
    return places


class RayPool(Pool):
    """An executor of N workers on the nodes of a cluster.

    Attributes:
        workers: N; those that find no place wait for one.
    """

    remedy = "train on this machine alone with --executor local"

    def __init__(
        self,
        setting: Setting,
        *,
        workers: int,
        cluster: RayCluster,
        log_dir: Path,
        should_stop: ShouldStop,
        limits: PoolLimits | None = None,
    ) -> None:
        """Ask for the workers; they load in the background."""
        self._cluster = cluster
        self._ray = cluster.ray
        self._log_dir = log_dir.absolute()
        self._log_dir.mkdir(parents=True, exist_ok=True)
        setting = dataclasses.replace(setting, dataset=_rooted(setting.dataset))
        dataset = setting.dataset
        # Its own pickle also takes a HyperModel that was defined where the search was started.
        self._setting = self._ray.put(self._ray.cloudpickle.dumps(setting))
        found = backend.versions()
        self._node: dict[str, Any] = {
            "environment": {
                "KERAS_BACKEND": backend.name(),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **thread_variables(cluster.cpus),
            },
            "gpus": cluster.gpus,
            "shared": (self._log_dir, dataset.train.array_file, dataset.views.array_file),
            "versions": {name: found[name] for name in SAME_EVERYWHERE if name in found},
        }
        self._begun = self._placed = time.monotonic()
        nodes = cluster.nodes
        super().__init__(
            workers,
            dataset=dataset,
            description=f"{workers} worker{'' if workers == 1 else 's'} on {nodes} "
            f"node{'' if nodes == 1 else 's'} of Ray",
            should_stop=should_stop,
            limits=limits,
        )

    def close(self) -> None:
        """End the workers and disconnect."""
        super().close()
        self._cluster.close()

    def _start(self, number: int) -> Worker:
        log_file = self._log_dir / f"worker-{number}.log"
        actor = (
            self._ray.remote(RemoteWorker)
            .options(
                num_cpus=self._cluster.cpus,
                num_gpus=self._cluster.gpus,
                # One call waits for messages while another brings a task.
                max_concurrency=4,
                # Lost ones are replaced here, where their trials are known.
                max_restarts=0,
                scheduling_strategy="SPREAD",
            )
            .remote(self._setting, log_file=log_file, **self._node)
        )
        return _RayWorker(number, actor, ray=self._ray, log_file=log_file)

    def _await_messages(self) -> None:
        pending = [w.pending for w in self._workers if isinstance(w, _RayWorker) and w.alive]
        if len(pending) == len(self._workers):
            self._ray.wait(pending, num_returns=1, timeout=POLL_SECONDS)
        now = time.monotonic()
        if any(worker.ready for worker in self._workers):
            self._placed = now
        elif now - self._placed > START_SECONDS:
            raise WorkerError(
                f"--executor ray: for {START_SECONDS / 60:.0f} minutes no node had room for a "
                "worker, or could start one; `ray status` shows what is free, `ray list actors` "
                "what waits. Go on with --resume when there are nodes"
            )

    @property
    def _loaded(self) -> bool:
        """Return whether all workers, or after a minute one, found a place."""
        if time.monotonic() - self._begun < MEASURE_SECONDS:
            return super()._loaded
        ready = [worker for worker in self._workers if worker.ready]
        return bool(ready) and not any(worker.measuring for worker in ready)


class _RayWorker(Worker):
    """The searching side of one worker on a node.

    Attributes:
        pending: The call for its messages that has not returned.
    """

    def __init__(self, number: int, actor: Any, *, ray: Any, log_file: Path) -> None:
        super().__init__(number, log_file=log_file)
        self._actor = actor
        self._ray = ray
        self._lost = ""
        self.pending = actor.receive.remote()

    @property
    def alive(self) -> bool:
        return not self._lost

    @property
    def end_reason(self) -> str:
        return self.last_words or self._lost

    def overdue(self, limits: PoolLimits) -> str:
        # Until it is ready it may be waiting for a node; see `RayPool._await_messages`.
        return super().overdue(limits) if self.ready else ""

    def send(self, task: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):  # the pool will see that
            self._actor.send.remote(rooted(task) if isinstance(task, TrialSpec) else task)

    def messages(self) -> Iterator[Any]:
        if self._lost or not self._ray.wait([self.pending], timeout=0)[0]:
            return
        try:
            messages, self.pid, ended = self._ray.get(self.pending)
        except self._ray.exceptions.RayError as error:
            self._lost = _loss(error)
            return
        yield from messages
        if ended:
            self._lost = "its work ended"
        else:
            self.pending = self._actor.receive.remote()

    def stop(self) -> None:
        self.kill()

    def end(self, deadline: float) -> None:
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor, no_restart=True)


def _loss(error: Exception) -> str:
    """Return in words how Ray lost a worker."""
    name, text = type(error).__name__, _one_line(error)
    if name == "ActorUnavailableError":
        # Ray distinguishes the two only later and calls it temporary; what was sent is lost.
        return "neither its process nor its node answers"
    if "node" in text and "died" in text.partition("node")[2]:
        return "its node was lost"
    if "OutOfMemory" in name or "memory" in text:
        return "killed because its node ran out of memory"
    return f"its process ended: {text[:200]}"


def _rooted(dataset: Dataset) -> Dataset:
    """Return a data set with absolute paths: a node has another working directory."""
    return dataclasses.replace(
        dataset,
        **{
            part: dataclasses.replace(
                getattr(dataset, part), array_file=getattr(dataset, part).array_file.absolute()
            )
            for part in ("train", "val", "views")
        },
    )
