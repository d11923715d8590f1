"""Charts of what a search says about hyperparameters: slices, parallel coordinates, importance.

Every configuration counts once, with its furthest completed trial. Scores of trials that were
trained for different numbers of epochs cannot be compared as they are; the epochs are shown.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from search.config import cost
from search.records import TrialRecord
from search.reporting.format import (
    abbreviated,
    baseline_values,
    described,
    metric,
    plural,
    setting,
)
from search.reporting.plots.style import Chart, Panel, Series, round_for_page, score, trial_points
from search.tuning.selection import winners

LEAST_CONFIGURATIONS = 40
"""From how many configurations on an importance can say something."""
LEAST_EXPLAINED = 0.25
"""Least share of the variance that the forest must predict on configurations it did not see."""
SHOWN_SLICES = 6
LOG_SPAN = 8.0
"""Ratio of largest to smallest value from which on an axis is logarithmic."""

Place = float | str
"""Where a value lies on an axis."""


def varied(records: Sequence[TrialRecord]) -> list[str]:
    """Return the hyperparameters that take more than one value where active, in their order."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.values.items():
            found.setdefault(name, set()).add(str(value))
    return [name for name, values in found.items() if len(values) > 1]


def slices(records: Sequence[TrialRecord], objective: str) -> Chart | None:
    """Return the score against each hyperparameter's value; None for fewer than three points."""
    best = winners(records, objective)
    if len(best) < 3:
        return None
    longest = best[0].epochs
    panels = []
    for name in _by_spread(best, varied(best))[:SHOWN_SLICES]:
        here = _along(best, name)
        others = [r for r in here if r.configuration]
        parts = (
            ("", "other", [r for r in others if r.epochs < longest]),
            (plural(longest, "epoch"), "winner", [r for r in others if r.epochs == longest]),
            ("baseline", "baseline", [r for r in here if r.configuration == 0]),
        )
        series = tuple(
            trial_points(title, colour, part, [_place(r.values[name]) for r in part])
            for title, colour, part in parts
            if part
        )
        log = _logarithmic([_place(r.values[name]) for r in here])
        panels.append(Panel(name, objective, series, log=log))
    note = (
        f"One point per configuration; dark: trained for {plural(longest, 'epoch')}, pale: stopped "
        "earlier. Click a point for its learning curve."
    )
    return Chart("slices", "Score by hyperparameter", note, tuple(panels), height=230)


def _by_spread(records: Sequence[TrialRecord], names: Sequence[str]) -> list[str]:
    """Sort by how far the mean scores of lower and upper half lie apart, times how many have it."""

    def spread(name: str) -> float:
        scores = list(map(score, _along(records, name)))
        middle = len(scores) // 2
        if not middle:
            return 0.0
        apart = abs(statistics.fmean(scores[middle:]) - statistics.fmean(scores[:middle]))
        return -apart * len(scores)

    return sorted(names, key=spread)


def _along(records: Sequence[TrialRecord], name: str) -> list[TrialRecord]:
    """Return the trials that have a hyperparameter, in the order of its values."""
    return sorted((r for r in records if name in r.values), key=lambda r: _order(r.values[name]))


def parallel(records: Sequence[TrialRecord], objective: str) -> dict[str, Any] | None:
    """Return {axes: [{name, ticks [[place, text]]}], lines: [{id, label, places, good}]}.

    Places are in [0, 1], None where a hyperparameter is inactive; `good` is 1 for the best score.
    """
    best = winners(records, objective)
    if len(best) < 3:
        return None
    scales = _scales(best)
    scores = list(map(score, best))
    ranked = sorted(scores, key=lambda score: cost(objective, score))
    low, high = min(scores), max(scores)
    axes = [{"name": name, "ticks": _ticks(scale)} for name, scale in scales.items()]
    axes.append({"name": objective, "ticks": [[0.0, metric(low)], [1.0, metric(high)]]})
    baseline = baseline_values(best)
    lines = []
    for record, reached in zip(best, scores, strict=True):
        place = (reached - low) / (high - low) if high > low else 0.5
        trained = plural(record.epochs, "epoch")
        text = f"trial {record.trial_id}, {trained}, {objective} {metric(reached)}: "
        lines.append(
            {
                "id": record.trial_id,
                "label": text + described(record, baseline, short=True),
                "good": 1 - ranked.index(reached) / max(1, len(ranked) - 1),
                "places": round_for_page((*_places(record, scales), place)),
            }
        )
    return {"axes": axes, "lines": lines}


def parallel_chart(found: dict[str, Any]) -> Chart:
    """Return parallel coordinates as a chart, for the picture on disk."""
    names = tuple(axis["name"].replace("_", "\n") for axis in found["axes"])
    series = []
    for item in sorted(found["lines"], key=lambda item: item["good"]):
        placed = [pair for pair in zip(names, item["places"], strict=True) if pair[1] is not None]
        x, y = zip(*placed, strict=True)
        series.append(Series("", x, y, colour="winner" if item["good"] > 0.8 else "dim"))
    panel = Panel("", "value, from lowest to highest", tuple(series))
    return Chart("parallel", "Configurations, the best fifth dark", "", (panel,))


def importance(records: Sequence[TrialRecord], objective: str) -> Chart | None:
    """Return how much of the score each hyperparameter explains, where that can be told.

    A random forest predicts the score from the hyperparameters and the number of epochs; what
    permuting a column costs it is that column's importance (Breiman, Machine Learning 45, 2001).
    """
    best = winners(records, objective)
    scales = _scales(best)
    if len(best) < LEAST_CONFIGURATIONS or not scales:
        return None
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import
    from sklearn.inspection import permutation_importance

    table = [
        [*(-1.0 if place is None else place for place in _places(r, scales)), math.log(r.epochs)]
        for r in best
    ]
    scores = list(map(score, best))
    forest = RandomForestRegressor(300, min_samples_leaf=3, oob_score=True, random_state=0)
    forest.fit(table, scores)
    if forest.oob_score_ < LEAST_EXPLAINED:
        return None
    found = permutation_importance(forest, table, scores, n_repeats=20, random_state=0)
    costs = dict(zip(scales, found.importances_mean.tolist(), strict=False))  # not the epochs'
    names = sorted(costs, key=lambda name: -costs[name])[:8]
    bars = Series("", tuple(names), tuple(costs[name] for name in names), kind="bars")
    note = (
        f"What shuffling one costs a random forest that explains {forest.oob_score_:.0%} of "
        f"{objective} on unseen configurations."
    )
    panel = Panel("loss of R²", "", (bars,))
    return Chart("importance", "Importance of hyperparameters", note, (panel,))


def _place(value: Any) -> Place:
    """Return where a value lies on an axis: numbers as they are, everything else by name."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number else setting(value)


def _order(value: Any) -> tuple[float, str]:
    place = _place(value)
    return (0.0, place) if isinstance(place, str) else (place, "")


def _logarithmic(places: Sequence[Place]) -> bool:
    numbers = [place for place in places if not isinstance(place, str) and place > 0]
    return len(numbers) == len(places) and max(numbers) / min(numbers) >= LOG_SPAN


def _scales(records: Sequence[TrialRecord]) -> dict[str, dict[Place, float]]:
    """Return, of every hyperparameter that varies, its places in order, each between 0 and 1."""
    found = {}
    for name in varied(records):
        values = [record.values[name] for record in _along(records, name)]
        places = list(dict.fromkeys(map(_place, values)))
        heights: list[float] = list(range(len(places)))
        if not any(isinstance(place, str) for place in places):
            write = math.log if _logarithmic(places) else float
            heights = [write(place) for place in places]  # type: ignore[arg-type]
        low, span = heights[0], heights[-1] - heights[0]
        found[name] = {
            place: (height - low) / span if span else 0.5
            for place, height in zip(places, heights, strict=True)
        }
    return found


def _places(record: TrialRecord, scales: dict[str, dict[Place, float]]) -> list[float | None]:
    """Return where a trial's values lie, None for what is inactive."""
    values = record.values
    return [
        scale[_place(values[name])] if name in values else None for name, scale in scales.items()
    ]


def _ticks(scale: dict[Place, float]) -> list[list[Any]]:
    """Return (place, text) of the marks of an axis: every category or few values, else the ends."""
    places = list(scale)
    shown = places if len(places) <= 5 else [places[0], places[-1]]
    return [[round_for_page(scale[place]), abbreviated(setting(place))] for place in shown]
