"""Asks the oracle, trains, tells the oracle, and writes everything to the journal first.

The journal is the truth: to resume, its events are played back through a fresh oracle, and trials
that had not ended are submitted again; they go on from the last epoch that is on disk. Listeners
receive every event that the journal does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from keras_tuner.engine import trial as kt_trial

from search.errors import SearchFailedError
from search.journal import CREATED, Event, EventKind, created, ended, with_epoch
from search.records import (
    EpochRecord,
    Metrics,
    TrialRecord,
    TrialResult,
    TrialSpec,
    TrialStatus,
    from_json,
)
from search.run_directory import RunDirectory
from search.tuning import checkpoint
from search.tuning.executors import Executor, TrialMessage, TrialStarted
from search.tuning.oracle import ScheduleOracle
from search.tuning.space import trial_seed

Listener = Callable[[Event], None]


class SearchLoop:
    """One search, from its first trial or from where a killed process left it.

    Attributes:
        records: Every trial so far, by id, in the order of creation.
    """

    def __init__(
        self,
        *,
        oracle: ScheduleOracle,
        executor: Executor,
        run: RunDirectory,
        seed: int,
        listener: Listener,
        precision: str = "float32",
    ) -> None:
        """Prepare; the precision is that of every configuration but number 0, the baseline."""
        self.oracle = oracle
        self.executor = executor
        self.run = run
        self.seed = seed
        self.listener = listener
        self.precision = precision
        self.records: dict[str, TrialRecord] = {}
        self._closed: set[tuple[int, int]] = set()
        self._removed: set[str] = set()
        self._running = 0
        self._asking = 0.0

    def search(self) -> list[TrialRecord]:
        """Run to the end of the schedule.

        Returns:
            All trials in the order of creation.

        Raises:
            SearchFailedError: Every configuration failed.
            StopRequestedError: The user asked to stop.
            StorageError: The disk is full or read-only; the search can be resumed.
        """
        begin = time.perf_counter()
        unfinished = self._replay()
        self._close_rungs()
        for trial_id in unfinished:
            self._submit(self.records[trial_id])
        while self._fill():
            self._on_result(self.executor.wait(self._on_message))
        records = list(self.records.values())
        self._refuse_empty(records)
        self._emit(
            EventKind.SEARCH_ENDED,
            trials=len(records),
            failed=sum(record.status is TrialStatus.FAILED for record in records),
            epochs=sum(len(record.history) for record in records),
            seconds=time.perf_counter() - begin,
            oracle_seconds=self._asking,
        )
        return records

    def _refuse_empty(self, records: list[TrialRecord]) -> None:
        """Make sure that there is something to retrain.

        Raises:
            SearchFailedError: No trial was completed.
        """
        if any(record.status is TrialStatus.COMPLETED for record in records):
            return
        failure = next((r.failure for r in records if r.failure), None)
        if failure is None:
            raise SearchFailedError(
                f"none of {len(records)} trials learned anything: every validation AUC is within "
                "chance of 0.5. Train longer with --max-epochs, or look at the labels"
            )
        raise SearchFailedError(
            f"every one of {len(records)} trials failed or learned nothing; mend the cause and "
            f"start again with --overwrite. The first: {failure.message}\n{failure.traceback}"
        )

    def _replay(self) -> list[str]:
        """Play the journal through the oracle and return the trials that have not ended.

        Listeners have no part in it: what they show of the past, they read from the journal.
        """
        for event in self.run.events():
            kind = event["event"]
            if kind == EventKind.TRIAL_CREATED:
                self.oracle.restore(created(event))
                self.records[event["trial_id"]] = created(event)
            elif kind == EventKind.EPOCH:
                trial_id = event["trial_id"]
                if event["epoch"] > self.records[trial_id].epochs:
                    metrics = from_json(Metrics, event["metrics"])
                    self.oracle.update_metrics(trial_id, metrics, step=event["epoch"])
                self.records[trial_id] = with_epoch(self.records[trial_id], event)
            elif kind == EventKind.TRIAL_ENDED:
                record = ended(self.records[event["trial_id"]], event)
                self.records[record.trial_id] = record
                self._tell(record)
            elif kind == EventKind.RUNG_CLOSED:
                index = self.oracle.bracket_index(event["iteration"], event["bracket"])
                self._closed.add((index, event["rung"]))
        # A schedule that grew opens a rung again.
        self._closed = {rung for rung in self._closed if self.oracle.halving.closed(*rung)}
        return [
            record.trial_id
            for record in self.records.values()
            if record.status is TrialStatus.RUNNING
        ]

    def _fill(self) -> bool:
        """Submit what may start now, as far as the executor is free; whether any trial runs."""
        begin = time.perf_counter()
        while self.executor.free > 0:
            trial = self.oracle.create_trial(f"worker-{len(self.records)}")
            if trial.status != kt_trial.TrialStatus.RUNNING:
                break
            record = self.oracle.record(trial.trial_id)
            self.records[record.trial_id] = record
            seed = trial_seed(self.seed, record.values)
            known = {name: getattr(record, name) for name in CREATED}
            self._emit(EventKind.TRIAL_CREATED, **known, seed=seed)
            self._submit(record)
        self._asking += time.perf_counter() - begin
        return self._running > 0

    def _submit(self, record: TrialRecord) -> None:
        parent = None
        if record.parent is not None:
            parent = self.oracle.directory_of(record.parent) / checkpoint.LAST
        self._running += 1
        self.executor.submit(
            TrialSpec(
                trial_id=record.trial_id,
                values=record.values,
                seed=trial_seed(self.seed, record.values),
                initial_epoch=record.initial_epoch,
                epochs=record.target_epochs,
                parent_checkpoint=parent,
                directory=self.oracle.directory_of(record.trial_id),
                precision=self.precision if record.configuration else "float32",
            )
        )

    def _on_message(self, message: TrialMessage) -> None:
        if isinstance(message, EpochRecord):
            self._on_epoch(message)
        elif isinstance(message, TrialStarted):
            self._emit(EventKind.TRIAL_STARTED, **dataclasses.asdict(message))
        else:
            self._emit(EventKind.WORKER_LOST, **dataclasses.asdict(message))

    def _on_epoch(self, epoch: EpochRecord) -> None:
        record = self.records[epoch.trial_id]
        if epoch.epoch <= record.epochs:
            return  # known to the journal; found again on disk by a resumed trial
        event = self._emit(
            EventKind.EPOCH,
            trial_id=epoch.trial_id,
            epoch=epoch.epoch,
            metrics=epoch.metrics,
            seconds=epoch.seconds,
        )
        self.records[epoch.trial_id] = with_epoch(record, event)
        self.oracle.update_metrics(epoch.trial_id, epoch.metrics, step=epoch.epoch)

    def _on_result(self, result: TrialResult) -> None:
        begin = time.perf_counter()
        self._running -= 1
        record = self.records[result.trial_id]
        status = TrialStatus.COMPLETED if result.learned else TrialStatus.LEARNED_NOTHING
        if result.failure:
            status = TrialStatus.FAILED
        score = None if result.failure else self.oracle.score(result.trial_id)
        event = self._emit(
            EventKind.TRIAL_ENDED,
            trial_id=result.trial_id,
            status=status,
            score=score,
            epochs=record.epochs,
            parameters=result.parameters,
            seconds=result.seconds,
            costs=result.costs,
            failure=result.failure,
            notes=result.notes,
        )
        self.records[result.trial_id] = ended(record, event)
        self._tell(self.records[result.trial_id])
        self._close_rungs()
        self._asking += time.perf_counter() - begin

    def _tell(self, record: TrialRecord) -> None:
        trial = self.oracle.trials[record.trial_id]
        completed = record.status is TrialStatus.COMPLETED
        trial.status = kt_trial.TrialStatus.COMPLETED if completed else kt_trial.TrialStatus.FAILED
        trial.message = record.failure.message if record.failure else None
        if record.status is TrialStatus.LEARNED_NOTHING:
            trial.message = "learned nothing: its validation AUC is within chance of 0.5"
        self.oracle.note_parameters(record.trial_id, record.parameters)
        self.oracle.end_trial(trial)

    def _close_rungs(self) -> None:
        """Announce rungs that are decided; remove checkpoints that no trial can need."""
        halving = self.oracle.halving
        for index, bracket in enumerate(halving.schedule.brackets):
            for rung in range(len(bracket.rungs)):
                if (index, rung) not in self._closed and halving.closed(index, rung):
                    self._closed.add((index, rung))
                    self._emit(
                        EventKind.RUNG_CLOSED,
                        iteration=bracket.iteration,
                        bracket=bracket.bracket,
                        rung=rung,
                        ranked=self.oracle.names(index, rung, halving.ranked(index, rung)),
                        promoted=self.oracle.names(index, rung, halving.promoted(index, rung)),
                    )
                names = self.oracle.names(index, rung, halving.disposable(index, rung))
                for name in set(names) - self._removed:
                    checkpoint.remove(self.oracle.directory_of(name))
                    self._removed.add(name)

    def _emit(self, kind: EventKind, **fields: Any) -> Event:
        event = self.run.append(kind, **fields)
        self.listener(event)
        return event
