"""The style of every figure, and how one is saved: PNG, numbers beside it, synthetic stamp.

Figures are made without pyplot, so that importing this changes no global state. Colours are those
of Okabe and Ito (2008), which people with colour-blindness tell apart; roles differ in line style
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from search.journal import storage_errors, write_json
from search.records import SYNTHETIC_NOTICE

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, GRAY, INK, GRID = "#56B4E9", "#E69F00", "#888888", "#222222", "#E2E2E2"
BRACKET_COLOURS = (SKY, GREEN, AMBER, PINK, GRAY)
FINALIST_COLOURS = (GREEN, PINK, AMBER, SKY)
STAMP = "#B00020"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawn figure with its numbers.

    Attributes:
        name: File name without its ending.
        title: Heading in the report.
        caption: What is seen and how to read it.
        figure: The drawing.
        columns: Names of the numbers' columns.
        rows: The numbers.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def save(plot: Plot, folder: Path, *, synthetic: bool) -> Path:
    """Write a plot as PNG and its numbers as JSON; stamp it when the data is synthetic.

    Raises:
        StorageError: The disk is full or read-only.
    """
    if synthetic:
        stamp(plot.figure)
    path = folder / f"{plot.name}.png"
    temporary = folder / f".{plot.name}.tmp.png"
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        plot.figure.savefig(temporary, dpi=130, facecolor="white")
        temporary.replace(path)
    write_json(
        path.with_suffix(".json"),
        {
            "title": plot.title,
            "caption": plot.caption,
            "columns": plot.columns,
            "rows": plot.rows,
        },
    )
    return path


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


def finish(figure: Figure) -> None:
    """Fit the axes to the figure, with room for the stamp at the foot."""
    figure.tight_layout(rect=(0, 0.03, 1, 1))


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
