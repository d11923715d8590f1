"""The building blocks of `report.html`: tables, lists, figures; every text is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from search.reporting.insights.insight import Insight
from search.reporting.wording import is_number, metric

NUMBER = ' class="n"'
MARKED = ' class="marked"'
SHORT = ' class="short"'
SHORT_LENGTH = 18
SORTED_FROM = 4
"""Rows from which on a table of numbers can be sorted."""


def scroll(table: str, label: str, *, tall: bool = False) -> str:
    """Wrap a table so that it scrolls by itself, with the keyboard too."""
    kind = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'
    )


def heads(columns: Sequence[str], *, numbers: Sequence[int] = (), sortable: bool = False) -> str:
    """Return the row of headings; those of a sortable table are buttons."""
    cells = []
    for i, name in enumerate(columns):
        text = escape(name)
        if sortable:
            text = f'<button type="button">{text}</button>'
        state = ' aria-sort="none"' if sortable else ""
        cells.append(f'<th scope="col"{NUMBER if i in numbers else ""}{state}>{text}</th>')
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def grid(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    label: str,
    numbers: Sequence[int] = (),
    marked: Sequence[int] = (),
    style: str = "",
) -> str:
    """Return a table of plain texts.

    Args:
        columns: Headings.
        rows: Cells.
        label: What the table holds, for those who hear it.
        numbers: Positions of the columns that align right.
        marked: Positions of the rows that stand out.
        style: CSS class of the table.
    """
    kinds = [NUMBER if i in numbers else "" for i in range(len(columns))]
    body = "".join(
        f"<tr{MARKED if i in marked else ''}>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    head = heads(columns, numbers=numbers)
    return scroll(f'<table class="{style}">{head}<tbody>{body}</tbody></table>', label)


def number_cell(value: Any, text: str) -> str:
    """Return a right-aligned cell that sorts by its value; what is no number sorts last."""
    key = f"{value:.10g}" if is_number(value) else ""
    return f'<td class="n" data-key="{key}">{escape(text)}</td>'


def value_grid(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, label: str) -> str:
    """Return a table of an insight's values, sortable where there is something to sort."""
    width = len(columns)
    numbers = [
        i
        for i in range(width)
        if any(is_number(row[i]) for row in rows)
        and all(row[i] is None or is_number(row[i]) for row in rows)
    ]
    sortable = len(rows) >= SORTED_FROM
    body = "".join(
        "<tr>"
        + "".join(
            number_cell(value, plain(value)) if i in numbers else text_cell(plain(value))
            for i, value in enumerate(row[:width])
        )
        + "</tr>"
        for row in rows
    )
    head = heads(columns, numbers=numbers, sortable=sortable)
    style = "sortable" if sortable else ""
    table = f'<table class="{style}">{head}<tbody>{body}</tbody></table>'
    return scroll(table, label, tall=True)


def text_cell(text: str) -> str:
    """Return a cell of text; a short one is kept on one line."""
    return f"<td{SHORT if len(text) <= SHORT_LENGTH else ''}>{escape(text)}</td>"


def plain(value: Any) -> str:
    """Write a value of an insight's table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return metric(value) if isinstance(value, float) else "–" if value is None else str(value)


def pairs(rows: Sequence[tuple[str, str]], label: str) -> str:
    """Return names and texts side by side; nothing for no rows."""
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="text">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return scroll(f'<table class="pairs"><tbody>{body}</tbody></table>', label)


def bullets(lines: Sequence[str], kind: str = "") -> str:
    """Return a list whose items have a CSS class; nothing for no lines."""
    style = f' class="{kind}"' if kind else ""
    items = "".join(f"<li{style}>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def details(summary: str, inner: str, *, kind: str = "") -> str:
    """Return what opens on demand; `inner` is HTML."""
    style = f' class="{kind}"' if kind else ""
    return f"<details{style}><summary>{escape(summary)}</summary>{inner}</details>"


def insight(shown: Insight) -> str:
    """Return an insight: what this run shows, the picture, how to read it, the numbers."""
    parts = [f"<h3>{escape(shown.title)}</h3>"]
    if shown.reading:
        parts.append(f'<p class="reading">{escape(shown.reading)}</p>')
    usable = [row for row in shown.rows if len(row) >= len(shown.columns)]
    numbers = value_grid(shown.columns, usable, label=f"numbers: {shown.title}") if usable else ""
    caption = f'<p class="caption">{escape(shown.caption)}</p>' if shown.caption else ""
    if shown.picture is None:
        parts += [numbers, caption]
        return f'<article id="{escape(shown.name)}">{"".join(parts)}</article>'
    data = base64.b64encode(shown.picture.read_bytes()).decode("ascii")
    # A plot is inverted on a dark page; a radiograph must not be.
    kind = "film" if shown.local else "plot"
    text = escape(f"{shown.title}. {shown.reading}".strip())
    figure = (
        f'<figure class="{kind}"><img src="data:image/png;base64,{data}" alt="{text}">'
        f"<figcaption>{escape(shown.caption)}</figcaption></figure>"
    )
    beside = details("the numbers", numbers, kind="beside") if numbers else ""
    parts.append(f'<div class="pictured">{figure}{beside}</div>')
    return f'<article id="{escape(shown.name)}">{"".join(parts)}</article>'
