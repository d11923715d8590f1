"""Real searches, themselves or their workers killed with -9, end as if nothing happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.run_directory import RunDirectory
from tests.tuning.fakes import SCHEDULE
from tests.tuning.killable import ROOT, alive, start
from tests.tuning.replay import assert_same, check_replay

KILLS = 30


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thirty_kills_change_nothing(tmp_path):
    whole = tmp_path / "whole"
    begin = time.monotonic()
    process = start("killable", whole, tmp_path)
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
        assert start("killable", copies[-1], tmp_path).wait(timeout=300) == 0
    assert len(copies) <= 5, "most of them finish before a kill: these are no random instants"
    for copy in copies:
        assert_same(whole, copy, SCHEDULE)


def killed(run: Path, data: Path, *, after: float) -> bool:
    """Start the search and kill it; return whether it was still at work then."""
    process = start("killable", run, data)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    assert process.returncode == 0
    return False


def children(pid: int) -> list[int]:
    """Return the worker processes of a search (the resource tracker is none)."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds worker processes in /proc")
def test_the_number_of_workers_and_their_deaths_change_nothing(tmp_path):
    alone, several, robbed = (tmp_path / name for name in ("alone", "several", "robbed"))
    for root, workers in ((alone, 0), (several, 3)):
        assert start("killable", root, tmp_path, workers).wait(timeout=400) == 0
    search = start("killable", robbed, tmp_path, 2)
    drawn = random.Random(0)
    deaths = 0
    while search.poll() is None:
        time.sleep(drawn.uniform(2, 6))
        workers = children(search.pid) if search.poll() is None else []
        if workers and deaths < 8:
            os.kill(drawn.choice(workers), signal.SIGKILL)
            deaths += 1
    assert search.returncode == 0
    assert deaths >= 2
    for root in (several, robbed):
        assert_same(alone, root, SCHEDULE)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds worker processes in /proc")
def test_workers_end_when_their_parent_is_killed_and_the_run_goes_on(tmp_path):
    root = tmp_path / "run"
    search = start("killable", root, tmp_path, 2)
    deadline = time.monotonic() + 120
    while not RunDirectory(root).events() and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = children(search.pid)
    assert len(workers) == 2
    search.kill()
    search.wait()
    time.sleep(5)
    assert not [pid for pid in workers if alive(pid)]
    # Nothing is locked: another process takes the run and ends it.
    assert start("killable", root, tmp_path, 2).wait(timeout=400) == 0
    check_replay(root, SCHEDULE)


STUCK = """
import ctypes, sys, time
from pathlib import Path
if __name__ == "__mp_main__":
    ctypes.PyDLL(None).sleep(60)  # as while a library is loaded: the interpreter is held
if __name__ == "__main__":
    from search.tuning.pool import _ProcessWorker
    worker = _ProcessWorker(0, environment={}, log_file=Path(sys.argv[1]), setting=b"")
    print(worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS ignores the kernel's signal")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_ends_with_its_parent_even_while_it_loads_or_is_stopped(tmp_path, stopped):
    program = tmp_path / "program.py"
    program.write_text(STUCK)
    parent = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "log")],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = int(parent.stdout.readline())
    time.sleep(1)
    assert alive(worker)
    if stopped:
        os.kill(worker, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


MEMORY = """
import resource
from pathlib import Path
from search.tuning.schedule import full_budget
from tests.tuning import killable
sizes = []
def listener(event):
    if event["event"] == "trial_ended":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * resource.getpagesize() / 2**20)
killable.main(schedule=full_budget(tuner="random", trials=60, epochs=1), listener=listener)
print(*sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_of_the_searching_process_stays_flat_over_fifty_trials(tmp_path):
    said = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "run"), str(tmp_path), "2"],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=550,
        check=True,
    )
    sizes = [float(size) for size in said.stdout.splitlines()[-1].split()]
    assert len(sizes) == 60
    # Megabytes from the tenth to the sixtieth trial: fifty trials.
    assert sizes[-1] - sizes[9] < 20, sizes
