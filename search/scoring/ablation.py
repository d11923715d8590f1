"""One factor changed at a time, from the documented configuration and from the winner of a run.

Stands between `ablate.py`, the command line, and the rooms, as `retraining.py` does for a run. Base
and change are retrained in the same way with the same seeds; networks of the run itself are used
again where they are the same training and unchanged. Every training is journaled, so a killed
ablation goes on; the test is opened when all of them have ended, and chooses nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import keras_tuner as kt

from search.config import RunConfig, direction
from search.data.prepare import SealedTest
from search.errors import ConfigurationError, RunDirectoryError, SearchFailedError
from search.journal import EventKind
from search.records import Dataset, TrialResult, Values
from search.run_directory import RunDirectory
from search.scoring import answers, factors, refit
from search.scoring.answers import Arm, Trained
from search.scoring.factors import Change, Wish
from search.scoring.refit import Job, RefitPlan, Role
from search.scoring.retrain import Crew, Retrainer, finalist_role, finished_folders
from search.tuning import checkpoint

FILE = "ablation.json"
BASES = (refit.DOCUMENTED, refit.WINNER)


class Ablation:
    """The ablation of one finished run.

    Attributes:
        arms: What is trained, each base followed by its changes.
        notes: What a reader should know, a sentence each.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        searching: Any,
        *,
        run: RunDirectory,
        bases: Sequence[str],
        wishes: Sequence[Wish],
        repeats: int,
        epochs: int,
        changed: Collection[str] = (),
        console: Any,
    ) -> None:
        """Plan; trains nothing yet.

        Args:
            config: Of the run.
            dataset: Its images.
            searching: Gives what to train with.
            run: The finished run.
            bases: Of `BASES`.
            wishes: The factors to change.
            repeats: Seeds, at least 1.
            epochs: Of each training; a change of the epochs is relative to them.
            changed: Paths in the run, posix, of kept weights that are not what its manifest lists;
                those networks are trained again.
            console: Where a person watches.

        Raises:
            ConfigurationError: A factor cannot be changed as asked.
            RunDirectoryError: The winner's values cannot be read.
        """
        self.config = config
        self.dataset = dataset
        self.searching = searching
        self.run = run
        self.directory = RunDirectory(run.root / "ablation")
        self.repeats = repeats
        self.epochs = epochs
        self.changed = frozenset(changed)
        self.console = console
        self.notes: list[str] = []
        self.arms: list[Arm] = []
        for role in self._bases(bases):
            self.arms.append(Arm(base=role.name, change=None, role=role, epochs=epochs))
            for wish in wishes:
                self.arms.append(self._arm(role, factors.changed(wish, role.values, epochs)))
        if repeats < 2:
            self.notes.append("One seed has no interval and decides nothing; give --repeats 3.")

    @property
    def total_epochs(self) -> int:
        """Return the epochs of all trainings together."""
        return self.repeats * sum(arm.epochs for arm in self.arms)

    def plan(self) -> str:
        """Return what will be done, and about how long it takes, in a sentence."""
        changes = sum(arm.change is not None for arm in self.arms)
        said = (
            f"{changes} changes and {len(self.arms) - changes} unchanged configuration(s) × "
            f"{self.repeats} seed(s): {len(self.arms) * self.repeats} trainings, "
            f"{self.total_epochs:,} epochs"
        )
        seconds = self.searching.pace.epoch * self.total_epochs
        return f"{said}, about {seconds / 60:.0f} min"

    def answer(self, crew: Crew, sealed: SealedTest) -> dict[str, Any]:
        """Train what is missing, open the test, and write `ablation.json`.

        Args:
            crew: Who trains.
            sealed: The test images.

        Returns:
            The content of `ablation.json`.

        Raises:
            SearchFailedError: An unchanged configuration could not be trained.
            StopRequestedError: The user asked to stop; finished epochs are kept.
        """
        if (stored := self._stored()) is not None:
            self.console.info("nothing is left to train; these are the answers of before")
            return stored
        results, jobs = self._train(crew)
        trained = [self._trained(arm, jobs[arm.role.name], results) for arm in self.arms]
        scored = answers.score_test(
            trained,
            sealed,
            setting=self.searching.refit_setting(),
            config=self.config,
            directory=self.directory,
            console=self.console,
        )
        openings = sum(e["event"] == EventKind.TEST_SCORED for e in self.directory.events())
        content = answers.content(
            trained,
            scored,
            run=self.run.name,
            config=self.config,
            dataset=self.dataset,
            epochs=self.epochs,
            repeats=self.repeats,
            openings=openings,
            notes=self.notes,
        )
        self.directory.write_json(FILE, content)
        return content

    def _stored(self) -> dict[str, Any] | None:
        """Return the answers of before, where they are to the very same questions.

        The test is not opened again only to be told the same.
        """
        stored = stored_answers(self.directory)
        if stored is None:
            return None
        content, told = stored
        asked = {
            arm.role.name: (arm.epochs, arm.role.values, self.config.choice, self.repeats)
            for arm in self.arms
        }
        return content if told == asked else None

    def _trained(self, arm: Arm, jobs: list[Job], results: dict[str, TrialResult]) -> Trained:
        try:
            networks = refit.candidates(jobs, results, self._plan(arm.epochs))
        except SearchFailedError as error:
            if arm.change is None:
                raise
            return Trained(arm=arm, networks=(), failed=str(error).splitlines()[0])
        return Trained(arm=arm, networks=tuple(networks))

    def _bases(self, names: Sequence[str]) -> list[Role]:
        """Return how each base is trained, without the winner where it is the documented one."""
        documented = Role(name=refit.DOCUMENTED, values=self.searching.documented)
        best = self.run.read_json("best_hyperparameters.json")
        same = best["values"] == documented.values
        winner = finalist_role(
            self.config,
            refit.WINNER,
            best["values"],
            precision="float32" if same else self.searching.precision or "float32",
        )
        if self._control_won():
            winner = dataclasses.replace(documented, name=refit.WINNER)
        roles = [role for role in (documented, winner) if role.name in names]
        if len(roles) == 2 and dataclasses.replace(winner, name=documented.name) == documented:
            self.notes.append("The winner is the documented configuration, so it is one base.")
            return [documented]
        return roles

    def _control_won(self) -> bool:
        """Return whether the run's winner is the control, trained without a finalist's options."""
        with contextlib.suppress(RunDirectoryError):
            done = self.run.read_json("evaluation.json")["retraining"]
            return bool(done["trained_as"] == refit.DOCUMENTED)
        return False

    def _arm(self, base: Role, change: Change) -> Arm:
        space = kt.HyperParameters()
        space.values = dict(change.values)
        try:
            self.searching.search_setting.hypermodel.declare(space)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"--factors {change.name}: {error}") from None
        role = dataclasses.replace(base, name=f"{base.name}.{change.name}", values=change.values)
        return Arm(base=base.name, change=change, role=role, epochs=change.epochs)

    def _from_run(self, job: Job, folders: Sequence[Path]) -> Job:
        """Let a job find the run's own network, where that is the very same training, unchanged."""
        found = refit.found_again(job, folders)
        weights = (found.spec.directory / checkpoint.BEST).relative_to(self.run.root).as_posix()
        if weights not in self.changed:
            return found
        note = f"{weights} was changed since the run ended: this network is trained again."
        self.notes.append(note)
        self.console.warn(note)
        return job

    def _plan(self, epochs: int) -> RefitPlan:
        return RefitPlan(
            epochs=epochs,
            seeds=self.repeats,
            seed=self.config.seed,
            objective=self.config.choice,
            direction=direction(self.config.choice),
            directory=self.directory.refit_dir,
        )

    def _train(self, crew: Crew) -> tuple[dict[str, TrialResult], dict[str, list[Job]]]:
        """Return results by trial id and jobs by role; arms of equal length are trained together.

        The learning-rate schedule of an arm spans its epochs, which the HyperModel has to know.
        """
        retrainer = Retrainer(
            self.directory, listener=self.console.listen, all_epochs=self.total_epochs
        )
        results: dict[str, TrialResult] = {}
        jobs: dict[str, list[Job]] = {}
        own = finished_folders(self.run)
        for epochs, group in groupby(sorted(self.arms, key=_length), key=_length):
            wanted = [
                self._from_run(job, own)
                for job in self._plan(epochs).jobs([arm.role for arm in group])
            ]
            for job in wanted:
                jobs.setdefault(job.role.name, []).append(job)
            setting = self.searching.refit_setting(epochs=epochs)
            results |= retrainer.train(wanted, crew, setting)
        return results, jobs


Asked = tuple[int, Values, str, int]
"""Epochs, values, objective and seeds of what is trained."""


def stored_answers(directory: RunDirectory) -> tuple[dict[str, Any], dict[str, Asked]] | None:
    """Read the answers of before.

    Args:
        directory: Of the ablation.

    Returns:
        The content of `ablation.json`, and by role what was trained for it; None if there is no
        such file.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    path = directory.root / FILE
    if not path.exists():
        return None
    content: dict[str, Any] = directory.read_json(FILE)
    try:
        trained = [*content["bases"], *content["answers"]]
        told = {
            f"{one['base']}.{one['name']}" if "name" in one else one["base"]: (
                one["epochs"],
                one["values"],
                content["objective"],
                content["repeats"],
            )
            for one in trained
            if not one.get("failed")
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise RunDirectoryError(
            f"{path}: damaged, it is no ablation's ({error!r}); remove it, and the same command "
            "answers again from the networks it trained"
        ) from None
    return content, told


def _length(arm: Arm) -> int:
    return arm.epochs
