"""The story of a run, top to bottom: data, plan, search, retraining, scoring, report.

Each stage writes what it found to the run directory
before the next begins, so a run that was killed continues where it was; the manifest comes last.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from search import backend
from search.config import RunConfig
from search.data.listing import labelling
from search.data.prepare import SealedTest, default_cache_dir, prepare_run
from search.data.sources import Source
from search.data.views import view_settings
from search.errors import ConfigurationError, DataError, StopRequestedError
from search.journal import Event, EventKind, trial_records
from search.records import SYNTHETIC_NOTICE, Dataset, Manifest, to_json
from search.reporting import documents
from search.reporting.console import Console
from search.reporting.tensorboard import TensorBoardLog
from search.reporting.tracking import tracking
from search.run_directory import RunDirectory, new_run
from search.scoring import gradcam
from search.scoring.retrain import retrain, trainings
from search.scoring.verdict import decide
from search.tuning.executors import Pace
from search.tuning.hypermodel import factory
from search.tuning.resume import Begun, begun, check_same_backend, check_same_data, claim
from search.tuning.search import Search
from search.tuning.space import ranges

ShouldStop = Callable[[], bool]

REPORT_SECONDS = 60.0
"""Allowed for intervals, exports, figures and the report when a budget is divided."""


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


def run(job: Job, console: Console, *, should_stop: ShouldStop) -> RunDirectory | None:
    """Do the whole job.

    Args:
        job: What to do.
        console: Where a person watches.
        should_stop: Asked after every epoch.

    Returns:
        The finished run; None if there is only a plan.

    Raises:
        SearchError: With a message for the user; what is finished is kept.
    """
    if job.source.synthetic:
        console.notice(SYNTHETIC_NOTICE)
    if job.plan_only:
        since = time.monotonic()
        with console.stage("Data"):
            dataset, _ = prepare_data(job, console)
            console.show_data(dataset.report)
        show_plan(make_search(job.config, dataset, since=since), console)
        return None
    # What is wrong with the options is told before anything is written.
    view_settings(job.config)
    labelling(job.config)
    results = Path(job.config.results_dir)
    directory = RunDirectory(results / job.config.name) if job.config.name else new_run(results)
    named = dataclasses.replace(job.config, name=directory.name)
    job = dataclasses.replace(job, config=named)
    resumed = claim(directory, job.config, resume=job.resume, overwrite=job.overwrite)
    if job.resume and not resumed:
        console.info(f"{directory.root}: the run had not begun; it starts afresh")
    with directory.lock():
        try:
            with tracking(job.config, directory, console):
                _run_locked(job, directory, console, should_stop, resumed=resumed)
        except (ConfigurationError, DataError):
            # Nothing was trained: the name is free for the corrected command.
            if not trial_records(directory.events()):
                directory.clear()
            raise
    return directory


def _run_locked(
    job: Job,
    directory: RunDirectory,
    console: Console,
    should_stop: ShouldStop,
    *,
    resumed: bool,
) -> None:
    if resumed:
        check_same_backend(directory, backend.name())
    else:
        directory.clear()
        directory.write_json("config.json", job.config)
    clock, since = _Clock(directory, console), time.monotonic()
    try:
        with clock.stage("data", "Data"):
            dataset, sealed = prepare_data(job, console)
            check_same_data(directory, dataset)
            known = begun(directory.events())
            search = make_search(job.config, dataset, known=known, since=since)
            search.refuse_other(directory)
            # Taken apart, a half-updated run must not look complete.
            (directory.root / "manifest.json").unlink(missing_ok=True)
            directory.write_json("config.json", job.config)
            directory.write_json("dataset.json", dataset.report)
            console.show_data(dataset.report)
        with ExitStack() as held:
            with clock.stage("plan", "Plan"):
                # What loads the backend and starts workers takes seconds, under this heading.
                directory.append(
                    EventKind.RUN_STARTED,
                    pid=os.getpid(),
                    host=socket.gethostname(),
                    resumed=resumed,
                    versions=backend.versions(),
                    backend=backend.name(),
                    device=backend.device(),
                )
                if job.config.tensorboard:
                    _show_in_tensorboard(directory, search, console)
                executor = held.enter_context(search.executor(directory, should_stop))
                show_plan(search, console, directory)
            with clock.stage("search", "Search"):
                console.replay(directory.events())
                records = search.search(directory, executor, listener=console.listen)
        console.show_trials(records, objective=job.config.objective)
        with clock.stage("retrain", "Retrain with class weights"):
            retraining = retrain(
                job.config,
                records,
                defaults=search.defaults,
                precision=search.precision,
                directory=directory,
                listener=console.listen,
                open_executor=search.retraining_executor(directory, should_stop),
                setting=search.refit_setting(),
                final_setting=search.refit_setting(on_everything=True),
            )
        with clock.stage("score", "Threshold, test, export"):
            comparison = decide(
                job.config,
                dataset,
                sealed,
                retraining,
                setting=search.refit_setting(),
                directory=directory,
                reporter=console,
            )
        with clock.stage("report", "Report"):
            heatmaps = gradcam.look(directory, warn=console.warn)
            about = _about(job, directory, dataset, clock)
            documents.write(directory, heatmaps, about)
        directory.write_manifest(to_json(dataclasses.replace(about, seconds=clock.seconds())))
        console.show_end(comparison, directory.root)
    except (StopRequestedError, KeyboardInterrupt) as error:
        directory.append(EventKind.STOPPED, reason=str(error) or type(error).__name__)
        raise StopRequestedError(
            f"stopped; every finished epoch is kept. Go on with: python -m search.run --resume "
            f"{shlex.quote(directory.root.as_posix())}"
        ) from None


def prepare_data(job: Job, console: Console) -> tuple[Dataset, SealedTest]:
    """Return what a search may see, and the test, sealed."""
    return prepare_run(job.config, job.source, cache_dir=job.cache_dir, progress=console.progress)


def make_search(
    config: RunConfig,
    dataset: Dataset,
    *,
    known: Begun | None = None,
    since: float | None = None,
) -> Search:
    """Return the search of a run.

    Args:
        config: What was asked for.
        dataset: Its images.
        known: What earlier processes of the run settled.
        since: When the run began, as `time.monotonic` tells it; None for now.
    """
    return Search(
        config,
        dataset,
        hypermodel=factory(config, dataset),
        known=known,
        after=lambda pace, workers: seconds_after(config, dataset, pace, workers),
        since=since,
    )


def seconds_after(config: RunConfig, dataset: Dataset, pace: Pace, workers: int) -> float:
    """Estimate what follows the search: retraining, test and report.

    Args:
        config: What was asked for.
        dataset: Its images.
        pace: Of the baseline, with all workers busy.
        workers: How many trainings run at once.
    """
    count = trainings(config, finalists=config.top)
    # The last of them leave workers idle.
    rounds = math.ceil(count / workers) * workers
    training = rounds * (config.refit_epochs * pace.epoch + pace.trial)
    test = sum(dataset.report.counts.get("test", {}).values())
    predicted = len(dataset.val) + len(dataset.views) + test
    # Predicting an image costs at most what training on it does.
    scoring = predicted * pace.epoch / len(dataset.train) + pace.trial * workers
    return training + 2 * config.refit_seeds * scoring + REPORT_SECONDS


def show_plan(search: Search, console: Console, directory: RunDirectory | None = None) -> None:
    """Print what will be done and how long it takes, and journal it."""
    most = trainings(search.config, finalists=search.config.top)
    plan = search.plan_record(trainings=most)
    console.show_plan(plan)
    for note in search.limit_notes():
        console.warn(note)
    if directory is not None:
        console.listen(directory.append(EventKind.PLAN, **to_json(plan)))


def _show_in_tensorboard(directory: RunDirectory, search: Search, console: Console) -> None:
    """Write what happened so far for TensorBoard, and whatever is going to happen."""
    log = TensorBoardLog(
        directory.root / "tensorboard",
        space=ranges(search.space),
        objective=search.config.objective,
        warn=console.warn,
    )
    log.replay(directory.events())
    console.also(log.listen)
    console.info(f"TensorBoard: tensorboard --logdir {log.folder}")


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


def _costs(events: list[Event]) -> dict[str, float]:
    """Return what the search's seconds went into, all trials and workers together."""
    found: dict[str, float] = {}
    for event in events:
        costs: dict[str, float] = {}
        if event["event"] == EventKind.TRIAL_ENDED:
            costs = event.get("costs") or {}
        elif event["event"] == EventKind.SEARCH_ENDED:
            costs = {"oracle": event.get("oracle_seconds", 0.0)}
        for name, seconds in costs.items():
            found[name] = found.get(name, 0.0) + seconds
    return {name: round(seconds, 3) for name, seconds in found.items()}


def _about(job: Job, directory: RunDirectory, dataset: Dataset, clock: _Clock) -> Manifest:
    """Return what the manifest says of the run, without its files."""
    return Manifest(
        name=directory.name,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        synthetic=dataset.synthetic,
        versions=backend.versions(),
        device=backend.device(),
        host=socket.gethostname(),
        seed=job.config.seed,
        seconds=clock.seconds(),
        costs=_costs(directory.events()),
        fingerprint=dataset.fingerprint,
    )
