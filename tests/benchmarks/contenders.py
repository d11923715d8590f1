"""The searches that are compared, each run as its users run it, with our data and our metric.

All get the same space (declared by `DocumentedCNN`, two hyperparameters held), the same training
arrays and class weights, and the same objective: `robust_loss` as `search/tuning/validation.py`
computes it after re-estimating batch normalization's statistics. So what differs is the search:
which configurations it tries, how long it trains each, and how it continues them.

Ours starts with the documented configuration, as a run of `search.run` does; "ours-cold" does not,
because none of the others is told of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

from hypermodels import DocumentedCNN
from search.config import SplitKind
from search.data.prepare import default_cache_dir, prepare
from search.data.sources import find_source
from search.data.views import ViewSettings
from search.records import Dataset, FailureKind, Subset, TrialRecord, Values
from search.run_directory import RunDirectory
from search.tuning import space as spaces
from search.tuning.executors import InProcessExecutor
from search.tuning.feed import TrainingFeed
from search.tuning.loop import SearchLoop
from search.tuning.model import Setting
from search.tuning.normalization import reestimated
from search.tuning.oracle import ScheduleOracle
from search.tuning.proposals import UniformSource
from search.tuning.schedule import hyperband
from search.tuning.selection import winners
from search.tuning.validation import Validator

OBJECTIVE = "robust_loss"
HELD: Values = {"separable": True, "base_filters": 16}
"""What makes an epoch up to ten times dearer on a CPU, held at the documented values."""


@dataclass(kw_only=True)
class Task:
    """One search to run.

    Attributes:
        dataset: Training and validation images.
        max_epochs: R, the full budget of a configuration.
        factor: η.
        seed: Seed of the search.
        directory: Where the tool may write.
        hypermodel: What is searched.
        budget: Epochs after which a tool without a schedule starts no further trial.
        rows: Filled while it runs: (trial, epoch, robust_loss) of every finished epoch, in order.
    """

    dataset: Dataset
    max_epochs: int
    factor: int
    seed: int
    directory: Path
    hypermodel: DocumentedCNN
    budget: int = 0
    rows: list[tuple[str, int, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search ends with.

    Attributes:
        selected: Values of the configuration it recommends, None if it has none.
        score: Its own score of that configuration.
        failures: One line a trial that failed, or a search that crashed.
        records: The trials of ours, () for the others.
    """

    selected: Values | None
    score: float | None
    failures: tuple[str, ...] = ()
    records: tuple[TrialRecord, ...] = ()


def load_data(data: str, image_size: int) -> Dataset:
    """Return training and validation images as `search.run` prepares them."""
    cache = default_cache_dir()
    dataset, _ = prepare(
        find_source(data, cache_dir=cache, progress=lambda *_: None),
        split=SplitKind.PATIENT,
        val_fraction=0.2,
        image_size=image_size,
        seed=8,
        cache_dir=cache,
        views=ViewSettings(),
    )
    return dataset


def arrays(subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    """Return images `uint8` (n, S, S, 1) and labels `float32` (n, 1), as `Model.fit` takes them."""
    return subset.open_array()[subset.rows], subset.labels.astype(np.float32)[:, None]


def declared_space(hypermodel: DocumentedCNN, held: Values = HELD) -> kt.HyperParameters:
    """Return the space of every contender."""
    declared = kt.HyperParameters()
    hypermodel.declare(declared)
    return spaces.narrow(declared, fix=held, vary=())


class RobustLoss(keras.callbacks.Callback):
    """Adds our validation metrics to an epoch's logs, computed exactly as in our own trials."""

    def __init__(self, task: Task, batch_size: int) -> None:
        super().__init__()
        self.feed = TrainingFeed(
            task.dataset.train,
            class_weights=task.dataset.class_weights,
            batch_size=batch_size,
            seed=task.seed,
        )
        self.validator = Validator(task.dataset, prevalence=task.dataset.prevalence)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate; the callbacks after this one see the result."""
        assert logs is not None
        self.feed.epoch = epoch + 1
        with reestimated(self.model, self.feed):
            logs.update(self.validator.metrics(self.model))


class Scored(kt.HyperModel):
    """A hypermodel whose trainings log `robust_loss`: how users of the plain tools add a metric."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.trials = 0

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """Build the model of a configuration."""
        return self.task.hypermodel.build(hp)

    def fit(self, hp: kt.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Train it; the metric comes first, for the tuner's own callbacks to see it."""
        name, self.trials = f"{self.trials:03d}", self.trials + 1
        rows = self.task.rows

        def note(epoch: int, logs: dict[str, Any]) -> None:
            rows.append((name, epoch + 1, float(logs[OBJECTIVE])))

        kwargs["callbacks"] = [
            RobustLoss(self.task, hp.get("batch_size")),
            keras.callbacks.LambdaCallback(on_epoch_end=note),
            *kwargs.get("callbacks", ()),
        ]
        return self.task.hypermodel.fit(hp, model, *args, **kwargs)


def ours(task: Task, *, cold: bool = False) -> Outcome:
    """Our Hyperband, one trial after another in this process."""
    space = declared_space(task.hypermodel)
    documented = spaces.defaults(space)
    run = RunDirectory(task.directory)
    run.create()
    setting = Setting(
        dataset=task.dataset,
        hypermodel=task.hypermodel,
        objective=OBJECTIVE,
        prevalence=task.dataset.prevalence,
    )

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            task.rows.append((event["trial_id"], event["epoch"], event["metrics"][OBJECTIVE]))
        elif (event.get("failure") or {}).get("kind") == FailureKind.DIVERGED:
            # Trained, though without a number to show for it.
            task.rows.append((event["trial_id"], event["epochs"] + 1, float("nan")))

    loop = SearchLoop(
        oracle=ScheduleOracle(
            schedule=hyperband(max_epochs=task.max_epochs, factor=task.factor),
            source=UniformSource(space, queue=[] if cold else [documented], seed=task.seed),
            space=space,
            objective=OBJECTIVE,
            direction="min",
            directory=run.tuner_dir,
        ),
        executor=InProcessExecutor(setting, should_stop=lambda: False),
        run=run,
        seed=task.seed,
        listener=listen,
    )
    records = loop.search()
    best = winners(records, metric=OBJECTIVE, direction="min", top=1)[0]
    return Outcome(
        selected=best.values,
        score=best.score,
        failures=tuple(f"{r.trial_id}: {r.failure.message}" for r in records if r.failure),
        records=tuple(records),
    )


class _NoTensorBoard:
    """KerasTuner imports tensorboard in every trial, which TensorFlow 2.21 no longer brings."""

    def _configure_tensorboard_dir(self, callbacks: Any, trial: Any, execution: int = 0) -> None:
        pass


class PlainHyperband(_NoTensorBoard, kt.Hyperband):
    """`keras_tuner.Hyperband` that can be run at all."""


class PlainRandomSearch(_NoTensorBoard, kt.RandomSearch):
    """`keras_tuner.RandomSearch` that can be run at all."""


def plain_hyperband(task: Task, *, hypermodel: kt.HyperModel | None = None) -> Outcome:
    """`keras_tuner.Hyperband`; it runs its own schedule for R and η to the end."""
    keras.utils.set_random_seed(task.seed)
    tuner = PlainHyperband(
        hypermodel or Scored(task),
        objective=kt.Objective(OBJECTIVE, "min"),
        max_epochs=task.max_epochs,
        factor=task.factor,
        seed=task.seed,
        hyperparameters=declared_space(task.hypermodel),
        directory=task.directory,
        project_name="hyperband",
    )
    return _search(tuner, task)


def random_search(task: Task) -> Outcome:
    """`keras_tuner.RandomSearch`, every trial at the full budget."""
    keras.utils.set_random_seed(task.seed)
    tuner = PlainRandomSearch(
        Scored(task),
        objective=kt.Objective(OBJECTIVE, "min"),
        max_trials=-(-task.budget // task.max_epochs),
        seed=task.seed,
        hyperparameters=declared_space(task.hypermodel),
        directory=task.directory,
        project_name="random",
    )
    return _search(tuner, task, epochs=task.max_epochs)


def _search(tuner: Any, task: Task, **fit: Any) -> Outcome:
    x, y = arrays(task.dataset.train)
    failures = []
    try:
        tuner.search(x, y, class_weight=task.dataset.class_weights, verbose=0, **fit)
    except Exception as error:
        failures.append(f"the search ended with {type(error).__name__}: {str(error)[:300]}")
    trials = tuner.oracle.trials.values()
    failures += [
        f"{trial.trial_id}: {(trial.message or trial.status).strip().splitlines()[-1][:300]}"
        for trial in trials
        if trial.status in ("FAILED", "INVALID")
    ]
    best = tuner.oracle.get_best_trials(1)
    if not best or best[0].score is None:
        return Outcome(selected=None, score=None, failures=tuple(failures))
    values = best[0].hyperparameters.values
    return Outcome(
        selected=_cleaned(task, values), score=float(best[0].score), failures=tuple(failures)
    )


def _cleaned(task: Task, values: Values) -> Values:
    """Return the values of the space's active hyperparameters alone."""
    own = {name: value for name, value in values.items() if not name.startswith("tuner/")}
    return spaces.complete(declared_space(task.hypermodel), own)


def optuna_search(task: Task) -> Outcome:
    """Optuna: TPE with its Hyperband pruner, reported to after every epoch.

    A configuration's result is its last epoch's objective. It is not asked to prune a trial that
    has reached the full budget, which would take its best ones out of the ranking.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keras.utils.set_random_seed(task.seed)
    space = declared_space(task.hypermodel)
    scored = Scored(task)
    x, y = arrays(task.dataset.train)

    def objective(trial: Any) -> float:
        hp = kt.HyperParameters()
        hp.values = suggested(trial, space)
        keras.utils.clear_session()
        last = float("nan")

        def report(epoch: int, logs: dict[str, Any]) -> None:
            nonlocal last
            last = float(logs[OBJECTIVE])
            trial.report(last, step=epoch + 1)
            if epoch + 1 < task.max_epochs and trial.should_prune():
                raise optuna.TrialPruned

        scored.fit(
            hp,
            scored.build(hp),
            x,
            y,
            class_weight=task.dataset.class_weights,
            epochs=task.max_epochs,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
        )
        return last

    def stop_at_budget(study: Any, _trial: Any) -> None:
        if len(task.rows) >= task.budget:
            study.stop()

    study = optuna.create_study(
        # Which bracket a trial goes to is drawn from the study's name.
        study_name=f"seed {task.seed}",
        sampler=optuna.samplers.TPESampler(seed=task.seed),
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=task.max_epochs, reduction_factor=task.factor
        ),
    )
    study.optimize(objective, catch=(Exception,), callbacks=[stop_at_budget])
    states = optuna.trial.TrialState
    failures = tuple(
        f"{trial.number}: {trial.system_attrs.get('fail_reason', 'failed')}"
        for trial in study.trials
        if trial.state == states.FAIL
    )
    if not any(trial.state == states.COMPLETE for trial in study.trials):
        return Outcome(selected=None, score=None, failures=failures)
    values = suggested(optuna.trial.FixedTrial(study.best_params), space)
    return Outcome(selected=values, score=study.best_value, failures=failures)


def suggested(trial: Any, space: kt.HyperParameters) -> Values:
    """Ask an Optuna trial for the active hyperparameters of a KerasTuner space.

    Numbers to choose from are ordered, so they are asked for by their place in the list: a
    categorical would hide the order from the sampler.
    """
    walked = kt.HyperParameters()
    for hp in space.space:
        walked.merge([hp])
        if not walked.is_active(hp):
            continue
        values = list(hp.values)
        if isinstance(hp, kt.engine.hyperparameters.Float) and hp.step is None:
            value = trial.suggest_float(
                hp.name, hp.min_value, hp.max_value, log=hp.sampling == "log"
            )
        elif len(values) == 1:
            value = values[0]
        elif isinstance(values[0], bool | str):
            value = trial.suggest_categorical(hp.name, values)
        else:
            value = values[trial.suggest_int(f"{hp.name} (place)", 0, len(values) - 1)]
        walked.values[hp.name] = value
    return dict(walked.values)


CONTENDERS: dict[str, Callable[[Task], Outcome]] = {
    "ours": ours,
    "ours-cold": lambda task: ours(task, cold=True),
    "kt-hyperband": plain_hyperband,
    "kt-random": random_search,
    "optuna": optuna_search,
}
