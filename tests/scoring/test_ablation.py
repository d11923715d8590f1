"""An ablation: how its bases were trained, and what it reads back of answers it gave before."""

import json
from types import SimpleNamespace

import pytest

from search.config import RunConfig
from search.errors import RunDirectoryError
from search.reopening import refuse_changed
from search.run_directory import RunDirectory, write_json
from search.scoring.ablation import FILE, Ablation, stored_answers

VALUES = {"flip": False}
CONTENT = {
    "objective": "robust_loss",
    "repeats": 2,
    "bases": [{"base": "baseline", "epochs": 3, "values": VALUES}],
    "answers": [
        {"base": "baseline", "name": "flip=on", "epochs": 3, "values": {"flip": True}},
        {"base": "baseline", "name": "filters=8", "failed": "out of memory"},
    ],
}
DOCUMENTED = {"schedule": "constant", "size": 1}


@pytest.fixture
def ablation(tmp_path):
    """Return a function that plans the ablation of a run whose winner has the documented values."""

    def plan(trained_as="finalist_1", bases=("baseline", "winner"), **options):
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
    planned = ablation("baseline")
    assert [(arm.base, arm.role.average) for arm in planned.arms] == [("baseline", 0)]
    assert planned.notes == ["The winner is the documented configuration, so it is one base."]
    (alone,) = ablation("baseline", bases=("winner",)).arms
    assert (alone.base, alone.role.average) == ("winner", 0)


def test_a_finalist_with_the_documented_values_and_other_options_is_a_base_of_its_own(ablation):
    arms = ablation("finalist_1").arms
    assert [(a.base, a.role.average) for a in arms] == [("baseline", 0), ("winner", 0.9)]


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


def test_answers_of_before_are_read_with_what_was_trained_for_them(tmp_path):
    directory = RunDirectory(tmp_path)
    assert stored_answers(directory) is None
    write_json(tmp_path / FILE, CONTENT)
    content, told = stored_answers(directory)
    assert content == CONTENT
    assert told == {
        "baseline": (3, VALUES, "robust_loss", 2),
        "baseline.flip=on": (3, {"flip": True}, "robust_loss", 2),
    }


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        "{}",
        json.dumps({**CONTENT, "bases": None}),
        json.dumps({**CONTENT, "answers": ["yes"]}),
        json.dumps({**CONTENT, "bases": [{"base": "baseline"}]}),
        json.dumps({name: value for name, value in CONTENT.items() if name != "repeats"}),
    ],
)
def test_a_damaged_file_of_answers_is_a_clear_error(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunDirectoryError, match=rf"{FILE}: damaged"):
        stored_answers(RunDirectory(tmp_path))
