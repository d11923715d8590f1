"""Predicts a split in batches, scores the predictions, and writes them down.

Takes any Keras model as an argument and imports none; knows no run directory. The same functions
score validation and test, so that the two differ in the images alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search.errors import ModelError, RunDirectoryError, read_errors
from search.records import Evaluation, Predictions, Split, Subset, Threshold
from search.run_directory import write_text
from search.scoring.bootstrap import AT_THRESHOLD, REPEATS, bootstrap_intervals
from search.scoring.formats import Predictor
from search.scoring.metrics import RANKING_METRICS, THRESHOLD_METRICS, check_images, confusion

BASELINE = "baseline"
WINNER = "winner"

PREDICTION_FILES = {BASELINE: "predictions_baseline.csv", WINNER: "predictions.csv"}
"""Where the predictions of each role's exported seed lie in a run directory."""

COLUMNS = ("path", "patient", "label", "probability", "split", "subtype")


def predict_images(
    model: Predictor,
    images: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    batch_size: int = 64,
    filled: bool = False,
) -> np.ndarray:
    """Return a model's probabilities.

    Args:
        model: `uint8` (batch, height, width, channels) to (batch, 1).
        images: `uint8` (n, height, width, channels), in memory or memory-mapped; read batch by
            batch.
        rows: `int64` (m,), which of them and in which order; None for all.
        batch_size: Images at a time.
        filled: Whether a single batch is filled up too, for a model that met this size before.

    Returns:
        `float64` (m,).

    Raises:
        ModelError: The model gives something other than a probability.
    """
    rows = np.arange(len(images)) if rows is None else rows
    probabilities = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        # Another batch size is compiled again, which takes seconds on some backends: the last batch
        # is filled up with copies of its last image, whose probabilities are dropped.
        lacking = batch_size - len(chosen) if start or filled else 0
        batch = images[np.concatenate([chosen, np.repeat(chosen[-1:], lacking)])]
        found = np.asarray(model.predict_on_batch(batch), dtype=np.float64)
        if found.shape not in ((len(batch), 1), (len(batch),)):
            raise ModelError(
                f"the model gives an array of shape {found.shape} for {len(batch)} images; one "
                "probability per image is needed"
            )
        probabilities[start : start + len(chosen)] = found.reshape(-1)[: len(chosen)]
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ModelError(
            "the model gives values that are no probabilities (NaN, or outside 0 to 1); its "
            "training diverged, or it lacks the final sigmoid"
        )
    return probabilities


def predict_subset(
    model: Predictor, subset: Subset, split: Split, *, batch_size: int = 64
) -> Predictions:
    """Predict every image of a split, see `predict_images`."""
    return Predictions(
        split=split,
        paths=subset.paths,
        patients=subset.patients,
        subtypes=subset.subtypes,
        labels=np.asarray(subset.labels),
        probabilities=predict_images(
            model, subset.open_array(), subset.rows, batch_size=batch_size
        ),
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
    """Score the predictions of one model on one split, at its stored threshold and at 0.5.

    `seed` is that of its training, None for an ensemble; `bootstrap_seed` the resampling's.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    found = bootstrap_intervals(predictions, threshold.value, repeats=repeats, seed=bootstrap_seed)
    return Evaluation(
        role=role,
        seed=seed,
        split=predictions.split,
        count=len(labels),
        ranking={name: found[name] for name in RANKING_METRICS},
        at_half={name: found[name] for name in THRESHOLD_METRICS},
        at_threshold={name: found[f"{name}{AT_THRESHOLD}"] for name in THRESHOLD_METRICS},
        threshold=threshold,
        confusion_at_half=confusion(labels, probabilities, 0.5),
        confusion_at_threshold=confusion(labels, probabilities, threshold.value),
    )


def write_predictions_csv(path: Path, predictions: Sequence[Predictions]) -> Path:
    """Write `predictions.csv`, a row per image, see `COLUMNS`.

    Raises:
        StorageError: The disk is full or read-only.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in predictions:
        columns = (part.paths, part.patients, part.labels.tolist(), part.probabilities.tolist())
        for *row, subtype in zip(*columns, part.subtypes, strict=True):
            writer.writerow((*row, part.split.value, subtype))
    return write_text(path, text.getvalue())


def read_predictions_csv(path: Path) -> dict[Split, Predictions]:
    """Read what `write_predictions_csv` wrote.

    Returns:
        Predictions by split; {} if there is no file.

    Raises:
        RunDirectoryError: The file is damaged, or may not be read.
    """
    if not path.exists():
        return {}
    try:
        with read_errors(path), open(path, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        by_split = {split: [row for row in rows if row["split"] == split] for split in Split}
        return {split: _from_rows(split, mine) for split, mine in by_split.items() if mine}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise RunDirectoryError(
            f"{path}: damaged ({error!r}); run `python -m search.evaluate` to score again"
        ) from None


def scored_split(by_split: dict[Split, Predictions]) -> Predictions | None:
    """Return the predictions of test, or of validation without a test set."""
    return by_split.get(Split.TEST) or by_split.get(Split.VALIDATION)


def _from_rows(split: Split, rows: Sequence[dict[str, str]]) -> Predictions:
    labels, probabilities = check_images(
        np.array([int(row["label"]) for row in rows]),
        np.array([float(row["probability"]) for row in rows]),
    )
    return Predictions(
        split=split,
        paths=tuple(row["path"] for row in rows),
        patients=tuple(row["patient"] for row in rows),
        subtypes=tuple(row["subtype"] for row in rows),
        labels=labels.astype(np.int8),
        probabilities=probabilities,
    )
