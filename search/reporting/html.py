"""Writes `report.html`: one file that opens offline, the verdict first; pure but for the pictures.

Every text passes `html.escape` on its way in: file names and error messages come from outside.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from search.records import TrialRecord, TrialStatus
from search.reporting import facts
from search.reporting.content import Picture, RunContent, about_rows, settings_rows
from search.reporting.page import page
from search.reporting.trials import ordered, reason
from search.reporting.verdict import COLUMNS
from search.reporting.wording import (
    described,
    documented_values,
    duration,
    is_number,
    metric,
    whole,
)

NUMBER = ' class="n"'
MARKED = ' class="marked"'


def render_html(content: RunContent) -> str:
    """Return the report as one HTML document."""
    title = f"Run {content.name}"
    top = (
        f'<div class="stamp" role="alert">{escape(content.notice)}</div>' if content.notice else ""
    )
    tuner = str(content.plan.get("tuner") or content.config.get("tuner") or "")
    sub = " · ".join(p for p in (tuner, content.objective, content.root.as_posix()) if p)
    sections = [
        ("verdict", "Verdict", _verdict(content)),
        ("data", "Data", _data(content)),
        ("plan", "Plan", _plan(content)),
        ("trials-section", "Trials", _trials(content)),
        *((p.path.stem, p.title, _picture(p)) for p in content.pictures),
        ("about", "About this run", pairs(about_rows(content))),
    ]
    shown = [(anchor, heading, inner) for anchor, heading, inner in sections if inner]
    links = "".join(f'<a href="#{escape(a)}">{escape(h)}</a> ' for a, h, _ in shown)
    cards = "\n".join(
        f'<section id="{escape(a)}"><h2>{escape(h)}</h2>{inner}</section>' for a, h, inner in shown
    )
    body = (
        f"{top}<main><h1>{escape(title)}</h1>"
        f'<p class="sub">{escape(sub)}</p><nav>{links}</nav>\n{cards}</main>'
    )
    return page(title, body)


def grid(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    marked: Sequence[int] = (),
    style: str = "",
) -> str:
    """Return a table; cells are escaped here.

    Args:
        columns: Headings.
        rows: Cells as plain text.
        numbers: Positions of the columns that align right.
        marked: Positions of the rows that stand out.
        style: CSS class of the table.
    """
    kinds = [NUMBER if i in numbers else "" for i in range(len(columns))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(c)}</th>' for kind, c in zip(kinds, columns, strict=True)
    )
    body = "".join(
        f"<tr{MARKED if i in marked else ''}>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and texts side by side; nothing for no rows."""
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="text">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return f'<div class="scroll"><table><tbody>{body}</tbody></table></div>'


def bullets(lines: Sequence[str], kind: str = "") -> str:
    """Return a list whose items have a CSS class; nothing for no lines."""
    items = "".join(f'<li class="{kind}">{escape(line)}</li>' for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _verdict(content: RunContent) -> str:
    verdict = content.verdict
    if verdict is None:
        return '<p class="verdict">There is none yet: the test set has not been scored.</p>'
    head = "".join(f'<th scope="col" class="n">{escape(c)}</th>' for c in COLUMNS)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="n">{escape(cell.value)}<small>{escape(cell.interval)}</small></td>'
            for cell in cells
        )
        + "</tr>"
        for name, cells in verdict.rows
    )
    parts = [
        f'<p class="verdict {escape(verdict.outcome)}">{escape(verdict.sentence)}</p>',
        '<div class="scroll"><table class="fit"><thead><tr><th scope="col">test</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>",
        bullets(verdict.remarks),
    ]
    if verdict.spread:
        columns = ("test", "documented", "winner")
        parts.append("<h3>Mean (range) over seeds, at threshold</h3>")
        parts.append(grid(columns, verdict.spread, numbers=(1, 2), style="fit"))
    settings = settings_rows(content)
    if settings:
        changed = [i for i, row in enumerate(settings) if row[3]]
        rows = [row[:3] for row in settings]
        parts.append(
            f"<details><summary>hyperparameters of the winner, {len(changed)} of "
            f"{len(settings)} changed</summary>"
            + grid(("name", "documented", "winner"), rows, numbers=(1, 2), marked=changed)
            + "</details>"
        )
    return "".join(parts)


def _data(content: RunContent) -> str:
    if not content.dataset:
        return "<p>Not prepared yet.</p>"
    columns = ("split", "NORMAL", "PNEUMONIA", "images", "patients")
    return (
        grid(columns, facts.class_counts(content.dataset), numbers=(1, 2, 3, 4), style="fit")
        + bullets(facts.data_alarms(content.dataset), "alarm")
        + bullets(facts.rejected_files(content.dataset))
        + pairs(facts.data_facts(content.dataset))
    )


def _plan(content: RunContent) -> str:
    if not content.plan:
        return "<p>Not made yet.</p>"
    rows = [(a, b, whole(c), whole(d)) for a, b, c, d in facts.plan_rows(content.plan)]
    return (
        grid(("bracket", "configurations × epochs", "trials", "epochs"), rows, numbers=(2, 3))
        + f"<p>{escape(facts.plan_sentence(content.plan))}</p>"
        + bullets(facts.plan_notes(content.plan))
    )


def _trials(content: RunContent) -> str:
    if not content.records:
        return "<p>None yet.</p>"
    documented = documented_values(content.records)
    columns = (
        ("trial", False),
        ("configuration", True),
        ("bracket", True),
        ("rung", True),
        ("epochs", True),
        ("status", False),
        (content.objective, True),
        ("val AUC", True),
        ("stress AUC", True),
        ("parameters", True),
        ("time", True),
        ("differs from documented", False),
    )
    head = "".join(
        f'<th scope="col"{NUMBER if number else ""}>'
        f'<button type="button">{escape(name)}</button></th>'
        for name, number in columns
    )
    body = "\n".join(
        _trial(record, documented) for record in ordered(content.records, content.direction)
    )
    return (
        "<p>Best first at equal budget; click a heading to sort.</p>"
        '<input id="filter" type="search" placeholder="filter, e.g. global completed" '
        'aria-label="filter trials"> '
        f'<span id="matches" aria-live="polite">{len(content.records)} shown</span>'
        '<div class="scroll tall"><table id="trials" class="sortable wide">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _trial(record: TrialRecord, documented: dict[str, Any]) -> str:
    failed = record.status is TrialStatus.FAILED
    style = "failed" if failed else "marked" if record.configuration == 0 else ""
    text = "; ".join(
        part for part in (described(record, documented), reason(record), *record.notes) if part
    )
    return (
        f'<tr class="{style}"><td>{escape(record.trial_id)}</td>'
        + _number(record.configuration, str(record.configuration))
        + _number(record.bracket, str(record.bracket))
        + _number(record.rung, str(record.rung))
        + _number(record.epochs, str(record.epochs))
        + f"<td>{escape(record.status.value)}</td>"
        + _number(record.score, metric(record.score))
        + _number(record.metrics.get("val_auc"), metric(record.metrics.get("val_auc")))
        + _number(record.metrics.get("stress_auc"), metric(record.metrics.get("stress_auc")))
        + _number(record.parameters, whole(record.parameters))
        + _number(record.seconds, duration(record.seconds))
        + f'<td class="text">{escape(text)}</td></tr>'
    )


def _number(value: Any, text: str) -> str:
    key = f"{value:.10g}" if is_number(value) else ""
    return f'<td class="n" data-key="{key}">{escape(text)}</td>'


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    numbers = ""
    if picture.rows:
        rows = [[_cell(value) for value in row] for row in picture.rows]
        right = [
            i
            for i in range(len(picture.columns))
            if all(value is None or is_number(value) for value in (r[i] for r in picture.rows))
        ]
        inner = grid(picture.columns, rows, numbers=right)
        inner = inner.replace('class="scroll"', 'class="scroll tall"', 1)
        numbers = f"<details><summary>the numbers</summary>{inner}</details>"
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>{numbers}"
    )


def _cell(value: Any) -> str:
    return metric(value) if isinstance(value, float) else "–" if value is None else str(value)
