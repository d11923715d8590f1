"""Reads `ablation/ablation.json` into what reports say of the notebook's five questions; pure.

The file's fields are described in `search/answers.py`, which writes it; what is missing or strange
is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.reporting.comparison import METRICS
from search.reporting.facts import mapping
from search.reporting.wording import MISSING, is_number, one_line, plural, signed

SHOWN = 2
"""Metrics of the test that are shown, the deciding one first; the file has all."""


STALE = (
    "The ablation in ablation/ablation.json was of an earlier winner of this run and is left out; "
    "python -m search.ablate RUN asks again, and trains only what is missing."
)
"""Said in place of the answers where `RunContent.stale_ablation`."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question with what was found.

    Attributes:
        question: As it is asked.
        sentence: The answer in words.
        rows: A row a change, under `answer_columns`.
    """

    question: str
    sentence: str
    rows: tuple[tuple[str, ...], ...]


def answered(ablation: dict[str, Any]) -> list[Answered]:
    """Return the questions that were asked, in order."""
    found = []
    for question in _dicts(ablation.get("questions")):
        mine = [
            item
            for item in _dicts(ablation.get("answers"))
            if item.get("question") == question.get("name")
        ]
        if mine:
            found.append(
                Answered(
                    question=one_line(question.get("question") or question.get("name")),
                    sentence=one_line(question.get("sentence") or "", 500),
                    rows=tuple(_row(item, ablation) for item in mine),
                )
            )
    return found


def answer_columns(ablation: dict[str, Any]) -> tuple[str, ...]:
    """Return the headings of the rows."""
    names = dict(METRICS)
    tested = tuple(f"{names.get(key, key)}, test" for key in _tested(ablation))
    objective = f"{ablation.get('objective') or 'objective'}, validation"
    last = ("answer on test",) if tested else ()
    return ("from", "change", objective, "answer on validation", *tested, *last)


def answer_notes(ablation: dict[str, Any]) -> list[str]:
    """Return how the answers were found, a sentence each."""
    repeats, epochs = ablation.get("repeats"), ablation.get("epochs")
    sizes = [
        plural(int(number), noun)
        for number, noun in ((repeats, "seed"), (epochs, "epoch"))
        if is_number(number)
    ]
    of = f", {' and '.join(sizes)} each" if sizes else ""
    openings = ablation.get("test_openings")
    notes = [
        f"One factor changed at a time and everything else held{of}. Effects are changed − "
        "unchanged, with 95% intervals; of a loss, below 0 is better.",
        *(str(text) for text in mapping(ablation.get("method")).values()),
        *(str(note) for note in ablation.get("notes") or () if isinstance(note, str)),
    ]
    if is_number(openings):
        notes.append(
            f"For this the test was opened {plural(int(openings), 'time')} more, after the run's "
            "own verdict; it chose nothing."
        )
    return notes


def _row(item: dict[str, Any], ablation: dict[str, Any]) -> tuple[str, ...]:
    validation, test = mapping(item.get("validation")), mapping(item.get("test"))
    change = f"{item.get('factor')} {item.get('before')} → {item.get('after')}"
    failed = item.get("failed")
    answer = f"not trained: {one_line(failed)}" if failed else validation.get("answer")
    tested = _tested(ablation)
    metrics = mapping(test.get("metrics"))
    return (
        str(item.get("base") or MISSING),
        one_line(change),
        effect(validation.get("difference")),
        str(answer or MISSING),
        *(_on_test(mapping(metrics.get(key))) for key in tested),
        *((str(test.get("answer") or MISSING),) if tested else ()),
    )


def effect(estimate: Any, of: str = "") -> str:
    """Write an effect with its interval; `of` says what the interval is over."""
    said = mapping(estimate)
    if not is_number(said.get("value")):
        return MISSING
    return f"{signed(said['value'])}{_interval(said, of)}"


def _on_test(metric: dict[str, Any]) -> str:
    patients = mapping(metric.get("over_patients"))
    seeds = _interval(mapping(metric.get("over_seeds")), "seeds ")
    return effect(patients, "patients ") + seeds


def _interval(said: dict[str, Any], of: str) -> str:
    if not (is_number(said.get("low")) and is_number(said.get("high"))):
        return ""
    return f" ({of}{signed(said['low'])} to {signed(said['high'])})"


def _tested(ablation: dict[str, Any]) -> list[str]:
    """Return the metrics of the test that some answer has."""
    answers = [mapping(item.get("test")) for item in _dicts(ablation.get("answers"))]
    known = {key for test in answers for key in mapping(test.get("metrics"))}
    names = ablation.get("test_metrics")
    order = [str(name) for name in names] if isinstance(names, list) else sorted(known)
    return [name for name in order if name in known][:SHOWN]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
