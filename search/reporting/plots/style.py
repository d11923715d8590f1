"""What a chart is, and how it is drawn: by matplotlib as PNG, and as data for the report's page.

A chart is computed first, from records, and drawn afterwards; tests look at the data. Colours are
those of Okabe and Ito (2008), which people with colour-blindness tell apart. Figures are made
without pyplot, so that importing this changes no global state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.records import SYNTHETIC_NOTICE, TrialRecord
from search.reporting.format import metric, plural
from search.run_directory import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "winner": "#0072B2",
    "baseline": "#D55E00",
    "finalist": "#009E73",
    "other": "#56B4E9",
    "dim": "#9AA5B1",
    "best": "#0072B2",
}
"""Colours by what a series shows; the page has a lighter set for dark mode."""

GRID, STAMP = "#E2E2E2", "#B00020"
LONGEST_TABLE = 60
"""Rows of numbers that are listed under a chart; curves are thinned to it."""


@dataclass(frozen=True)
class Series:
    """Points or a line of a panel."""

    name: str  # what it is, "" to leave it out of the legend
    x: tuple[float | str, ...]  # numbers, or names of categories
    y: tuple[float, ...]
    _: KW_ONLY
    kind: str = "line"  # "line", "steps", "points", "bars" or "diagonal"
    colour: str = "winner"  # a key of `COLOURS`
    low: tuple[float, ...] = ()  # lower 95% limits, () without
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()  # a text for each point, shown on hover
    ids: tuple[str, ...] = ()  # a trial for each point, whose learning curve a click shows
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    x: str  # name of the horizontal axis
    y: str
    series: tuple[Series, ...]  # in the order of drawing
    _: KW_ONLY
    log: bool = False  # whether the horizontal axis is logarithmic
    unit: bool = False  # whether both axes run from 0 to 1


@dataclass(frozen=True)
class Chart:
    """A figure of the report."""

    name: str  # of its file without ending, and its anchor on the page
    title: str
    note: str  # one sentence: how to read it, or what it shows
    panels: tuple[Panel, ...]  # side by side, wrapped after three
    _: KW_ONLY
    height: int = 300  # of a row of panels on the page, in pixels

    def numbers(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return columns and rows of what is drawn, thinned, for readers without the picture."""
        rows: list[tuple[str, ...]] = []
        drawn = [(p.x, one) for p in self.panels for one in p.series if one.kind != "diagonal"]
        for axis, one in drawn:
            step = max(1, math.ceil(len(one.x) / LONGEST_TABLE))
            for i in sorted({*range(0, len(one.x), step), *range(len(one.x))[-1:]}):
                x = one.x[i]
                ranges = f"{metric(one.low[i])} to {metric(one.high[i])}" if one.low else ""
                name = one.labels[i] if one.labels else one.name
                where = x if isinstance(x, str) else f"{x:g}" if x == int(x) else f"{x:.3g}"
                rows.append((name, f"{axis} {where}", metric(one.y[i]), ranges))
        return ("series", "at", "value", "95% interval"), rows


def trial_points(
    name: str, colour: str, records: Sequence[TrialRecord], x: Iterable[float | str]
) -> Series:
    """Return the score of every trial as a point."""
    return Series(
        name,
        tuple(x),
        tuple(map(score, records)),
        kind="points",
        colour=colour,
        labels=tuple(f"trial {r.trial_id}, {plural(r.epochs, 'epoch')}" for r in records),
        ids=tuple(r.trial_id for r in records),
    )


def score(record: TrialRecord) -> float:
    """Return the score of a completed trial."""
    assert record.score is not None, "completed trials have a score"
    return record.score


def draw(chart: Chart, path: Path, *, synthetic: bool) -> None:
    """Draw a chart as PNG."""
    # Takes most of a second to import, which printing a report should not cost.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    width = 5.4 if columns == 1 else 3.7 * columns
    figure = Figure(figsize=(width, 3.4 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, fontsize=11, x=0.01, ha="left")
    for i, panel in enumerate(chart.panels, 1):
        _draw(panel, figure.add_subplot(rows, columns, i))
    if synthetic:
        figure.text(0.5, 0.5, SYNTHETIC_NOTICE.replace(": ", ":\n"), ha="center", va="center",
                    rotation=15, fontsize=16, color=STAMP, alpha=0.2, weight="bold")  # fmt: skip
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=130, facecolor="white", format="png")


def _draw(panel: Panel, axes: Axes) -> None:
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(panel.x, fontsize=9)
    axes.set_ylabel(panel.y, fontsize=9)
    if panel.log:
        axes.set_xscale("log")
    if panel.unit:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for one in panel.series:
        colour, style = COLOURS[one.colour], "--" if one.dashed else "-"
        label = one.name or None
        x: Any = one.x
        if one.kind == "diagonal":
            axes.plot(x, one.y, color=GRID, linewidth=1.2, zorder=1)
        elif one.kind == "bars":
            axes.barh(x[::-1], one.y[::-1], color=colour, label=label)
        elif one.kind == "points":
            if one.low:
                ranges = np.subtract(one.y, one.low), np.subtract(one.high, one.y)
                axes.errorbar(x, one.y, yerr=ranges, fmt="o", color=colour, label=label, capsize=2)
            else:
                axes.scatter(x, one.y, s=14, color=colour, label=label, alpha=0.75, linewidth=0)
        else:
            where: Any = "steps-post" if one.kind == "steps" else "default"
            axes.plot(x, one.y, color=colour, linestyle=style, label=label, drawstyle=where)
            if one.low:
                axes.fill_between(x, one.low, one.high, color=colour, alpha=0.13, linewidth=0)
    if any(one.name for one in panel.series):
        axes.legend(fontsize=7.5, frameon=False)


def page_data(chart: Chart) -> dict[str, Any]:
    """Return a chart as the report's script reads it, see `page.js`; plotly draws it there."""
    return {"height": chart.height, "panels": round_for_page(chart.panels)}


def round_for_page(value: Any) -> Any:
    """Return numbers with five digits, None for what is not finite: the page stays small."""
    if isinstance(value, Panel | Series):
        return {name: round_for_page(item) for name, item in vars(value).items()}
    if isinstance(value, tuple):
        return [round_for_page(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
