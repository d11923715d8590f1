"""Prints the report of a run again from its directory: `python -m search.report RUN`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.config import direction
from search.errors import RunDirectoryError, SearchError
from search.journal import file_sha256, write_text
from search.records import SYNTHETIC_NOTICE
from search.reporting.console import Console
from search.reporting.content import picture
from search.reporting.documents import write_reports
from search.reporting.stored import StoredRun, locate, read_predictions, read_run
from search.reporting.trials import history_csv, refit_histories, trials_csv
from search.reporting.wording import plural


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the command's name; None: those of the process.

    Returns:
        The exit code: 0, or 2 when there is no such run.
    """
    options = parser().parse_args(arguments)
    console = Console(live=False, dated=False)
    try:
        stored = read_run(locate(options.run))
        if options.rebuild:
            with stored.run.lock():
                rebuild(stored)
            stored = read_run(stored.run)
        page = stored.run.root / "report.html"
        if options.html and (not stored.run.complete or not page.exists()):
            # Of an unfinished run the page on disk, if any, is of an earlier moment.
            write_documents(stored)
    except SearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(stored, console)
    if options.html or options.rebuild:
        console.info(f"report: {page.resolve().as_posix()}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m search.report",
        description="Print the data, the plan, the trials and the verdict of a run again.",
    )
    made.add_argument("run", metavar="RUN", help="a run directory, or its name under results/")
    made.add_argument(
        "--html",
        action="store_true",
        help="name the report.html to open; write it first if the run is unfinished",
    )
    made.add_argument(
        "--rebuild",
        action="store_true",
        help="make trials.csv, history.csv, the plots and the reports again from the records",
    )
    return made


def show(stored: StoredRun, console: Console) -> None:
    """Print what a run directory holds, and what is missing."""
    console.follow(stored.objective)
    for problem in stored.problems:
        console.warn(problem)
    if stored.synthetic:
        console.notice(str(stored.evaluation.get("notice") or SYNTHETIC_NOTICE))
    if not stored.run.complete:
        console.warn(unfinished(stored))
    if stored.dataset:
        console.heading("Data")
        console.show_data(stored.dataset)
    if stored.plan:
        console.heading("Plan")
        console.show_plan(stored.plan)
    if stored.records:
        console.heading("Trials")
        console.show_trials(
            list(stored.records),
            objective=stored.objective,
            direction=direction(stored.objective),
        )
    if stored.evaluation:
        console.heading("Verdict")
        console.show_verdict(stored.evaluation)


def unfinished(stored: StoredRun) -> str:
    """Say how far a run without a manifest got, what is missing and how to go on."""
    progress = stored.progress
    done = sum(record.status.value != "running" for record in stored.records)
    planned = stored.plan.get("trials")
    where = f"{done} of {planned} trials ended" if planned else f"{plural(done, 'trial')} ended"
    if progress.search_ended:
        where = "the search is over"
    missing = ", ".join(f"{name} ({what})" for name, what in stored.missing)
    return (
        f"{stored.run.root.as_posix()} is unfinished: {where}; missing: {missing}. "
        "The command that started it, with --resume, goes on"
    )


def rebuild(stored: StoredRun) -> None:
    """Make everything derived again, and correct its checksums in the manifest.

    Raises:
        RunDirectoryError: The predictions are damaged, or nothing can be written.
    """
    # Matplotlib takes most of a second to import, which printing a report should not cost.
    from search.reporting.plots import draw_all

    root = stored.run.root
    predictions = read_predictions(root / "predictions.csv")
    drawn = {row[0] for row in picture(root / "plots" / "roc.png").rows}
    if not drawn <= predictions.keys():
        # The file keeps the winner's alone: the picture with the control beside it stays.
        predictions = {}
    written = [write_text(root / "trials.csv", trials_csv(stored.records))]
    if stored.refit:
        written.append(write_text(root / "history.csv", history_csv(stored.refit)))
    plots = draw_all(
        root,
        records=stored.records,
        refit_histories=refit_histories(stored.refit),
        predictions=predictions,
        evaluation=stored.evaluation,
        objective=stored.objective,
        synthetic=stored.synthetic,
    )
    written += [*plots, *(path.with_suffix(".json") for path in plots), *write_documents(stored)]
    if stored.run.complete:
        update_manifest(stored, written)


def write_documents(stored: StoredRun) -> list[Path]:
    """Write `report.md` and `report.html` from what there is."""
    return write_reports(
        stored.run.root,
        config=stored.config,
        dataset=stored.dataset,
        plan=stored.plan,
        records=stored.records,
        evaluation=stored.evaluation,
        plots=stored.plots,
        manifest_like=stored.manifest,
    )


def update_manifest(stored: StoredRun, written: Sequence[Path]) -> None:
    """Enter the checksums of files made again; those of all others stay, to tell tampering."""
    if not stored.manifest:
        raise RunDirectoryError(
            f"{stored.run.root / 'manifest.json'}: damaged; the files were made again but their "
            "checksums could not be entered"
        )
    files = dict(stored.manifest.get("files") or {})
    for path in written:
        files[path.relative_to(stored.run.root).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
    stored.run.write_json("manifest.json", {**stored.manifest, "files": files})


if __name__ == "__main__":
    sys.exit(main())
