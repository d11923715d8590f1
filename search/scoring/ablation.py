"""Trains and judges an ablation: one factor changed at a time, from the baseline and the winner.

Base and change are retrained in the same way with the same seeds; networks of the run itself are
used again where they are the same training and unchanged. Every training is journaled, so that a
killed ablation goes on. The test is evaluated when all of them have ended, and chooses nothing.
What can be changed, and the report, are in `factors`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import numpy as np

from search.config import RunConfig
from search.data.prepare import SealedTest
from search.errors import DataError
from search.journal import EventKind
from search.records import (
    Comparison,
    Dataset,
    Manifest,
    Predictions,
    Reporter,
    SeedDifference,
    Split,
)
from search.run_directory import RunDirectory, file_sha256
from search.scoring.bootstrap import MEAN_METRICS, Outcome, judge, mean_difference, over_seeds
from search.scoring.factors import (
    FILE,
    AblationReport,
    Answer,
    BaseResult,
    Change,
    Request,
    changed,
    read_report,
)
from search.scoring.predictions import BASELINE, WINNER
from search.scoring.retrain import OpenExecutor, Recipe, Retrained, Trainer, finished
from search.scoring.verdict import Network
from search.tuning import checkpoint
from search.tuning.model import release_memory
from search.tuning.search import Search

BASES = (BASELINE, WINNER)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A configuration that is trained with every seed.

    Attributes:
        base: "baseline" or "winner".
        change: What is changed of it, None for the base itself.
        recipe: How it is trained.
    """

    base: str
    change: Change | None
    recipe: Recipe


class Ablation:
    """The ablation of one finished run.

    Attributes:
        arms: What is trained, each base followed by its changes.
        notes: What a reader should know, a sentence each.
    """

    def __init__(
        self,
        config: RunConfig,
        stage: Search,
        *,
        run: RunDirectory,
        bases: Sequence[str],
        requested: Sequence[Request],
        repeats: int,
        epochs: int,
        reporter: Reporter,
    ) -> None:
        """Plan; trains nothing yet.

        Args:
            config: Of the run.
            stage: Gives what to train with.
            run: The finished run.
            bases: Of `BASES`.
            requested: The factors to change.
            repeats: Seeds, at least 1.
            epochs: Of each training; a change of the epochs is relative to them.
            reporter: Where a person watches.

        Raises:
            ConfigurationError: A factor cannot be changed as asked.
            RunDirectoryError: The winner cannot be read.
        """
        self.config = config
        self.stage = stage
        self.run = run
        self.directory = RunDirectory(run.root / "ablation")
        self.repeats = repeats
        self.epochs = epochs
        self.reporter = reporter
        self.notes: list[str] = []
        self.arms: list[Arm] = []
        for base in self._bases(bases):
            self.arms.append(Arm(base=base.role, change=None, recipe=base))
            self.arms += self._changes(base, requested)
        if repeats < 2:
            self.notes.append("One seed has no interval and decides nothing; give --repeats 3.")

    @property
    def total_epochs(self) -> int:
        """Return the epochs of all trainings together."""
        return self.repeats * sum(arm.recipe.epochs for arm in self.arms)

    def plan(self, seconds_per_epoch: float) -> str:
        """Return what will be done, and about how long it takes, in a sentence."""
        changes = sum(arm.change is not None for arm in self.arms)
        return (
            f"{changes} changes and {len(self.arms) - changes} unchanged configuration(s) × "
            f"{self.repeats} seed(s): {len(self.arms) * self.repeats} trainings, "
            f"{self.total_epochs:,} epochs, about "
            f"{seconds_per_epoch * self.total_epochs / 60:.0f} min"
        )

    def answer(
        self, dataset: Dataset, sealed: SealedTest, open_executor: OpenExecutor
    ) -> AblationReport:
        """Train what is missing, evaluate the test, and write `ablation.json`.

        Args:
            dataset: The run's images.
            sealed: Its test images.
            open_executor: Gives workers.

        Raises:
            SearchFailedError: An unchanged configuration could not be trained.
            StopRequestedError: The user asked to stop; finished epochs are kept.
        """
        stored = read_report(self.run)
        if stored is not None and _asked(stored) == self._asked():
            self.reporter.info("nothing is left to train; these are the answers of before")
            return stored
        trainer = Trainer(
            self.directory,
            self.config,
            listener=self.reporter.listen,
            open_executor=open_executor,
            all_epochs=self.total_epochs,
            known=self._known_folders(),
        )
        # Arms of equal length are trained together: the schedule of the learning rate spans them.
        for epochs, group in groupby(sorted(self.arms, key=_length), key=_length):
            wanted = [(arm.recipe, seed) for arm in group for seed in range(self.repeats)]
            trainer.train(wanted, self.stage.refit_setting(epochs=epochs))
        bases = {arm.base: arm for arm in self.arms if arm.change is None}
        for arm in bases.values():
            if not trainer.networks(arm.recipe):
                raise trainer.failed(arm.recipe)
        scored = self._evaluate_test(trainer, sealed)
        report = self._report(trainer, bases, scored, dataset)
        self.directory.write_json(FILE, report)
        return report

    def _bases(self, names: Sequence[str]) -> list[Recipe]:
        """Return how each base is trained, without the winner where it is the baseline."""
        comparison = self.run.read(Comparison, "evaluation.json")
        baseline = Recipe(role=BASELINE, values=self.stage.defaults, epochs=self.epochs)
        winner = Recipe(
            role=WINNER,
            values=comparison.winner.values,
            epochs=self.epochs,
            patience=comparison.retraining.patience,
            precision=comparison.retraining.precision,
        )
        bases = [recipe for recipe in (baseline, winner) if recipe.role in names]
        if len(bases) == 2 and winner.same_training(baseline):
            self.notes.append("The winner is the baseline, so it is one base.")
            return [baseline]
        return bases

    def _changes(self, base: Recipe, requested: Sequence[Request]) -> list[Arm]:
        """Return the changes of a base, each once: two factors may ask for the same."""
        arms: list[Arm] = []
        for request in requested:
            change = changed(request, base.values, self.epochs)
            same = [arm for arm in arms if _length(arm) == change.epochs]
            if any(arm.recipe.values == change.values for arm in same):
                continue
            recipe = dataclasses.replace(
                base,
                role=f"{base.role}.{change.name}",
                values=change.values,
                epochs=change.epochs,
            )
            arms.append(Arm(base=base.role, change=change, recipe=recipe))
        return arms

    def _known_folders(self) -> Callable[[Path], Path]:
        """Return what finds the run's own network, where it is the same training, unchanged."""
        done = finished(self.run.events())
        listed = self.run.read(Manifest, "manifest.json").files

        def known(folder: Path) -> Path:
            theirs = self.run.refit_dir / folder.name
            weights = theirs / checkpoint.BEST
            name = weights.relative_to(self.run.root).as_posix()
            if folder.name not in done or name not in listed or not weights.exists():
                return folder
            if file_sha256(weights) == listed[name].sha256:
                return theirs
            note = f"{name} was changed since the run ended: this network is trained again."
            self.notes.append(note)
            self.reporter.warn(note)
            return folder

        return known

    def _evaluate_test(
        self, trainer: Trainer, sealed: SealedTest
    ) -> dict[str, dict[int, tuple[float, Predictions]]]:
        """Open the test; return threshold and predictions of every network by role and seed."""
        try:
            test = sealed.open()
        except DataError as error:
            self.reporter.warn(f"{error}. Answers are given on validation only")
            return {}
        scored: dict[str, dict[int, tuple[float, Predictions]]] = {}
        networks = [
            (arm.recipe.role, one) for arm in self.arms for one in trainer.networks(arm.recipe)
        ]
        setting = self.stage.refit_setting()
        for done, (role, trained) in enumerate(networks):
            self.reporter.progress("Evaluating the test set", done, len(networks))
            network = Network(trained, config=self.config, setting=setting, calibrate=False)
            found = network.predict(test, Split.TEST)
            scored.setdefault(role, {})[trained.seed or 0] = (network.threshold.value, found)
            release_memory()
        self.reporter.progress("Evaluating the test set", len(networks), len(networks))
        self.directory.append(EventKind.TEST_SCORED, networks=len(networks))
        return scored

    def _report(
        self,
        trainer: Trainer,
        bases: dict[str, Arm],
        scored: dict[str, dict[int, tuple[float, Predictions]]],
        dataset: Dataset,
    ) -> AblationReport:
        answers = tuple(
            self._answer(trainer, arm, arm.change, bases[arm.base], scored)
            for arm in self.arms
            if arm.change is not None
        )
        tested = next((found for by in scored.values() for _, found in by.values()), None)
        images = {"val": len(dataset.val), "perturbed": len(dataset.views)}
        return AblationReport(
            run=self.run.name,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            synthetic=dataset.synthetic,
            objective=self.config.choice,
            epochs=self.epochs,
            repeats=self.repeats,
            images=images if tested is None else {**images, "test": len(tested.labels)},
            test_evaluations=sum(len(by) for by in scored.values()),
            times_evaluated=sum(
                event["event"] == EventKind.TEST_SCORED for event in self.directory.events()
            ),
            notes=(*self.notes, *_cautions(answers)),
            bases=tuple(
                BaseResult(
                    base=base,
                    values=arm.recipe.values,
                    epochs=arm.recipe.epochs,
                    parameters=trainer.finalist(arm.recipe).parameters,
                    scores=trainer.finalist(arm.recipe).scores,
                )
                for base, arm in bases.items()
            ),
            answers=answers,
        )

    def _answer(
        self,
        trainer: Trainer,
        arm: Arm,
        change: Change,
        base: Arm,
        scored: dict[str, dict[int, tuple[float, Predictions]]],
    ) -> Answer:
        unchanged = {one.seed: one for one in trainer.networks(base.recipe)}
        networks = trainer.networks(arm.recipe)
        pairs = [(one, unchanged[one.seed]) for one in networks if one.seed in unchanged]
        about = trainer.finalist(arm.recipe)
        if not pairs:
            failure = about.failure or "no seed was trained both with and without the change"
            return Answer(base=arm.base, change=change, failure=failure)
        validation = over_seeds([one.score - other.score for one, other in pairs])
        test = self._on_test(pairs, arm, base, scored)
        first = MEAN_METRICS[0]
        return Answer(
            base=arm.base,
            change=change,
            parameters=about.parameters,
            scores={one.seed or 0: one.score for one, _ in pairs},
            validation=validation,
            validation_outcome=judge(self.config.choice, validation),
            test=test,
            test_outcome=judge(first, test[first].over_patients, test[first].over_seeds)
            if test
            else Outcome.UNDECIDED,
        )

    def _on_test(
        self,
        pairs: Sequence[tuple[Retrained, Retrained]],
        arm: Arm,
        base: Arm,
        scored: dict[str, dict[int, tuple[float, Predictions]]],
    ) -> dict[str, SeedDifference]:
        if not scored:
            return {}
        seeds = [one.seed or 0 for one, _ in pairs]
        ours = [scored[arm.recipe.role][seed] for seed in seeds]
        theirs = [scored[base.recipe.role][seed] for seed in seeds]
        images = ours[0][1]
        return mean_difference(
            images.labels,
            np.stack([found.probabilities for _, found in ours]),
            np.stack([found.probabilities for _, found in theirs]),
            images.patients,
            thresholds=([cut for cut, _ in ours], [cut for cut, _ in theirs]),
            seed=self.config.seed,
        )

    def _asked(self) -> set[str]:
        return {
            repr((arm.recipe.role, arm.recipe.epochs, sorted(arm.recipe.values.items())))
            for arm in self.arms
        } | {repr((self.config.choice, self.repeats))}


def _asked(report: AblationReport) -> set[str]:
    """Return what a report answers, as `Ablation._asked` does; what failed may be tried again."""
    answered = [
        (f"{one.base}.{one.change.name}", one.change.epochs, one.change.values)
        for one in report.answers
        if not one.failure
    ]
    trained = [*((one.base, one.epochs, one.values) for one in report.bases), *answered]
    return {repr((role, epochs, sorted(values.items()))) for role, epochs, values in trained} | {
        repr((report.objective, report.repeats))
    }


def _cautions(answers: Sequence[Answer]) -> list[str]:
    notes = [
        f"Each of the {len(answers)} changes is judged at 95%: if none of them had an effect, "
        "about one in twenty would be called better or worse on validation all the same."
    ]
    if any(one.change.factor == "epochs" for one in answers):
        notes.append(
            "The epoch with the best objective on validation is kept, and more epochs are more to "
            "choose from: on validation they look a little better than they are."
        )
    return notes


def _length(arm: Arm) -> int:
    return arm.recipe.epochs
