"""Retraining: the same for all roles, the best epoch kept, validation decides."""

import dataclasses

import pytest

from search.errors import SearchFailedError
from search.records import EpochRecord, Failure, FailureKind, TrialResult
from search.scoring import refit

LOSSES = {"documented": [0.5, 0.4, 0.6], "winner": [0.3, 0.2, 0.25]}


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


def train(spec, *, fail=()):
    role, _, repetition = spec.trial_id.rpartition("-")
    failure = None
    if spec.trial_id in fail:
        failure = Failure(kind=FailureKind.ERROR, message="injected", traceback="")
    epochs = tuple(
        EpochRecord(
            trial_id=spec.trial_id,
            epoch=number,
            metrics={"robust_loss": loss + 0.01 * int(repetition)},
            seconds=0.0,
        )
        for number, loss in enumerate(LOSSES[role], 1)
    )
    return TrialResult(
        trial_id=spec.trial_id,
        epochs=epochs,
        parameters=1,
        seconds=0,
        best_epoch=2,
        failure=failure,
    )


ROLES = [("documented", {"a": 1}), ("winner", {"a": 2})]


def test_every_role_is_trained_with_the_same_seeds_and_epochs(plan):
    specs = []
    refit.refit(ROLES, plan, train=lambda spec: (specs.append(spec), train(spec))[1])
    assert [spec.trial_id for spec in specs] == [
        "documented-0",
        "documented-1",
        "winner-0",
        "winner-1",
    ]
    assert specs[0].seed == specs[2].seed != specs[1].seed == specs[3].seed
    assert {spec.epochs for spec in specs} == {3}
    assert len({spec.directory for spec in specs}) == 4


def test_the_best_epoch_is_kept_and_validation_chooses(plan):
    candidates = refit.refit(ROLES, plan, train=train)
    assert [c.kept_epoch for c in candidates] == [2] * 4
    assert candidates[2].score == pytest.approx(0.2)
    assert refit.choose(candidates, direction="min") == "winner"
    assert refit.choose(candidates, direction="max") == "documented"
    assert refit.best_of(candidates, "winner", direction="min").seed == 0
    assert refit.best_of(candidates, "winner", direction="max").seed == 1


def test_a_failed_repetition_is_left_out_and_only_all_failing_is_an_error(plan):
    candidates = refit.refit(ROLES, plan, train=lambda spec: train(spec, fail={"winner-0"}))
    assert [(c.role, c.seed) for c in candidates if c.role == "winner"] == [("winner", 1)]
    with pytest.raises(SearchFailedError, match=r"winner.*injected"):
        refit.refit(ROLES, plan, train=lambda spec: train(spec, fail={"winner-0", "winner-1"}))


def test_another_configuration_or_length_does_not_meet_an_old_checkpoint(plan):
    one = plan.spec("winner", 0, {"a": 1}).directory
    assert plan.spec("winner", 0, {"a": 2}).directory != one
    assert dataclasses.replace(plan, epochs=4).spec("winner", 0, {"a": 1}).directory != one
    assert (
        dataclasses.replace(plan, objective="val_auc").spec("winner", 0, {"a": 1}).directory != one
    )
    assert plan.spec("winner", 0, {"a": 1}).directory == one
