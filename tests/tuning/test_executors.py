"""The pace: what is timed, and for how long."""

import time

import pytest

from search.tuning import executors
from search.tuning.executors import measure_pace
from search.tuning.model import Setting
from tests.tuning.fakes import TinyHyperModel

VALUES = {"filters": 4, "learning_rate": 0.01, "batch_size": 8, "boom": False, "nan": False}


class Counting(TinyHyperModel):
    """Notes every training step."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def build(self, hp):
        model = super().build(hp)
        step = model.train_on_batch

        def counted(images, *args, **kwargs):
            self.log.append(f"step of {len(images)}")
            return step(images, *args, **kwargs)

        model.train_on_batch = counted
        return model


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def setting(tiny_dataset, log) -> Setting:
    return Setting(
        dataset=tiny_dataset,
        hypermodel=Counting(log),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )


def test_whole_batches_are_timed_for_a_while(setting, log, monkeypatch):
    monkeypatch.setattr(executors, "MEASURED_SECONDS", 0.4)
    begin = time.monotonic()
    pace = measure_pace(setting, VALUES, seed=1)
    assert time.monotonic() - begin >= 0.4
    assert len(log) >= executors.WARM_STEPS + executors.MEASURED_STEPS
    # Never the last batch, whose 4 images would be compiled for.
    assert set(log) == {"step of 8"}
    assert pace.epoch > 0
    assert pace.trial > 0
