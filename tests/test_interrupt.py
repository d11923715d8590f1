"""Ctrl-C: the first stops after the epoch and keeps everything; the run can be resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_resume_finishes(tmp_path):
    command = [
        *(sys.executable, "-m", "search.run", "--data", "demo", "--no-live", "--name", "run"),
        *("--image-size", "32", "--max-epochs", "3", "--min-epochs", "1", "--refit-epochs", "1"),
        *("--search", "learning_rate", "--results-dir", str(tmp_path / "results")),
        *("--cache-dir", str(tmp_path / "cache")),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
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
    journal = (tmp_path / "results" / "run" / "journal.jsonl").read_text()
    before = [json.loads(line) for line in journal.splitlines()]
    assert before[-1]["event"] == "stopped"
    done = subprocess.run(
        [*command, "--resume"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "results" / "run" / "manifest.json").exists()
    events = (tmp_path / "results" / "run" / "journal.jsonl").read_text().splitlines()
    epochs = [(e["trial_id"], e["epoch"]) for e in map(json.loads, events) if e["event"] == "epoch"]
    assert len(epochs) == len(set(epochs))
