"""The verdict stage of a run: retraining, thresholds, the one look at the test set, the export.

Stands between `workflow.py`, which tells the story, and the room `scoring`, which does the work.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from search import backend
from search.config import RunConfig, direction
from search.data.prepare import SealedTest
from search.errors import DataError
from search.history import Event
from search.journal import EventKind, RunDirectory
from search.records import (
    SYNTHETIC_NOTICE,
    Candidate,
    Dataset,
    EpochRecord,
    Evaluation,
    Predictions,
    Split,
    Subset,
    Threshold,
    TrialRecord,
    TrialResult,
    TrialSpec,
    Values,
    to_json,
)
from search.reporting.console import Console
from search.scoring import refit
from search.scoring.comparison import Scored, evaluation_report
from search.scoring.evaluate import evaluate, predict_subset, write_predictions_csv
from search.scoring.export import export_model
from search.scoring.threshold import choose_threshold
from search.tuning.checkpoint import load
from search.tuning.selection import winners
from search.tuning.trial import Setting, ShouldStop, build_model, train_trial
from search.tuning.validation import predict


class Judging:
    """From the search's trials to the verdict.

    Attributes:
        candidates: Every retrained winner and documented network, after `retrain`.
        predictions: Test predictions (validation ones without a test) by role, after `score`.
        evaluation: The content of `evaluation.json`, after `score`.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        *,
        setting: Setting,
        documented: Values,
        directory: RunDirectory,
        console: Console,
    ) -> None:
        """Prepare; trains nothing yet.

        Args:
            config: What was asked for.
            dataset: Training and validation images.
            setting: Data and HyperModel of the retraining; its objective picks the kept epoch.
            documented: Values of the documented configuration, the control.
            directory: The run directory.
            console: Where a person watches.
        """
        self.config = config
        self.dataset = dataset
        self.setting = setting
        self.documented = documented
        self.directory = directory
        self.console = console
        self.direction = direction(config.choice)
        self.evaluation: dict[str, Any] = {}
        self.candidates: list[Candidate] = []
        self.predictions: dict[str, Predictions] = {}
        self._refit_epochs = 0

    def retrain(self, records: list[TrialRecord], should_stop: ShouldStop) -> None:
        """Retrain the finalists and the documented configuration; choose on validation."""
        finalists = winners(
            records, metric=self.config.choice, direction=self.direction, top=self.config.top
        )
        self._write_best(finalists[0])
        several = len(finalists) > 1
        names = [
            refit.DOCUMENTED
            if record.values == self.documented
            else (f"finalist_{place}" if several else refit.WINNER)
            for place, record in enumerate(finalists, 1)
        ]
        roles = {refit.DOCUMENTED: self.documented}
        roles.update({name: r.values for name, r in zip(names, finalists, strict=True)})
        plan = refit.RefitPlan(
            epochs=self.config.refit_epochs,
            seeds=self.config.refit_seeds,
            seed=self.config.seed,
            objective=self.config.choice,
            direction=self.direction,
            directory=self.directory.refit_dir,
        )
        self._refit_epochs = len(roles) * plan.seeds * plan.epochs
        candidates = refit.refit(
            list(roles.items()), plan, train=lambda spec: self._train(spec, should_stop)
        )
        best = refit.choose([c for c in candidates if c.role in names], direction=self.direction)
        # The documented network itself may be the best; it is then both sides of the verdict.
        self.candidates = [c for c in candidates if c.role == refit.DOCUMENTED] + [
            dataclasses.replace(c, role=refit.WINNER) for c in candidates if c.role == best
        ]
        self._write_best(finalists[names.index(best)])

    def _write_best(self, record: TrialRecord) -> None:
        self.directory.write_json(
            "best_hyperparameters.json", {"trial_id": record.trial_id, "values": record.values}
        )

    def _train(self, spec: TrialSpec, should_stop: ShouldStop) -> TrialResult:
        role, _, repetition = spec.trial_id.rpartition("-")
        seed = int(repetition)
        known = self._known_epochs(spec, role, seed)
        self._tell(
            EventKind.REFIT_STARTED,
            role=role,
            seed=seed,
            epochs=spec.epochs,
            values=spec.values,
            all_epochs=self._refit_epochs,
        )

        def on_epoch(record: EpochRecord) -> None:
            if record.epoch not in known:
                self._tell(
                    EventKind.REFIT_EPOCH,
                    role=role,
                    seed=seed,
                    epoch=record.epoch,
                    metrics=record.metrics,
                    seconds=record.seconds,
                )

        result = train_trial(spec, self.setting, on_epoch=on_epoch, should_stop=should_stop)
        self._tell(
            EventKind.REFIT_ENDED,
            role=role,
            seed=seed,
            kept_epoch=result.best_epoch,
            epochs=len(result.epochs),
            parameters=result.parameters,
            seconds=result.seconds,
            failure=result.failure,
        )
        return result

    def _known_epochs(self, spec: TrialSpec, role: str, seed: int) -> set[int]:
        """Return the epochs of this very retraining that the journal has already."""
        known: set[int] = set()
        for event in self.directory.events():
            if (event.get("role"), event.get("seed")) != (role, seed):
                continue
            if event["event"] == EventKind.REFIT_STARTED:
                same = (event["values"], event["epochs"]) == (to_json(spec.values), spec.epochs)
                known = known if same else set()
            elif event["event"] == EventKind.REFIT_EPOCH:
                known.add(event["epoch"])
        return known

    def _tell(self, kind: EventKind, **fields: Any) -> None:
        self.directory.append(kind, **fields)
        event: Event = {"event": kind.value, "time": time.time(), **to_json(fields)}
        self.console.listen(event)

    def score(self, sealed: SealedTest) -> None:
        """Fix thresholds on stressed validation, score the test once, export the winner."""
        models = [self._model(candidate) for candidate in self.candidates]
        thresholds = [self._threshold(model) for model in models]
        validation = [predict_subset(m, self.dataset.val, Split.VALIDATION) for m in models]
        test = self._open(sealed)
        tested = [predict_subset(m, test, Split.TEST) for m in models] if test else []
        sides = {
            role: self._side(role, thresholds, validation, tested)
            for role in (refit.WINNER, refit.DOCUMENTED)
        }
        self.evaluation = to_json(
            evaluation_report(
                sides[refit.WINNER],
                sides[refit.DOCUMENTED],
                objective=self.config.choice,
                synthetic=self.dataset.synthetic,
                test_scorings=len({c.weights_file for c in self.candidates}) if tested else 0,
                bootstrap_seed=self.config.seed,
            )
        )
        if tested:
            scorings = [
                {
                    "role": evaluation.role,
                    "seed": evaluation.seed,
                    "accuracy": evaluation.at_half["accuracy"].value,
                    "auc": evaluation.ranking["auc"].value,
                }
                for side in sides.values()
                for evaluation in side.test
            ]
            self.directory.append(EventKind.TEST_SCORED, scorings=scorings)
        self.directory.write_json("evaluation.json", self.evaluation)
        best = self.candidates.index(
            refit.best_of(self.candidates, refit.WINNER, direction=self.direction)
        )
        self.predictions = {role: side.predictions for role, side in sides.items()}
        write_predictions_csv(
            self.directory.root / "predictions.csv",
            [validation[best], *([tested[best]] if tested else [])],
        )
        export_model(
            models[best],
            self.directory.root / "model.keras",
            image_size=self.config.image_size,
            threshold=thresholds[best],
            metadata={
                "run": self.directory.name,
                "notice": SYNTHETIC_NOTICE if self.dataset.synthetic else None,
                "versions": backend.versions(),
                "values": self.candidates[best].values,
                "fingerprint": self.dataset.fingerprint,
            },
        )

    def _side(
        self,
        role: str,
        thresholds: list[Threshold],
        validation: list[Predictions],
        tested: list[Predictions],
    ) -> Scored:
        """Score every seed of a role on validation and, if there is one, on test."""
        best = refit.best_of(self.candidates, role, direction=self.direction)
        mine = [index for index, c in enumerate(self.candidates) if c.role == role]

        def scored(predictions: list[Predictions]) -> tuple[Evaluation, ...]:
            return tuple(
                evaluate(
                    predictions[index],
                    thresholds[index],
                    role=role,
                    seed=self.candidates[index].seed,
                    bootstrap_seed=self.config.seed,
                )
                for index in mine
                if predictions
            )

        return Scored(
            role=role,
            values=best.values,
            parameters=best.result.parameters,
            exported_seed=best.seed,
            test=scored(tested),
            validation=scored(validation),
            predictions=(tested or validation)[self.candidates.index(best)],
        )

    def _model(self, candidate: Candidate) -> Any:
        model = build_model(self.setting, candidate.values, self.config.seed)
        load(model, candidate.weights_file)
        return model

    def _threshold(self, model: Any) -> Threshold:
        views = self.dataset.views
        return choose_threshold(
            views.labels,
            predict(model, views.open_array(), np.arange(len(views))),
            self.config.threshold_rule,
            chosen_on=f"stressed validation (n = {len(views)})",
        )

    def _open(self, sealed: SealedTest) -> Subset | None:
        try:
            return sealed.open()
        except DataError as error:
            self.console.warn(f"{error}. The model is scored on validation only")
            return None
