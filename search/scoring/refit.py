"""Retrains the finalists and the documented configuration with several seeds each.

All are trained with the same class weights, the same epochs at most and the same seeds; of each
training the epoch with the best validation objective is kept. Between all of them, the documented
configuration included, the validation objective, averaged over seeds, decides. The test set plays
no part.

What was asked for beyond that (an average of weights, early stopping, mixed precision) is a
finalist's alone: the documented configuration, the control, is retrained as it is documented.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import SearchFailedError
from search.records import TrialResult, TrialSpec, Values
from search.run_directory import KEPT_WEIGHTS

DOCUMENTED = "documented"
WINNER = "winner"
FINAL = "_train+val"
"""What the name of a role ends in when it is trained once more on train + val."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """A configuration to retrain, and how.

    Attributes:
        name: "documented", or "finalist_1" and so on, the search's best first.
        values: Hyperparameter values.
        patience: Stop after so many epochs without a better objective, 0 for never.
        average: Decay of an average of the weights that is kept in their place, 0 for none.
        precision: Keras dtype policy.
    """

    name: str
    values: Values
    patience: int = 0
    average: float = 0.0
    precision: str = "float32"

    @property
    def options(self) -> dict[str, Any]:
        """Return what differs from the control's training."""
        fields = [f for f in dataclasses.fields(self) if f.name not in ("name", "values")]
        return {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        role: Of what.
        repetition: With which seed, 0, 1, …
        spec: The trial it is.
    """

    role: Role
    repetition: int
    spec: TrialSpec


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration retrained with one seed, or the ensemble of its seeds.

    Attributes:
        role: "documented", "finalist_1" and so on; "winner" for those of the best of these.
        seed: The seed of this repetition, 0, 1, …; None for an ensemble.
        values: Hyperparameter values.
        parameters: Parameter count, of all members of an ensemble together.
        weights_file: Checkpoint of the epoch that is kept; of an ensemble, the best member's.
        kept_epoch: Number of that epoch.
        score: Objective on validation by which candidates are compared; an ensemble's is the mean
            of its members'.
        average: Decay of the average of weights it was trained with, 0 for none.
        final_weights: Checkpoint of the same training on train + val, if there was one: what is
            tested and exported, while `weights_file` is what validation speaks of.
        members: The candidates whose mean probability an ensemble gives; () for a network.
        trained_as: The role it was trained as, which a winner has besides.
    """

    role: str
    seed: int | None
    values: Values
    parameters: int
    weights_file: Path
    kept_epoch: int
    score: float
    average: float = 0.0
    final_weights: Path | None = None
    members: tuple[Candidate, ...] = ()
    trained_as: str = ""


@dataclass(frozen=True, kw_only=True)
class RefitPlan:
    """How the retraining is done.

    Attributes:
        epochs: Epochs of each training, at most.
        seeds: Repetitions of each configuration.
        seed: The run's seed.
        objective: Metric that decides.
        direction: "min" or "max".
        directory: Where checkpoints live, one folder a candidate.
    """

    epochs: int
    seeds: int
    seed: int
    objective: str
    direction: str
    directory: Path

    def jobs(self, roles: Sequence[Role]) -> list[Job]:
        """Return every training, in order of role and repetition.

        The repetition's seed is the same for all roles.
        """
        return [
            Job(role=role, repetition=number, spec=self._spec(role, number))
            for role in roles
            for number in range(self.seeds)
        ]

    def final_job(self, role: Role, candidate: Candidate) -> Job:
        """Return the same training on train + val, to the epoch that validation found best.

        Raises:
            ValueError: The candidate is an ensemble, which is not trained.
        """
        if candidate.seed is None:
            raise ValueError("an ensemble is made of trained networks and not trained itself")
        last = dataclasses.replace(role, name=role.name + FINAL, patience=0)
        # The length of the schedule stays: only where it is stopped was found on validation.
        spec = self._spec(last, candidate.seed, stop=candidate.kept_epoch)
        return Job(role=last, repetition=candidate.seed, spec=spec)

    def _spec(self, role: Role, repetition: int, *, stop: int = 0) -> TrialSpec:
        text = f"{self.seed}/refit/{repetition}"
        # Resumed with another choice, length or option, a role may mean another training.
        what = [role.values, self.epochs, self.objective]
        options = {**role.options, **({"stop": stop} if stop else {})}
        identity = json.dumps([*what, options] if options else what, sort_keys=True)
        folder = f"{role.name}-{repetition}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        return TrialSpec(
            trial_id=f"{role.name}-{repetition}",
            values=role.values,
            seed=int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1,
            epochs=stop or self.epochs,
            directory=self.directory / folder,
            keep_best=True,
            early_stopping=role.patience,
            precision=role.precision,
        )


def candidates(
    jobs: Sequence[Job], results: Mapping[str, TrialResult], plan: RefitPlan
) -> list[Candidate]:
    """Return what the trainings gave, in their order; a repetition that failed is left out.

    Args:
        jobs: The trainings.
        results: By trial id.
        plan: How they were done.

    Raises:
        SearchFailedError: Every repetition of a role failed.
    """
    found = []
    for name in dict.fromkeys(job.role.name for job in jobs):
        mine = [job for job in jobs if job.role.name == name]
        trained = [job for job in mine if results[job.spec.trial_id].failure is None]
        if not trained:
            failure = results[mine[0].spec.trial_id].failure
            raise SearchFailedError(
                f"retraining the {name} configuration failed with every seed: "
                + (f"{failure.message}\n{failure.traceback}" if failure else "")
            )
        found += [_candidate(job, results[job.spec.trial_id], plan) for job in trained]
    return found


def _candidate(job: Job, result: TrialResult, plan: RefitPlan) -> Candidate:
    kept = next(record for record in result.epochs if record.epoch == result.best_epoch)
    return Candidate(
        role=job.role.name,
        seed=job.repetition,
        values=job.spec.values,
        parameters=result.parameters,
        weights_file=job.spec.directory / KEPT_WEIGHTS,
        kept_epoch=result.best_epoch,
        score=kept.metrics[plan.objective],
        trained_as=job.role.name,
    )


def found_again(job: Job, folders: Iterable[Path]) -> Job:
    """Let a job use the folder of the very same training, where one of these is.

    Its role may have had another name then; what follows the name tells trainings apart.
    """
    own = job.spec.directory
    _, repetition, identity = own.name.rsplit("-", 2)
    for folder in sorted(folders, key=lambda folder: (folder != own, folder.name)):
        if folder.name.endswith(f"-{repetition}-{identity}"):
            return dataclasses.replace(job, spec=dataclasses.replace(job.spec, directory=folder))
    return job


def choose(found: Sequence[Candidate], *, direction: str) -> str:
    """Return the role with the best mean score over its seeds.

    Among equals that with fewer parameters comes first, then the earlier; NaN comes last.
    """
    sign = 1.0 if direction == "min" else -1.0

    def key(role: str) -> tuple[float, int]:
        mine = [candidate for candidate in found if candidate.role == role]
        mean = statistics.fmean(candidate.score for candidate in mine)
        return sign * mean if math.isfinite(mean) else math.inf, mine[0].parameters

    return min(dict.fromkeys(candidate.role for candidate in found), key=key)


def best_of(found: Sequence[Candidate], role: str, *, direction: str) -> Candidate:
    """Return a role's ensemble, else its repetition with the best validation score."""
    sign = 1.0 if direction == "min" else -1.0
    mine = [c for c in found if c.role == role]
    return min(mine, key=lambda c: (not c.members, sign * c.score))


def ensemble(found: Sequence[Candidate], role: str, *, direction: str) -> Candidate:
    """Return the ensemble of a role's repetitions.

    Args:
        found: Candidates; those of the role are networks.
        role: The role.
        direction: Whether a small score is better, "min", or a large one, "max".
    """
    members = tuple(c for c in found if c.role == role)
    return dataclasses.replace(
        best_of(members, role, direction=direction),
        seed=None,
        parameters=sum(member.parameters for member in members),
        score=statistics.fmean(member.score for member in members),
        members=members,
    )
