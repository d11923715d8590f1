"""Where a run stands, and how long it still takes."""

import fake_runs as fake
import pytest
from search.reporting.remaining import longest_chain, planned_retraining, seconds_left

from search.reporting.progress import RunProgress


def state(events):
    progress = RunProgress()
    for event in events:
        progress.apply(event)
    return progress


def first(count, run=None):
    return [event for event, _ in zip((run or fake.FakeRun()).events(), range(count), strict=False)]


def test_the_time_left_follows_the_measured_pace():
    progress = state(first(200, fake.FakeRun(max_epochs=27)))
    assert progress.seconds_per_epoch == pytest.approx(2.1, abs=0.5)
    expected = progress.epochs_left * progress.seconds_per_epoch
    assert progress.seconds_left() == pytest.approx(expected)
    assert progress.seconds_left(progress.last + 1) == pytest.approx(expected - 1)
    assert progress.epochs_done + progress.epochs_left == pytest.approx(357, abs=6)


def test_before_the_first_epoch_the_plan_gives_the_time_left():
    events = first(2, fake.FakeRun(max_epochs=27))
    assert state(events).seconds_left() == 357 * 2.0
    # With what a trial costs besides its epochs.
    assert state([events[0], {**events[1], "estimated_seconds": 1071.0}]).seconds_left() == 1071.0
    assert state([events[0], {**events[1], "estimated_seconds": None}]).seconds_left() == 357 * 2.0


def test_time_between_a_kill_and_the_resumption_is_not_counted():
    events = first(60)
    progress = state(events)
    before = progress.seconds_per_epoch
    later = events[-1]["time"] + 90_000
    progress.apply({"event": "run_started", "time": later, "device": {"name": "GPU"}})
    progress.apply({**events[-1], "time": later + 5})
    assert progress.seconds_per_epoch == pytest.approx(before, rel=0.2)
    assert progress.elapsed(later + 7) == 7
    assert progress.device == "GPU"


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_the_time_left_is_right_for_any_number_of_workers(workers):
    run = fake.PooledRun(max_epochs=27, workers=workers)
    progress, said = RunProgress(), []
    for event in run.events():
        progress.apply(event)
        if event["event"] == "epoch":
            said.append((event["time"], progress.seconds_left()))
        if event["event"] == "search_ended":
            end = event["time"]
    begin = said[0][0]
    for share in (0.3, 0.5, 0.7, 0.9):
        time, left = min(said, key=lambda s: abs(s[0] - begin - share * (end - begin)))
        assert left == pytest.approx(end - time, abs=0.25 * (end - begin))


def test_epochs_that_follow_one_another_take_their_time_however_many_workers_idle():
    progress = RunProgress()
    for event in fake.PooledRun(max_epochs=27, workers=8).events():
        progress.apply(event)
        if 5 < progress.epochs_left < 20 and len(progress.running) == 1:
            break
    (alone,) = progress.running
    to_come = alone.target_epochs - alone.epochs
    assert progress.seconds_left() >= to_come * 2.0


def test_the_longest_chain_goes_from_the_slowest_trial_of_the_lowest_open_rung():
    brackets = fake.hyperband(max_epochs=9, factor=3).plan(2.0)["brackets"]
    assert longest_chain(brackets, [], set()) == 9
    assert longest_chain(brackets[2:], [], {(0, 0, 0)}) == 0
    from search.records import TrialStatus

    running = [
        fake.trial(f"{i:04d}", bracket=0, status=TrialStatus.RUNNING, epochs=3 + i, target_epochs=9)
        for i in range(3)
    ]
    assert longest_chain(brackets[2:], running, set()) == 6
    assert longest_chain(brackets[2:], running[1:], set()) == 9


def test_seconds_left_never_runs_below_the_epochs_after_the_current_one():
    said = {"in_a_row": 0, "pace": 2.0, "within_worker": None}
    assert seconds_left(epochs=5, passed=1.0, **said) == 9.0
    assert seconds_left(epochs=5, passed=100.0, **said) == 8.0
    assert seconds_left(epochs=0, passed=100.0, **said) == 0.0


def test_the_retraining_is_expected_to_be_as_much_slower_as_the_search_is():
    plan = {"epochs": 10, "estimated_seconds": 20.0, "seconds_per_epoch": 1.0, "refit_epochs": 6}
    assert planned_retraining(plan, pace=2.0) == 6.0
    assert planned_retraining(plan, pace=8.0) == 24.0
    assert planned_retraining({**plan, "refit_epochs": None}, pace=8.0) is None
    assert planned_retraining({}, pace=None) is None


def test_after_the_search_the_time_left_is_the_retrainings():
    events = list(fake.FakeRun(max_epochs=9).events())
    started = next(i for i, e in enumerate(events) if e["event"] == "refit_started")
    events[started]["all_epochs"] = 12
    progress = state(events[: started + 3])
    assert progress.stage == "retrain"
    assert progress.retraining.epochs_left == 10
    assert progress.seconds_left() == pytest.approx(10 * 2.0)


def test_the_last_retraining_takes_its_epochs_however_many_workers_idle():
    progress, time = RunProgress(), 1.79e9
    progress.apply({"event": "plan", "time": time, "workers": 4})
    progress.apply({"event": "search_ended", "time": time})
    kinds = {"role": "documented", "epochs": 20, "values": {}, "all_epochs": 80, "worker": 0}
    for seed in range(4):
        progress.apply({"event": "refit_started", "time": time, "seed": seed, **kinds})
    for epoch in range(1, 21):
        for seed in range(4):
            if seed == 3 and epoch > 10:
                continue
            time += 2.0
            named = {"role": "documented", "seed": seed, "epoch": epoch}
            ended = {"event": "refit_epoch", "time": time, "metrics": {}, "seconds": 8.0}
            progress.apply({**ended, **named})
    for seed in range(3):
        named = {"role": "documented", "seed": seed, "failure": None}
        progress.apply({"event": "refit_ended", "time": time, **named})
    assert progress.strange == 0
    assert progress.retraining.epochs_left == 10
    assert progress.seconds_left() == pytest.approx(10 * 8.0)


def test_a_resumed_retraining_goes_on_and_another_configuration_starts_anew():
    events = list(fake.FakeRun(max_epochs=9).events())
    started = next(i for i, e in enumerate(events) if e["event"] == "refit_started")
    progress = state(events[: started + 4])
    (run,) = progress.retraining.runs.values()
    assert run.epoch == 3
    progress.apply(events[started])
    assert [r.epoch for r in progress.retraining.runs.values()] == [3]
    progress.apply({**events[started], "values": {"flip": True}})
    assert [r.epoch for r in progress.retraining.runs.values()] == [0]


def test_a_retraining_that_ended_early_needs_no_more_epochs():
    events = list(fake.FakeRun(max_epochs=9).events())
    started = next(i for i, e in enumerate(events) if e["event"] == "refit_started")
    progress = state(events[: started + 3])
    assert progress.retraining.epochs_left == 4
    progress.apply({"event": "refit_ended", "role": "documented", "seed": 0, "failure": {"x": 1}})
    assert progress.retraining.epochs_left == 0
    assert progress.retraining.runs["documented", 0].failed


def test_stages_follow_from_the_events():
    seen = []
    progress = RunProgress()
    for event in fake.FakeRun().events():
        progress.apply(event)
        if not seen or seen[-1] != progress.stage:
            seen.append(progress.stage)
    assert seen == ["plan", "search", "retrain"]
    progress.apply({"event": "run_started", "time": progress.last + 1})
    assert progress.stage == "plan"
    progress.apply({"event": "stage", "name": "retrain", "seconds": 1})
    assert progress.stage == "score"


def test_workers_are_known_by_what_they_train():
    progress = RunProgress()
    for event in fake.PooledRun(workers=3, losing=(7,)).events():
        progress.apply(event)
        names = [w.name for w in progress.workers.rows()]
        assert names == ([] if progress.search_ended or not progress.plan else ["0", "1", "2"])
        busy = [w.trial_id for w in progress.workers.rows() if w.trial_id]
        assert len(busy) == len(set(busy))
        assert set(busy) <= {r.trial_id for r in progress.running}
        if progress.search_ended:
            break
    (loss,) = progress.workers.losses
    assert progress.workers.starts[loss.trial_id] == 2
    assert progress.strange == 0


def test_workers_of_an_earlier_process_are_gone():
    progress = state(first(30, fake.PooledRun(workers=2)))
    assert any(worker.trial_id for worker in progress.workers.rows())
    progress.apply({"event": "run_started", "time": progress.last, "pid": 2, "workers": 4})
    assert [(w.name, w.trial_id) for w in progress.workers.rows()] == [
        (str(n), None) for n in range(4)
    ]
    assert progress.workers.training("0000-001") is None


def test_what_is_added_up_is_new_after_every_event():
    progress = RunProgress()
    for event in fake.PooledRun(workers=2).events():
        progress.apply(event)
        fresh = state([])
        fresh.trials, fresh.plan = progress.trials, progress.plan
        assert (progress.epochs_done, len(progress.top), progress.occupancy()) == (
            fresh.epochs_done,
            len(fresh.top),
            fresh.occupancy(),
        )
