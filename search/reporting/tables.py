"""Builds the terminal's tables from records; pure, the caller prints them.

Every table fits 80 columns. Text from outside goes into `Text`, never into markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.records import TrialRecord, TrialStatus
from search.reporting import facts
from search.reporting.trials import ordered, reason
from search.reporting.verdict import COLUMNS, Cell, Verdict
from search.reporting.wording import (
    MISSING,
    clock,
    described,
    documented_values,
    metric,
    thousands,
    whole,
)

GOOD, BAD, DIM, HEAD, DOCUMENTED = "green", "red", "dim", "bold", "yellow"
RUNNING = "cyan"
OUTCOME_STYLES = {"better": GOOD, "worse": BAD, "mixed": DOCUMENTED}
SHOWN_FAILURES = 5


def simple_table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table in the house style; the columns in `numbers` align right."""
    table = Table(box=box.SIMPLE_HEAD, header_style=HEAD, pad_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return table


def live_table(*columns: str) -> Table:
    """Return an empty table of the live view: no lines, and the last column takes the rest."""
    table = Table(box=None, header_style=DIM, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for name in columns[:-1]:
        table.add_column(Text(name), no_wrap=True)
    table.add_column(Text(columns[-1]), ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def fact_table(rows: Sequence[tuple[str, str]], *, padding: int = 2, style: str = "") -> Table:
    """Return names and texts side by side, without lines."""
    table = Table.grid(padding=(0, padding))
    table.add_column(style=DIM, max_width=18, overflow="fold")
    table.add_column(style=style, overflow="fold")
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    return table


def bullet_table(lines: Sequence[str], *, mark: str = "·", style: str = "") -> Table:
    """Return lines behind a mark, wrapped beside it and not under it."""
    return fact_table([(mark, line) for line in lines], padding=1, style=style)


def data_table(report: dict[str, Any]) -> RenderableType:
    """Return counts by split and class, the facts, the alarms and what was left out."""
    counted = ("NORMAL", "PNEUMONIA", "images", "patients")
    table = simple_table("split", *counted, numbers=counted)
    for row in facts.class_counts(report):
        table.add_row(*row)
    parts: list[RenderableType] = [table, fact_table(facts.data_facts(report))]
    parts.append(bullet_table(facts.data_alarms(report), mark="!", style=DOCUMENTED))
    parts.append(bullet_table(facts.rejected_files(report), style=DIM))
    return Group(*parts)


def plan_table(plan: dict[str, Any]) -> RenderableType:
    """Return brackets and rungs, the totals, the estimated time and the notes."""
    rows = facts.plan_rows(plan)
    table = simple_table(
        "bracket", "configurations × epochs", "trials", "epochs", numbers=("trials", "epochs")
    )
    for name, path, trials, epochs in rows:
        table.add_row(name, path, whole(trials), whole(epochs))
    notes = bullet_table(facts.plan_notes(plan), style=DIM)
    return Group(table, Text(facts.plan_sentence(plan)), notes)


def trials_table(
    records: Sequence[TrialRecord],
    *,
    objective: str,
    direction: str,
    width: int = 80,
    limit: int = 15,
) -> RenderableType:
    """Return the table of trials with what each configuration changes.

    Args:
        records: Trials in any order.
        objective: Name of the score.
        direction: "min" or "max".
        width: Columns of the terminal; from 130 on the hyperparameters are a column.
        limit: Most trials shown; the documented configuration's best is always among them.
    """
    if not records:
        return Text("no trials yet", style=DIM)
    shown, hidden = shortlist(records, direction=direction, limit=limit)
    documented = documented_values(records)
    wide = width >= 130
    numbers = ("epochs", objective, "val AUC", "stress AUC", "params", "time")
    table = simple_table(
        "trial", "b/r", *numbers, *(["differs from documented"] if wide else []), numbers=numbers
    )
    for record in shown:
        table.add_row(*trial_cells(record), *([described(record, documented)] if wide else []))
        if record.configuration == 0:
            table.rows[-1].style = DOCUMENTED
    parts: list[RenderableType] = [table]
    if hidden:
        parts.append(Text(f"… {hidden} more in trials.csv", style=DIM))
    if not wide:
        parts.append(differences_list(shown, documented))
    parts.extend(failure_lines(records))
    return Group(*parts)


def shortlist(
    records: Sequence[TrialRecord], *, direction: str, limit: int
) -> tuple[list[TrialRecord], int]:
    """Return the trials to show, best first at equal budget, and how many are not.

    Failed ones are not among either; `failure_lines` has them.
    """
    usable = [r for r in ordered(records, direction) if r.status is not TrialStatus.FAILED]
    shown = usable[:limit]
    control = next((r for r in usable if r.configuration == 0), None)
    if control is not None and control not in shown:
        shown = [*shown[: limit - 1], control]
    return shown, len(usable) - len(shown)


def trial_cells(record: TrialRecord) -> list[str]:
    """Return a trial's row: id, bracket/rung, epochs, score, AUCs, parameters, time."""
    running = record.status is TrialStatus.RUNNING
    return [
        record.trial_id,
        f"{record.bracket}/{record.rung}",
        f"{record.epochs}/{record.target_epochs}" if running else str(record.epochs),
        "running" if running else metric(record.score),
        metric(record.metrics.get("val_auc")),
        metric(record.metrics.get("stress_auc")),
        thousands(record.parameters) if record.parameters else MISSING,
        clock(record.seconds).removeprefix("0:") if record.seconds else MISSING,
    ]


def differences_list(shown: Sequence[TrialRecord], documented: dict[str, Any]) -> RenderableType:
    """Return what each configuration shown changes, once however many trials it has."""
    by_configuration: dict[tuple[int, int], list[TrialRecord]] = {}
    for record in shown:
        by_configuration.setdefault((record.iteration, record.configuration), []).append(record)
    rows = [
        (" ".join(record.trial_id for record in group), described(group[0], documented))
        for group in by_configuration.values()
    ]
    heading = Text("what differs from the documented configuration", style=HEAD)
    return Group(Text(""), heading, fact_table(rows))


def failure_lines(records: Sequence[TrialRecord], limit: int = SHOWN_FAILURES) -> list[Text]:
    """Return a line a failed trial with its reason, the first few of them."""
    failed = [record for record in records if record.status is TrialStatus.FAILED]
    lines = [Text(f"failed {r.trial_id}: {reason(r)}", style=BAD) for r in failed[:limit]]
    if len(failed) > limit:
        lines.append(Text(f"… {len(failed) - limit} more failed, in trials.csv", style=BAD))
    return lines


def verdict_table(verdict: Verdict) -> Table:
    """Return metrics × (documented, winner) × (0.5, threshold), intervals under the values."""
    table = simple_table("test", *(name.replace(" at ", "\nat ") for name in COLUMNS))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cells in verdict.rows:
        table.add_row(Text(name), *(_cell_text(cell) for cell in cells))
    return table


def verdict_view(verdict: Verdict) -> RenderableType:
    """Return the table, the sentence and the remarks."""
    parts: list[RenderableType] = [verdict_table(verdict)]
    if verdict.spread:
        spread = simple_table("at threshold", "documented", "winner", numbers=())
        spread.title = "mean (range) over seeds"
        spread.title_justify = "left"
        spread.title_style = DIM
        for row in verdict.spread:
            spread.add_row(*row)
        parts.append(spread)
    style = OUTCOME_STYLES.get(verdict.outcome, "")
    parts.append(Text(verdict.sentence, style=f"bold {style}".strip()))
    parts.append(bullet_table(verdict.remarks))
    return Group(*parts)


def _cell_text(cell: Cell) -> Text:
    text = Text(cell.value, justify="right")
    if cell.interval:
        text.append(f"\n{cell.interval}", style=DIM)
    return text
