"""A real search, killed with -9 at random instants and resumed, ends as if nothing happened."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.journal import trial_records
from search.run_directory import RunDirectory
from tests.tuning.killable import SCHEDULE
from tests.tuning.replay import check_replay

KILLS = 30
ROOT = Path(__file__).parents[2]


def start(run: Path, data: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.tuning.killable", str(run), str(data)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thirty_kills_change_nothing(tmp_path):
    whole = tmp_path / "whole"
    begin = time.monotonic()
    process = start(whole, tmp_path)
    process.stdout.readline()
    ready = time.monotonic() - begin
    assert process.wait(timeout=300) == 0
    # Spread over a little more than a share of the whole, so that the kills meet all of it.
    share = max(0.3, 2.0 * (time.monotonic() - begin - ready) / KILLS)
    drawn = random.Random(0)
    deaths, copies = 0, []
    while deaths < KILLS:  # a copy may finish between two kills; then another one dies
        copies.append(tmp_path / f"killed-{len(copies)}")
        finished = False
        while deaths < KILLS and not finished:
            finished = not killed(copies[-1], tmp_path, after=drawn.uniform(0, share))
            deaths += not finished
        assert start(copies[-1], tmp_path).wait(timeout=300) == 0
    assert len(copies) <= 5, "most of them finish before a kill: these are no random instants"
    for copy in copies:
        assert_same(whole, copy)


def killed(run: Path, data: Path, *, after: float) -> bool:
    """Start the search and kill it; return whether it was still at work then."""
    process = start(run, data)
    process.stdout.readline()
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    assert process.returncode == 0
    return False


def assert_same(whole: Path, killed: Path) -> None:
    """Compare a search that was killed with one that was not."""
    one = {r.trial_id: r for r in trial_records(RunDirectory(whole).events())}
    events = RunDirectory(killed).events()
    two = {r.trial_id: r for r in trial_records(events)}
    assert set(one) == set(two)
    for name, record in one.items():
        assert two[name].values == record.values
        assert two[name].score == pytest.approx(record.score, abs=1e-4)
    # No finished epoch was trained again: each is in the journal once.
    epochs = [(e["trial_id"], e["epoch"]) for e in events if e["event"] == "epoch"]
    assert len(epochs) == len(set(epochs)) == sum(len(r.history) for r in one.values())
    check_replay(killed, SCHEDULE)
