"""Every metric with its interval, and how much it varies from one training to the next."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from search.reporting.facts import mapping
from search.reporting.figures import (
    house_style,
    intervals,
    legend_above,
    new_figure,
    role_colour,
)
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.verdict import chosen, estimate, scorings
from search.reporting.wording import is_number, metric, plural

SHARES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "recall": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "PPV (precision)",
    "npv": "NPV",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "average precision",
}
"""Metrics of which more is better, 1 at best."""

LOSSES = {
    "loss": "log loss",
    "brier": "Brier score",
    "expected_calibration_error": "calibration error",
}
"""Metrics of which less is better, 0 at best."""

NAMES = {**SHARES, **LOSSES}
RANKING = ("auc", "average_precision", *LOSSES)
"""Metrics that no threshold changes."""

ROLES = ("documented", "winner")


def scored(evaluation: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """Return a role's evaluations, one a seed: on test, or on validation without a test."""
    return _on_test_or_validation(mapping(evaluation.get(role)))


def _on_test_or_validation(part: dict[str, Any]) -> list[dict[str, Any]]:
    return scorings(part) or scorings(part, "validation")


def exported(evaluation: dict[str, Any], role: str) -> dict[str, Any]:
    """Return the evaluation of what a role exports: a seed, or the ensemble of all."""
    part = mapping(evaluation.get(role))
    like = mapping(evaluation.get("winner")).get("exported_seed")
    combined = _on_test_or_validation(mapping(part.get("ensemble")))
    return chosen(
        {**part, "test": scored(evaluation, role), "ensemble": {"test": combined}}, like=like
    )


def every_metric(material: Material) -> list[Insight]:
    """Return all metrics of both candidates at both thresholds, with their intervals."""
    rows: list[tuple[Any, ...]] = []
    for key, name in NAMES.items():
        for role in ROLES:
            found = exported(material.evaluation, role)
            for place, words in (("at_half", "0.5"), ("at_threshold", "stored")):
                said = estimate(found, place, key)
                if not is_number(said.get("value")) or (key in RANKING and place == "at_half"):
                    continue
                at = "any" if key in RANKING else words
                rows.append((name, role, at, said["value"], said.get("low"), said.get("high")))
    if not rows:
        return []
    found = exported(material.evaluation, ROLES[-1])
    words = ", ".join(
        f"{NAMES[key]} {metric(estimate(found, 'at_threshold', key).get('value'))}"
        for key in ("balanced_accuracy", "auc", "brier", "expected_calibration_error")
        if is_number(estimate(found, "at_threshold", key).get("value"))
    )
    return [
        Insight(
            name="metrics",
            section=Section.TEST,
            title=f"Every metric on {material.split}",
            reading=f"The winner at its threshold: {words}.",
            caption="At the stored threshold, where one matters; the numbers have 0.5 too. Lines "
            "are 95% intervals, by a bootstrap over patients; that of the calibration error lies "
            "high, since resampling adds to it.",
            columns=("metric", "candidate", "threshold", "value", "low", "high"),
            rows=tuple(rows),
            draw=partial(draw_metrics, rows),
        )
    ]


def over_seeds(material: Material) -> list[Insight]:
    """Return every metric seed by seed, if there are several."""
    rows: list[tuple[Any, ...]] = []
    for key, name in NAMES.items():
        for role in ROLES:
            found = scored(material.evaluation, role)
            values = [(s.get("seed"), estimate(s, "at_threshold", key).get("value")) for s in found]
            rows.extend((name, role, seed, value) for seed, value in values if is_number(value))
    seeds = max((sum(r[:2] == row[:2] for r in rows) for row in rows), default=0)
    if seeds < 2:
        return []
    aucs = {role: [r[3] for r in rows if r[:2] == ("AUC", role)] for role in ROLES}
    words = " and ".join(
        f"{metric(statistics.fmean(v))} ({metric(min(v))}–{metric(max(v))}) for the {role}"
        for role, v in reversed(aucs.items())
        if v
    )
    return [
        Insight(
            name="seeds",
            section=Section.TEST,
            title=f"Every metric, seed by seed, on {material.split}",
            reading=f"Trained with {plural(seeds, 'seed')}, the AUC is {words}.",
            caption="A dot is a training with another seed, at its own stored threshold; the bar "
            "is their mean. This spread is chance in training; the intervals elsewhere are chance "
            "in the images.",
            columns=("metric", "candidate", "seed", "value"),
            rows=tuple(rows),
            draw=partial(draw_seeds, rows),
        )
    ]


def _panels(rows: Sequence[tuple[Any, ...]]) -> list[list[str]]:
    """Return the metrics' names by the panel they are drawn in."""
    there = {row[0] for row in rows}
    return [
        names
        for kind in (SHARES, LOSSES)
        if (names := [name for name in kind.values() if name in there])
    ]


def _numbers(estimate: tuple[Any, ...]) -> tuple[float, float, float]:
    """Return value, low and high, NaN where unknown."""
    value, low, high = (math.nan if v is None else float(v) for v in estimate)
    return value, low, high


def draw_metrics(rows: Sequence[tuple[Any, ...]]) -> Figure:
    """Draw every metric at the stored threshold, with intervals."""
    panels = _panels(rows)
    height = 1.6 + 0.42 * max(map(len, panels))
    figure = new_figure(10, height)
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=[1.4, 1][: len(panels)])
    words = ("higher is better", "lower is better")
    for axes, names, direction in zip(grid[0], panels, words, strict=False):
        sides = []
        for role in ROLES:
            mine = {row[0]: row[3:6] for row in rows if row[1] == role and row[2] != "0.5"}
            known = [mine.get(name, (math.nan,) * 3) for name in names]
            sides.append((role, [_numbers(e) for e in known]))
        intervals(axes, names, [(role, estimates) for role, estimates in sides])
        axes.set_ylim(max(map(len, panels)) - 0.4, -0.6)
        axes.set_xlabel(direction)
    legend_above(figure, grid[0][0])
    return figure


def draw_seeds(rows: Sequence[tuple[Any, ...]]) -> Figure:
    """Draw a dot a seed and a bar for the mean."""
    panels = _panels(rows)
    figure = new_figure(10, 1.6 + 0.42 * max(map(len, panels)))
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=[1.4, 1][: len(panels)])
    words = ("higher is better", "lower is better")
    for axes, names, direction in zip(grid[0], panels, words, strict=False):
        for i, role in enumerate(ROLES):
            for place, name in enumerate(names):
                values = [row[3] for row in rows if row[:2] == (name, role)]
                if not values:
                    continue
                y = place + 0.34 * (i - 0.5)
                mean = statistics.fmean(values)
                axes.plot([mean, mean], [y - 0.14, y + 0.14], color=role_colour(role), linewidth=3)
                axes.plot(
                    values,
                    [y] * len(values),
                    "so"[i],
                    color=role_colour(role),
                    alpha=0.55,
                    markersize=6,
                    markeredgecolor="white",
                )
            axes.plot([], [], "so"[i], color=role_colour(role), label=role)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(max(map(len, panels)) - 0.4, -0.6)
        axes.set_xlabel(direction)
        house_style(axes)
    legend_above(figure, grid[0][0])
    return figure
