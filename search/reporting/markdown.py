"""Writes `report.md`: the report for pull requests and for reading in a terminal; pure.

Goes wherever the repository goes, so it is of `RunContent.passed_on`: no radiographs, no folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.records import TrialStatus
from search.reporting import claim, facts, purpose, temperature
from search.reporting.content import (
    RunContent,
    about_rows,
    data_rows,
    export_rows,
    option_rows,
    settings_rows,
)
from search.reporting.elements import plain
from search.reporting.insights.insight import Insight, Section
from search.reporting.method import method_rows
from search.reporting.questions import STALE, answer_columns, answer_notes, answered
from search.reporting.tables import shortlist
from search.reporting.trials import reason
from search.reporting.verdict import COLUMNS
from search.reporting.wording import described, documented_values, metric, whole

SHOWN_TRIALS = 30
SHOWN_ROWS = 60


def render_markdown(content: RunContent) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    content = content.passed_on()
    parts = [f"# Run {escape(content.name)}", escape(purpose.WHAT_IT_IS)]
    if content.notice:
        parts.append(f"> **{escape(content.notice)}**")
    parts += [*_verdict(content), *_data(content), *_plan(content), *_trials(content)]
    for section in Section:
        shown = [i for i in content.insights if i.section == section]
        if shown:
            parts.append(f"## {section.value}")
        for insight in shown:
            parts += _insight(content, insight)
    parts += _questions(content)
    method = method_rows(content)
    if method:
        parts += ["## Method", table(("what", "how"), method), *calibration(content)]
    exports = export_rows(content)
    if exports:
        columns = ("format", "file", "size", "largest difference", "on images", "by", "remark")
        parts += ["## Exports", table(columns, exports)]
    parts += ["## Purpose and intended use", escape(purpose.AIM), bullets(purpose.INTENDED_USE)]
    parts += ["## Limitations", bullets(purpose.limitations(content))]
    about = about_rows(content)
    if about:
        parts += ["## Environment", table(("what", "value"), about)]
    options = option_rows(content)
    if options:
        parts.append(folded("options", table(("option", "value"), options)))
    parts.append(f"[CLAIM 2024]({claim.DOCUMENT}): {escape(claim.summary())}")
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Escape what Markdown or its HTML would read as markup."""
    for mark in ("\\", "`", "*", "_", "[", "]", "|"):
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; cells are escaped."""
    lines = [
        "| " + " | ".join(escape(c) for c in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(escape(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def bullets(lines: Iterable[str]) -> str:
    """Return a list; lines are escaped."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def folded(summary: str, inner: str) -> str:
    """Return Markdown that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary>\n\n{inner}\n\n</details>"


def verdict_rows(content: RunContent) -> list[tuple[str, ...]]:
    """Return (metric, documented at 0.5, …) with the intervals in brackets."""
    verdict = content.verdict
    return [
        (name, *(f"{c.value} ({c.interval})" if c.interval else c.value for c in cells))
        for name, cells in (verdict.rows if verdict else ())
    ]


def calibration(content: RunContent) -> list[str]:
    """Return what temperature scaling did; nothing where it was not asked for."""
    scaled = temperature.rows(content.config, content.evaluation)
    if not scaled:
        return []
    heading = f"**{escape(temperature.HEADING)}**"
    return [heading, table(temperature.COLUMNS, scaled), escape(temperature.CAPTION)]


def _verdict(content: RunContent) -> list[str]:
    verdict = content.verdict
    if verdict is None:
        return ["## Verdict", "There is none yet: the test set has not been scored."]
    parts = [
        "## Verdict",
        f"**{escape(verdict.sentence)}**",
        table(("test", *COLUMNS), verdict_rows(content)),
        bullets(verdict.remarks),
    ]
    if verdict.spread:
        parts.append(
            table(("mean (range) over seeds, at threshold", "documented", "winner"), verdict.spread)
        )
    settings = settings_rows(content)
    if settings:
        rows = [(n, old, new, "changed" if changed else "") for n, old, new, changed in settings]
        parts.append(folded("hyperparameters", table(("name", "documented", "winner", ""), rows)))
    return parts


def _data(content: RunContent) -> list[str]:
    if not content.dataset:
        return ["## Data", "Not prepared yet."]
    return [
        "## Data",
        table(
            ("split", "NORMAL", "PNEUMONIA", "images", "patients"),
            facts.class_counts(content.dataset),
        ),
        bullets(f"{name}: {text}" for name, text in data_rows(content)),
        bullets(facts.data_alarms(content.dataset)),
        bullets(facts.rejected_files(content.dataset)),
        *(escape(text) for text in purpose.provenance(content)),
    ]


def _plan(content: RunContent) -> list[str]:
    if not content.plan:
        return ["## Plan", "Not made yet."]
    return [
        "## Plan",
        table(
            ("bracket", "configurations × epochs", "trials", "epochs"),
            facts.plan_rows(content.plan),
        ),
        escape(facts.plan_sentence(content.plan)),
        bullets(facts.plan_notes(content.plan)),
    ]


def _trials(content: RunContent) -> list[str]:
    if not content.records:
        return ["## Trials", "None yet."]
    documented = documented_values(content.records)
    shown, hidden = shortlist(content.records, direction=content.direction, limit=SHOWN_TRIALS)
    failed = [r for r in content.records if r.status is TrialStatus.FAILED]
    rows = [
        (
            r.trial_id,
            f"{r.bracket}/{r.rung}",
            r.epochs,
            "running" if r.status is TrialStatus.RUNNING else metric(r.score),
            metric(r.metrics.get("val_auc")),
            metric(r.metrics.get("stress_auc")),
            whole(r.parameters or None),
            described(r, documented),
        )
        for r in shown
    ]
    columns = (
        *("trial", "bracket/rung", "epochs", content.objective, "val AUC", "stress AUC"),
        *("parameters", "differs from documented"),
    )
    return [
        "## Trials",
        "Best first at equal budget.",
        table(columns, rows),
        f"… {hidden} more in trials.csv" if hidden else "",
        bullets(f"failed {r.trial_id}: {reason(r)}" for r in failed),
    ]


def _questions(content: RunContent) -> list[str]:
    found = answered(content.ablation)
    if not found:
        return []
    parts = ["## The notebook's five questions"]
    if content.stale_ablation:
        return [*parts, escape(STALE)]
    for one in found:
        parts += [f"### {escape(one.question)}", escape(one.sentence)]
        parts.append(table(answer_columns(content.ablation), one.rows))
    return [*parts, folded("how this was found", bullets(answer_notes(content.ablation)))]


def _insight(content: RunContent, insight: Insight) -> list[str]:
    parts = [f"### {escape(insight.title)}", escape(insight.reading)]
    if insight.picture is not None:
        place = insight.picture.relative_to(content.root).as_posix()
        parts.append(f"![{escape(insight.title)}]({place})")
    parts.append(escape(insight.caption))
    rows = [row for row in insight.rows if len(row) >= len(insight.columns)]
    if rows:
        width = len(insight.columns)
        cells = [[plain(value) for value in row[:width]] for row in rows[:SHOWN_ROWS]]
        rest = len(rows) - SHOWN_ROWS
        note = f"\n\n… {rest} more rows in plots/{insight.name}.json" if rest > 0 else ""
        parts.append(folded("numbers", table(insight.columns, cells) + note))
    return parts
