"""Writes a light copy of a finished run, to commit or pass on: its papers, tables and plots.

No model, no weights, no radiograph, no journal, and no folder of this computer: the reports are
those of `--share`, and the records lose what `disclosure` takes out. So the copy's files are not
the run's, byte by byte; its manifest lists them as they are and says what it is a copy of.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from search.errors import RunDirectoryError, storage_errors
from search.reporting.card import render_card
from search.reporting.content import RunContent
from search.reporting.disclosure import without_folders
from search.reporting.facts import mapping
from search.reporting.html import render_html
from search.reporting.integrity import LIGHT
from search.reporting.markdown import render_markdown
from search.reporting.trials import trials_csv
from search.run_directory import file_sha256, write_json, write_text

OPTION = "--light"
AS_THEY_ARE = (
    "best_hyperparameters.json",
    "history.csv",
    "predictions.csv",
    "predictions_documented.csv",
)
"""Files without any text but metrics' names and paths below the data folder."""


def write_light(content: RunContent, folder: Path) -> list[Path]:
    """Write a light copy of a finished run.

    Args:
        content: The run, with its manifest.
        folder: Where; made if need be.

    Returns:
        The files written, the manifest last.

    Raises:
        RunDirectoryError: The folder holds something already, or lies in the run.
        StorageError: The disk is full or read-only.
    """
    _refuse(content.root, folder)
    files = [
        *_records(content.passed_on(), folder),
        *_tables(content, folder),
        *_plots(content, folder),
        *_papers(content, folder),
    ]
    original = content.root / "manifest.json"
    manifest = light_manifest(content, folder, files, of=file_sha256(original))
    return [*files, write_json(folder / "manifest.json", manifest, option=OPTION)]


def light_manifest(
    content: RunContent, folder: Path, files: list[Path], *, of: str
) -> dict[str, Any]:
    """Return the manifest of a light copy.

    Args:
        content: The run that was copied, with its manifest.
        folder: The copy.
        files: What it holds.
        of: SHA-256 of the run's own manifest.
    """
    listed = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(files)
    }
    mine = content.passed_on().manifest
    left_out = sorted(mapping(mine.get("files")).keys() - listed.keys())
    copy = {"of": content.name, "manifest_sha256": of, "left_out": left_out}
    return {**mine, LIGHT: copy, "files": listed}


def _refuse(root: Path, folder: Path) -> None:
    if folder.resolve().is_relative_to(root.resolve()):
        raise RunDirectoryError(f"{OPTION} {folder}: lies in the run itself; name another folder")
    with storage_errors(folder, option=OPTION):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunDirectoryError(
                f"{OPTION} {folder}: holds something already; nothing is written over. Name a new "
                "folder, or empty it"
            )


def _records(shared: RunContent, folder: Path) -> list[Path]:
    parts: dict[str, Any] = {
        "config.json": shared.config,
        "dataset.json": shared.dataset,
        "evaluation.json": shared.evaluation,
        "exports.json": shared.exports,
        "ablation/ablation.json": shared.ablation,
    }
    written = [
        write_json(folder / name, part, option=OPTION) for name, part in parts.items() if part
    ]
    table = trials_csv(shared.records)
    return [*written, write_text(folder / "trials.csv", table, option=OPTION)]


def _tables(content: RunContent, folder: Path) -> list[Path]:
    wanted = [name for name in _listed(content) if name in AS_THEY_ARE]
    return [_copied(content.root / name, folder / name) for name in wanted]


def _listed(content: RunContent) -> list[str]:
    """Return what the manifest lists and is there: whatever else lies in the run is not its own."""
    names = sorted(mapping(content.manifest.get("files")))
    return [name for name in names if (content.root / name).is_file()]


def _copied(source: Path, target: Path) -> Path:
    with storage_errors(target, option=OPTION):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return target


def _plots(content: RunContent, folder: Path) -> list[Path]:
    """Copy the plots, with their numbers; those that show radiographs are in no manifest."""
    written = []
    for name in _listed(content):
        source, target = content.root / name, folder / name
        if source.parent != content.root / "plots":
            continue
        if source.suffix == ".png":
            written.append(_copied(source, target))
        elif source.suffix == ".json":
            numbers = json.loads(source.read_text(encoding="utf-8"))
            kept = without_folders(numbers, content.places)
            written.append(write_json(target, kept, option=OPTION))
    return written


def _papers(content: RunContent, folder: Path) -> list[Path]:
    papers = {
        "report.md": render_markdown(content),
        "report.html": render_html(content, local=False),
    }
    if content.evaluation:
        papers["model_card.md"] = render_card(content)
    return [write_text(folder / name, text, option=OPTION) for name, text in papers.items()]
