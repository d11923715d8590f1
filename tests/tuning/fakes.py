"""A HyperModel small enough to train in milliseconds, and trials that train nothing."""

import dataclasses
import math
import random
from pathlib import Path

import keras
import keras_tuner as kt

from search.records import Dataset, EpochRecord, Failure, FailureKind, TrialResult, TrialSpec
from search.run_directory import RunDirectory
from search.tuning import space as spaces
from search.tuning.executors import Executor
from search.tuning.loop import SearchLoop
from search.tuning.model import Setting
from search.tuning.oracle import ScheduleOracle
from search.tuning.proposals import UniformSource
from search.tuning.schedule import hyperband

SCHEDULE = hyperband(max_epochs=9, factor=3)
VALUES = {"filters": 4, "learning_rate": 0.01, "batch_size": 8, "boom": False, "nan": False}


class TinyHyperModel(kt.HyperModel):
    """One convolution with dropout; picklable.

    The value "ema", which is not in the space, asks for an average of the weights.
    """

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.size = size

    def declare(self, hp: kt.HyperParameters) -> None:
        hp.Choice("filters", [2, 4, 6, 8], default=4)
        hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2)
        hp.Choice("batch_size", [8, 16], default=8)
        hp.Boolean("boom", default=False)
        hp.Boolean("nan", default=False)

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        self.declare(hp)
        if hp.get("boom"):
            raise RuntimeError("boom in build")
        inputs = keras.Input((self.size, self.size, 1), dtype="uint8")
        x = keras.layers.Rescaling(1 / 255)(inputs)
        x = keras.layers.Conv2D(hp.get("filters"), 3, strides=4, activation="relu")(x)
        x = keras.layers.Dropout(0.3)(x)
        x = keras.layers.Flatten()(x)
        model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
        rate = float("inf") if hp.get("nan") else hp.get("learning_rate")
        model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
        if decay := hp.values.get("ema"):
            from hypermodels.optimization import keep_average  # not sent to the nodes of a cluster

            keep_average(model.optimizer, decay)
        return model


def setting_of(dataset: Dataset, hypermodel: kt.HyperModel) -> Setting:
    """Return what the trials of a search have in common."""
    return Setting(
        dataset=dataset,
        hypermodel=hypermodel,
        objective="robust_loss",
        prevalence=dataset.prevalence,
    )


def spec(folder: Path, name: str, **changes) -> TrialSpec:
    """Return a trial of two epochs in a folder of its name.

    A change is of a field of the specification or else of the value of a hyperparameter.
    """
    fields = {"values": VALUES, "seed": 5, "epochs": 2, "directory": folder / name}
    for key, value in changes.items():
        if key in TrialSpec.__dataclass_fields__:
            fields[key] = value
        else:
            fields["values"] = {**fields["values"], key: value}
    return TrialSpec(trial_id=name, **fields)


def make_loop(
    root: Path,
    executor: Executor,
    *,
    schedule=SCHEDULE,
    space=None,
    source=None,
    listener=lambda event: None,
    objective=("robust_loss", "min"),
) -> SearchLoop:
    """Return a search, by default a random one of the whole space of TinyHyperModel."""
    run = RunDirectory(root)
    run.create()
    space = space or spaces.declared(TinyHyperModel())
    oracle = ScheduleOracle(
        schedule=schedule,
        source=source or UniformSource(space, queue=[spaces.defaults(space)], seed=8),
        space=space,
        objective=objective[0],
        direction=objective[1],
        directory=run.tuner_dir,
    )
    return SearchLoop(oracle=oracle, executor=executor, run=run, seed=8, listener=listener)


def fake_result(
    spec: TrialSpec, *, metric: str = "robust_loss", value=None, fail: bool = False
) -> TrialResult:
    """Return what training `spec` could have given, without training."""
    if fail:
        failure = Failure(kind=FailureKind.ERROR, message="injected", traceback="line")
        return TrialResult(
            trial_id=spec.trial_id, epochs=(), parameters=10, seconds=0.0, failure=failure
        )
    # One metric is not defined, as an AUC where one class was never seen.
    epochs = tuple(
        EpochRecord(
            trial_id=spec.trial_id,
            epoch=epoch,
            metrics={metric: value(spec, epoch), "undefined": math.nan},
            seconds=0.0,
        )
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1)
    )
    return TrialResult(
        trial_id=spec.trial_id, epochs=epochs, parameters=10, seconds=0.0, best_epoch=spec.epochs
    )


def loss(spec: TrialSpec, epoch: int) -> float:
    """Return a loss that depends on the configuration and falls from epoch to epoch."""
    return random.Random(spaces.key(spec.values)).random() + 1 / epoch


class FakeExecutor:
    """Pretends to train; several at a time, ending in a random order."""

    def __init__(
        self,
        *,
        workers=1,
        seed=0,
        fails=lambda spec: False,
        learns=lambda spec: True,
        metric="robust_loss",
        value=loss,
    ):
        self.learns = learns
        self.workers, self.fails, self.metric, self.value = workers, fails, metric, value
        self.drawn = random.Random(seed)
        self.queue: list[TrialSpec] = []
        self.submitted: list[TrialSpec] = []

    @property
    def free(self):
        return self.workers - len(self.queue)

    def submit(self, spec):
        self.queue.append(spec)
        self.submitted.append(spec)

    def wait(self, on_epoch):
        spec = self.queue.pop(self.drawn.randrange(len(self.queue)))
        result = fake_result(spec, metric=self.metric, value=self.value, fail=self.fails(spec))
        result = dataclasses.replace(result, learned=self.learns(spec))
        for epoch in result.epochs:
            on_epoch(epoch)
        return result
