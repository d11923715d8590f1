"""Gathers what a run is explained with, from its directory: records, predictions, their curves.

Stands between the command lines and the rooms: `scoring` computes the curves, their bands and the
heatmaps, `reporting` makes insights of them. The same for a run that just ended and for one that is
rebuilt, whichever version made it; what a directory lacks is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search import backend
from search.data.decode import load_gray
from search.errors import DataError, ModelError, RunDirectoryError
from search.evidence import Heatmap, ScoreCurves
from search.records import Predictions, Split
from search.reporting.facts import mapping
from search.reporting.insights.material import Material
from search.reporting.insights.scores import exported
from search.reporting.progress import RunProgress
from search.reporting.trials import refit_histories, refit_rows
from search.reporting.wording import is_number
from search.run_directory import RunDirectory
from search.scoring.curves import score_curves
from search.scoring.exemplars import chosen_images
from search.scoring.predictions import PREDICTION_FILES, read_predictions_csv
from search.scoring.refit import WINNER

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


def look(root: Path, *, warn: Callable[[str], None]) -> list[Heatmap]:
    """Return where the exported model found the reason for some of its decisions.

    The few images are decoded anew from the data folder, so that this works as long as that and
    `model.keras` are there, however old the run is.

    Args:
        root: The run directory.
        warn: Told why there are none, where the run has a model.

    Returns:
        The most confident misses of both kinds and some hits, see `exemplars`; [] where the model
        or an image is not to be had.

    Raises:
        RunDirectoryError: `predictions.csv` is damaged.
    """
    run = RunDirectory(root)
    dataset, evaluation = _read(run, "dataset.json"), _read(run, "evaluation.json")
    folder = mapping(dataset.get("source")).get("root")
    size = _read(run, "config.json").get("image_size")
    said = _predictions(root, WINNER)
    if said is None or not folder or not is_number(size) or not (root / MODEL).exists():
        return []
    threshold = _threshold(evaluation, WINNER)
    shown = _taken(said, chosen_images(said, threshold=threshold))
    if not shown.paths:
        return []
    try:
        pixels = [load_gray(Path(folder) / path, int(size)) for path in shown.paths]
        images = np.stack(pixels)[..., None]
        backend.load()
        from search.scoring.export import load_model  # both import Keras, which takes seconds
        from search.scoring.gradcam import explain_images

        return explain_images(load_model(root / MODEL).model, shown, images, threshold=threshold)
    except (DataError, ModelError) as error:
        warn(f"no heatmaps: {error}")
        return []


def _predictions(root: Path, role: str) -> Predictions | None:
    """Return what a role's exported seed said of the test, or of validation without a test."""
    by_split = read_predictions_csv(root / PREDICTION_FILES[role])
    return by_split.get(Split.TEST) or by_split.get(Split.VALIDATION)


def _taken(said: Predictions, rows: np.ndarray) -> Predictions:
    return Predictions(
        split=said.split,
        paths=tuple(said.paths[i] for i in rows),
        patients=tuple(said.patients[i] for i in rows),
        subtypes=tuple(said.subtypes[i] for i in rows),
        labels=said.labels[rows],
        probabilities=said.probabilities[rows],
    )


def _threshold(evaluation: dict[str, Any], role: str) -> float:
    value = mapping(exported(evaluation, role).get("threshold")).get("value")
    return float(value) if is_number(value) else 0.5


def _read(run: RunDirectory, name: str) -> dict[str, Any]:
    with contextlib.suppress(RunDirectoryError, OSError, UnicodeDecodeError):
        found = run.read_json(name)
        return found if isinstance(found, dict) else {}
    return {}
