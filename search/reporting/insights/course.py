"""How trials and retrainings went: scores by rung, learning curves, training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from search.config import direction
from search.records import TrialRecord, TrialStatus
from search.reporting import curves
from search.reporting.curves import TrainingCurve, TrialLine
from search.reporting.figures import (
    BLUE,
    BRACKET_COLOURS,
    ORANGE,
    STAMP,
    finish,
    house_style,
    legend_above,
    log_if_wide,
    new_figure,
    objective_label,
    role_colour,
)
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.trials import finalists
from search.reporting.wording import is_number, metric, plural

SHADES = ("#C9C9C9", "#A5A5A5", "#7E7E7E", "#575757", "#303030")
"""Of configurations that were promoted never, once, twice, …"""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """One configuration's objective, epoch by epoch.

    Attributes:
        configuration: Its number.
        bracket: Its bracket.
        rung: The last rung it reached.
        epochs: Epoch numbers.
        scores: The objective at each, finite.
        best: Whether it is the best at the largest budget.
        failed: Whether its last trial failed.
    """

    configuration: int
    bracket: int
    rung: int
    epochs: tuple[int, ...]
    scores: tuple[float, ...]
    best: bool
    failed: bool


def trials_by_rung(material: Material) -> list[Insight]:
    """Return every configuration's score against the epochs it was trained."""
    objective = material.objective
    data = curves.trials_by_rung(material.records, objective=objective)
    if not data:
        return []
    best = next((line for line in data if line.winner), data[0])
    control = next((line for line in data if line.configuration == 0), None)
    words = f"The best reached {objective} {metric(best.scores[-1])}" + (
        f" after {plural(best.epochs[-1], 'epoch')}"
    )
    if control is best:
        words += "; it is the documented configuration"
    elif control is not None:
        words += (
            f"; the documented configuration {metric(control.scores[-1])} after "
            f"{plural(control.epochs[-1], 'epoch')}"
        )
    return [
        Insight(
            name="trials_by_rung",
            section=Section.COURSE,
            title="Trials by rung",
            reading=words + ".",
            caption="A line is a configuration, a dot the end of one of its trials; lines that end "
            "early were not promoted.",
            columns=("configuration", "bracket", "epochs", objective),
            rows=tuple(
                (line.configuration, line.bracket, epoch, score)
                for line in data
                for epoch, score in zip(line.epochs, line.scores, strict=True)
            ),
            draw=partial(draw_trials, data, objective=objective),
        )
    ]


def learning_curves(material: Material) -> list[Insight]:
    """Return every configuration's objective epoch by epoch, a panel a bracket."""
    data = curves_by_configuration(material.records, objective=material.objective)
    if not data:
        return []
    rungs = max(curve.rung for curve in data)
    furthest = [c for c in data if c.rung == rungs]
    failed = sum(c.failed for c in data)
    return [
        Insight(
            name="learning_curves",
            section=Section.COURSE,
            title="Learning curves by bracket",
            reading=f"{plural(len(data), 'configuration')}, {len(furthest)} of them promoted "
            f"{rungs} {'time' if rungs == 1 else 'times'}"
            + (f", {failed} failed" if failed else "")
            + ".",
            caption="Every epoch of every configuration; a line ends where it was not promoted, "
            "the darker the later. Dotted lines are rungs. A cross is a trial that failed.",
            columns=("configuration", "bracket", "epoch", material.objective),
            rows=tuple(
                (curve.configuration, curve.bracket, epoch, score)
                for curve in data
                for epoch, score in zip(curve.epochs, curve.scores, strict=True)
            ),
            draw=partial(
                draw_learning, data, _rungs(material.records), objective=material.objective
            ),
        )
    ]


def training_curves(material: Material) -> list[Insight]:
    """Return loss and ranking of the retraining, epoch by epoch."""
    objective = material.objective
    data = curves.training_curves(material.histories, objective=objective)
    if not data:
        return []
    keys = list(dict.fromkeys((*curves.CURVES, objective)))
    best = min if direction(objective) == "min" else max
    words = []
    for curve in data:
        known = [(v, e) for v, e in zip(curve.metrics[objective], curve.epochs, strict=True)]
        known = [pair for pair in known if is_number(pair[0])]
        if known:
            value, epoch = best(known)
            words.append(f"{curve.name}: {metric(value)} at epoch {epoch} of {curve.epochs[-1]}")
    return [
        Insight(
            name="training_curves",
            section=Section.COURSE,
            title="Training curves of the retraining",
            reading=f"Best {objective} of {'; '.join(words)}." if words else "",
            caption="Training is dotted, clean validation solid, stressed views dashed, the "
            "objective dash-dotted. The documented configuration is orange, the winner blue.",
            columns=("candidate", "epoch", *keys),
            rows=tuple(
                (curve.name, epoch, *(curve.metrics[key][i] for key in keys))
                for curve in data
                for i, epoch in enumerate(curve.epochs)
            ),
            draw=partial(draw_training, data, objective=objective),
        )
    ]


def curves_by_configuration(
    records: Sequence[TrialRecord], *, objective: str
) -> list[LearningCurve]:
    """Return a curve a configuration, its trials one after another; none without epochs."""
    groups: dict[tuple[int, int], list[TrialRecord]] = {}
    for record in records:
        groups.setdefault((record.iteration, record.configuration), []).append(record)
    best = next(iter(finalists(records, direction(objective))), None)
    found = []
    for group in groups.values():
        group.sort(key=lambda record: (record.initial_epoch, record.rung))
        points = {
            epoch.epoch: epoch.metrics.get(objective, math.nan)
            for record in group
            for epoch in record.history
        }
        finite = {e: v for e, v in sorted(points.items()) if is_number(v)}
        if finite:
            found.append(
                LearningCurve(
                    configuration=group[0].configuration,
                    bracket=group[0].bracket,
                    rung=group[-1].rung,
                    epochs=tuple(finite),
                    scores=tuple(finite.values()),
                    best=best in group,
                    failed=group[-1].status is TrialStatus.FAILED,
                )
            )
    return found


def _rungs(records: Sequence[TrialRecord]) -> dict[int, list[int]]:
    """Return the epochs of every bracket's rungs."""
    found: dict[int, set[int]] = {}
    for record in records:
        found.setdefault(record.bracket, set()).add(record.target_epochs)
    return {bracket: sorted(epochs) for bracket, epochs in found.items()}


def draw_trials(data: Sequence[TrialLine], *, objective: str) -> Figure:
    """Draw a line a configuration through the ends of its trials."""
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
    _epoch_axis(axes, sorted({epoch for line in data for epoch in line.epochs}))
    axes.set_xlabel("epochs trained")
    axes.set_ylabel(objective_label(objective))
    log_if_wide(axes, [score for line in data for score in line.scores])
    house_style(axes)
    axes.legend(fontsize=8, frameon=False)
    finish(figure)
    return figure


def draw_learning(
    data: Sequence[LearningCurve], rungs: dict[int, list[int]], *, objective: str
) -> Figure:
    """Draw a panel a bracket."""
    brackets = sorted({curve.bracket for curve in data}, reverse=True)
    columns = min(2, len(brackets))
    lines = math.ceil(len(brackets) / columns)
    figure = new_figure(5.2 * columns, 3.5 * lines + 0.3)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, bracket in zip(grid.ravel(), brackets, strict=False):
        mine = [curve for curve in data if curve.bracket == bracket]
        for curve in sorted(mine, key=lambda c: (c.best, c.configuration == 0, c.rung)):
            _draw_learning_curve(axes, curve)
        for epochs in rungs[bracket][:-1]:
            axes.axvline(epochs, color="#999999", linestyle=":", linewidth=1, zorder=0)
        axes.set_title(
            f"bracket {bracket}: {plural(len(mine), 'configuration')}", fontsize=10, loc="left"
        )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        house_style(axes)
    for axes in grid.ravel()[len(brackets) :]:
        axes.set_visible(False)
    log_if_wide(grid[0, 0], [score for curve in data for score in curve.scores])
    for line in grid:
        line[0].set_ylabel(objective_label(objective))
    legend = [("best", BLUE), ("documented", ORANGE)]
    if any(c.best and c.configuration == 0 for c in data):
        legend = [("best: the documented", BLUE)]
    for label, colour in legend:
        if colour == BLUE or any(c.configuration == 0 for c in data):
            grid[0, 0].plot([], [], color=colour, linewidth=2.2, label=label)
    for rung in sorted({c.rung for c in data}):
        label = f"promoted {rung} ×" if rung else "not promoted"
        grid[0, 0].plot([], [], color=SHADES[min(rung, len(SHADES) - 1)], label=label)
    legend_above(figure, grid[0, 0])
    return figure


def _draw_learning_curve(axes: Axes, curve: LearningCurve) -> None:
    colour, width = SHADES[min(curve.rung, len(SHADES) - 1)], 1.1
    if curve.best:
        colour, width = BLUE, 2.4
    elif curve.configuration == 0:
        colour, width = ORANGE, 2.4
    lone = len(curve.epochs) == 1
    axes.plot(
        curve.epochs,
        curve.scores,
        color=colour,
        linewidth=width,
        marker="o" if lone else "",
        markersize=3.5,
    )
    if curve.failed:
        axes.plot(curve.epochs[-1], curve.scores[-1], "x", color=STAMP, markersize=7)


def _epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(epochs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())


def draw_training(data: Sequence[TrainingCurve], *, objective: str) -> Figure:
    """Draw loss and ranking of the retraining, epoch by epoch."""
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
    return figure


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
