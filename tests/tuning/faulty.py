"""A HyperModel whose training kills, hangs or slows its own process, once or always."""

import os
import signal
import time
from pathlib import Path

import keras
import keras_tuner as kt

from tests.tuning.fakes import TinyHyperModel


class FaultyHyperModel(TinyHyperModel):
    """Trains like TinyHyperModel, with a fault in the trials that ask for it.

    A trial asks through its value "fault": "" none, "die" for SIGKILL, "hang" for never coming
    back, "slow" for half a second an epoch. With "-once" after it the first attempt alone, at the
    end of an epoch; else every attempt, before its first step.
    """

    def __init__(self, marks: Path, *, epoch: int = 2) -> None:
        super().__init__()
        self.marks = marks
        self.epoch = epoch

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *args, callbacks=(), **kwargs):
        fault = hp.values.get("fault", "")
        return super().fit(hp, model, *args, callbacks=[*callbacks, _Fault(fault, self)], **kwargs)


class UnloadableHyperModel(TinyHyperModel):
    """Cannot be unpickled, as a worker meets it when its installation is broken."""

    def __reduce__(self):
        return (_refuse, ())


class HungryHyperModel(TinyHyperModel):
    """Has memory for batches of so many images."""

    def __init__(self, memory: int) -> None:
        super().__init__()
        self.memory = memory

    def fit(self, hp, model, *args, **kwargs):
        if hp.values["batch_size"] > self.memory:
            raise MemoryError
        return super().fit(hp, model, *args, **kwargs)


class LeisurelyHyperModel(TinyHyperModel):
    """Takes its time, so that it can be stopped in the middle of a trial."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        rest = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: time.sleep(self.seconds)
        )
        return super().fit(hp, model, *args, callbacks=[*callbacks, rest], **kwargs)


def _refuse():
    raise RuntimeError("this worker is broken")


class _Fault(keras.callbacks.Callback):
    def __init__(self, fault: str, hypermodel: FaultyHyperModel) -> None:
        super().__init__()
        self.fault, _, self.once = fault.partition("-")
        self.hypermodel = hypermodel

    def on_train_begin(self, logs=None) -> None:
        if not self.once:
            self._act()

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if self.fault == "slow":
            time.sleep(0.5)
        mark = self.hypermodel.marks / self.fault
        if self.once and epoch + 1 == self.hypermodel.epoch and not mark.exists():
            mark.touch()
            self._act()

    def _act(self) -> None:
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(10**6)
