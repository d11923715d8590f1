"""Writes what a run teaches into its folder `plots`: pictures, and numbers beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.records import TrialRecord
from search.reporting import figures
from search.reporting.insights.explain import BASIC, INSIGHTS, explain
from search.reporting.insights.material import Material, Predicted
from search.reporting.trials import Row


def draw_all(
    root: Path,
    *,
    records: Sequence[TrialRecord],
    refit_histories: Mapping[str, Sequence[Row]],
    predictions: Mapping[str, Predicted],
    evaluation: dict[str, Any],
    objective: str,
    synthetic: bool,
    material: Material | None = None,
) -> list[Path]:
    """Draw every plot there is data for into `root/plots`, and its numbers as JSON beside it.

    Args:
        root: The run directory.
        records: The trials.
        refit_histories: Rows of the retraining by candidate, see `trials.refit_histories`.
        predictions: Test labels and probabilities by candidate ("winner", "documented").
        evaluation: Content of `evaluation.json`, or {}.
        objective: Name of the score.
        synthetic: Whether to stamp the figures.
        material: All there is to explain the run with, in place of the above; None: only the
            plots that the above suffices for.

    Returns:
        The PNG files, in the order of the report. Insights that are tables have none.

    Raises:
        StorageError: The disk is full or read-only.
    """
    computed = BASIC if material is None else INSIGHTS
    material = material or Material(
        objective=objective,
        records=records,
        histories=refit_histories,
        predictions=predictions,
        evaluation=evaluation,
    )
    saved = (
        figures.save(insight, root, place=place, synthetic=synthetic)
        for place, insight in enumerate(explain(material, computed=computed))
    )
    return [path for path in saved if path is not None]
