"""An ablation's bases: how the run's documented configuration and its winner were trained."""

from types import SimpleNamespace

import pytest

from search.ablation import Ablation
from search.config import RunConfig
from search.journal import RunDirectory

DOCUMENTED = {"schedule": "constant", "size": 1}


@pytest.fixture
def ablation(tmp_path):
    """Return a function that plans the ablation of a run whose winner has the documented values."""

    def plan(trained_as, bases=("documented", "winner")):
        run = RunDirectory(tmp_path / "run")
        run.create()
        best = {"trial_id": "t0", "values": DOCUMENTED}
        run.write_json("best_hyperparameters.json", best)
        run.write_json("evaluation.json", {"retraining": {"trained_as": trained_as}})
        return Ablation(
            RunConfig(ema=0.9),
            None,
            SimpleNamespace(documented=DOCUMENTED, precision="float32"),
            run=run,
            bases=bases,
            wishes=[],
            repeats=2,
            epochs=3,
            console=None,
        )

    return plan


def test_a_control_that_won_is_one_base_without_the_finalists_options(ablation):
    planned = ablation("documented")
    assert [(arm.base, arm.role.average) for arm in planned.arms] == [("documented", 0)]
    assert planned.notes == ["The winner is the documented configuration, so it is one base."]
    (alone,) = ablation("documented", bases=("winner",)).arms
    assert (alone.base, alone.role.average) == ("winner", 0)


def test_a_finalist_with_the_documented_values_and_other_options_is_a_base_of_its_own(ablation):
    arms = ablation("finalist_1").arms
    assert [(a.base, a.role.average) for a in arms] == [("documented", 0), ("winner", 0.9)]
