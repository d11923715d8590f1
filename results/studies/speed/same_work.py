"""The same search done by our package and by plain KerasTuner, so that nothing but time differs.

Both train the same configurations in the same rungs to the same epochs. The starting ones are
drawn once; trials are ranked by their learning rate, which is known beforehand, instead of by what
they learned; and KerasTuner gets the paper's sizes of rungs, where its own are rounded up. Every
epoch both compute our validation metrics, with batch normalization's statistics re-estimated.
Everything else is theirs: how batches are fed, how a trial is built, kept and continued, and how
the next one is found.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

from hypermodels import DocumentedCNN
from search import backend
from search.config import RunConfig
from search.data.prepare import prepare
from search.data.sources import find_source
from search.errors import StopRequestedError
from search.records import Dataset, PerturbedViews, Subset, Values
from search.run_directory import RunDirectory
from search.tuning import space as spaces
from search.tuning.devices import find_gpus, worker_environments
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.feed import TrainingFeed
from search.tuning.loop import SearchLoop
from search.tuning.model import Setting, averaged, build_model, release_memory
from search.tuning.normalization import StatisticsImages, reestimated
from search.tuning.oracle import ScheduleOracle
from search.tuning.pool import WorkerPool
from search.tuning.proposals import UniformSource
from search.tuning.schedule import Schedule, hyperband
from search.tuning.validation import Validator

RANK = "rank_loss"
TIMED_STEPS = 60
PATIENCE = 8.0
"""Seconds beyond its limit that a search may take to finish its epochs."""

HELD: Values = {"separable": True, "base_filters": 16, "ema": 0.0}
"""What makes an epoch up to ten times dearer on a CPU, held at the documented values; and `ema`,
with which `fit` of Keras 3.15 on JAX raises an error at its end."""


def load_data(data: str, image_size: int) -> Dataset:
    """Return training and validation images as `search.run` prepares them."""
    config = RunConfig(data=data, image_size=image_size)
    return prepare(config, find_source(config))[0]


def arrays(subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    """Return images `uint8` (n, S, S, 1) and labels `float32` (n, 1), as `Model.fit` takes them."""
    return subset.open_array()[subset.rows], subset.labels.astype(np.float32)[:, None]


def declared_space(hypermodel: DocumentedCNN, held: Values = HELD) -> kt.HyperParameters:
    """Return the space of every contender."""
    declared = kt.HyperParameters()
    hypermodel.declare(declared)
    return spaces.narrow(declared, fix=held, vary=())


class Validated(keras.callbacks.Callback):
    """Adds our validation metrics to an epoch's logs, computed exactly as in our own trials."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.images = StatisticsImages(dataset.train)
        self.validator = Validator(dataset, prevalence=dataset.prevalence)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate; the callbacks after this one see the result."""
        assert logs is not None
        with averaged(self.model), reestimated(self.model, self.images):
            logs.update(self.validator.metrics(self.model))


class _NoTensorBoard:
    """KerasTuner imports tensorboard in every trial, which TensorFlow 2.21 no longer brings."""

    def _configure_tensorboard_dir(self, callbacks: Any, trial: Any, execution: int = 0) -> None:
        pass


class PlainHyperband(_NoTensorBoard, kt.Hyperband):
    """`keras_tuner.Hyperband` that can be run at all."""


Trial = dict[str, Any]
"""rate (its learning rate), epochs trained in it, seconds, costs in seconds by kind."""


class _Rank(keras.callbacks.Callback):
    """Logs the learning rate as the score: a shade better every epoch, as training usually is."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs[RANK] = self.rate * (1 - 1e-6 * epoch)


class Ranked(DocumentedCNN):
    """The documented network, whose trials are ranked by their learning rate."""

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Train; the rank comes first, for everybody else's callbacks to see it."""
        callbacks = [_Rank(float(hp.values["learning_rate"])), *kwargs.pop("callbacks", ())]
        return super().fit(hp, model, *args, callbacks=callbacks, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What both do.

    Attributes:
        dataset: Training and validation images.
        hypermodel: The network.
        space: What may vary.
        schedule: Rungs.
        configurations: Starting configurations, in order.
        factor: η of the schedule.
        iterations: How often its brackets are repeated.
        directory: Where a tool may write.
    """

    dataset: Dataset
    hypermodel: Ranked
    space: kt.HyperParameters
    schedule: Schedule
    configurations: tuple[Values, ...]
    factor: int
    iterations: int
    directory: Path


@dataclass
class Done:
    """What was measured.

    Attributes:
        start: Seconds until everything was loaded and could train.
        wall: Seconds of the search after that.
        trials: Finished trials.
        unfinished: Rate and epochs of those that were being trained when it was cut short.
        epochs: Finished epochs, those of unfinished trials included.
        complete: Whether it came to the end of the schedule.
        failures: One line each.
    """

    start: float = 0.0
    wall: float = 0.0
    trials: list[Trial] = dataclasses.field(default_factory=list)
    unfinished: list[Trial] = dataclasses.field(default_factory=list)
    epochs: int = 0
    complete: bool = True
    failures: list[str] = dataclasses.field(default_factory=list)


def work_of(job: dict[str, Any], directory: Path) -> Work:
    """Return the work that a job's "data", "image_size", "images" and so on describe."""
    dataset = load_data(job["data"], job["image_size"])
    if job["images"]:
        dataset = thinned(dataset, job["images"], directory)
    hypermodel = Ranked(
        image_size=job["image_size"], train_size=len(dataset.train), epochs=job["max_epochs"]
    )
    space = declared_space(hypermodel, {} if job["whole_space"] else HELD)
    schedule = hyperband(
        max_epochs=job["max_epochs"], factor=job["factor"], iterations=job["iterations"]
    )
    source = UniformSource(space, queue=[], seed=8)
    drawn = [source.values(number) for number in range(schedule.configurations)]
    return Work(
        dataset=dataset,
        hypermodel=hypermodel,
        space=space,
        schedule=schedule,
        configurations=tuple(values for values in drawn if values is not None),
        factor=job["factor"],
        iterations=job["iterations"],
        directory=directory,
    )


def thinned(dataset: Dataset, images: int, directory: Path) -> Dataset:
    """Return every so-manieth training image, a quarter as many to validate on, and their views.

    Args:
        dataset: The whole data.
        images: Training images to keep.
        directory: Where the array of the remaining views is written.
    """
    kept = _spread(len(dataset.val), images // 4)
    views = np.flatnonzero(np.isin(dataset.views.source, kept))
    file = directory / "views.npy"
    np.save(file, dataset.views.open_array()[views])
    return dataclasses.replace(
        dataset,
        train=_part(dataset.train, _spread(len(dataset.train), images)),
        val=_part(dataset.val, kept),
        views=PerturbedViews(
            array_file=file,
            names=dataset.views.names,
            view=dataset.views.view[views],
            source=np.searchsorted(kept, dataset.views.source[views]),
            labels=dataset.views.labels[views],
        ),
    )


def _spread(total: int, wanted: int) -> np.ndarray:
    """Return so many of 0 .. total - 1, evenly spaced."""
    return np.unique(np.linspace(0, total - 1, min(total, max(2, wanted))).astype(np.int64))


def _part(subset: Subset, positions: np.ndarray) -> Subset:
    def chosen(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(values[position] for position in positions)

    return dataclasses.replace(
        subset,
        rows=subset.rows[positions],
        labels=subset.labels[positions],
        paths=chosen(subset.paths),
        patients=chosen(subset.patients),
        subtypes=chosen(subset.subtypes),
    )


def ours(work: Work, *, workers: int, limit: float) -> Done:
    """Search as `search.run` does.

    Args:
        work: What to do.
        workers: Worker processes; 0 for this process.
        limit: Seconds after which it stops with the epoch.
    """
    done = Done()
    begin = time.perf_counter()
    run = RunDirectory(work.directory / "ours")
    run.create()
    setting = _setting(work)

    def should_stop() -> bool:
        late = time.perf_counter() - begin - limit
        if late > PATIENCE:
            raise StopRequestedError("an epoch outlasted the limit")
        return late > 0

    executor = _executor(setting, workers, run, should_stop)
    trials: dict[str, Trial] = {}

    def listen(event: dict[str, Any]) -> None:
        name = event.get("trial_id")
        if event["event"] == "trial_created":
            trials[name] = {"rate": event["values"]["learning_rate"], "epochs": 0}
        elif event["event"] == "epoch":
            trials[name]["epochs"] += 1
            done.epochs += 1
        elif event["event"] == "trial_ended":
            ended = trials.pop(name)
            done.trials.append({**ended, "seconds": event["seconds"], "costs": event["costs"]})
            if event["failure"]:
                done.failures.append(event["failure"]["message"])

    loop = SearchLoop(
        oracle=ScheduleOracle(
            schedule=work.schedule,
            source=UniformSource(work.space, queue=list(work.configurations), seed=8),
            space=work.space,
            objective=RANK,
            direction="min",
            directory=run.tuner_dir,
        ),
        executor=executor,
        run=run,
        seed=8,
        listener=listen,
    )
    loaded = time.perf_counter()
    done.start = loaded - begin
    try:
        loop.search()
    except StopRequestedError:
        done.complete = False
    finally:
        done.wall = time.perf_counter() - loaded
        done.unfinished = list(trials.values())
        executor.close()
    return done


def _setting(work: Work) -> Setting:
    return Setting(
        dataset=work.dataset,
        hypermodel=work.hypermodel,
        objective=RANK,
        prevalence=work.dataset.prevalence,
    )


def _executor(
    setting: Setting, workers: int, run: RunDirectory, should_stop: Callable[[], bool]
) -> Executor:
    if workers == 0:
        return InProcessExecutor(setting, should_stop=should_stop)
    pool = WorkerPool(
        setting,
        environments=worker_environments(workers, gpus=find_gpus()),
        log_dir=run.logs_dir,
        should_stop=should_stop,
    )
    # Loading is timed apart: a search of hours pays for it once.
    while not pool._loaded:
        pool._listen(lambda message: None)
    return pool


class _OutOfTime(KeyboardInterrupt):
    """Ends a search of KerasTuner, which takes every `Exception` for a failed trial."""


class _Clock(keras.callbacks.Callback):
    """Times compiling (the first step) and training like `search/tuning/trial.py`.

    Likewise it does not make Keras wait for every step; KerasTuner's own callback does.
    """

    async_safe = True

    def __init__(self, costs: dict[str, float], deadline: float, trained: Trial) -> None:
        super().__init__()
        self.costs = costs
        self.deadline = deadline
        self.trained = trained
        self.compiled = False
        self.begin = 0.0
        self.lock = threading.Lock()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        with self.lock:
            first, self.compiled = not self.compiled, True
        if first:
            self.costs["compile"] += time.perf_counter() - self.begin
            self.begin = time.perf_counter()
        if time.perf_counter() > self.deadline:
            raise _OutOfTime

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.costs["train"] += time.perf_counter() - self.begin
        self.trained["epochs"] += 1


class _Validated(Validated):
    """Our metrics, timed."""

    def __init__(self, dataset: Dataset, costs: dict[str, float]) -> None:
        super().__init__(dataset)
        self.costs = costs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        begin = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        self.costs["validate"] += time.perf_counter() - begin


class _SameOracle(kt.oracles.HyperbandOracle):
    """KerasTuner's Hyperband with given configurations and the paper's rungs."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.left = list(work.configurations)
        super().__init__(
            objective=kt.Objective(RANK, "min"),
            max_epochs=work.schedule.max_epochs,
            factor=work.factor,
            hyperband_iterations=work.iterations,
            hyperparameters=work.space,
        )

    def _random_values(self) -> Values | None:
        return dict(self.left.pop(0)) if self.left else None

    def _rung(self, bracket: int, number: int) -> Any:
        return next(b for b in self.work.schedule.brackets if b.bracket == bracket).rungs[number]

    def _get_size(self, bracket_num: int, round_num: int) -> int:
        return self._rung(bracket_num, round_num).count

    def _get_epochs(self, bracket_num: int, round_num: int) -> int:
        return self._rung(bracket_num, round_num).epochs


class _SameHyperband(PlainHyperband):
    """KerasTuner's Hyperband over that oracle; everything else as it is."""

    def __init__(self, oracle: _SameOracle, **kwargs: Any) -> None:
        # Past Hyperband's own, which would make an oracle of its own.
        super(kt.Hyperband, self).__init__(oracle=oracle, **kwargs)


def plain(work: Work, *, limit: float) -> Done:
    """Search with `keras_tuner.Hyperband` in this process.

    Args:
        work: What to do.
        limit: Seconds after which it stops, in the middle of an epoch.
    """
    done = Done()
    begin = time.perf_counter()
    deadline = begin + limit
    current: Trial = {}

    class Timed(kt.HyperModel):
        def build(self, hp: kt.HyperParameters) -> keras.Model:
            built = time.perf_counter()
            model = work.hypermodel.build(hp)
            if current:
                current["costs"]["build"] += time.perf_counter() - built
            return model

        def fit(self, hp: kt.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
            costs = current["costs"]
            current["rate"] = hp.values["learning_rate"]
            kwargs["callbacks"] = [
                _Clock(costs, deadline, current),
                _Validated(work.dataset, costs),
                *kwargs.get("callbacks", ()),
            ]
            return work.hypermodel.fit(hp, model, *args, **kwargs)

    class Tuner(_SameHyperband):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            costs = dict.fromkeys(("build", "compile", "train", "validate"), 0.0)
            current.update(costs=costs, epochs=0, rate=0.0)
            started = time.perf_counter()
            try:
                return super().run_trial(trial, *args, **kwargs)
            finally:
                done.trials.append({**current, "seconds": time.perf_counter() - started})

    keras.utils.set_random_seed(8)
    x, y = arrays(work.dataset.train)
    loaded = time.perf_counter()
    done.start = loaded - begin
    try:
        tuner = Tuner(
            _SameOracle(work),
            hypermodel=Timed(),
            directory=work.directory,
            project_name="plain",
        )
        tuner.search(x, y, class_weight=work.dataset.class_weights, verbose=0)
        done.failures += [
            str(trial.message).strip().splitlines()[-1]
            for trial in tuner.oracle.trials.values()
            if trial.status != "COMPLETED"
        ]
    except _OutOfTime:
        done.complete = False
        cut = done.trials.pop()
        done.unfinished = [{"rate": cut["rate"], "epochs": cut["epochs"]}]
        done.epochs += cut["epochs"]
    finally:
        done.epochs += sum(trial["epochs"] for trial in done.trials)
        done.wall = time.perf_counter() - loaded
    return done


def bare(work: Work, *, limit: float) -> dict[str, float]:
    """Time the training step of every configuration in `Model.fit` alone, after compiling.

    Args:
        work: What to do.
        limit: Seconds after which no further configuration is begun.

    Returns:
        Seconds of a step by learning rate, as text.
    """
    begin = time.perf_counter()
    found: dict[str, float] = {}
    setting = _setting(work)
    for values in work.configurations:
        if time.perf_counter() - begin > limit:
            break
        model = build_model(setting, values, 8)
        feed = _Some(
            work.dataset.train,
            class_weights=work.dataset.class_weights,
            batch_size=int(values["batch_size"]),
            seed=8,
        )
        # Whole batches only: the last, partial one would be compiled for its shape.
        whole = max(1, len(work.dataset.train) // int(values["batch_size"]))
        feed.steps = min(2, whole)
        model.fit(feed, epochs=1, shuffle=False, verbose=0)
        feed.steps = min(TIMED_STEPS, whole)
        started = time.perf_counter()
        model.fit(feed, epochs=1, shuffle=False, verbose=0)
        found[repr(values["learning_rate"])] = (time.perf_counter() - started) / feed.steps
        release_memory()
    return found


class _Some(TrainingFeed):
    """The first batches of an epoch."""

    steps = 1

    @property
    def num_batches(self) -> int:
        return self.steps


def steps_per_epoch(work: Work) -> dict[str, int]:
    """Return the training steps of an epoch by learning rate, as text."""
    images = len(work.dataset.train)
    return {
        repr(values["learning_rate"]): -(-images // int(values["batch_size"]))
        for values in work.configurations
    }


def perform(job: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Do the job's "tool": "ours", "plain" or "bare"; returns plain JSON."""
    backend.load()
    work = work_of(job, directory)
    if job["tool"] == "bare":
        answer: dict[str, Any] = {"steps": bare(work, limit=job["limit"])}
    elif job["tool"] == "plain":
        answer = dataclasses.asdict(plain(work, limit=job["limit"]))
    else:
        answer = dataclasses.asdict(ours(work, workers=job["workers"], limit=job["limit"]))
    return {
        **answer,
        "device": backend.device(),
        "versions": backend.versions(),
        "planned_epochs": work.schedule.epochs,
        "planned_trials": work.schedule.trials,
        "train_images": len(work.dataset.train),
        "steps_per_epoch": steps_per_epoch(work),
    }
