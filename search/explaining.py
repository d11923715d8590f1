"""Gathers what a run is explained with, from its directory: records, predictions, their curves.

Stands between the command lines and the rooms: `scoring` computes the curves and their bands,
`reporting` makes insights of them. The same for a run that just ended and for one that is rebuilt,
whichever version made it; what a directory lacks is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.errors import RunDirectoryError
from search.evidence import Heatmap, ScoreCurves
from search.history import trial_records
from search.journal import RunDirectory
from search.records import Predictions, Split
from search.reporting.insights.material import Material
from search.reporting.insights.scores import exported
from search.reporting.trials import refit_histories, refit_rows
from search.reporting.wording import is_number
from search.scoring.bands import score_curves
from search.scoring.evaluate import read_predictions_csv
from search.scoring.refit import DOCUMENTED, WINNER

FILES = {DOCUMENTED: "predictions_documented.csv", WINNER: "predictions.csv"}
"""Where each candidate's predictions lie, the documented configuration's first."""


def material(root: Path, *, heatmaps: Sequence[Heatmap] = ()) -> Material:
    """Return what a run is explained with.

    Args:
        root: The run directory.
        heatmaps: What the network looked at; needs the model, and is not kept on disk but as a
            picture.

    Raises:
        RunDirectoryError: `predictions.csv` is damaged.
    """
    run = RunDirectory(root)
    config, evaluation = _read(run, "config.json"), _read(run, "evaluation.json")
    events = [e for e in run.events() if isinstance(e, dict) and "event" in e]
    curves: dict[str, ScoreCurves] = {}
    predictions: dict[str, Predictions] = {}
    for role, name in FILES.items():
        by_split = read_predictions_csv(root / name)
        said = by_split.get(Split.TEST) or by_split.get(Split.VALIDATION)
        if said is None:
            continue
        predictions[role] = said
        threshold = (exported(evaluation, role).get("threshold") or {}).get("value")
        found = score_curves(
            said,
            float(threshold) if is_number(threshold) else 0.5,
            seed=int(config.get("seed") or 0),
        )
        if found is not None:
            curves[role] = found
    return Material(
        objective=str(config.get("objective") or evaluation.get("objective") or "robust_loss"),
        records=trial_records(events),
        events=events,
        histories=refit_histories(refit_rows(events)),
        evaluation=evaluation,
        predictions={r: (said.labels, said.probabilities) for r, said in predictions.items()},
        curves=curves,
        heatmaps=heatmaps,
    )


def _read(run: RunDirectory, name: str) -> dict[str, Any]:
    with contextlib.suppress(RunDirectoryError, OSError, UnicodeDecodeError):
        found = run.read_json(name)
        return found if isinstance(found, dict) else {}
    return {}
