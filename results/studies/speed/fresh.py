"""Runs a part of a benchmark in a process of its own, so that parts cannot influence each other.

A script that uses this calls itself: `run_fresh(__file__, job)` starts
`python SCRIPT --job FILE`, and the script's main hands that to `answer`. A `Ledger` keeps what
was measured, so that a benchmark goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
}

SHORTEST = 40.0
"""Seconds; with less left, no job is begun."""
WRAP_UP = 20.0
"""Seconds that a job gets to load and to end, besides what it measures."""

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


def card() -> str | None:
    """Return the model of this machine's GPUs as nvidia-smi calls it, None where there is none.

    A field of every job that a GPU does: rates of different cards are not to be mixed.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    names = sorted({line.strip() for line in told.stdout.splitlines() if line.strip()})
    return ", ".join(names) if told.returncode == 0 and names else None


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


class Ledger:
    """Finished jobs, by name, on disk: one JSON line each."""

    def __init__(
        self,
        file: Path,
        script: str,
        *,
        variables: Callable[[Job], dict[str, str]] = lambda job: {},
        seconds: float | None = None,
    ) -> None:
        """Read what is there; a line that a kill cut short is dropped.

        Args:
            file: Where finished jobs are kept.
            script: The benchmark that does the jobs.
            variables: The environment of a job.
            seconds: Limit of a job.
        """
        self.file = file
        self.script = script
        self.variables = variables
        self.seconds = seconds
        self.done: dict[str, Job] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        for line in file.read_text().splitlines() if file.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):
                job = json.loads(line)
                self.done[job["name"]] = job

    def finished(self, job: Job) -> bool:
        """Return whether this very job was done, did not break, and was not cut shorter."""
        done = self.done.get(job["name"])
        if done is None or "error" in done:
            return False
        if not done.get("complete", True) and done["limit"] < job["limit"]:
            return False
        return self.answers(job)

    def answers(self, job: Job) -> bool:
        """Return whether what is known under this name is of this very job, finished or not."""
        done = self.done.get(job["name"], {})
        return all(done.get(name) == value for name, value in job.items() if name != "limit")

    def run(
        self,
        jobs: list[Job],
        *,
        tell: Callable[[Job], str],
        processes: int = 1,
        ends: float = math.inf,
    ) -> list[Job]:
        """Do the jobs that are missing, and return with their answers those that were done.

        Args:
            jobs: Each with a "name" of its own; a "limit" in seconds is shortened to what is left.
            tell: What to say of a finished job.
            processes: How many at a time.
            ends: No job is begun close to this `time.monotonic`, and none runs beyond it.
        """
        missing = [job for job in jobs if not self.finished(job)]
        if len(missing) < len(jobs):
            print(f"{len(jobs) - len(missing)} of {len(jobs)} jobs are in {self.file}", flush=True)
        begin = time.perf_counter()
        with ThreadPoolExecutor(processes) as threads:
            running = [threads.submit(self._do, job, ends) for job in missing]
            try:
                for count, future in enumerate(as_completed(running), 1):
                    job = future.result()
                    if job is None:
                        continue
                    self._keep(job)
                    left = (time.perf_counter() - begin) / count * (len(missing) - count)
                    print(
                        f"{count}/{len(missing)} {job['name']}: {job.get('error') or tell(job)} "
                        f"({job['seconds']:.0f} s; about {left / 60:.0f} min left)",
                        flush=True,
                    )
            except KeyboardInterrupt:
                threads.shutdown(cancel_futures=True)
                raise
        return [self.done[job["name"]] for job in jobs if self.answers(job)]

    def _do(self, job: Job, ends: float) -> Job | None:
        """Do a job in the time that is left, or not at all."""
        left = ends - time.monotonic()
        if left < SHORTEST:
            print(f"{job['name']}: left out, {left:.0f} s are left", flush=True)
            return None
        seconds = self.seconds
        if math.isfinite(left):
            seconds = min(self.seconds or left, left)
            if "limit" in job:
                job = {**job, "limit": min(job["limit"], left - WRAP_UP)}
        variables = self.variables(job)
        return {**job, **run_fresh(self.script, job, variables=variables, seconds=seconds)}

    def _keep(self, job: Job) -> None:
        self.done[job["name"]] = job
        with open(self.file, "a") as handle:
            handle.write(json.dumps(job) + "\n")
