"""A HyperModel small enough to train in milliseconds, and trials that train nothing."""

import dataclasses
import random

import keras
import keras_tuner as kt

from search.records import EpochRecord, Failure, FailureKind, TrialResult, TrialSpec
from search.tuning import space as spaces


class TinyHyperModel(kt.HyperModel):
    """One convolution with dropout; picklable."""

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
        return model


def fake_result(
    spec: TrialSpec, *, metric: str = "robust_loss", value=None, fail: bool = False
) -> TrialResult:
    """Return what training `spec` could have given, without training."""
    if fail:
        failure = Failure(kind=FailureKind.ERROR, message="injected", traceback="line")
        return TrialResult(
            trial_id=spec.trial_id, epochs=(), parameters=10, seconds=0.0, failure=failure
        )
    epochs = tuple(
        EpochRecord(
            trial_id=spec.trial_id, epoch=epoch, metrics={metric: value(spec, epoch)}, seconds=0.0
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
