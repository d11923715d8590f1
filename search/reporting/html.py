"""Writes `report.html`: one file that opens offline, the verdict first; pure but for the pictures.

Every text passes `html.escape` on its way in, in `elements` or here: file names and error messages
come from outside.
"""

from __future__ import annotations

from html import escape
from typing import Any

from search.records import TrialRecord, TrialStatus
from search.reporting import claim, facts, purpose, temperature
from search.reporting.content import (
    RunContent,
    about_rows,
    data_rows,
    export_rows,
    option_rows,
    settings_rows,
)
from search.reporting.elements import (
    bullets,
    details,
    grid,
    heads,
    insight,
    number_cell,
    pairs,
    scroll,
)
from search.reporting.insights.insight import Section
from search.reporting.method import method_rows
from search.reporting.page import page
from search.reporting.questions import STALE, answer_columns, answer_notes, answered
from search.reporting.trials import ordered, reason
from search.reporting.verdict import COLUMNS
from search.reporting.wording import described, documented_values, duration, metric, whole

LOCAL_NOTICE = (
    "This copy shows radiographs. Keep it where the run is; to pass the report on, make one "
    "without them: python -m search.report RUN --share FILE.html"
)
PARTS = {
    "test": Section.TEST,
    "failures": Section.FAILURES,
    "search": Section.SEARCH,
    "course": Section.COURSE,
}
"""Anchors of the parts that are made of insights."""


def render_html(content: RunContent, *, local: bool = True) -> str:
    """Return the report as one HTML document.

    Args:
        content: The run.
        local: Whether it stays in the run directory, and may show radiographs and name folders.
    """
    if not local:
        content = content.passed_on()
    title = f"Run {content.name}"
    films = not content.notice and any(shown.local for shown in content.insights)
    top = f'<div class="stamp" role="note">{escape(content.notice)}</div>' if content.notice else ""
    tuner = str(content.plan.get("tuner") or content.config.get("tuner") or "")
    place = content.root.as_posix() if local else ""
    sub = " · ".join(p for p in (tuner, content.objective, place) if p)
    inner = {
        "verdict": _verdict(content),
        "data": _data(content),
        "plan": _plan(content),
        "trials-section": _trials(content),
        **{anchor: _insights(content, part) for anchor, part in PARTS.items()},
        "questions": _questions(content),
        "method": _method(content),
        "exports": _exports(content),
        "use": _use(),
        "limitations": bullets(purpose.limitations(content)),
        "environment": _environment(content),
    }
    order = [anchor for anchor in ORDER if inner.get(anchor)]
    inner["claim"] = _claim({*order, "claim"})
    order.append("claim")
    links = "".join(f'<a href="#{a}">{escape(claim.SECTIONS[a])}</a> ' for a in order)
    cards = "\n".join(
        f'<section id="{a}"><h2>{escape(claim.SECTIONS[a])}</h2>{inner[a]}</section>' for a in order
    )
    warning = f'<p class="films" role="note">{escape(LOCAL_NOTICE)}</p>' if films else ""
    body = (
        f"{top}<main><h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(purpose.WHAT_IT_IS)}</p><p class="sub">{escape(sub)}</p>{warning}'
        f'<nav aria-label="sections">{links}</nav>\n{cards}</main>'
    )
    return page(title, body)


ORDER = (
    "verdict",
    "data",
    "plan",
    "trials-section",
    "test",
    "failures",
    "questions",
    "search",
    "course",
    "method",
    "exports",
    "use",
    "limitations",
    "environment",
)
"""The sections, as far as there is something to say."""


def _verdict(content: RunContent) -> str:
    verdict = content.verdict
    if verdict is None:
        return '<p class="verdict">There is none yet: the test set has not been scored.</p>'
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="n">{escape(cell.value)}<small>{escape(cell.interval)}</small></td>'
            for cell in cells
        )
        + "</tr>"
        for name, cells in verdict.rows
    )
    head = heads(("test", *COLUMNS), numbers=(1, 2, 3, 4))
    table = f'<table class="fit metrics">{head}<tbody>{body}</tbody></table>'
    parts = [
        f'<p class="verdict {escape(verdict.outcome)}">{escape(verdict.sentence)}</p>',
        scroll(table, "metrics on the test set"),
        bullets(verdict.remarks),
    ]
    if verdict.spread:
        columns = ("test", "documented", "winner")
        heading = "Mean (range) over seeds, at threshold"
        parts.append(f"<h3>{heading}</h3>")
        parts.append(grid(columns, verdict.spread, label=heading, numbers=(1, 2), style="fit"))
    settings = settings_rows(content)
    if settings:
        changed = [i for i, row in enumerate(settings) if row[3]]
        table = grid(
            ("name", "documented", "winner"),
            [row[:3] for row in settings],
            label="hyperparameters",
            numbers=(1, 2),
            marked=changed,
        )
        parts.append(
            details(
                f"hyperparameters of the winner, {len(changed)} of {len(settings)} changed", table
            )
        )
    return "".join(parts)


def _data(content: RunContent) -> str:
    if not content.dataset:
        return "<p>Not prepared yet.</p>"
    columns = ("split", "NORMAL", "PNEUMONIA", "images", "patients")
    counts = facts.class_counts(content.dataset)
    return (
        grid(columns, counts, label="films by split", numbers=(1, 2, 3, 4), style="fit")
        + bullets(facts.data_alarms(content.dataset), "alarm")
        + bullets(facts.rejected_files(content.dataset))
        + pairs(data_rows(content), "the data")
        + "".join(f"<p>{escape(text)}</p>" for text in purpose.provenance(content))
    )


def _plan(content: RunContent) -> str:
    if not content.plan:
        return "<p>Not made yet.</p>"
    rows = [(a, b, whole(c), whole(d)) for a, b, c, d in facts.plan_rows(content.plan)]
    columns = ("bracket", "configurations × epochs", "trials", "epochs")
    return (
        grid(columns, rows, label="brackets", numbers=(2, 3))
        + f"<p>{escape(facts.plan_sentence(content.plan))}</p>"
        + bullets(facts.plan_notes(content.plan))
    )


def _trials(content: RunContent) -> str:
    if not content.records:
        return "<p>None yet.</p>"
    documented = documented_values(content.records)
    columns = (
        *("trial", "config", "bracket", "rung", "epochs", "status", content.objective),
        *("val AUC", "stress AUC", "parameters", "time", "differs from documented"),
    )
    head = heads(columns, numbers=(1, 2, 3, 4, 6, 7, 8, 9, 10), sortable=True)
    body = "\n".join(
        _trial(record, documented) for record in ordered(content.records, content.direction)
    )
    table = f'<table id="trials" class="sortable wide">{head}<tbody>{body}</tbody></table>'
    failed = [r for r in content.records if r.status is TrialStatus.FAILED]
    reasons = bullets([f"{r.trial_id}: {reason(r)}" for r in failed], "alarm")
    return (
        "<p>Best first at equal budget; a heading sorts, once more the other way.</p>"
        '<label for="filter">Filter: words that a row must hold, e.g. completed gelu</label>'
        '<input id="filter" type="search" autocomplete="off" spellcheck="false"> '
        f'<span id="matches" role="status">{len(content.records)} shown</span>'
        + scroll(table, "trials", tall=True)
        + (f"<h3>Trials that failed</h3>{reasons}" if failed else "")
    )


def _trial(record: TrialRecord, documented: dict[str, Any]) -> str:
    failed = record.status is TrialStatus.FAILED
    style = "failed" if failed else "marked" if record.configuration == 0 else ""
    text = "; ".join(
        part for part in (described(record, documented), reason(record), *record.notes) if part
    )
    numbers = (record.configuration, record.bracket, record.rung, record.epochs)
    scores = (record.score, record.metrics.get("val_auc"), record.metrics.get("stress_auc"))
    return (
        f'<tr class="{style}"><td>{escape(record.trial_id)}</td>'
        + "".join(number_cell(value, str(value)) for value in numbers)
        + f"<td>{escape(record.status.value)}</td>"
        + "".join(number_cell(value, metric(value)) for value in scores)
        + number_cell(record.parameters or None, whole(record.parameters or None))
        + number_cell(record.seconds, duration(record.seconds))
        + f'<td class="text">{escape(text)}</td></tr>'
    )


def _insights(content: RunContent, part: Section) -> str:
    return "".join(insight(shown) for shown in content.insights if shown.section == part)


def _questions(content: RunContent) -> str:
    found = answered(content.ablation)
    if not found:
        return ""
    if content.stale_ablation:
        return f"<p>{escape(STALE)}</p>"
    columns = answer_columns(content.ablation)
    asked = "".join(
        f"<article><h3>{escape(one.question)}</h3>"
        f'<p class="reading">{escape(one.sentence)}</p>'
        f"{grid(columns, one.rows, label=one.question, style='wide')}</article>"
        for one in found
    )
    return asked + details("how this was found", bullets(answer_notes(content.ablation)))


def _method(content: RunContent) -> str:
    parts = pairs(method_rows(content), "method")
    scaled = temperature.rows(content.config, content.evaluation)
    if not scaled:
        return parts
    table = grid(temperature.COLUMNS, scaled, label=temperature.HEADING, numbers=range(1, 6))
    return (
        f"{parts}<h3>{escape(temperature.HEADING)}</h3>{table}"
        f'<p class="caption">{escape(temperature.CAPTION)}</p>'
    )


def _exports(content: RunContent) -> str:
    rows = export_rows(content)
    if not rows:
        return ""
    columns = ("format", "file", "size", "largest difference", "on images", "loaded by", "remark")
    return (
        "<p>Each export was loaded back by its own runtime; the difference is of probabilities on "
        "validation films, from model.keras (of model.keras, from the network in memory).</p>"
        + grid(columns, rows, label="exports", numbers=(2, 3, 4))
    )


def _environment(content: RunContent) -> str:
    options = option_rows(content)
    chosen = details("the options", pairs(options, "options")) if options else ""
    return pairs(about_rows(content), "environment") + chosen


def _use() -> str:
    paragraphs = "".join(f"<p>{escape(t)}</p>" for t in (purpose.AIM, *purpose.INTENDED_USE))
    scope = bullets(purpose.OUT_OF_SCOPE)
    cite = f"<p>{escape(purpose.CITATION)}</p>"
    return f"{paragraphs}<h3>Out of scope</h3>{scope}{cite}"


def _claim(anchors: set[str]) -> str:
    """Return the checklist; items link to the sections that this report has."""
    rows = []
    for item in claim.ITEMS:
        links = ", ".join(
            f'<a href="#{a}">{escape(claim.SECTIONS[a])}</a>'
            if a in anchors
            else f"{escape(claim.SECTIONS[a])} (not in this report)"
            for a in item.where
        )
        cells = (escape(item.about), escape(item.answer.value), links, escape(item.remark))
        rows.append(
            f'<tr><td class="n">{item.number}</td>'
            + "".join(f'<td class="text">{cell}</td>' for cell in cells)
            + "</tr>"
        )
    head = heads(("item", "asks for", "answer", "where", "remark"), numbers=(0,))
    table = f'<table class="wide">{head}<tbody>{"".join(rows)}</tbody></table>'
    return (
        f"<p>{escape(claim.summary())} The table is search/reporting/CLAIM.md too.</p>"
        + details("the items", scroll(table, "CLAIM 2024", tall=True))
        + f'<p class="caption">{escape(claim.CITATION)}</p>'
    )
