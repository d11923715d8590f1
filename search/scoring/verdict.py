"""The last stage before the report: thresholds, the test set evaluated once, exports.

Everything is fixed before the test is opened: networks, temperatures and thresholds, the latter on
perturbed validation images. The winner is then set beside the baseline; both are scored with every
seed. Each opening of the test is journaled, and `Comparison` says how many there were.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search import backend
from search.config import CalibrationKind, RunConfig, direction
from search.data.prepare import SealedTest
from search.errors import DataError
from search.journal import EventKind
from search.records import (
    SYNTHETIC_NOTICE,
    CalibrationReport,
    Comparison,
    Dataset,
    Estimate,
    Evaluation,
    McNemar,
    Predictions,
    Reporter,
    Scored,
    SeedDifference,
    Split,
    Spread,
    Subset,
    Threshold,
)
from search.run_directory import RunDirectory
from search.scoring.bootstrap import mean_difference, paired_difference, subtype_recall
from search.scoring.calibration import Calibration, before_and_after, fit_temperature, scaled
from search.scoring.export import ensemble_of, export_all
from search.scoring.formats import ModelMetadata
from search.scoring.metrics import RANKING_METRICS, THRESHOLD_METRICS, mcnemar
from search.scoring.predictions import (
    BASELINE,
    PREDICTION_FILES,
    WINNER,
    evaluate,
    predict_images,
    predict_subset,
    write_predictions_csv,
)
from search.scoring.retrain import Retrained, Retraining, best_of
from search.scoring.threshold import choose_threshold
from search.tuning import checkpoint
from search.tuning.model import Setting, build_model

FIRST = ("accuracy", "auc", "specificity", "recall", "loss")
COMPARED = (
    *FIRST,
    *(name for name in (*THRESHOLD_METRICS, *RANKING_METRICS) if name not in FIRST),
)
"""Metrics whose difference is reported, the ones most asked for first."""


class Network:
    """A configuration retrained with a seed, or an ensemble, ready to predict.

    Attributes:
        trained: What it is.
        calibration: The temperature of its probabilities.
        threshold: Its decision threshold.
    """

    def __init__(
        self,
        trained: Retrained,
        *,
        config: RunConfig,
        setting: Setting,
        calibrate: bool,
    ) -> None:
        """Load the weights, fit the temperature, and choose the threshold on validation.

        Args:
            trained: What to load.
            config: Gives the threshold's rule.
            setting: Data and HyperModel of the retraining.
            calibrate: Whether to fit a temperature.
        """
        self.trained = trained
        self._validated = _load(trained, config, setting)
        # The same object where nothing was trained on train + val.
        self.model = (
            _load(trained, config, setting, final=True)
            if trained.final_weights
            else self._validated
        )
        self.calibration = Calibration()
        if calibrate:
            clean = self.predict(setting.dataset.val, Split.VALIDATION)
            self.calibration = fit_temperature(clean.labels, clean.probabilities)
        self.threshold = self._choose_threshold(config.threshold_rule, setting.dataset)

    def predict(self, subset: Subset, split: Split) -> Predictions:
        """Return the calibrated probabilities of a split.

        Validation is predicted by the network trained without its images, all else by the one that
        is exported.
        """
        model = self._validated if split is Split.VALIDATION else self.model
        found = predict_subset(model, subset, split)
        return Predictions(
            split=split,
            paths=found.paths,
            patients=found.patients,
            subtypes=found.subtypes,
            labels=found.labels,
            probabilities=scaled(found.probabilities, self.calibration.temperature),
        )

    def _choose_threshold(self, rule: str, dataset: Dataset) -> Threshold:
        views = dataset.views
        twin = ", by the network trained without validation images"
        found = predict_images(self._validated, views.open_array())
        return choose_threshold(
            views.labels,
            scaled(found, self.calibration.temperature),
            rule,
            chosen_on=f"perturbed validation images (n = {len(views)})"
            + (twin if self.trained.final_weights else ""),
            classes=dataset.classes,
        )


def _load(trained: Retrained, config: RunConfig, setting: Setting, *, final: bool = False) -> Any:
    """Return a network in float32: as validated, or as trained in the end."""
    if trained.members:
        return ensemble_of([_load(one, config, setting, final=final) for one in trained.members])
    model = build_model(setting, trained.recipe.values, config.seed)
    weights = trained.final_weights if final else None
    checkpoint.load(model, weights or trained.weights_file)
    return model


@dataclass(frozen=True, kw_only=True)
class Side:
    """The networks of one role, and their predictions.

    Attributes:
        role: "baseline" or "winner".
        networks: One per seed.
        exported: The network that is exported, or compared with the exported one.
        validation: Predictions of validation, in the order of `networks`, the ensemble's last.
        test: The same of the test, () without one.
    """

    role: str
    networks: tuple[Network, ...]
    exported: Network
    validation: tuple[Predictions, ...]
    test: tuple[Predictions, ...] = ()

    @property
    def everything(self) -> tuple[Network, ...]:
        """Return every network, and the ensemble, if there is one."""
        more = () if self.exported in self.networks else (self.exported,)
        return self.networks + more

    @property
    def position(self) -> int:
        """Return where the predictions of the exported network are."""
        return self.everything.index(self.exported)

    @property
    def predictions(self) -> Predictions:
        """Return those of the exported network, on test or without one on validation."""
        return (self.test or self.validation)[self.position]


def decide(
    config: RunConfig,
    dataset: Dataset,
    sealed: SealedTest,
    retraining: Retraining,
    *,
    setting: Setting,
    directory: RunDirectory,
    reporter: Reporter,
) -> Comparison:
    """Fix the thresholds, evaluate the test once, write what was found, and export the winner.

    Args:
        config: What was asked for.
        dataset: Training and validation images.
        sealed: The test images.
        retraining: The networks.
        setting: Data and HyperModel of the retraining.
        directory: Gets `evaluation.json`, predictions and exports.
        reporter: Where a person watches.

    Raises:
        StorageError: The disk is full or read-only.
    """
    ready = {
        role: _side(role, networks, combined, config, setting)
        for role, networks, combined in (
            (BASELINE, retraining.baseline, None),
            (WINNER, retraining.winner, retraining.ensemble),
        )
    }
    for note in dict.fromkeys(
        network.calibration.note
        for side in ready.values()
        for network in side.everything
        if network.calibration.note
    ):
        reporter.warn(f"--calibrate {config.calibrate.value}: {note}")
    sides = _evaluate_test(ready, sealed, directory, reporter)
    comparison = _compare(config, dataset, sides, retraining, times=_times(directory))
    directory.write_json("evaluation.json", comparison)
    for role, side in sides.items():
        parts = [one[side.position] for one in (side.validation, side.test) if one]
        write_predictions_csv(directory.root / PREDICTION_FILES[role], parts)
    best = sides[WINNER].exported
    export_all(
        best.model,
        directory,
        formats=config.export,
        metadata=ModelMetadata(
            image_size=dataset.image_size,
            threshold=best.threshold,
            channels=dataset.channels,
            depth=dataset.report.depth,
            classes=dataset.classes,
            role=WINNER,
            seed=best.trained.seed,
            notice=SYNTHETIC_NOTICE if dataset.synthetic else "",
            run=directory.name,
            versions=backend.versions(),
            values=best.trained.recipe.values,
            fingerprint=dataset.fingerprint,
        ),
        temperature=best.calibration.temperature,
        val=dataset.val,
        reporter=reporter,
    )
    return comparison


def _side(
    role: str,
    trained: Sequence[Retrained],
    combined: Retrained | None,
    config: RunConfig,
    setting: Setting,
) -> Side:
    def ready(one: Retrained) -> Network:
        calibrate = config.calibrate is not CalibrationKind.NONE
        return Network(one, config=config, setting=setting, calibrate=calibrate)

    networks = tuple(ready(one) for one in trained)
    best = best_of(trained, direction(config.choice))
    exported = ready(combined) if combined else networks[list(trained).index(best)]
    everything = (*networks, exported) if combined else networks
    val = setting.dataset.val
    return Side(
        role=role,
        networks=networks,
        exported=exported,
        validation=tuple(one.predict(val, Split.VALIDATION) for one in everything),
    )


def _evaluate_test(
    sides: dict[str, Side], sealed: SealedTest, directory: RunDirectory, reporter: Reporter
) -> dict[str, Side]:
    """Open the test and let every network predict it, each once."""
    try:
        test = sealed.open()
    except DataError as error:
        reporter.warn(f"{error}. The model is scored on validation only")
        return sides
    networks = [network for side in sides.values() for network in side.everything]
    found = {}
    for done, network in enumerate(networks):
        reporter.progress("Evaluating the test set", done, len(networks))
        found[network] = network.predict(test, Split.TEST)
    reporter.progress("Evaluating the test set", len(networks), len(networks))
    directory.append(EventKind.TEST_SCORED, networks=len(networks))
    return {
        role: Side(
            role=role,
            networks=side.networks,
            exported=side.exported,
            validation=side.validation,
            test=tuple(found[network] for network in side.everything),
        )
        for role, side in sides.items()
    }


def _times(directory: RunDirectory) -> int:
    """Return how often the test was evaluated in this run."""
    return sum(event["event"] == EventKind.TEST_SCORED for event in directory.events())


def _compare(
    config: RunConfig,
    dataset: Dataset,
    sides: dict[str, Side],
    retraining: Retraining,
    *,
    times: int,
) -> Comparison:
    """Return the content of `evaluation.json`.

    Without a test set there is no difference: validation chose the winner, so that on validation it
    would look too good.
    """
    winner, baseline = sides[WINNER], sides[BASELINE]
    difference: dict[str, Estimate] = {}
    tests: dict[str, McNemar] = {}
    means: dict[str, SeedDifference] = {}
    if winner.test:
        difference, tests = compare(
            winner.predictions,
            baseline.predictions,
            thresholds=(winner.exported.threshold.value, baseline.exported.threshold.value),
            seed=config.seed,
        )
        means = _compare_means(winner, baseline, seed=config.seed)
    return Comparison(
        classes=dataset.classes,
        split=winner.predictions.split,
        objective=config.choice,
        synthetic=dataset.synthetic,
        baseline=_scored(baseline, seed=config.seed),
        winner=_scored(winner, seed=config.seed),
        difference=difference,
        mean_difference=means,
        mcnemar=tests,
        subgroups=_subgroups(sides, seed=config.seed),
        calibration={role: _calibration(side, config.calibrate) for role, side in sides.items()},
        retraining=retraining.recipe,
        finalists=retraining.finalists,
        test_evaluations=sum(len(side.test) for side in sides.values()),
        times_evaluated=times if winner.test else 0,
    )


def compare(
    winner: Predictions,
    baseline: Predictions,
    *,
    thresholds: tuple[float, float],
    seed: int,
) -> tuple[dict[str, Estimate], dict[str, McNemar]]:
    """Compare two models on the same images.

    Args:
        winner: Predictions of the one.
        baseline: Predictions of the other, on the same images in the same order.
        thresholds: Of the winner and of the baseline.
        seed: Seed of the resampling, common to both.

    Returns:
        Winner − baseline by metric, at 0.5 and with the suffix "_at_threshold" at each one's own
        threshold; and McNemar's test at both.

    Raises:
        ValueError: The images are not the same.
    """
    if winner.paths != baseline.paths or not np.array_equal(winner.labels, baseline.labels):
        raise ValueError("the two sets of predictions are not of the same images")
    labels = winner.labels
    ours, theirs = winner.probabilities, baseline.probabilities
    difference: dict[str, Estimate] = {}
    tests = {}
    for suffix, pair in (("", (0.5, 0.5)), ("_at_threshold", thresholds)):
        found = paired_difference(labels, ours, theirs, winner.patients, thresholds=pair, seed=seed)
        names = [name for name in COMPARED if not suffix or name in THRESHOLD_METRICS]
        difference |= {f"{name}{suffix}": found[name] for name in names}
        tests[suffix.removeprefix("_") or "at_half"] = mcnemar(
            labels, ours, theirs, thresholds=pair
        )
    return difference, tests


def _compare_means(winner: Side, baseline: Side, *, seed: int) -> dict[str, SeedDifference]:
    seeds = [[network.trained.seed for network in side.networks] for side in (winner, baseline)]
    if len(seeds[0]) < 2 or seeds[0] != seeds[1]:
        return {}
    count = len(seeds[0])
    first, second = (
        np.stack([one.probabilities for one in side.test[:count]]) for side in (winner, baseline)
    )
    cuts = [[one.threshold.value for one in side.networks] for side in (winner, baseline)]
    return mean_difference(
        winner.test[0].labels,
        first,
        second,
        winner.test[0].patients,
        thresholds=(cuts[0], cuts[1]),
        seed=seed,
    )


def _scored(side: Side, *, seed: int) -> Scored:
    """Score every network of a role on validation and, if there is one, on test."""

    def evaluations(predictions: Sequence[Predictions]) -> list[Evaluation]:
        return [
            evaluate(
                found,
                network.threshold,
                role=side.role,
                seed=network.trained.seed,
                bootstrap_seed=seed,
            )
            for network, found in zip(side.everything, predictions, strict=bool(predictions))
        ]

    count = len(side.networks)
    test, validation = evaluations(side.test), evaluations(side.validation)
    exported = side.exported.trained
    return Scored(
        role=side.role,
        values=exported.recipe.values,
        parameters=exported.parameters,
        exported_seed=exported.seed,
        test=tuple(test[:count]),
        validation=tuple(validation[:count]),
        ensemble_test=tuple(test[count:]),
        ensemble_validation=tuple(validation[count:]),
        spread=_spread((test or validation)[:count]),
    )


def _spread(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Spread]]:
    """Return mean, standard deviation and range over seeds of every metric."""
    return {
        table: {
            name: _spread_of([getattr(one, table)[name].value for one in evaluations])
            for name in getattr(evaluations[0], table)
        }
        for table in ("ranking", "at_half", "at_threshold")
    }


def _spread_of(values: Sequence[float]) -> Spread:
    if not all(map(math.isfinite, values)):
        # E.g. the precision of a seed that calls no image positive: no mean over the others.
        return Spread(mean=math.nan, sd=math.nan, min=math.nan, max=math.nan)
    return Spread(
        mean=statistics.fmean(values),
        sd=statistics.stdev(values) if len(values) > 1 else math.nan,
        min=min(values),
        max=max(values),
    )


def _subgroups(sides: dict[str, Side], *, seed: int) -> dict[str, dict[str, Estimate]]:
    """Return the sensitivity at each network's threshold, by subtype and role."""
    found: dict[str, dict[str, Estimate]] = {}
    for role, side in sides.items():
        recall = subtype_recall(side.predictions, side.exported.threshold.value, seed=seed)
        for subtype, estimate in recall.items():
            found.setdefault(subtype, {})[role] = estimate
    return found


def _calibration(side: Side, kind: CalibrationKind) -> CalibrationReport:
    fitted = side.exported.calibration
    found = {
        one[side.position].split: before_and_after(
            one[side.position].labels, one[side.position].probabilities, fitted.temperature
        )
        for one in (side.validation, side.test)
        if one
    }
    return CalibrationReport(
        method=kind.value,
        temperature=fitted.temperature,
        images=fitted.images,
        note=fitted.note,
        before={split: values[0] for split, values in found.items()},
        after={split: values[1] for split, values in found.items()},
    )
