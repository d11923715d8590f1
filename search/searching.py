"""The search stage of a run: space, plan and loop, for one configuration and one HyperModel.

Stands between `workflow.py`, which tells the story, and the room `tuning`, which does the work.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import keras_tuner as kt

from search.config import BUDGET_IN_TIME, ExecutorKind, RefitOn, RunConfig
from search.data.prepare import with_validation_trained
from search.journal import EventKind, RunDirectory
from search.records import Dataset, TrialRecord, Values
from search.reporting.console import Console
from search.retraining import Crew
from search.tuning import space as spaces
from search.tuning.building import Setting
from search.tuning.executors import Executor
from search.tuning.loop import SearchLoop
from search.tuning.oracles import ScheduleOracle
from search.tuning.planning import PlannedSearch, plan_search
from search.tuning.pooling import PoolLimits
from search.tuning.ray_cluster import RayWishes
from search.tuning.ray_executor import open_on_ray, staff_on_ray
from search.tuning.scaling import Staffing, Wishes, open_executor, staff
from search.tuning.timing import Pace, measure_pace
from search.tuning.trial import ShouldStop


class Searching:
    """The search of one run.

    Attributes:
        config: What was asked for.
        search_setting: Data and HyperModel of the trials.
        documented: Values of the documented configuration.
        space: The search space, narrowed as asked.
        queue: Configurations that are tried first.
        precision: Keras dtype policy of the trials, "" until it is settled.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        *,
        hypermodel: Callable[[int, int], kt.HyperModel],
        measured: Pace | None = None,
        precision: str = "",
    ) -> None:
        """Declare the space; trains nothing yet.

        Args:
            config: What was asked for.
            dataset: Training and validation images.
            hypermodel: Gives the HyperModel whose learning-rate schedule spans some epochs of some
                training images.
            measured: The pace, where an earlier process of the run measured it.
            precision: The precision, where an earlier process of the run settled it.

        Raises:
            ConfigurationError: A hyperparameter to fix, vary or enqueue is not in the space.
        """
        self.config = config
        self.search_setting = Setting(
            dataset=dataset,
            hypermodel=hypermodel(config.max_epochs, len(dataset.train)),
            objective=config.objective,
            prevalence=config.prevalence or dataset.prevalence,
        )
        self._hypermodel = hypermodel
        declared = kt.HyperParameters()
        self.search_setting.hypermodel.declare(declared)
        self.documented: Values = spaces.defaults(declared)
        self.space = spaces.narrow(declared, fix=config.fix, vary=config.search)
        # Trial 0 is the documented configuration, whatever the space was narrowed to.
        self.queue = [self.documented]
        self.queue += [spaces.complete(declared, values) for values in config.enqueue]
        # A resumed run plans with the time that was measured at first: a budget in hours must
        # give the same schedule again.
        self._measured = measured
        self.precision = precision
        self._staffing: Staffing | None = None

    @property
    def pace(self) -> Pace:
        """Return the measured pace of the documented configuration."""
        if self._measured is None:
            self._measured = measure_pace(
                self.search_setting, self.documented, seed=self.config.seed
            )
        return self._measured

    def refit_setting(self, *, epochs: int = 0, on_everything: bool = False) -> Setting:
        """Return what the retraining trains with.

        Args:
            epochs: Epochs that the learning-rate schedule spans; 0 is those of the retraining.
            on_everything: Train on the validation images as well, and validate on nothing.
        """
        dataset = self.search_setting.dataset
        if on_everything:
            dataset = with_validation_trained(dataset)
        return dataclasses.replace(
            self.search_setting,
            dataset=dataset,
            hypermodel=self._hypermodel(epochs or self.config.refit_epochs, len(dataset.train)),
            objective=self.config.choice,
            validated=not on_everything,
        )

    def crew(self, directory: RunDirectory, should_stop: ShouldStop) -> Crew:
        """Return what hires workers for the retraining, as many as the search had.

        Args:
            directory: The run directory, whose journal says how many there were; workers' logs
                go there.
            should_stop: Asked after each epoch.
        """
        workers = self.config.workers
        if workers is None:
            plans = [e for e in directory.events() if e["event"] == EventKind.PLAN]
            workers = max((int(plan.get("workers") or 1) for plan in plans), default=1)

        # That a search gives up on a slow trial says nothing about the few that are retrained.
        limits = dataclasses.replace(self._limits, trial_timeout=0.0)

        @contextmanager
        def hire(setting: Setting, *, trainings: int) -> Iterator[Executor]:
            executor: Executor
            # Where nothing is left to train, no cluster is bothered.
            if self.config.executor is ExecutorKind.RAY and trainings:
                executor = open_on_ray(
                    setting,
                    self._ray_wishes,
                    min(workers, trainings),
                    log_dir=directory.logs_dir,
                    should_stop=should_stop,
                    limits=limits,
                )
            else:
                executor = open_executor(
                    setting,
                    min(workers, trainings),
                    log_dir=directory.logs_dir,
                    should_stop=should_stop,
                    limits=limits,
                )
            with closing(executor):
                yield executor

        return hire

    @property
    def _ray_wishes(self) -> RayWishes:
        return RayWishes(
            address=self.config.address,
            cpus=self.config.cpus_per_trial,
            gpus=self.config.gpus_per_trial,
        )

    @property
    def _limits(self) -> PoolLimits:
        return PoolLimits(
            retries=self.config.retries,
            trial_timeout=self.config.trial_timeout,
            stall_timeout=self.config.stall_timeout,
        )

    @contextmanager
    def executor(self, directory: RunDirectory, should_stop: ShouldStop) -> Iterator[Staffing]:
        """Hold what trials are trained by, for the plan's estimate and for the search.

        Args:
            directory: The run directory; workers' logs go there.
            should_stop: Asked while measuring and after each epoch.

        Raises:
            WorkerError: No worker can be started.
        """
        finished = self._finished(directory)
        epochs, trials = self._expected()
        wishes = Wishes(
            workers=0 if finished else self.config.workers,
            precision=self.precision or self.config.precision.value,
            epochs=epochs,
            trials=trials,
            pace=self._measured,
        )
        on_ray = self.config.executor is ExecutorKind.RAY and not finished
        staffing = (partial(staff_on_ray, ray_wishes=self._ray_wishes) if on_ray else staff)(
            self.search_setting,
            wishes,
            documented=self.documented,
            seed=self.config.seed,
            log_dir=directory.logs_dir,
            should_stop=should_stop,
            limits=self._limits,
        )
        self._staffing = staffing
        self.precision = staffing.precision
        if self._measured is None:
            self._measured = staffing.pace
        try:
            yield staffing
        finally:
            self._staffing = None
            staffing.executor.close()

    def _finished(self, directory: RunDirectory) -> bool:
        """Return whether an earlier process of the run finished this very search."""
        if self._measured is None:
            return False
        ended = sum(event["event"] == EventKind.TRIAL_ENDED for event in directory.events())
        return ended >= self.plan().schedule.trials

    def _expected(self) -> tuple[int, int]:
        """Return about how many epochs the search trains, in how many trials."""
        if not BUDGET_IN_TIME.match(self.config.budget):
            planned = self.plan().schedule
            return planned.epochs, planned.trials
        # Whatever the pace, nobody gives a budget to a search of seconds.
        planned = self._planned(dataclasses.replace(self.config, budget="")).schedule
        epochs = 10**9
        return epochs, round(epochs * planned.trials / planned.epochs)

    def plan(self) -> PlannedSearch:
        """Return the schedule and where its configurations come from."""
        return self._planned(self.config)

    def _planned(self, config: RunConfig) -> PlannedSearch:
        return plan_search(
            config,
            space=self.space,
            queue=self.queue,
            seconds_per_epoch=lambda: self.pace.epoch,
            seconds_per_trial=lambda: self.pace.trial,
        )

    def show_plan(self, console: Console, directory: RunDirectory | None = None) -> None:
        """Print the schedule with its estimated time, and journal it."""
        planned = self.plan().schedule.plan(self.pace.epoch, self.pace.trial)
        twice = self.config.refit_on is RefitOn.TRAIN_AND_VALIDATION
        rounds = 1 + self.config.top + twice
        refit_epochs = self.config.refit_epochs * self.config.refit_seeds * rounds
        planned["notes"] = [
            *planned["notes"],
            f"then {self.config.top} + the documented configuration × {self.config.refit_seeds} "
            f"seed(s) × {self.config.refit_epochs} epochs of retraining"
            f"{', the winner once more on train + val' if twice else ''}: about "
            f"{self.pace.epoch * refit_epochs / 60:.0f} min more",
        ]
        planned["refit_epochs"] = refit_epochs
        if self._staffing is not None:
            planned["workers"] = self._staffing.executor.workers
            planned["precision"] = self.precision
            planned["notes"].append(f"trained by {self._staffing.reason}")
        console.show_plan(planned)
        if directory is not None:
            directory.append(EventKind.PLAN, **planned)
            console.listen({"event": EventKind.PLAN.value, "time": time.time(), **planned})

    def search(
        self, directory: RunDirectory, console: Console, executor: Executor
    ) -> list[TrialRecord]:
        """Search, from the first trial or from where the journal ends."""
        planned = self.plan()
        console.replay(directory.events())
        loop = SearchLoop(
            oracle=ScheduleOracle(
                schedule=planned.schedule,
                source=planned.source,
                space=self.space,
                objective=self.config.objective,
                direction=self.config.direction,
                directory=directory.tuner_dir,
            ),
            executor=executor,
            run=directory,
            seed=self.config.seed,
            listener=console.listen,
            precision=self.precision,
        )
        return loop.search()
