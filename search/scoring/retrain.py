"""Retrains the finalists and the baseline with several seeds; the best on validation is the winner.

All are trained with the same class weights, the same epochs at most and the same seeds; of each
training the epoch with the best validation objective is kept. Finalists race over seeds: all are
trained with the first, the better half with the second, and so on until one is left, which gets the
seeds that remain. Between it and the baseline, which is trained with every seed, the validation
objective decides, averaged over seeds. The test set plays no part.

Early stopping and mixed precision are a finalist's alone: the baseline, the HyperModel's defaults,
is retrained as it is. Trainings do not depend on each other, nor on how many run at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from search.config import RefitOn, RunConfig, cost
from search.errors import SearchFailedError
from search.journal import Event, EventKind
from search.records import (
    BestHyperparameters,
    Dataset,
    EpochRecord,
    Failure,
    Finalist,
    RetrainingRecipe,
    TrialRecord,
    TrialResult,
    TrialSpec,
    Values,
)
from search.run_directory import RunDirectory
from search.scoring.predictions import BASELINE, WINNER
from search.tuning import checkpoint
from search.tuning.executors import Executor, Pace, TrialMessage, TrialStarted
from search.tuning.model import Setting
from search.tuning.selection import winners

FINAL = "_train+val"
"""What the winner's role ends in when it is trained once more on train + val."""

Listener = Callable[[Event], None]


class OpenExecutor(Protocol):
    """What starts workers for retrainings, see `tuning.search.Search.retraining_executor`."""

    def __call__(self, setting: Setting, *, trainings: int) -> AbstractContextManager[Executor]:
        """Hold an executor for so many trainings; for none, this process."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration to retrain, and how.

    Attributes:
        role: "baseline", or "finalist_1" and so on, the search's best first.
        values: Hyperparameter values.
        epochs: Epochs, at most.
        patience: Stop after so many epochs without a better objective, 0 for never.
        precision: Keras dtype policy.
    """

    role: str
    values: Values
    epochs: int
    patience: int = 0
    precision: str = "float32"

    def same_training(self, other: Recipe) -> bool:
        """Return whether another recipe differs in its role at most."""
        return dataclasses.replace(self, role=other.role) == other


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """A configuration retrained with one seed, or the ensemble of its seeds.

    Attributes:
        recipe: What was trained, and how.
        seed: The seed of this repetition, 0, 1, …; None for an ensemble.
        parameters: Parameter count, of all members of an ensemble together.
        weights_file: Checkpoint of the epoch that is kept; of an ensemble, the best member's.
        kept_epoch: Number of that epoch.
        score: Objective on validation; an ensemble's is the mean of its members'.
        final_weights: Checkpoint of the same training on train + val, if there was one: what is
            tested and exported, while `weights_file` is what validation speaks of.
        members: What an ensemble takes the mean probability of; () for a network.
    """

    recipe: Recipe
    seed: int | None
    parameters: int
    weights_file: Path
    kept_epoch: int
    score: float
    final_weights: Path | None = None
    members: tuple[Retrained, ...] = ()


class Retraining(NamedTuple):
    """What the retraining stage gave.

    Attributes:
        baseline: A network per seed.
        winner: A network per seed; the baseline's own where nothing was better.
        ensemble: Of the winner's networks, None unless asked for.
        recipe: How the winner was retrained.
        finalists: Everything that was retrained, best first.
    """

    baseline: tuple[Retrained, ...]
    winner: tuple[Retrained, ...]
    ensemble: Retrained | None
    recipe: RetrainingRecipe
    finalists: tuple[Finalist, ...]


def retrain(
    config: RunConfig,
    records: Sequence[TrialRecord],
    *,
    defaults: Values,
    precision: str,
    directory: RunDirectory,
    listener: Listener,
    open_executor: OpenExecutor,
    setting: Setting,
    final_setting: Setting,
) -> Retraining:
    """Retrain finalists and baseline, and choose the winner on validation.

    What an earlier process of the run trained is read from disk.

    Args:
        config: What was asked for.
        records: The search's trials.
        defaults: Values of the HyperModel's defaults, the baseline.
        precision: Keras dtype policy of the search; the baseline's is float32.
        directory: The run directory; its journal gets every epoch.
        listener: Called with every event.
        open_executor: Gives workers.
        setting: Data and HyperModel; its objective picks the kept epoch.
        final_setting: The same with the validation images among the training images.

    Raises:
        SearchFailedError: Every retraining of the baseline, or of all finalists, failed.
        StopRequestedError: The user asked to stop; finished epochs are kept.
    """
    chosen = winners(records, config.choice, top=config.top)
    trials = {f"finalist_{place}": record for place, record in enumerate(chosen, 1)}
    baseline = Recipe(role=BASELINE, values=defaults, epochs=config.refit_epochs)
    recipes = [
        Recipe(
            role=role,
            values=record.values,
            epochs=config.refit_epochs,
            patience=config.refit_patience,
            # Configuration 0, the defaults, was searched in float32 and stays there.
            precision=precision if record.configuration else "float32",
        )
        for role, record in trials.items()
    ]
    finalists = [recipe for recipe in recipes if not recipe.same_training(baseline)]
    trainer = Trainer(
        directory,
        config,
        listener=listener,
        open_executor=open_executor,
        all_epochs=config.refit_epochs * trainings(config, finalists=len(finalists)),
    )
    _race(trainer, finalists, baseline, setting, seeds=config.refit_seeds)
    best = trainer.best(baseline, finalists)
    # Where the baseline won: the furthest trial of the defaults, which every search tries first.
    mine = [record for record in records if record.values == defaults]
    trial = trials.get(best.role) or max(mine, key=lambda record: record.epochs, default=None)
    directory.write_json(
        "best_hyperparameters.json",
        BestHyperparameters(trial_id=trial.trial_id if trial else "", values=best.values),
    )
    won = trainer.networks(best)
    if config.refit_on is RefitOn.TRAIN_AND_VALIDATION:
        won = trainer.train_finally(best, won, final_setting)
    combined = ensemble(won, config.choice) if config.ensemble and won[1:] else None
    return Retraining(
        baseline=trainer.networks(baseline),
        winner=won,
        ensemble=combined,
        recipe=_describe(config, best, won, combined),
        finalists=tuple(trainer.finalist(one) for one in trainer.ranked([baseline, *finalists])),
    )


def trainings(config: RunConfig, *, finalists: int) -> int:
    """Return how many trainings a retraining takes."""
    count = sum(alive * len(seeds) for alive, seeds in _rounds(finalists, config.refit_seeds))
    again = config.refit_seeds * (config.refit_on is RefitOn.TRAIN_AND_VALIDATION)
    return config.refit_seeds + count + again


REPORT_SECONDS = 60.0
"""Allowed for intervals, exports, figures and the report when a budget is divided."""


def seconds_after(config: RunConfig, dataset: Dataset, pace: Pace, workers: int) -> float:
    """Estimate what follows the search: retraining, test and report.

    Args:
        config: What was asked for.
        dataset: Its images.
        pace: Of the baseline, with all workers busy.
        workers: How many trainings run at once.
    """
    count = trainings(config, finalists=config.top)
    # The last of them leave workers idle.
    rounds = math.ceil(count / workers) * workers
    training = rounds * (config.refit_epochs * pace.epoch + pace.trial)
    test = sum(dataset.report.counts.get("test", {}).values())
    predicted = len(dataset.val) + len(dataset.views) + test
    # Predicting an image costs at most what training on it does.
    scoring = predicted * pace.epoch / len(dataset.train) + pace.trial * workers
    return training + 2 * config.refit_seeds * scoring + REPORT_SECONDS


def _rounds(finalists: int, seeds: int) -> Iterator[tuple[int, range]]:
    """Yield how many finalists each round of the race trains, the best ones, and which seeds."""
    for seed in range(seeds):
        last = finalists <= 1
        yield finalists, range(seed, seeds if last else seed + 1)
        if last:
            return
        finalists = math.ceil(finalists / 2)


def _race(
    trainer: Trainer,
    finalists: Sequence[Recipe],
    baseline: Recipe,
    setting: Setting,
    *,
    seeds: int,
) -> None:
    """Train the baseline with every seed and the finalists in rounds, a seed and half as many."""
    wanted = [(baseline, seed) for seed in range(seeds)]
    alive = list(finalists)
    for count, numbers in _rounds(len(finalists), seeds):
        alive = trainer.ranked(alive)[:count]
        wanted += [(one, seed) for one in alive for seed in numbers]
        trainer.train(wanted, setting)
        wanted = []
    if finalists and not any(trainer.networks(one) for one in finalists):
        raise trainer.failed(finalists[0])
    if not trainer.networks(baseline):
        raise trainer.failed(baseline)


class Trainer:
    """Trains recipes through an executor, journals every epoch and keeps what they gave.

    A training that an earlier process began goes on from its last epoch; one that it finished is
    read from disk.
    """

    def __init__(
        self,
        directory: RunDirectory,
        config: RunConfig,
        *,
        listener: Listener,
        open_executor: OpenExecutor,
        all_epochs: int,
        known: Callable[[Path], Path] = lambda folder: folder,
    ) -> None:
        """Prepare; trains nothing yet.

        Args:
            directory: Whose journal is written.
            config: Gives the seed and the objective.
            listener: Called with every event.
            open_executor: Gives workers.
            all_epochs: Of all trainings together, at most; for the time left.
            known: Gives the folder of a training, where it may lie elsewhere.
        """
        self._directory = directory
        self._seed = config.seed
        self._objective = config.choice
        self._listener = listener
        self._open_executor = open_executor
        self._all_epochs = all_epochs
        self._known_folder = known
        self._running: dict[str, tuple[Recipe, int, TrialSpec]] = {}
        self._journaled: dict[str, set[int]] = {}
        self._networks: dict[str, dict[int, Retrained]] = {}
        self._failures: dict[str, Failure] = {}

    def train(
        self,
        wanted: Sequence[tuple[Recipe, int]],
        setting: Setting,
        *,
        stops: Mapping[int, int] | None = None,
    ) -> None:
        """Train recipes with seeds.

        Args:
            wanted: Recipes and the seed of each, 0, 1, …
            setting: Data and HyperModel.
            stops: Epochs by seed after which a training ends, while the learning rate's schedule
                spans them all; None for no such end.

        Raises:
            StopRequestedError: The user asked to stop; finished epochs are kept.
            SearchError: The retraining cannot go on, e.g. on a full disk.
        """
        events = self._directory.events()
        specs: deque[TrialSpec] = deque()
        for recipe, seed in wanted:
            spec = self._spec(recipe, seed, stop=(stops or {}).get(seed, 0))
            self._running[spec.trial_id] = (recipe, seed, spec)
            self._journaled[spec.trial_id] = _journaled(events, recipe.role, seed, spec)
            specs.append(spec)
        done = finished(events)
        pending = sum(not _is_finished(spec.directory, done) for spec in specs)
        left = len(specs)
        with self._open_executor(setting, trainings=pending) as executor:
            while left:
                while specs and executor.free:
                    executor.submit(specs.popleft())
                self._end(executor.wait(self._on_message))
                left -= 1

    def train_finally(
        self, recipe: Recipe, networks: Sequence[Retrained], setting: Setting
    ) -> tuple[Retrained, ...]:
        """Train networks of train alone once more, on train + val, to the epochs that were kept.

        Raises:
            SearchFailedError: It failed with every seed.
        """
        # The length of the schedule stays: only where it is stopped was found on validation.
        last = dataclasses.replace(recipe, role=WINNER + FINAL, patience=0)
        stops = {network.seed or 0: network.kept_epoch for network in networks}
        self.train([(last, seed) for seed in stops], setting, stops=stops)
        final = {one.seed: one.weights_file for one in self.networks(last)}
        if not final:
            raise self.failed(last)
        return tuple(
            dataclasses.replace(network, final_weights=final[network.seed])
            for network in networks
            if network.seed in final
        )

    def networks(self, recipe: Recipe) -> tuple[Retrained, ...]:
        """Return what training a recipe gave, in order of seeds; those that failed are left out."""
        return tuple(one for _, one in sorted(self._networks.get(recipe.role, {}).items()))

    def failed(self, recipe: Recipe) -> SearchFailedError:
        """Return the error to raise where a recipe failed with every seed."""
        failure = self._failures[recipe.role]
        return SearchFailedError(
            f"retraining the {recipe.role} configuration failed with every seed: "
            f"{failure.message}\n{failure.traceback}"
        )

    def ranked(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Return recipes by their mean score over the seeds so far, best first.

        Among equals that with fewer parameters comes first, then the earlier; NaN and what failed
        come last.
        """

        def key(recipe: Recipe) -> tuple[float, int]:
            networks = self.networks(recipe)
            if not networks:
                return math.inf, 0
            mean = statistics.fmean(one.score for one in networks)
            return cost(self._objective, mean), networks[0].parameters

        return sorted(recipes, key=key)

    def best(self, baseline: Recipe, finalists: Sequence[Recipe]) -> Recipe:
        """Return the better of the baseline and the best of the finalists with the most seeds."""
        most = max((len(self.networks(one)) for one in finalists), default=0)
        last = self.ranked([one for one in finalists if len(self.networks(one)) == most])[:1]
        return self.ranked([baseline, *last])[0]

    def finalist(self, recipe: Recipe) -> Finalist:
        """Return what a report says of a recipe."""
        networks = self.networks(recipe)
        failure = self._failures.get(recipe.role)
        return Finalist(
            role=recipe.role,
            values=recipe.values,
            parameters=networks[0].parameters if networks else 0,
            scores={one.seed or 0: one.score for one in networks},
            failure=failure.message if failure else "",
        )

    def _spec(self, recipe: Recipe, seed: int, *, stop: int) -> TrialSpec:
        """Return the trial that a training is; the seed is the same for all recipes."""
        # Resumed with another choice, length or option, a role may mean another training.
        what = [recipe.values, recipe.epochs, self._objective, recipe.patience, recipe.precision]
        identity = json.dumps([*what, stop], sort_keys=True)
        folder = f"{hashlib.sha256(identity.encode()).hexdigest()[:8]}-{seed}"
        drawn = hashlib.sha256(f"{self._seed}/refit/{seed}".encode()).digest()[:4]
        return TrialSpec(
            trial_id=f"{recipe.role}-{seed}",
            values=recipe.values,
            seed=int.from_bytes(drawn, "big") >> 1,
            epochs=stop or recipe.epochs,
            directory=self._known_folder(self._directory.refit_dir / folder),
            keep_best=True,
            early_stopping=recipe.patience,
            precision=recipe.precision,
        )

    def _on_message(self, message: TrialMessage) -> None:
        recipe, seed, spec = self._running[message.trial_id]
        if isinstance(message, EpochRecord):
            if message.epoch in self._journaled[message.trial_id]:
                return  # found again on disk
            self._journaled[message.trial_id].add(message.epoch)
            self._report(
                EventKind.REFIT_EPOCH,
                role=recipe.role,
                seed=seed,
                epoch=message.epoch,
                metrics=message.metrics,
                seconds=message.seconds,
            )
        elif isinstance(message, TrialStarted):
            self._report(
                EventKind.REFIT_STARTED,
                role=recipe.role,
                seed=seed,
                epochs=spec.epochs,
                values=recipe.values,
                folder=spec.directory.name,
                worker=message.worker,
                pid=message.pid,
                all_epochs=self._all_epochs,
            )
        else:
            self._report(EventKind.WORKER_LOST, **dataclasses.asdict(message))

    def _end(self, result: TrialResult) -> None:
        recipe, seed, spec = self._running[result.trial_id]
        self._report(
            EventKind.REFIT_ENDED,
            role=recipe.role,
            seed=seed,
            folder=spec.directory.name,
            kept_epoch=result.best_epoch,
            epochs=len(result.epochs),
            parameters=result.parameters,
            seconds=result.seconds,
            failure=result.failure,
        )
        if result.failure:
            self._failures.setdefault(recipe.role, result.failure)
            return
        kept = next(record for record in result.epochs if record.epoch == result.best_epoch)
        self._networks.setdefault(recipe.role, {})[seed] = Retrained(
            recipe=recipe,
            seed=seed,
            parameters=result.parameters,
            weights_file=spec.directory / checkpoint.BEST,
            kept_epoch=result.best_epoch,
            # Trained on train + val, nothing is left to validate on. And the score of a network
            # that learned nothing would compare with those of others that learned something.
            score=kept.metrics.get(self._objective, math.nan) if result.learned else math.nan,
        )

    def _report(self, kind: EventKind, **fields: Any) -> None:
        self._listener(self._directory.append(kind, **fields))


def finished(events: Sequence[Event]) -> set[str]:
    """Return the names of the folders of the retrainings that a journal knows as finished."""
    return {
        event["folder"]
        for event in events
        if event["event"] == EventKind.REFIT_ENDED and not event["failure"]
    }


def _is_finished(folder: Path, done: set[str]) -> bool:
    return folder.name in done and (folder / checkpoint.BEST).exists()


def _journaled(events: Sequence[Event], role: str, seed: int, spec: TrialSpec) -> set[int]:
    """Return the epochs of this very training that the journal has already.

    Of trainings with the same role and seed the journal's latest counts: its readers take that for
    what was trained.
    """
    known: set[int] = set()
    ours = False
    for event in events:
        if (event.get("role"), event.get("seed")) != (role, seed):
            continue
        if event["event"] == EventKind.REFIT_STARTED:
            # The folder's name tells trainings apart whatever they differ in.
            again, ours = ours, event["folder"] == spec.directory.name
            known = known if again and ours else set()
        elif event["event"] == EventKind.REFIT_EPOCH and ours:
            known.add(event["epoch"])
    return known


def best_of(networks: Sequence[Retrained], objective: str) -> Retrained:
    """Return the network with the best validation score; NaN counts as the worst."""
    return min(networks, key=lambda one: cost(objective, one.score))


def ensemble(members: Sequence[Retrained], objective: str) -> Retrained:
    """Return the ensemble of the networks of one recipe."""
    return dataclasses.replace(
        best_of(members, objective),
        seed=None,
        parameters=sum(member.parameters for member in members),
        score=statistics.fmean(member.score for member in members),
        members=tuple(members),
    )


def _describe(
    config: RunConfig, recipe: Recipe, won: Sequence[Retrained], combined: Retrained | None
) -> RetrainingRecipe:
    final = any(network.final_weights for network in won)
    notes = []
    if final:
        notes.append(
            "The winner was trained once more on train + val, each seed for the epochs that "
            "validation found best; its validation scores and threshold are those of the network "
            "trained on train alone, since none of its own images are left to validate on."
        )
    if combined is not None:
        notes.append(
            f"The winner is the mean probability of {len(won)} networks, one per seed, with "
            f"{combined.parameters:,} parameters together; the baseline is a single network."
        )
    return RetrainingRecipe(
        trained_as=recipe.role,
        epochs=recipe.epochs,
        seeds=config.refit_seeds,
        patience=recipe.patience,
        precision=recipe.precision,
        trained_on=(config.refit_on if final else RefitOn.TRAIN).value,
        kept_epochs={network.seed or 0: network.kept_epoch for network in won},
        ensemble=len(won) if combined else None,
        notes=tuple(notes),
    )
