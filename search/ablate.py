"""`python -m search.ablate RUN --repeats S`: the notebook's five questions, asked again.

Changes one factor at a time, from the baseline and from the winner of a finished run,
retrains with several seeds and says what each change did. Stopped or killed, the same command
goes on; Keras is imported once the arguments are known to make sense.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from search import cli
from search.config import RunConfig
from search.data.prepare import prepare
from search.data.sources import find_source
from search.errors import (
    ConfigurationError,
    DataError,
    RunDirectoryError,
    SearchError,
    StopRequestedError,
    storage_errors,
)
from search.journal import EventKind
from search.records import SYNTHETIC_NOTICE, DatasetReport
from search.reporting import tables
from search.reporting.console import Console
from search.run_directory import RunDirectory, locate
from search.scoring.effects import FACTORS, FILE, parse_factors

FROM = {"baseline": ("baseline",), "winner": ("winner",), "both": ("baseline", "winner")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0; 2 for a missing, unfinished or changed run or a wrong option; 130 when
        stopped.
    """
    options = parser().parse_args(arguments)
    console = Console(live=False if options.no_live else None, quiet=options.quiet)
    try:
        run = locate(options.run, options.results_dir)
        if not run.complete:
            raise RunDirectoryError(
                f"{run.root}: the run is unfinished (no manifest.json, which is written last), so "
                "there is no winner yet; the command that started it, with --resume, goes on"
            )
        _check(options)
        with cli.interruptible(console) as should_stop:
            _ablate(run, options, console, should_stop)
        return 0
    except StopRequestedError as error:
        message = "stopped; every finished epoch is kept, the same command goes on"
        code = error.exit_code
    except SearchError as error:
        message, code = str(error), error.exit_code
    except KeyboardInterrupt:
        message = "stopped at once; the same command goes on from the last finished epoch"
        code = StopRequestedError.exit_code
    finally:
        console.close()
    console.error(message)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = cli.Parser(
        prog="python -m search.ablate",
        description="Change one factor at a time, retrain with several seeds, and say what each "
        "change did: better, worse, or undecided.",
    )
    made.add_argument("run", metavar="RUN", help="a finished run's directory, or its name")
    made.add_argument(
        "--repeats", type=int, default=3, metavar="S", help="seeds of each training (3)"
    )
    made.add_argument(
        "--from", dest="base", choices=list(FROM), default="both", help="what is changed (both)"
    )
    made.add_argument(
        "--factors",
        default="all",
        metavar="NAME[=VALUE],…",
        help=f"of {', '.join(FACTORS)} (all), e.g. epochs,filters=8,filters=32",
    )
    made.add_argument("--epochs", type=int, metavar="N", help="of each training (the run's)")
    made.add_argument("--workers", type=int, metavar="N", help="worker processes (the run's)")
    made.add_argument("--plan", action="store_true", help="say what would be trained, and stop")
    cli.add_results_dir(made)
    made.add_argument("--no-live", action="store_true", help="plain lines, no live view")
    made.add_argument("--quiet", action="store_true", help="only warnings and the result")
    return made


def _check(options: argparse.Namespace) -> None:
    for option, value, least in (
        ("--repeats", options.repeats, 1),
        ("--epochs", options.epochs, 1),
        ("--workers", options.workers, 0),
    ):
        if value is not None and value < least:
            raise ConfigurationError(f"{option} {value}: must be at least {least}")


def _restore(directory: RunDirectory, config: RunConfig, console: Console) -> tuple[Any, Any, Any]:
    """Make the data set and the HyperModel of a finished run again.

    Returns:
        The data set, its sealed test, and the search stage, which gives what to train with.

    Raises:
        RunDirectoryError: The run cannot be read, or its images changed.
        DataError: Its images are gone.
    """
    from search.tuning.resume import begun, check_same_data
    from search.tuning.search import Search

    # Where they were, else where the run's options say.
    stored = directory.read(DatasetReport, "dataset.json").source
    place = "demo" if stored.synthetic else str(stored.root)
    if place != "demo" and not Path(place).is_dir():
        if config.data == "auto":
            raise DataError(f"{place}: the images of {directory.name} are gone; put them back")
        place = config.data
    source = find_source(dataclasses.replace(config, data=place), progress=console.progress)
    dataset, sealed = prepare(config, source, progress=console.progress)
    check_same_data(directory, dataset)
    return dataset, sealed, Search(config, dataset, known=begun(directory.events()))


def _ablate(
    run: RunDirectory,
    options: argparse.Namespace,
    console: Console,
    should_stop: Callable[[], bool],
) -> None:
    # Read before Keras is loaded, so that a mistake is reported at once.
    requested, config = parse_factors(options.factors), run.read(RunConfig, "config.json")
    from search import backend

    with console.stage("Data"):
        backend.load()
        from search.scoring.ablation import Ablation

        if options.workers is not None:
            config = dataclasses.replace(config, workers=options.workers)
        dataset, sealed, search_stage = _restore(run, config.refit, console)
    if dataset.synthetic:
        console.notice(SYNTHETIC_NOTICE)
    ablation = Ablation(
        config.refit,
        search_stage,
        run=run,
        bases=FROM[options.base],
        requested=requested,
        repeats=options.repeats,
        epochs=options.epochs or config.refit_epochs,
        reporter=console,
    )
    console.info(ablation.plan(search_stage.pace.epoch * config.refit_area))
    if options.plan:
        return
    with storage_errors(ablation.directory.root):
        ablation.directory.root.mkdir(exist_ok=True)
    with ablation.directory.lock():
        console.follow(config.choice)
        # For the time left: the run's pace, until this process has its own.
        plan = [e for e in run.events() if e["event"] == EventKind.PLAN][-1:]
        names = {recipe.role for recipe in ablation.recipes}
        before = [e for e in ablation.directory.events() if e.get("role") in names]
        search = {"event": EventKind.STAGE.value, "name": "search", "time": time.time()}
        console.replay([*plan, search, *before])
        with console.stage("Retrain, then evaluate on the test set"):
            open_executor = search_stage.retraining_executor(run, should_stop)
            report = ablation.perform(dataset, sealed, open_executor)
    console.show(tables.ablation_view(report))
    console.info(f"Ablation: {ablation.directory.root / FILE}")
    console.info(f"In the report: python -m search.report {run.root} --rebuild")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(cli.execute(main))
