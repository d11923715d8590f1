"""The loop over fake trials: order, failures, replay after a kill at any event."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import random
from pathlib import Path

import keras_tuner as kt
import pytest

from search.errors import RunDirectoryError, SearchFailedError, StorageError
from search.records import TrialStatus
from search.run_directory import RunDirectory
from search.tuning import checkpoint, selection
from search.tuning import space as spaces
from search.tuning.executors import InProcessExecutor
from search.tuning.loop import SearchLoop
from search.tuning.oracle import ScheduleOracle
from search.tuning.proposals import BayesianSource, GridSource, UniformSource
from search.tuning.schedule import full_budget, hyperband
from search.tuning.selection import smoothed
from search.tuning.trial import Setting
from tests.tuning.fakes import FakeExecutor, TinyHyperModel, loss
from tests.tuning.replay import check_replay, outcome


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def space() -> kt.HyperParameters:
    declared = kt.HyperParameters()
    TinyHyperModel().declare(declared)
    return declared


def make_loop(
    root: Path,
    executor,
    *,
    schedule=None,
    source=None,
    seed=8,
    listener=None,
    objective=("robust_loss", "min"),
):
    run = RunDirectory(root)
    run.create()
    schedule = schedule or hyperband(max_epochs=9, factor=3)
    found = space()
    source = source or UniformSource(found, queue=[spaces.defaults(found)], seed=seed)
    oracle = ScheduleOracle(
        schedule=schedule,
        source=source,
        space=found,
        objective=objective[0],
        direction=objective[1],
        directory=run.tuner_dir,
    )
    return SearchLoop(
        oracle=oracle, executor=executor, run=run, seed=seed, listener=listener or (lambda e: None)
    )


def test_trial_0_is_the_documented_configuration(tmp_path):
    records = make_loop(tmp_path, FakeExecutor()).search()
    assert records[0].configuration == 0
    assert records[0].values == spaces.defaults(space())


def test_the_documented_configuration_is_trained_in_float32_whatever_the_others_are(tmp_path):
    executor = FakeExecutor()
    loop = make_loop(tmp_path, executor)
    loop.precision = "mixed_bfloat16"
    configurations = {record.trial_id: record.configuration for record in loop.search()}
    found = {(configurations[s.trial_id] == 0, s.precision) for s in executor.submitted}
    assert found == {(True, "float32"), (False, "mixed_bfloat16")}


def test_the_epochs_trained_add_up_to_the_plan(tmp_path):
    schedule = hyperband(max_epochs=9, factor=3)
    records = make_loop(tmp_path, FakeExecutor(), schedule=schedule).search()
    assert sum(len(r.history) for r in records) == schedule.epochs
    assert len(records) == schedule.trials
    check_replay(tmp_path, schedule)


@pytest.mark.parametrize("workers", [2, 5])
def test_results_do_not_depend_on_the_number_of_workers(tmp_path, workers):
    alone = make_loop(tmp_path / "one", FakeExecutor()).search()
    many = make_loop(tmp_path / "many", FakeExecutor(workers=workers, seed=3)).search()
    assert outcome(alone) == outcome(many)
    check_replay(tmp_path / "many", hyperband(max_epochs=9, factor=3))


@pytest.mark.parametrize("seed", range(6))
def test_random_failures_starve_no_rung(tmp_path, seed):
    def fails(spec):
        return random.Random(f"{seed}/{spec.trial_id}").random() < 0.35

    make_loop(tmp_path, FakeExecutor(workers=2, seed=seed, fails=fails)).search()
    check_replay(tmp_path, hyperband(max_epochs=9, factor=3))


def test_a_trial_that_learned_nothing_ranks_below_every_living_one_and_is_never_promoted(tmp_path):
    def dead(spec):
        return spec.values["learning_rate"] > 1e-2

    # A constant output scores better than everything that is alive.
    executor = FakeExecutor(
        workers=2,
        learns=lambda spec: not dead(spec),
        value=lambda spec, epoch: -1.0 if dead(spec) else loss(spec, epoch),
    )
    records = make_loop(tmp_path, executor).search()
    nothing = [r for r in records if r.status is TrialStatus.LEARNED_NOTHING]
    assert {r.trial_id for r in nothing} == {r.trial_id for r in records if dead(r)}
    assert nothing
    assert not {r.trial_id for r in nothing} & {r.parent for r in records}
    best = selection.winners(records, "robust_loss", top=50)
    assert all(r.status is TrialStatus.COMPLETED for r in best)
    check_replay(tmp_path, hyperband(max_epochs=9, factor=3))
    again = make_loop(tmp_path, FakeExecutor()).search()
    assert outcome(again) == outcome(records)


def test_a_search_where_nothing_is_learned_says_so(tmp_path):
    executor = FakeExecutor(learns=lambda spec: False)
    with pytest.raises(SearchFailedError, match=r"none of .* learned anything"):
        make_loop(tmp_path, executor).search()


def test_when_nothing_works_the_first_traceback_is_told(tmp_path):
    with pytest.raises(SearchFailedError, match="injected"):
        make_loop(tmp_path, FakeExecutor(fails=lambda spec: True)).search()


def test_a_kill_at_any_event_changes_nothing(tmp_path):
    whole = make_loop(tmp_path / "whole", FakeExecutor()).search()
    length = len(RunDirectory(tmp_path / "whole").events())
    for kill_at in range(0, length, 5):
        root = tmp_path / f"killed-{kill_at}"
        seen = []

        def listener(event, seen=seen, kill_at=kill_at):
            seen.append(event)
            if len(seen) == kill_at + 1:
                raise Killed

        with pytest.raises(Killed):
            make_loop(root, FakeExecutor(), listener=listener).search()
        resumed = make_loop(root, FakeExecutor()).search()
        assert outcome(resumed) == outcome(whole)
        check_replay(root, hyperband(max_epochs=9, factor=3))


def killed_at(event: int):
    """Return a listener that kills the search at its n-th event."""
    seen = []

    def listener(told):
        seen.append(told)
        if len(seen) == event:
            raise Killed

    return listener


def rising(spec, epoch):
    return 1 - loss(spec, epoch) / 2


def test_the_largest_score_wins_where_the_objective_is_maximized(tmp_path):
    def loop(root, **options):
        executor = FakeExecutor(metric="val_auc", value=rising, **options)
        return make_loop(tmp_path / root, executor, objective=("val_auc", "max"))

    # The same configurations in the same order as where the loss is minimized.
    least = make_loop(tmp_path / "least", FakeExecutor()).search()
    whole = loop("whole", workers=3, seed=1).search()
    assert {r.trial_id for r in whole} == {r.trial_id for r in least}
    best = selection.winners(whole, "val_auc", top=1)[0]
    assert best.score == max(r.score for r in whole if r.epochs == 9)
    check_replay(tmp_path / "whole", hyperband(max_epochs=9, factor=3), direction="max")
    for event in (20, 50, 90):
        first = loop(f"killed-{event}")
        first.listener = killed_at(event)
        with pytest.raises(Killed):
            first.search()
        assert outcome(loop(f"killed-{event}").search()) == outcome(whole)


class UndefinedExecutor(FakeExecutor):
    """Logs a metric that is not defined, as an AUC where one class was never seen."""

    def wait(self, on_epoch):
        def told(epoch):
            on_epoch(dataclasses.replace(epoch, metrics={**epoch.metrics, "val_auc": float("nan")}))

        return super().wait(told)


def test_a_metric_that_is_not_a_number_is_no_hindrance_to_resuming(tmp_path):
    whole = make_loop(tmp_path / "whole", UndefinedExecutor()).search()
    with pytest.raises(Killed):
        make_loop(tmp_path / "a", UndefinedExecutor(), listener=killed_at(40)).search()
    resumed = make_loop(tmp_path / "a", UndefinedExecutor()).search()
    assert outcome(resumed) == outcome(whole)
    assert all(math.isnan(epoch.metrics["val_auc"]) for r in resumed for epoch in r.history)


def full_disk(monkeypatch, *, call: int) -> None:
    """Let the n-th file that is made durable meet a full disk, and all after it."""
    calls = []

    def refuse(descriptor):
        calls.append(descriptor)
        if len(calls) >= call:
            raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("call", [1, 2, 5, 30, 61, 62, 63, 64])
def test_a_disk_that_fills_up_in_the_middle_ends_the_search_and_it_goes_on(
    tmp_path, monkeypatch, call
):
    whole = make_loop(tmp_path / "whole", FakeExecutor()).search()
    with monkeypatch.context() as patched:
        full_disk(patched, call=call)
        with pytest.raises(StorageError, match=r"no space left.*--resume"):
            make_loop(tmp_path / "full", FakeExecutor()).search()
    assert outcome(make_loop(tmp_path / "full", FakeExecutor()).search()) == outcome(whole)
    check_replay(tmp_path / "full", hyperband(max_epochs=9, factor=3))


def test_a_checkpoint_that_meets_a_full_disk_costs_no_finished_epoch(
    tiny_dataset, tmp_path, monkeypatch
):
    setting = Setting(
        dataset=tiny_dataset,
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=tiny_dataset.prevalence,
    )
    schedule = full_budget(tuner="random", trials=2, epochs=2)
    found = space()
    # Drawn, one of the two would fail the trial.
    held = spaces.narrow(found, fix={"boom": "false", "nan": "false"}, vary=())

    def search(root):
        executor = InProcessExecutor(setting, should_stop=lambda: False)
        source = UniformSource(held, queue=[spaces.defaults(found)], seed=8)
        return make_loop(root, executor, schedule=schedule, source=source).search()

    whole = search(tmp_path / "whole")
    write, calls = checkpoint.atomic, []

    @contextlib.contextmanager
    def refuse(path):
        with write(path) as temporary:
            calls.append(path)
            if len(calls) == 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield temporary

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "atomic", refuse)
        with pytest.raises(StorageError, match=r"no space left.*--resume"):
            search(tmp_path / "full")
    before = [e for e in RunDirectory(tmp_path / "full").events() if e["event"] == "epoch"]
    assert len(before) == 3
    resumed = search(tmp_path / "full")
    for one, two in zip(whole, resumed, strict=True):
        assert (two.trial_id, two.status) == (one.trial_id, TrialStatus.COMPLETED)
        assert two.score == pytest.approx(one.score, abs=1e-4)
    epochs = [e for e in RunDirectory(tmp_path / "full").events() if e["event"] == "epoch"]
    assert epochs[:3] == before
    assert len(epochs) == 4


def test_a_line_cut_short_by_a_kill_is_dropped_and_made_good(tmp_path):
    whole = make_loop(tmp_path / "whole", FakeExecutor()).search()
    text = (tmp_path / "whole" / "journal.jsonl").read_text()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "journal.jsonl").write_text(text[: len(text) * 2 // 3])
    assert outcome(make_loop(tmp_path / "cut", FakeExecutor()).search()) == outcome(whole)


def test_a_finished_search_is_not_repeated(tmp_path):
    make_loop(tmp_path, FakeExecutor()).search()
    again = FakeExecutor()
    make_loop(tmp_path, again).search()
    assert again.submitted == []


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
def test_a_random_search_keeps_the_checkpoint_of_its_best_trial_alone(tmp_path, workers):
    executor = SavingExecutor(workers=workers)
    schedule = full_budget(tuner="random", trials=12, epochs=2)
    records = make_loop(tmp_path, executor, schedule=schedule).search()
    left = list((tmp_path / "tuner").glob(f"*/{checkpoint.LAST}"))
    best = min(records, key=lambda record: record.score)
    assert [path.parent.name for path in left] == [f"trial_{best.trial_id}"]
    assert executor.most == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_hyperband_keeps_the_checkpoint_of_each_brackets_best_alone(tmp_path, workers):
    def fails(spec):
        return random.Random(spec.trial_id).random() < 0.2

    executor = SavingExecutor(workers=workers, seed=1, fails=fails)
    records = make_loop(tmp_path, executor).search()
    left = {path.parent.name for path in (tmp_path / "tuner").glob(f"*/{checkpoint.LAST}")}
    last = [r for r in records if r.epochs == 9 and r.status is TrialStatus.COMPLETED]
    best = {
        min((r for r in last if r.bracket == bracket), key=lambda r: r.score).trial_id
        for bracket in {r.bracket for r in last}
    }
    assert len(best) == 3
    assert left == {f"trial_{name}" for name in best}


def test_more_iterations_go_on_where_the_search_ended(tmp_path):
    first = make_loop(tmp_path, FakeExecutor()).search()
    more = hyperband(max_epochs=9, factor=3, iterations=2)
    records = make_loop(tmp_path, FakeExecutor(), schedule=more).search()
    assert len(records) == 2 * len(first)
    assert outcome(records[: len(first)]) == outcome(first)


def test_a_longer_random_search_goes_on_and_tells_again_that_its_rung_closed(tmp_path):
    def search(trials):
        schedule = full_budget(tuner="random", trials=trials, epochs=2)
        return make_loop(tmp_path, FakeExecutor(), schedule=schedule).search()

    first, records = search(4), search(9)
    assert len(records) == 9
    assert outcome(records[:4]) == outcome(first)
    closed = [e for e in RunDirectory(tmp_path).events() if e["event"] == "rung_closed"]
    assert [len(event["ranked"]) for event in closed] == [4, 9]


def test_another_space_or_schedule_is_refused(tmp_path):
    make_loop(tmp_path, FakeExecutor()).search()
    other = UniformSource(space(), queue=[], seed=99)
    with pytest.raises(RunDirectoryError, match="--name"):
        make_loop(tmp_path, FakeExecutor(), source=other).search()
    with pytest.raises(RunDirectoryError, match="no place"):
        make_loop(tmp_path, FakeExecutor(), schedule=hyperband(max_epochs=4, factor=2)).search()


@pytest.mark.parametrize("kind", [kt.RandomSearch, kt.GridSearch])
def test_plain_kerastuner_opens_the_project(tmp_path, kind):
    records = make_loop(tmp_path, FakeExecutor()).search()
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


def test_random_and_grid_and_bayesian_use_the_same_loop(tmp_path):
    found = space()
    queue = [spaces.defaults(found)]
    held = spaces.narrow(found, fix={"learning_rate": 0.01}, vary=("filters", "batch_size"))
    cases = {
        "random": (UniformSource(found, queue=queue, seed=1), 6),
        "grid": (GridSource(held, queue=[spaces.defaults(held)]), 8),
        "bayesian": (BayesianSource(found, queue=queue, seed=1, trials=9), 9),
    }
    for name, (source, trials) in cases.items():
        schedule = full_budget(tuner=name, trials=trials, epochs=2)
        records = make_loop(
            tmp_path / name, FakeExecutor(), schedule=schedule, source=source
        ).search()
        keys = {spaces.key(record.values) for record in records}
        assert len(keys) == len(records) == trials, name
        assert all(r.status is TrialStatus.COMPLETED for r in records), name


def test_a_bayesian_search_resumed_after_a_kill_proposes_the_same(tmp_path):
    def source():
        found = space()
        return BayesianSource(found, queue=[spaces.defaults(found)], seed=0, trials=9)

    schedule = full_budget(tuner="bayesian", trials=9, epochs=1)
    whole = make_loop(tmp_path / "a", FakeExecutor(), schedule=schedule, source=source()).search()
    seen = []

    def listener(event):
        seen.append(event)
        if len(seen) == 20:
            raise Killed

    with pytest.raises(Killed):
        make_loop(
            tmp_path / "b", FakeExecutor(), schedule=schedule, source=source(), listener=listener
        ).search()
    resumed = make_loop(tmp_path / "b", FakeExecutor(), schedule=schedule, source=source()).search()
    assert outcome(resumed) == outcome(whole)


def test_scores_are_smoothed_over_a_fixed_share_of_the_epochs():
    assert smoothed([5.0], epochs=1) == 5.0
    assert smoothed([9.0, 1.0], epochs=3) == 1.0
    assert smoothed([9.0, 1.0, 2.0, 3.0], epochs=9) == 2.0
    with pytest.raises(ValueError, match="epoch"):
        smoothed([], epochs=1)


def test_winners_come_from_the_largest_budget_and_differ(tmp_path):
    records = make_loop(tmp_path, FakeExecutor()).search()
    best = selection.winners(records, "robust_loss", top=3)
    assert len({r.configuration for r in best}) == 3
    assert all(r.epochs == 9 for r in best)
    assert best[0].score == min(r.score for r in records if r.epochs == 9)
    assert [r.score for r in best] == sorted(r.score for r in best)


def test_state_files_are_whole_json_after_every_event(tmp_path):
    def listener(event):
        path = tmp_path / "tuner" / "oracle.json"
        if path.exists():
            json.loads(path.read_text())

    records = make_loop(tmp_path, FakeExecutor(), listener=listener).search()
    assert all(math.isfinite(r.score) for r in records)
