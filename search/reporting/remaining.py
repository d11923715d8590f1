"""How much of a search is left: the longest chain of epochs, and the time they take; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

from search.records import TrialRecord, TrialStatus
from search.reporting.facts import mapping
from search.reporting.wording import is_number

RungKey = tuple[int, int, int]


def longest_chain(
    brackets: Sequence[dict[str, Any]], trials: Iterable[TrialRecord], closed: Set[RungKey]
) -> int:
    """Return the most epochs that any bracket must still train one after another.

    Args:
        brackets: As in the PLAN event.
        trials: Every trial so far.
        closed: Rungs (iteration, bracket, rung) that are decided.
    """
    by_rung: dict[RungKey, list[TrialRecord]] = {}
    for record in trials:
        by_rung.setdefault((record.iteration, record.bracket, record.rung), []).append(record)
    return max((_chain(bracket, by_rung, closed) for bracket in brackets), default=0)


def _chain(
    bracket: dict[str, Any], by_rung: dict[RungKey, list[TrialRecord]], closed: Set[RungKey]
) -> int:
    """Return the epochs from the slowest trial of the lowest open rung to the bracket's last."""
    rungs = [mapping(rung) for rung in bracket.get("rungs") or []]
    for i, rung in enumerate(rungs):
        key = (bracket.get("iteration", 0), bracket.get("bracket", 0), i)
        here = by_rung.get(key, [])
        reached = [r.epochs for r in here if r.status is TrialStatus.RUNNING]
        if len(here) < rung["count"]:
            reached.append(rung["initial_epoch"])
        if reached and key not in closed:
            return int(rungs[-1]["epochs"]) - min(reached)
    return 0


def planned_pace(plan: dict[str, Any]) -> float | None:
    """Return the wall seconds per epoch that a PLAN event expects, None while unmeasured.

    What trials cost besides their epochs is included where the plan estimates it.
    """
    whole, epochs = plan.get("estimated_seconds"), plan.get("epochs")
    if is_number(whole) and is_number(epochs) and epochs:
        return whole / epochs
    each = plan.get("seconds_per_epoch")
    return float(each) if is_number(each) else None


def planned_retraining(plan: dict[str, Any], *, pace: float | None) -> float | None:
    """Return the seconds that the retraining after a search will take, None if unknown.

    Args:
        plan: Fields of the PLAN event.
        pace: Wall seconds per epoch that the search turned out to take; the plan's estimate is
            longer or shorter by as much.
    """
    epochs, each = plan.get("refit_epochs"), plan.get("seconds_per_epoch")
    planned = planned_pace(plan)
    if not (is_number(epochs) and is_number(each) and planned and pace is not None):
        return None
    return epochs * each * pace / planned


def seconds_left(
    *, epochs: int, in_a_row: int, pace: float, within_worker: float | None, passed: float
) -> float:
    """Return the time that some epochs still need.

    The work goes on at the pace that all workers together had lately; but epochs of one
    configuration follow one another, however many workers are idle.

    Args:
        epochs: Epochs to train, by all workers together.
        in_a_row: Those of them that can only follow one another.
        pace: Wall seconds per epoch, all workers together.
        within_worker: Seconds of an epoch in its worker; None takes `pace`.
        passed: Seconds since the last event. An epoch that takes longer than expected does not
            run the clock below the epochs after it.
    """
    left = max(epochs * pace, in_a_row * (pace if within_worker is None else within_worker))
    return max(left - min(passed, pace), 0.0)
