"""The winner against the documented configuration on the same images: differences, McNemar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from search.config import direction
from search.reporting.facts import mapping
from search.reporting.figures import BLUE, GRAY, INK, ORANGE, finish, house_style, new_figure
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.insights.scores import NAMES
from search.reporting.wording import is_number, metric, plural

SUFFIX = "_at_threshold"


def difference(material: Material) -> list[Insight]:
    """Return winner − documented of every metric, on the same images."""
    rows = []
    for full, found in mapping(material.evaluation.get("difference")).items():
        key, estimate = full.removesuffix(SUFFIX), mapping(found)
        if not is_number(estimate.get("value")) or key not in NAMES:
            continue
        at = "stored" if full.endswith(SUFFIX) else "0.5"
        at = at if f"{key}{SUFFIX}" in material.evaluation["difference"] else "any"
        ends = (estimate.get("low"), estimate.get("high"))
        rows.append((NAMES[key], at, estimate["value"], *ends, _verdict(key, *ends)))
    if not rows:
        return []
    order = list(NAMES.values())
    rows.sort(key=lambda row: (order.index(row[0]), row[1]))
    return [
        Insight(
            name="difference",
            section=Section.TEST,
            title="Winner against the documented configuration",
            reading=_mcnemar(material.evaluation, "mcnemar_at_threshold", "At their thresholds")
            or _mcnemar(material.evaluation, "mcnemar", "At 0.5")
            or "Both were scored on the same images.",
            caption="Winner − documented on the same images, at 0.5 and at each one's stored "
            "threshold. Lines are 95% intervals, by a bootstrap over patients, the same resamples "
            "for both; where one holds 0, it is gray and the two can't be told apart by that "
            "metric. McNemar's test (exact, two-sided) takes images as independent. No interval is "
            "corrected for looking at several metrics.",
            columns=("metric", "threshold", "winner − documented", "low", "high", "the winner is"),
            rows=tuple(rows),
            draw=partial(draw_difference, rows),
        )
    ]


def _verdict(key: str, low: Any, high: Any) -> str:
    if not is_number(low) or not is_number(high):
        return "unknown"
    sign = -1 if direction(key) == "min" else 1
    if min(sign * low, sign * high) > 0:
        return "better"
    return "worse" if max(sign * low, sign * high) < 0 else "not told apart"


def _mcnemar(evaluation: dict[str, Any], key: str, where: str) -> str:
    found = mapping(evaluation.get(key))
    first, second = found.get("only_winner_right"), found.get("only_documented_right")
    p = found.get("p_value")
    if not (is_number(first) and is_number(second) and is_number(p)):
        return ""
    chance = "p < 0.001" if p < 0.001 else f"p = {metric(p)}"
    return (
        f"{where}, {plural(int(first), 'image')} "
        f"{'is' if first == 1 else 'are'} judged rightly by the winner alone and {int(second)} by "
        f"the documented configuration alone (McNemar's test, {chance})."
    )


def draw_difference(rows: Sequence[tuple[Any, ...]]) -> Figure:
    """Draw every difference with its interval, better to the right."""
    figure = new_figure(8, 1.5 + 0.3 * len(rows))
    axes = figure.subplots()
    losses = {NAMES[key] for key in NAMES if direction(key) == "min"}
    names = []
    for place, (name, at, value, low, high, verdict) in enumerate(rows):
        # A loss is turned round, so that right is better for all.
        sign = -1 if name in losses else 1
        ends = [sign * (math.nan if end is None else end) for end in (low, high)]
        colour = {"better": BLUE, "worse": ORANGE}.get(verdict, GRAY)
        axes.plot(ends, [place, place], color=colour, linewidth=2, alpha=0.7)
        axes.plot(sign * value, place, "o", color=colour, markersize=6, markeredgecolor="white")
        minus = "−" if sign < 0 else ""
        names.append(f"{minus}{name}" + ("" if at == "any" else f", {at}"))
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("← documented better     winner − documented     winner better →")
    house_style(axes)
    finish(figure)
    return figure
