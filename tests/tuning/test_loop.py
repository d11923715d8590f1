"""The loop over fake trials: order, failures, replay after a kill at any event."""

import errno
import os
import random
from pathlib import Path

import keras_tuner as kt
import pytest

from search.errors import RunDirectoryError, SearchFailedError, StorageError
from search.records import TrialRecord, TrialStatus
from search.run_directory import RunDirectory
from search.tuning import checkpoint, selection
from search.tuning import space as spaces
from search.tuning.proposals import BayesianSource, UniformSource
from search.tuning.schedule import full_budget, hyperband
from search.tuning.selection import smoothed
from tests.tuning.fakes import SCHEDULE, FakeExecutor, TinyHyperModel, loss, make_loop
from tests.tuning.replay import check_replay, outcome

SPACE = spaces.declared(TinyHyperModel())


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def search(root: Path, executor=None, **options) -> list[TrialRecord]:
    """Search, or go on searching, with trials that are made up."""
    return make_loop(root, executor or FakeExecutor(), **options).search()


def killed(root: Path, event: int, executor=None, **options) -> None:
    """Search until the n-th event, at which the process dies."""
    seen = []

    def listener(told):
        seen.append(told)
        if len(seen) == event:
            raise Killed

    with pytest.raises(Killed):
        search(root, executor, listener=listener, **options)


def test_the_documented_configuration_is_trained_in_float32_whatever_the_others_are(tmp_path):
    executor = FakeExecutor()
    loop = make_loop(tmp_path, executor)
    loop.precision = "mixed_bfloat16"
    configurations = {record.trial_id: record.configuration for record in loop.search()}
    found = {(configurations[s.trial_id] == 0, s.precision) for s in executor.submitted}
    assert found == {(True, "float32"), (False, "mixed_bfloat16")}


def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    alone = search(tmp_path / "1")
    check_replay(tmp_path / "1", SCHEDULE)
    for workers in (2, 5):
        root = tmp_path / str(workers)
        assert outcome(search(root, FakeExecutor(workers=workers, seed=3))) == outcome(alone)
        check_replay(root, SCHEDULE)


@pytest.mark.parametrize("seed", range(6))
def test_random_failures_starve_no_rung(tmp_path, seed):
    def fails(spec):
        return random.Random(f"{seed}/{spec.trial_id}").random() < 0.35

    search(tmp_path, FakeExecutor(workers=2, seed=seed, fails=fails))
    check_replay(tmp_path, SCHEDULE)


def test_a_trial_that_learned_nothing_ranks_below_every_living_one_and_is_never_promoted(tmp_path):
    def dead(spec):
        return spec.values["learning_rate"] > 1e-2

    # A constant output scores better than everything that is alive.
    executor = FakeExecutor(
        workers=2,
        learns=lambda spec: not dead(spec),
        value=lambda spec, epoch: -1.0 if dead(spec) else loss(spec, epoch),
    )
    records = search(tmp_path, executor)
    nothing = {r.trial_id for r in records if r.status is TrialStatus.LEARNED_NOTHING}
    assert nothing == {r.trial_id for r in records if dead(r)} != set()
    assert not nothing & {r.parent for r in records}
    best = selection.winners(records, "robust_loss", top=50)
    assert all(r.status is TrialStatus.COMPLETED for r in best)
    check_replay(tmp_path, SCHEDULE)
    assert outcome(search(tmp_path)) == outcome(records)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learns": lambda spec: False}, r"none of .* learned anything"),
        ({"fails": lambda spec: True}, "injected"),  # the first traceback
    ],
)
def test_a_search_where_nothing_works_or_learns_says_so(tmp_path, options, said):
    with pytest.raises(SearchFailedError, match=said):
        search(tmp_path, FakeExecutor(**options))


def test_a_kill_at_any_event_changes_nothing(tmp_path):
    whole = search(tmp_path / "whole")
    length = len(RunDirectory(tmp_path / "whole").events())
    for event in range(1, length + 1, 5):
        root = tmp_path / f"killed-{event}"
        killed(root, event)
        assert outcome(search(root)) == outcome(whole)
        check_replay(root, SCHEDULE)


def test_the_largest_score_wins_where_the_objective_is_maximized(tmp_path):
    def rising(**options):
        options |= {"metric": "val_auc", "value": lambda spec, epoch: 1 - loss(spec, epoch) / 2}
        return FakeExecutor(**options)

    objective = {"objective": ("val_auc", "max")}
    # The same configurations in the same order as where the loss is minimized.
    least = search(tmp_path / "least")
    whole = search(tmp_path / "whole", rising(workers=3, seed=1), **objective)
    assert {r.trial_id for r in whole} == {r.trial_id for r in least}
    best = selection.winners(whole, "val_auc", top=1)[0]
    assert best.score == max(r.score for r in whole if r.epochs == 9)
    check_replay(tmp_path / "whole", SCHEDULE, direction="max")
    for event in (20, 50, 90):
        root = tmp_path / f"killed-{event}"
        killed(root, event, rising(), **objective)
        assert outcome(search(root, rising(), **objective)) == outcome(whole)


@pytest.mark.parametrize("call", [1, 2, 5, 30, 61, 62, 63, 64])
def test_a_disk_that_fills_up_in_the_middle_ends_the_search_and_it_goes_on(
    tmp_path, monkeypatch, call
):
    whole, calls = search(tmp_path / "whole"), []

    def refuse(descriptor):
        calls.append(descriptor)
        if len(calls) >= call:
            raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=r"no space left.*--resume"):
            search(tmp_path / "full")
    assert outcome(search(tmp_path / "full")) == outcome(whole)
    check_replay(tmp_path / "full", SCHEDULE)


class SavingExecutor(FakeExecutor):
    """Leaves a checkpoint of every trial, and notes how many there were at once."""

    most = 0

    def wait(self, on_epoch):
        result = super().wait(on_epoch)
        spec = next(s for s in self.submitted if s.trial_id == result.trial_id)
        if spec.parent_checkpoint is not None:
            assert spec.parent_checkpoint.exists(), f"the parent of {spec.trial_id} was removed"
        spec.directory.mkdir(parents=True, exist_ok=True)
        (spec.directory / checkpoint.LAST).touch()
        saved = len(list(spec.directory.parent.glob(f"*/{checkpoint.LAST}")))
        self.most = max(self.most, saved)
        return result


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("schedule", "most"), [(full_budget(tuner="random", trials=12, epochs=9), 2), (SCHEDULE, 11)]
)
def test_each_brackets_best_alone_keeps_its_checkpoint(tmp_path, workers, schedule, most):
    def fails(spec):
        return random.Random(spec.trial_id).random() < 0.2

    executor = SavingExecutor(workers=workers, seed=1, fails=fails)
    records = search(tmp_path, executor, schedule=schedule)
    left = {path.parent.name for path in (tmp_path / "tuner").glob(f"*/{checkpoint.LAST}")}
    last = [r for r in records if r.epochs == 9 and r.status is TrialStatus.COMPLETED]
    best = {
        min((r for r in last if r.bracket == bracket), key=lambda r: r.score).trial_id
        for bracket in {r.bracket for r in last}
    }
    assert len(best) == len(schedule.brackets)
    assert left == {f"trial_{name}" for name in best}
    assert executor.most == most


def test_another_space_or_schedule_is_refused(tmp_path):
    search(tmp_path)
    with pytest.raises(RunDirectoryError, match="--name"):
        search(tmp_path, source=UniformSource(SPACE, queue=[], seed=99))
    with pytest.raises(RunDirectoryError, match="no place"):
        search(tmp_path, schedule=hyperband(max_epochs=4, factor=2))


@pytest.mark.parametrize("kind", [kt.RandomSearch, kt.GridSearch])
def test_plain_kerastuner_opens_the_project(tmp_path, kind):
    records = search(tmp_path)
    tuner = kind(
        TinyHyperModel(),
        objective=kt.Objective("robust_loss", "min"),
        directory=tmp_path,
        project_name="tuner",
        overwrite=False,
    )
    best = tuner.oracle.get_best_trials(1)[0]
    assert len(tuner.oracle.trials) == len(records)
    assert best.score == min(r.score for r in records)


def test_a_bayesian_search_resumed_after_a_kill_proposes_the_same(tmp_path):
    def options():
        source = BayesianSource(SPACE, queue=[spaces.defaults(SPACE)], seed=0, trials=9)
        schedule = full_budget(tuner="bayesian", trials=9, epochs=1)
        return {"source": source, "schedule": schedule}

    whole = search(tmp_path / "whole", **options())
    killed(tmp_path / "killed", 20, **options())
    assert outcome(search(tmp_path / "killed", **options())) == outcome(whole)


def test_scores_are_smoothed_over_a_fixed_share_of_the_epochs():
    assert smoothed([5.0], epochs=1) == 5.0
    assert smoothed([9.0, 1.0], epochs=3) == 1.0
    assert smoothed([9.0, 1.0, 2.0, 3.0], epochs=9) == 2.0
    with pytest.raises(ValueError, match="epoch"):
        smoothed([], epochs=1)


def test_winners_come_from_the_largest_budget_and_differ(tmp_path):
    records = search(tmp_path)
    best = selection.winners(records, "robust_loss", top=3)
    assert len({r.configuration for r in best}) == 3
    assert all(r.epochs == 9 for r in best)
    assert best[0].score == min(r.score for r in records if r.epochs == 9)
    assert [r.score for r in best] == sorted(r.score for r in best)
