"""Everything that is to be measured on a lent GPU, in one script, in stages with limits.

For a machine with JAX for CUDA, without TensorFlow and without network; what else is needed comes
in `.gpu/`, see `gpu_pack.py`. The packages go to a folder on PYTHONPATH and not to a virtual
environment: the machine's own Python is one, and its packages are not seen from another.

    python3 results/studies/speed/gpu_session.py --out $OUT --minutes 9.5
    python3 results/studies/speed/gpu_session.py --out $OUT --minutes 9.5 --stages workers-180 tests

Stages, in this order: `campaign` (retraining and evaluation after the search of `../campaign`,
whose run directory is taken along as `.gpu/campaign`), `train-val` (its winner retrained on all
images), `workers-180` (`workers.py`, all films, R = 9: 8 workers against plain `kt.Hyperband`, the
bare steps, one worker), `tests` (those marked gpu) and `workers-96`. Each call sets up first what
is not there, and leaves out what is finished. A stage gets the time that is left up to a limit of
its own; one that runs out of time is asked to stop, keeps what it has, and goes on in the next call
where that finds it: under --place while the machine is held, else (the benchmarks) in
`.gpu/earlier`. The card may be another one in the next call: what was measured goes by its name.

After every stage `OUT/NAME.tgz` has the results so far: tables, plots and journals, without weights
and without anything that shows a film, as `report.html` does. `OUT/session.jsonl` and `OUT/log.txt`
say what happened; `OUT/model.keras` is what the campaign exported, before train-val.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from fresh import card

ROOT = Path(__file__).resolve().parents[3]
PACK = ROOT / ".gpu"
BENCHMARKS = ROOT / "results" / "studies" / "speed"
SMALLEST_STAGE = 45.0
"""Seconds; with less left, no stage is begun."""
WRAP_UP = 15.0
"""Seconds kept for packing the results."""
GRACE = 25.0
"""Seconds between asking a stage to stop and ending it."""
WORKERS_SECONDS = 540.0
"""Of the benchmark of an image size."""
SEARCH_SECONDS = 60
"""Of each search in it."""
LARGEST_FILE = 4 * 2**20
TABLES = frozenset({".json", ".jsonl", ".csv", ".md", ".txt", ".log"})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the session.

    Attributes:
        name: Its name.
        seconds: Its limit.
        command: What is run in the checkout.
        result: A file that is there once it is finished, None if it knows that itself.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    result: Path | None = None


def stages(options: argparse.Namespace, left: float) -> list[Stage]:
    """Return all stages in order.

    Args:
        options: Of the command line.
        left: Seconds that the session has left.
    """
    results = options.place / "results"
    large, small = (48, 32) if options.tiny else (180, 96)
    few = (2, 1) if options.tiny else (8, 1)
    return [
        _campaign(options, results / "campaign"),
        Stage(
            name="train-val",
            seconds=200,
            command=(
                *(sys.executable, "-m", "search.run", "--resume", str(results / "campaign")),
                *("--refit-on", "train+val", "--no-live"),
            ),
        ),
        _workers(options, f"workers-{large}", large, few, left),
        Stage(
            name="tests",
            seconds=200,
            command=(
                *(sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"),
                *gpu_tests(),
            ),
        ),
        _workers(options, f"workers-{small}", small, few, left),
    ]


def _campaign(options: argparse.Namespace, run: Path) -> Stage:
    """Return what retrains and evaluates after the search of `../campaign`, made elsewhere."""
    command = (sys.executable, "-m", "search.run", "--resume", str(run), "--no-live")
    command += ("--workers", options.workers)
    return Stage(name=run.name, seconds=540, command=command, result=run / "manifest.json")


def _workers(
    options: argparse.Namespace, name: str, size: int, workers: tuple[int, ...], left: float
) -> Stage:
    """Return the benchmark of an image size; what it has measured already it leaves out."""
    tiny, out = options.tiny, options.place / "results" / f"workers-{size}"
    command = [sys.executable, str(BENCHMARKS / "workers.py"), "--sizes", str(size)]
    command += ["--data", str(options.place / "chest_xray"), "--out", str(out)]
    command += ["--workers", *map(str, workers), "--iterations", "1"]
    command += ["--max-epochs", "1" if tiny else "9", "--images", "48" if tiny else "0"]
    command += [] if tiny else ["--limit", str(SEARCH_SECONDS)]
    # It ends by itself, with a report of what it measured.
    command += ["--minutes", f"{(min(WORKERS_SECONDS, left) - 2 * GRACE) / 60:.2f}"]
    return Stage(name=name, seconds=WORKERS_SECONDS, command=tuple(command))


def gpu_tests() -> list[str]:
    """Return the test files with a test for GPUs: others may import what is not there."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "mark.gpu" in file.read_text()]


def environment(options: argparse.Namespace) -> dict[str, str]:
    """Return the environment of every stage."""
    paths = [str(options.place / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(options.place / "compiled"),
        "XDG_CACHE_HOME": str(options.place / "home-cache"),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        **({"XRAY_SEARCH_REHEARSAL": "1"} if options.tiny else {}),
        "COLUMNS": "100",
    }


class Session:
    """The stages, their time, and what they leave."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ends = time.monotonic() + 60 * options.minutes - WRAP_UP
        self.out: Path = options.out
        self.log = self.out / "log.txt"

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.ends - time.monotonic()

    def note(self, **fields: object) -> None:
        """Append a line to session.jsonl, and show it."""
        line = json.dumps({"time": time.strftime("%H:%M:%S"), **fields})
        print(line, flush=True)
        with open(self.out / "session.jsonl", "a") as handle:
            handle.write(line + "\n")

    def set_up(self) -> None:
        """Install the wheels, unpack the films, and bring back earlier results."""
        begin = time.monotonic()
        place, site = self.options.place, self.options.place / "site"
        place.mkdir(parents=True, exist_ok=True)
        wheels = sorted(str(path) for path in (self.options.pack / "wheels").glob("*.whl"))
        if not site.exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
            command += ["--no-compile", "--no-cache-dir", "--target", str(site), *wheels]
            subprocess.run(command, check=True)
        if not (place / "chest_xray").exists():
            with tarfile.open(self.options.pack / "chest_xray.tar") as tar:
                tar.extractall(place, filter="data")
        results = place / "results"
        earlier, campaign = self.options.pack / "earlier", self.options.pack / "campaign"
        if earlier.is_dir() and not results.exists():
            shutil.copytree(earlier, results)
        results.mkdir(exist_ok=True)
        if campaign.is_dir() and not (results / "campaign").exists():
            shutil.copytree(campaign, results / "campaign")
        told = subprocess.run(
            [sys.executable, "-c", _WHO_IS_THERE],
            env=environment(self.options),
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        about = (told.stdout or told.stderr).strip().splitlines()[-1:]
        self.note(
            stage="setup", rc=told.returncode, seconds=_since(begin), about=about, card=card()
        )

    def do(self, stage: Stage) -> None:
        """Run a stage within its limit; a failing one does not end the session."""
        if stage.result is not None and stage.result.exists():
            self.note(stage=stage.name, skipped="finished")
            return
        seconds = min(stage.seconds, self.left()) - GRACE
        if seconds < SMALLEST_STAGE:
            self.note(stage=stage.name, skipped=f"{self.left():.0f} s left")
            return
        begin = time.monotonic()
        with open(self.log, "a") as log:
            log.write(f"\n=== {stage.name}: {' '.join(stage.command)}\n")
            log.flush()
            process = subprocess.Popen(
                stage.command,
                cwd=ROOT,
                env=environment(self.options),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its workers end with it
            )
            cut = False
            try:
                process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                cut = True
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=GRACE)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        self.note(stage=stage.name, rc=process.returncode, seconds=_since(begin), cut=cut)
        self.show_end()

    def show_end(self) -> None:
        """Print the last lines of the log: what comes back even where nothing else does."""
        print("\n".join(self.log.read_text(errors="replace").splitlines()[-25:]), flush=True)

    def pack(self, name: str) -> None:
        """Write what may leave the machine after a stage to NAME.tgz, and the first model."""
        results = self.options.place / "results"
        partial = self.out / "partial"
        with tarfile.open(partial, "w:gz") as tar:
            for path in sorted(results.rglob("*")):
                if path.is_file() and travels(path.relative_to(results), path.stat().st_size):
                    tar.add(path, arcname=str(path.relative_to(results)))
        partial.rename(self.out / f"{name}.tgz")
        model = results / "campaign" / "model.keras"
        if model.exists() and not (self.out / model.name).exists():
            shutil.copy(model, self.out)


def travels(inside: Path, size: int) -> bool:
    """Return whether a result is taken along: tables, logs, and plots of numbers.

    Nothing else: weights are large, and `report.html` has the Grad-CAM of films inside.
    """
    plot = inside.suffix == ".png" and (
        inside.parent.name == "plots" or inside.parts[0].startswith("workers-")
    )
    working = {"tuner", "refit", "local"} & set(inside.parts)
    return (plot or inside.suffix in TABLES) and not working and size <= LARGEST_FILE


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 1)


_WHO_IS_THERE = """
from search import backend
backend.load()
print(backend.device(), backend.versions())
"""


def main() -> int:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="what is here comes back")
    parser.add_argument("--place", type=Path, default=Path("/tmp/xray-session"))
    parser.add_argument("--pack", type=Path, default=PACK, help="what gpu_pack.py made")
    parser.add_argument("--minutes", type=float, default=9.5, help="of this call")
    parser.add_argument("--stages", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--workers", help="of the campaign: auto or N (8)")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: tiny sizes, any device")
    options = parser.parse_args()
    options.workers = options.workers or ("2" if options.tiny else "8")
    options.out.mkdir(parents=True, exist_ok=True)
    session = Session(options)
    names = [stage.name for stage in stages(options, 0.0)]
    unknown = set(options.stages or ()) - set(names)
    if unknown:
        parser.error(f"--stages {' '.join(sorted(unknown))}: choose of {', '.join(names)}")
    session.set_up()
    for name in names:
        if not options.stages or name in options.stages:
            # Made now: the benchmarks get the time that is left.
            every = stages(options, session.left())
            session.do(next(stage for stage in every if stage.name == name))
            session.pack(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
