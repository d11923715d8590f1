"""Workers on the nodes of a Ray cluster; `RAY.md` says how to start one.

Ray finds a place for each worker and tells when one is lost with its process or its node; what then
happens is what happens in `pooling.py` to every lost worker. Data and checkpoints are files in a
folder that all nodes mount under the same path. Workers belong to this process: they end with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search import backend
from search.errors import WorkerError
from search.records import Dataset, TrialSpec, Values
from search.tuning.devices import thread_variables
from search.tuning.model import Setting
from search.tuning.pooling import POLL_SECONDS, Pool, PoolLimits, Worker
from search.tuning.ray_cluster import RayCluster, RayWishes, one_line
from search.tuning.ray_worker import Post, RemoteWorker, rooted
from search.tuning.scaling import Staffing, Wishes, choose, shared
from search.tuning.timing import Pace
from search.tuning.trial import ShouldStop

START_SECONDS = 600.0
"""How long to wait for the first place: a cluster may have to start its nodes."""

MEASURE_SECONDS = 60.0
"""How long to wait for the last place before measuring with the workers that there are."""

SAME_EVERYWHERE = ("python", "keras", "keras-tuner", "tensorflow", "jax")


def staff_on_ray(
    setting: Setting,
    wishes: Wishes,
    *,
    ray_wishes: RayWishes,
    documented: Values,
    seed: int,
    log_dir: Path,
    should_stop: ShouldStop,
    limits: PoolLimits,
) -> Staffing:
    """Start the executor of a search on a cluster and measure its pace.

    Args:
        setting: Data and HyperModel.
        wishes: Workers and precision; as many workers as there is room for where it was left open.
        ray_wishes: Which cluster, and what a trial takes of it.
        documented: The configuration to measure.
        seed: Any seed.
        log_dir: Where workers' logs go.
        should_stop: Asked while measuring and after each epoch.
        limits: When workers are replaced.

    Raises:
        ConfigurationError: Ray is not installed.
        WorkerError: No cluster answers, or no worker can be started on it.
        StopRequestedError: The user asked to stop.
    """
    cluster = RayCluster(ray_wishes, hypermodel=setting.hypermodel)
    try:
        nodes = cluster.nodes
        workers = wishes.workers or _all_places(cluster)
    except BaseException:
        cluster.close()
        raise

    def open_pool(count: int) -> RayPool:
        return RayPool(
            setting,
            workers=count,
            cluster=cluster,
            log_dir=log_dir,
            should_stop=should_stop,
            limits=limits,
        )

    def pace_of(executor: Any, precision: str) -> Pace:
        return shared(executor.pace(documented, seed=seed, precision=precision), executor.workers)

    staffing = choose(
        dataclasses.replace(wishes, workers=workers),
        open_executor=open_pool,
        pace_of=pace_of,
        most=workers,
        device="Ray",
    )
    asked = "" if wishes.workers else ", as many as have room"
    where = f"{nodes} node{'' if nodes == 1 else 's'} of Ray{asked}"
    return dataclasses.replace(staffing, reason=f"{staffing.reason}; on {where}")


def open_on_ray(
    setting: Setting,
    ray_wishes: RayWishes,
    workers: int,
    *,
    log_dir: Path,
    should_stop: ShouldStop,
    limits: PoolLimits,
) -> RayPool:
    """Connect to a cluster and ask for so many workers.

    Args:
        setting: Data and HyperModel.
        ray_wishes: Which cluster, and what a trial takes of it.
        workers: How many.
        log_dir: Where workers' logs go.
        should_stop: Asked after each epoch.
        limits: When workers are replaced.

    Raises:
        ConfigurationError: Ray is not installed.
        WorkerError: No cluster answers.
    """
    return RayPool(
        setting,
        workers=workers,
        cluster=RayCluster(ray_wishes, hypermodel=setting.hypermodel),
        log_dir=log_dir,
        should_stop=should_stop,
        limits=limits,
    )


def _all_places(cluster: RayCluster) -> int:
    places, wishes = cluster.places, cluster.wishes
    if not places:
        gpu = f" and {wishes.gpus:g} GPU" if wishes.gpus else ""
        raise WorkerError(
            f"--executor ray: no node of the cluster has {wishes.cpus} CPU{gpu} for a trial; ask "
            "for less with --cpus-per-trial and --gpus-per-trial, start nodes, or, where nodes "
            "are started on demand, give --workers N"
        )
    return places


class RayPool(Pool):
    """An executor of N workers on the nodes of a cluster.

    Attributes:
        workers: N; those that find no place wait for one.
    """

    way_out = "train on this machine alone with --executor local"

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
        """Ask for the workers; they load in the background.

        Args:
            setting: Data and HyperModel; the arrays stay on disk.
            workers: How many.
            cluster: Where; closed with this executor.
            log_dir: Where `worker-N.log` goes; a folder that all nodes see.
            should_stop: Asked every half second.
            limits: When to replace workers.
        """
        self._cluster = cluster
        self._ray = cluster.ray
        self._log_dir = log_dir.absolute()
        self._log_dir.mkdir(parents=True, exist_ok=True)
        setting = dataclasses.replace(setting, dataset=_rooted(setting.dataset))
        dataset = setting.dataset
        # Its own pickle also takes a HyperModel that was defined where the search was started.
        self._setting = self._ray.put(self._ray.cloudpickle.dumps(setting))
        found = backend.versions()
        self._post = Post(
            environment={
                "KERAS_BACKEND": backend.load().backend.backend(),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **thread_variables(cluster.wishes.cpus),
            },
            gpus=cluster.wishes.gpus,
            log_file=self._log_dir,
            shared=(self._log_dir, dataset.train.array_file, dataset.views.array_file),
            versions={name: found[name] for name in SAME_EVERYWHERE if name in found},
        )
        self._begun = self._placed = time.monotonic()
        super().__init__(workers, should_stop=should_stop, limits=limits)

    def close(self) -> None:
        """End the workers and disconnect."""
        super().close()
        self._cluster.close()

    def _start(self, number: int) -> Worker:
        post = dataclasses.replace(self._post, log_file=self._log_dir / f"worker-{number}.log")
        wishes = self._cluster.wishes
        actor = (
            self._ray.remote(RemoteWorker)
            .options(
                num_cpus=wishes.cpus,
                num_gpus=wishes.gpus,
                # One call waits for news while another brings a task.
                max_concurrency=4,
                # Lost ones are replaced here, where their trials are known.
                max_restarts=0,
                scheduling_strategy="SPREAD",
            )
            .remote(post, self._setting)
        )
        return _RayWorker(number, actor, ray=self._ray, place=str(post.log_file))

    def _await_news(self) -> None:
        news = [w.news for w in self._crew if isinstance(w, _RayWorker) and w.alive]
        if len(news) == len(self._crew):
            self._ray.wait(news, num_returns=1, timeout=POLL_SECONDS)
        now = time.monotonic()
        if any(worker.ready for worker in self._crew):
            self._placed = now
        elif now - self._placed > START_SECONDS:
            raise WorkerError(
                f"--executor ray: for {START_SECONDS / 60:.0f} minutes no node had room for a "
                "worker, or could start one; `ray status` shows what is free, `ray list actors` "
                "what waits. Go on with --resume when there are nodes"
            )

    def _loaded(self) -> bool:
        """Return whether all workers, or after a minute one, found a place."""
        waited = time.monotonic() - self._begun
        return super()._loaded() or (
            waited > MEASURE_SECONDS and any(worker.ready for worker in self._crew)
        )


class _RayWorker(Worker):
    """The searching side of one worker on a node.

    Attributes:
        news: The pending call for what it has to report.
    """

    def __init__(self, number: int, actor: Any, *, ray: Any, place: str) -> None:
        super().__init__(number, place=place)
        self._actor = actor
        self._ray = ray
        self._lost = ""
        self.news = actor.hear.remote()

    @property
    def starting(self) -> bool:
        # Until it is ready it may be waiting for a node; see `RayPool._await_news`.
        return self.ready and self.measuring

    @property
    def alive(self) -> bool:
        return not self._lost

    @property
    def end_reason(self) -> str:
        return self.last_words or self._lost

    def send(self, task: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):  # the pool will see that
            self._actor.tell.remote(rooted(task) if isinstance(task, TrialSpec) else task)

    def messages(self) -> Iterator[Any]:
        if self._lost or not self._ray.wait([self.news], timeout=0)[0]:
            return
        try:
            news = self._ray.get(self.news)
        except self._ray.exceptions.RayError as error:
            self._lost = _loss(error)
            return
        self.pid = news.pid
        yield from news.messages
        if news.ended:
            self._lost = "its work ended"
        else:
            self.news = self._actor.hear.remote()

    def dismiss(self) -> None:
        self.kill()

    def end(self, deadline: float) -> None:
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor, no_restart=True)


def _loss(error: Exception) -> str:
    """Return in words how Ray lost a worker."""
    name, text = type(error).__name__, one_line(error)
    if name == "ActorUnavailableError":
        # Ray tells the two apart only later, and calls it temporary; what was sent is lost anyway.
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
