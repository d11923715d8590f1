"""Whole searches in worker processes: the same with any number of them, also when they die."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.journal import trial_records
from search.run_directory import RunDirectory
from tests.tuning.killable import SCHEDULE
from tests.tuning.replay import check_replay

ROOT = Path(__file__).parents[2]


def start(run: Path, data: Path, workers: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.tuning.killable", str(run), str(data), str(workers)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def children(pid: int) -> list[int]:
    """Return the worker processes of a search (the resource tracker is none)."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def outcome(root: Path) -> dict[str, tuple]:
    return {
        r.trial_id: (r.status, r.values, r.parent, r.epochs, r.score and round(r.score, 4))
        for r in trial_records(RunDirectory(root).events())
    }


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds worker processes in /proc")
def test_the_number_of_workers_and_their_deaths_change_nothing(tmp_path):
    alone, several, killed = (tmp_path / name for name in ("alone", "several", "killed"))
    for root, workers in ((alone, 0), (several, 3)):
        assert start(root, tmp_path, workers).wait(timeout=400) == 0
    search = start(killed, tmp_path, 2)
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
    assert outcome(several) == outcome(killed) == outcome(alone)
    for root in (alone, several, killed):
        check_replay(root, SCHEDULE)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds worker processes in /proc")
def test_workers_end_when_their_parent_is_killed_and_the_run_goes_on(tmp_path):
    root = tmp_path / "run"
    search = start(root, tmp_path, 2)
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
    assert start(root, tmp_path, 2).wait(timeout=400) == 0
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
import resource, sys
from pathlib import Path
from tests.tuning import killable
from search.tuning.schedule import full_budget
killable.SCHEDULE = full_budget(tuner="random", trials=60, epochs=1)
import search.tuning.loop as loop
sizes = []
original = loop.SearchLoop._on_result
def on_result(self, result):
    original(self, result)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sizes.append(pages * resource.getpagesize() / 2**20)
loop.SearchLoop._on_result = on_result
killable.main()
print(*sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_of_the_searching_process_stays_flat_over_fifty_trials(tmp_path):
    assert resource.getpagesize() > 0
    said = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "run"), str(tmp_path), "2"],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert said.returncode == 0, said.stderr[-2000:]
    sizes = [float(size) for size in said.stdout.splitlines()[-1].split()]
    assert len(sizes) == 60
    # Megabytes from the tenth to the sixtieth trial: fifty trials.
    assert sizes[-1] - sizes[9] < 20, sizes
