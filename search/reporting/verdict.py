"""Reads `evaluation.json` into what reports say: rows of metrics and sentences; pure.

Every number is an estimate with its 95% interval, as `scoring` wrote it. Nothing is computed here
except the wording, and the spread over seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.config import direction
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
    signed,
    whole,
)

METRICS = (
    ("accuracy", "accuracy"),
    ("auc", "AUC"),
    ("recall", "recall"),
    ("specificity", "specificity"),
    ("precision", "precision"),
    ("f1", "F1"),
    ("loss", "log loss"),
)
"""Key and name of the metrics shown, in order."""

RANKING = ("auc", "loss")
"""Metrics that no threshold changes."""

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
    judged = _judged(evaluation)
    if not judged:
        return "unknown", (
            f"No comparison with the documented configuration on {images} was recorded."
        )
    deciding = [j for j in judged if j[0] in ("accuracy", "auc")] or judged[:2]
    better = [name for _, name, word, _ in deciding if word == "better"]
    worse = [name for _, name, word, _ in deciding if word == "worse"]
    details = "; ".join(f"{name} {text}" for _, name, _, text in deciding)
    if better and worse:
        outcome, opening = (
            "mixed",
            (
                f"Compared with the documented configuration on {images}, the winner is better in "
                f"{' and '.join(better)} and worse in {' and '.join(worse)}"
            ),
        )
    elif better:
        outcome, opening = (
            "better",
            f"The winner is better{_where(better, deciding)} than the documented configuration "
            f"on {images}",
        )
    elif worse:
        outcome, opening = (
            "worse",
            f"The winner is worse{_where(worse, deciding)} than the documented configuration "
            f"on {images}",
        )
    else:
        outcome, opening = (
            "undecided",
            (f"The winner and the documented configuration can't be told apart on {images}"),
        )
    return outcome, f"{opening}: {details}.{_means(evaluation)}"


def _means(evaluation: dict[str, Any]) -> str:
    """Return a sentence on the means over seeds, "" where there is one seed."""
    found = mapping(evaluation.get("difference_over_seeds"))
    parts = []
    for key, name in (("accuracy", "accuracy at 0.5"), ("auc", "AUC")):
        ranges = []
        for source in ("patients", "seeds"):
            said = mapping(mapping(found.get(key)).get(f"over_{source}"))
            if is_number(said.get("low")) and is_number(said.get("high")):
                ranges.append(f"{signed(said['low'])} to {signed(said['high'])} over {source}")
        value = mapping(mapping(found.get(key)).get("over_patients")).get("value")
        if is_number(value) and ranges:
            parts.append(f"{name} {signed(value)} ({', '.join(ranges)})")
    if not parts:
        return ""
    return f" On the mean of {whole(found.get('seeds'))} seeds: {'; '.join(parts)}."


def _where(names: list[str], deciding: list[tuple[str, str, str, str]]) -> str:
    """Return in what, where that is not everything that was looked at."""
    return "" if len(names) == len(deciding) else f" in {' and '.join(names)}"


def _judged(evaluation: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return (key, name, word, text) of every difference winner − documented that has a value."""
    found = []
    known = dict(METRICS)
    for full, item in mapping(evaluation.get("difference")).items():
        difference = item if isinstance(item, dict) else {"value": item}
        if not is_number(difference.get("value")):
            continue
        key = full.removesuffix("_at_threshold")
        name = known.get(key, key.replace("_", " "))
        if key not in RANKING:
            name += " at 0.5" if key == full else " at the thresholds"
        low, high = difference.get("low"), difference.get("high")
        text = f"{signed(difference['value'])}"
        word = "undecided"
        if is_number(low) and is_number(high):
            text += f" (95% interval {signed(low)} to {signed(high)})"
            sign = -1 if direction(key) == "min" else 1
            if min(sign * low, sign * high) > 0:
                word = "better"
            elif max(sign * low, sign * high) < 0:
                word = "worse"
        if word == "undecided":
            text += ", which is within chance" if is_number(low) else ", without an interval"
        found.append((key, name, word, text))
    return sorted(found, key=lambda j: [k for k, _ in METRICS].index(j[0]) if j[0] in known else 99)


def _remarks(evaluation: dict[str, Any], best: Scored, control: Scored) -> list[str]:
    remarks = []
    if is_number(best.get("count")):
        remarks.append(
            f"{plural(int(best['count']), 'test image')}, {opened(evaluation)}; ranges are 95% "
            "intervals."
        )
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
        shown = "the ensemble" if best.get("seed") is None else f"seed {best['seed']}"
        remarks.append(
            f"Retrained with {seeds} seeds; the columns are {shown} of the winner, which is "
            "exported."
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
