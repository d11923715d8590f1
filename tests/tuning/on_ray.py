"""A tiny real search in a process of its own, in this process or on a Ray cluster.

python -m tests.tuning.on_ray RUN_DIRECTORY DATA_DIRECTORY [ADDRESS]
"""

import sys

from search.run_directory import RunDirectory
from search.tuning import ray as clusters
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.model import Setting
from search.tuning.pool import PoolLimits
from search.tuning.schedule import hyperband
from tests.tuning import killable
from tests.tuning.fakes import VALUES
from tests.tuning.faulty import LeisurelyHyperModel

SCHEDULE = hyperband(max_epochs=4, factor=2)
ADDRESS = sys.argv[3] if len(sys.argv) > 3 else ""


def executor(setting: Setting, run: RunDirectory) -> Executor:
    """Return two workers on the cluster, or without an address this process."""
    if not ADDRESS:
        return InProcessExecutor(setting, should_stop=lambda: False)
    # On a busy machine the second worker needs long; without it there is nothing to test.
    clusters.MEASURE_SECONDS = 400.0
    pool = clusters.open_on_ray(
        setting,
        2,
        address=ADDRESS,
        cpus=1,
        gpus=0.0,
        trials=100,
        log_dir=run.logs_dir,
        should_stop=lambda: False,
        limits=PoolLimits(),
    )
    pool.pace(VALUES, seed=8)  # when both have loaded
    return pool


if __name__ == "__main__":
    killable.main(
        executor=executor,
        hypermodel=LeisurelyHyperModel(0.6 if ADDRESS else 0.0),
        fix={"boom": "false", "nan": "false"},  # every trial trains all its epochs
        schedule=SCHEDULE,
    )
