"""The list of all insights: what is computed of a run, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable

from search.reporting.insights import (
    agreement,
    calibration,
    course,
    decisions,
    gallery,
    importance,
    misses,
    parallel,
    ranking,
    scores,
    timeline,
)
from search.reporting.insights.insight import Insight
from search.reporting.insights.material import Material

Compute = Callable[[Material], list[Insight]]

INSIGHTS: tuple[Compute, ...] = (
    scores.every_metric,
    agreement.difference,
    scores.over_seeds,
    decisions.confusion_matrices,
    ranking.roc,
    ranking.precision_recall,
    calibration.reliability,
    decisions.subtypes,
    decisions.predictive_values,
    misses.worst_misses,
    gallery.heatmaps,
    importance.importance_and_marginals,
    parallel.parallel_coordinates,
    course.trials_by_rung,
    course.learning_curves,
    course.training_curves,
    timeline.timeline,
)


def explain(material: Material) -> list[Insight]:
    """Return every insight there is data for; draws nothing."""
    return [insight for compute in INSIGHTS for insight in compute(material)]
