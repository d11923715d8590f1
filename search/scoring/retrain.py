"""Retrains the finalists and the baseline with several seeds; the best on validation is the winner.

All are trained with the same class weights, the same epochs at most and the same seeds; of each
training the epoch is kept whose validation objective, smoothed over the last epochs as the search
smooths it (`tuning/selection.py`), is the best. Finalists race over seeds: all are trained with the
first two, the better half with the third, and so on until one is left, which gets the seeds that
remain. Between it and the baseline, which is trained with every seed, the validation objective
decides, averaged over seeds. The test set plays no part.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
from search.tuning.loop import Listener
from search.tuning.model import Setting
from search.tuning.selection import smoothed, winners

FINAL = "_train+val"
"""What the winner's role ends in when it is trained once more on train + val."""

OpenExecutor = Callable[..., AbstractContextManager[Executor]]
"""What starts workers for retrainings, see `tuning.search.Search.retraining_executor`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration to retrain, and how; recipes that differ in their role only are equal."""

    # "baseline", or "finalist_1" and so on, the search's best first
    role: str = field(compare=False)
    values: Values
    epochs: int  # Epochs, at most; the learning rate's schedule spans them
    stop: int = 0  # Epoch after which the training ends all the same, 0 for none
    patience: int = 0  # Stop after so many epochs without a better objective, 0 for never
    precision: str = "float32"  # Keras dtype policy


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """A configuration retrained with one seed."""

    recipe: Recipe  # What was trained, and how
    seed: int  # The seed of this repetition, 0, 1, …
    parameters: int
    weights_file: Path  # Checkpoint of the epoch that is kept
    kept_epoch: int  # Number of that epoch
    score: float  # Objective on validation, smoothed
    # Checkpoint of the same training on train + val, if there was one: what is tested and exported,
    # while `weights_file` is what validation speaks of
    final_weights: Path | None = None


class Retraining(NamedTuple):
    """What the retraining stage gave."""

    baseline: tuple[Retrained, ...]  # A network per seed
    winner: tuple[Retrained, ...]  # A network per seed; the baseline's own where nothing was better
    recipe: RetrainingRecipe  # How the winner was retrained
    finalists: tuple[Finalist, ...]  # Everything that was retrained, best first


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
    finalists = [recipe for recipe in recipes if recipe != baseline]
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
    return Retraining(
        baseline=trainer.networks(baseline),
        winner=won,
        recipe=_describe(config, best, won),
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
    """Estimate the seconds of what follows the search: retraining, test and report.

    The pace is the baseline's with all workers busy, on images of the search's size.
    """
    count, epoch = trainings(config, finalists=config.top), pace.epoch * config.refit_area
    # The last of them leave workers idle.
    rounds = math.ceil(count / workers) * workers
    training = rounds * (config.refit_epochs * epoch + pace.trial)
    test = sum(dataset.report.counts.get("test", {}).values())
    predicted = len(dataset.val) + len(dataset.views) + test
    # Predicting an image costs at most what training on it does.
    scoring = predicted * epoch / len(dataset.train) + pace.trial * workers
    return training + 2 * config.refit_seeds * scoring + REPORT_SECONDS


def _rounds(finalists: int, seeds: int) -> Iterator[tuple[int, range]]:
    """Yield how many finalists each round of the race trains, the best ones, and which seeds."""
    seed = 0
    while seed < seeds:
        # Two at first: after one, luck decides between finalists that differ by less than seeds do.
        end = seeds if finalists <= 1 else min(seeds, max(2, seed + 1))
        yield finalists, range(seed, end)
        seed, finalists = end, math.ceil(finalists / 2)


def _race(
    trainer: Trainer,
    finalists: Sequence[Recipe],
    baseline: Recipe,
    setting: Setting,
    *,
    seeds: int,
) -> None:
    """Train the baseline with every seed and the finalists in rounds, half of them in the next."""
    wanted = [(baseline, seed) for seed in range(seeds)]
    alive = list(finalists)
    for count, numbers in _rounds(len(finalists), seeds):
        alive = trainer.ranked(alive)[:count]
        wanted += [(one, seed) for one in alive for seed in numbers]
        trainer.train(wanted, setting)
        wanted = []
    if not any(trainer.networks(one) for one in finalists):
        trainer.require(*finalists[:1])
    trainer.require(baseline)


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

        `all_epochs` are those of all trainings together, for the time left; `known` gives the
        folder of a training, which may lie elsewhere.
        """
        self._directory = directory
        self._seed = config.seed
        self._image_size = config.image_size
        self._objective = config.choice
        self._listener = listener
        self._open_executor = open_executor
        self._all_epochs = all_epochs
        self._known_folder = known
        self._running: dict[str, tuple[Recipe, int, TrialSpec]] = {}
        self._journaled: dict[str, set[int]] = {}
        self._networks: dict[str, dict[int, Retrained]] = {}
        self._failures: dict[str, Failure] = {}

    def train(self, wanted: Sequence[tuple[Recipe, int]], setting: Setting) -> None:
        """Train recipes, each with the seed beside it.

        Raises:
            StopRequestedError: The user asked to stop; finished epochs are kept.
            SearchError: The retraining cannot go on, e.g. on a full disk.
        """
        events = self._directory.events()
        specs: deque[TrialSpec] = deque()
        for recipe, seed in wanted:
            spec = self._spec(recipe, seed)
            self._running[spec.trial_id] = (recipe, seed, spec)
            self._journaled[spec.trial_id] = _journaled(events, recipe.role, seed, spec)
            specs.append(spec)
        done = finished(events)
        pending = sum(
            one.directory.name not in done or not (one.directory / checkpoint.BEST).exists()
            for one in specs
        )
        with self._open_executor(setting, trainings=pending) as executor:
            for _ in wanted:
                while specs and executor.free:
                    executor.submit(specs.popleft())
                self._end(executor.wait(self._on_message))

    def train_finally(
        self, recipe: Recipe, networks: Sequence[Retrained], setting: Setting
    ) -> tuple[Retrained, ...]:
        """Train networks of train alone once more, on train + val, to the epochs that were kept.

        Raises:
            SearchFailedError: It failed with every seed.
        """
        # The length of the schedule stays: only where it is stopped was found on validation.
        last = dataclasses.replace(recipe, role=WINNER + FINAL, patience=0)
        wanted = [
            (dataclasses.replace(last, stop=network.kept_epoch), network.seed)
            for network in networks
        ]
        self.train(wanted, setting)
        self.require(last)
        final = {one.seed: one.weights_file for one in self.networks(last)}
        return tuple(
            dataclasses.replace(network, final_weights=final[network.seed])
            for network in networks
            if network.seed in final
        )

    def networks(self, recipe: Recipe) -> tuple[Retrained, ...]:
        """Return what training a recipe gave, in order of seeds; those that failed are left out."""
        return tuple(one for _, one in sorted(self._networks.get(recipe.role, {}).items()))

    def require(self, *recipes: Recipe) -> None:
        """Raise SearchFailedError for a recipe that failed with every seed."""
        for recipe in recipes:
            if not self.networks(recipe):
                failure = self._failures[recipe.role]
                raise SearchFailedError(
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
            scores={one.seed: one.score for one in networks},
            failure=failure.message if failure else "",
        )

    def _spec(self, recipe: Recipe, seed: int) -> TrialSpec:
        """Return the trial that a training is; the seed is the same for all recipes."""
        # Resumed with another choice, length or option, a role may mean another training.
        what = [recipe.values, recipe.epochs, self._objective, recipe.patience, recipe.precision]
        identity = json.dumps([*what, recipe.stop, self._image_size], sort_keys=True)
        folder = f"{hashlib.sha256(identity.encode()).hexdigest()[:8]}-{seed}"
        drawn = hashlib.sha256(f"{self._seed}/refit/{seed}".encode()).digest()[:4]
        return TrialSpec(
            trial_id=f"{recipe.role}-{seed}",
            values=recipe.values,
            seed=int.from_bytes(drawn, "big") >> 1,
            epochs=recipe.stop or recipe.epochs,
            directory=self._known_folder(self._directory.refit_dir / folder),
            keep_best=True,
            early_stopping=recipe.patience,
            precision=recipe.precision,
        )

    def _on_message(self, message: TrialMessage) -> None:
        if isinstance(message, EpochRecord):
            journaled = self._journaled[message.trial_id]
            if message.epoch in journaled:
                return  # found again on disk
            journaled.add(message.epoch)
            self._report(
                EventKind.REFIT_EPOCH,
                message.trial_id,
                epoch=message.epoch,
                metrics=message.metrics,
                seconds=message.seconds,
            )
        elif isinstance(message, TrialStarted):
            recipe, _, spec = self._running[message.trial_id]
            self._report(
                EventKind.REFIT_STARTED,
                message.trial_id,
                epochs=spec.epochs,
                values=recipe.values,
                folder=spec.directory.name,
                worker=message.worker,
                pid=message.pid,
                all_epochs=self._all_epochs,
            )
        else:
            lost = dataclasses.asdict(message)
            self._listener(self._directory.append(EventKind.WORKER_LOST, **lost))

    def _end(self, result: TrialResult) -> None:
        recipe, seed, spec = self._running[result.trial_id]
        self._report(
            EventKind.REFIT_ENDED,
            result.trial_id,
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
        scores = [one.metrics.get(self._objective, math.nan) for one in result.epochs]
        self._networks.setdefault(recipe.role, {})[seed] = Retrained(
            recipe=recipe,
            seed=seed,
            parameters=result.parameters,
            weights_file=spec.directory / checkpoint.BEST,
            kept_epoch=result.best_epoch,
            # Trained on train + val, nothing is left to validate on. And the score of a network
            # that learned nothing would compare with those of others that learned something.
            score=smoothed(scores[: result.best_epoch], epochs=result.best_epoch)
            if result.learned
            else math.nan,
        )

    def _report(self, kind: EventKind, trial_id: str, **fields: Any) -> None:
        recipe, seed, _ = self._running[trial_id]
        self._listener(self._directory.append(kind, role=recipe.role, seed=seed, **fields))


def finished(events: Sequence[Event]) -> set[str]:
    """Return the names of the folders of the retrainings that a journal knows as finished."""
    return {
        event["folder"]
        for event in events
        if event["event"] == EventKind.REFIT_ENDED and not event["failure"]
    }


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


def _describe(config: RunConfig, recipe: Recipe, won: Sequence[Retrained]) -> RetrainingRecipe:
    final = any(network.final_weights for network in won)
    together = len(won) if config.ensemble and len(won) > 1 else None
    notes = []
    if final:
        notes.append(
            "The winner was trained once more on train + val, each seed for the epochs that "
            "validation found best; its validation scores and threshold are those of the network "
            "trained on train alone, since none of its own images are left to validate on."
        )
    if together:
        notes.append(
            f"The winner is the mean probability of {together} networks, one per seed, with "
            f"{sum(network.parameters for network in won):,} parameters together; the baseline is "
            "a single network."
        )
    return RetrainingRecipe(
        trained_as=recipe.role,
        epochs=recipe.epochs,
        seeds=config.refit_seeds,
        patience=recipe.patience,
        precision=recipe.precision,
        trained_on=(config.refit_on if final else RefitOn.TRAIN).value,
        kept_epochs={network.seed: network.kept_epoch for network in won},
        ensemble=together,
        notes=tuple(notes),
    )
