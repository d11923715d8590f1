"""An ablation's bases: how the run's documented configuration and its winner were trained."""

from types import SimpleNamespace

import pytest

from search.ablation import Ablation
from search.config import RunConfig
from search.journal import RunDirectory
from search.reopening import refuse_changed

DOCUMENTED = {"schedule": "constant", "size": 1}


@pytest.fixture
def ablation(tmp_path):
    """Return a function that plans the ablation of a run whose winner has the documented values."""

    def plan(trained_as="finalist_1", bases=("documented", "winner"), **options):
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
            **{"console": None, **options},
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


def test_a_network_of_the_run_is_used_again_unless_its_weights_were_changed(ablation):
    said = SimpleNamespace(warn=[].append)
    planned = ablation(console=said)
    job, *_ = planned._plan(3).jobs([planned.arms[0].role])
    folder = planned.run.refit_dir / job.spec.directory.name
    folder.mkdir(parents=True)
    (folder / "best.weights.h5").write_text("trained")
    assert planned._from_run(job, [folder]).spec.directory == folder
    assert planned._from_run(job, []) == job
    planned.run.write_manifest({})
    assert refuse_changed(planned.run).weights == ()
    (folder / "best.weights.h5").write_text("changed")
    changed = refuse_changed(planned.run).weights
    again = ablation(console=said, changed=changed)
    assert again._from_run(job, [folder]) == job
    assert again.notes == [
        f"{changed[0]} was changed since the run ended: this network is trained again."
    ]
