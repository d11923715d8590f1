"""`python -m search.watch`: another process's run, live, in lines, once, and at its end."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from search import watch
from search.run_directory import RunDirectory

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[1]
RECORDED = Path(__file__).parent / "reporting" / "run"
EVENTS = [json.loads(line) for line in (RECORDED / "journal.jsonl").read_text().splitlines()]
PASSED = time.time() - 300 - EVENTS[0]["time"]
EVENTS = [{**event, "time": event["time"] + PASSED} for event in EVENTS]
STARTED = next(event for event in EVENTS if event["event"] == "run_started")
STARTED["host"] = socket.gethostname()
BEGUN = next(i for i, event in enumerate(EVENTS) if event["event"] == "trial_ended") + 1
ENDED = next(i for i, event in enumerate(EVENTS) if event["event"] == "search_ended")


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(watch, "STATE_SECONDS", 0.05)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path):
    made = RunDirectory(tmp_path / "first")
    made.create()
    for name in ("config.json", "dataset.json"):
        shutil.copy(RECORDED / name, made.root)
    append(made, EVENTS[:BEGUN])
    return made


def append(run, events):
    with run.journal_file.open("a") as handle:
        for event in events:
            handle.write(json.dumps(event) + "\n")


@pytest.fixture
def follow(run, monkeypatch):
    """Return a function that watches the run; what has it acts once it is followed, and ends."""
    held, followed = threading.Event(), threading.Event()
    take_in = watch.Watched._take_in

    def noted(self):
        followed.set()
        take_in(self)

    monkeypatch.setattr(watch.Watched, "_take_in", noted)

    def watched(act, *options):
        def process():
            with run.lock():
                held.set()
                followed.wait(30)
                act()

        thread = threading.Thread(target=process)
        thread.start()
        try:
            held.wait()
            return watch.main([str(run.root), *options])
        finally:
            thread.join()

    return watched


def flat(text):
    return " ".join(text.split())


def test_once_prints_one_frame_and_where_the_run_stands(run, capsys):
    with run.lock():
        assert watch.main(["first", "--results-dir", str(run.root.parent), "--once"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("first · hyperband · robust_loss ↓ · 269 SYNTHETIC images")
    assert "2 workers" in lines[0]
    assert re.search(r"search \d+%", out)
    assert "is gone" not in out


def test_once_says_that_a_process_died(run, capsys):
    assert watch.main([str(run.root), "--once"]) == 0
    out = capsys.readouterr().out
    assert "epochs · dead" in out
    gone = f"process {STARTED['pid']} on {socket.gethostname()} is gone"
    assert f"{gone} and the run is unfinished" in flat(out)
    assert "--resume --name first" in flat(out)


def test_a_run_is_followed_in_dated_lines_to_its_verdict(run, capsys, follow):
    def go_on():
        for event in EVENTS[BEGUN:]:
            append(run, [event])
        time.sleep(0.2)
        shutil.copy(RECORDED / "evaluation.json", run.root)
        run.write_json("manifest.json", {})

    assert follow(go_on) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  watching first: search: ", out)
    assert "search ended: 6 trials, 11 epochs" in out
    assert "retrained finalist 1, seed 0: epoch" in out
    assert "test images" in flat(out)
    assert "search.report" in out


def test_a_run_that_was_stopped_in_order_is_told_with_exit_code_0(run, capsys, follow):
    stopped = {"event": "stopped", "time": time.time(), "reason": "as asked"}
    assert follow(lambda: append(run, [stopped]), "--no-live") == 0
    assert "the run was stopped (as asked); the command" in capsys.readouterr().out


def test_a_run_whose_process_is_gone_is_told_with_exit_code_1(capsys, follow):
    assert follow(lambda: None) == 1
    assert "is gone and the run is unfinished" in capsys.readouterr().out


def test_a_run_that_is_removed_ends_the_watching_with_exit_code_2(run, capsys, follow):
    # At once, where `rm -r` may leave the journal last and look like a dead run first.
    assert follow(lambda: run.root.rename(run.root.with_name("elsewhere"))) == 2
    assert "removed or renamed while it was watched" in capsys.readouterr().err


def test_a_run_that_is_begun_again_is_followed_from_its_new_beginning(run, capsys, follow):
    def begin_again():
        run.journal_file.unlink()
        append(run, [{**event, "time": event["time"] + 9} for event in EVENTS[:ENDED]])
        time.sleep(0.2)

    assert follow(begin_again) == 1
    out = capsys.readouterr().out
    assert "begun again" in out
    assert "first: search: 11/11 epochs" in out


def test_control_c_leaves_the_run_alone(run, capsys, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupt)
    before = run.journal_file.read_bytes()
    with run.lock():
        assert watch.main([str(run.root)]) == 0
    assert "no longer watching; the run is left alone" in capsys.readouterr().out
    assert run.journal_file.read_bytes() == before


def test_a_complete_run_shows_its_verdict_at_once(run, capsys):
    append(run, EVENTS[BEGUN:])
    shutil.copy(RECORDED / "evaluation.json", run.root)
    run.write_json("manifest.json", {})
    assert watch.main([str(run.root)]) == 0
    assert "test images" in flat(capsys.readouterr().out)


def test_a_run_that_has_only_begun_is_shown(tmp_path, capsys):
    young = RunDirectory(tmp_path / "young")
    young.create()
    config = json.loads((RECORDED / "config.json").read_text())
    young.write_json("config.json", {**config, "objective": "val_auc"})
    with young.lock():
        assert watch.main([str(young.root), "--once"]) == 0
    assert "val_auc ↑" in capsys.readouterr().out


class Terminal:
    """A pseudo terminal in which a run is watched, and what was written to it."""

    def __init__(self, run, **environment):
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "search.watch", run.root.as_posix()],
            stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, start_new_session=True,
            env={**kept, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(follower)
        self.text = ""

    def __enter__(self):
        self.read_until("baseline")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.leader)

    def read_until(self, pattern, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text[-3000:]
            ready, _, _ = select.select([self.leader], [], [], 0.1)
            if ready:
                try:
                    self.text += os.read(self.leader, 65536).decode(errors="replace")
                except OSError:
                    assert re.search(pattern, self.text), self.text[-3000:]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_the_view_is_redrawn_and_taken_away_at_control_c(run, no_color):
    environment = {"NO_COLOR": no_color} if no_color else {}
    with run.lock(), Terminal(run, **environment) as terminal:
        append(run, EVENTS[BEGUN:ENDED])
        terminal.read_until(r"search 100%")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until("left alone")
        assert terminal.process.wait(10) == 0
    colours = re.findall(r"\x1b\[[\d;]*3\dm", terminal.text)
    assert bool(colours) == (not no_color)
    # The cursor is shown again, and the last thing on the screen is a whole line.
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    assert terminal.text.endswith("\n")


def test_a_quiet_screen_costs_next_to_nothing(run):
    """Nothing happens in the run: the clock alone is redrawn, once a second."""
    with run.lock(), Terminal(run) as terminal:
        terminal.text = ""
        begin = time.monotonic()
        with contextlib.suppress(AssertionError):
            terminal.read_until("never", seconds=3.0)
        passed = time.monotonic() - begin
    assert 1 <= terminal.text.count("\x1b[?2026h") <= passed + 2
