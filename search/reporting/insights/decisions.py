"""What the decisions at a threshold mean: confusion matrices, subtypes, predictive values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from search.records import CLASS_NAMES
from search.reporting import curves
from search.reporting.curves import Confusion
from search.reporting.facts import mapping
from search.reporting.figures import (
    INK,
    finish,
    house_style,
    intervals,
    legend_above,
    new_figure,
    role_colour,
    role_style,
)
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.wording import is_number, metric, plural

PLACES = (("at_half", "0.5"), ("at_threshold", "threshold"))
ROLES = ("documented", "winner")


def confusion_matrices(material: Material) -> list[Insight]:
    """Return the confusion matrices of both candidates at both thresholds."""
    data = curves.confusion(material.evaluation)
    if not data:
        return []
    last = data[-1]
    return [
        Insight(
            name="confusion",
            section=Section.TEST,
            title=f"Confusion matrices on {material.split}",
            reading=f"The {last.name} misses {last.fn} of {last.fn + last.tp} ill children and "
            f"calls {last.fp} of {last.fp + last.tn} healthy ones ill.",
            caption="Counts, and shares of each true class.",
            columns=("model", "true NORMAL", "false PNEUMONIA", "false NORMAL", "true PNEUMONIA"),
            rows=tuple((m.name, m.tn, m.fp, m.fn, m.tp) for m in data),
            draw=partial(draw_confusion, data),
        )
    ]


def subtypes(material: Material) -> list[Insight]:
    """Return the sensitivity to bacterial and to viral pneumonia apart."""
    found = mapping(material.evaluation.get("subtypes"))
    rows: list[tuple[Any, ...]] = []
    for role in ROLES:
        side = mapping(found.get(role))
        for kind, count in mapping(side.get("count")).items():
            for place, name in PLACES:
                estimate = mapping(mapping(side.get(place)).get(kind))
                if count and is_number(estimate.get("value")):
                    ends = (estimate.get("low"), estimate.get("high"))
                    rows.append((role, kind, name, count, estimate["value"], *ends))
    at_threshold = [row for row in rows if row[0] == "winner" and row[2] == "threshold"]
    if not at_threshold:
        return []
    reading = "; ".join(
        f"{kind} {metric(value)} ({metric(low)}–{metric(high)}, n = {count})"
        for _, kind, _, count, value, low, high in at_threshold
    )
    return [
        Insight(
            name="subtypes",
            section=Section.TEST,
            title="Sensitivity to bacterial and viral pneumonia",
            reading=f"Of the ill children the winner finds at its threshold: {reading}.",
            caption="The kind is in the file's name. Bars are 95% intervals, by a bootstrap over "
            "patients.",
            columns=("candidate", "kind", "threshold", "images", "sensitivity", "low", "high"),
            rows=tuple(rows),
            draw=partial(draw_subtypes, rows),
        )
    ]


def predictive_values(material: Material) -> list[Insight]:
    """Return what a call would mean where pneumonia is rarer or more common."""
    rows = tuple(
        (role, v.prevalence, value, e.value, e.low, e.high)
        for role, found in material.curves.items()
        for value in ("PPV", "NPV")
        for v in found.predictive_values
        for e in (v.positive if value == "PPV" else v.negative,)
    )
    winner = material.curves.get("winner")
    if winner is None:
        return []
    rare = next(v for v in winner.predictive_values if v.prevalence >= 0.05)
    return [
        Insight(
            name="predictive_values",
            section=Section.TEST,
            title="Predictive values at other prevalences",
            reading=f"Where {rare.prevalence:.0%} of the children have pneumonia, "
            f"{_share(rare.positive.value)} of those called ill would be ill, and "
            f"{_share(rare.negative.value)} of those called healthy would be healthy.",
            caption="By Bayes' theorem from sensitivity and specificity at the stored threshold, "
            "as if they were the same in that population. Bands are 95% limits, by a bootstrap "
            "over patients; where sensitivity or specificity is 0 or 1, from its exact interval.",
            columns=("candidate", "prevalence", "value", "estimate", "low", "high"),
            rows=rows,
            draw=partial(draw_predictive_values, rows),
        )
    ]


def _share(value: float) -> str:
    if not is_number(value):
        return "none"
    return f"{value:.1%}" if value > 0.99 else f"{value:.0%}"


def draw_confusion(data: Sequence[Confusion]) -> Figure:
    """Draw confusion matrices, shares of each true class as shades."""
    columns = 2
    rows = math.ceil(len(data) / columns)
    figure = new_figure(7, 3.2 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, matrix in zip(grid, data, strict=False):
        counts = [[matrix.tn, matrix.fp], [matrix.fn, matrix.tp]]
        shares = [[n / max(1, sum(row)) for n in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i in range(2):
            for j in range(2):
                axes.text(
                    j,
                    i,
                    f"{counts[i][j]}\n{shares[i][j]:.1%}",
                    ha="center",
                    va="center",
                    fontsize=11,
                    color="white" if shares[i][j] > 0.55 else INK,
                )
        axes.set_xticks([0, 1], CLASS_NAMES, fontsize=8)
        axes.set_yticks([0, 1], CLASS_NAMES, fontsize=8, rotation=90, va="center")
        axes.set_xlabel("called", fontsize=9)
        axes.set_ylabel("truth", fontsize=9)
        axes.set_title(matrix.name, fontsize=10, loc="left")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    for axes in grid[len(data) :]:
        axes.set_visible(False)
    finish(figure)
    return figure


def draw_subtypes(rows: Sequence[tuple[Any, ...]]) -> Figure:
    """Draw the sensitivity by kind, both thresholds, both candidates."""
    nan = (math.nan,) * 3
    names = list(dict.fromkeys((row[1], row[2], row[3]) for row in rows))
    sides = []
    for role in dict.fromkeys(row[0] for row in rows):
        mine = {(row[1], row[2], row[3]): row[4:7] for row in rows if row[0] == role}
        sides.append((role, [mine.get(name, nan) for name in names]))
    figure = new_figure(8, 1.5 + 0.62 * len(names))
    axes = figure.subplots()
    words = [
        f"{kind}, at {'0.5' if at == '0.5' else 'threshold'}\n{plural(n, 'image')}"
        for kind, at, n in names
    ]
    intervals(axes, words, sides)
    axes.set_xlabel("sensitivity (share of the ill called ill)")
    legend_above(figure, axes)
    return figure


def draw_predictive_values(rows: Sequence[tuple[Any, ...]]) -> Figure:
    """Draw PPV and NPV against the prevalence."""
    figure = new_figure(9.5, 4.4)
    panels = {
        "PPV": ("positive predictive value", "called ill who are ill"),
        "NPV": ("negative predictive value", "called healthy who are healthy"),
    }
    prevalences = sorted({row[1] for row in rows})
    for axes, (value, (title, words)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for role in dict.fromkeys(row[0] for row in rows):
            mine = [row for row in rows if row[0] == role and row[2] == value]
            x, y, low, high = (
                [math.nan if row[i] is None else row[i] for row in mine] for i in (1, 3, 4, 5)
            )
            axes.fill_between(x, low, high, color=role_colour(role), alpha=0.15, linewidth=0)
            axes.plot(
                x,
                y,
                role_style(role),
                color=role_colour(role),
                marker="o",
                markersize=4,
                label=role,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(prevalences))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_xlabel("prevalence of pneumonia")
        axes.set_ylabel(f"share of those {words}")
        axes.set_title(title, loc="left", fontsize=11)
        house_style(axes)
        axes.tick_params(axis="x", labelsize=8)
        axes.legend(fontsize=8.5, frameon=False)
    finish(figure)
    return figure
