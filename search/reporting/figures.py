"""The style of every figure, and how one is saved: PNG, numbers beside it, synthetic stamp.

Figures are made without pyplot, so that importing this changes no global state. Colours are those
of Okabe and Ito (2008), which people with colour-blindness tell apart; roles differ in line style
too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from search.config import direction
from search.errors import storage_errors
from search.records import SYNTHETIC_NOTICE
from search.reporting.insights.insight import LOCAL, Insight, as_json
from search.run_directory import write_json, write_text

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, GRAY, INK, GRID = "#56B4E9", "#E69F00", "#888888", "#222222", "#E2E2E2"
BRACKET_COLOURS = (SKY, GREEN, AMBER, PINK, GRAY)
FINALIST_COLOURS = (GREEN, PINK, AMBER, SKY)
STAMP = "#B00020"
MARKERS = ("s", "o", "^", "D")


def save(insight: Insight, root: Path, *, place: int, synthetic: bool) -> list[Path]:
    """Write an insight: its numbers as JSON and, if it has one, its picture as PNG.

    Args:
        insight: What to write.
        root: The run directory.
        place: Its place in the report.
        synthetic: Whether to stamp the picture.

    Returns:
        The files: the picture first, if there is one, then the numbers.

    Raises:
        StorageError: The disk is full or read-only.
    """
    folder = root / "plots"
    if insight.local:
        folder /= LOCAL
        # Radiographs must not slip into a repository with the rest of a run directory.
        write_text(folder / ".gitignore", "*\n")
    path = folder / f"{insight.name}.png"
    if insight.draw is not None:
        figure = insight.draw()
        if synthetic:
            stamp(figure)
        temporary = folder / f".{insight.name}.tmp.png"
        with storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(temporary, dpi=130, facecolor="white")
            temporary.replace(path)
    numbers = write_json(path.with_suffix(".json"), as_json(insight, place=place))
    return [numbers] if insight.draw is None else [path, numbers]


def stamp(figure: Figure) -> None:
    """Write across a figure, and under it, that its data is synthetic."""
    figure.text(
        0.5,
        0.5,
        SYNTHETIC_NOTICE.replace(": ", ":\n"),
        ha="center",
        va="center",
        rotation=15,
        fontsize=17,
        color=STAMP,
        alpha=0.2,
        weight="bold",
    )
    figure.text(0.01, 0.008, SYNTHETIC_NOTICE, ha="left", va="bottom", fontsize=8, color=STAMP)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, drawn by Agg."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def finish(figure: Figure, *, top: float = 1.0) -> None:
    """Fit the axes to the figure, with room for the stamp at the foot and above `top`."""
    figure.tight_layout(rect=(0, 0.03, 1, top))


def house_style(axes: Axes) -> None:
    """Take away what carries no information."""
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def log_if_wide(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic axis where values span so much that a linear one hides the small ones."""
    positive = [value for value in values if value > 0]
    if len(positive) != len(values) or not positive or max(positive) / min(positive) < 8:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def role_colour(name: str) -> str:
    """Return the colour of a candidate: documented orange, winner blue, finalists others."""
    role = name.split(",")[0].strip()
    if role == "documented":
        return ORANGE
    if role == "winner":
        return BLUE
    return FINALIST_COLOURS[sum(map(ord, role)) % len(FINALIST_COLOURS)]


def objective_label(objective: str) -> str:
    """Return an axis label that says which way is better."""
    better = "lower is better" if direction(objective) == "min" else "higher is better"
    return f"{objective} ({better})"


def intervals(
    axes: Axes,
    names: Sequence[str],
    sides: Sequence[tuple[str, Sequence[tuple[float, float, float]]]],
) -> None:
    """Draw estimates with their intervals, a line a name, the sides one above the other.

    Args:
        axes: Where; the first name comes on top.
        names: n names.
        sides: (candidate, n of (value, low, high)); NaN is left out.
    """
    step = 0.32 if len(sides) > 1 else 0.0
    for i, (side, estimates) in enumerate(sides):
        shift = step * (i - (len(sides) - 1) / 2)
        places = [row + shift for row in range(len(names))]
        for place, (value, low, high) in zip(places, estimates, strict=True):
            axes.plot([low, high], [place, place], color=role_colour(side), linewidth=2, alpha=0.6)
            axes.plot(
                value,
                place,
                marker=MARKERS[i % len(MARKERS)],
                markersize=6,
                color=role_colour(side),
                markeredgecolor="white",
            )
        axes.plot([], [], color=role_colour(side), marker=MARKERS[i % len(MARKERS)], label=side)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    house_style(axes)


def legend_above(figure: Figure, axes: Axes | None = None, handles: Sequence[Any] = ()) -> None:
    """Put a legend above the axes, where it hides nothing, and fit the figure."""
    drawn, labels = axes.get_legend_handles_labels() if axes is not None else ([], [])
    drawn = [*drawn, *handles]
    labels = [*labels, *(str(handle.get_label()) for handle in handles)]
    figure.legend(drawn, labels, loc="upper center", ncols=len(labels), fontsize=8.5, frameon=False)
    finish(figure, top=1 - 0.3 / figure.get_figheight())


def log_ticks(axes: Axes, low: float, high: float) -> None:
    """Use a logarithmic x axis with a few plain numbers."""
    axes.set_xscale("log")
    steps = (1, 3) if high / low > 30 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low * 0.9 <= t <= high * 1.1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def role_style(name: str) -> str:
    """Return the line style of a candidate, so that colour is not needed to tell them apart."""
    return "--" if name.startswith("documented") else "-"
