"""Sets the winner beside the documented configuration: the content of `evaluation.json`.

Computes from predictions and evaluations; knows no model, no image and no file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.records import (
    SYNTHETIC_NOTICE,
    Estimate,
    Evaluation,
    Predictions,
    Threshold,
    Values,
)
from search.scoring import effects
from search.scoring.bootstrap import REPEATS, paired_difference, subtype_recall
from search.scoring.metrics import (
    PREVALENCES,
    RANKING_METRICS,
    THRESHOLD_METRICS,
    mcnemar,
    npv_at_prevalence,
    ppv_at_prevalence,
)

FIRST = ("accuracy", "auc", "specificity", "recall", "loss")
COMPARED = (
    *FIRST,
    *(name for name in (*THRESHOLD_METRICS, *RANKING_METRICS) if name not in FIRST),
)
"""Metrics whose difference is reported, the ones most asked for first; those that depend on the
threshold at 0.5 and at each model's own."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A configuration, retrained and scored; one side of the comparison.

    Attributes:
        role: "winner" or "documented".
        values: Hyperparameter values.
        parameters: Parameter count of what is exported.
        exported_seed: The repetition that is exported, or compared with the exported one; None
            for the ensemble of all.
        test: Evaluations on test, one a seed; empty where there is no test set.
        validation: Evaluations on validation, one a seed.
        predictions: Predictions of what is exported on test, or on validation without one.
        ensemble_test: The ensemble's evaluation on test, () without one.
        ensemble_validation: The same on validation.
        test_predictions: Predictions of every seed on test, in the order of `test`.
    """

    role: str
    values: Values
    parameters: int
    exported_seed: int | None
    test: tuple[Evaluation, ...]
    validation: tuple[Evaluation, ...]
    predictions: Predictions
    ensemble_test: tuple[Evaluation, ...] = ()
    ensemble_validation: tuple[Evaluation, ...] = ()
    test_predictions: tuple[Predictions, ...] = ()

    @property
    def scored_on_test(self) -> tuple[Evaluation, ...]:
        """Return every evaluation on test, the ensemble's last."""
        return self.test + self.ensemble_test

    @property
    def exported(self) -> Evaluation:
        """Return the evaluation of what is exported, on test or without one on validation."""
        scored = self.scored_on_test or self.validation + self.ensemble_validation
        return next(item for item in scored if item.seed == self.exported_seed)


def compare(
    winner: Predictions,
    documented: Predictions,
    *,
    thresholds: tuple[Threshold, Threshold],
    seed: int,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """Compare two models on the same images.

    Args:
        winner: Predictions of the one.
        documented: Predictions of the other, on the same images in the same order.
        thresholds: Of the winner and of the documented configuration.
        seed: Seed of the resampling, common to both.
        repeats: Number of resamples.

    Returns:
        {"difference": winner − documented as `Estimate` by metric, at 0.5, and with the suffix
        "_at_threshold" at each one's own threshold; "mcnemar", "mcnemar_at_threshold": images
        that only one gets right, and the exact two-sided p value}.

    Raises:
        ValueError: The images are not the same.
    """
    if winner.paths != documented.paths or not np.array_equal(winner.labels, documented.labels):
        raise ValueError("the two sets of predictions are not of the same images")
    labels = winner.labels
    ours, theirs = winner.probabilities, documented.probabilities
    difference: dict[str, Estimate] = {}
    tests = {}
    cuts = {"": (0.5, 0.5), "_at_threshold": (thresholds[0].value, thresholds[1].value)}
    for suffix, pair in cuts.items():
        found = paired_difference(
            labels, ours, theirs, winner.patients, thresholds=pair, repeats=repeats, seed=seed
        )
        names = [n for n in COMPARED if not suffix or n in THRESHOLD_METRICS]
        difference |= {f"{name}{suffix}": found[name] for name in names}
        counted = mcnemar(labels, ours, theirs, thresholds=pair)
        tests[f"mcnemar{suffix}"] = {
            "only_winner_right": counted["first_only"],
            "only_documented_right": counted["second_only"],
            "p_value": counted["p_value"],
        }
    return {"difference": difference, **tests}


def compare_means(
    winner: Scored, documented: Scored, *, seed: int, repeats: int = REPEATS
) -> dict[str, Any]:
    """Compare two configurations by the means over their seeds.

    What one seed says of a configuration is half chance; the mean is what the next training may be
    expected to give.

    Args:
        winner: The one.
        documented: The other, retrained with the same seeds.
        seed: Seed of the resampling.
        repeats: Number of resamples.

    Returns:
        {"seeds", and by metric of `effects.TEST_METRICS` "over_patients": winner − documented,
        the mean over seeds, with its interval over patients, "over_seeds": the same with the
        interval over seeds}; {} unless both have the same two or more seeds.
    """
    sides = (winner, documented)
    if len(winner.test_predictions) < 2 or [e.seed for e in winner.test] != [
        e.seed for e in documented.test
    ]:
        return {}
    labels = winner.test_predictions[0].labels
    said = [np.stack([p.probabilities for p in side.test_predictions]) for side in sides]
    cuts = [[e.threshold.value for e in side.test] for side in sides]
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
        "seeds": len(winner.test),
        **{
            name: {
                "over_patients": over_patients[name],
                "over_seeds": effects.over_seeds(
                    [one[name] - other[name] for one, other in zip(*single, strict=True)]
                ),
            }
            for name in effects.TEST_METRICS
        },
    }


def evaluation_report(
    winner: Scored,
    documented: Scored,
    *,
    objective: str,
    synthetic: bool,
    test_scorings: int,
    bootstrap_seed: int,
    retraining: dict[str, Any] | None = None,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """Return the content of `evaluation.json`.

    Args:
        winner: The configuration that validation chose.
        documented: The documented configuration, retrained in the same way.
        objective: The metric that chose.
        synthetic: Whether the images are the built-in demo's.
        test_scorings: How many trained models this run has scored on the test set so far.
        bootstrap_seed: Seed of the intervals' resampling.
        retraining: How the winner was retrained, see `retraining.recipe`.
        repeats: Number of resamples.

    Returns:
        "split" says which images subtypes and predictive values are of. Without a test set there
        is no comparison: validation chose the winner, so on validation it would look too good.
    """
    compared: dict[str, Any] = {"difference": {}, "mcnemar": {}}
    if winner.test and documented.test:
        compared = compare(
            winner.predictions,
            documented.predictions,
            thresholds=(winner.exported.threshold, documented.exported.threshold),
            seed=bootstrap_seed,
            repeats=repeats,
        )
        means = compare_means(winner, documented, seed=bootstrap_seed, repeats=repeats)
        if means:
            compared["difference_over_seeds"] = means
    return {
        "synthetic": synthetic,
        "notice": SYNTHETIC_NOTICE if synthetic else None,
        "objective": objective,
        "split": winner.predictions.split,
        "retraining": retraining or {},
        "winner": _side(winner),
        "documented": _side(documented),
        **compared,
        "subtypes": {
            side.role: _subtypes(side, seed=bootstrap_seed, repeats=repeats)
            for side in (winner, documented)
        },
        "test_scorings": test_scorings,
        "ppv_at_prevalence": {
            side.role: _predictive(side.exported, ppv_at_prevalence)
            for side in (winner, documented)
        },
        "npv_at_prevalence": {
            side.role: _predictive(side.exported, npv_at_prevalence)
            for side in (winner, documented)
        },
    }


def _side(scored: Scored) -> dict[str, Any]:
    return {
        "values": scored.values,
        "parameters": scored.parameters,
        "exported_seed": scored.exported_seed,
        "test": list(scored.test),
        "validation": list(scored.validation),
        "spread": _spread(scored.test or scored.validation),
        **_ensemble(scored),
    }


def _ensemble(scored: Scored) -> dict[str, Any]:
    """Return the ensemble's evaluations, set apart: they are no further seed."""
    if scored.exported_seed is not None:
        return {}
    return {
        "ensemble": {
            "members": len(scored.validation),
            "parameters": scored.parameters,
            "test": list(scored.ensemble_test),
            "validation": list(scored.ensemble_validation),
        }
    }


def _spread(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return mean, standard deviation and range over seeds of every metric."""
    found: dict[str, Any] = {}
    for table in ("ranking", "at_half", "at_threshold"):
        found[table] = {}
        for name in getattr(evaluations[0], table) if evaluations else ():
            values = [getattr(item, table)[name].value for item in evaluations]
            if not all(map(math.isfinite, values)):
                # E.g. the precision of a seed that calls nobody ill: no mean over the others.
                found[table][name] = dict.fromkeys(("mean", "sd", "min", "max"))
                continue
            found[table][name] = {
                "mean": statistics.fmean(values),
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "min": min(values),
                "max": max(values),
            }
    return found


def _subtypes(scored: Scored, *, seed: int, repeats: int) -> dict[str, Any]:
    said = scored.predictions
    cuts = {"at_half": 0.5, "at_threshold": scored.exported.threshold.value}
    return {
        "count": {kind: said.subtypes.count(kind) for kind in ("bacteria", "virus")},
        **{
            place: subtype_recall(
                said.labels,
                said.probabilities,
                said.subtypes,
                said.patients,
                cut,
                repeats=repeats,
                seed=seed,
            )
            for place, cut in cuts.items()
        },
    }


def _predictive(
    evaluation: Evaluation, value: Callable[..., dict[str, float]]
) -> dict[str, dict[str, float]]:
    return {
        place: value(
            sensitivity=table["recall"].value,
            specificity=table["specificity"].value,
            prevalences=PREVALENCES,
        )
        for place, table in (
            ("at_half", evaluation.at_half),
            ("at_threshold", evaluation.at_threshold),
        )
    }
