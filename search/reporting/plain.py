"""One line a thing that happened, for pipes, logs and CI; the caller dates and prints it."""

from __future__ import annotations

from typing import Any

from search.journal import EventKind
from search.records import TrialStatus
from search.reporting.facts import mapping
from search.reporting.progress import RunProgress
from search.reporting.stages import STAGE_WORDS
from search.reporting.trials import reason
from search.reporting.wording import described, duration, metric, one_line, plural, whole

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
            words = _epoch if kind == EventKind.EPOCH else _refit_epoch
            return words(event, progress)
        if kind == EventKind.TRIAL_CREATED:
            return _created(event, progress)
        if kind == EventKind.TRIAL_STARTED:
            return _started(event, progress)
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
    if kind == EventKind.WORKER_LOST:
        return str(progress.workers.losses[-1])
    if kind == EventKind.SEARCH_ENDED:
        failed, lost = event["failed"], len(progress.workers.losses)
        return (
            f"search ended: {plural(event['trials'], 'trial')}"
            f"{f' ({failed} failed)' if failed else ''}, {plural(event['epochs'], 'epoch')} in "
            f"{duration(event['seconds'])}"
            + (f"; {plural(lost, 'worker')} lost on the way" if lost else "")
        )
    if kind == EventKind.REFIT_STARTED:
        return (
            f"retraining {event['role']}, seed {event['seed']}: {plural(event['epochs'], 'epoch')}"
        )
    if kind == EventKind.REFIT_ENDED:
        return _refitted(event, progress)
    if kind == EventKind.TEST_SCORED:
        scored = "; ".join(
            f"{s['role']}, {_which(s['seed'])}: accuracy {metric(s['accuracy'])}, "
            f"AUC {metric(s['auc'])}"
            for s in event["scorings"]
        )
        return f"test set opened: {scored}"
    if kind == EventKind.STOPPED:
        return f"stopped: {event['reason']}"
    return None


def standing(progress: RunProgress) -> str:
    """Return where a run stands on one line, for who begins to watch in the middle."""
    if progress.stage in STAGE_WORDS:
        return STAGE_WORDS[progress.stage]
    if progress.stage == "retrain":
        done, left = progress.retraining.epochs_done, progress.retraining.epochs_left
        text = f"retraining: {whole(done)}/{whole(done + left)} epochs"
    else:
        done, left = progress.epochs_done, progress.epochs_left
        text = f"search: {whole(done)}/{whole(done + left)} epochs"
    failed, lost = len(progress.failed), len(progress.workers.losses)
    parts = [
        text,
        f"{plural(len(progress.running), 'trial')} running" if progress.running else "",
        f"{plural(failed, 'trial')} failed" if failed else "",
        f"{plural(lost, 'worker')} lost" if lost else "",
    ]
    if progress.top:
        best = progress.top[0]
        parts.append(f"best {best.trial_id} ({progress.objective} {metric(best.score)})")
    seconds = progress.seconds_left()
    parts.append("" if seconds is None else f"{duration(seconds)} left")
    return ", ".join(part for part in parts if part)


def _created(event: Event, progress: RunProgress) -> str:
    record = progress.trials[event["trial_id"]]
    tries = described(record, progress.documented)
    return (
        f"trial {record.trial_id} bracket {record.bracket} rung {record.rung}, epochs "
        f"{record.initial_epoch} → {record.target_epochs}: {tries}"
    )


def _started(event: Event, progress: RunProgress) -> str | None:
    """Word that a trial goes on after a kill or a lost worker; the first start is no news."""
    record = progress.trials[event["trial_id"]]
    if progress.workers.starts[record.trial_id] < 2:
        return None
    return (
        f"trial {record.trial_id} goes on after epoch {record.epochs} in worker "
        f"{event['worker']} (process {event['pid']})"
    )


def _epoch(event: Event, progress: RunProgress) -> str:
    record = progress.trials[event["trial_id"]]
    done, left = progress.epochs_done, progress.epochs_left
    value = metric(mapping(event["metrics"]).get(progress.objective))
    worker = progress.workers.training(record.trial_id)
    several = worker is not None and len(progress.workers.rows()) > 1
    text = (
        f"trial {record.trial_id} epoch {record.epochs}/{record.target_epochs}"
        f"{f' in worker {worker.name}' if worker is not None and several else ''}: "
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


def _refitted(event: Event, progress: RunProgress) -> str:
    who = f"{event['role']}, seed {event['seed']}"
    if event.get("failure"):
        return f"retraining {who} failed: {one_line(mapping(event['failure']).get('message'))}"
    kept = event["kept_epoch"]
    run = progress.retraining.runs[str(event["role"]), int(event["seed"])]
    value = run.scores[kept - 1] if 0 < kept <= len(run.scores) else None
    return (
        f"retrained {who}: epoch {kept} kept, {progress.objective} {metric(value)}, "
        f"{duration(event['seconds'])}"
    )


def _refit_epoch(event: Event, progress: RunProgress) -> str:
    metrics = mapping(event["metrics"])
    # Without validation images of its own, a training has its own loss only.
    names = ("val_loss", "val_auc") if "val_loss" in metrics else ("loss",)
    values = ", ".join(f"{name} {metric(metrics.get(name))}" for name in names)
    done, left = progress.retraining.epochs_done, progress.retraining.epochs_left
    text = (
        f"retraining {event['role']}, seed {event['seed']}, epoch {event['epoch']}: {values}, "
        f"{duration(event['seconds'])}; {whole(done)}/{whole(done + left)} epochs"
    )
    seconds = progress.seconds_left() if progress.search_ended else None
    return text if seconds is None else f"{text}, {duration(seconds)} left"


def _which(seed: Any) -> str:
    return "ensemble" if seed is None else f"seed {seed}"
