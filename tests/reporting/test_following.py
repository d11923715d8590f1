"""Following a run from outside: new events only, and whether its process lives."""

import json
import shutil
import socket
import subprocess
import sys
import time

import fake_runs as fake
import pytest

from search.errors import RunDirectoryError
from search.journal import EventKind
from search.reporting.following import JournalTail, RunState, state_of, words
from search.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    made = RunDirectory(tmp_path / "first")
    made.create()
    return made


def lines(events):
    return "".join(json.dumps(event) + "\n" for event in events)


EVENTS = list(fake.FakeRun().events())


def test_every_event_is_read_once_whatever_the_pieces(run):
    tail, text, seen = JournalTail(run), lines(EVENTS[:40]).encode(), []
    for start in range(0, len(text), 997):
        with open(run.journal_file, "ab") as handle:
            handle.write(text[start : start + 997])
        events, again = tail.read()
        assert not again
        seen += events
    assert seen == EVENTS[:40]
    assert tail.read() == ([], False)
    assert tail.damaged == 0


def test_an_unfinished_last_line_waits_for_its_end(run):
    tail, text = JournalTail(run), lines(EVENTS[:2])
    run.journal_file.write_text(text[:-9])
    assert tail.read()[0] == EVENTS[:1]
    with run.journal_file.open("a") as handle:
        handle.write(text[-9:])
    assert tail.read()[0] == EVENTS[1:2]


def test_a_line_cut_short_by_a_kill_is_left_out(run):
    tail = JournalTail(run)
    run.journal_file.write_text(lines(EVENTS[:1]) + '{"event": "epo\n3\n' + lines(EVENTS[1:2]))
    assert tail.read()[0] == EVENTS[:2]
    assert tail.damaged == 1


@pytest.mark.parametrize("later", [1, 5, 40])
def test_a_run_that_was_begun_again_is_noticed_whatever_its_length(run, later):
    tail = JournalTail(run)
    run.journal_file.write_text(lines(EVENTS[:5]))
    tail.read()
    other = [{**event, "time": event["time"] + 1e6} for event in EVENTS[:later]]
    run.journal_file.write_text(lines(other))
    assert tail.read() == (other, True)


def test_a_run_without_a_journal_yet_has_no_events(run):
    tail = JournalTail(run)
    assert tail.read() == ([], False)
    run.journal_file.write_text(lines(EVENTS[:1]))
    assert tail.read() == (EVENTS[:1], False)
    run.journal_file.unlink()
    assert tail.read() == ([], True)
    assert tail.read() == ([], False)


def test_a_removed_run_is_told(run):
    tail = JournalTail(run)
    run.journal_file.write_text(lines(EVENTS[:5]))
    tail.read()
    shutil.rmtree(run.root)
    with pytest.raises(RunDirectoryError, match="removed or renamed while it was watched"):
        tail.read()


def test_looking_at_the_lock_takes_it_from_nobody(run):
    assert run.holder() is None
    with run.lock():
        assert run.holder() is not None
        assert run.holder() is not None
    assert run.holder() is None
    with run.lock():
        pass


STARTED = {"event": "run_started", "time": 1.0, "pid": 77, "host": socket.gethostname()}
EPOCH = {"event": "epoch", "time": 2.0}


def test_a_run_that_is_held_is_running_whatever_else_is_there(run):
    run.write_json("manifest.json", {})
    with run.lock():
        assert state_of(run, last=EPOCH, started=STARTED) is RunState.RUNNING
    assert state_of(run, last=EPOCH, started=STARTED) is RunState.COMPLETE


def test_a_run_that_nobody_holds_was_stopped_or_its_process_died(run):
    stopped = {"event": EventKind.STOPPED.value, "time": 2.0, "reason": "stopped after epoch 3"}
    assert state_of(run, last=stopped, started=STARTED) is RunState.STOPPED
    assert state_of(run, last=EPOCH, started=STARTED) is RunState.DEAD
    text = words(run, RunState.DEAD, last=EPOCH, started=STARTED)
    assert f"process 77 on {socket.gethostname()} is gone" in text
    assert "--resume --name first" in text
    assert "stopped after epoch 3" in words(run, RunState.STOPPED, last=stopped, started=STARTED)


def test_a_run_of_another_machine_counts_as_dead_only_after_a_long_silence(run):
    elsewhere = {**STARTED, "host": "another"}
    assert state_of(run, last=EPOCH, started=elsewhere, now=60.0) is RunState.RUNNING
    assert state_of(run, last=EPOCH, started=elsewhere, now=5000.0) is RunState.DEAD


def test_a_killed_process_lets_go_of_its_run(run):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from search.run_directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, run.root.as_posix()], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "held\n"
        assert state_of(run, last=EPOCH, started=STARTED) is RunState.RUNNING
        child.kill()
        child.wait()
        time.sleep(0.05)
        assert state_of(run, last=EPOCH, started=STARTED) is RunState.DEAD
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
