"""`python -m search.run` stopped by Ctrl-C, or killed with -9 in every stage, and resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.journal import trial_records
from search.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]
PATIENCE = 300.0
"""Seconds for a stage to be reached."""

LENGTHS = (
    "--image-size 32 --max-epochs 3 --min-epochs 1 --iterations 1 --refit-epochs 3 --refit-seeds 1"
)


def start(folder: Path, name: str, *more: str) -> subprocess.Popen:
    command = [
        *(sys.executable, "-m", "search.run", "--data", "demo", "--no-live", "--name", name),
        *LENGTHS.split(),
        *("--workers", "0", "--search", "crop_min_area,learning_rate,batch_size"),
        *("--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache"), *more),
    ]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def kill(process: subprocess.Popen, when: Callable[[], bool]) -> None:
    """Kill a run as soon as something holds."""
    deadline = time.monotonic() + PATIENCE
    while not when():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "it ended before it could be killed"


def count(run: RunDirectory, kind: str) -> int:
    return sum(event["event"] == kind for event in run.events())


def trained_once(run: RunDirectory) -> bool:
    epochs = [(e["trial_id"], e["epoch"]) for e in run.events() if e["event"] == "epoch"]
    return len(epochs) == len(set(epochs))


@pytest.mark.slow
def test_ctrl_c_ends_with_130_after_the_epoch_and_resume_finishes(tmp_path):
    options = ("--workers", "auto", "--search", "learning_rate", "--refit-epochs", "1")
    process = start(tmp_path, "run", *options)
    said = ""
    for line in process.stdout:
        said += line
        if "epoch 1/" in line:
            process.send_signal(signal.SIGINT)
            break
    said += process.stdout.read()
    assert process.wait(timeout=120) == 130, said
    assert "Traceback" not in said
    assert "--resume" in said
    run = RunDirectory(tmp_path / "results" / "run")
    assert run.events()[-1]["event"] == "stopped"
    finish(start(tmp_path, "run", *options, "--resume"))
    assert run.complete
    assert trained_once(run)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_kill_in_each_stage_changes_neither_trials_nor_winner(tmp_path):
    finish(start(tmp_path, "whole"))
    whole, killed = (RunDirectory(tmp_path / "results" / name) for name in ("whole", "killed"))
    stages = [
        lambda: (killed.root / "config.json").exists(),  # data
        lambda: count(killed, "run_started") >= 1,  # plan, while it measures
        lambda: count(killed, "plan") >= 1,
        lambda: count(killed, "epoch") >= 4,
        lambda: count(killed, "refit_epoch") >= 2,
    ]
    for number, reached in enumerate(stages):
        kill(start(tmp_path, "killed", *["--resume"] * bool(number)), reached)
    finish(start(tmp_path, "killed", "--resume"))
    one, two = (
        {record.trial_id: record for record in trial_records(run.events())}
        for run in (whole, killed)
    )
    assert set(two) == set(one)
    for name, record in one.items():
        assert (two[name].status, two[name].values) == (record.status, record.values)
        assert two[name].score == pytest.approx(record.score, abs=1e-4)
    assert trained_once(killed)
    name = "best_hyperparameters.json"
    assert killed.read_json(name) == whole.read_json(name)
    assert killed.complete
