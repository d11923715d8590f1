"""Which hyperparameters matter, and how: importance with intervals, marginal effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.config import direction
from search.records import TrialRecord, TrialStatus
from search.reporting.figures import (
    BLUE,
    INK,
    finish,
    house_style,
    legend_above,
    log_if_wide,
    log_ticks,
    new_figure,
    objective_label,
)
from search.reporting.insights.forest import Effect, Effects
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.wording import is_number, plural, setting

ENOUGH = 20
"""Configurations below which nothing is claimed, whatever the numbers say."""

PANELS = 9
ORDINAL = 8
"""Values up to which they are drawn at equal distances."""

METHOD = (
    "Functional ANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014) of a random forest over all "
    "completed trials, with the number of epochs as a feature and asked at the largest"
)


def importance_and_marginals(material: Material) -> list[Insight]:
    """Return the importance of every hyperparameter and its marginal effect."""
    found = material.effects
    if found is None:
        return []
    return [_importance(found), *_marginals(found, material)]


def _importance(found: Effects) -> Insight:
    return Insight(
        name="importance",
        section=Section.SEARCH,
        title="Importance of the hyperparameters",
        reading=reading(found),
        caption=f"{METHOD} ({plural(found.epochs, 'epoch')}). The share of the variance of the "
        "score at equal epochs that each explains alone; what is left is interaction and noise. "
        "Lines are 95% intervals, by resampling configurations. Dotted: what the most important "
        "one reaches by chance in 1 search of 20, with the hyperparameters dealt out anew; "
        "gray bars do not pass it. Importance holds for the ranges searched.",
        columns=(
            "hyperparameter",
            "share of variance",
            "low",
            "high",
            "beyond chance",
            "active in",
        ),
        rows=tuple(
            (
                e.name,
                e.importance,
                e.importance_low,
                e.importance_high,
                "yes" if claimed(found, e) else "no",
                f"{e.active:.0%}",
            )
            for e in found.effects
        ),
        draw=partial(draw_importance, found),
    )


def claimed(found: Effects, effect: Effect) -> bool:
    """Return whether enough is known to say that a hyperparameter matters."""
    return found.configurations >= ENOUGH and found.skill > 0 and effect.importance > found.chance


def reading(found: Effects) -> str:
    """Say which hyperparameters matter, or why that cannot be said."""
    count = plural(found.configurations, "configuration")
    if found.configurations < ENOUGH:
        return (
            f"Too few to tell: {count} cannot rank {len(found.effects)} hyperparameters; the "
            "intervals are wide and nothing is claimed."
        )
    if not found.skill > 0:
        return (
            f"Nothing is claimed: from {count} the forest predicts configurations it has not seen "
            "no better than their number of epochs alone does."
        )
    beyond = [e for e in found.effects if claimed(found, e)]
    skill = f"The forest predicts {found.skill:.0%} of the variance of unseen configurations"
    if not beyond:
        return f"{skill}, but no hyperparameter alone explains more than chance would give one."
    words = ", ".join(
        f"{e.name} {e.importance:.0%} ({e.importance_low:.0%}–{e.importance_high:.0%})"
        for e in beyond
    )
    return f"Beyond chance: {words} of the variance. {skill}; {count}."


def _marginals(found: Effects, material: Material) -> list[Insight]:
    pages = [found.effects[i : i + PANELS] for i in range(0, len(found.effects), PANELS)]
    made = []
    for number, page in enumerate(pages, 1):
        of = f" ({number} of {len(pages)})" if len(pages) > 1 else ""
        made.append(
            Insight(
                name=f"marginals_{number}" if len(pages) > 1 else "marginals",
                section=Section.SEARCH,
                title=f"Marginal effect of each hyperparameter{of}",
                reading=_marginal_reading(found, page, material.objective),
                caption=f"{METHOD}: the expected {material.objective} after "
                f"{plural(found.epochs, 'epoch')} at each value, all else averaged over; bands are "
                "95% limits, by resampling configurations. Dots are trials, darker for more "
                "epochs; those with fewer epochs lie higher or lower for that reason alone. The "
                "most important come first.",
                columns=(
                    "hyperparameter",
                    "value",
                    f"expected {material.objective}",
                    "low",
                    "high",
                ),
                rows=tuple(
                    (e.name, setting(level), *numbers)
                    for e in page
                    for level, *numbers in zip(e.levels, e.expected, e.low, e.high, strict=True)
                ),
                draw=partial(draw_marginals, page, material.records, material.objective),
            )
        )
    return made


def _marginal_reading(found: Effects, page: Sequence[Effect], objective: str) -> str:
    known = [e for e in page if claimed(found, e)]
    if not known:
        return "None of these effects is told apart from chance."
    best = min if direction(objective) == "min" else max
    words = []
    for e in known:
        place = e.expected.index(best(e.expected))
        words.append(f"{e.name}={setting(e.levels[place])}")
    return f"By these trials, best on average: {', '.join(words)}."


def draw_importance(found: Effects) -> Figure:
    """Draw a bar a hyperparameter, its interval, and what chance gives."""
    figure = new_figure(8, 1.3 + 0.27 * len(found.effects))
    axes = figure.subplots()
    for place, e in enumerate(found.effects):
        sure = claimed(found, e)
        axes.barh(place, e.importance, color=BLUE if sure else "#BBBBBB", height=0.62)
        axes.plot([e.importance_low, e.importance_high], [place, place], color=INK, linewidth=1.2)
    axes.axvline(
        found.chance, color=INK, linestyle=":", linewidth=1.2, label="chance, 1 search of 20"
    )
    axes.set_yticks(range(len(found.effects)), [e.name for e in found.effects])
    axes.set_ylim(len(found.effects) - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the variance of the score at equal epochs")
    house_style(axes)
    legend_above(figure, axes)
    return figure


def draw_marginals(
    page: Sequence[Effect], records: Sequence[TrialRecord], objective: str
) -> Figure:
    """Draw a panel a hyperparameter: the forest's marginal, and the trials."""
    columns = 3
    lines = math.ceil(len(page) / columns)
    figure = new_figure(10.5, 2.75 * lines + 0.4)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    done = [r for r in records if r.status is TrialStatus.COMPLETED and is_number(r.score)]
    scores = [float(r.score or 0) for r in done]
    for axes, effect in zip(grid.ravel(), page, strict=False):
        _draw_marginal(axes, effect, done)
        house_style(axes)
        axes.tick_params(labelsize=8)
        axes.set_title(effect.name, fontsize=10, loc="left")
    for axes in grid.ravel()[len(page) :]:
        axes.set_visible(False)
    log_if_wide(grid[0, 0], scores)
    for line in grid:
        line[0].set_ylabel(objective_label(objective), fontsize=8)
    finish(figure)
    return figure


def _draw_marginal(axes: Axes, effect: Effect, done: Sequence[TrialRecord]) -> None:
    ordinal = not effect.numeric or len(effect.levels) <= ORDINAL
    tried = [r for r in done if r.values.get(effect.name) is not None]
    if ordinal:
        place = {level: float(i) for i, level in enumerate(effect.levels)}
        x = np.arange(len(effect.levels), dtype=float)
        # The same trial is moved aside by the same distance in every panel.
        dots = [
            place.get(r.values[effect.name], math.nan) + 0.18 * math.sin(7.0 * i)
            for i, r in enumerate(tried)
        ]
        for i, (low, high) in enumerate(zip(effect.low, effect.high, strict=True)):
            axes.fill_between([i - 0.3, i + 0.3], low, high, color=BLUE, alpha=0.2, linewidth=0)
            axes.plot([i - 0.3, i + 0.3], [effect.expected[i]] * 2, color=BLUE, linewidth=2)
        axes.set_xticks(x, [setting(level) for level in effect.levels])
        axes.set_xlim(-0.6, len(x) - 0.4)
    else:
        x = np.array(effect.levels, dtype=float)
        dots = [float(r.values[effect.name]) for r in tried]
        axes.fill_between(x, effect.low, effect.high, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(x, effect.expected, color=BLUE, linewidth=2)
        if min(x) > 0 and max(x) / min(x) > 8:
            log_ticks(axes, float(min(x)), float(max(x)))
    most = max((r.epochs for r in done), default=1)
    shades = [0.25 + 0.6 * math.log(1 + r.epochs) / math.log(1 + most) for r in tried]
    axes.scatter(
        dots,
        [float(r.score or 0) for r in tried],
        s=14,
        color=[(0.1, 0.1, 0.1, shade) for shade in shades],
        linewidths=0,
        zorder=3,
    )
