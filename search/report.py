"""Prints the report of a run again from its directory: `python -m search.report RUN`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from search import cli
from search.records import ManifestFile, TrialStatus
from search.reporting.console import Console
from search.reporting.contents import RunContents, read
from search.reporting.format import plural
from search.run_directory import RunDirectory, file_sha256, locate, write_text


@cli.plain
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0; 2 when there is no such run, when it is damaged, or when what was asked
        for cannot be done.
    """
    options = parser().parse_args(arguments)
    console = Console(live=False, dated=False)
    run = locate(options.run, options.results_dir)
    page = run.root / "report.html"
    if options.rebuild or (options.html and not (run.complete and page.exists())):
        rebuild(run, console, look=options.rebuild)
    contents = read(run)
    if options.share:
        from search.reporting import documents  # matplotlib takes most of a second to import

        write_text(options.share, documents.page(contents, local=False), option="--share")
    show(contents, console)
    if options.html:
        console.info(f"open {page.resolve().as_uri()}")
    if options.share:
        console.info(f"without images: {options.share.resolve()}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = cli.Parser(
        prog="python -m search.report",
        description="Print the data, the plan, the best trials and the result of a run again.",
    )
    made.add_argument("run", metavar="RUN", help="a run directory, or its name")
    made.add_argument(
        "--html",
        action="store_true",
        help="name the report.html to open; write it first if the run is unfinished",
    )
    made.add_argument(
        "--rebuild",
        action="store_true",
        help="make trials.csv, history.csv, the plots, the reports and the model card again",
    )
    cli.add_results_dir(made)
    made.add_argument(
        "--share",
        type=Path,
        metavar="FILE.html",
        help="write the report without images of the data and without this computer's folders",
    )
    return made


def show(contents: RunContents, console: Console) -> None:
    """Print what a run directory holds, and what is missing."""
    console.follow(contents.config.objective)
    if contents.notice:
        console.notice(contents.notice)
    if not contents.directory.complete:
        ended = sum(r.status is not TrialStatus.RUNNING for r in contents.trials)
        console.warn(
            f"{contents.directory.root} is unfinished: {plural(ended, 'trial')} ended; missing: "
            f"{', '.join(contents.missing)}. The command that started it, with --resume, goes on"
        )
    if contents.dataset is not None:
        console.heading("Data")
        console.show_data(contents.dataset)
    if contents.state.plan is not None:
        console.heading("Plan")
        console.show_plan(contents.state.plan)
    if contents.trials:
        console.heading("Trials")
        console.show_trials(contents.trials, objective=contents.config.objective)
    if contents.comparison is not None:
        console.heading("Result")
        console.show_end(contents.comparison, contents.directory.root)


def rebuild(run: RunDirectory, console: Console, *, look: bool) -> None:
    """Make everything derived again, and enter its checksums into the manifest.

    Args:
        run: The run.
        console: Told what cannot be made.
        look: Whether to ask the model once more what it looked at, which loads Keras.

    Raises:
        RunDirectoryError: A record is damaged, or another process has the run.
        StorageError: The disk is full or read-only.
    """
    from search.reporting import documents
    from search.scoring import gradcam

    with run.lock():
        heatmaps = gradcam.look(run, warn=console.warn) if look else []
        written = documents.write(run, heatmaps)
        manifest = read(run).manifest
        if manifest is None:
            return
        again = {path.relative_to(run.root).as_posix(): path for path in written}
        files = {
            name: entry
            for name, entry in manifest.files.items()
            if not name.startswith("plots/") or name in again
        }
        for name, path in again.items():
            files[name] = ManifestFile(bytes=path.stat().st_size, sha256=file_sha256(path))
        run.write_json("manifest.json", dataclasses.replace(manifest, files=files))


if __name__ == "__main__":
    sys.exit(cli.execute(main))
