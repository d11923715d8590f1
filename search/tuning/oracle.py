"""The oracle of every search: KerasTuner's interface and files around an exact schedule.

`ScheduleOracle` is a `kt.Oracle`. `create_trial` and `end_trial` may be called in any order by any
number of workers; state on disk is KerasTuner's (`oracle.json`, `trial_*/trial.json`), written
atomically, and its random and grid search open it. Which trial comes next is decided by
`halving.Halving`, which values it has by a `proposals.ConfigurationSource`; how a score is made of
a history is decided here. To resume, the journal's trials are played back with `restore`.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_tuner as kt
from keras_tuner.engine import trial as kt_trial

from search.config import direction as metric_direction
from search.errors import RunDirectoryError
from search.records import TrialRecord, TrialStatus
from search.run_directory import write_text
from search.tuning.halving import Halving, Slot
from search.tuning.proposals import ConfigurationSource
from search.tuning.schedule import Schedule
from search.tuning.selection import smoothed
from search.tuning.space import Space

TUNER_FILE = "tuner0.json"
"""Without it a KerasTuner tuner takes a project for a new one; it has nothing to say."""


class ScheduleOracle(kt.Oracle):
    """Proposes the trials of a schedule.

    Attributes:
        halving: Which trials are running, completed, promoted.
        source: Where values come from.
        slots: The place of every trial in the schedule.
    """

    def __init__(
        self,
        *,
        schedule: Schedule,
        source: ConfigurationSource,
        space: Space,
        objective: str,
        direction: str,
        directory: Path,
    ) -> None:
        """Create an oracle with nothing tried; writes nothing yet."""
        super().__init__(
            objective=kt.Objective(objective, direction),
            hyperparameters=space.copy(),
            # Failures are counted by the loop; the oracle must never raise on them.
            max_consecutive_failed_trials=10**9,
            seed=1,
        )
        self.verbose = 0
        self.halving = Halving(schedule)
        self.source = source
        self.slots: dict[str, Slot] = {}
        self.parameters: dict[str, int] = {}
        self._set_project_dir(str(directory.parent), directory.name)

    def trial_id(self, slot: Slot) -> str:
        """Return a slot's trial id: configuration number and the epochs it is trained to."""
        return f"{slot.configuration:04d}-{self.halving.rung(slot).epochs:03d}"

    def create_trial(self, tuner_id: str) -> Any:
        """Return the next trial for a worker.

        Args:
            tuner_id: The worker; asking again before ending returns the same trial.

        Returns:
            A `Trial` with status RUNNING; IDLE when all depends on running trials; STOPPED when
            the search is over.
        """
        if tuner_id in self.ongoing_trials:
            return self.ongoing_trials[tuner_id]
        slot = self.halving.next_slot()
        values = None if slot is None else self.source.values(slot.configuration)
        if slot is None or values is None:
            finished = slot is not None or self.halving.finished
            status = kt_trial.TrialStatus.STOPPED if finished else kt_trial.TrialStatus.IDLE
            return kt_trial.Trial(hyperparameters=self.hyperparameters.copy(), status=status)
        trial = self._start(slot, values)
        self.ongoing_trials[tuner_id] = trial
        self._save_trial(trial)
        self.save()
        return trial

    def names(self, bracket_index: int, rung: int, configurations: list[int]) -> list[str]:
        """Return the trial ids of configurations in a rung."""
        return [
            self.trial_id(Slot(bracket_index=bracket_index, rung=rung, configuration=number))
            for number in configurations
        ]

    def bracket_index(self, iteration: int, bracket: int) -> int:
        """Return a bracket's position in the schedule.

        Raises:
            RunDirectoryError: The schedule has no such bracket.
        """
        for index, candidate in enumerate(self.halving.schedule.brackets):
            if (candidate.iteration, candidate.bracket) == (iteration, bracket):
                return index
        raise RunDirectoryError(
            f"bracket {bracket} of iteration {iteration} has no place in this schedule; resume "
            "with the options the run was started with, or use --overwrite or another --name"
        )

    def directory_of(self, trial_id: str) -> Path:
        """Return a trial's directory."""
        return Path(self._get_trial_dir(trial_id))

    def score(self, trial_id: str) -> float:
        """Return the smoothed objective of a trial from the epochs it was updated with."""
        trial = self.trials[trial_id]
        self.score_trial(trial)
        return float(trial.score)

    def record(self, trial_id: str) -> TrialRecord:
        """Return the journal's view of a trial that was just created."""
        slot = self.slots[trial_id]
        bracket, rung = self.halving.bracket(slot), self.halving.rung(slot)
        return TrialRecord(
            trial_id=trial_id,
            configuration=slot.configuration,
            iteration=bracket.iteration,
            bracket=bracket.bracket,
            rung=slot.rung,
            parent=self._parent(slot),
            status=TrialStatus.RUNNING,
            values=self.source.values(slot.configuration) or {},
            initial_epoch=rung.initial_epoch,
            epochs=rung.initial_epoch,
            target_epochs=rung.epochs,
        )

    def end_trial(self, trial: Any) -> None:
        """Take a trial's end: its status, and the metrics it was updated with.

        A trial is ranked by its smoothed objective; one without a finite score has failed.
        """
        known = self.trials[trial.trial_id]
        known.status, known.message = trial.status, trial.message
        if known.status == kt_trial.TrialStatus.COMPLETED:
            self.score_trial(known)
            if known.score is None or not math.isfinite(known.score):
                known.status = kt_trial.TrialStatus.FAILED
        slot = self.slots[known.trial_id]
        if known.status == kt_trial.TrialStatus.COMPLETED:
            signed = known.score if self.objective.direction == "min" else -known.score
            self.halving.complete(
                slot, score=signed, parameters=self.parameters.get(known.trial_id, 0)
            )
            self._observe(slot, known, signed)
        else:
            known.score = None
            self.halving.fail(slot)
            self._observe(slot, known, None)
        self.end_order.append(known.trial_id)
        for worker in [w for w, t in self.ongoing_trials.items() if t is known]:
            del self.ongoing_trials[worker]
        self._save_trial(known)
        self.save()

    def _observe(self, slot: Slot, trial: Any, score: float | None) -> None:
        epochs = self.halving.rung(slot).epochs
        self.source.observe(slot.configuration, trial.hyperparameters.values, score, epochs=epochs)

    def score_trial(self, trial: Any) -> None:
        """Score a trial by its smoothed objective instead of KerasTuner's luckiest epoch."""
        history = trial.metrics.get_history(self.objective.name)
        epochs = self.halving.rung(self.slots[trial.trial_id]).epochs
        trial.score = smoothed([float(item.mean()) for item in history], epochs=epochs)
        trial.best_step = history[-1].step

    def note_parameters(self, trial_id: str, parameters: int) -> None:
        """Note the size of a trial's model, which breaks ties."""
        self.parameters[trial_id] = parameters

    def restore(self, record: TrialRecord) -> Any:
        """Play back the creation of a trial of the journal.

        Returns:
            The KerasTuner trial.

        Raises:
            RunDirectoryError: The journal does not fit this schedule or space.
        """
        slot = self._slot_of(record)
        try:
            self.source.restore(slot.configuration, record.values)
        except ValueError as error:
            raise RunDirectoryError(
                f"trial {record.trial_id} cannot be resumed: {error}; the search space or the "
                "program changed since. Use --overwrite, or another --name"
            ) from None
        return self._start(slot, record.values)

    def update_metrics(self, trial_id: str, metrics: dict[str, float], *, step: int) -> None:
        """Add an epoch's metrics to a trial, in memory; the next save writes them."""
        tracker = self.trials[trial_id].metrics
        for name, value in metrics.items():
            if not tracker.exists(name):
                tracker.register(name, direction=metric_direction(name))
            tracker.update(name, value, step=step)

    def save(self) -> None:
        """Write `oracle.json` atomically, and once the file by which tuners know a project."""
        path = Path(self._get_oracle_fname())
        write_text(path, json.dumps(self.get_state()))
        if not path.with_name(TUNER_FILE).exists():
            write_text(path.with_name(TUNER_FILE), "{}")

    def _save_trial(self, trial: Any) -> None:
        """Write `trial.json` atomically."""
        path = Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        write_text(path, json.dumps(trial.get_state()))

    def _start(self, slot: Slot, values: dict[str, Any]) -> Any:
        trial_id = self.trial_id(slot)
        hyperparameters = self.hyperparameters.copy()
        rung = self.halving.rung(slot)
        # The names KerasTuner's Hyperband uses, but with the bracket that made the trial.
        hyperparameters.values = {
            **values,
            "tuner/epochs": rung.epochs,
            "tuner/initial_epoch": rung.initial_epoch,
            "tuner/bracket": self.halving.bracket(slot).bracket,
            "tuner/round": slot.rung,
        }
        parent = self._parent(slot)
        if parent is not None:
            hyperparameters.values["tuner/trial_id"] = parent
        trial = kt_trial.Trial(
            hyperparameters=hyperparameters,
            trial_id=trial_id,
            status=kt_trial.TrialStatus.RUNNING,
        )
        self.halving.start(slot)
        self.slots[trial_id] = slot
        self.trials[trial_id] = trial
        self.start_order.append(trial_id)
        return trial

    def _parent(self, slot: Slot) -> str | None:
        if slot.rung == 0:
            return None
        return self.trial_id(replace(slot, rung=slot.rung - 1))

    def _slot_of(self, record: TrialRecord) -> Slot:
        index = self.bracket_index(record.iteration, record.bracket)
        slot = Slot(bracket_index=index, rung=record.rung, configuration=record.configuration)
        if (
            record.rung < len(self.halving.bracket(slot).rungs)
            and self.trial_id(slot) == record.trial_id
        ):
            return slot
        raise RunDirectoryError(
            f"trial {record.trial_id} of the journal has no place in this schedule; resume with "
            "the options the run was started with, or use --overwrite or another --name"
        )
