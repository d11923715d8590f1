"""Prints the report of a run again from its directory: `python -m search.report RUN`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from search.config import direction
from search.errors import RunDirectoryError, SearchError
from search.records import SYNTHETIC_NOTICE
from search.reporting.console import Console
from search.reporting.content import RunContent, gather, picture
from search.reporting.documents import write_content
from search.reporting.facts import mapping
from search.reporting.html import render_html
from search.reporting.light import write_light
from search.reporting.stored import StoredRun, read_run
from search.reporting.trials import history_csv, trials_csv
from search.reporting.wording import plural
from search.run_directory import file_sha256, locate, write_text

UNUSED = ("best_hyperparameters.json",)
"""Originals that no report is made from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the command's name; None: those of the process.

    Returns:
        The exit code: 0; 2 when there is no such run, when it was changed since it ended, or when
        what was asked for cannot be done.
    """
    options = parser().parse_args(arguments)
    console = Console(live=False, dated=False)
    try:
        stored = read_run(locate(options.run, options.results_dir))
        page = stored.run.root / "report.html"
        # Of an unfinished run the page on disk, if any, is of an earlier moment.
        stale = options.html and (not stored.run.complete or not page.exists())
        if options.rebuild or options.share or stale:
            refuse_tampered(stored)
        if options.rebuild:
            with stored.run.lock():
                rebuild(stored, console)
            stored = read_run(stored.run)
        if stale and not options.rebuild:
            write_documents(stored)
        if options.light:
            refuse_to_copy(stored)
            write_light(content_of(stored), options.light)
        if options.share:
            page_without = render_html(content_of(stored), local=False)
            write_text(options.share, page_without, option="--share")
    except SearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(stored, console)
    if options.html or options.rebuild:
        console.info(f"report: {page.resolve().as_posix()}")
    if options.share:
        console.info(f"without radiographs: {options.share.resolve().as_posix()}")
    if options.light:
        console.info(f"light copy: {options.light.resolve().as_posix()}")
    found = stored.integrity
    changed = found.records or found.derived or found.weights
    damaged = stored.run.complete and not stored.manifest
    return 2 if changed or damaged else 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m search.report",
        description="Print the data, the plan, the trials and the verdict of a run again.",
    )
    made.add_argument("run", metavar="RUN", help="a run directory, or its name")
    made.add_argument(
        "--html",
        action="store_true",
        help="name the report.html to open; write it first if the run is unfinished",
    )
    made.add_argument(
        "--light",
        type=Path,
        metavar="DIR",
        help="write what may be committed or passed on: reports, tables and plots, without model, "
        "journal, radiographs and this computer's name and folders",
    )
    made.add_argument(
        "--rebuild",
        action="store_true",
        help="make trials.csv, history.csv, the plots, the reports and the model card again from "
        "the records",
    )
    made.add_argument(
        "--results-dir",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where a run's bare name is looked up (%(default)s)",
    )
    made.add_argument(
        "--share",
        type=Path,
        metavar="FILE.html",
        help="write the report without radiographs and without this computer's name and folders",
    )
    return made


def show(stored: StoredRun, console: Console) -> None:
    """Print what a run directory holds, and what is missing."""
    console.follow(stored.objective)
    for problem in (*stored.problems, *stored.integrity.sentences):
        console.warn(problem)
    if stored.synthetic:
        console.notice(str(stored.evaluation.get("notice") or SYNTHETIC_NOTICE))
    if not stored.run.complete:
        console.warn(unfinished(stored))
    if stored.light:
        left_out = stored.light.get("left_out")
        count = plural(len(left_out), "file") if isinstance(left_out, list) else "files"
        console.info(
            f"a light copy of the run {stored.light.get('of')}: {count} of it are left out, the "
            "model and the journal among them (manifest.json names them); so no plan, no trials"
        )
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


def refuse_tampered(stored: StoredRun) -> None:
    """Refuse to make anything from records that are not the run's own.

    Raises:
        RunDirectoryError: One was changed; a report made from it, with a fresh checksum, would
            pass for the run's.
    """
    used = [name for name in stored.integrity.records if name not in UNUSED]
    if used:
        raise RunDirectoryError(
            f"{stored.run.root / used[0]}: changed since the run ended, by the checksums in "
            "manifest.json; nothing is made from it. Put the original back, or run again"
        )


def refuse_to_copy(stored: StoredRun) -> None:
    """Refuse a light copy of what is no finished, unchanged run.

    Raises:
        RunDirectoryError: It is unfinished, a light copy itself, or was changed: the copy's fresh
            checksums would pass for the run's.
    """
    root, changed = stored.run.root, stored.integrity
    if not stored.manifest:
        raise RunDirectoryError(
            f"{root}: unfinished, or its manifest is damaged; --light copies finished runs"
        )
    if stored.light or not stored.records:
        raise RunDirectoryError(
            f"{root}: has no journal of trials, as a light copy has none; name the run itself"
        )
    if changed.records or changed.derived:
        raise RunDirectoryError(f"{root}: nothing is copied; {changed.sentences[0]}")


def rebuild(stored: StoredRun, console: Console) -> None:
    """Make everything derived again, and correct its checksums in the manifest.

    Args:
        stored: The run.
        console: Told what cannot be made.

    Raises:
        RunDirectoryError: The journal is gone, the predictions are damaged, or nothing can be
            written.
    """
    # Matplotlib takes most of a second to import, which printing a report should not cost.
    from search import explaining
    from search.reporting.plots import draw_all
    from search.scoring import gradcam

    root = stored.run.root
    if stored.run.complete and not stored.run.journal_file.exists():
        raise RunDirectoryError(
            f"{stored.run.journal_file}: no such file, and trials.csv, history.csv and the plots "
            "are made from it; nothing is made again, so that they are not lost. Put it back, or "
            "leave --rebuild out"
        )
    heatmaps = gradcam.look(root, warn=console.warn)
    material = explaining.material(root, heatmaps=heatmaps)
    drawn = {row[0] for row in picture(root / "plots" / "roc.png").rows}
    kept: tuple[str, ...] = ()
    if not drawn <= material.predictions.keys():
        # Earlier versions kept the winner's alone: the picture with the control beside it stays.
        material, kept = dataclasses.replace(material, predictions={}), ("roc",)
    written = [write_text(root / "trials.csv", trials_csv(stored.records))]
    if stored.refit:
        written.append(write_text(root / "history.csv", history_csv(stored.refit)))
    files = draw_all(root, material, synthetic=stored.synthetic, keep=kept)
    written += [path for path in files if path.parent == stored.run.plots_dir]
    written += write_documents(stored)
    if stored.run.complete:
        update_manifest(stored, written)


def write_documents(stored: StoredRun) -> list[Path]:
    """Write the reports and the model card from what there is."""
    return write_content(content_of(stored))


def content_of(stored: StoredRun) -> RunContent:
    """Return what a report of a stored run is made of."""
    return gather(
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
    """Enter the checksums of files made again; those of all others stay, to tell tampering.

    Plots that are no longer made of these records are no longer listed.
    """
    if not stored.manifest:
        raise RunDirectoryError(
            f"{stored.run.root / 'manifest.json'}: damaged; the files were made again but their "
            "checksums could not be entered"
        )
    files = {
        name: entry
        for name, entry in mapping(stored.manifest.get("files")).items()
        if not name.startswith("plots/") or (stored.run.root / name).exists()
    }
    for path in written:
        files[path.relative_to(stored.run.root).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
    stored.run.write_json("manifest.json", {**stored.manifest, "files": files})


if __name__ == "__main__":
    sys.exit(main())
