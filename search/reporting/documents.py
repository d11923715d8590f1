"""Writes the reports a run leaves behind: `report.md` and `report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.config import RunConfig
from search.journal import write_text
from search.records import TrialRecord
from search.reporting.content import gather
from search.reporting.html import render_html
from search.reporting.markdown import render_markdown


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
    """Write `report.md` and `report.html` into a run directory.

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
    content = gather(
        root,
        config=config,
        dataset=dataset,
        plan=plan,
        records=records,
        evaluation=evaluation,
        plots=plots,
        manifest_like=manifest_like,
    )
    return [
        write_text(root / "report.md", render_markdown(content)),
        write_text(root / "report.html", render_html(content)),
    ]
