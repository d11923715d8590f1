"""One line a thing that happened, for pipes, logs and CI; the caller dates and prints it."""

from __future__ import annotations

from typing import Any

from search.journal import EventKind
from search.records import TrialStatus
from search.reporting.facts import mapping
from search.reporting.progress import RunProgress
from search.reporting.trials import reason
from search.reporting.wording import described, duration, metric, plural, whole

Event = dict[str, Any]

EPOCH_INTERVAL = 5.0
"""Seconds between two lines about epochs, at least."""


class PlainLog:
    """Words events, few enough for a log that people read."""

    def __init__(self) -> None:
        """Start before the first event."""
        self._last_epoch_line = float("-inf")

    def line(self, event: Event, progress: RunProgress) -> str | None:
        """Return a line about an event, None where it is not worth one.

        Args:
            event: The event.
            progress: The run after it.
        """
        kind = event.get("event")
        if kind in (EventKind.EPOCH, EventKind.REFIT_EPOCH):
            time = float(event.get("time") or 0.0)
            if time - self._last_epoch_line < EPOCH_INTERVAL:
                return None
            self._last_epoch_line = time
            return _epoch(event, progress) if kind == EventKind.EPOCH else _refit_epoch(event)
        if kind == EventKind.TRIAL_CREATED:
            return _created(event, progress)
        if kind == EventKind.TRIAL_ENDED:
            return _ended(event, progress)
        return milestone(event, progress)


def milestone(event: Event, progress: RunProgress) -> str | None:
    """Return a line about the events that a live view leaves behind on the screen too."""
    kind = event.get("event")
    if kind == EventKind.RUNG_CLOSED:
        ranked, promoted = event["ranked"], event["promoted"]
        best = progress.trials.get(ranked[0]) if ranked else None
        text = f"bracket {event['bracket']} rung {event['rung']} closed"
        if best is not None:
            text += f": best {best.trial_id} ({progress.objective} {metric(best.score)})"
        return text + (f", {len(promoted)} go on" if promoted else "")
    if kind == EventKind.SEARCH_ENDED:
        failed = event["failed"]
        ending = f"; best is {event['best']}" if event["best"] else ""
        return (
            f"search ended: {plural(event['trials'], 'trial')}"
            f"{f' ({failed} failed)' if failed else ''}, {plural(event['epochs'], 'epoch')} in "
            f"{duration(event['seconds'])}{ending}"
        )
    if kind == EventKind.REFIT_STARTED:
        return (
            f"retraining {event['role']}, seed {event['seed']}: {plural(event['epochs'], 'epoch')}"
        )
    if kind == EventKind.REFIT_ENDED:
        return (
            f"retrained {event['role']}, seed {event['seed']}: epoch {event['kept_epoch']} kept, "
            f"{progress.objective} {metric(event['score'])}, {duration(event['seconds'])}"
        )
    if kind == EventKind.TEST_SCORED:
        scored = "; ".join(
            f"{s['role']}, seed {s['seed']}: accuracy {metric(s['accuracy'])}, "
            f"AUC {metric(s['auc'])}"
            for s in event["scorings"]
        )
        return f"test set opened: {scored}"
    if kind == EventKind.STOPPED:
        return f"stopped: {event['reason']}"
    return None


def _created(event: Event, progress: RunProgress) -> str:
    record = progress.trials[event["trial_id"]]
    tries = described(record, progress.documented)
    return (
        f"trial {record.trial_id} bracket {record.bracket} rung {record.rung}, epochs "
        f"{record.initial_epoch} → {record.target_epochs}: {tries}"
    )


def _epoch(event: Event, progress: RunProgress) -> str:
    record = progress.trials[event["trial_id"]]
    done, left = progress.epochs_done, progress.epochs_left
    value = metric(mapping(event["metrics"]).get(progress.objective))
    text = (
        f"trial {record.trial_id} epoch {record.epochs}/{record.target_epochs}: "
        f"{progress.objective} {value}, {duration(event['seconds'])}; "
        f"{whole(done)}/{whole(done + left)} epochs"
    )
    seconds = progress.seconds_left()
    return text if seconds is None else f"{text}, {duration(seconds)} left"


def _ended(event: Event, progress: RunProgress) -> str:
    record = progress.trials[event["trial_id"]]
    if record.status is TrialStatus.FAILED:
        return f"trial {record.trial_id} failed: {reason(record)}"
    notes = f" ({'; '.join(record.notes)})" if record.notes else ""
    return (
        f"trial {record.trial_id} {record.status.value}: {progress.objective} "
        f"{metric(record.score)} at epoch {record.epochs}, {duration(record.seconds)}{notes}"
    )


def _refit_epoch(event: Event) -> str:
    metrics = mapping(event["metrics"])
    return (
        f"retraining {event['role']}, seed {event['seed']}, epoch {event['epoch']}: "
        f"val_loss {metric(metrics.get('val_loss'))}, val_auc {metric(metrics.get('val_auc'))}, "
        f"{duration(event['seconds'])}"
    )
