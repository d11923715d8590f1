"""A tiny real search in a process of its own, for tests that kill it or its workers.

python -m tests.tuning.killable RUN_DIRECTORY DATA_DIRECTORY [WORKERS]
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from search.run_directory import RunDirectory
from search.tuning import space as spaces
from search.tuning.devices import worker_environments
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.model import Setting
from search.tuning.pool import PoolLimits, WorkerPool
from tests.tiny_data import tiny_data
from tests.tuning.fakes import TinyHyperModel, make_loop, setting_of

ROOT = Path(__file__).parents[2]


def start(module: str, *arguments: object, environment=os.environ) -> subprocess.Popen:
    """Start the search of a module of this folder and wait until it is about to begin."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.tuning.{module}", *map(str, arguments)],
        cwd=ROOT,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def executor(setting: Setting, run: RunDirectory) -> Executor:
    """Return worker processes if a number of them was given, else this process."""
    workers = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if not workers:
        return InProcessExecutor(setting, should_stop=lambda: False)
    return WorkerPool(
        setting,
        environments=worker_environments(workers),
        log_dir=run.logs_dir,
        should_stop=lambda: False,
        limits=PoolLimits(retries=100, start_failures=100),
    )


def main(*, executor=executor, hypermodel=None, fix=None, **options) -> None:
    """Search, or go on searching."""
    run = RunDirectory(Path(sys.argv[1]))
    hypermodel = hypermodel or TinyHyperModel()
    space = spaces.narrow(spaces.declared(hypermodel), fix=fix or {}, vary=())
    setting = setting_of(tiny_data(Path(sys.argv[2]), contrast=60), hypermodel)
    run.create()
    with run.lock(), contextlib.closing(executor(setting, run)) as trainer:
        print("ready", flush=True)
        make_loop(run.root, trainer, space=space, **options).search()


if __name__ == "__main__":
    main()
