"""Where a run stands, and how long it still takes."""

import statistics

import pytest

from search.journal import EventKind
from search.records import TrialStatus
from search.reporting.progress import RunProgress
from search.tuning.selection import ordered, winners


def after(events, kind=None):
    progress = RunProgress("robust_loss")
    for event in events:
        progress.apply(event)
        if kind is not None and event["event"] == kind:
            break
    return progress


def invented(*, trials=9, epochs=4, compile_seconds=6.0, each=2.0, workers=1):
    """A search of full budgets in one worker, whose first epochs compile; yields (event, left)."""
    rungs = [{"count": trials, "initial_epoch": 0, "epochs": epochs}]
    plan = {
        "tuner": "random",
        "max_epochs": epochs,
        "brackets": [{"iteration": 0, "bracket": 0, "rungs": rungs}],
        "configurations": trials,
        "trials": trials,
        "epochs": trials * epochs,
        "seconds_per_epoch": 1.5,
        "seconds_per_trial": 4.0,
        "workers": workers,
    }
    now, whole = 0.0, trials * (epochs * each + compile_seconds)
    yield {"event": "plan", "time": now, **plan}, whole
    for number in range(trials):
        trial = {"trial_id": f"{number:04d}", "time": now}
        created = {"configuration": number, "iteration": 0, "bracket": 0, "rung": 0}
        created |= {"parent": None, "values": {}, "initial_epoch": 0, "target_epochs": epochs}
        yield {"event": "trial_created", **trial, **created}, whole - now
        for epoch in range(1, epochs + 1):
            seconds = each + (compile_seconds if epoch == 1 else 0.0)
            now += seconds
            done = {"epoch": epoch, "metrics": {"robust_loss": 0.5}, "seconds": seconds}
            yield {"event": "epoch", **trial, **done, "time": now}, whole - now
        ended = {"status": "completed", "score": 0.5, "epochs": epochs, "parameters": 1}
        ended |= {"seconds": epochs * each + compile_seconds, "failure": None, "notes": []}
        yield {"event": "trial_ended", **trial, **ended, "time": now}, whole - now


def test_a_recorded_run_is_read_without_a_strange_event(events):
    progress = after(events)
    assert progress.strange == 0
    assert progress.stage == "done"
    assert progress.plan.trials == len(progress.trials)
    assert all(record.status is not TrialStatus.RUNNING for record in progress.trials.values())
    assert progress.problems == []
    done, left = progress.epochs
    assert left == 0
    assert done == sum(run.epoch for run in progress.retraining.values())


def test_epochs_done_and_left_add_up_to_the_plan(events):
    progress = RunProgress("robust_loss")
    for event in events:
        progress.apply(event)
        if progress.stage == "search" and progress.plan:
            assert sum(progress.epochs) == progress.plan.epochs


def test_the_time_left_is_right_within_a_third_after_a_tenth_of_the_run():
    progress, whole = RunProgress("robust_loss"), None
    for event, left in invented():
        progress.apply(event)
        whole = left if whole is None else whole
        if event["event"] == "epoch" and 0.1 * whole < whole - left < 0.95 * whole:
            assert progress.seconds_left() == pytest.approx(left, rel=0.3)


def test_the_time_left_of_a_recorded_search_is_right(events):
    begin = next(event["time"] for event in events if event["event"] == "plan")
    end = next(event["time"] for event in events if event["event"] == "search_ended")
    progress, ratios = RunProgress("robust_loss"), []
    for event in events:
        progress.apply(event)
        if event["event"] == "epoch" and 0.1 < (event["time"] - begin) / (end - begin) < 0.9:
            ratios.append(progress.seconds_left() / (end - event["time"]))
    # Of 47 seconds on a busy machine; what its load does next is not known.
    assert all(1 / 1.5 < ratio < 1.5 for ratio in ratios)
    assert 1 / 1.3 < statistics.median(ratios) < 1.3


def test_the_pace_of_the_plan_is_that_of_all_workers_together():
    first, _ = next(iter(invented(workers=2)))
    progress = after([first])
    assert progress.pace == (3.0, 8.0)
    assert progress.seconds_left() == pytest.approx(9 * (4 * 1.5 + 4.0))


def test_compiling_is_not_taken_for_the_pace():
    progress = RunProgress("robust_loss")
    for event, _ in invented(epochs=1):
        progress.apply(event)
    # Trials of one epoch do not tell the two apart; the plan's shares do.
    each, besides = progress.pace
    assert each + besides == pytest.approx(8.0)
    assert each == pytest.approx(8.0 * 1.5 / 5.5)


def test_the_clock_runs_down_between_two_events(events):
    progress = after(events, EventKind.EPOCH)
    left = progress.seconds_left(progress.last)
    assert progress.seconds_left(progress.last + 0.5) == pytest.approx(left - 0.5)


def test_a_strange_event_is_counted_and_costs_nothing(events):
    progress = RunProgress("robust_loss")
    assert not progress.apply({"event": "epoch"})
    assert not progress.apply({"event": "trial_ended", "time": 1.0, "trial_id": "nobody"})
    assert progress.strange == 2
    assert all(progress.apply(event) for event in events)


def test_a_lost_worker_and_a_failed_trial_are_problems():
    progress = RunProgress("robust_loss")
    for event, _ in invented(trials=1):
        if event["event"] == "trial_ended":
            lost = {"event": "worker_lost", "time": 9.0, "trial_id": "0000", "worker": 1}
            progress.apply({**lost, "pid": 7, "reason": "killed", "retry": True})
            failure = {"kind": "out_of_memory", "message": "no\nmemory", "traceback": ""}
            event |= {"status": "failed", "score": None, "failure": failure}
        progress.apply(event)
    assert progress.problems == [
        "lost worker 1 (process 7): killed; trial 0000 goes on in another worker",
        "trial 0000 failed, out of memory: no memory",
    ]


def test_trials_are_ordered_by_epochs_then_score_and_the_useless_ones_last(made):
    records = list(made.trials)
    best = ordered(records, "loss")
    keys = [(-r.epochs, r.score) for r in best if r.status is TrialStatus.COMPLETED]
    assert keys == sorted(keys)
    furthest = winners(records, "loss")
    assert len({r.configuration for r in furthest}) == len(furthest)
    worst = ordered(records, "auc")
    assert {r.trial_id for r in worst} == {r.trial_id for r in best}
