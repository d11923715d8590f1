"""Every configuration as a line across the hyperparameters: parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from search.config import direction
from search.records import TrialRecord
from search.reporting.figures import BLUE, INK, ORANGE, finish, new_figure
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.trials import finalists
from search.reporting.wording import compact, is_number, metric, setting

MAX_AXES = 8
ORDINAL = 8
SPREAD = 0.03
"""How far lines at one value are drawn apart, up and down."""

INACTIVE = -0.12
"""Height of "not there" below an axis."""

SHADES = LinearSegmentedColormap.from_list("shades", [BLUE, "#7FB6D8", "#D9D9D9"])


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        name: What it shows.
        heights: (c,) in [0, 1], `INACTIVE` where there is no value.
        ticks: (height, label) pairs.
        few: Whether it has so few values that many configurations share one.
    """

    name: str
    heights: np.ndarray
    ticks: tuple[tuple[float, str], ...]
    few: bool


def parallel_coordinates(material: Material) -> list[Insight]:
    """Return the configurations across the hyperparameters that vary."""
    tried = finalists(material.records, direction(material.objective))
    if len(tried) < 3:
        return []
    found = material.effects
    varying = [e.name for e in found.effects] if found else _varying(tried)
    if not varying:
        return []
    names = varying[:MAX_AXES]
    best = tried[0]
    settings = compact({name: best.values[name] for name in names if name in best.values})
    return [
        Insight(
            name="parallel_coordinates",
            section=Section.SEARCH,
            title="All configurations at a glance",
            reading=f"The best after {best.epochs} epochs, {material.objective} "
            f"{metric(best.score)}: {settings}.",
            caption="A line is a configuration at the most epochs it was trained, bluer for a "
            "better place in the order of the report (most epochs first, best score first); the "
            "best is dark, the documented one orange. "
            + (
                f"The {MAX_AXES} most important of {len(varying)} hyperparameters. "
                if len(varying) > MAX_AXES
                else ""
            )
            + "“–” is a hyperparameter that is not there, such as the width of a missing layer.",
            columns=("configuration", *names, "epochs", material.objective),
            rows=tuple(
                (
                    r.configuration,
                    *(setting(r.values[n]) if n in r.values else None for n in names),
                    r.epochs,
                    r.score,
                )
                for r in tried
            ),
            draw=partial(draw_parallel, tried, names, material.objective),
        )
    ]


def _varying(records: Sequence[TrialRecord]) -> list[str]:
    names = dict.fromkeys(name for r in records for name in r.values)
    return [n for n in names if len({r.values[n] for r in records if n in r.values}) > 1]


def axis(
    name: str, values: Sequence[Any], *, measured: bool = False, worse_up: bool = False
) -> Axis:
    """Place values on an axis.

    Args:
        name: What they are.
        values: One a configuration, None where there is none.
        measured: Whether they are a result, whose distances matter however few there are; settings
            are placed at equal distances where they are few, else in proportion or by logarithms.
        worse_up: Whether the lowest comes on top.
    """
    present = [value for value in values if value is not None]
    numeric = all(is_number(value) for value in present)
    levels = sorted(set(present)) if numeric else sorted(set(present), key=str)
    few = not numeric or (len(levels) <= ORDINAL and not measured)
    if few:
        step = {level: i / max(1, len(levels) - 1) for i, level in enumerate(levels)}
        heights = [INACTIVE if v is None else step[v] for v in values]
        ticks = [(height, setting(level)) for level, height in step.items()]
    else:
        low, high = float(levels[0]), float(levels[-1])
        scale = np.log if low > 0 and high / low > 8 else np.asarray
        span = (scale(high) - scale(low)) or 1.0
        heights = [INACTIVE if v is None else float((scale(v) - scale(low)) / span) for v in values]
        places = np.linspace(0, len(levels) - 1, 5).astype(int)
        spread = [levels[i] for i in places]
        ticks = _apart([(float((scale(v) - scale(low)) / span), f"{v:.2g}") for v in spread])
    if worse_up:
        heights = [1 - h for h in heights]
        ticks = [(1 - h, text) for h, text in ticks]
    if len(present) < len(values):
        ticks.append((INACTIVE, "–"))
    return Axis(name=name, heights=np.array(heights), ticks=tuple(ticks), few=few)


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Leave out labels that would lie on one another; the ends stay."""
    kept = [ticks[0]]
    for tick in ticks[1:-1]:
        if tick[0] - kept[-1][0] > 0.06 and ticks[-1][0] - tick[0] > 0.06:
            kept.append(tick)
    return [*kept, ticks[-1]]


def draw_parallel(tried: Sequence[TrialRecord], names: Sequence[str], objective: str) -> Figure:
    """Draw the axes, and the configurations from the last to the best."""
    lines = [axis(name, [r.values.get(name) for r in tried]) for name in names]
    lines.append(axis("epochs", [r.epochs for r in tried]))
    scores = [r.score for r in tried]
    lines.append(axis(objective, scores, measured=True, worse_up=direction(objective) == "min"))
    figure = new_figure(1.25 * len(lines) + 0.6, 4.8)
    axes = figure.subplots()
    heights = np.column_stack([line.heights for line in lines])
    # Side by side where many share a value, so that they can be seen as many.
    heights += SPREAD * np.linspace(1, -1, len(tried))[:, None] * [line.few for line in lines]
    for rank in reversed(range(len(tried))):
        colour: Any = SHADES(rank / max(1, len(tried) - 1))
        width, order = 1.2, 1.0 - rank / 1e4
        if tried[rank].configuration == 0:
            colour, width, order = ORANGE, 2.2, 3.0
        if rank == 0:
            colour, width, order = "#003B5C", 2.8, 4.0
        axes.plot(range(len(lines)), heights[rank], color=colour, linewidth=width, zorder=order)
    for x, line in enumerate(lines):
        _draw_axis(axes, x, line)
    axes.set_xlim(-0.35, len(lines) - 0.5)
    axes.set_ylim(INACTIVE - 0.06, 1.06)
    axes.set_yticks([])
    axes.set_xticks(range(len(lines)), [line.name.replace("_", "\n") for line in lines])
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set_verticalalignment("bottom")
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[:].set_visible(False)
    axes.plot([], [], color="#003B5C", linewidth=2.8, label="best")
    if tried[0].configuration != 0 and any(r.configuration == 0 for r in tried):
        axes.plot([], [], color=ORANGE, linewidth=2.2, label="documented")
    axes.plot([], [], color=SHADES(0.2), label="good")
    axes.plot([], [], color=SHADES(1.0), label="poor, or stopped early")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, fontsize=8.5, frameon=False)
    finish(figure)
    return figure


def _draw_axis(axes: Axes, x: int, line: Axis) -> None:
    reach = SPREAD if line.few else 0.0
    axes.plot([x, x], [-reach, 1 + reach], color=INK, linewidth=1, zorder=5)
    for height, label in line.ticks:
        axes.text(
            x + 0.05,
            height,
            label,
            fontsize=7.5,
            va="center",
            zorder=6,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.6},
        )
