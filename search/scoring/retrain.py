"""The retraining stage of a run: finalists and control with several seeds, the best is the winner.

Stands between `workflow.py`, which tells the story, and the rooms: `scoring.refit` says what is
trained and what it gave, `tuning` trains it, several at once where there are several workers. The
trainings are independent of each other, so their results do not depend on how many there are.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from search.config import RefitOn, RefitSchedule, RunConfig, direction
from search.errors import SearchFailedError
from search.journal import Event, EventKind
from search.records import EpochRecord, TrialRecord, TrialResult, Values, to_json
from search.run_directory import RunDirectory
from search.scoring import refit
from search.scoring.refit import Candidate, Job, Role
from search.tuning import checkpoint
from search.tuning.executors import Executor
from search.tuning.messages import TrialMessage, TrialStarted
from search.tuning.model import Setting
from search.tuning.selection import winners

Listener = Callable[[Event], None]


class Crew(Protocol):
    """What hires workers, see `searching.Searching.crew`."""

    def __call__(self, setting: Setting, *, trainings: int) -> AbstractContextManager[Executor]:
        """Hold an executor for so many trainings; for none, this process."""


class Retrainer:
    """Trains jobs through an executor and journals every epoch.

    A job that an earlier process began goes on from its last epoch; one that it finished is read
    from disk.
    """

    def __init__(self, directory: RunDirectory, *, listener: Listener, all_epochs: int) -> None:
        """Prepare; trains nothing yet.

        Args:
            directory: Whose journal is written.
            listener: Called with every event.
            all_epochs: Epochs of all retrainings together, at most; for the time left.
        """
        self._directory = directory
        self._listener = listener
        self._all_epochs = all_epochs
        self._jobs: dict[str, Job] = {}
        self._known: dict[str, set[int]] = {}

    def train(self, jobs: Sequence[Job], crew: Crew, setting: Setting) -> dict[str, TrialResult]:
        """Train every job.

        Args:
            jobs: What to train; their trials' ids differ.
            crew: By whom.
            setting: With what data and HyperModel.

        Returns:
            Results by trial id, failures included.

        Raises:
            StopRequestedError: The user asked to stop; finished epochs are kept.
            SearchError: The retraining cannot go on, e.g. on a full disk.
        """
        self._jobs |= {job.spec.trial_id: job for job in jobs}
        events = self._directory.events()
        finished = {e.get("folder") for e in events if _finished(e)}
        self._known |= {job.spec.trial_id: _known_epochs(events, job) for job in jobs}
        pending = sum(
            job.spec.directory.name not in finished
            or not (job.spec.directory / checkpoint.BEST).exists()
            for job in jobs
        )
        results: dict[str, TrialResult] = {}
        waiting = deque(jobs)
        with crew(setting, trainings=pending) as executor:
            while len(results) < len(jobs):
                while waiting and executor.free:
                    executor.submit(waiting.popleft().spec)
                result = executor.wait(self._on_message)
                results[result.trial_id] = result
                self._end(result)
        return results

    def _on_message(self, message: TrialMessage) -> None:
        job = self._jobs[message.trial_id]
        if isinstance(message, EpochRecord):
            if message.epoch in self._known[message.trial_id]:
                return  # known to the journal; found again on disk
            self._known[message.trial_id].add(message.epoch)
            self._tell(
                EventKind.REFIT_EPOCH,
                role=job.role.name,
                seed=job.repetition,
                epoch=message.epoch,
                metrics=message.metrics,
                seconds=message.seconds,
            )
        elif isinstance(message, TrialStarted):
            self._tell(
                EventKind.REFIT_STARTED,
                role=job.role.name,
                seed=job.repetition,
                epochs=job.spec.epochs,
                values=job.spec.values,
                folder=job.spec.directory.name,
                worker=message.worker,
                pid=message.pid,
                all_epochs=self._all_epochs,
            )
        else:
            self._tell(EventKind.WORKER_LOST, **dataclasses.asdict(message))

    def _end(self, result: TrialResult) -> None:
        job = self._jobs[result.trial_id]
        self._tell(
            EventKind.REFIT_ENDED,
            role=job.role.name,
            seed=job.repetition,
            folder=job.spec.directory.name,
            kept_epoch=result.best_epoch,
            epochs=len(result.epochs),
            parameters=result.parameters,
            seconds=result.seconds,
            failure=result.failure,
        )

    def _tell(self, kind: EventKind, **fields: Any) -> None:
        self._directory.append(kind, **fields)
        self._listener({"event": kind.value, "time": time.time(), **to_json(fields)})


def _finished(event: Event) -> bool:
    return event["event"] == EventKind.REFIT_ENDED and not event.get("failure")


def _known_epochs(events: Sequence[Event], job: Job) -> set[int]:
    """Return the epochs of this very training that the journal has already.

    Of trainings with the same role and seed the journal's latest counts: whoever reads it takes
    that for what was trained.
    """
    known: set[int] = set()
    ours = False
    for event in events:
        if (event.get("role"), event.get("seed")) != (job.role.name, job.repetition):
            continue
        if event["event"] == EventKind.REFIT_STARTED:
            # The folder's name tells trainings apart whatever they differ in.
            again, ours = ours, event.get("folder") == job.spec.directory.name
            known = known if again and ours else set()
        elif event["event"] == EventKind.REFIT_EPOCH and ours:
            known.add(event["epoch"])
    return known


class Retraining:
    """The retraining of one run."""

    def __init__(
        self,
        config: RunConfig,
        *,
        documented: Values,
        precision: str,
        directory: RunDirectory,
        listener: Listener,
    ) -> None:
        """Prepare; trains nothing yet.

        Args:
            config: What was asked for.
            documented: Values of the documented configuration, the control.
            precision: Keras dtype policy of the search; the control's is float32.
            directory: The run directory.
            listener: Called with every event.
        """
        self.config = config
        self.documented = documented
        self.precision = precision
        self.directory = directory
        self.direction = direction(config.choice)
        self._listener = listener
        self._plan = refit.RefitPlan(
            epochs=config.refit_epochs,
            seeds=config.refit_seeds,
            seed=config.seed,
            objective=config.choice,
            direction=self.direction,
            directory=directory.refit_dir,
        )

    def retrain(
        self, records: list[TrialRecord], crew: Crew, *, setting: Setting, final_setting: Setting
    ) -> list[Candidate]:
        """Retrain finalists and control; choose the winner among all of them on validation.

        Args:
            records: The search's trials.
            crew: Who trains.
            setting: Data and HyperModel; its objective picks the kept epoch.
            final_setting: The same with the validation images among the training images.

        Returns:
            The documented networks, then the winner's and, if asked for, their ensemble.

        Raises:
            SearchFailedError: Every retraining of a configuration failed.
        """
        finalists = winners(
            records, metric=self.config.choice, direction=self.direction, top=self.config.top
        )
        self._write_best(finalists[0])
        roles, names = self._roles(finalists)
        rounds = len(roles) + (self.config.refit_on is RefitOn.TRAIN_AND_VALIDATION)
        retrainer = Retrainer(
            self.directory,
            listener=self._listener,
            all_epochs=rounds * self._plan.seeds * self._plan.epochs,
        )
        finished = finished_folders(self.directory)
        jobs = [refit.found_again(job, finished) for job in self._plan.jobs(roles)]
        found = refit.candidates(jobs, retrainer.train(jobs, crew, setting), self._plan)
        best = refit.choose(found, direction=self.direction)
        self._write_best(
            finalists[names.index(best)] if best in names else _documented_trial(records)
        )
        # The documented network itself may be the best; it is then both sides of the verdict.
        won = [dataclasses.replace(c, role=refit.WINNER) for c in found if c.role == best]
        if self.config.refit_on is RefitOn.TRAIN_AND_VALIDATION:
            role = next(role for role in roles if role.name == best)
            role = dataclasses.replace(role, name=refit.WINNER)
            won = self._once_more(role, won, retrainer, crew, final_setting)
        if self.config.ensemble and len(won) > 1:
            won = [*won, refit.ensemble(won, refit.WINNER, direction=self.direction)]
        return [c for c in found if c.role == refit.DOCUMENTED] + won

    def _roles(self, finalists: Sequence[TrialRecord]) -> tuple[list[Role], list[str]]:
        """Return the roles to train, the control first, and each finalist's role."""
        control = Role(name=refit.DOCUMENTED, values=self.documented)
        roles, names = [control], []
        for place, record in enumerate(finalists, 1):
            name = f"finalist_{place}"
            # The documented configuration was searched in float32 and stays there.
            precision = self.precision if record.configuration else control.precision
            role = finalist_role(self.config, name, record.values, precision=precision)
            if dataclasses.replace(role, name=control.name) == control:
                role = control
            else:
                roles.append(role)
            names.append(role.name)
        return roles, names

    def _once_more(
        self,
        role: Role,
        won: Sequence[Candidate],
        retrainer: Retrainer,
        crew: Crew,
        setting: Setting,
    ) -> list[Candidate]:
        """Train the winner on train + val, each seed to the epoch that validation found best."""
        jobs = {c.seed: self._plan.final_job(role, c) for c in won}
        results = retrainer.train(list(jobs.values()), crew, setting)
        kept = []
        for candidate in won:
            spec = jobs[candidate.seed].spec
            if results[spec.trial_id].failure is None:
                final = spec.directory / checkpoint.BEST
                kept.append(dataclasses.replace(candidate, final_weights=final))
        if not kept:
            failure = next(r.failure for r in results.values() if r.failure)
            raise SearchFailedError(
                f"retraining the winner on train + val failed with every seed: {failure.message}\n"
                f"{failure.traceback}"
            )
        return kept

    def _write_best(self, record: TrialRecord) -> None:
        self.directory.write_json(
            "best_hyperparameters.json", {"trial_id": record.trial_id, "values": record.values}
        )


def _documented_trial(records: Sequence[TrialRecord]) -> TrialRecord:
    """Return the furthest trial of the documented configuration, which every search tries first."""
    return max((r for r in records if not r.configuration), key=lambda record: record.epochs)


def finished_folders(run: RunDirectory) -> list[Path]:
    """Return the folders of the retrainings that a run finished and whose weights are there."""
    names = {str(e["folder"]) for e in run.events() if _finished(e) and e.get("folder")}
    folders = [run.refit_dir / name for name in sorted(names)]
    return [folder for folder in folders if (folder / checkpoint.BEST).exists()]


def finalist_role(config: RunConfig, name: str, values: Values, *, precision: str) -> Role:
    """Return how a finalist is retrained: its values, and what the configuration asks for.

    Args:
        config: What was asked for.
        name: Of the role.
        values: As the search had them.
        precision: Keras dtype policy.
    """
    if config.refit_schedule is not RefitSchedule.AS_SEARCHED:
        values = {**values, "schedule": config.refit_schedule.value}
    return Role(
        name=name,
        values=values,
        patience=config.refit_patience,
        average=config.ema,
        precision=precision,
    )


def recipe(config: RunConfig, candidates: Sequence[Candidate], *, precision: str) -> dict[str, Any]:
    """Describe the winner's retraining for `evaluation.json`.

    Args:
        config: What was asked for.
        candidates: As `Retraining.retrain` returns them.
        precision: In which the finalists were trained.

    Returns:
        "trained_as", the role that won; its options, which the control has none of; what they gave;
        and "notes", a sentence each.
    """
    mine = [c for c in candidates if c.role == refit.WINNER]
    networks = [c for c in mine if not c.members]
    trained_as = networks[0].trained_as
    control = Role(name=refit.DOCUMENTED, values={})
    plain = trained_as == control.name
    combined = next((c for c in mine if c.members), None)
    final = any(c.final_weights for c in networks)
    notes = []
    if final:
        notes.append(
            "The winner was trained once more on train + val, each seed for the epochs that "
            "validation found best; its validation scores and threshold are those of the network "
            "trained on train alone, since none of its own images are left to validate on."
        )
    if combined is not None:
        notes.append(
            f"The winner is the mean probability of {len(combined.members)} networks, one a seed, "
            f"with {combined.parameters:,} parameters together; the documented network is single."
        )
    return {
        "epochs": config.refit_epochs,
        "seeds": config.refit_seeds,
        "trained_as": trained_as,
        "schedule": RefitSchedule.AS_SEARCHED if plain else config.refit_schedule,
        "patience": control.patience if plain else config.refit_patience,
        "ema": control.average if plain else config.ema,
        "precision": control.precision if plain else precision,
        "trained_on": config.refit_on if final else RefitOn.TRAIN,
        "kept_epochs": {str(c.seed): c.kept_epoch for c in networks},
        "mean_score": statistics.fmean(c.score for c in networks),
        "ensemble": None
        if combined is None
        else {"members": len(combined.members), "parameters": combined.parameters},
        "notes": notes,
    }
