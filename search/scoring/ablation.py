"""Trains and scores an ablation: one factor changed at a time, from the baseline and the winner.

Base and change are retrained in the same way with the same seeds; networks of the run itself are
used again where they are the same training and unchanged. Every training is journaled, so that a
killed ablation goes on. The test is evaluated when all of them have ended, and chooses nothing.
What can be changed, and the report, are in `effects`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from search.config import RunConfig
from search.data.prepare import SealedTest
from search.records import (
    Comparison,
    Dataset,
    Manifest,
    Reporter,
    SeedDifference,
)
from search.run_directory import RunDirectory, file_sha256
from search.scoring.bootstrap import (
    MEAN_METRICS,
    Outcome,
    Tested,
    judge,
    over_seeds,
    paired_differences,
)
from search.scoring.effects import (
    FILE,
    AblationReport,
    Change,
    Effect,
    changed,
    read_report,
)
from search.scoring.predictions import BASELINE, WINNER
from search.scoring.retrain import OpenExecutor, Recipe, Trainer, finished
from search.scoring.verdict import (
    Network,
    NetworkKey,
    evaluate_test,
    times_evaluated,
)
from search.tuning import checkpoint
from search.tuning.model import release_memory
from search.tuning.search import Search


class Ablation:
    """The ablation of one finished run.

    Attributes:
        bases: How each unchanged configuration is trained, by its role.
        changes: Role of the base, the change, and how the changed configuration is trained.
        notes: What a reader should know, a sentence each.
    """

    def __init__(
        self,
        config: RunConfig,
        stage: Search,
        *,
        run: RunDirectory,
        bases: Sequence[str],
        requested: Sequence[tuple[str, str]],
        repeats: int,
        epochs: int,
        reporter: Reporter,
    ) -> None:
        """Plan; trains nothing yet.

        Args:
            config: Of the run.
            stage: Gives what to train with.
            run: The finished run.
            bases: "baseline", "winner" or both.
            requested: The factors to change, see `effects.parse_factors`.
            repeats: Seeds of each training.
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
        self.bases = {base.role: base for base in self._bases(bases)}
        self.changes: list[tuple[str, Change, Recipe]] = []
        for base in self.bases.values():
            self._change(base, requested)
        if repeats < 2:
            self.notes.append("One seed has no interval and decides nothing; give --repeats 3.")

    @property
    def recipes(self) -> list[Recipe]:
        """Return everything that is trained."""
        return [*self.bases.values(), *(recipe for _, _, recipe in self.changes)]

    @property
    def total_epochs(self) -> int:
        """Return the epochs of all trainings together."""
        return self.repeats * sum(recipe.epochs for recipe in self.recipes)

    def plan(self, seconds_per_epoch: float) -> str:
        """Return what will be done, and about how long it takes, in a sentence."""
        return (
            f"{len(self.changes)} changes and {len(self.bases)} unchanged configuration(s) × "
            f"{self.repeats} seed(s): {len(self.recipes) * self.repeats} trainings, "
            f"{self.total_epochs:,} epochs, about "
            f"{seconds_per_epoch * self.total_epochs / 60:.0f} min"
        )

    def perform(
        self, dataset: Dataset, sealed: SealedTest, open_executor: OpenExecutor
    ) -> AblationReport:
        """Train what is missing, evaluate the test, and write `ablation.json`.

        Raises:
            SearchFailedError: An unchanged configuration could not be trained.
            StopRequestedError: The user asked to stop; finished epochs are kept.
        """
        stored = read_report(self.run)
        if stored is not None and self._covered_by(stored):
            self.reporter.info("nothing is left to train; this is the report of before")
            return stored
        trainer = Trainer(
            self.directory,
            self.config,
            listener=self.reporter.listen,
            open_executor=open_executor,
            all_epochs=self.total_epochs,
            known=self._known_folders(),
        )
        # What is equally long is trained together: the learning rate's schedule spans the epochs.
        for epochs in sorted({recipe.epochs for recipe in self.recipes}):
            group = [recipe for recipe in self.recipes if recipe.epochs == epochs]
            wanted = list(product(group, range(self.repeats)))
            trainer.train(wanted, self.stage.refit_setting(epochs=epochs))
        trainer.require(*self.bases.values())
        tested = evaluate_test(
            sealed,
            self._networks(trainer),
            total=sum(len(trainer.networks(recipe)) for recipe in self.recipes),
            directory=self.directory,
            reporter=self.reporter,
        )
        effects = tuple(
            self._effect(trainer, base, change, recipe, tested)
            for base, change, recipe in self.changes
        )
        images = {"val": len(dataset.val), "perturbed": len(dataset.views)}
        for _, predicted in tested.values():
            images["test"] = len(predicted.labels)
        report = AblationReport(
            run=self.run.name,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            synthetic=dataset.synthetic,
            objective=self.config.choice,
            epochs=self.epochs,
            repeats=self.repeats,
            images=images,
            test_evaluations=len(tested),
            times_evaluated=times_evaluated(self.directory),
            notes=(*self.notes, *_cautions(effects)),
            bases=tuple(trainer.finalist(recipe) for recipe in self.bases.values()),
            effects=effects,
        )
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
        if len(bases) == 2 and winner == baseline:
            self.notes.append("The winner is the baseline, so it is one base.")
            return [baseline]
        return bases

    def _change(self, base: Recipe, requested: Sequence[tuple[str, str]]) -> None:
        """Add the changes of a base, each once: two factors may ask for the same."""
        known: list[Recipe] = []
        for factor, level in requested:
            change = changed(factor, level, base.values, self.epochs)
            recipe = dataclasses.replace(
                base,
                role=f"{base.role}.{change.name}",
                values=change.values,
                epochs=change.epochs,
            )
            if recipe not in known:
                known.append(recipe)
                self.changes.append((base.role, change, recipe))

    def _covered_by(self, report: AblationReport) -> bool:
        """Return whether a report says what this ablation would; what failed may be tried again."""
        if (report.objective, report.repeats) != (self.config.choice, self.repeats):
            return False
        covered = {base.role: (report.epochs, base.values) for base in report.bases}
        for one in report.effects:
            if not one.failure:
                covered[f"{one.base}.{one.change.name}"] = (one.change.epochs, one.change.values)
        return covered == {recipe.role: (recipe.epochs, recipe.values) for recipe in self.recipes}

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

    def _networks(self, trainer: Trainer) -> Iterator[tuple[NetworkKey, Network]]:
        """Yield every network that was trained; one at a time is in memory."""
        setting = self.stage.refit_setting()
        for recipe in self.recipes:
            for one in trainer.networks(recipe):
                network = Network(one, config=self.config, setting=setting, calibrate=False)
                yield (recipe.role, one.seed), network
                release_memory()

    def _effect(
        self,
        trainer: Trainer,
        base: str,
        change: Change,
        recipe: Recipe,
        tested: dict[NetworkKey, Tested],
    ) -> Effect:
        """Return what one change did, from the seeds that have both networks."""
        about, before = trainer.finalist(recipe), trainer.finalist(self.bases[base])
        seeds = sorted(about.scores.keys() & before.scores.keys())
        if not seeds:
            failure = about.failure or "no seed was trained both with and without the change"
            return Effect(base=base, change=change, failure=failure)
        validation = over_seeds([about.scores[seed] - before.scores[seed] for seed in seeds])
        test: dict[str, SeedDifference] = {}
        outcome = Outcome.UNDECIDED
        if tested:
            test = paired_differences(
                [tested[recipe.role, seed] for seed in seeds],
                [tested[base, seed] for seed in seeds],
                seed=self.config.seed,
            )
            first = test[MEAN_METRICS[0]]
            outcome = judge(MEAN_METRICS[0], first.over_patients, first.over_seeds)
        return Effect(
            base=base,
            change=change,
            parameters=about.parameters,
            scores={seed: about.scores[seed] for seed in seeds},
            validation=validation,
            validation_outcome=judge(self.config.choice, validation),
            test=test,
            test_outcome=outcome,
        )


def _cautions(effects: Sequence[Effect]) -> list[str]:
    notes = [
        f"Each of the {len(effects)} changes is judged at 95%: if none of them had an effect, "
        "about one in twenty would be called better or worse on validation all the same."
    ]
    if any(one.change.factor == "epochs" for one in effects):
        notes.append(
            "The epoch with the best objective on validation is kept, and more epochs are more to "
            "choose from: on validation they look a little better than they are."
        )
    return notes
