"""The story of a run, top to bottom: data, plan, search, retraining, scoring, report.

The only module that knows both the rooms and the HyperModel. Each stage writes what it found to the
run directory before the next begins, so a run that was killed continues where it was; the manifest
comes last.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search import backend
from search.config import RunConfig, differences
from search.data.prepare import SealedTest, default_cache_dir, prepare
from search.data.sources import Source
from search.data.stress import ViewSettings
from search.errors import DataError, RunDirectoryError, StopRequestedError
from search.history import Event, trial_records
from search.journal import EventKind, RunDirectory, write_text
from search.records import (
    SYNTHETIC_NOTICE,
    Candidate,
    Dataset,
    EpochRecord,
    Predictions,
    Split,
    Threshold,
    TrialRecord,
    TrialResult,
    TrialSpec,
    Values,
    to_json,
)
from search.reporting.console import Console
from search.reporting.trials import history_csv, refit_histories, refit_rows, trials_csv

ShouldStop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run and how it is to be started.

    Attributes:
        config: What was asked for.
        source: Where the images are.
        resume: Continue the run of that name.
        overwrite: Replace the run of that name.
        plan_only: Say what would be done, and stop.
    """

    config: RunConfig
    source: Source
    resume: bool = False
    overwrite: bool = False
    plan_only: bool = False

    @property
    def cache_dir(self) -> Path:
        """Return where decoded images are kept."""
        return Path(self.config.cache_dir) if self.config.cache_dir else default_cache_dir()


def run(job: Job, console: Console, *, should_stop: ShouldStop) -> None:
    """Do the whole job.

    Args:
        job: What to do.
        console: Where a person watches.
        should_stop: Asked after every epoch.

    Raises:
        SearchError: With a message for the user; what is finished is kept.
    """
    if job.source.synthetic:
        console.notice(SYNTHETIC_NOTICE)
    if job.plan_only:
        with console.stage("Data"):
            dataset, _ = _prepare(job, console)
            console.show_data(dataset.report)
        _Tuning(job.config, dataset).show_plan(console)
        return
    directory = RunDirectory(Path(job.config.results_dir) / job.config.name)
    _claim(directory, job)
    with directory.lock():
        _run_locked(job, directory, console, should_stop)


def _claim(directory: RunDirectory, job: Job) -> None:
    """Make the run directory, or refuse the one that is there.

    Raises:
        RunDirectoryError: A run is there and neither --resume nor --overwrite was given, there is
            none to resume, or its options would change the search.
    """
    if directory.exists and not (job.resume or job.overwrite):
        raise RunDirectoryError(
            f"{directory.root}: there is a run of this name; continue it with --resume, replace "
            "it with --overwrite, or give another --name"
        )
    if job.resume and not directory.exists:
        raise RunDirectoryError(
            f"{directory.root}: there is no run to resume; check --name and --results-dir"
        )
    if job.resume and (directory.root / "config.json").exists():
        changed = differences(directory.read_json("config.json"), to_json(job.config))
        if changed:
            lines = "; ".join(f"{name}: {old!r} → {new!r}" for name, old, new in changed)
            raise RunDirectoryError(
                f"{directory.root}: these options would change the search: {lines}. Resume with "
                "the old ones, or give another --name"
            )
    directory.create()


def _run_locked(
    job: Job, directory: RunDirectory, console: Console, should_stop: ShouldStop
) -> None:
    if job.overwrite:
        directory.clear()
    # Taken apart, a half-updated run must not look complete.
    (directory.root / "manifest.json").unlink(missing_ok=True)
    directory.write_json("config.json", job.config)
    clock = _Clock(directory, console)
    try:
        with clock.stage("data", "Data"):
            dataset, sealed = _prepare(job, console)
            directory.write_json("dataset.json", dataset.report)
            console.show_data(dataset.report)
        directory.append(
            EventKind.RUN_STARTED,
            pid=os.getpid(),
            host=socket.gethostname(),
            resumed=job.resume,
            versions=backend.versions(),
            device=backend.device(),
        )
        tuning = _Tuning(job.config, dataset, seconds_per_epoch=_measured_before(directory))
        with clock.stage("plan", "Plan"):
            tuning.show_plan(console, directory)
        with clock.stage("search", "Search"):
            records = tuning.search(directory, console, should_stop)
            console.show_trials(
                records, objective=job.config.objective, direction=job.config.direction
            )
        verdict = _Verdict(job.config, dataset, tuning, directory, console)
        with clock.stage("retrain", "Retrain with class weights"):
            verdict.retrain(records, should_stop)
        with clock.stage("score", "Threshold, test, export"):
            verdict.score(sealed)
        with clock.stage("report", "Report"):
            _report(job, directory, dataset, verdict, clock)
        console.show_verdict(verdict.evaluation)
        console.info(f"Report: {directory.root / 'report.html'}")
        console.info(f"Model:  {directory.root / 'model.keras'}")
    except (StopRequestedError, KeyboardInterrupt) as error:
        directory.append(EventKind.STOPPED, reason=str(error) or type(error).__name__)
        raise StopRequestedError(
            f"stopped; every finished epoch is kept in {directory.root}. Go on with --resume "
            f"--name {directory.name}"
        ) from None


def _measured_before(directory: RunDirectory) -> float | None:
    """Return the time of an epoch that an earlier process of this run measured."""
    plans = (event for event in directory.events() if event["event"] == EventKind.PLAN)
    first = next(plans, None)
    return None if first is None else first["seconds_per_epoch"]


def _prepare(job: Job, console: Console) -> tuple[Dataset, SealedTest]:
    return prepare(
        job.source,
        split=job.config.split,
        val_fraction=job.config.val_fraction,
        image_size=job.config.image_size,
        seed=job.config.seed,
        cache_dir=job.cache_dir,
        views=ViewSettings(views_per_image=job.config.views_per_image),
        progress=console.progress,
    )


class _Clock:
    """Times the stages of a run, on the screen and in the journal."""

    def __init__(self, directory: RunDirectory, console: Console) -> None:
        self.directory = directory
        self.console = console

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Announce a stage and journal its seconds when it ends well."""
        begin = time.perf_counter()
        with self.console.stage(title):
            yield
        self.directory.append(EventKind.STAGE, name=name, seconds=time.perf_counter() - begin)

    def seconds(self) -> dict[str, float]:
        """Return the wall time of every stage, all processes of a resumed run together."""
        found: dict[str, float] = {}
        for event in self.directory.events():
            if event["event"] == EventKind.STAGE:
                found[event["name"]] = found.get(event["name"], 0.0) + event["seconds"]
        return found


class _Tuning:
    """The search: space, schedule, oracle and loop, for one configuration of a run."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, *, seconds_per_epoch: float | None = None
    ) -> None:
        backend.load()
        import keras_tuner as kt

        from search.tuning import space as spaces
        from search.tuning.trial import Setting

        self.config = config
        self.dataset = dataset
        self.prevalence = config.prevalence or dataset.prevalence
        self.search_setting = Setting(
            dataset=dataset,
            hypermodel=self.hypermodel(config.max_epochs),
            objective=config.objective,
            prevalence=self.prevalence,
        )
        self.refit_setting = dataclasses.replace(
            self.search_setting, hypermodel=self.hypermodel(config.refit_epochs)
        )
        declared = kt.HyperParameters()
        self.search_setting.hypermodel.declare(declared)
        self.documented: Values = spaces.defaults(declared)
        self.space = spaces.narrow(declared, fix=config.fix, vary=config.search)
        # Trial 0 is the documented configuration, whatever the space was narrowed to.
        self.queue = [self.documented]
        self.queue += [spaces.complete(declared, values) for values in config.enqueue]
        # A resumed run plans with the time that was measured at first: a budget in hours must
        # give the same schedule again.
        self._seconds = seconds_per_epoch

    def hypermodel(self, epochs: int) -> Any:
        """Return the HyperModel whose learning-rate schedule spans some epochs."""
        from hypermodels import DocumentedCNN

        return DocumentedCNN(
            image_size=self.config.image_size,
            channels=self.config.channels,
            train_size=len(self.dataset.train),
            epochs=epochs,
            max_parameters=self.config.max_parameters or None,
        )

    @property
    def seconds_per_epoch(self) -> float:
        """Return the measured time of an epoch of the documented configuration."""
        if self._seconds is None:
            from search.tuning.timing import seconds_per_epoch

            self._seconds = seconds_per_epoch(
                self.search_setting, self.documented, seed=self.config.seed
            )
        return self._seconds

    def schedule(self) -> Any:
        """Return the schedule: Hyperband's, or every trial to the full budget."""
        from search.tuning import planning

        return planning.plan_search(
            self.config,
            space=self.space,
            queue=self.queue,
            seconds_per_epoch=lambda: self.seconds_per_epoch,
        )

    def show_plan(self, console: Console, directory: RunDirectory | None = None) -> None:
        """Print the schedule with its estimated time, and journal it."""
        planned = self.schedule().schedule.plan(self.seconds_per_epoch)
        refit_epochs = self.config.refit_epochs * self.config.refit_seeds * (1 + self.config.top)
        planned["notes"] = [
            *planned["notes"],
            f"then {self.config.top} + the documented configuration × {self.config.refit_seeds} "
            f"seed(s) × {self.config.refit_epochs} epochs of retraining: about "
            f"{self.seconds_per_epoch * refit_epochs / 60:.0f} min more",
        ]
        console.show_plan(planned)
        if directory is not None:
            directory.append(EventKind.PLAN, **planned)
            console.listen({"event": EventKind.PLAN.value, "time": time.time(), **planned})

    def search(
        self, directory: RunDirectory, console: Console, should_stop: ShouldStop
    ) -> list[TrialRecord]:
        """Search, from the first trial or from where the journal ends."""
        from search.tuning.executors import InProcessExecutor
        from search.tuning.loop import SearchLoop
        from search.tuning.oracles import ScheduleOracle

        planned = self.schedule()
        loop = SearchLoop(
            oracle=ScheduleOracle(
                schedule=planned.schedule,
                source=planned.source,
                space=self.space,
                objective=self.config.objective,
                direction=self.config.direction,
                directory=directory.tuner_dir,
            ),
            executor=InProcessExecutor(self.search_setting, should_stop=should_stop),
            run=directory,
            seed=self.config.seed,
            listener=console.listen,
        )
        return loop.search()


class _Verdict:
    """Retraining, threshold, the one look at the test set, and the exported model."""

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        tuning: _Tuning,
        directory: RunDirectory,
        console: Console,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.tuning = tuning
        self.directory = directory
        self.console = console
        self.evaluation: dict[str, Any] = {}
        self.candidates: list[Candidate] = []
        self.predictions: dict[str, Predictions] = {}

    def retrain(self, records: list[TrialRecord], should_stop: ShouldStop) -> None:
        """Retrain the finalists and the documented configuration; choose on validation."""
        from search.scoring import refit
        from search.tuning.selection import winners

        direction = self.config.direction
        finalists = winners(records, direction=direction, top=self.config.top)
        self._write_best(finalists[0])
        names = [refit.WINNER] if len(finalists) == 1 else [f"finalist_{n + 1}" for n in range(99)]
        roles = [(refit.DOCUMENTED, self.tuning.documented)]
        roles += [(name, record.values) for name, record in zip(names, finalists, strict=False)]
        plan = refit.RefitPlan(
            epochs=self.config.refit_epochs,
            seeds=self.config.refit_seeds,
            seed=self.config.seed,
            objective=self.config.objective,
            direction=direction,
            directory=self.directory.refit_dir,
        )
        candidates = refit.refit(roles, plan, train=lambda spec: self._train(spec, should_stop))
        challengers = [c for c in candidates if c.role != refit.DOCUMENTED]
        best = refit.choose(challengers, direction=direction)
        self.candidates = [
            dataclasses.replace(c, role=refit.WINNER if c.role == best else c.role)
            for c in candidates
            if c.role in (refit.DOCUMENTED, best)
        ]
        self._write_best(finalists[[name for name, _ in roles[1:]].index(best)])

    def _write_best(self, record: TrialRecord) -> None:
        self.directory.write_json(
            "best_hyperparameters.json", {"trial_id": record.trial_id, "values": record.values}
        )

    def _train(self, spec: TrialSpec, should_stop: ShouldStop) -> TrialResult:
        from search.tuning.trial import train_trial

        role, _, repetition = spec.trial_id.rpartition("-")
        seed = int(repetition)
        known = {
            row["epoch"]
            for row in refit_rows(self.directory.events())
            if (row["role"], row["seed"]) == (role, seed)
        }
        self._tell(
            EventKind.REFIT_STARTED, role=role, seed=seed, epochs=spec.epochs, values=spec.values
        )

        def on_epoch(record: EpochRecord) -> None:
            if record.epoch not in known:
                self._tell(
                    EventKind.REFIT_EPOCH,
                    role=role,
                    seed=seed,
                    epoch=record.epoch,
                    metrics=record.metrics,
                    seconds=record.seconds,
                )

        result = train_trial(
            spec, self.tuning.refit_setting, on_epoch=on_epoch, should_stop=should_stop
        )
        self._tell(
            EventKind.REFIT_ENDED,
            role=role,
            seed=seed,
            kept_epoch=result.best_epoch,
            epochs=len(result.epochs),
            parameters=result.parameters,
            seconds=result.seconds,
            failure=result.failure,
        )
        return result

    def _tell(self, kind: EventKind, **fields: Any) -> None:
        self.directory.append(kind, **fields)
        event: Event = {"event": kind.value, "time": time.time(), **to_json(fields)}
        self.console.listen(event)

    def score(self, sealed: SealedTest) -> None:
        """Fix thresholds on stressed validation, score the test once, export the winner."""
        from search.scoring import refit
        from search.scoring.comparison import evaluation_report
        from search.scoring.evaluate import predict_subset, write_predictions_csv
        from search.scoring.export import export_model

        models = [self._model(candidate) for candidate in self.candidates]
        thresholds = [self._threshold(model) for model in models]
        validation = [predict_subset(m, self.dataset.val, Split.VALIDATION) for m in models]
        test = self._open(sealed)
        tested = [predict_subset(m, test, Split.TEST) for m in models] if test else []
        sides = {
            role: self._side(role, thresholds, validation, tested)
            for role in (refit.WINNER, refit.DOCUMENTED)
        }
        self.evaluation = to_json(
            evaluation_report(
                sides[refit.WINNER],
                sides[refit.DOCUMENTED],
                objective=self.config.objective,
                synthetic=self.dataset.synthetic,
                test_scorings=len(tested),
                bootstrap_seed=self.config.seed,
            )
        )
        if tested:
            scorings = [
                {
                    "role": evaluation.role,
                    "seed": evaluation.seed,
                    "accuracy": evaluation.at_half["accuracy"].value,
                    "auc": evaluation.ranking["auc"].value,
                }
                for side in sides.values()
                for evaluation in side.test
            ]
            self.directory.append(EventKind.TEST_SCORED, scorings=scorings)
        self.directory.write_json("evaluation.json", self.evaluation)
        best = self.candidates.index(
            refit.best_of(self.candidates, refit.WINNER, direction=self.config.direction)
        )
        self.predictions = {role: side.predictions for role, side in sides.items()}
        write_predictions_csv(
            self.directory.root / "predictions.csv",
            [validation[best], *([tested[best]] if tested else [])],
        )
        export_model(
            models[best],
            self.directory.root / "model.keras",
            image_size=self.config.image_size,
            threshold=thresholds[best],
            metadata={
                "run": self.directory.name,
                "notice": SYNTHETIC_NOTICE if self.dataset.synthetic else None,
                "versions": backend.versions(),
                "values": self.candidates[best].values,
                "fingerprint": self.dataset.fingerprint,
            },
        )

    def _side(
        self,
        role: str,
        thresholds: list[Threshold],
        validation: list[Predictions],
        tested: list[Predictions],
    ) -> Any:
        """Score every seed of a role on validation and, if there is one, on test."""
        from search.scoring import refit
        from search.scoring.comparison import Scored
        from search.scoring.evaluate import evaluate

        best = refit.best_of(self.candidates, role, direction=self.config.direction)
        mine = [index for index, c in enumerate(self.candidates) if c.role == role]

        def scored(predictions: list[Predictions]) -> tuple[Any, ...]:
            return tuple(
                evaluate(
                    predictions[index],
                    thresholds[index],
                    role=role,
                    seed=self.candidates[index].seed,
                    bootstrap_seed=self.config.seed,
                )
                for index in mine
                if predictions
            )

        return Scored(
            role=role,
            values=best.values,
            parameters=best.result.parameters,
            exported_seed=best.seed,
            test=scored(tested),
            validation=scored(validation),
            predictions=(tested or validation)[self.candidates.index(best)],
        )

    def _model(self, candidate: Candidate) -> Any:
        from search.tuning.checkpoint import load
        from search.tuning.trial import build_model

        model = build_model(self.tuning.refit_setting, candidate.values, self.config.seed)
        load(model, candidate.weights_file)
        return model

    def _threshold(self, model: Any) -> Threshold:
        import numpy as np

        from search.scoring.threshold import choose_threshold
        from search.tuning.validation import predict

        views = self.dataset.views
        return choose_threshold(
            views.labels,
            predict(model, views.open_array(), np.arange(len(views))),
            self.config.threshold_rule,
            chosen_on=f"stressed validation (n = {len(views)})",
        )

    def _open(self, sealed: SealedTest) -> Any:
        try:
            return sealed.open()
        except DataError as error:
            self.console.warn(f"{error}. The model is scored on validation only")
            return None


def _report(
    job: Job, directory: RunDirectory, dataset: Dataset, verdict: _Verdict, clock: _Clock
) -> None:
    """Write tables, plots and reports from the journal and the evaluation; the manifest last."""
    from search.reporting.documents import write_reports
    from search.reporting.plots import draw_all

    events = directory.events()
    records = trial_records(events)
    rows = refit_rows(events)
    write_text(directory.root / "trials.csv", trials_csv(records))
    write_text(directory.root / "history.csv", history_csv(rows))
    plots = draw_all(
        directory.root,
        records=records,
        refit_histories=refit_histories(rows),
        predictions={
            role: (said.labels, said.probabilities) for role, said in verdict.predictions.items()
        },
        evaluation=verdict.evaluation,
        objective=job.config.objective,
        synthetic=dataset.synthetic,
    )
    plan = next(event for event in reversed(events) if event["event"] == EventKind.PLAN)
    about = {
        "name": directory.name,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "synthetic": dataset.synthetic,
        "notice": SYNTHETIC_NOTICE if dataset.synthetic else None,
        "versions": backend.versions(),
        "device": backend.device(),
        "host": socket.gethostname(),
        "seed": job.config.seed,
        "seconds": clock.seconds(),
        "fingerprint": dataset.fingerprint,
    }
    write_reports(
        directory.root,
        config=to_json(job.config),
        dataset=dataset.report,
        plan=plan,
        records=records,
        evaluation=verdict.evaluation,
        plots=plots,
        manifest_like=about,
    )
    directory.write_manifest(about)
