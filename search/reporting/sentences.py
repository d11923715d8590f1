"""The verdict in words; pure. Other words of reports are in `templates/sentences.j2`.

Better or worse is said where every 95% interval lies on that side of 0, see `scoring.bootstrap`.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from search.records import Comparison, Estimate, Evaluation, Scored, Values
from search.reporting.format import differing, interval, metric, metric_name, plural, signed, usable
from search.scoring.bootstrap import judge

HEADLINES = ("auc", "accuracy", "recall", "specificity")
"""Metrics of the tiles and of the end of a run."""


class Headline(NamedTuple):
    """One metric of both sides, at each network's stored threshold where that matters."""

    key: str
    name: str  # what people call it
    baseline: float  # the mean over its seeds
    winner: float
    difference: Estimate  # winner − baseline; of several intervals the widest
    outcome: str  # "better", "worse" or "undecided"


def headlines(comparison: Comparison) -> tuple[Headline, ...]:
    """Return the metrics that are shown first."""
    return tuple(_headline(comparison, key) for key in HEADLINES)


def _headline(comparison: Comparison, key: str) -> Headline:
    full = key if key in comparison.winner.exported.ranking else f"{key}_at_threshold"
    baseline, winner = mean(comparison.baseline, key), mean(comparison.winner, key)
    nothing = Estimate(value=winner - baseline, low=math.nan, high=math.nan)
    found = [comparison.difference[full]] if full in comparison.difference else []
    if full in comparison.mean_difference:
        over = comparison.mean_difference[full]
        found = [over.over_patients, over.over_seeds]
    widest = max(found, key=lambda one: one.high - one.low, default=nothing)
    difference = widest if usable(widest.low) else nothing
    outcome = judge(key, *found).value
    return Headline(key, metric_name(key), baseline, winner, difference, outcome)


def scored(side: Scored) -> tuple[Evaluation, ...]:
    """Return one evaluation a seed: on test, or on validation without a test set."""
    return side.test or side.validation


def mean(side: Scored, key: str) -> float:
    """Return a metric's mean over seeds, at the stored thresholds."""
    return statistics.fmean(value(evaluation, key).value for evaluation in scored(side))


def value(evaluation: Evaluation, key: str) -> Estimate:
    """Return a metric of one network, at its stored threshold where that matters."""
    return evaluation.ranking.get(key) or evaluation.at_threshold[key]


def verdict(comparison: Comparison) -> str:
    """Return the result in one sentence of at most 30 words."""
    if not changed(comparison):
        return (
            "The search found nothing better on validation than the baseline itself, which is "
            "therefore the winner."
        )
    auc, accuracy, recall, specificity = headlines(comparison)
    if not comparison.winner.test:
        return (
            f"There is no test set: on validation, which also chose it, the winner's AUC is "
            f"{metric(auc.winner)} (baseline {metric(auc.baseline)})."
        )
    where = f"On {plural(scored(comparison.winner)[0].count, 'test image')}"
    if accuracy.outcome == "undecided" and auc.outcome == "undecided":
        return f"{where} there is no significant difference in accuracy {_numbers(accuracy)}."
    if accuracy.outcome == "undecided":
        ranks = "ranks better" if auc.outcome == "better" else "ranks worse"
        return (
            f"{where} the winner {ranks} (AUC {_numbers(auc)[1:]}; accuracy does not differ "
            "significantly."
        )
    more = "more" if accuracy.outcome == "better" else "less"
    text = f"{where} the winner is {more} accurate {_numbers(accuracy)}"
    price = [one for one in (recall, specificity) if one.winner < one.baseline - 0.005]
    if auc.outcome == "worse" and more == "more":
        text += f" but ranks worse (AUC {_both(auc)})"
    elif price and more == "more":
        lowest = min(price, key=lambda one: one.winner - one.baseline)
        text += f" at lower {lowest.name} ({_both(lowest)})"
    return f"{text}."


def _numbers(one: Headline) -> str:
    ranges = interval(one.difference, sign=False).replace("-", "−")
    known = f", 95% interval {ranges}" if ranges else ""
    return f"({_both(one)}, difference {signed(one.difference.value)}{known})"


def _both(one: Headline) -> str:
    return f"{metric(one.winner)} against {metric(one.baseline)}"


def seeds_sentence(comparison: Comparison) -> str:
    """Say how many trainings are behind the numbers."""
    count = len(scored(comparison.winner))
    if count == 1:
        return "Trained with one seed: differences of a few points may be noise (--refit-seeds 3)."
    wide = "over seeds and over patients, the wider of the two"
    return f"Means of {count} seeds, retrained the same way; 95% intervals {wide}."


def changed(comparison: Comparison) -> Values:
    """Return what the winner changes of the baseline."""
    return differing(comparison.winner.values, comparison.baseline.values)
