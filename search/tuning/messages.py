"""What an executor reports of trials that have not ended yet."""

from __future__ import annotations

from dataclasses import dataclass

from search.records import EpochRecord


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A worker took a trial.

    Attributes:
        trial_id: The trial.
        worker: Number of the worker, 0 for the first.
        pid: Its process.
        device: What it trains on, in words.
    """

    trial_id: str
    worker: int
    pid: int
    device: str


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """A worker died, hung or took too long, in the middle of a trial.

    Attributes:
        trial_id: The trial it was training.
        worker: Number of the worker.
        pid: Its process.
        reason: One line, e.g. "killed by signal 9".
        retry: Whether the trial goes on elsewhere, from its last epoch.
    """

    trial_id: str
    worker: int
    pid: int
    reason: str
    retry: bool


TrialMessage = EpochRecord | TrialStarted | WorkerLost
"""What an executor reports of trials that have not ended."""
