"""Charts of what a search says about hyperparameters: slices, parallel coordinates, importance.

Every configuration counts once, with its furthest completed trial. Scores of trials that were
trained for different numbers of epochs cannot be compared as they are; the epochs are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from search.config import cost
from search.records import TrialRecord
from search.reporting.format import SHORT, baseline_values, described, metric, setting
from search.reporting.plots.style import Chart, Panel, Series, round_for_page
from search.reporting.progress import finalists

LEAST_CONFIGURATIONS = 40
"""From how many configurations on an importance can say something."""
LEAST_EXPLAINED = 0.25
"""Least share of the variance that the forest must predict on configurations it did not see."""
SHOWN_SLICES = 6
LOG_SPAN = 8.0
"""Ratio of largest to smallest value from which on an axis is logarithmic."""


def varied(records: Sequence[TrialRecord]) -> list[str]:
    """Return the hyperparameters that take more than one value, in their order."""
    names = dict.fromkeys(name for record in records for name in record.values)
    return [name for name in names if len({str(r.values.get(name)) for r in records}) > 1]


def slices(records: Sequence[TrialRecord], objective: str) -> Chart | None:
    """Return the score against each hyperparameter's value; None for fewer than three points."""
    best = finalists(records, objective)
    if len(best) < 3:
        return None
    names = by_spread(best, varied(best))[:SHOWN_SLICES]
    longest = best[0].epochs
    panels = []
    for name in names:
        here = sorted((r for r in best if name in r.values), key=lambda r: _order(r.values[name]))
        parts = (
            ("", "other", [r for r in here if r.epochs < longest and r.configuration]),
            (
                f"{longest} epochs",
                "winner",
                [r for r in here if r.epochs == longest and r.configuration],
            ),
            ("baseline", "baseline", [r for r in here if r.configuration == 0]),
        )
        panels.append(
            Panel(
                x=name,
                y=objective,
                log_x=_logarithmic([r.values[name] for r in here]),
                series=tuple(_points(title, colour, part, name) for title, colour, part in parts
                             if part),
            )
        )  # fmt: skip
    return Chart(
        name="slices",
        title="Score by hyperparameter",
        note=f"One point per configuration; dark: trained for {longest} epochs, pale: stopped "
        "earlier. Click a point for its learning curve.",
        panels=tuple(panels),
        height=230,
    )


def _points(title: str, colour: str, records: Sequence[TrialRecord], name: str) -> Series:
    return Series(
        name=title,
        x=tuple(_place(r.values[name]) for r in records),
        y=tuple(_score(r) for r in records),
        kind="points",
        colour=colour,
        labels=tuple(f"trial {r.trial_id}, {r.epochs} epochs" for r in records),
        ids=tuple(r.trial_id for r in records),
    )


def by_spread(records: Sequence[TrialRecord], names: Sequence[str]) -> list[str]:
    """Sort hyperparameters by how far the mean scores of their lower and upper half lie apart."""

    def spread(name: str) -> float:
        ordered = sorted((r for r in records if name in r.values),
                         key=lambda r: _order(r.values[name]))  # fmt: skip
        middle = len(ordered) // 2
        if not middle:
            return 0.0
        low, high = (
            sum(map(_score, part)) / len(part) for part in (ordered[:middle], ordered[middle:])
        )
        return -abs(high - low)

    return sorted(names, key=spread)


def parallel(records: Sequence[TrialRecord], objective: str) -> dict[str, Any] | None:
    """Return the axes and lines of parallel coordinates, as the report's script draws them.

    Returns:
        {"axes": [{name, ticks [[place, text]]}], "lines": [{id, label, places, good}]}: places
        are in [0, 1] or None where a hyperparameter is inactive, `good` is 1 for the best score;
        None for fewer than three configurations.
    """
    best = finalists(records, objective)
    if len(best) < 3:
        return None
    scales = {name: _scale([r.values[name] for r in best if name in r.values])
              for name in varied(best)}  # fmt: skip
    scores = [_score(r) for r in best]
    ranked = sorted(scores, key=lambda score: cost(objective, score))
    low, high = min(scores), max(scores)
    axes = [{"name": name, "ticks": _ticks(scale)} for name, scale in scales.items()]
    ends = [[0.0, metric(low)], [1.0, metric(high)]]
    axes.append({"name": objective, "ticks": ends})
    baseline = baseline_values(best)
    lines = [
        {
            "id": record.trial_id,
            "label": f"trial {record.trial_id}, {record.epochs} epochs, {objective} "
            f"{metric(record.score)}: {described(record, baseline, short=True)}",
            "good": 1 - ranked.index(score) / max(1, len(ranked) - 1),
            "places": [
                *(
                    round_for_page(_relative(record.values[name], scale))
                    if name in record.values
                    else None
                    for name, scale in scales.items()
                ),
                round_for_page((score - low) / (high - low) if high > low else 0.5),
            ],
        }
        for record, score in zip(best, scores, strict=True)
    ]
    return {"axes": axes, "lines": lines}


def parallel_chart(found: dict[str, Any]) -> Chart:
    """Return parallel coordinates as a chart, for the picture on disk."""
    names = tuple(axis["name"].replace("_", "\n") for axis in found["axes"])
    series = []
    for item in sorted(found["lines"], key=lambda item: item["good"]):
        kept = [i for i, place in enumerate(item["places"]) if place is not None]
        colour = "winner" if item["good"] > 0.8 else "dim"
        series.append(Series(name="", x=tuple(names[i] for i in kept),
                             y=tuple(item["places"][i] for i in kept), colour=colour))  # fmt: skip
    return Chart(
        name="parallel",
        title="Configurations, the best fifth dark",
        note="",
        panels=(Panel(x="", y="value, from lowest to highest", series=tuple(series)),),
    )


def importance(records: Sequence[TrialRecord], objective: str) -> Chart | None:
    """Return how much of the score each hyperparameter explains, where that can be told.

    A random forest predicts the score from the hyperparameters and the number of epochs; what
    permuting a column costs it is that column's importance (Breiman, Machine Learning 45, 2001).

    Returns:
        None for too few configurations, or where the forest does not predict ones it did not see.
    """
    best = finalists(records, objective)
    names = varied(best)
    if len(best) < LEAST_CONFIGURATIONS or not names:
        return None
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import
    from sklearn.inspection import permutation_importance

    scales = [_scale([r.values[name] for r in best if name in r.values]) for name in names]
    table = [
        [
            *(
                _relative(r.values[name], scale) if name in r.values else -1.0
                for name, scale in zip(names, scales, strict=True)
            ),
            math.log(r.epochs),
        ]
        for r in best
    ]
    scores = [_score(r) for r in best]
    forest = RandomForestRegressor(300, min_samples_leaf=3, oob_score=True, random_state=0)
    forest.fit(table, scores)
    if forest.oob_score_ < LEAST_EXPLAINED:
        return None
    found = permutation_importance(forest, table, scores, n_repeats=20, random_state=0)
    rows = sorted(zip(names, found.importances_mean, strict=False), key=lambda row: -row[1])[:8]
    return Chart(
        name="importance",
        title="Importance of hyperparameters",
        note=f"What shuffling one costs a random forest that explains {forest.oob_score_:.0%} of "
        f"{objective} on unseen configurations.",
        panels=(
            Panel(
                x="loss of R²",
                y="",
                series=(Series(name="", x=tuple(name for name, _ in rows),
                               y=tuple(float(v) for _, v in rows), kind="bars"),),
            ),
        ),
    )  # fmt: skip


def _score(record: TrialRecord) -> float:
    assert record.score is not None, "completed trials have a score"
    return record.score


def _place(value: Any) -> float | str:
    """Return where a value lies on an axis: numbers as they are, everything else by name."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else (
        setting(value)
    )  # fmt: skip


def _order(value: Any) -> tuple[float, str]:
    place = _place(value)
    return (0.0, place) if isinstance(place, str) else (place, "")


def _logarithmic(values: Sequence[Any]) -> bool:
    numbers = [_place(value) for value in values]
    if any(isinstance(place, str) or place <= 0 for place in numbers):
        return False
    return max(numbers) / min(numbers) >= LOG_SPAN  # type: ignore[operator]


def _scale(values: Sequence[Any]) -> tuple[list[float | str], bool]:
    """Return the distinct places of an axis in order, and whether it is logarithmic."""
    distinct = sorted(set(values), key=_order)
    return list(dict.fromkeys(_place(value) for value in distinct)), _logarithmic(values)


def _relative(value: Any, scale: tuple[list[float | str], bool]) -> float:
    """Return where a value lies on an axis, between 0 and 1."""
    places, logarithmic = scale
    if len(places) == 1:
        return 0.5
    if any(isinstance(place, str) for place in places):
        return places.index(_place(value)) / (len(places) - 1)
    write = math.log if logarithmic else float
    low, high, here = write(places[0]), write(places[-1]), write(value)  # type: ignore[arg-type]
    return (here - low) / (high - low)


def _ticks(scale: tuple[list[float | str], bool]) -> list[list[Any]]:
    """Return (place, text) of the marks of an axis: every category or few values, else the ends."""
    places = scale[0]
    shown = places if len(places) <= 5 else [places[0], places[-1]]
    return [
        [
            round_for_page(_relative(p, scale) if not isinstance(p, str)
                           else places.index(p) / max(1, len(places) - 1)),
            SHORT.get(p, p) if isinstance(p, str) else setting(p),
        ]
        for p in shown
    ]  # fmt: skip
