"""The search stage of a run: space, plan and loop, for one configuration and one HyperModel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras_tuner as kt

from search import backend
from search.config import (
    BUDGET_IN_TIME,
    ExecutorKind,
    Precision,
    RunConfig,
    SourceKind,
    TunerKind,
)
from search.data.prepare import with_validation_trained
from search.errors import ConfigurationError, RunDirectoryError
from search.journal import plans
from search.records import BestHyperparameters, Dataset, PlanRecord, Values
from search.run_directory import RunDirectory
from search.tuning import space as spaces
from search.tuning.devices import default_precision
from search.tuning.executors import Executor, Pace, measure_pace
from search.tuning.hypermodel import Factory, factory
from search.tuning.loop import Listener, SearchLoop
from search.tuning.model import Setting, release_memory
from search.tuning.oracle import ScheduleOracle
from search.tuning.planning import plan_search
from search.tuning.pool import PoolLimits, open_executor
from search.tuning.proposals import MAX_DRAWS, ConfigurationSource
from search.tuning.ray import open_on_ray
from search.tuning.resume import Begun, finished_brackets, refuse_other_search
from search.tuning.schedule import Schedule
from search.tuning.space import Belief, Prior
from search.tuning.trial import ShouldStop

MANY = 10**6
"""Trials, where their number is not known yet and is certainly no limit to that of workers."""


class Search:
    """The search of one run.

    Attributes:
        config: What was asked for.
        search_setting: Data and HyperModel of the trials; see `_settle_horizon`.
        defaults: Values of the HyperModel's defaults, the baseline.
        space: The search space, narrowed as asked.
        queue: Configurations that are tried first: the defaults, the prior's centre, what
            was enqueued.
        prior: What Hyperband's configurations are drawn around, None for uniform draws.
        precision: Keras dtype policy of the trials, "" until it is settled.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        *,
        hypermodel: Factory | None = None,
        known: Begun | None = None,
        after: Callable[[Pace, int], float] = lambda pace, workers: 0.0,
        since: float | None = None,
    ) -> None:
        """Declare the space; trains nothing yet.

        Args:
            config: What was asked for.
            dataset: Training and validation images.
            hypermodel: Gives the HyperModel; None for the one that `config` names.
            known: What earlier processes of the run settled.
            after: Gives the seconds that all that follows the search takes, by the baseline's pace
                and the number of workers.
            since: When the run began, as `time.monotonic` tells it; None for now.

        Raises:
            ConfigurationError: A hyperparameter to fix, vary or enqueue is not in the space.
        """
        self.config = config
        self._hypermodel = hypermodel or factory(config, dataset)
        if hypermodel is None and config.refit != config:
            # Checked now, not when the search has ended: a HyperModel must take both sizes.
            factory(config.refit, dataset)
        self.search_setting = Setting(
            dataset=dataset,
            hypermodel=self._hypermodel(config.max_epochs, len(dataset.train)),
            objective=config.objective,
            prevalence=config.prevalence or dataset.prevalence,
            max_parameters=config.max_parameters,
        )
        self._horizon = config.max_epochs
        declared = spaces.declared(self.search_setting.hypermodel)
        self.defaults: Values = spaces.defaults(declared)
        self.space = spaces.narrow(declared, fix=config.fix, vary=config.search)
        # Trial 0 is the baseline, whatever the space was narrowed to.
        self.queue = [self.defaults]
        self.prior = self._prior() if config.source is SourceKind.PRIOR else None
        if self.prior and config.tuner is TunerKind.HYPERBAND:
            centre = spaces.centre(self.space, self.prior)
            self.queue += [centre] if centre != self.defaults else []
        for values in config.enqueue:
            # It may lie outside of what --fix and --search leave.
            spaces.complete(declared, values, inside=True)
            self.queue.append(spaces.complete(self.space, values))
        self._measured = known.pace if known else None
        self._reserved = known.reserved if known else 0.0
        self._after = after
        self._since = time.monotonic() if since is None else since
        self._begun = known.brackets if known else ()
        self.precision = known.precision if known else ""
        self._executor: Executor | None = None
        self._sizes: dict[str, int] = {}
        self._settle_horizon()

    def _prior(self) -> Prior:
        """Return what is known of the space: an earlier run's best, or the HyperModel's belief.

        Raises:
            ConfigurationError: The earlier run has no best configuration, or one of another space.
        """
        if self.config.prior:
            return {name: Belief(value=v) for name, v in self._earlier_best().items()}
        known = getattr(self.search_setting.hypermodel, "prior", None)
        if known is None:
            return {name: Belief(value=value) for name, value in self.defaults.items()}
        return {name: Belief(value=v, spread=spread) for name, (v, spread) in known.items()}

    def _earlier_best(self) -> Values:
        option, file = f"--prior {self.config.prior}", "best_hyperparameters.json"
        run = RunDirectory(Path(self.config.prior))
        if not (run.root / file).exists():
            run = RunDirectory(Path(self.config.results_dir) / run.root)
        try:
            values = run.read(BestHyperparameters, file).values
        except RunDirectoryError as error:
            raise ConfigurationError(
                f"{option}: {error}; name a run whose search has ended"
            ) from None
        try:
            spaces.complete(self.space, values)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{option}: its best configuration is of another space: {error}"
            ) from None
        return values

    @property
    def pace(self) -> Pace:
        """Return the measured pace of the baseline."""
        if self._measured is None:
            found = measure_pace(self.search_setting, self.defaults, seed=self.config.seed)
            return self._settle_pace(found, workers=1)
        return self._measured

    def _settle_pace(self, pace: Pace, *, workers: int) -> Pace:
        """Keep a pace, and of a budget in time what is spent and what the rest will take."""
        self._measured = pace
        if BUDGET_IN_TIME.match(self.config.budget):
            self._reserved = time.monotonic() - self._since + self._after(pace, workers)
        return pace

    def _settle_horizon(self) -> bool:
        """Have cosine schedules span the epochs of the longest trials, as soon as these are known.

        A budget may leave room for fewer than `--max-epochs`; one in time says how many only when
        the pace is measured.

        Returns:
            Whether the search's setting changed.
        """
        if self._measured is None and BUDGET_IN_TIME.match(self.config.budget):
            return False
        images = len(self.search_setting.dataset.train)
        epochs, before = self.schedule.max_epochs, self._horizon
        self._horizon = epochs
        self.search_setting = replace(
            self.search_setting, hypermodel=self._hypermodel(epochs, images)
        )
        return epochs != before

    def refit_setting(self, *, epochs: int = 0, on_everything: bool = False) -> Setting:
        """Return what the retraining trains with.

        Args:
            epochs: Epochs that the learning-rate schedule spans; 0 is those of the retraining.
            on_everything: Train on the validation images as well, and validate on nothing.
        """
        dataset = self.search_setting.dataset
        if on_everything:
            dataset = with_validation_trained(dataset)
        return replace(
            self.search_setting,
            dataset=dataset,
            hypermodel=self._hypermodel(epochs or self.config.refit_epochs, len(dataset.train)),
            objective=self.config.choice,
            validated=not on_everything,
            # The limit is for candidates; baseline and winner are what they are.
            max_parameters=0,
        )

    def retraining_executor(
        self, directory: RunDirectory, should_stop: ShouldStop
    ) -> Callable[..., AbstractContextManager[Executor]]:
        """Return what starts workers for the retraining, as many as the search had.

        Args:
            directory: The run directory, whose journal says how many there were; workers' logs
                go there.
            should_stop: Asked after each epoch.

        Returns:
            Called with a setting and `trainings`, it holds an executor for so many trainings.
        """
        workers = self.config.workers
        if workers is None:
            workers = max((plan.workers or 1 for plan in plans(directory.events())), default=1)

        @contextmanager
        def start(setting: Setting, *, trainings: int) -> Iterator[Executor]:
            executor = self._open(
                setting,
                min(workers, trainings),
                directory,
                should_stop,
                # That a search gives up on a slow trial says nothing about the few retrained.
                trial_timeout=0.0,
            )
            with closing(executor):
                yield executor

        return start

    def _open(
        self,
        setting: Setting,
        workers: int | None,
        directory: RunDirectory,
        should_stop: ShouldStop,
        *,
        trials: int = MANY,
        trial_timeout: float | None = None,
    ) -> Executor:
        """Start workers where they were asked for; for none no cluster is asked."""
        config = self.config
        limits = PoolLimits(
            retries=config.retries,
            trial_timeout=config.trial_timeout if trial_timeout is None else trial_timeout,
            stall_timeout=config.stall_timeout,
        )
        start: Callable[..., Executor] = open_executor
        if config.executor is ExecutorKind.RAY and workers != 0:
            start = partial(
                open_on_ray,
                address=config.address,
                cpus=config.cpus_per_trial,
                gpus=config.gpus_per_trial,
            )
        return start(
            setting,
            workers,
            trials=trials,
            log_dir=directory.logs_dir,
            should_stop=should_stop,
            limits=limits,
        )

    @contextmanager
    def executor(self, directory: RunDirectory, should_stop: ShouldStop) -> Iterator[Executor]:
        """Hold what trials are trained by, for the plan's estimate and for the search.

        Args:
            directory: The run directory; workers' logs go there.
            should_stop: Asked while measuring and after each epoch.

        Raises:
            WorkerError: No worker can be started.
        """
        workers = 0 if self.finished(directory) else self.config.workers
        self.precision = self.precision or self._precision()
        executor = self._open(
            self.search_setting,
            workers,
            directory,
            should_stop,
            trials=self._expected_trials(),
        )
        try:
            if self._measured is None:
                pace = executor.pace(self.defaults, seed=self.config.seed, precision=self.precision)
                self._settle_pace(pace, workers=executor.workers)
            if self._settle_horizon():
                # The workers have the horizon from before the pace, which decides it, was known.
                executor.close()
                executor = self._open(
                    self.search_setting,
                    0 if workers == 0 else executor.workers,
                    directory,
                    should_stop,
                )
            self._executor = executor
            yield executor
        finally:
            self._executor = None
            executor.close()

    def _precision(self) -> str:
        """Return the precision of the trials, by a rule where none was asked for."""
        if self.config.precision is not Precision.AUTO:
            return self.config.precision.value
        on_ray = self.config.executor is ExecutorKind.RAY
        gpu = self.config.gpus_per_trial > 0 if on_ray else bool(backend.gpus())
        return default_precision(gpu=gpu, jax=backend.name() == "jax")

    def finished(self, directory: RunDirectory) -> bool:
        """Return whether an earlier process of the run finished this very search."""
        if self._measured is None:
            return False
        return finished_brackets(directory.events()) == self.schedule.brackets

    def _expected_trials(self) -> int:
        """Return how many trials there are; for a budget in time only once the pace is known."""
        if self._measured is None and BUDGET_IN_TIME.match(self.config.budget):
            return MANY
        return self.schedule.trials

    @property
    def schedule(self) -> Schedule:
        """Return the brackets of the search."""
        return self.plan()[0]

    def plan(self) -> tuple[Schedule, ConfigurationSource]:
        """Return the schedule and where its configurations come from."""
        return plan_search(
            self.config,
            space=self.space,
            queue=self.queue,
            prior=self.prior,
            accepts=self._fits,
            seconds_per_epoch=lambda: self.pace.epoch,
            seconds_per_trial=lambda: self.pace.trial,
            seconds_reserved=lambda: self._reserved,
            begun=self._begun,
        )

    def refuse_other(self, directory: RunDirectory) -> None:
        """Refuse to go on with the search of the journal where it is another one.

        Raises:
            RunDirectoryError: The schedule or a trial of it does not fit.
        """
        if self._measured is not None:
            schedule, source = self.plan()
            oracle = self._oracle(schedule, source, directory)
            refuse_other_search(directory, self.config, schedule, oracle)

    def _oracle(
        self, schedule: Schedule, source: ConfigurationSource, directory: RunDirectory
    ) -> ScheduleOracle:
        return ScheduleOracle(
            schedule=schedule,
            source=source,
            space=self.space,
            objective=self.config.objective,
            direction=self.config.direction,
            directory=directory.tuner_dir,
        )

    def plan_record(self, *, trainings: int) -> PlanRecord:
        """Return the schedule with its estimated time.

        Args:
            trainings: How many trainings the retraining takes, at most.
        """
        planned = self.schedule.plan(self.pace.epoch, self.pace.trial)
        epochs = self.config.refit_epochs * trainings
        after = self._after(self.pace, self._executor.workers if self._executor else 1)
        side = self.config.refit.image_size
        retraining = (
            f"then {trainings} trainings of {self.config.refit_epochs} epochs at {side} × {side}: "
            f"finalists racing over {self.config.refit_seeds} seed(s), and the baseline; with test "
            f"and report about {after / 60:.0f} min more"
        )
        planned = replace(
            planned,
            after_seconds=after,
            reserved_seconds=self._reserved,
            refit_epochs=epochs,
            refit_area=self.config.refit_area,
            trainings=trainings,
            notes=(*planned.notes, retraining),
        )
        if self._executor is None:
            return planned
        trained = f"trained by {self._executor.description}, precision {self.precision}"
        return replace(
            planned,
            workers=self._executor.workers,
            precision=self.precision,
            notes=(*planned.notes, trained),
        )

    def _fits(self, values: Values) -> bool:
        """Return whether a configuration's model is within `--max-parameters`.

        One that cannot be built is proposed: its trial says why.
        """
        limit = self.config.max_parameters
        if not limit:
            return True
        key = spaces.key(values)
        if key not in self._sizes:
            try:
                self._sizes[key] = parameters(self.search_setting.hypermodel, values)
            except Exception:  # of the HyperModel's own
                self._sizes[key] = 0
        return self._sizes[key] <= limit

    def limit_notes(self) -> list[str]:
        """Say where the baseline itself is over `--max-parameters`."""
        if self._fits(self.defaults):
            return []
        return [
            f"the baseline has {self._sizes[spaces.key(self.defaults)]:,} parameters, more than "
            f"--max-parameters {self.config.max_parameters:,}: as trial 0 it fails, so that it "
            "cannot win; it is retrained and evaluated all the same"
        ]

    def loop(self, directory: RunDirectory, executor: Executor, listener: Listener) -> SearchLoop:
        """Return what searches, from the first trial or from where the journal ends.

        Raises:
            ConfigurationError: Nothing that may be proposed fits `--max-parameters`.
        """
        schedule, source = self.plan()
        queued = len(self.queue)
        if schedule.configurations > queued and source.values(queued) is None:
            raise ConfigurationError(
                f"--max-parameters {self.config.max_parameters:,}: none of {MAX_DRAWS} "
                "configurations drawn has a model that small; raise the limit (0 is none), or "
                "lower --image-size"
            )
        return SearchLoop(
            oracle=self._oracle(schedule, source, directory),
            executor=executor,
            run=directory,
            seed=self.config.seed,
            listener=listener,
            precision=self.precision,
        )


def parameters(hypermodel: kt.HyperModel, values: Values) -> int:
    """Return the parameter count of a configuration's model."""
    hyperparameters = kt.HyperParameters()
    hyperparameters.values = dict(values)
    count = int(hypermodel.build(hyperparameters).count_params())
    release_memory()
    return count
