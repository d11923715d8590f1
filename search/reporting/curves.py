"""Computes what the plots show, as plain data with column names; `plots` draws it.

The same data is written beside each picture as JSON, so that a report can show the numbers and
anybody can draw them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.config import direction
from search.records import TrialRecord, TrialStatus
from search.reporting.facts import mapping
from search.reporting.trials import Row, finalists
from search.reporting.verdict import chosen
from search.reporting.wording import is_number

Predicted = tuple[np.ndarray, np.ndarray]
"""Labels (n,) of 0 and 1, and probabilities (n,) of 1."""

CURVES = ("loss", "val_loss", "stress_loss", "val_auc", "stress_auc")
"""Metrics of the training curves, besides the objective."""


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """One candidate's retraining.

    Attributes:
        name: E.g. "winner, seed 0".
        epochs: Epoch numbers, ascending.
        metrics: Values by metric, aligned with `epochs`, NaN where missing.
    """

    name: str
    epochs: tuple[int, ...]
    metrics: dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """One configuration's scores, rung by rung.

    Attributes:
        configuration: Its number; 0 is the documented one.
        bracket: Its bracket.
        epochs: Epochs at the end of each of its trials.
        scores: Score of each, aligned with `epochs`.
        winner: Whether it is the best at the largest budget.
    """

    configuration: int
    bracket: int
    epochs: tuple[int, ...]
    scores: tuple[float, ...]
    winner: bool


@dataclass(frozen=True, kw_only=True)
class RocCurve:
    """A receiver operating characteristic.

    Attributes:
        name: The candidate.
        false_positive_rate: 1 − specificity, from 0 to 1.
        true_positive_rate: Sensitivity, aligned with it.
        threshold: Probability at each point; the first is infinite.
        auc: Area under the curve.
        operating_point: (1 − specificity, sensitivity) at the stored threshold, if known.
    """

    name: str
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    threshold: tuple[float, ...]
    auc: float
    operating_point: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts at one threshold.

    Attributes:
        name: E.g. "winner at 0.5".
        tn: Healthy, called healthy.
        fp: Healthy, called ill.
        fn: Ill, called healthy.
        tp: Ill, called ill.
    """

    name: str
    tn: int
    fp: int
    fn: int
    tp: int


def training_curves(
    histories: Mapping[str, Sequence[Row]], *, objective: str
) -> list[TrainingCurve]:
    """Return a curve a candidate from the rows of the retraining.

    Args:
        histories: Rows by candidate; metrics flat in the row, or under "metrics".
        objective: Its values are kept beside the usual metrics.
    """
    curves = []
    for name, rows in histories.items():
        ordered = sorted(rows, key=lambda row: int(row["epoch"]))
        if not ordered:
            continue
        curves.append(
            TrainingCurve(
                name=name,
                epochs=tuple(int(row["epoch"]) for row in ordered),
                metrics={
                    key: tuple(
                        _value({**row, **mapping(row.get("metrics"))}, key) for row in ordered
                    )
                    for key in dict.fromkeys((*CURVES, objective))
                },
            )
        )
    return curves


def trials_by_rung(records: Sequence[TrialRecord], *, objective: str) -> list[TrialLine]:
    """Return a line a configuration: its score at the end of every rung it completed."""
    best = next(iter(finalists(records, direction(objective))), None)
    lines: dict[tuple[int, int], list[TrialRecord]] = {}
    for record in records:
        if record.status is TrialStatus.COMPLETED and is_number(record.score):
            lines.setdefault((record.iteration, record.configuration), []).append(record)
    found = []
    for group in lines.values():
        group.sort(key=lambda record: record.epochs)
        found.append(
            TrialLine(
                configuration=group[0].configuration,
                bracket=group[0].bracket,
                epochs=tuple(record.epochs for record in group),
                scores=tuple(record.score for record in group if record.score is not None),
                winner=best in group,
            )
        )
    return found


def roc(
    predictions: Mapping[str, Predicted], *, evaluation: dict[str, Any] | None = None
) -> list[RocCurve]:
    """Return the ROC curve of every candidate that has both classes.

    Args:
        predictions: Labels and probabilities by candidate.
        evaluation: Content of `evaluation.json`, for the operating points.
    """
    curves = []
    for name, (labels, probabilities) in predictions.items():
        truth = np.asarray(labels).astype(np.int64)
        scores = np.asarray(probabilities, dtype=np.float64)
        if len(np.unique(truth)) < 2 or not np.isfinite(scores).all():
            continue
        order = np.argsort(-scores, kind="stable")
        # Images of equal probability are called together: one point for all of them.
        last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        called = np.cumsum(truth[order])[last]
        tpr = np.concatenate([[0.0], called / truth.sum()])
        fpr = np.concatenate([[0.0], (last + 1 - called) / (truth == 0).sum()])
        curves.append(
            RocCurve(
                name=name,
                false_positive_rate=tuple(fpr.tolist()),
                true_positive_rate=tuple(tpr.tolist()),
                threshold=(float("inf"), *scores[order][last].tolist()),
                auc=float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)),
                operating_point=_operating_point(name, truth, scores, evaluation or {}),
            )
        )
    return curves


def confusion(evaluation: dict[str, Any]) -> list[Confusion]:
    """Return the test's matrices: documented and winner, at 0.5 and at the stored threshold."""
    found = []
    like = chosen(mapping(evaluation.get("winner"))).get("seed")
    for role in ("documented", "winner"):
        scored = chosen(mapping(evaluation.get(role)), like=like)
        threshold = mapping(scored.get("threshold")).get("value")
        at = f"{threshold:.3f}" if is_number(threshold) else "threshold"
        for key, where in (("confusion_at_half", "0.5"), ("confusion_at_threshold", at)):
            counts = mapping(scored.get(key))
            if {"tn", "fp", "fn", "tp"} <= counts.keys():
                found.append(
                    Confusion(
                        name=f"{role} at {where}",
                        **{k: int(counts[k]) for k in ("tn", "fp", "fn", "tp")},
                    )
                )
    return found


def _operating_point(
    name: str, truth: np.ndarray, scores: np.ndarray, evaluation: dict[str, Any]
) -> tuple[float, float] | None:
    role = name.split(",")[0].strip()
    like = chosen(mapping(evaluation.get("winner"))).get("seed")
    scored = chosen(mapping(evaluation.get(role)), like=like)
    threshold = mapping(scored.get("threshold")).get("value")
    if not is_number(threshold):
        return None
    called = scores >= threshold
    return float(called[truth == 0].mean()), float(called[truth == 1].mean())


def _value(row: Row, key: str) -> float:
    value = row.get(key)
    return float(value) if is_number(value) else float("nan")
