"""The pace: what is timed, when, and for how long."""

import time

import pytest

from search.tuning import timing
from search.tuning.model import Setting
from search.tuning.timing import measure_pace
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


def test_measuring_waits_until_everybody_has_compiled(setting, log, monkeypatch):
    monkeypatch.setattr(timing, "MEASURED_SECONDS", 0.0)
    pace = measure_pace(setting, VALUES, seed=1, when_compiled=lambda: log.append("go"))
    assert log.index("go") == timing.WARM_STEPS
    assert len(log) == timing.WARM_STEPS + 1 + timing.MEASURED_STEPS
    # Never the last batch, whose 4 images would be compiled for.
    assert set(log) == {"step of 8", "go"}
    assert pace.epoch > 0
    assert pace.trial > 0


def test_steps_are_timed_for_seconds_whatever_their_speed(setting, log, monkeypatch):
    monkeypatch.setattr(timing, "MEASURED_SECONDS", 0.4)
    told = []
    measure_pace(setting, VALUES, seed=1, when_compiled=lambda: told.append(time.monotonic()))
    assert time.monotonic() - told[0] >= 0.4
    assert len(log) > timing.WARM_STEPS + timing.MEASURED_STEPS
