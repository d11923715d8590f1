"""Gathers what a run is explained with, from its directory: records, predictions, their curves.

Stands between the command lines and the rooms: `scoring` computes the curves, their bands and the
heatmaps, `reporting` makes insights of them. The same for a run that just ended and for one that is
rebuilt, whichever version made it; what a directory lacks is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.errors import RunDirectoryError
from search.records import Predictions, Split
from search.reporting.facts import mapping
from search.reporting.insights.material import Material
from search.reporting.insights.scores import exported
from search.reporting.progress import RunProgress
from search.reporting.trials import refit_histories, refit_rows
from search.reporting.wording import is_number
from search.run_directory import RunDirectory
from search.scoring.curves import Heatmap, ScoreCurves, score_curves
from search.scoring.predictions import PREDICTION_FILES, read_predictions_csv

MODEL = "model.keras"


def material(root: Path, *, heatmaps: Sequence[Heatmap] = ()) -> Material:
    """Return what a run is explained with.

    Args:
        root: The run directory.
        heatmaps: Those of `look`; they are not kept on disk but as a picture.

    Raises:
        RunDirectoryError: A file of predictions is damaged.
    """
    run = RunDirectory(root)
    config, evaluation = _read(run, "config.json"), _read(run, "evaluation.json")
    objective = str(config.get("objective") or evaluation.get("objective") or "robust_loss")
    progress = RunProgress(objective)
    events: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        events = [e for e in run.events() if isinstance(e, dict) and progress.apply(e)]
    curves: dict[str, ScoreCurves] = {}
    predictions: dict[str, Predictions] = {}
    for role in PREDICTION_FILES:
        said = _predictions(root, role)
        if said is None:
            continue
        predictions[role] = said
        threshold, seed = _threshold(evaluation, role), config.get("seed")
        found = score_curves(said, threshold, seed=int(seed) if is_number(seed) else 0)
        if found is not None:
            curves[role] = found
    return Material(
        objective=objective,
        records=progress.records,
        events=events,
        histories=refit_histories(refit_rows(events, evaluation=evaluation)),
        evaluation=evaluation,
        predictions={r: (said.labels, said.probabilities) for r, said in predictions.items()},
        curves=curves,
        heatmaps=heatmaps,
    )


def _predictions(root: Path, role: str) -> Predictions | None:
    """Return what a role's exported seed said of the test, or of validation without a test."""
    by_split = read_predictions_csv(root / PREDICTION_FILES[role])
    return by_split.get(Split.TEST) or by_split.get(Split.VALIDATION)


def _threshold(evaluation: dict[str, Any], role: str) -> float:
    value = mapping(exported(evaluation, role).get("threshold")).get("value")
    return float(value) if is_number(value) else 0.5


def _read(run: RunDirectory, name: str) -> dict[str, Any]:
    with contextlib.suppress(RunDirectoryError, OSError, UnicodeDecodeError):
        found = run.read_json(name)
        return found if isinstance(found, dict) else {}
    return {}
