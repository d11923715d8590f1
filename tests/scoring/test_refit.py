"""Retraining: the same for all roles, the best epoch kept, validation decides."""

import dataclasses

import pytest
from search.scoring.refit import Role

from search.errors import SearchFailedError
from search.records import EpochRecord, Failure, FailureKind, TrialResult
from search.scoring import refit

LOSSES = {"baseline": [0.5, 0.4, 0.6], "winner": [0.3, 0.2, 0.25]}
CONTROL, WINNER = Role(name="baseline", values={"a": 1}), Role(name="winner", values={"a": 2})


@pytest.fixture
def plan(tmp_path) -> refit.RefitPlan:
    return refit.RefitPlan(
        epochs=3,
        seeds=2,
        seed=8,
        objective="robust_loss",
        direction="min",
        directory=tmp_path,
    )


def trained(jobs, *, fail=()):
    found = {}
    for job in jobs:
        name = job.spec.trial_id
        failure = Failure(kind=FailureKind.ERROR, message="injected") if name in fail else None
        epochs = tuple(
            EpochRecord(
                trial_id=name,
                epoch=number,
                metrics={"robust_loss": loss + 0.01 * job.repetition},
                seconds=0.0,
            )
            for number, loss in enumerate(LOSSES[job.role.name], 1)
        )
        found[name] = TrialResult(
            trial_id=name, epochs=epochs, parameters=7, seconds=0, best_epoch=2, failure=failure
        )
    return found


def retrained(plan, *, fail=()):
    jobs = plan.jobs([CONTROL, WINNER])
    return refit.candidates(jobs, trained(jobs, fail=fail), plan)


def test_every_role_is_trained_with_the_same_seeds_and_epochs(plan):
    specs = [job.spec for job in plan.jobs([CONTROL, WINNER])]
    assert [spec.trial_id for spec in specs] == [
        "baseline-0",
        "baseline-1",
        "winner-0",
        "winner-1",
    ]
    assert specs[0].seed == specs[2].seed != specs[1].seed == specs[3].seed
    assert {spec.epochs for spec in specs} == {3}
    assert len({spec.directory for spec in specs}) == 4


def test_the_best_epoch_is_kept_and_validation_chooses(plan):
    candidates = retrained(plan)
    assert [c.kept_epoch for c in candidates] == [2] * 4
    assert candidates[2].score == pytest.approx(0.2)
    assert refit.choose(candidates, direction="min") == "winner"
    assert refit.choose(candidates, direction="max") == "baseline"
    assert refit.best_of(candidates, "winner", direction="min").seed == 0
    assert refit.best_of(candidates, "winner", direction="max").seed == 1


def test_of_equal_roles_the_smaller_network_is_chosen_and_nan_comes_last(plan):
    control, _, winner, _ = retrained(plan)
    equal = dataclasses.replace(winner, score=control.score)
    assert refit.choose([control, equal], direction="min") == "baseline"
    smaller = dataclasses.replace(equal, parameters=equal.parameters - 1)
    assert refit.choose([control, smaller], direction="min") == "winner"
    diverged = dataclasses.replace(control, score=float("nan"))
    for direction in ("min", "max"):
        assert refit.choose([diverged, winner], direction=direction) == "winner"


def test_a_failed_repetition_is_left_out_and_only_all_failing_is_an_error(plan):
    candidates = retrained(plan, fail={"winner-0"})
    assert [(c.role, c.seed) for c in candidates if c.role == "winner"] == [("winner", 1)]
    with pytest.raises(SearchFailedError, match=r"winner.*injected"):
        retrained(plan, fail={"winner-0", "winner-1"})


def test_another_training_does_not_meet_an_old_checkpoint(plan):
    def folder(role, plan=plan):
        return plan.jobs([role])[0].spec.directory

    one = folder(WINNER)
    others = [
        folder(dataclasses.replace(WINNER, values={"a": 3})),
        folder(dataclasses.replace(WINNER, patience=2)),
        folder(dataclasses.replace(WINNER, average=0.9)),
        folder(dataclasses.replace(WINNER, precision="mixed_bfloat16")),
        folder(WINNER, dataclasses.replace(plan, epochs=4)),
        folder(WINNER, dataclasses.replace(plan, objective="val_auc")),
    ]
    assert len({one, *others}) == 7
    assert folder(WINNER) == one


def test_a_roles_options_reach_its_trial_and_the_controls_has_none(plan):
    role = Role(name="winner", values={}, patience=4, average=0.99, precision="mixed_bfloat16")
    control, winner = (plan.jobs([r])[0].spec for r in (CONTROL, role))
    assert (winner.early_stopping, winner.average) == (4, 0.99)
    assert winner.precision == "mixed_bfloat16"
    assert (control.early_stopping, control.average) == (0, 0)
    assert control.precision == "float32"


def test_on_train_and_validation_the_kept_epoch_is_the_last_and_nothing_stops_it(plan):
    role = dataclasses.replace(WINNER, patience=4, average=0.99)
    candidate = retrained(plan)[2]
    spec = plan.final_job(role, candidate).spec
    first = plan.jobs([role])[0].spec
    assert (spec.epochs, spec.early_stopping, spec.average) == (2, 0, 0.99)
    assert spec.seed == first.seed
    assert spec.directory != first.directory
    later = dataclasses.replace(candidate, kept_epoch=3)
    assert plan.final_job(role, later).spec.directory != spec.directory


def test_an_ensemble_is_the_roles_best_and_counts_all_parameters(plan):
    found = retrained(plan)
    combined = refit.ensemble(found, "winner", direction="min")
    assert (combined.seed, combined.parameters, len(combined.members)) == (None, 14, 2)
    assert combined.score == pytest.approx(0.205)
    assert refit.best_of([*found, combined], "winner", direction="min") is combined
    with pytest.raises(ValueError, match="not trained"):
        plan.final_job(WINNER, combined)
