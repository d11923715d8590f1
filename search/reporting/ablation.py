"""The terminal's table of an ablation, from the content of `ablation.json`; pure."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from search.reporting.facts import mapping
from search.reporting.questions import answer_notes, answered
from search.reporting.tables import BAD, DIM, GOOD, HEAD, bullet_table, simple_table
from search.reporting.wording import MISSING, is_number, signed

STYLES = {"helps": GOOD, "hurts": BAD}


def ablation_view(ablation: dict[str, Any]) -> RenderableType:
    """Return a table a question: every change with its effects, and the method below.

    Args:
        ablation: The content of `ablation.json`.
    """
    objective = str(ablation.get("objective") or "objective")
    parts: list[RenderableType] = []
    for question in answered(ablation):
        parts.append(Text(f"\n{question.question}", style=HEAD))
        table = simple_table("from", "change", f"{objective}\nvalidation", "log loss\ntest")
        for item in ablation["answers"]:
            if question.question == _question(ablation, item):
                table.add_row(str(item.get("base")), _change(item), *_effects(item))
        parts.append(table)
    parts.append(bullet_table(answer_notes(ablation)))
    return Group(*parts)


def _question(ablation: dict[str, Any], item: dict[str, Any]) -> str:
    names = {q.get("name"): q.get("question") for q in ablation.get("questions") or ()}
    return str(names.get(item.get("question")))


def _change(item: dict[str, Any]) -> str:
    return f"{item.get('factor')}\n{item.get('before')} → {item.get('after')}"


def _effects(item: dict[str, Any]) -> tuple[Text, Text]:
    """Return the effect on validation and on test, each with its answer."""
    if item.get("failed"):
        return Text(f"not trained: {item['failed']}", style=BAD), Text(MISSING)
    validation, test = mapping(item.get("validation")), mapping(item.get("test"))
    loss = mapping(mapping(test.get("metrics")).get("loss"))
    said = _cell(mapping(validation.get("difference")), {}, validation.get("answer"))
    if not test:
        return said, Text(MISSING)
    patients, seeds = mapping(loss.get("over_patients")), mapping(loss.get("over_seeds"))
    return said, _cell(patients, {"patients": patients, "seeds": seeds}, test.get("answer"))


def _cell(estimate: dict[str, Any], intervals: dict[str, dict[str, Any]], answer: Any) -> Text:
    """Return the answer, the difference, and its intervals with what each is over."""
    text = Text(str(answer or MISSING), style=STYLES.get(str(answer), ""))
    text.append(f"\n{signed(estimate.get('value'))}", style="default")
    for over, found in (intervals or {"": estimate}).items():
        if is_number(found.get("low")) and is_number(found.get("high")):
            line = f"{over} {signed(found['low'])} to {signed(found['high'])}".strip()
            text.append(f"\n{line}", style=DIM)
    return text
