"""Retrains the finalists and the documented configuration, all in the same way.

Every role is trained with the same number of epochs, the same class weights and the same number of
seeds; of each training the epoch with the best validation objective is kept. Between finalists the
validation objective, averaged over seeds, decides. The test set plays no part.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.errors import SearchFailedError
from search.records import Candidate, TrialResult, TrialSpec, Values

DOCUMENTED = "documented"
WINNER = "winner"

Train = Callable[[TrialSpec], TrialResult]


@dataclass(frozen=True, kw_only=True)
class RefitPlan:
    """How the retraining is done.

    Attributes:
        epochs: Epochs of each training.
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

    def spec(self, role: str, repetition: int, values: Values) -> TrialSpec:
        """Return what to train for one repetition of a role."""
        text = f"{self.seed}/refit/{repetition}"
        # Resumed with another choice or length, a role may mean another training.
        what = json.dumps([values, self.epochs, self.objective], sort_keys=True)
        folder = f"{role}-{repetition}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
        return TrialSpec(
            trial_id=f"{role}-{repetition}",
            values=values,
            seed=int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1,
            epochs=self.epochs,
            directory=self.directory / folder,
            keep_best=True,
        )


def refit(roles: Sequence[tuple[str, Values]], plan: RefitPlan, *, train: Train) -> list[Candidate]:
    """Retrain every role with every seed.

    Args:
        roles: (role, values) pairs; the repetition's seed is the same for all roles.
        plan: How.
        train: Trains one spec; continues from its checkpoint if there is one.

    Returns:
        The candidates in order of role and repetition. A repetition that fails is left out.

    Raises:
        SearchFailedError: Every repetition of a role failed.
    """
    candidates = []
    for role, values in roles:
        results = []
        for repetition in range(plan.seeds):
            spec = plan.spec(role, repetition, values)
            result = train(spec)
            results.append(result)
            if result.failure is None:
                candidates.append(_candidate(role, repetition, spec, result, plan))
        if all(result.failure for result in results):
            failure = results[0].failure
            raise SearchFailedError(
                f"retraining the {role} configuration failed with every seed: "
                + (f"{failure.message}\n{failure.traceback}" if failure else "")
            )
    return candidates


def _candidate(
    role: str, repetition: int, spec: TrialSpec, result: TrialResult, plan: RefitPlan
) -> Candidate:
    kept = next(record for record in result.epochs if record.epoch == result.best_epoch)
    return Candidate(
        role=role,
        seed=repetition,
        values=spec.values,
        result=result,
        weights_file=spec.directory / "best.weights.h5",
        kept_epoch=result.best_epoch,
        score=kept.metrics[plan.objective],
    )


def choose(candidates: Sequence[Candidate], *, direction: str) -> str:
    """Return the role with the best mean score over its seeds; the first of equals."""
    sign = 1.0 if direction == "min" else -1.0
    roles = list(dict.fromkeys(candidate.role for candidate in candidates))
    return min(
        roles,
        key=lambda role: sign * statistics.fmean(c.score for c in candidates if c.role == role),
    )


def best_of(candidates: Sequence[Candidate], role: str, *, direction: str) -> Candidate:
    """Return a role's repetition with the best validation score."""
    sign = 1.0 if direction == "min" else -1.0
    return min((c for c in candidates if c.role == role), key=lambda c: sign * c.score)
