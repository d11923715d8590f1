"""A tiny real search in a process of its own, in this process or on a Ray cluster.

python -m tests.tuning.on_ray RUN_DIRECTORY DATA_DIRECTORY [ADDRESS]
"""

import contextlib
import sys
import time
from pathlib import Path

import keras
import keras_tuner as kt

from search.run_directory import RunDirectory
from search.tuning import ray as clusters
from search.tuning import space as spaces
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.loop import SearchLoop
from search.tuning.model import Setting
from search.tuning.oracle import ScheduleOracle
from search.tuning.pool import PoolLimits
from search.tuning.proposals import UniformSource
from search.tuning.schedule import hyperband
from tests.tiny_data import tiny_data
from tests.tuning.fakes import TinyHyperModel

SCHEDULE = hyperband(max_epochs=4, factor=2)
EPOCH_SECONDS = 0.6


class LeisurelyHyperModel(TinyHyperModel):
    """Takes its time on a cluster, so that a node can be stopped in the middle of a trial."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *args, callbacks=(), **kwargs):
        rest = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: time.sleep(self.seconds)
        )
        return super().fit(hp, model, *args, callbacks=[*callbacks, rest], **kwargs)


def declared(hypermodel: TinyHyperModel) -> kt.HyperParameters:
    """Return the space without what makes trials fail: every one trains all its epochs."""
    space = kt.HyperParameters()
    hypermodel.declare(space)
    return spaces.narrow(space, fix={"boom": "false", "nan": "false"}, vary=())


def executor(setting: Setting, run: RunDirectory, address: str) -> Executor:
    """Return two workers on the cluster, or without an address this process."""
    if not address:
        return InProcessExecutor(setting, should_stop=lambda: False)
    # On a busy machine the second worker needs long; without it there is nothing to test.
    clusters.MEASURE_SECONDS = 400.0
    pool = clusters.open_on_ray(
        setting,
        2,
        address=address,
        cpus=1,
        gpus=0.0,
        trials=100,
        log_dir=run.logs_dir,
        should_stop=lambda: False,
        limits=PoolLimits(),
    )
    space = declared(setting.hypermodel)
    pool.pace(spaces.defaults(space), seed=8)  # when both have loaded
    return pool


def main() -> None:
    """Search."""
    root, data = Path(sys.argv[1]), Path(sys.argv[2])
    address = sys.argv[3] if len(sys.argv) > 3 else ""
    run = RunDirectory(root)
    run.create()
    hypermodel = LeisurelyHyperModel(EPOCH_SECONDS if address else 0.0)
    space = declared(hypermodel)
    setting = Setting(
        dataset=tiny_data(data, contrast=60),
        hypermodel=hypermodel,
        objective="robust_loss",
        prevalence=2 / 3,
    )
    with run.lock(), contextlib.closing(executor(setting, run, address)) as trainer:
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
    # As a worker imports it, not as "__main__", which a worker would not find.
    from tests.tuning import on_ray

    on_ray.main()
