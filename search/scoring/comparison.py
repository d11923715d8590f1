"""Sets the winner beside the baseline: the content of `evaluation.json`.

Computes from predictions and evaluations; knows no model, no image and no file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.records import (
    Comparison,
    Estimate,
    Evaluation,
    Finalist,
    McNemar,
    Predictions,
    RetrainingRecipe,
    Scored,
    SeedDifference,
    Spread,
    Threshold,
)
from search.scoring import effects
from search.scoring.bootstrap import REPEATS, paired_difference, subtype_recall
from search.scoring.metrics import RANKING_METRICS, THRESHOLD_METRICS
from search.scoring.metrics import mcnemar as mcnemar_test

FIRST = ("accuracy", "auc", "specificity", "recall", "loss")
COMPARED = (
    *FIRST,
    *(name for name in (*THRESHOLD_METRICS, *RANKING_METRICS) if name not in FIRST),
)
"""Metrics whose difference is reported, the ones most asked for first; those that depend on the
threshold at 0.5 and at each model's own."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the comparison, with the predictions that it is computed from.

    Attributes:
        scored: What is kept of it.
        predictions: Predictions of what is exported on test, or on validation without one.
        test_predictions: Predictions of every seed on test, in the order of `scored.test`.
    """

    scored: Scored
    predictions: Predictions
    test_predictions: tuple[Predictions, ...] = ()


def exported(scored: Scored) -> Evaluation:
    """Return the evaluation of what is exported, on test or without one on validation."""
    networks = (*scored.test, *scored.ensemble_test) or (
        *scored.validation,
        *scored.ensemble_validation,
    )
    return next(item for item in networks if item.seed == scored.exported_seed)


def compare(
    winner: Predictions,
    baseline: Predictions,
    *,
    thresholds: tuple[Threshold, Threshold],
    seed: int,
    repeats: int = REPEATS,
) -> tuple[dict[str, Estimate], dict[str, McNemar]]:
    """Compare two models on the same images.

    Args:
        winner: Predictions of the one.
        baseline: Predictions of the other, on the same images in the same order.
        thresholds: Of the winner and of the baseline.
        seed: Seed of the resampling, common to both.
        repeats: Number of resamples.

    Returns:
        winner − baseline by metric, at 0.5, and with the suffix "_at_threshold" at each one's own
        threshold; McNemar's test "at_half" and "at_threshold".

    Raises:
        ValueError: The images are not the same.
    """
    if winner.paths != baseline.paths or not np.array_equal(winner.labels, baseline.labels):
        raise ValueError("the two sets of predictions are not of the same images")
    labels = winner.labels
    ours, theirs = winner.probabilities, baseline.probabilities
    difference: dict[str, Estimate] = {}
    tests: dict[str, McNemar] = {}
    cuts = {"": (0.5, 0.5), "_at_threshold": (thresholds[0].value, thresholds[1].value)}
    for suffix, pair in cuts.items():
        found = paired_difference(
            labels, ours, theirs, winner.patients, thresholds=pair, repeats=repeats, seed=seed
        )
        names = [n for n in COMPARED if not suffix or n in THRESHOLD_METRICS]
        difference |= {f"{name}{suffix}": found[name] for name in names}
        counted = mcnemar_test(labels, ours, theirs, thresholds=pair)
        tests[suffix.removeprefix("_") or "at_half"] = McNemar(
            only_winner_right=int(counted["first_only"]),
            only_baseline_right=int(counted["second_only"]),
            p_value=counted["p_value"],
        )
    return difference, tests


def compare_means(
    winner: Side, baseline: Side, *, seed: int, repeats: int = REPEATS
) -> dict[str, SeedDifference]:
    """Compare two configurations by the means over their seeds.

    What one seed says of a configuration is half chance; the mean is what the next training may be
    expected to give.

    Args:
        winner: The one.
        baseline: The other, retrained with the same seeds.
        seed: Seed of the resampling.
        repeats: Number of resamples.

    Returns:
        By metric of `effects.TEST_METRICS`; {} unless both have the same two or more seeds.
    """
    sides = (winner, baseline)
    if len(winner.test_predictions) < 2 or [e.seed for e in winner.scored.test] != [
        e.seed for e in baseline.scored.test
    ]:
        return {}
    labels = winner.test_predictions[0].labels
    said = [np.stack([p.probabilities for p in side.test_predictions]) for side in sides]
    cuts = [[e.threshold.value for e in side.scored.test] for side in sides]
    over_patients = effects.over_patients(
        labels,
        said[0],
        said[1],
        winner.test_predictions[0].patients,
        thresholds=(cuts[0], cuts[1]),
        repeats=repeats,
        seed=seed,
    )
    single = [
        [effects.scores(labels, row, cut) for row, cut in zip(rows, own, strict=True)]
        for rows, own in zip(said, cuts, strict=True)
    ]
    return {
        name: SeedDifference(
            value=over_patients[name].value,
            patients=over_patients[name],
            seeds=effects.over_seeds(
                [one[name] - other[name] for one, other in zip(*single, strict=True)]
            ),
        )
        for name in effects.TEST_METRICS
    }


def evaluation_report(
    winner: Side,
    baseline: Side,
    *,
    classes: tuple[str, str],
    objective: str,
    synthetic: bool,
    retraining: RetrainingRecipe,
    finalists: tuple[Finalist, ...],
    calibration: dict[str, Any],
    test_evaluations: int,
    times_evaluated: int,
    bootstrap_seed: int,
    repeats: int = REPEATS,
) -> Comparison:
    """Return the content of `evaluation.json`.

    Args:
        winner: The configuration that validation chose.
        baseline: The baseline, retrained in the same way.
        classes: Names of the negative and the positive class.
        objective: The metric that chose.
        synthetic: Whether the images are the built-in demo's.
        retraining: How the finalists were retrained.
        finalists: Everything that was retrained, best first.
        calibration: See `exporting.calibration_report`.
        test_evaluations: How many networks this run has scored on the test set so far.
        times_evaluated: How often it did.
        bootstrap_seed: Seed of the intervals' resampling.
        repeats: Number of resamples.

    Returns:
        Without a test set there is no comparison: validation chose the winner, so on validation it
        would look too good.
    """
    difference: dict[str, Estimate] = {}
    mcnemar: dict[str, McNemar] = {}
    means: dict[str, SeedDifference] = {}
    if winner.scored.test and baseline.scored.test:
        difference, mcnemar = compare(
            winner.predictions,
            baseline.predictions,
            thresholds=(exported(winner.scored).threshold, exported(baseline.scored).threshold),
            seed=bootstrap_seed,
            repeats=repeats,
        )
        means = compare_means(winner, baseline, seed=bootstrap_seed, repeats=repeats)
    return Comparison(
        classes=classes,
        split=winner.predictions.split,
        objective=objective,
        synthetic=synthetic,
        baseline=baseline.scored,
        winner=winner.scored,
        difference=difference,
        mean_difference=means,
        mcnemar=mcnemar,
        subgroups=_subgroups(winner, seed=bootstrap_seed, repeats=repeats),
        calibration=calibration,
        retraining=retraining,
        finalists=finalists,
        test_evaluations=test_evaluations,
        times_evaluated=times_evaluated,
    )


def spread(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Spread]]:
    """Return mean, standard deviation and range over seeds of every metric, NaN without a mean."""
    found: dict[str, dict[str, Spread]] = {}
    for table in ("ranking", "at_half", "at_threshold"):
        found[table] = {}
        for name in getattr(evaluations[0], table) if evaluations else ():
            values = [getattr(item, table)[name].value for item in evaluations]
            if not all(map(math.isfinite, values)):
                # E.g. the precision of a seed that never calls positive: no mean over the others.
                values = [math.nan]
            found[table][name] = Spread(
                mean=statistics.fmean(values),
                sd=statistics.stdev(values) if len(values) > 1 else math.nan,
                min=min(values),
                max=max(values),
            )
    return found


def _subgroups(side: Side, *, seed: int, repeats: int) -> dict[str, dict[str, Estimate]]:
    """Return the winner's sensitivity to each kind that file names tell apart, if they do."""
    said = side.predictions
    if not any(said.subtypes):
        return {}
    found = subtype_recall(
        said.labels,
        said.probabilities,
        said.subtypes,
        said.patients,
        exported(side.scored).threshold.value,
        repeats=repeats,
        seed=seed,
    )
    return {kind: {"sensitivity": estimate} for kind, estimate in found.items()}
