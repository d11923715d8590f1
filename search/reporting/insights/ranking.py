"""How well the probabilities rank the images: ROC and precision–recall curves with bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from search.reporting import curves
from search.reporting.curves import RocCurve
from search.reporting.figures import (
    GRAY,
    finish,
    house_style,
    legend_above,
    new_figure,
    role_colour,
    role_style,
)
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.verdict import chosen, estimate
from search.reporting.wording import is_number, metric
from search.scoring.curves import Band, ScoreCurves

MAX_ROWS = 400
"""Rows of numbers kept beside a picture; a long ROC curve is thinned to that."""

BANDS = "Bands are 95% limits at each point, by a bootstrap over patients. "


def roc(material: Material) -> list[Insight]:
    """Return sensitivity against 1 − specificity, with the stored thresholds marked."""
    data = curves.roc(material.predictions, evaluation=material.evaluation)
    if not data:
        return []
    bands = {role: found.roc for role, found in material.curves.items()}
    best = data[-1]
    interval = _interval(material, best.name, "auc")
    return [
        Insight(
            name="roc",
            section=Section.TEST,
            title=f"ROC on {material.split}",
            reading=f"A random ill child gets a higher probability than a random healthy one in "
            f"{best.auc:.1%} of pairs with the {best.name}{interval}.",
            caption=(BANDS + "Low and high are those of the sensitivity. " if bands else "")
            + "Diamonds are the stored thresholds, fixed on validation.",
            columns=("candidate", "threshold", "1 − specificity", "sensitivity", "low", "high"),
            rows=tuple(_roc_rows(data, bands)),
            draw=partial(draw_roc, data, bands),
        )
    ]


def precision_recall(material: Material) -> list[Insight]:
    """Return precision against sensitivity."""
    data = {role: found.precision_recall for role, found in material.curves.items()}
    if not data:
        return []
    found = next(iter(material.curves.values()))
    share = float((found.predictions.labels == 1).mean())
    role, band = list(data.items())[-1]
    at = next(i for i, x in enumerate(band.x) if x >= 0.95 - 1e-9)
    return [
        Insight(
            name="precision_recall",
            section=Section.TEST,
            title=f"Precision and recall on {material.split}",
            reading=f"Of the children the {role} calls ill when it is to find 95% of the ill, "
            f"{band.value[at]:.1%} ({band.low[at]:.1%}–{band.high[at]:.1%}) are.",
            caption=BANDS + "Precision depends on the share of ill children, here "
            f"{share:.0%} (dotted: calling everybody ill). Diamonds are the stored thresholds.",
            columns=("candidate", "recall", "precision", "low", "high"),
            rows=tuple(
                (name, x, y, low, high)
                for name, b in data.items()
                for x, y, low, high in zip(b.x, b.value, b.low, b.high, strict=True)
            ),
            draw=partial(draw_precision_recall, dict(material.curves), share),
        )
    ]


def _interval(material: Material, role: str, key: str) -> str:
    scored = chosen(material.evaluation.get(role.split(",")[0]) or {})
    found = estimate(scored, "ranking", key)
    if not is_number(found.get("low")) or not is_number(found.get("high")):
        return ""
    return f" (95% interval {found['low']:.1%}–{found['high']:.1%})"


def _roc_rows(data: Sequence[RocCurve], bands: Mapping[str, Band]) -> list[tuple[Any, ...]]:
    """Return the curves' points, thinned, with the limits that the band is drawn with there."""
    rows: list[tuple[Any, ...]] = []
    for curve in data:
        rates, band = curve.false_positive_rate, bands.get(curve.name)
        limits: list[list[Any]] = [[None] * len(rates)] * 2
        if band is not None:
            limits = [np.interp(rates, band.x, ends).tolist() for ends in (band.low, band.high)]
        points = list(zip(curve.threshold, rates, curve.true_positive_rate, *limits, strict=True))
        step = max(1, math.ceil(len(points) / (MAX_ROWS // len(data))))
        rows.extend((curve.name, *point) for point in [*points[:-1:step], points[-1]])
    return rows


def draw_roc(data: Sequence[RocCurve], bands: Mapping[str, Band]) -> Figure:
    """Draw ROC curves, their bands and operating points."""
    figure = new_figure(6, 5.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":", label="chance")
    for curve in data:
        colour, band = role_colour(curve.name), bands.get(curve.name)
        if band is not None:
            axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            curve.false_positive_rate,
            curve.true_positive_rate,
            role_style(curve.name),
            color=colour,
            linewidth=2,
            label=f"{curve.name}, AUC {metric(curve.auc)}",
        )
        if curve.operating_point is not None:
            _diamond(axes, curve.operating_point, colour)
    axes.set_xlabel("1 − specificity (share of the healthy called ill)")
    axes.set_ylabel("sensitivity (share of the ill called ill)")
    _unit_square(axes)
    axes.legend(loc="lower right", fontsize=9, frameon=False)
    finish(figure)
    return figure


def draw_precision_recall(data: Mapping[str, ScoreCurves], share: float) -> Figure:
    """Draw precision–recall curves, their bands and operating points."""
    figure = new_figure(6, 5.6)
    axes = figure.subplots()
    axes.axhline(share, color=GRAY, linewidth=1, linestyle=":", label="everybody called ill")
    for role, found in data.items():
        colour, band = role_colour(role), found.precision_recall
        axes.fill_between(
            band.x, band.low, band.high, color=colour, alpha=0.15, linewidth=0, step="pre"
        )
        axes.plot(
            band.x,
            band.value,
            role_style(role),
            color=colour,
            linewidth=2,
            drawstyle="steps-pre",
            label=role,
        )
        called = found.predictions.probabilities >= found.threshold
        ill = found.predictions.labels == 1
        if called.any():
            _diamond(axes, (float(called[ill].mean()), float(ill[called].mean())), colour)
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (share of those called ill who are)")
    _unit_square(axes)
    lowest = min(min(found.precision_recall.low) for found in data.values())
    axes.set_ylim(max(-0.02, min(lowest, share) - 0.05), 1.02)
    axes.set_aspect("auto")
    legend_above(figure, axes)
    return figure


def _diamond(axes: Any, point: tuple[float, float], colour: str) -> None:
    axes.plot(
        *point,
        marker="D",
        markersize=8,
        color=colour,
        markeredgecolor="white",
        linestyle="none",
        zorder=5,
    )


def _unit_square(axes: Any) -> None:
    axes.set_aspect("equal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    house_style(axes)
