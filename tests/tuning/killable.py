"""A tiny real search in a process of its own, for tests that kill it.

python -m tests.tuning.killable RUN_DIRECTORY DATA_DIRECTORY [WORKERS]
"""

import contextlib
import sys
from pathlib import Path

import keras_tuner as kt
import numpy as np

from search.journal import RunDirectory
from search.records import Dataset, StressedViews, Subset
from search.tuning import space as spaces
from search.tuning.devices import worker_environments
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.loop import SearchLoop
from search.tuning.oracles import ScheduleOracle
from search.tuning.pool import PoolLimits, WorkerPool
from search.tuning.schedule import hyperband
from search.tuning.sources import DrawnSource
from search.tuning.trial import Setting
from tests.tuning.fakes import TinyHyperModel

SCHEDULE = hyperband(max_epochs=9, factor=3)


def dataset(folder: Path) -> Dataset:
    """Return sixty images, written once."""
    images, views = folder / "images.npy", folder / "views.npy"
    labels = (np.arange(60) % 3 > 0).astype(np.int8)
    if not views.exists():
        drawn = np.random.default_rng(0).integers(0, 90, (60, 32, 32, 1)).astype(np.uint8)
        drawn[labels == 1, :, 16:] += 60
        np.save(images, drawn)
        np.save(views, drawn[:24])

    def subset(rows: np.ndarray) -> Subset:
        names = tuple(map(str, rows))
        return Subset(
            array_file=images,
            rows=rows,
            labels=labels[rows],
            paths=names,
            patients=names,
            subtypes=("",) * len(rows),
        )

    return Dataset(
        image_size=32,
        train=subset(np.arange(24, 60)),
        val=subset(np.arange(24)),
        views=StressedViews(
            array_file=views,
            names=("a", "b"),
            view=(np.arange(24) % 2).astype(np.int8),
            source=np.arange(24),
            labels=labels[:24],
        ),
        class_weights={0: 1.5, 1: 0.75},
        prevalence=2 / 3,
        fingerprint="tiny",
        synthetic=True,
        report={},
    )


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
        limits=PoolLimits(retries=100),
    )


def main() -> None:
    """Search, or go on searching."""
    root, data = Path(sys.argv[1]), Path(sys.argv[2])
    run = RunDirectory(root)
    run.create()
    space = kt.HyperParameters()
    TinyHyperModel().declare(space)
    setting = Setting(
        dataset=dataset(data),
        hypermodel=TinyHyperModel(),
        objective="robust_loss",
        prevalence=2 / 3,
    )
    with run.lock(), contextlib.closing(executor(setting, run)) as trainer:
        print("ready", flush=True)
        SearchLoop(
            oracle=ScheduleOracle(
                schedule=SCHEDULE,
                source=DrawnSource(space, queue=[spaces.defaults(space)], seed=8),
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
