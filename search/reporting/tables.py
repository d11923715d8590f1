"""Builds the terminal's tables from records; pure, the caller prints them.

Every table fits 80 columns. Text from outside goes into `Text`, never into markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.data.report import SPLIT_TITLES
from search.records import (
    Bracket,
    Comparison,
    DatasetReport,
    Estimate,
    PlanRecord,
    TrialRecord,
    TrialStatus,
    Values,
)
from search.reporting import format
from search.reporting.sentences import changed, headlines, seeds_sentence, verdict
from search.scoring.effects import QUESTIONS, AblationReport, Effect, sentences
from search.tuning.selection import ordered

GOOD, BAD, DIM, HEAD, BASELINE, RUNNING = "green", "red", "dim", "bold", "yellow", "cyan"
OUTCOME_STYLES = {"better": GOOD, "worse": BAD}
SHOWN_FAILURES = 3
SHOWN_TRIALS = 5
SHOWN_BRACKETS = 5
ABLATION_COLUMNS = ("from", "change", "objective, validation (95%)", "AUC, test (95%)")


def simple_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0
) -> Table:
    """Return a table in the house style; the last columns, so many, align right."""
    table = Table(box=None, header_style=DIM, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        right = place >= len(columns) - numbers
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def live_table(*columns: str) -> Table:
    """Return an empty table of the live view: no lines, and the last column takes the rest."""
    table = Table(box=None, header_style=DIM, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for name in columns[:-1]:
        table.add_column(Text(name), no_wrap=True)
    table.add_column(Text(columns[-1]), ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def line(text: str, *, style: str = "") -> Text:
    """Return a text that is cut at the end of the line and never wrapped."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def data_view(report: DatasetReport) -> RenderableType:
    """Return the data in six lines, and the alarms, which must not be missed."""
    columns = ("split", *report.classes, "images", "patients")
    table = simple_table(columns, split_rows(report), numbers=4)
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in report.class_weights.items())
    how = f"split by {report.split}, seed {report.seed}; class weights {weights}"
    out = sum(one.files for one in report.source.left_out) + len(report.rejected)
    left_out = f"; {format.plural(out, 'file')} left out" if out else ""
    source = f"{report.source.root} ({report.source.origin}), {report.image_size} px{left_out}"
    marks = [Text(f"! {alarm}", style=BASELINE) for alarm in report.alarms]
    return Group(line(source), table, line(how, style=DIM), *marks)


def split_rows(report: DatasetReport) -> list[tuple[str, ...]]:
    """Return (split, negative, positive, images, patients) for every split there is."""
    return [
        (
            title,
            *(format.whole(report.counts[split][name]) for name in report.classes),
            format.whole(sum(report.counts[split].values())),
            format.whole(report.patients[split]["total"]) if report.patients_known else "unknown",
        )
        for split, title in SPLIT_TITLES.items()
        if split in report.counts
    ]


def plan_view(plan: PlanRecord) -> RenderableType:
    """Return the plan in eight lines: the totals, the brackets, the first note."""
    rows = bracket_rows(plan)
    if len(rows) > SHOWN_BRACKETS:
        more = format.plural(len(rows) - SHOWN_BRACKETS + 1, "bracket")
        rows = [*rows[: SHOWN_BRACKETS - 1], ("…", f"and {more} more", "", "")]
    columns = ("bracket", "configurations × epochs", "trials", "epochs")
    table = simple_table(columns, rows, numbers=2)
    notes = [line(note, style=DIM) for note in plan.notes[:1]]
    return Group(Text(plan_sentence(plan)), table, *notes)


def bracket_rows(plan: PlanRecord) -> list[tuple[str, ...]]:
    """Return (bracket, rungs, trials, epochs trained); rungs read "27 × 1 → 9 × 3"."""
    rounds = len({bracket.iteration for bracket in plan.brackets}) > 1
    return [
        (
            bracket_name(bracket, rounds=rounds),
            " → ".join(f"{rung.count} × {rung.epochs}" for rung in bracket.rungs),
            format.whole(sum(rung.count for rung in bracket.rungs)),
            format.whole(sum(rung.trained for rung in bracket.rungs)),
        )
        for bracket in plan.brackets
    ]


def bracket_name(bracket: Bracket, *, rounds: bool) -> str:
    """Return a bracket's number, and its round where there are several."""
    return f"{bracket.bracket}, round {bracket.iteration + 1}" if rounds else str(bracket.bracket)


def plan_sentence(plan: PlanRecord) -> str:
    """Return the plan's totals and estimated time as one sentence."""
    text = (
        f"{plan.tuner}: {format.plural(plan.configurations, 'configuration')}, "
        f"{format.plural(plan.trials, 'trial')}, {format.plural(plan.epochs, 'epoch')}"
    )
    if plan.workers > 1:
        text += f", {plan.workers} workers"
    if plan.estimated_seconds is not None:
        text += f"; about {format.duration(plan.estimated_seconds)}"
        if plan.after_seconds:
            text += f", then {format.duration(plan.after_seconds)} to retrain, evaluate and report"
    return f"{text}."


def trials_view(records: Sequence[TrialRecord], objective: str) -> RenderableType:
    """Return the best trials grouped by epochs trained, with what each configuration changes."""
    if not records:
        return Text("no trials yet", style=DIM)
    baseline = format.baseline_values(records)
    shown = []
    kept = [r for r in ordered(records, objective) if r.status is TrialStatus.COMPLETED]
    for _, group in groupby(kept, key=lambda record: record.epochs):
        alike = enumerate(group)
        shown += [r for i, r in alike if i < SHOWN_TRIALS or r.configuration == 0]
    return Group(best_table(shown, objective, baseline), *status_lines(records))


def best_table(records: Iterable[TrialRecord], objective: str, baseline: Values) -> Table:
    """Return the table of the best configurations."""
    heads = ("epochs", "trial", objective, "val AUC", "params", "differs from baseline")
    table = live_table(*heads)
    for record in records:
        table.add_row(
            str(record.epochs),
            record.trial_id,
            Text(format.metric(record.score), style=HEAD),
            format.metric(record.metrics.get("val_auc")),
            format.thousands(record.parameters) if record.parameters else format.MISSING,
            tried(record, baseline),
        )
    return table


def tried(record: TrialRecord, baseline: Values) -> Text:
    """Return on one line what a trial tries."""
    style = BASELINE if record.configuration == 0 else ""
    return line(format.described(record, baseline, short=True), style=style)


def status_lines(records: Sequence[TrialRecord]) -> Iterator[Text]:
    """Yield how many trials failed or learned nothing, and why the first of them failed."""
    dead = [r for r in records if r.status is TrialStatus.LEARNED_NOTHING]
    failed = [r for r in records if r.status is TrialStatus.FAILED]
    if dead:
        names = ", ".join(r.trial_id for r in dead[:8]) + (", …" if len(dead) > 8 else "")
        yield line(f"{format.plural(len(dead), 'trial')} learned nothing: {names}", style=BASELINE)
    for record in failed[:SHOWN_FAILURES]:
        yield line(f"trial {record.trial_id} failed, {format.reason(record)}", style=BAD)
    if len(failed) > SHOWN_FAILURES:
        yield line(f"{len(failed) - SHOWN_FAILURES} more failed, see trials.csv", style=BAD)


def end_view(comparison: Comparison, *, width: int) -> RenderableType:
    """Return the end of a run: one table, what the winner changes, one sentence."""
    different = changed(comparison)
    where = "test" if comparison.winner.test else "validation"
    sides = ("baseline", "winner", "difference (95% interval)") if different else ("baseline",)
    table = Table(box=box.SIMPLE_HEAD, header_style=HEAD, pad_edge=False, padding=(0, 1))
    for name in (where, *sides):
        table.add_column(Text(name), justify="left" if name == where else "right")
    for one in headlines(comparison):
        cells = [Text(one.name), Text(format.metric(one.baseline))]
        if different:
            ranges = format.interval(one.difference, sign=True)
            text = format.signed(one.difference.value) + (f" ({ranges})" if ranges else "")
            cells.append(Text(format.metric(one.winner), style=HEAD))
            cells.append(Text(text, style=OUTCOME_STYLES.get(one.outcome, "")))
        table.add_row(*cells)
    parts: list[RenderableType] = [table, Text(verdict(comparison), style=HEAD)]
    parts.append(line(seeds_sentence(comparison), style=DIM))
    if different:
        words = format.compact(different, short=width < 100)
        parts.append(Text(format.one_line(f"The winner changes: {words}", 2 * width), style=DIM))
    return Group(*parts)


def ablation_view(report: AblationReport) -> RenderableType:
    """Return a table for each question of an ablation: every change with its effects."""
    parts: list[RenderableType] = []
    for question, sentence, rows in ablation_rows(report):
        table = simple_table(ABLATION_COLUMNS, rows)
        parts += [Text(question, style=HEAD), Text(sentence), table, Text("")]
    parts += [Text(note, style=DIM) for note in report.notes]
    return Group(*parts)


def ablation_rows(report: AblationReport) -> list[tuple[str, str, list[tuple[str, ...]]]]:
    """Return (question, what was found in words, rows under `ABLATION_COLUMNS`) of an ablation."""
    found = []
    for name, sentence in sentences(report).items():
        effects = [item for item in report.effects if item.change.question == name]
        found.append((QUESTIONS[name], sentence, list(map(_ablation_row, effects))))
    return found


def _ablation_row(item: Effect) -> tuple[str, ...]:
    change = f"{item.change.factor} {item.change.before} → {item.change.after}"
    if item.validation is None:
        return item.base, change, f"not trained: {format.one_line(item.failure)}", ""
    on_test = _effect(item.test["auc"].over_patients) if item.test else format.MISSING
    return item.base, change, _effect(item.validation), on_test


def _effect(estimate: Estimate) -> str:
    ranges = format.interval(estimate, sign=True) or "no interval"
    return f"{format.signed(estimate.value)} ({ranges})"
