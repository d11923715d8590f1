"""Reads `evaluation.json` into what reports say: rows of metrics and sentences; pure.

Every number is an estimate with its 95% interval, as `scoring` wrote it. Nothing is computed here
except the wording, and the spread over seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.reporting.comparison import METRICS, compare
from search.reporting.facts import mapping
from search.reporting.wording import (
    MISSING,
    compact,
    differing,
    is_number,
    metric,
    opened,
    plural,
    same_values,
    whole,
)

COLUMNS = ("documented at 0.5", "documented at threshold", "winner at 0.5", "winner at threshold")

MIXED = "so that the comparison mixes the recipe with the hyperparameters"

Scored = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An estimate as text.

    Attributes:
        value: The number, or a dash.
        interval: "0.912–0.968", or "" where there is none.
    """

    value: str
    interval: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a report says about the test.

    Attributes:
        rows: (metric's name, one cell for each of `COLUMNS`).
        spread: (metric's name, documented over seeds, winner over seeds); empty for one seed.
        sentence: The verdict in plain language.
        remarks: Images, thresholds, seeds and McNemar's test, a sentence each.
        outcome: "better", "worse", "mixed", "undecided" or "unknown".
    """

    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    spread: tuple[tuple[str, str, str], ...]
    sentence: str
    remarks: tuple[str, ...]
    outcome: str


def read_verdict(evaluation: dict[str, Any]) -> Verdict:
    """Word the content of `evaluation.json`; missing parts become dashes."""
    winner, documented = mapping(evaluation.get("winner")), mapping(evaluation.get("documented"))
    best = chosen(winner)
    control = chosen(documented, like=best.get("seed"))
    rows = tuple(
        (
            name,
            (
                _cell(control, "at_half", key),
                _cell(control, "at_threshold", key),
                _cell(best, "at_half", key),
                _cell(best, "at_threshold", key),
            ),
        )
        for key, name in METRICS
    )
    outcome, sentence = _compare(evaluation, winner, documented, best)
    return Verdict(
        rows=rows,
        spread=_spread(documented, winner),
        sentence=sentence,
        remarks=tuple(_remarks(evaluation, best, control)),
        outcome=outcome,
    )


def scorings(part: dict[str, Any], split: str = "test") -> list[Scored]:
    """Return the evaluations of a candidate, one per seed."""
    found = part.get(split)
    if isinstance(found, dict):
        return [found]
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def chosen(part: dict[str, Any], like: Any = None) -> Scored:
    """Return the evaluation of what is exported, else of the seed given, else the first seed's."""
    for ensemble in scorings(mapping(part.get("ensemble"))):
        return ensemble
    tests = scorings(part)
    for seed in (part.get("exported_seed"), like):
        for item in tests:
            if seed is not None and item.get("seed") == seed:
                return item
    return tests[0] if tests else {}


def estimate(scored: Scored, table: str, key: str) -> dict[str, Any]:
    """Return {"value", "low", "high"} of a metric, looking under the ranking metrics too."""
    for place in (table, "ranking"):
        found = mapping(scored.get(place)).get(key)
        if isinstance(found, dict):
            return found
        if is_number(found):
            return {"value": found}
    return {}


def _cell(scored: Scored, table: str, key: str) -> Cell:
    found = estimate(scored, table, key)
    interval = ""
    if is_number(found.get("low")) and is_number(found.get("high")):
        interval = f"{metric(found['low'])}–{metric(found['high'])}"
    return Cell(value=metric(found.get("value")), interval=interval)


def _spread(documented: dict[str, Any], winner: dict[str, Any]) -> tuple[tuple[str, str, str], ...]:
    if max(len(scorings(documented)), len(scorings(winner))) < 2:
        return ()

    def over_seeds(part: dict[str, Any], key: str) -> str:
        values = [estimate(s, "at_threshold", key).get("value") for s in scorings(part)]
        numbers = [v for v in values if is_number(v)]
        if not numbers:
            return MISSING
        mean = sum(numbers) / len(numbers)
        return f"{metric(mean)} ({metric(min(numbers))}–{metric(max(numbers))})"

    return tuple(
        (name, over_seeds(documented, key), over_seeds(winner, key)) for key, name in METRICS
    )


def _compare(
    evaluation: dict[str, Any],
    winner: dict[str, Any],
    documented: dict[str, Any],
    best: Scored,
) -> tuple[str, str]:
    count = best.get("count")
    images = f"the {whole(count)} test images" if is_number(count) else "the test images"
    values, control = mapping(winner.get("values")), mapping(documented.get("values"))
    if values and same_values(values, control):
        return "undecided", (
            "The search found nothing better on validation than the documented configuration "
            "itself, which is therefore the winner."
        )
    return compare(evaluation, images=images, exported=_exported(best))


def _exported(best: Scored) -> str:
    return "the ensemble" if best.get("seed") is None else f"seed {best['seed']}"


def _remarks(evaluation: dict[str, Any], best: Scored, control: Scored) -> list[str]:
    remarks = []
    if is_number(best.get("count")):
        images = [plural(int(best["count"]), "test image"), opened(evaluation)]
        remarks.append(f"{', '.join(filter(None, images))}; ranges are 95% intervals.")
    remarks.extend(
        _recipe(mapping(evaluation.get("winner")), mapping(evaluation.get("documented")))
    )
    for title, scored in (("winner", best), ("documented configuration", control)):
        threshold = mapping(scored.get("threshold"))
        if threshold:
            remarks.append(
                f"Threshold of the {title}: {metric(threshold.get('value'))}, by the rule "
                f"{threshold.get('rule', MISSING)} on {threshold.get('chosen_on', MISSING)}, "
                f"which it reaches there at {metric(threshold.get('reached'))}."
            )
    remarks.extend(_mcnemar(mapping(evaluation.get("mcnemar"))))
    seeds = len(scorings(mapping(evaluation.get("winner"))))
    if seeds == 1:
        remarks.append(
            "One seed is an anecdote: retrain with --refit-seeds 3 or more before believing a "
            "difference of a few points."
        )
    elif seeds > 1:
        remarks.append(
            f"Retrained with {seeds} seeds; the columns are {_exported(best)} of the winner, which "
            "is exported."
        )
    done = mapping(evaluation.get("retraining"))
    own = own_recipe(done, mapping(mapping(evaluation.get("documented")).get("values")))
    if own:
        remarks.append(f"The winner alone was retrained with {', '.join(own)}, {MIXED}.")
    notes = done.get("notes")
    if isinstance(notes, list):
        remarks.extend(str(note) for note in notes)
    return remarks


def own_recipe(done: dict[str, Any], documented: dict[str, Any]) -> list[str]:
    """Return what the winner's retraining had and the documented configuration's had not.

    Args:
        done: "retraining" of `evaluation.json`.
        documented: The documented configuration's hyperparameters, {} while unknown.
    """
    found = []
    if done.get("schedule") not in (None, "as-searched", documented.get("schedule")):
        found.append(f"a {done['schedule']} learning rate")
    if done.get("patience"):
        epochs = plural(int(done["patience"]), "epoch")
        found.append(f"a stop after {epochs} without a better one")
    if done.get("ema"):
        found.append(f"an exponential moving average of the weights (decay {done['ema']:g})")
    if done.get("ensemble") is not None:
        members = mapping(done["ensemble"]).get("members")
        of = f" of {members}" if is_number(members) else ""
        found.append(f"an ensemble{of}, the mean of the seeds' networks")
    if done.get("trained_on") == "train+val":
        found.append("a last training on train and validation together")
    return found


def _recipe(winner: dict[str, Any], documented: dict[str, Any]) -> list[str]:
    values, control = mapping(winner.get("values")), mapping(documented.get("values"))
    if not values:
        return []
    different = compact(differing(values, control))
    text = f"The winner: {different or 'the documented values'}"
    if different and control:
        text += "; all else as documented"
    if is_number(winner.get("parameters")) and is_number(documented.get("parameters")):
        text += (
            f". It has {whole(winner['parameters'])} parameters, the documented network "
            f"{whole(documented['parameters'])}"
        )
    return [text + "."]


def _mcnemar(result: dict[str, Any]) -> list[str]:
    p = result.get("p_value")
    if not is_number(p):
        return []
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    first, second = result.get("only_winner_right"), result.get("only_documented_right")
    counts = ""
    if is_number(first) and is_number(second):
        counts = (
            f": {plural(int(first), 'image')} only the winner gets right, {whole(second)} only the "
            "documented network"
        )
    return [f"McNemar's test of the two sets of decisions at 0.5, {text}{counts}."]
