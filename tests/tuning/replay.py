"""Reads only a journal, and checks what every search promises."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from search.journal import trial_records
from search.records import TrialRecord, TrialStatus
from search.run_directory import RunDirectory
from search.tuning.schedule import Schedule


def check_replay(root: Path, schedule: Schedule, *, direction: str = "min") -> None:
    """Assert that no trial ended twice, that children continue their parents, that every rung
    holds the best of the one below, replacements of failures included, and that the epochs
    trained add up to the plan.

    The best have the smallest score, or with the direction "max" the largest.
    """
    sign = 1 if direction == "min" else -1
    events = RunDirectory(root).events()
    records = {r.trial_id: r for r in trial_records(events)}
    ends = Counter(e["trial_id"] for e in events if e["event"] == "trial_ended")
    assert set(ends) == set(records)
    assert max(ends.values()) == 1
    children = Counter(r.parent for r in records.values() if r.parent)
    assert not children or max(children.values()) == 1
    for record in records.values():
        if record.parent:
            parent = records[record.parent]
            assert record.initial_epoch == parent.epochs
            assert record.values == parent.values
    completed = [r for r in records.values() if r.status is TrialStatus.COMPLETED]
    for record in completed:
        trained = [epoch.epoch for epoch in record.history]
        assert trained == list(range(record.initial_epoch + 1, record.target_epochs + 1))
    if len(completed) == len(records):
        assert len(records) == schedule.trials
        assert sum(len(record.history) for record in completed) == schedule.epochs
    for bracket in schedule.brackets:
        places = [(bracket.iteration, bracket.bracket, rung) for rung in range(len(bracket.rungs))]
        for place, above in itertools.pairwise(places):
            below = [r for r in completed if (r.iteration, r.bracket, r.rung) == place]
            mine = [r for r in records.values() if (r.iteration, r.bracket, r.rung) == above]
            best = sorted(below, key=lambda r: (sign * r.score, r.parameters, r.configuration))
            assert {r.parent for r in mine} == {r.trial_id for r in best[: len(mine)]}
            failed = sum(r.status is not TrialStatus.COMPLETED for r in mine)
            # Spares are bounded in the first rung alone, and number two at the least.
            count = bracket.rungs[above[-1]].count
            most = max(2 * count, count + 2) if above[-1] == 1 else len(below)
            assert len(mine) == min(count + failed, most, len(below))


def outcome(records: list[TrialRecord]) -> dict[str, tuple]:
    """Return what must not depend on kills or workers."""
    return {r.trial_id: (r.status, r.score, r.values, r.parent, r.epochs) for r in records}


def assert_same(whole: Path, other: Path, schedule: Schedule) -> None:
    """Assert that a search gave what another one did, and trained no finished epoch twice."""
    events = RunDirectory(other).events()
    one, two = (outcome(trial_records(e)) for e in (RunDirectory(whole).events(), events))
    assert set(one) == set(two)
    for name, (status, score, *more) in one.items():
        assert two[name] == (status, pytest.approx(score, abs=1e-4), *more)
    epochs = [(e["trial_id"], e["epoch"]) for e in events if e["event"] == "epoch"]
    trained = sum(e["event"] == "epoch" for e in RunDirectory(whole).events())
    assert len(epochs) == len(set(epochs)) == trained
    check_replay(other, schedule)
