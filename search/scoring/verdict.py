"""The verdict stage of a run: thresholds, the one look at the test set, the export.

Stands between `workflow.py`, which tells the story, and the room `scoring`, which does the work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from search import backend
from search.config import RunConfig, direction
from search.data.decode import DECODER_VERSION
from search.data.prepare import SealedTest
from search.errors import DataError
from search.journal import Event, EventKind
from search.records import (
    SYNTHETIC_NOTICE,
    Dataset,
    Evaluation,
    Predictions,
    Split,
    Subset,
    Threshold,
    to_json,
)
from search.run_directory import RunDirectory
from search.scoring import exporting, opening, refit
from search.scoring.comparison import Scored, evaluation_report
from search.scoring.ensemble import ensemble_of
from search.scoring.predictions import (
    PREDICTION_FILES,
    evaluate,
    predict_subset,
    write_predictions_csv,
)
from search.scoring.refit import Candidate
from search.scoring.threshold import choose_threshold
from search.tuning.checkpoint import load
from search.tuning.model import Setting, build_model
from search.tuning.validation import predict


class Judging:
    """From the retrained candidates to the verdict.

    Attributes:
        predictions: Test predictions (validation ones without a test) by role, after `score`.
        evaluation: The content of `evaluation.json`, after `score`.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        *,
        setting: Setting,
        candidates: Sequence[Candidate],
        retraining: dict[str, Any],
        directory: RunDirectory,
        console: Any,
    ) -> None:
        """Prepare; scores nothing yet.

        Args:
            config: What was asked for.
            dataset: Training and validation images.
            setting: Data and HyperModel of the retraining.
            candidates: The documented networks and the winner's, as `Retraining.retrain` gives.
            retraining: How the winner was retrained, for `evaluation.json`.
            directory: The run directory.
            console: Where a person watches.
        """
        self.config = config
        self.dataset = dataset
        self.setting = setting
        self.candidates = list(candidates)
        self.retraining = retraining
        self.directory = directory
        self.console = console
        self.direction = direction(config.choice)
        self.evaluation: dict[str, Any] = {}
        self.predictions: dict[str, Predictions] = {}

    def _tell(self, kind: EventKind, **fields: Any) -> None:
        self.directory.append(kind, **fields)
        event: Event = {"event": kind.value, "time": time.time(), **to_json(fields)}
        self.console.listen(event)

    def score(self, sealed: SealedTest) -> None:
        """Fix thresholds on stressed validation, score the test once, export the winner.

        A test that was asked the very same before is not opened again, see `opening`.
        """
        networks = [self._model(candidate) for candidate in self.candidates]
        # The same object where nothing was trained on train + val.
        finals = [
            self._model(c, final=True) if c.final_weights else network
            for c, network in zip(self.candidates, networks, strict=True)
        ]
        fitted = exporting.calibrate(
            networks, self.dataset.val, self.config.calibrate, self.console
        )
        models = exporting.calibrated(networks, fitted)
        thresholds = [
            self._threshold(model, c) for c, model in zip(self.candidates, models, strict=True)
        ]
        validation = [predict_subset(m, self.dataset.val, Split.VALIDATION) for m in models]
        asked = opening.question(
            self.candidates,
            fitted,
            thresholds,
            images=[self.dataset.fingerprint, self.config.image_size, DECODER_VERSION],
        )
        stored = opening.read_answers(self.directory, asked)
        if stored is not None:
            self.console.info(
                "Test: asked the very same before, so it is not opened again; what it said is in "
                f"{opening.FILE}"
            )
        test = self._open(sealed) if stored is None else None
        tested = stored or (
            [predict_subset(m, test, Split.TEST) for m in exporting.calibrated(finals, fitted)]
            if test
            else []
        )
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
                test_scorings=self._scorings() if tested else 0,
                retraining=self.retraining,
                bootstrap_seed=self.config.seed,
            )
        )
        exported = {
            role: self.candidates.index(
                refit.best_of(self.candidates, role, direction=self.direction)
            )
            for role in sides
        }
        self.evaluation["calibration"] = exporting.calibration_report(
            self.config.calibrate,
            {role: fitted[index] for role, index in exported.items()},
            [
                (role, said[index])
                for role, index in exported.items()
                for said in (validation, tested)
                if said
            ],
        )
        if tested:
            # A resumed run may have opened it before, for other networks.
            self.evaluation["test_openings"] = bool(test) + sum(
                event["event"] == EventKind.TEST_SCORED for event in self.directory.events()
            )
        if test:
            scorings = [
                {
                    "role": evaluation.role,
                    "seed": evaluation.seed,
                    "accuracy": evaluation.at_half["accuracy"].value,
                    "auc": evaluation.ranking["auc"].value,
                }
                for side in sides.values()
                for evaluation in side.scored_on_test
            ]
            written = opening.write_answers(self.directory, asked, tested)
            self._tell(EventKind.TEST_SCORED, scorings=scorings, **written)
        self.directory.write_json("evaluation.json", self.evaluation)
        self.predictions = {role: side.predictions for role, side in sides.items()}
        for role, name in PREDICTION_FILES.items():
            index = exported[role]
            write_predictions_csv(
                self.directory.root / name,
                [validation[index], *([tested[index]] if tested else [])],
            )
        best = exported[refit.WINNER]
        exporting.export_all(
            finals[best],
            self.directory,
            formats=self.config.export,
            image_size=self.config.image_size,
            threshold=thresholds[best],
            temperature=fitted[best].temperature,
            val=self.dataset.val,
            console=self.console,
            metadata={
                "run": self.directory.name,
                "role": refit.WINNER,
                "seed": self.candidates[best].seed,
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
        mine = [i for i, c in enumerate(self.candidates) if c.role == role and not c.members]
        combined = [i for i, c in enumerate(self.candidates) if c.role == role and c.members]

        def scored(predictions: list[Predictions], mine: list[int]) -> tuple[Evaluation, ...]:
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
            parameters=best.parameters,
            exported_seed=best.seed,
            test=scored(tested, mine),
            validation=scored(validation, mine),
            ensemble_test=scored(tested, combined),
            ensemble_validation=scored(validation, combined),
            predictions=(tested or validation)[self.candidates.index(best)],
            test_predictions=tuple(tested[index] for index in mine if tested),
        )

    def _model(self, candidate: Candidate, *, final: bool = False) -> Any:
        """Return a candidate's network in float32: as validated, or as trained in the end."""
        if candidate.members:
            return ensemble_of([self._model(m, final=final) for m in candidate.members])
        model = build_model(self.setting, candidate.values, self.config.seed)
        final_weights = candidate.final_weights if final else None
        load(model, final_weights or candidate.weights_file)
        return model

    def _scorings(self) -> int:
        """Return how many different models are scored on test."""
        networks = {c.final_weights or c.weights_file for c in self.candidates if not c.members}
        return len(networks) + sum(bool(c.members) for c in self.candidates)

    def _threshold(self, model: Any, candidate: Candidate) -> Threshold:
        views = self.dataset.views
        twin = ", by the network trained without validation images"
        return choose_threshold(
            views.labels,
            predict(model, views.open_array(), np.arange(len(views))),
            self.config.threshold_rule,
            chosen_on=f"stressed validation (n = {len(views)})"
            + (twin if candidate.final_weights else ""),
        )

    def _open(self, sealed: SealedTest) -> Subset | None:
        try:
            return sealed.open()
        except DataError as error:
            self.console.warn(f"{error}. The model is scored on validation only")
            return None
