"""Words the comparison of the winner with the documented configuration, for every report; pure.

Better or worse is said of a metric where all its intervals lie on that side of 0: one over patients
and, where both sides were retrained with several seeds, one of the mean over seeds too, as in
`scoring/effects.py`. Accuracy and AUC decide what is claimed; recall and specificity are named
where they are worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.config import direction
from search.reporting.facts import mapping
from search.reporting.wording import is_number, listed, signed, whole

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

DECIDING, PRICE = ("accuracy", "auc"), ("recall", "specificity")
AT_THRESHOLD = "_at_threshold"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One difference, winner − documented, in words.

    Attributes:
        key: Its metric, wherever it was thresholded.
        name: What it is called: "accuracy at 0.5".
        word: "better", "worse" or "undecided".
        text: The number with its intervals.
    """

    key: str
    name: str
    word: str
    text: str

    @property
    def detail(self) -> str:
        """Return name and number."""
        return f"{self.name} {self.text}"


def compare(evaluation: dict[str, Any], *, images: str, exported: str) -> tuple[str, str]:
    """Return (outcome, sentence) of a winner that is not the documented configuration itself.

    Args:
        evaluation: The content of `evaluation.json`.
        images: What both were scored on, in words.
        exported: Which of several seeds is exported, in words: "seed 0".

    Returns:
        The outcome is "better", "worse", "mixed", "undecided" or "unknown".
    """
    alone, means = _of_the_exported(evaluation), _of_the_means(evaluation)
    single = [one for one in alone if one.key in DECIDING] or alone[:2]
    price = [one for one in alone if one.key in PRICE and one.word == "worse"]
    if not single and not means:
        return "unknown", (
            f"No comparison with the documented configuration on {images} was recorded."
        )
    outcome, opening = _opening(means or single, images, qualified=bool(price))
    if not means:
        clause = _worse("the winner" if outcome == "undecided" else "it", price)
        return outcome, f"{opening}{clause}: {_details([*single, *price])}."
    seeds = mapping(evaluation.get("difference_over_seeds")).get("seeds")
    opening = f"On the mean of {whole(seeds)} seeds, {opening[0].lower()}{opening[1:]}"
    clause = _worse(f"{exported}, which is exported,", price)
    last = f" {exported.capitalize()} alone: {_details([*single, *price])}." if single else ""
    return outcome, f"{opening}{clause}: {_details(means)}.{last}"


def _opening(deciding: Sequence[Judged], images: str, *, qualified: bool) -> tuple[str, str]:
    """Return the outcome and its sentence; `qualified` names in what, if it is all of them too."""
    better, worse = (
        [one.name for one in deciding if one.word == word] for word in ("better", "worse")
    )
    if better and worse:
        return "mixed", (
            f"Compared with the documented configuration on {images}, the winner is better in "
            f"{listed(better)} and worse in {listed(worse)}"
        )
    if not better and not worse:
        return "undecided", (
            f"The winner and the documented configuration can't be told apart on {images}"
        )
    outcome, names = ("better", better) if better else ("worse", worse)
    where = f" in {listed(names)}" if qualified or len(names) < len(deciding) else ""
    return outcome, f"The winner is {outcome}{where} than the documented configuration on {images}"


def _worse(who: str, price: Sequence[Judged]) -> str:
    return f"; {who} is worse in {listed([one.name for one in price])}" if price else ""


def _details(judged: Sequence[Judged]) -> str:
    return "; ".join(one.detail for one in judged)


def _of_the_exported(evaluation: dict[str, Any]) -> list[Judged]:
    """Return every difference of what is exported that has a value, in the order of `METRICS`."""
    found = []
    for full, item in mapping(evaluation.get("difference")).items():
        difference = item if isinstance(item, dict) else {"value": item}
        if is_number(difference.get("value")):
            found.append(_judged(full, difference["value"], {"": difference}))
    order = [key for key, _ in METRICS]
    return sorted(found, key=lambda one: order.index(one.key) if one.key in order else 99)


def _of_the_means(evaluation: dict[str, Any]) -> list[Judged]:
    """Return the differences of the means over seeds that decide; none for one seed."""
    found = []
    differences = mapping(evaluation.get("difference_over_seeds"))
    for full in ("accuracy", f"accuracy{AT_THRESHOLD}", "auc"):
        said = mapping(differences.get(full))
        intervals = {
            source: mapping(said.get(f"over_{source}")) for source in ("patients", "seeds")
        }
        value = intervals["patients"].get("value")
        if is_number(value):
            found.append(_judged(full, value, intervals))
    return found


def _judged(full: str, value: float, intervals: dict[str, dict[str, Any]]) -> Judged:
    """Judge a difference by all its intervals.

    Args:
        full: Its name in `evaluation.json`.
        value: Winner − documented.
        intervals: {"low", "high"} by what they are over; "" where there is one kind only.
    """
    key = full.removesuffix(AT_THRESHOLD)
    name = dict(METRICS).get(key, key.replace("_", " "))
    if key not in RANKING:
        name += " at 0.5" if key == full else " at the thresholds"
    known = {
        over: (one["low"], one["high"])
        for over, one in intervals.items()
        if is_number(one.get("low")) and is_number(one.get("high"))
    }
    text = signed(value)
    if known:
        ranges = [
            f"{signed(low)} to {signed(high)}" + (f" over {over}" if over else "")
            for over, (low, high) in known.items()
        ]
        text += f" (95% interval{'s' if len(ranges) > 1 else ''} {', '.join(ranges)})"
    word = _word(key, list(known.values())) if len(known) == len(intervals) else "undecided"
    if word == "undecided":
        lacking = [over for over in intervals if over not in known]
        of = f" over {listed(lacking)}" if any(lacking) else ""
        text += f", without an interval{of}" if lacking else ", which is within chance"
    return Judged(key=key, name=name, word=word, text=text)


def _word(key: str, intervals: Sequence[tuple[float, float]]) -> str:
    sign = -1 if direction(key) == "min" else 1
    ends = [sorted((sign * low, sign * high)) for low, high in intervals]
    if all(low > 0 for low, _ in ends):
        return "better"
    return "worse" if all(high < 0 for _, high in ends) else "undecided"
