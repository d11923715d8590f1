"""Runs a part of a benchmark in a process of its own, so that parts cannot influence each other.

A script that uses this calls itself: `run_fresh(__file__, job)` starts
`python SCRIPT --job FILE`, and the script's main hands that to `answer`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
}

Job = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with the checkout importable."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **more,
    }


def run_fresh(
    script: str, job: Job, *, variables: dict[str, str] | None = None, seconds: float | None = None
) -> Job:
    """Run a job in a new process and return its answer with "seconds", the process's wall time.

    Where the process dies, is ended at the limit or raises, the answer is {"error": …}.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job))
        command = [sys.executable, script, "--job", str(file)]
        try:
            done = subprocess.run(
                command,
                env=environment(**(variables or {})),
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            answer: Job = {"error": f"ended after {seconds:.0f} s"}
        else:
            if done.returncode == 0:
                answer = json.loads(file.read_text())
            else:
                said = (done.stderr or done.stdout).strip().splitlines()[-6:]
                answer = {"error": f"exit code {done.returncode}: " + " | ".join(said)}
    return {**answer, "seconds": time.perf_counter() - begin}


def answer(file: str, work: Callable[[Job], Job]) -> int:
    """Do a job that `run_fresh` asks for; the answer goes where the job came from."""
    path = Path(file)
    path.write_text(json.dumps(work(json.loads(path.read_text()))))
    return 0
