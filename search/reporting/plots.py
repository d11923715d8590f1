"""Draws the plots of a run from the data that `curves` computes; `figures` has their style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from search.config import direction
from search.records import CLASS_NAMES, TrialRecord
from search.reporting import curves
from search.reporting.curves import Confusion, Predicted, RocCurve, TrainingCurve, TrialLine
from search.reporting.figures import (
    BLUE,
    BRACKET_COLOURS,
    INK,
    ORANGE,
    Plot,
    finish,
    house_style,
    log_if_wide,
    new_figure,
    role_colour,
    save,
)
from search.reporting.trials import Row
from search.reporting.wording import is_number, metric

MAX_ROWS = 400
"""Rows of numbers kept beside a picture; a long ROC curve is thinned to that."""


def draw_all(
    root: Path,
    *,
    records: Sequence[TrialRecord],
    refit_histories: Mapping[str, Sequence[Row]],
    predictions: Mapping[str, Predicted],
    evaluation: dict[str, Any],
    objective: str,
    synthetic: bool,
) -> list[Path]:
    """Draw every plot there is data for into `root/plots`, and its numbers as JSON beside it.

    Args:
        root: The run directory.
        records: The trials.
        refit_histories: Rows of the retraining by candidate, see `trials.refit_histories`.
        predictions: Test labels and probabilities by candidate ("winner", "documented").
        evaluation: Content of `evaluation.json`, or {}.
        objective: Name of the score.
        synthetic: Whether to stamp the figures.

    Returns:
        The PNG files, in the order of the report.

    Raises:
        StorageError: The disk is full or read-only.
    """
    plots = [
        draw_confusion(curves.confusion(evaluation)),
        draw_roc(curves.roc(predictions, evaluation=evaluation)),
        draw_trials(curves.trials_by_rung(records, objective=objective), objective=objective),
        draw_training(
            curves.training_curves(refit_histories, objective=objective), objective=objective
        ),
    ]
    return [save(plot, root / "plots", synthetic=synthetic) for plot in plots if plot is not None]


def draw_training(data: Sequence[TrainingCurve], *, objective: str) -> Plot | None:
    """Draw loss and ranking of the retraining, epoch by epoch."""
    if not data:
        return None
    figure = new_figure(10, 4.4)
    left, right = figure.subplots(1, 2)
    loss = {"loss": ":", "val_loss": "-"}
    auc = {"val_auc": "-", "stress_auc": "--"}
    if objective not in (*loss, *auc):
        (loss if direction(objective) == "min" else auc)[objective] = "-."
    if objective != "robust_loss":
        loss["stress_loss"] = "--"
    for axes, styles, title in ((left, loss, "log loss"), (right, auc, "AUC")):
        _draw_metrics(axes, data, styles)
        axes.set_title(title, loc="left")
    finish(figure)
    keys = list(dict.fromkeys((*curves.CURVES, objective)))
    return Plot(
        name="training_curves",
        title="Training curves of the retraining",
        caption="Training is dotted, clean validation solid, stressed views dashed, the objective "
        "dash-dotted. The documented configuration is orange, the winner blue.",
        figure=figure,
        columns=("candidate", "epoch", *keys),
        rows=[
            (curve.name, epoch, *(curve.metrics[key][i] for key in keys))
            for curve in data
            for i, epoch in enumerate(curve.epochs)
        ],
    )


def _draw_metrics(axes: Axes, data: Sequence[TrainingCurve], styles: dict[str, str]) -> None:
    """Draw some metrics of every candidate; seeds of a role share a colour and a legend entry."""
    values: list[float] = []
    seen: set[str] = set()
    for curve in data:
        role = curve.name.split(",")[0]
        for key, style in styles.items():
            line = curve.metrics.get(key, ())
            finite = [value for value in line if is_number(value)]
            if not finite:
                continue
            label = f"{role}: {key}"
            axes.plot(
                curve.epochs,
                line,
                style,
                color=role_colour(curve.name),
                linewidth=1.7,
                label="_" if label in seen else label,
            )
            seen.add(label)
            values.extend(finite)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    house_style(axes)
    log_if_wide(axes, values)
    if seen:
        axes.legend(fontsize=7.5, frameon=False)


def draw_trials(data: Sequence[TrialLine], *, objective: str) -> Plot | None:
    """Draw every configuration's score against the epochs it was trained."""
    if not data:
        return None
    figure = new_figure(8, 5)
    axes = figure.subplots()
    brackets = sorted({line.bracket for line in data}, reverse=True)
    colours = {b: BRACKET_COLOURS[i % len(BRACKET_COLOURS)] for i, b in enumerate(brackets)}
    named: set[str] = set()
    for line in sorted(data, key=lambda found: (found.winner, found.configuration == 0)):
        colour, width, label = colours[line.bracket], 1.1, f"bracket {line.bracket}"
        if line.winner:
            label = (
                "best: the documented configuration"
                if line.configuration == 0
                else f"best (bracket {line.bracket})"
            )
            colour, width = BLUE, 2.4
        elif line.configuration == 0:
            colour, width, label = ORANGE, 2.4, "documented configuration"
        axes.plot(
            line.epochs,
            line.scores,
            color=colour,
            linewidth=width,
            marker="o",
            markersize=4,
            alpha=0.85,
            label="_" if label in named else label,
        )
        named.add(label)
    epochs = sorted({epoch for line in data for epoch in line.epochs})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(epochs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("epochs trained")
    better = "lower is better" if direction(objective) == "min" else "higher is better"
    axes.set_ylabel(f"{objective} ({better})")
    log_if_wide(axes, [score for line in data for score in line.scores])
    house_style(axes)
    axes.legend(fontsize=8, frameon=False)
    finish(figure)
    return Plot(
        name="trials_by_rung",
        title="Trials by rung",
        caption="A line is a configuration, a dot the end of one of its trials; lines that end "
        "early were not promoted.",
        figure=figure,
        columns=("configuration", "bracket", "epochs", objective),
        rows=[
            (line.configuration, line.bracket, epoch, score)
            for line in data
            for epoch, score in zip(line.epochs, line.scores, strict=True)
        ],
    )


def draw_roc(data: Sequence[RocCurve]) -> Plot | None:
    """Draw sensitivity against 1 − specificity, with the stored thresholds marked."""
    if not data:
        return None
    figure = new_figure(6, 5.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":", label="chance")
    for curve in data:
        colour = role_colour(curve.name)
        axes.plot(
            curve.false_positive_rate,
            curve.true_positive_rate,
            color=colour,
            linestyle="--" if curve.name.startswith("documented") else "-",
            linewidth=2,
            label=f"{curve.name}, AUC {metric(curve.auc)}",
        )
        if curve.operating_point is not None:
            axes.plot(
                *curve.operating_point,
                marker="D",
                markersize=8,
                color=colour,
                markeredgecolor="white",
                linestyle="none",
                zorder=5,
            )
    axes.set_xlabel("1 − specificity (healthy called ill)")
    axes.set_ylabel("sensitivity (ill called ill)")
    axes.set_aspect("equal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    house_style(axes)
    axes.legend(loc="lower right", fontsize=9, frameon=False)
    finish(figure)
    rows: list[tuple[Any, ...]] = []
    for curve in data:
        points = list(
            zip(curve.threshold, curve.false_positive_rate, curve.true_positive_rate, strict=True)
        )
        step = max(1, math.ceil(len(points) / (MAX_ROWS // len(data))))
        rows.extend((curve.name, *point) for point in [*points[:-1:step], points[-1]])
    return Plot(
        name="roc",
        title="ROC on the test set",
        caption="Diamonds are the stored thresholds, fixed on validation.",
        figure=figure,
        columns=("candidate", "threshold", "1 − specificity", "sensitivity"),
        rows=rows,
    )


def draw_confusion(data: Sequence[Confusion]) -> Plot | None:
    """Draw the confusion matrices of the test, shares of each true class as shades."""
    if not data:
        return None
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
    return Plot(
        name="confusion",
        title="Confusion matrices on the test set",
        caption="Counts, and shares of each true class.",
        figure=figure,
        columns=("model", "true NORMAL", "false PNEUMONIA", "false NORMAL", "true PNEUMONIA"),
        rows=[(m.name, m.tn, m.fp, m.fn, m.tp) for m in data],
    )
