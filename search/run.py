"""The command `python -m search.run`: parses, calls the workflow, exits."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search import backend, cli
from search.config import RunConfig, with_options, with_preset
from search.data.sources import find_source
from search.errors import ConfigurationError, SearchError, read_errors
from search.records import Source
from search.reporting.console import Console
from search.reporting.tracking import require_tracker
from search.run_directory import RunDirectory, locate
from search.scoring.formats import require

EXAMPLES = """\
examples:
  python -m search.run --tuner hyperband
  python -m search.run --tuner hyperband --data chest_xray --preset quick --name first
  python -m search.run --data kaggle --budget 2h --plan
  python -m search.run --resume first               (with the options it was started with)
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    new = cli.Parser(
        prog="python -m search.run",
        usage="python -m search.run [OPTIONS]",
        description="Search, retrain, score and export a network for medical images.",
        epilog=f"presets, which give other defaults:\n{cli.preset_table()}\n\n{EXAMPLES}",
    )
    cli.add_options(new)
    how = new.add_argument_group("how to run")
    how.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run, by its name or folder, with the options it was started with; "
        "options given beside it replace those that may change",
    )
    how.add_argument("--overwrite", action="store_true", help="replace the run of that name")
    how.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    how.add_argument("--no-live", action="store_true", help="plain lines, no live view")
    how.add_argument("--quiet", action="store_true", help="only warnings and the verdict")
    return new


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1, 2 for user errors, 130 for Ctrl-C."""
    options = parser().parse_args(arguments)
    console = Console(live=False if options.no_live else None, quiet=options.quiet)
    try:
        with cli.interruptible(console) as should_stop:
            if options.resume is not None and options.overwrite:
                raise ConfigurationError("--resume and --overwrite: give one of them")
            config, source = prepare(cli.read_options(options), console, resume=options.resume)
            from search import workflow  # imports Keras, which `prepare` loads quietly

            if options.plan:
                workflow.plan(config, source, console)
                return 0
            workflow.run(
                config,
                source,
                console,
                should_stop=should_stop,
                resume=options.resume is not None,
                overwrite=options.overwrite,
            )
    except SearchError as error:
        console.close()
        console.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.close()
        console.error("stopped")
        return 130
    finally:
        console.close()
    return 0


def prepare(
    given: dict[str, Any], console: Console, *, resume: str | None = None
) -> tuple[RunConfig, Source]:
    """Check the options, find the images and load Keras, in the order of what takes long.

    Args:
        given: The options that were given, fields of RunConfig by name.
        console: Where a person watches.
        resume: Name or folder of the run to go on with, "" for that of `given["name"]`; None for a
            new run.

    Returns:
        What is asked for, and where the images are.

    Raises:
        SearchError: With a message for the user.
    """
    stored = None
    if resume is not None:
        given, stored = _stored(given, resume)
    config = with_options(stored, given) if stored else _fresh(given)
    require(config.export)
    require_tracker(config.tracker)
    with console.stage("Setup"):
        source = find_source(config, progress=console.progress)
        if source.synthetic and not stored and not config.preset:
            config = _fresh({**given, "preset": "demo"})
        console.follow(config.objective)
        console.progress("Loading Keras", 0, 0)
        backend.load()
        importlib.import_module("search.workflow")  # slow too, and only after Keras was loaded
    return config, source


def _fresh(given: dict[str, Any]) -> RunConfig:
    return with_preset(given.get("preset", ""), given)


def _stored(given: dict[str, Any], resume: str) -> tuple[dict[str, Any], RunConfig | None]:
    """Return what is given with the place of the run to go on with, and its options, if it has."""
    name = resume or given.get("name", "")
    if not name:
        raise ConfigurationError("--resume: name the run, e.g. --resume first")
    results = Path(given.get("results_dir", RunConfig().results_dir))
    folder = results / name if Path(name).name == name else Path(name)
    with read_errors(folder):
        # Killed before it wrote anything, it has no options yet.
        begun = not folder.is_dir() or RunDirectory(folder).exists
    directory = locate(name, results) if begun else RunDirectory(folder)
    place = {"name": directory.name, "results_dir": directory.root.parent.as_posix()}
    if not directory.journal_file.exists() and not (directory.root / "config.json").exists():
        return {**given, **place}, None
    # Read once before anything slow, so that damage is named at once.
    directory.trials()
    return {**given, **place}, directory.read(RunConfig, "config.json")


if __name__ == "__main__":
    sys.exit(cli.execute(main))
