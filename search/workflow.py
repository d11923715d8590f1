"""The story of a run, top to bottom: data, plan, search, race and retraining, scoring, report.

Each stage writes what it found to the run directory before the next begins, so a run that was
killed continues where it was; the manifest comes last.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from search import backend
from search.config import RunConfig
from search.data.prepare import prepare
from search.data.views import view_settings
from search.journal import EventKind, search_costs, stage_seconds
from search.records import SYNTHETIC_NOTICE, Dataset, Manifest, PlanRecord, Source, to_json
from search.reporting import documents
from search.reporting.console import Console
from search.reporting.tensorboard import TensorBoardLog
from search.reporting.tracking import tracking
from search.run_directory import RunDirectory, new_run
from search.scoring import gradcam
from search.scoring.retrain import retrain, seconds_after, trainings
from search.scoring.verdict import decide
from search.tuning.resume import (
    begun,
    check_same_backend,
    check_same_data,
    claim,
    held,
    stopped_in_order,
)
from search.tuning.search import Search
from search.tuning.space import ranges


def run(
    config: RunConfig,
    source: Source,
    console: Console,
    *,
    should_stop: Callable[[], bool],
    resume: bool = False,
    overwrite: bool = False,
) -> RunDirectory:
    """Do the whole job.

    Args:
        config: What was asked for.
        source: Where the images are.
        console: Where a person watches.
        should_stop: Asked after every epoch.
        resume: Continue the run of that name.
        overwrite: Replace the run of that name.

    Returns:
        The finished run.

    Raises:
        SearchError: With a message for the user; what is finished is kept.
    """
    # What is wrong with the options is told before anything is written.
    view_settings(config)
    if source.synthetic:
        console.notice(SYNTHETIC_NOTICE)
    results = Path(config.results_dir)
    directory = RunDirectory(results / config.name) if config.name else new_run(results)
    config = dataclasses.replace(config, name=directory.name)
    resumed = claim(directory, config, resume=resume, overwrite=overwrite)
    if resume and not resumed:
        console.info(f"{directory.root}: the run had not begun; it starts afresh")
    stage, since = partial(_stage, directory, console), time.monotonic()

    with (
        held(directory, config, resumed=resumed),
        tracking(config, directory, console),
        stopped_in_order(directory),
    ):
        with stage("data", "Data"):
            dataset, sealed_test = prepare(config, source, progress=console.progress)
            check_same_data(directory, dataset)
            search = Search(
                config,
                dataset,
                known=begun(directory.events()),
                after=partial(seconds_after, config, dataset),
                since=since,
            )
            search.refuse_other(directory)
            ended = search.finished(directory)
            check_same_backend(directory, backend.name(), search_ended=ended)
            # Taken apart, a half-updated run must not look complete.
            (directory.root / "manifest.json").unlink(missing_ok=True)
            directory.write_json("config.json", config)
            directory.write_json("dataset.json", dataset.report)
            console.show_data(dataset.report)

        with ExitStack() as workers:
            with stage("plan", "Plan"):
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
                if config.tensorboard:
                    _show_in_tensorboard(directory, search, console)
                executor = workers.enter_context(search.executor(directory, should_stop))
                plan = _show_plan(search, console)
                console.listen(directory.append(EventKind.PLAN, **to_json(plan)))

            with stage("search", "Search"):
                console.replay(directory.events())
                trials = search.loop(directory, executor, console.listen).search()
        console.show_trials(trials, objective=config.objective)

        refit = search
        if config.refit != config:
            with stage("larger", "Data for the retraining"):
                dataset, sealed_test = prepare(config.refit, source, progress=console.progress)
                check_same_data(directory, dataset)
                refit = Search(config.refit, dataset, known=begun(directory.events()))

        with stage("retrain", "Retrain with class weights"):
            retraining = retrain(
                config.refit,
                trials,
                defaults=search.defaults,
                precision=search.precision,
                directory=directory,
                listener=console.listen,
                open_executor=refit.retraining_executor(directory, should_stop),
                setting=refit.refit_setting(),
                final_setting=refit.refit_setting(on_everything=True),
            )

        with stage("score", "Threshold, test, export"):
            comparison = decide(
                config,
                dataset,
                sealed_test,
                retraining,
                setting=refit.refit_setting(),
                directory=directory,
                reporter=console,
            )

        with stage("report", "Report"):
            heatmaps = gradcam.look(directory, warn=console.warn)
            about = _about(directory, config, dataset)
            documents.write(directory, heatmaps, about)
        seconds = stage_seconds(directory.events())
        directory.write_manifest(to_json(dataclasses.replace(about, seconds=seconds)))
        console.show_end(comparison, directory.root)
    return directory


def plan(config: RunConfig, source: Source, console: Console) -> None:
    """Say what `run` would do, and write nothing."""
    if source.synthetic:
        console.notice(SYNTHETIC_NOTICE)
    since = time.monotonic()
    with console.stage("Data"):
        dataset, _ = prepare(config, source, progress=console.progress)
        console.show_data(dataset.report)
    after = partial(seconds_after, config, dataset)
    _show_plan(Search(config, dataset, after=after, since=since), console)


def _show_plan(search: Search, console: Console) -> PlanRecord:
    """Print what will be done and how long it takes."""
    planned = search.plan_record(trainings=trainings(search.config, finalists=search.config.top))
    console.show_plan(planned)
    for note in search.limit_notes():
        console.warn(note)
    return planned


@contextmanager
def _stage(directory: RunDirectory, console: Console, name: str, title: str) -> Iterator[None]:
    """Announce a stage and journal its seconds when it ends well."""
    begin = time.perf_counter()
    with console.stage(title):
        yield
    directory.append(EventKind.STAGE, name=name, seconds=time.perf_counter() - begin)


def _show_in_tensorboard(directory: RunDirectory, search: Search, console: Console) -> None:
    """Write for TensorBoard what happened so far, and have it told what is going to happen."""
    log = TensorBoardLog(
        directory.root / "tensorboard",
        space=ranges(search.space),
        objective=search.config.objective,
        warn=console.warn,
    )
    for event in directory.events():
        log.listen(event)
    console.also(log.listen)
    console.info(f"TensorBoard: tensorboard --logdir {log.folder}")


def _about(directory: RunDirectory, config: RunConfig, dataset: Dataset) -> Manifest:
    """Return what the manifest says of the run, without its files."""
    events = directory.events()
    return Manifest(
        name=directory.name,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        synthetic=dataset.synthetic,
        versions=backend.versions(),
        device=backend.device(),
        host=socket.gethostname(),
        seed=config.seed,
        seconds=stage_seconds(events),
        costs=search_costs(events),
        fingerprint=dataset.fingerprint,
    )
