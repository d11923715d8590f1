"""What the measurements of `same_work.py` say: rates, losses and overheads; loads no Keras."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresh import Job

PARTS = ("build", "compile", "validate", "checkpoint", "other", "idle")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """One search.

    Attributes:
        epochs_per_second: Finished epochs over the wall time after loading.
        trials_per_hour: Likewise, None for a search that was cut short: it spent time on trials
            that it did not finish.
        images_per_second: Training images seen, likewise.
        lost: Mean seconds of a trial by kind, besides training steps. "other" is what is left of
            the trial's own time; "idle" what a worker waits between trials.
        train: Mean seconds of a trial in training steps.
        share: Pure step time of all finished epochs over wall time, None where it is not known.
    """

    epochs_per_second: float
    trials_per_hour: float | None
    images_per_second: float
    lost: dict[str, float]
    train: float
    share: float | None


def rates(job: Job, steps: dict[str, float] | None = None) -> Rates:
    """Return the rates of a search.

    Args:
        job: A finished "ours" or "plain" job.
        steps: Seconds of a bare training step by learning rate.
    """
    count = max(1, len(job["trials"]))
    crew = max(1, job.get("workers", 1))
    inside = sum(trial["seconds"] for trial in job["trials"])
    lost = dict.fromkeys(PARTS, 0.0)
    train = 0.0
    for trial in job["trials"]:
        costs = trial["costs"]
        train += costs.get("train", 0.0) / count
        for part in ("build", "compile", "validate", "checkpoint"):
            lost[part] += costs.get(part, 0.0) / count
        known = sum(costs.get(part, 0.0) for part in ("train", *PARTS))
        lost["other"] += (trial["seconds"] - known) / count
    # Of a search that was cut short, the trials that were being trained would count as idleness.
    lost["idle"] = max(0.0, (crew * job["wall"] - inside) / count) if job["complete"] else 0.0
    return Rates(
        epochs_per_second=job["epochs"] / job["wall"],
        trials_per_hour=3600 * len(job["trials"]) / job["wall"] if job["complete"] else None,
        images_per_second=job["epochs"] * job["train_images"] / job["wall"],
        lost=lost,
        train=train,
        share=bare_seconds(job, steps) / job["wall"] if steps and known_epochs(job) else None,
    )


def known_epochs(job: Job) -> bool:
    """Return whether it is known in which trials all of a search's epochs were."""
    return job["complete"] or "unfinished" in job


def bare_seconds(job: Job, steps: dict[str, float]) -> float:
    """Return what the training steps of a search take in a loop without it.

    The finished epochs of trials that were cut short count. Configurations that were not timed
    count with the median of the others.
    """
    usual = statistics.median(steps.values())
    return sum(
        trial["epochs"]
        * job["steps_per_epoch"][repr(trial["rate"])]
        * steps.get(repr(trial["rate"]), usual)
        for trial in [*job["trials"], *job.get("unfinished", ())]
    )


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What a search in one process adds to training.

    Attributes:
        of_fit: Wall time over the time in `fit`, less 1. `fit` is what a user would call without a
            search: compiling, training steps, and the objective's validation.
        strict: The same with compiling counted as overhead: a promoted trial compiles again.
        per_trial: Seconds of a trial that are neither steps nor validation nor compiling.
        compile: Seconds of compiling, mean of a trial.
        step: Milliseconds of a training step within the search.
    """

    of_fit: float
    strict: float
    per_trial: float
    compile: float
    step: float


def overhead(job: Job) -> Overhead:
    """Return the overhead of a finished search in one process."""
    spent = {
        part: sum(trial["costs"].get(part, 0.0) for trial in job["trials"])
        for part in ("train", "validate", "compile")
    }
    count = len(job["trials"])
    # The first step of each trial is timed with its compiling.
    steps = sum(t["epochs"] * job["steps_per_epoch"][repr(t["rate"])] for t in job["trials"])
    training = spent["train"] + spent["validate"]
    return Overhead(
        of_fit=job["wall"] / (training + spent["compile"]) - 1,
        strict=job["wall"] / training - 1,
        per_trial=(job["wall"] - training - spent["compile"]) / count,
        compile=spent["compile"] / count,
        step=1000 * spent["train"] / (steps - count),
    )


def projected(job: Job, trials: int, epochs: int) -> float:
    """Return the overhead of a longer schedule, from what this one lost per trial.

    Training, validation and compiling are taken per epoch and per trial as measured.
    """
    found = overhead(job)
    spent = sum(t["costs"]["train"] + t["costs"].get("validate", 0.0) for t in job["trials"])
    fit = spent / job["epochs"] * epochs + found.compile * trials
    return found.per_trial * trials / fit


def markdown(table: list[list[str]]) -> str:
    """Return a table, its first row the heads."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|---" * len(table[0]) + "|")
    return "\n".join(lines)


def save(figure: Any, path: Path) -> None:
    """Write a matplotlib figure without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)
