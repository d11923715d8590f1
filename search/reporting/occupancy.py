"""Brackets and rungs of a search as a matrix: how many trials ended and are being trained in each.

A row a bracket, a column a number of epochs; since brackets differ in where they start and not in
their steps, their rungs stand under each other.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from search.reporting.facts import mapping
from search.reporting.progress import RunProgress
from search.reporting.tables import DIM, GOOD, RUNNING, live_table
from search.reporting.wording import is_number

SHOWN_BRACKETS = 5


def lines(progress: RunProgress) -> int:
    """Return how many lines the brackets want, without the heading."""
    return min(len(progress.brackets), SHOWN_BRACKETS)


def occupancy_table(progress: RunProgress, *, rows: int) -> Table:
    """Return the matrix: completed + in training / planned.

    Args:
        progress: Where the run stands.
        rows: Lines to use, the heading included.
    """
    brackets = progress.brackets
    steps = sorted({epochs for bracket in brackets for epochs in _rungs(bracket)})
    rounds = len({bracket.get("iteration", 0) for bracket in brackets}) > 1
    finished = [_finished(progress, bracket) for bracket in brackets]
    first = next((i for i, done in enumerate(finished) if not done), len(finished) - 1)
    # Keep one finished bracket above the first open one, for orientation.
    start = max(0, min(first - 1, len(brackets) - (rows - 1)))
    shown = brackets[start : start + rows - 1]
    hidden = len(brackets) - len(shown)
    legend = "done + training / planned"
    if hidden:
        legend = f"{sum(finished)} of {len(brackets)} brackets finished; {legend}"
    table = live_table("bracket", *(f"@{epochs}" for epochs in steps), legend)
    for bracket in shown:
        name = str(bracket.get("bracket", 0))
        if rounds:
            name = f"{name}, round {bracket.get('iteration', 0) + 1}"
        cells = [_cell(progress, bracket, epochs) for epochs in steps]
        table.add_row(Text(name), *cells)
    return table


def _rungs(bracket: dict[str, Any]) -> dict[int, tuple[int, dict[str, Any]]]:
    """Return (number, rung) by the epochs a rung trains to."""
    rungs = [mapping(rung) for rung in bracket.get("rungs") or []]
    return {r["epochs"]: (i, r) for i, r in enumerate(rungs) if is_number(r.get("epochs"))}


def _finished(progress: RunProgress, bracket: dict[str, Any]) -> bool:
    return all(_closed(progress, bracket, epochs) for epochs in _rungs(bracket))


def _closed(progress: RunProgress, bracket: dict[str, Any], epochs: int) -> bool:
    number, rung = _rungs(bracket)[epochs]
    key = (bracket.get("iteration", 0), bracket.get("bracket", 0), number)
    planned = rung.get("count")
    return key in progress.closed or (is_number(planned) and progress.occupancy()[key] >= planned)


def _cell(progress: RunProgress, bracket: dict[str, Any], epochs: int) -> Text:
    found = _rungs(bracket).get(epochs)
    if found is None:
        return Text("")
    number, rung = found
    key = (bracket.get("iteration", 0), bracket.get("bracket", 0), number)
    ended, training = progress.occupancy()[key], progress.training()[key]
    closed = _closed(progress, bracket, epochs)
    style = GOOD if closed else RUNNING if training or ended else DIM
    busy = f"+{training}" if training else ""
    planned = str(rung.get("count", "?"))
    text = f"{ended}{busy}/{planned}"
    # Of one width whatever is being trained, so that the columns beside it stand still.
    return Text(f"{text:<{2 * len(planned) + 3}}", style=style)
