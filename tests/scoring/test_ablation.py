"""An ablation of a recorded run, with an executor that trains nothing and networks that guess."""

import contextlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_executor import OBJECTIVE, FakeExecutor
from tiny import Said, make_predictions

from search.config import RunConfig
from search.data.prepare import SealedTest
from search.errors import SearchFailedError
from search.records import Comparison
from search.run_directory import RunDirectory
from search.scoring import ablation as module
from search.scoring.ablation import Ablation
from search.scoring.effects import parse_factors, read_report, sentences
from tests.tiny_data import tiny_data

RECORDED = Path(__file__).parents[1] / "reporting" / "run"


class Guessing:
    """A network that is right more often with flips."""

    def __init__(self, trained, *, config, setting, calibrate):
        assert not calibrate
        self.threshold = SimpleNamespace(value=0.5)
        self.right = 0.9 if trained.recipe.values["flip"] else 0.6

    def evaluate_test(self, test):
        said = np.where(test.labels == 1, self.right, 1 - self.right)
        return self.threshold.value, make_predictions(test.labels, said)


@pytest.fixture
def ablate(tmp_path, monkeypatch):
    """Return a function that ablates; it gives the report, the executor and the reporter."""
    monkeypatch.setattr(module, "Network", Guessing)
    run = RunDirectory(tmp_path / "recorded")
    shutil.copytree(RECORDED, run.root)
    dataset = tiny_data(tmp_path, contrast=40)
    comparison = run.read(Comparison, "evaluation.json")

    def perform(factors="flip,epochs", *, bases=("baseline", "winner"), tested=True, **faults):
        fake = FakeExecutor(size=lambda values: 2 if values["flip"] else 1, **faults)
        reporter = Said()

        @contextlib.contextmanager
        def open_executor(setting, *, trainings):
            yield fake

        stage = SimpleNamespace(
            defaults=comparison.baseline.values, refit_setting=lambda epochs=None: epochs
        )
        made = Ablation(
            RunConfig(objective=OBJECTIVE), stage, run=run, bases=bases,
            requested=parse_factors(factors), repeats=2, epochs=2, reporter=reporter,
        )  # fmt: skip
        made.directory.create()
        subset = dataset.train if tested else None
        sealed = SealedTest(folder=tmp_path, classes=dataset.classes, subset=subset)
        report = made.perform(dataset, sealed, open_executor)
        assert read_report(run) == report
        return report, fake, reporter

    return perform


def test_every_base_is_changed_one_factor_at_a_time_and_compared_seed_by_seed(ablate):
    report, fake, reporter = ablate()
    assert [(one.base, one.change.name) for one in report.effects] == [
        ("baseline", "flip=on"), ("baseline", "epochs=4"),
        ("winner", "flip=off"), ("winner", "epochs=4"),
    ]  # fmt: skip
    assert len(fake.specs) == 12
    flipped, longer, unflipped, _ = report.effects
    assert flipped.scores.keys() == {0, 1}
    assert flipped.validation.value == pytest.approx(-0.5)
    assert (flipped.validation_outcome, unflipped.validation_outcome) == ("better", "worse")
    assert (flipped.test_outcome, longer.test_outcome) == ("better", "undecided")
    assert flipped.test["loss"].over_patients.value < 0 < unflipped.test["loss"].over_seeds.value
    answer = (
        "flip off → on (baseline): better on validation, better on test; flip on → off (winner)"
    )
    assert sentences(report)["flip"].startswith(answer)
    assert [one.role for one in report.bases] == ["baseline", "winner"]
    assert (report.test_evaluations, report.times_evaluated) == (12, 1)
    (event,) = (one for one in reporter.events if one["event"] == "test_scored")
    assert len(event["scorings"]) == 12


def test_the_same_command_again_trains_and_evaluates_nothing(ablate):
    first, *_ = ablate("flip")
    again, fake, reporter = ablate("flip")
    assert again == first
    assert fake.specs == []
    assert "nothing is left to train" in reporter.infos[0]
    more, fake, _ = ablate("flip,epochs")
    assert len(more.effects) == 4
    assert more.times_evaluated == 2


def test_without_a_test_set_validation_alone_is_compared(ablate):
    report, _, reporter = ablate("flip", bases=("baseline",), tested=False)
    (effect,) = report.effects
    assert (effect.test, effect.test_outcome) == ({}, "undecided")
    assert "test" not in report.images
    assert "validation only" in reporter.warnings[0]


def test_a_change_that_cannot_be_trained_is_named_and_a_base_ends_the_ablation(ablate):
    fail = {"baseline.flip=on-0", "baseline.flip=on-1"}
    report, *_ = ablate("flip", bases=("baseline",), fail=fail)
    assert report.effects[0].failure == "injected"
    assert sentences(report)["flip"] == "flip off → on (baseline) could not be trained."
    with pytest.raises(SearchFailedError, match="winner configuration failed with every seed"):
        ablate("flip", bases=("winner",), fail={"winner-0", "winner-1"})
