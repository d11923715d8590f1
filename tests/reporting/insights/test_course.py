"""What the insights say of the search's course: trials, learning curves, the timeline."""

import itertools
import json

import fake_runs as fake
import fake_scores
import pytest
from search.reporting.insights import course, parallel, timeline
from search.reporting.insights.material import Material

from search.journal import EventKind
from search.records import EpochRecord


@pytest.fixture(scope="module")
def material():
    return fake_scores.material()


def one(insights):
    (insight,) = insights
    assert all(len(row) == len(insight.columns) for row in insight.rows)
    return insight


def epochs(first, last):
    return tuple(
        EpochRecord(trial_id="", epoch=e, metrics={"robust_loss": 1 / e}, seconds=1.0)
        for e in range(first, last + 1)
    )


def test_every_rung_that_a_configuration_ended_is_a_row(material):
    rows = one(course.trials_by_rung(material)).rows
    done = [r for r in material.records if r.status.value == "completed"]
    assert sorted(rows) == sorted((r.configuration, r.bracket, r.epochs, r.score) for r in done)


def test_a_learning_curve_joins_the_trials_of_a_configuration():
    records = [
        fake.trial("0000", configuration=4, history=epochs(1, 3), epochs=3),
        fake.trial(
            "0001", configuration=4, rung=1, initial_epoch=3, history=epochs(4, 9), epochs=9
        ),
        fake.failed("0002", history=epochs(1, 2)),
        fake.failed("0003"),
    ]
    joined, broken = course.curves_by_configuration(records, objective="robust_loss")
    assert joined.epochs == tuple(range(1, 10))
    assert joined.scores == tuple(1 / e for e in range(1, 10))
    assert (joined.rung, joined.best, joined.failed) == (1, True, False)
    assert (broken.epochs, broken.best, broken.failed) == ((1, 2), False, True)
    insight = one(course.learning_curves(Material(objective="robust_loss", records=records)))
    assert len(insight.rows) == 9 + 2
    assert insight.reading == "2 configurations, 1 of them promoted 1 time, 1 failed."


def test_the_retraining_is_a_curve_a_seed(material):
    insight = one(course.training_curves(material))
    assert len({row[0] for row in insight.rows}) == 4
    assert "winner, seed 1: " in insight.reading


def test_parallel_coordinates_list_the_furthest_trial_of_every_configuration(material):
    insight = one(parallel.parallel_coordinates(material))
    done = {r.configuration for r in material.records if r.status.value == "completed"}
    assert sorted(row[0] for row in insight.rows) == sorted(done)
    best = insight.rows[0]
    furthest = [r for r in material.records if r.epochs == 9 and r.score is not None]
    assert best[-1] == min(r.score for r in furthest)
    assert best[-2] == 9
    assert len(insight.columns) == 1 + parallel.MAX_AXES + 2


def test_settings_are_placed_in_order_and_missing_ones_below():
    widths = parallel.axis("width", [64, None, 512, 128])
    assert widths.heights.tolist() == [0.0, parallel.INACTIVE, 1.0, 0.5]
    assert widths.ticks == ((0.0, "64"), (0.5, "128"), (1.0, "512"), (parallel.INACTIVE, "–"))
    assert widths.few
    rates = parallel.axis("rate", [10.0**-i for i in range(9)])
    assert rates.heights == pytest.approx([1 - i / 8 for i in range(9)])
    assert not rates.few


def test_results_keep_their_distances_however_few_there_are():
    scores = parallel.axis("loss", [0.2, 0.3, 1.2], measured=True, worse_up=True)
    assert scores.heights == pytest.approx([1.0, 0.9, 0.0])
    same = parallel.axis("loss", [0.2, 0.2, 0.2], measured=True)
    assert same.heights.tolist() == [0.0, 0.0, 0.0]


def test_two_configurations_are_no_picture():
    records = [fake.trial("0000"), fake.trial("0001")]
    assert parallel.parallel_coordinates(Material(objective="robust_loss", records=records)) == []


def test_the_timeline_has_a_bar_for_every_trial_and_retraining(material):
    insight = one(timeline.timeline(material))
    rows = [dict(zip(insight.columns, row, strict=True)) for row in insight.rows]
    trials = [row for row in rows if row["kind"] == "trial"]
    # Of a trial that failed in its first epoch, this journal does not say when it began.
    assert {row["what"] for row in trials} == {r.trial_id for r in material.records if r.history}
    assert all(row["outcome"] == "completed" for row in trials)
    assert [row["what"] for row in rows if row["kind"] == "retraining"] == [
        "documented, seed 0",
        "documented, seed 1",
        "winner, seed 0",
        "winner, seed 1",
    ]
    for before, after in itertools.pairwise(trials):
        assert after["begin s"] >= before["begin s"] + before["seconds"] - 0.2
    assert "with 1 worker" in insight.reading


def test_workers_have_lines_of_their_own_and_losses_are_seen():
    bars, pauses = timeline.bars(fake.PooledRun(losing=(7,)).events())
    trials = [bar for bar in bars if bar.kind == "trial"]
    assert {bar.worker for bar in trials} == {0, 1}
    assert [bar.outcome for bar in trials].count("worker lost") == 1
    assert pauses == []
    for worker in (0, 1):
        mine = sorted((b.begin, b.begin + b.seconds) for b in trials if b.worker == worker)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(mine))


def resumed(*, prepared):
    """Two trials, a kill in the second, and an hour later the process that goes on with it."""

    def event(kind, time, **fields):
        return {"event": kind.value, "time": 1000.0 + time, **fields}

    created = {"configuration": 0, "bracket": 1, "rung": 0}
    return [
        event(EventKind.RUN_STARTED, 0),
        event(EventKind.TRIAL_CREATED, 1, trial_id="a", **created),
        event(EventKind.EPOCH, 11, trial_id="a", epoch=1, metrics={}, seconds=10.0),
        event(EventKind.TRIAL_ENDED, 12, trial_id="a", status="completed"),
        event(EventKind.TRIAL_CREATED, 12, trial_id="b", **created),
        event(EventKind.EPOCH, 22, trial_id="b", epoch=1, metrics={}, seconds=10.0),
        *([event(EventKind.STAGE, 3622, name="data", seconds=4.0)] if prepared else []),
        event(EventKind.RUN_STARTED, 3623),
        event(EventKind.EPOCH, 3643, trial_id="b", epoch=2, metrics={}, seconds=20.0),
        event(EventKind.TRIAL_ENDED, 3644, trial_id="b", status="completed"),
    ]


@pytest.mark.parametrize("prepared", [False, True])
def test_time_in_which_nobody_had_the_run_is_cut_out(prepared):
    events = resumed(prepared=prepared)
    bars, pauses = timeline.bars(json.loads(json.dumps(events)))
    assert pauses == [22.0]
    assert [(b.what, b.outcome) for b in bars] == [
        ("a", "completed"),
        ("b", "interrupted"),
        ("b", "completed"),
    ]
    # Reading the images again, 4 s before the process says that it has begun, is its work.
    start = 22.0 + (5.0 if prepared else 0.0)
    assert [(b.begin, b.seconds) for b in bars] == [
        (1.0, 11.0),
        (12.0, 10.0),
        (start, 21.0),
    ]
    insight = one(timeline.timeline(Material(objective="robust_loss", events=events)))
    assert "1 interruption cut out" in insight.reading


def test_nothing_is_said_where_nothing_is_known():
    nothing = Material(objective="robust_loss")
    for compute in (
        course.trials_by_rung,
        course.learning_curves,
        course.training_curves,
        parallel.parallel_coordinates,
        timeline.timeline,
    ):
        assert compute(nothing) == [], compute
