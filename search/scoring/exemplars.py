"""Picks the images that stand for how a model decides, and shows where it looked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from search import backend
from search.data.decode import load_image
from search.errors import DataError, ModelError
from search.evidence import Heatmap
from search.records import Comparison, DatasetReport, Predictions, Split
from search.run_directory import RunDirectory
from search.scoring.comparison import exported
from search.scoring.predictions import PREDICTION_FILES, read_predictions_csv
from search.scoring.refit import WINNER

MODEL = "model.keras"

PER_GROUP = 4
"""Images of each group: missed, false alarm, found, healthy."""

GROUPS = ((1, False), (0, True), (1, True), (0, False))
"""(label, called PNEUMONIA) in that order."""


def chosen_images(predictions: Predictions, *, threshold: float) -> np.ndarray:
    """Return, `int64`, the positions of the images that are shown, at most `PER_GROUP` a group.

    Of the misses the most confident ones; of the hits ones spread evenly over their probabilities,
    so that nobody picks the pretty ones.

    Args:
        predictions: What the model said.
        threshold: PNEUMONIA at or above it.
    """
    said, labels = predictions.probabilities, predictions.labels
    called = said >= threshold
    chosen: list[int] = []
    for label, decision in GROUPS:
        group = np.flatnonzero((labels == label) & (called == decision))
        group = group[np.argsort(said[group], kind="stable")]
        if bool(label) == decision:
            places = np.linspace(0, len(group) - 1, min(PER_GROUP, len(group))).round().astype(int)
            chosen.extend(group[places].tolist())
        else:
            # The missed with the lowest probabilities, the false alarms with the highest.
            ordered = group if label else group[::-1]
            chosen.extend(ordered[:PER_GROUP].tolist())
    return np.array(chosen, dtype=np.int64)


def look_at_misses(run: RunDirectory, *, warn: Callable[[str], None]) -> list[Heatmap]:
    """Return where the exported model found the reason for some of its decisions.

    The few images are decoded again from the data folder.

    Args:
        run: A run that was scored.
        warn: Told why there are none, where the run has a model.

    Returns:
        The most confident misses of both kinds and some hits; [] where the model or an image is
        not to be had.

    Raises:
        RunDirectoryError: A record of the run is damaged.
    """
    predictions = run.root / PREDICTION_FILES[WINNER]
    if not (run.root / MODEL).exists() or not predictions.exists():
        return []
    dataset = run.read(DatasetReport, "dataset.json")
    winner = exported(run.read(Comparison, "evaluation.json").winner)
    by_split = read_predictions_csv(predictions)
    said = by_split.get(Split.TEST) or by_split[Split.VALIDATION]
    shown = _taken(said, chosen_images(said, threshold=winner.threshold.value))
    folder = Path(dataset.source.root)
    try:
        images = [
            load_image(
                folder / path, dataset.image_size, channels=dataset.channels, bits=dataset.depth
            ).pixels
            for path in shown.paths
        ]
        backend.load()
        from search.scoring.export import load_model  # both import Keras, which takes seconds
        from search.scoring.gradcam import explain_images

        model = load_model(run.root / MODEL).model
        return explain_images(model, shown, np.stack(images), threshold=winner.threshold.value)
    except (DataError, ModelError) as error:
        warn(f"no heatmaps: {error}")
        return []


def _taken(said: Predictions, rows: np.ndarray) -> Predictions:
    return Predictions(
        split=said.split,
        paths=tuple(said.paths[i] for i in rows),
        patients=tuple(said.patients[i] for i in rows),
        subtypes=tuple(said.subtypes[i] for i in rows),
        labels=said.labels[rows],
        probabilities=said.probabilities[rows],
    )
