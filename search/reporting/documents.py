"""Writes the papers a run leaves behind: `report.md`, `report.html` and `model_card.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.config import RunConfig
from search.records import TrialRecord
from search.reporting.card import render_card
from search.reporting.content import RunContent, gather
from search.reporting.html import render_html
from search.reporting.markdown import render_markdown
from search.run_directory import write_text


def write_reports(
    root: Path,
    *,
    config: RunConfig | dict[str, Any],
    dataset: dict[str, Any],
    plan: dict[str, Any],
    records: Sequence[TrialRecord],
    evaluation: dict[str, Any],
    plots: Sequence[Path],
    manifest_like: dict[str, Any],
) -> list[Path]:
    """Write `report.md`, `report.html` and, of a scored model, `model_card.md`.

    Args:
        root: The run directory.
        config: The RunConfig, or the content of `config.json`.
        dataset: The content of `dataset.json`, {} if there is none yet.
        plan: Fields of the PLAN event, {} if there is none yet.
        records: The trials.
        evaluation: The content of `evaluation.json`, {} if there is none yet.
        plots: PNG files under `root`, as `plots.draw_all` returns them.
        manifest_like: What the manifest will say: versions, device, seeds, stages.

    Returns:
        The files written.

    Raises:
        StorageError: The disk is full or read-only.
    """
    return write_content(
        gather(
            root,
            config=config,
            dataset=dataset,
            plan=plan,
            records=records,
            evaluation=evaluation,
            plots=plots,
            manifest_like=manifest_like,
        )
    )


def write_content(content: RunContent) -> list[Path]:
    """Write what `write_reports` does from content that is gathered already.

    Raises:
        StorageError: The disk is full or read-only.
    """
    files = [
        write_text(content.root / "report.md", render_markdown(content)),
        write_text(content.root / "report.html", render_html(content)),
    ]
    if content.evaluation:
        files.append(write_text(content.root / "model_card.md", render_card(content)))
    return files
