"""Predicts a split, scores the predictions, and writes them down.

Takes any Keras model as an argument and imports none; knows no run directory. The same functions
score validation and test, so that the two differ in the images alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from search.errors import ModelError, RunDirectoryError
from search.records import Estimate, Evaluation, Predictions, Split, Subset, Threshold
from search.run_directory import write_text
from search.scoring.bootstrap import REPEATS, bootstrap_intervals
from search.scoring.metrics import RANKING_METRICS, THRESHOLD_METRICS, check_images, confusion
from search.scoring.refit import DOCUMENTED, WINNER

PREDICTION_FILES = {DOCUMENTED: "predictions_documented.csv", WINNER: "predictions.csv"}
"""Where the predictions of each candidate's exported seed lie in a run directory."""


class Predictor(Protocol):
    """What is needed of a Keras model."""

    def predict_on_batch(self, x: Any) -> Any:
        """Return (batch, 1) probabilities of (batch, S, S, 1) images."""


def predict_images(model: Predictor, images: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Return a model's probabilities.

    Args:
        model: `uint8` (batch, S, S, 1) to (batch, 1).
        images: `uint8` (n, S, S, 1), in memory or memory-mapped; read batch by batch.
        batch_size: Images at a time.

    Returns:
        `float64` (n,).

    Raises:
        ModelError: The model gives something other than a probability.
    """
    return _predict(model, images, np.arange(len(images)), batch_size=batch_size)


def predict_subset(
    model: Predictor, subset: Subset, split: Split, *, batch_size: int = 64
) -> Predictions:
    """Predict every image of a split, the last partial batch included.

    Args:
        model: `uint8` (batch, S, S, 1) to (batch, 1).
        subset: The images; read from the memory map batch by batch.
        split: Which split they are.
        batch_size: Images at a time.

    Raises:
        ModelError: The model gives something other than a probability.
    """
    return Predictions(
        split=split,
        paths=subset.paths,
        patients=subset.patients,
        subtypes=subset.subtypes,
        labels=np.asarray(subset.labels),
        probabilities=_predict(model, subset.open_array(), subset.rows, batch_size=batch_size),
    )


def evaluate(
    predictions: Predictions,
    threshold: Threshold,
    *,
    role: str,
    seed: int | None,
    bootstrap_seed: int,
    repeats: int = REPEATS,
) -> Evaluation:
    """Score the predictions of one model on one split.

    Args:
        predictions: What it said.
        threshold: Its stored threshold.
        role: "documented" or "winner".
        seed: Which repetition of its training, None for the ensemble of all.
        bootstrap_seed: Seed of the intervals' resampling.
        repeats: Number of resamples.
    """
    labels, probabilities = predictions.labels, predictions.probabilities

    def estimates(value: float) -> dict[str, Estimate]:
        return bootstrap_intervals(
            labels,
            probabilities,
            predictions.patients,
            value,
            repeats=repeats,
            seed=bootstrap_seed,
        )

    at_half = estimates(0.5)
    at_threshold = at_half if threshold.value == 0.5 else estimates(threshold.value)
    return Evaluation(
        role=role,
        seed=seed,
        split=predictions.split,
        count=len(labels),
        ranking={name: at_half[name] for name in RANKING_METRICS},
        at_half={name: at_half[name] for name in THRESHOLD_METRICS},
        at_threshold={name: at_threshold[name] for name in THRESHOLD_METRICS},
        threshold=threshold,
        confusion_at_half=confusion(labels, probabilities, 0.5),
        confusion_at_threshold=confusion(labels, probabilities, threshold.value),
    )


def write_predictions_csv(path: Path, predictions: Sequence[Predictions]) -> Path:
    """Write `predictions.csv`: path, patient, label (0 or 1), probability, split, subtype.

    Raises:
        StorageError: The disk is full or read-only.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "patient", "label", "probability", "split", "subtype"))
    for part in predictions:
        columns = (part.paths, part.patients, part.labels.tolist(), part.probabilities.tolist())
        for *row, subtype in zip(*columns, part.subtypes, strict=True):
            writer.writerow((*row, part.split.value, subtype))
    return write_text(path, text.getvalue())


def read_predictions_csv(path: Path) -> dict[Split, Predictions]:
    """Read what `write_predictions_csv` wrote.

    Args:
        path: The file; files of earlier versions have no subtypes, which are then "".

    Returns:
        Predictions by split; {} if there is no file.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    if not path.exists():
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        found = {}
        for split in Split:
            mine = [row for row in rows if row["split"] == split.value]
            if mine:
                found[split] = _from_rows(split, mine)
    except (KeyError, ValueError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise RunDirectoryError(
            f"{path}: damaged ({error!r}); run `python -m search.evaluate` to score again"
        ) from None
    return found


def _from_rows(split: Split, rows: Sequence[dict[str, str]]) -> Predictions:
    labels, probabilities = check_images(
        np.array([int(row["label"]) for row in rows]),
        np.array([float(row["probability"]) for row in rows]),
    )
    return Predictions(
        split=split,
        paths=tuple(row["path"] for row in rows),
        patients=tuple(row["patient"] for row in rows),
        subtypes=tuple(row.get("subtype") or "" for row in rows),
        labels=labels.astype(np.int8),
        probabilities=probabilities,
    )


def _predict(
    model: Predictor, images: np.ndarray, rows: np.ndarray, *, batch_size: int
) -> np.ndarray:
    probabilities = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        # A batch of another size is compiled anew, seconds on some backends: the last one is
        # filled up with copies of its last image, whose answers are dropped.
        lacking = max(0, start + batch_size - len(rows)) if start else 0
        filled = np.concatenate([chosen, np.repeat(chosen[-1:], lacking)])
        answers = np.asarray(model.predict_on_batch(images[filled]), dtype=np.float64)
        if answers.shape not in ((len(filled), 1), (len(filled),)):
            raise ModelError(
                f"the model gives an array of shape {answers.shape} for {len(filled)} images; "
                "one probability an image is needed"
            )
        probabilities[start : start + len(chosen)] = answers.reshape(-1)[: len(chosen)]
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ModelError(
            "the model gives values that are no probabilities (NaN, or outside 0 to 1); its "
            "training diverged, or it lacks the final sigmoid"
        )
    return probabilities
