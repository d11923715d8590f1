"""How many workers train at once, and how precisely: as asked, or from a short measurement.

More workers pay as long as one trial cannot keep the machine busy; that depends on the network,
the image size and the device, so it is measured with the documented configuration: all workers
of a candidate number train it at the same time, and the epochs a second of all together count,
with what starting the search's trials takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search import backend
from search.errors import WorkerError
from search.records import Values
from search.tuning.devices import (
    Gpu,
    available_memory_mb,
    find_gpus,
    usable_cores,
    worker_environments,
)
from search.tuning.executors import Executor, InProcessExecutor
from search.tuning.model import Setting
from search.tuning.pool import WorkerPool
from search.tuning.pooling import PoolLimits
from search.tuning.timing import Pace
from search.tuning.trial import ShouldStop

WORTHWHILE = 1.1
"""Twice the workers must bring at least so many times the epochs a second."""

MIXED = "mixed_bfloat16"
WORTHWHILE_PRECISION = 1.15
"""Mixed precision must be at least so many times as fast to be taken."""

SHORT_SECONDS = 480.0
"""A shorter search does not pay for starting workers only to measure them."""

MOST_WORKERS = 16
WORKER_MEMORY_MB = 2500
"""Main memory of a worker at the most, at 180 × 180 on TensorFlow; see `footprint.py`."""
GPU_WORKER_MEMORY_MB = 4000


@dataclass(frozen=True, kw_only=True)
class Staffing:
    """The executor of a search, and why it is what it is.

    Attributes:
        executor: Ready to train.
        pace: What the documented configuration costs when all workers are busy: seconds of the
            whole machine for an epoch and for starting a trial.
        precision: Keras dtype policy to train with, "float32" or "mixed_bfloat16".
        reason: One sentence for the plan.
    """

    executor: Executor
    pace: Pace
    precision: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was asked for.

    Attributes:
        workers: Worker processes; 0 for this process, None to choose by measuring.
        precision: "float32", "mixed_bfloat16", or "auto" to choose by measuring.
        epochs: How many epochs the search trains, roughly: a short one is not measured for.
        trials: In how many trials, each of which takes time to start.
        pace: The pace, where an earlier process of the run measured it; measured again only
            where something is to be chosen.
    """

    workers: int | None = None
    precision: str = "float32"
    epochs: int = 10**9
    trials: int = 0
    pace: Pace | None = None

    def seconds(self, pace: Pace) -> float:
        """Return about how long the search takes."""
        return self.epochs * pace.epoch + self.trials * pace.trial

    def rate(self, pace: Pace) -> float:
        """Return the epochs a minute, what starting trials takes spread over them."""
        return 60 * self.epochs / self.seconds(pace)


def staff(
    setting: Setting,
    wishes: Wishes,
    *,
    documented: Values,
    seed: int,
    log_dir: Path,
    should_stop: ShouldStop,
    limits: PoolLimits,
    gpus: Sequence[Gpu] | None = None,
) -> Staffing:
    """Start the executor of a search and measure its pace.

    Args:
        setting: Data and HyperModel.
        wishes: Workers and precision, chosen here where they were left open.
        documented: The configuration to measure.
        seed: Any seed.
        log_dir: Where workers' logs go.
        should_stop: Asked while measuring and after each epoch.
        limits: When workers are replaced.
        gpus: The GPUs to use; those that the backend can use by default.

    Raises:
        WorkerError: No worker can be started.
        StopRequestedError: The user asked to stop.
    """
    found = usable_gpus() if gpus is None else tuple(gpus)

    def open_crew(count: int) -> Executor:
        return open_executor(
            setting,
            count,
            log_dir=log_dir,
            should_stop=should_stop,
            limits=limits,
            gpus=found,
        )

    def pace_of(executor: Executor, precision: str) -> Pace:
        return shared(executor.pace(documented, seed=seed, precision=precision), executor.workers)

    return choose(
        wishes,
        open_executor=open_crew,
        pace_of=pace_of,
        most=_most_workers(found),
        first=1 if found else 2,
        device=f"{len(found)} GPU(s)" if found else f"{usable_cores()} CPU cores",
    )


def open_executor(
    setting: Setting,
    workers: int,
    *,
    log_dir: Path,
    should_stop: ShouldStop,
    limits: PoolLimits,
    gpus: Sequence[Gpu] | None = None,
) -> Executor:
    """Start so many workers, or with 0 train in this process.

    Args:
        setting: Data and HyperModel.
        workers: How many.
        log_dir: Where workers' logs go.
        should_stop: Asked after each epoch.
        limits: When workers are replaced.
        gpus: The GPUs to use; those that the backend can use by default.

    Raises:
        WorkerError: No worker can be started.
    """
    if workers == 0:
        return InProcessExecutor(setting, should_stop=should_stop)
    return WorkerPool(
        setting,
        environments=worker_environments(workers, gpus=usable_gpus() if gpus is None else gpus),
        log_dir=log_dir,
        should_stop=should_stop,
        limits=limits,
    )


def choose(
    wishes: Wishes,
    *,
    open_executor: Callable[[int], Executor],
    pace_of: Callable[[Executor, str], Pace],
    most: int,
    first: int = 1,
    device: str,
) -> Staffing:
    """Measure what was left open, precision first, and keep one executor open.

    Args:
        wishes: What was asked for.
        open_executor: Starts so many workers; 0 for this process.
        pace_of: Measures an executor at a precision.
        most: As many workers fit this machine.
        first: Begin with so many workers, and stay with them where the search is short.
        device: The machine in words.
    """
    crew = _Crew(open_executor, pace_of)
    count = min(first, most) if wishes.workers is None else wishes.workers
    executor = crew.open(count)
    try:
        precision = "float32" if wishes.precision == "auto" else wishes.precision
        settled = wishes.workers is not None and wishes.precision != "auto"
        pace = wishes.pace if settled and wishes.pace else pace_of(executor, precision)
        short = wishes.seconds(pace) < SHORT_SECONDS
        reasons = []
        if wishes.precision == "auto" and not short:
            faster = pace_of(executor, MIXED)
            ratio = pace.epoch / faster.epoch
            reasons.append(f"{MIXED} was measured {ratio:.2f} times as fast as float32")
            if ratio >= WORTHWHILE_PRECISION:
                precision, pace = MIXED, faster
        elif wishes.precision == "auto":
            reasons.append(f"too few epochs to measure {MIXED} for")
        if wishes.workers is not None:
            why = f"{_named(wishes.workers)}, as asked"
        elif short:
            seconds = wishes.seconds(pace)
            why = (
                f"{_named(count)}: about {seconds:.0f} s of training are too short to measure more"
            )
        else:
            pace, rates = crew.compare(wishes, pace, precision=precision, most=most)
            why = f"{_named(crew.count)}: of the epochs a minute on {device}, {', '.join(rates)}"
    except BaseException:
        crew.close()
        raise
    reason = "; ".join([why, f"precision {precision}", *reasons])
    assert crew.executor is not None
    return Staffing(executor=crew.executor, pace=pace, precision=precision, reason=reason)


class _Crew:
    """One executor at a time, of any size: what is measured needs the machine for itself."""

    def __init__(
        self, open_executor: Callable[[int], Executor], pace_of: Callable[[Executor, str], Pace]
    ) -> None:
        self._open = open_executor
        self._pace_of = pace_of
        self.executor: Executor | None = None
        self.count = 0

    def open(self, count: int) -> Executor:
        """Start so many workers in place of those there are."""
        self.close()
        executor = self._open(count)
        self.executor, self.count = executor, count
        return executor

    def close(self) -> None:
        """Close what is open."""
        if self.executor is not None:
            self.executor.close()
        self.executor, self.count = None, 0

    def compare(
        self, wishes: Wishes, pace: Pace, *, precision: str, most: int
    ) -> tuple[Pace, list[str]]:
        """Double the workers while that pays; where it never did, see whether half are enough.

        Args:
            wishes: How long the search is.
            pace: Of the executor that is open.
            precision: To measure at.
            most: As many workers as there may be.

        Returns:
            The pace of the best number, whose executor is open, and what each number gave.

        Raises:
            WorkerError: Not even the number to begin with can be had again.
        """
        first = best = self.count
        rates = [f"{first} gave {wishes.rate(pace):.2f}"]
        while 2 * best <= most:
            try:
                other = self._pace_of(self.open(2 * best), precision)
            except WorkerError as error:
                rates.append(f"{2 * best} could not be had: {error}")
                break
            rates.append(f"{2 * best} gave {wishes.rate(other):.2f}")
            if wishes.rate(other) < WORTHWHILE * wishes.rate(pace):
                break
            pace, best = other, 2 * best
        if best == first > 1:
            other = self._pace_of(self.open(first // 2), precision)
            rates.append(f"{first // 2} gave {wishes.rate(other):.2f}")
            if wishes.rate(pace) < WORTHWHILE * wishes.rate(other):
                pace, best = other, first // 2
        if self.count != best:
            self.open(best)
        return pace, rates


def shared(pace: Pace, workers: int) -> Pace:
    """Return what an epoch and a start cost the whole machine when all workers are busy."""
    return Pace(epoch=pace.epoch / workers, trial=pace.trial / workers)


def usable_gpus() -> tuple[Gpu, ...]:
    """Return the machine's GPUs, none where the backend is made for the CPU alone."""
    return find_gpus() if backend.gpus() else ()


def _most_workers(gpus: Sequence[Gpu]) -> int:
    most = min(MOST_WORKERS, usable_cores())
    memory = available_memory_mb()
    if memory is not None:
        most = min(most, memory // WORKER_MEMORY_MB)
    if gpus:
        most = min(most, sum(gpu.memory_mb // GPU_WORKER_MEMORY_MB or 1 for gpu in gpus))
    return max(1, most)


def _named(count: int) -> str:
    if count == 0:
        return "this process"
    return "1 worker" if count == 1 else f"{count} workers"
