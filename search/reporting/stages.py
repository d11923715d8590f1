"""The stages of a run, as a person sees them."""

from __future__ import annotations

STAGES = ("data", "plan", "search", "retrain", "score", "report", "done")
"""Stages of a run, in order; "done" is after the last."""

STAGE_WORDS = {
    "data": "reading the data",
    "plan": "measuring and planning",
    "score": "choosing thresholds, opening the test set",
    "report": "writing the report",
    "done": "finished",
}
"""What is done in the stages that have no epochs to count."""


def after(name: str) -> str:
    """Return the stage that follows one, the first after an unknown one."""
    position = STAGES.index(name) if name in STAGES else -1
    return STAGES[min(position + 1, len(STAGES) - 1)]
