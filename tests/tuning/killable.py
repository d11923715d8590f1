"""A tiny real search in a process of its own, for tests that kill it.

python -m tests.tuning.killable RUN_DIRECTORY DATA_DIRECTORY [WORKERS]
"""

import contextlib
import sys
from pathlib import Path

import keras_tuner as kt

from search.run_directory import RunDirectory
from search.tuning import space as spaces
from search.tuning.devices import worker_environments
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.loop import SearchLoop
from search.tuning.model import Setting
from search.tuning.oracle import ScheduleOracle
from search.tuning.pool import PoolLimits, WorkerPool
from search.tuning.proposals import UniformSource
from search.tuning.schedule import hyperband
from tests.tiny_data import tiny_data
from tests.tuning.fakes import TinyHyperModel

SCHEDULE = hyperband(max_epochs=9, factor=3)


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


def main() -> None:
    """Search, or go on searching."""
    root, data = Path(sys.argv[1]), Path(sys.argv[2])
    run = RunDirectory(root)
    run.create()
    space = kt.HyperParameters()
    TinyHyperModel().declare(space)
    setting = Setting(
        dataset=tiny_data(data, contrast=60),
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=2 / 3,
    )
    with run.lock(), contextlib.closing(executor(setting, run)) as trainer:
        print("ready", flush=True)
        SearchLoop(
            oracle=ScheduleOracle(
                schedule=SCHEDULE,
                source=UniformSource(space, queue=[spaces.defaults(space)], seed=8),
                space=space,
                objective="robust_loss",
                direction="min",
                directory=run.tuner_dir,
            ),
            executor=trainer,
            run=run,
            seed=8,
            listener=lambda event: None,
        ).search()


if __name__ == "__main__":
    main()
