"""How many workers train at once: as asked, or from a short measurement.

More workers pay as long as one trial cannot keep the machine busy; that depends on the network,
the image size and the device, so it is measured with the documented configuration: all workers
of a candidate number train it at the same time, and the epochs a second of all together count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.records import Values
from search.tuning.devices import (
    Gpu,
    available_memory_mb,
    find_gpus,
    usable_cores,
    worker_environments,
)
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.pool import PoolLimits, WorkerPool
from search.tuning.timing import Pace
from search.tuning.trial import Setting, ShouldStop

WORTHWHILE = 1.1
"""Twice the workers must bring at least so many times the epochs a second."""

SHORT_SECONDS = 480.0
"""A shorter search does not pay for starting workers only to measure them."""

MOST_WORKERS = 16
WORKER_MEMORY_MB = 1500
"""Main memory of a worker, measured at 180 × 180 on TensorFlow."""
GPU_WORKER_MEMORY_MB = 4000


@dataclass(frozen=True, kw_only=True)
class Staffing:
    """The executor of a search, and why it has so many workers.

    Attributes:
        executor: Ready to train.
        pace: What the documented configuration costs when all workers are busy: seconds of the
            whole machine for an epoch and for starting a trial.
        reason: One sentence for the plan.
    """

    executor: Executor
    pace: Pace
    reason: str


def staff(
    setting: Setting,
    *,
    workers: int | None,
    documented: Values,
    seed: int,
    epochs: int,
    log_dir: Path,
    should_stop: ShouldStop,
    limits: PoolLimits,
    gpus: Sequence[Gpu] | None = None,
) -> Staffing:
    """Start the executor of a search and measure its pace.

    Args:
        setting: Data and HyperModel.
        workers: Worker processes; 0 for this process, None to choose by measuring.
        documented: The configuration to measure.
        seed: Any seed.
        epochs: How many epochs the search trains, roughly; a short one is not measured for.
        log_dir: Where workers' logs go.
        should_stop: Asked while measuring and after each epoch.
        limits: When workers are replaced.
        gpus: The GPUs to use; those of the machine by default.

    Raises:
        WorkerError: No worker can be started.
        StopRequestedError: The user asked to stop.
    """
    if workers == 0:
        executor = InProcessExecutor(setting, should_stop=should_stop)
        return Staffing(
            executor=executor,
            pace=executor.pace(documented, seed=seed),
            reason="in this process, as asked",
        )
    found = find_gpus() if gpus is None else tuple(gpus)

    def open_pool(count: int) -> WorkerPool:
        return WorkerPool(
            setting,
            environments=worker_environments(count, gpus=found),
            log_dir=log_dir,
            should_stop=should_stop,
            limits=limits,
        )

    def measured(count: int) -> tuple[WorkerPool, Pace]:
        pool = open_pool(count)
        try:
            return pool, shared(pool.pace(documented, seed=seed), count)
        except BaseException:
            pool.close()
            raise

    if workers is not None:
        pool, pace = measured(workers)
        return Staffing(executor=pool, pace=pace, reason=f"{_named(workers)}, as asked")
    return _choose(measured, most=_most_workers(found), epochs=epochs, device=_device(found))


def shared(pace: Pace, workers: int) -> Pace:
    """Return what an epoch and a start cost the whole machine when all workers are busy."""
    return Pace(epoch=pace.epoch / workers, trial=pace.trial / workers)


def _choose(
    measured: Callable[[int], tuple[WorkerPool, Pace]], *, most: int, epochs: int, device: str
) -> Staffing:
    count = 1
    pool, pace = measured(count)
    seconds = epochs * pace.epoch
    if seconds < SHORT_SECONDS:
        reason = f"1 worker: the search takes about {seconds:.0f} s, too short to measure for more"
        return Staffing(executor=pool, pace=pace, reason=reason)
    rates = [f"1 gave {60 / pace.epoch:.2f}"]
    try:
        while 2 * count <= most:
            # Before the larger crew is measured: it needs the machine for itself.
            pool.close()
            candidate, faster = measured(2 * count)
            rates.append(f"{2 * count} gave {60 / faster.epoch:.2f}")
            if pace.epoch / faster.epoch < WORTHWHILE:
                candidate.close()
                pool, pace = measured(count)
                break
            pool, pace, count = candidate, faster, 2 * count
    except BaseException:
        pool.close()
        raise
    reason = f"{_named(count)}: of the epochs a minute on {device}, {', '.join(rates)}"
    return Staffing(executor=pool, pace=pace, reason=reason)


def _most_workers(gpus: Sequence[Gpu]) -> int:
    most = min(MOST_WORKERS, usable_cores())
    memory = available_memory_mb()
    if memory is not None:
        most = min(most, memory // WORKER_MEMORY_MB)
    if gpus:
        most = min(most, sum(gpu.memory_mb // GPU_WORKER_MEMORY_MB or 1 for gpu in gpus))
    return max(1, most)


def _device(gpus: Sequence[Gpu]) -> str:
    return f"{len(gpus)} GPU(s)" if gpus else f"{usable_cores()} CPU cores"


def _named(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
