"""Going on with a run: which directory holds one, what of it is settled, and what is refused.

Everything here is asked before anything is written, so that a refused command leaves a run as it
was: resumable with the options that it had.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search.config import Difference, RunConfig, differences, schedule_differences
from search.errors import ConfigurationError, DataError, RunDirectoryError, StopRequestedError
from search.journal import Event, EventKind, created, plans
from search.records import Bracket, Dataset
from search.run_directory import RunDirectory
from search.tuning.executors import Pace
from search.tuning.oracle import ScheduleOracle
from search.tuning.schedule import Schedule, continues


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What the earlier processes of a run settled."""

    pace: Pace  # As the first one measured it: a budget in hours must give the same schedule again
    precision: str  # Keras dtype policy of the trials, "" where none was journaled
    brackets: tuple[Bracket, ...]  # Of the latest plan, () while no trial was created
    # Seconds of a budget that the first one kept for everything but the search
    reserved: float = 0.0


def begun(events: Sequence[Event]) -> Begun | None:
    """Return what the journal says is settled, None before the first plan."""
    known = plans(events)
    if not known:
        return None
    first, latest = known[0], known[-1]
    return Begun(
        pace=Pace(epoch=first.seconds_per_epoch or 0.0, trial=first.seconds_per_trial or 0.0),
        precision=first.precision,
        brackets=latest.brackets if _has_trials(events) else (),
        reserved=first.reserved_seconds,
    )


def finished_brackets(events: Sequence[Event]) -> tuple[Bracket, ...] | None:
    """Return the brackets of the latest search that ran to its end, None where none did."""
    ends = [n for n, event in enumerate(events) if event["event"] == EventKind.SEARCH_ENDED]
    return plans(events[: ends[-1]])[-1].brackets if ends else None


def claim(directory: RunDirectory, config: RunConfig, *, resume: bool, overwrite: bool) -> bool:
    """Make the run directory, or refuse the one that is there.

    Args:
        directory: The directory.
        config: What is asked for now.
        resume: Go on with the run of that name.
        overwrite: Replace it.

    Returns:
        Whether there is a run to go on with: one that was killed before it wrote a line of its
        journal starts afresh.

    Raises:
        RunDirectoryError: A process holds it, a run is there and neither `resume` nor `overwrite`,
            there is none to resume, or its options would change the search.
    """
    root = directory.root
    # First: of a run that goes on, nothing else that could be said is of use.
    directory.refuse_held()
    if directory.exists and not (resume or overwrite):
        raise RunDirectoryError(
            f"{root}: there is a run of this name; continue it with --resume, replace it with "
            "--overwrite, or give another --name"
        )
    if not directory.exists and directory.strangers():
        raise RunDirectoryError(
            f"{root}: holds files but no run; nothing is written there. Give another --name or "
            "--results-dir"
        )
    if resume and not root.is_dir():
        raise RunDirectoryError(
            f"{root}: there is no run to resume; check --name and --results-dir"
        )
    goes_on = resume and directory.journal_file.exists()
    if resume and directory.complete and not goes_on:
        raise RunDirectoryError(
            f"{directory.journal_file}: is missing, without which a finished run cannot go on; put "
            "it back, or replace the run with --overwrite"
        )
    if goes_on and (root / "config.json").exists():
        changed = differences(directory.read(RunConfig, "config.json"), config)
        if changed:
            raise RunDirectoryError(_would_change(directory, changed))
    directory.create()
    return goes_on


@contextlib.contextmanager
def held(directory: RunDirectory, config: RunConfig, *, resumed: bool) -> Iterator[None]:
    """Hold a run for this process; a command that was wrong leaves its name free."""
    with directory.lock():
        if not resumed:
            directory.clear()
            directory.write_json("config.json", config)
        try:
            yield
        except (ConfigurationError, DataError):
            if not directory.trials():
                directory.clear()
            raise


@contextlib.contextmanager
def stopped_in_order(directory: RunDirectory) -> Iterator[None]:
    """Journal that the user stopped the run, and say how to go on.

    Raises:
        StopRequestedError: They did.
    """
    try:
        yield
    except (StopRequestedError, KeyboardInterrupt) as error:
        directory.append(EventKind.STOPPED, reason=str(error) or type(error).__name__)
        raise StopRequestedError(
            "stopped; every finished epoch is kept. Go on with: python -m search.run --resume "
            f"{shlex.quote(directory.root.as_posix())}"
        ) from None


def check_same_data(directory: RunDirectory, dataset: Dataset) -> None:
    """Refuse to continue a run on other images than it began with.

    Raises:
        RunDirectoryError: The images changed.
    """
    if not (directory.root / "dataset.json").exists():
        return
    before = directory.read_json("dataset.json")["fingerprint"]
    if before != dataset.fingerprint:
        raise RunDirectoryError(
            f"{directory.root}: the images changed since this run began (fingerprint "
            f"{before[:12]} → {dataset.fingerprint[:12]}); put the old ones back, or give "
            "another --name"
        )


def check_same_backend(directory: RunDirectory, backend: str, *, search_ended: bool) -> None:
    """Refuse to go on training on another of Keras' backends, whose numbers are others.

    Between search and retraining it may change: a search on a CPU, and a retraining on a GPU.

    Args:
        directory: The run directory.
        backend: Keras' backend now.
        search_ended: Whether all trials that are asked for were trained.

    Raises:
        RunDirectoryError: Trials, or the retraining, were begun on another one.
    """
    begins = EventKind.REFIT_STARTED if search_ended else EventKind.TRIAL_CREATED
    running = before = ""
    for event in directory.events():
        if event["event"] == EventKind.RUN_STARTED:
            running = event["backend"]
        elif event["event"] == begins:
            before = running
    if before not in ("", backend):
        raise RunDirectoryError(
            f"{directory.root}: begun with KERAS_BACKEND={before}, now it is {backend}: the same "
            f"seeds give other numbers there. Resume with KERAS_BACKEND={before}, or give another "
            "--name"
        )


def refuse_other_search(
    directory: RunDirectory, config: RunConfig, schedule: Schedule, oracle: ScheduleOracle
) -> None:
    """Refuse to go on where the journal is that of another search; writes nothing.

    The `config.json` on disk is still the old one, the oracle fresh.

    Raises:
        RunDirectoryError: The schedule does not begin with the brackets that were begun, or a
            trial of the journal has no place in it.
    """
    events = directory.events()
    known = begun(events)
    if known is None:
        return
    if not continues(schedule, known.brackets) and (directory.root / "config.json").exists():
        changed = schedule_differences(directory.read(RunConfig, "config.json"), config)
        if changed:
            raise RunDirectoryError(_would_change(directory, changed))
    # A fresh oracle refuses a trial that has no place in its schedule, or other values.
    for event in events:
        if event["event"] == EventKind.TRIAL_CREATED:
            oracle.restore(created(event))


def _would_change(directory: RunDirectory, changed: Sequence[Difference]) -> str:
    lines = "; ".join(f"{name}: {old!r} → {new!r}" for name, old, new in changed)
    return (
        f"{directory.root}: these options would change the search: {lines}. Resume with the old "
        "ones, or give another --name"
    )


def _has_trials(events: Sequence[Event]) -> bool:
    return any(event["event"] == EventKind.TRIAL_CREATED for event in events)
