"""Writes `report.md`: the report for pull requests and for reading in a terminal; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.records import TrialStatus
from search.reporting import facts
from search.reporting.content import RunContent, about_rows, settings_rows
from search.reporting.tables import shortlist
from search.reporting.trials import reason
from search.reporting.verdict import COLUMNS
from search.reporting.wording import described, documented_values, metric, whole

SHOWN_TRIALS = 30
SHOWN_ROWS = 60


def render_markdown(content: RunContent) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    parts = [f"# Run {escape(content.name)}"]
    if content.notice:
        parts.append(f"> **{escape(content.notice)}**")
    parts += [*_verdict(content), *_data(content), *_plan(content), *_trials(content)]
    for picture in content.pictures:
        place = picture.path.relative_to(content.root).as_posix()
        parts.append(f"## {escape(picture.title)}\n\n![{escape(picture.title)}]({place})")
        parts.append(escape(picture.caption))
        if picture.rows:
            numbers = table(
                picture.columns, [[_number(v) for v in r] for r in picture.rows[:SHOWN_ROWS]]
            )
            rest = len(picture.rows) - SHOWN_ROWS
            note = f"\n\n… {rest} more rows in {place[:-4]}.json" if rest > 0 else ""
            parts.append(f"<details><summary>numbers</summary>\n\n{numbers}{note}\n\n</details>")
    about = about_rows(content)
    if about:
        parts.append("## About this run\n\n" + table(("what", "value"), about))
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


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _verdict(content: RunContent) -> list[str]:
    verdict = content.verdict
    if verdict is None:
        return ["## Verdict", "There is none yet: the test set has not been scored."]
    rows = [
        (name, *(f"{c.value} ({c.interval})" if c.interval else c.value for c in cells))
        for name, cells in verdict.rows
    ]
    parts = [
        "## Verdict",
        f"**{escape(verdict.sentence)}**",
        table(("test", *COLUMNS), rows),
        _bullets(verdict.remarks),
    ]
    if verdict.spread:
        parts.append(
            table(("mean (range) over seeds, at threshold", "documented", "winner"), verdict.spread)
        )
    settings = settings_rows(content)
    if settings:
        parts.append(
            "### Hyperparameters\n\n"
            + table(
                ("name", "documented", "winner", ""),
                [(n, old, new, "changed" if changed else "") for n, old, new, changed in settings],
            )
        )
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
        _bullets(f"{name}: {text}" for name, text in facts.data_facts(content.dataset)),
        _bullets(facts.data_alarms(content.dataset)),
        _bullets(facts.rejected_files(content.dataset)),
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
        _bullets(facts.plan_notes(content.plan)),
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
            whole(r.parameters),
            described(r, documented),
        )
        for r in shown
    ]
    columns = (
        "trial",
        "bracket/rung",
        "epochs",
        content.objective,
        "val AUC",
        "stress AUC",
        "parameters",
        "differs from documented",
    )
    return [
        "## Trials",
        "Best first at equal budget.",
        table(columns, rows),
        f"… {hidden} more in trials.csv" if hidden else "",
        _bullets(f"failed {r.trial_id}: {reason(r)}" for r in failed),
    ]


def _number(value: Any) -> str:
    return metric(value) if isinstance(value, float) else "–" if value is None else str(value)
