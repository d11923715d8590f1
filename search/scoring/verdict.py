"""The last stage before the report: thresholds, the test set evaluated once, exports.

Everything is fixed before the test is read: networks, temperatures and thresholds, the latter on
perturbed validation images. The winner is then set beside the baseline; both are scored with every
seed. Each evaluation of the test is journaled, and `Comparison` says how many there were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from search import backend
from search.config import CalibrationKind, RunConfig, cost
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
    Subset,
)
from search.run_directory import RunDirectory
from search.scoring.bootstrap import (
    AT_THRESHOLD,
    Tested,
    paired_differences,
    subtype_recall,
)
from search.scoring.calibration import fit_temperature, reported, scaled
from search.scoring.export import ensemble_of, export_all
from search.scoring.formats import ModelMetadata
from search.scoring.metrics import (
    RANKING_METRICS,
    THRESHOLD_METRICS,
    mcnemar,
    ranking_metrics,
    threshold_metrics,
)
from search.scoring.predictions import (
    BASELINE,
    PREDICTION_FILES,
    WINNER,
    evaluate,
    predict_images,
    predict_subset,
    write_predictions_csv,
)
from search.scoring.retrain import Retrained, Retraining
from search.scoring.threshold import choose_threshold
from search.tuning import checkpoint
from search.tuning.model import Setting, build_model

FIRST = ("accuracy", "auc", "specificity", "recall", "loss")
ORDERED = (*FIRST, *(n for n in (*THRESHOLD_METRICS, *RANKING_METRICS) if n not in FIRST))
COMPARED = (*ORDERED, *(f"{n}{AT_THRESHOLD}" for n in ORDERED if n in THRESHOLD_METRICS))
"""Metrics whose difference is reported, the ones most asked for first."""


NetworkKey = tuple[str, int | None]
"""Role and seed, None for an ensemble."""


class Network:
    """A configuration retrained with a seed, or an ensemble, ready to predict.

    Attributes:
        trained: What it is: one network, or several whose mean probability counts.
        seed: Its seed, None for an ensemble.
        model: The Keras model that is tested and exported, uncalibrated.
        temperature: By which its logits are divided, see `calibration`.
        note: Why no temperature could be fitted, or "".
        threshold: Its decision threshold.
    """

    def __init__(
        self, *trained: Retrained, config: RunConfig, setting: Setting, calibrate: bool
    ) -> None:
        """Load the weights, fit the temperature, and choose the threshold on validation."""
        self.trained = trained
        self.seed = trained[0].seed if len(trained) == 1 else None
        self._tested: list[Predictions] = []
        self._val, views = setting.dataset.val, setting.dataset.views
        # What validates was trained without these images, and what is tested maybe with them.
        self.model = self._validating = _load(trained, config, setting)
        twin = ""
        if trained[0].final_weights:
            self.model = _load(trained, config, setting, final=True)
            twin = ", by the network trained without validation images"
        self.temperature, self.note = 1.0, ""
        if calibrate:
            clean = self._clean
            self.temperature, self.note = fit_temperature(clean.labels, clean.probabilities)
        self.threshold = choose_threshold(
            views.labels,
            scaled(predict_images(self._validating, views.open_array()), self.temperature),
            config.threshold_rule,
            chosen_on=f"perturbed validation images (n = {len(views)}){twin}",
            classes=setting.dataset.classes,
        )

    @cached_property
    def _clean(self) -> Predictions:
        return predict_subset(self._validating, self._val, Split.VALIDATION)

    @property
    def predictions(self) -> list[Predictions]:
        """Return what it predicts of validation and, once that was evaluated, of the test."""
        return [self._calibrated(self._clean), *self._tested]

    def evaluate_test(self, test: Subset) -> Tested:
        """Predict the test images, and keep that."""
        found = self._calibrated(predict_subset(self.model, test, Split.TEST))
        self._tested = [found]
        return self.threshold.value, found

    def _calibrated(self, found: Predictions) -> Predictions:
        probabilities = scaled(found.probabilities, self.temperature)
        return dataclasses.replace(found, probabilities=probabilities)


def _load(
    trained: Sequence[Retrained], config: RunConfig, setting: Setting, *, final: bool = False
) -> Any:
    """Return a network in float32, or the ensemble of several: as validated, or as of the end."""
    models = []
    for one in trained:
        models.append(build_model(setting, one.recipe.values, config.seed))
        checkpoint.load(models[-1], (one.final_weights if final else None) or one.weights_file)
    return ensemble_of(models) if len(models) > 1 else models[0]


class Side(NamedTuple):
    """The networks of one role."""

    role: str  # "baseline" or "winner"
    networks: tuple[Network, ...]  # One per seed
    ensemble: tuple[Network, ...]  # Of these networks, () without one
    exported: Network  # The one that is exported, or compared with the exported one


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
    combined = retraining.recipe.ensemble is not None
    baseline = _side(BASELINE, retraining.baseline, config, setting, combined=False)
    winner = _side(WINNER, retraining.winner, config, setting, combined=combined)
    networks = {
        (side.role, network.seed): network
        for side in (winner, baseline)
        for network in side.networks + side.ensemble
    }
    for note in dict.fromkeys(network.note for network in networks.values() if network.note):
        reporter.warn(f"--calibrate {config.calibrate.value}: {note}")
    tested = evaluate_test(
        sealed, networks.items(), total=len(networks), directory=directory, reporter=reporter
    )
    times = times_evaluated(directory)
    comparison = _compare(config, dataset, winner, baseline, retraining, tested, times=times)
    directory.write_json("evaluation.json", comparison)
    for side in (baseline, winner):
        file = directory.root / PREDICTION_FILES[side.role]
        write_predictions_csv(file, side.exported.predictions)
    best = winner.exported
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
            seed=best.seed,
            notice=SYNTHETIC_NOTICE if dataset.synthetic else "",
            run=directory.name,
            versions=backend.versions(),
            values=best.trained[0].recipe.values,
            fingerprint=dataset.fingerprint,
        ),
        temperature=best.temperature,
        val=dataset.val,
        reporter=reporter,
    )
    return comparison


def _side(
    role: str, trained: Sequence[Retrained], config: RunConfig, setting: Setting, *, combined: bool
) -> Side:
    calibrate = config.calibrate is not CalibrationKind.NONE

    def ready(*some: Retrained) -> Network:
        return Network(*some, config=config, setting=setting, calibrate=calibrate)

    networks = tuple(ready(one) for one in trained)
    ensemble = (ready(*trained),) if combined else ()
    # NaN counts as the worst.
    best = min(networks, key=lambda one: cost(config.choice, one.trained[0].score))
    return Side(role, networks, ensemble, *ensemble or [best])


def evaluate_test(
    sealed: SealedTest,
    networks: Iterable[tuple[NetworkKey, Network]],
    *,
    total: int,
    directory: RunDirectory,
    reporter: Reporter,
) -> dict[NetworkKey, Tested]:
    """Let every network predict the test, each once, and journal that.

    The networks, `total` of them, may be loaded one after another. Returns {}, and warns, where
    there is no test that could be used.
    """
    try:
        test = sealed.open()
    except DataError as error:
        reporter.warn(f"{error}. Networks are scored on validation only")
        return {}
    found = {}
    for done, (key, network) in enumerate(networks, 1):
        found[key] = network.evaluate_test(test)
        reporter.progress("Evaluating the test set", done, total)
    scorings = [
        {
            "role": role,
            "seed": seed,
            "accuracy": threshold_metrics(one.labels, one.probabilities, 0.5)["accuracy"],
            "auc": ranking_metrics(one.labels, one.probabilities)["auc"],
        }
        for (role, seed), (_, one) in found.items()
    ]
    reporter.listen(directory.append(EventKind.TEST_SCORED, scorings=scorings))
    return found


def times_evaluated(directory: RunDirectory) -> int:
    """Return how often the test was evaluated, as the journal has it."""
    return sum(event["event"] == EventKind.TEST_SCORED for event in directory.events())


def _compare(
    config: RunConfig,
    dataset: Dataset,
    winner: Side,
    baseline: Side,
    retraining: Retraining,
    tested: Mapping[NetworkKey, Tested],
    *,
    times: int,
) -> Comparison:
    """Return the content of `evaluation.json`.

    Without a test set there is no difference: validation chose the winner, so that on validation it
    would look too good.
    """
    sides = (baseline, winner)
    difference: dict[str, Estimate] = {}
    tests: dict[str, McNemar] = {}
    means: dict[str, SeedDifference] = {}
    if tested:
        ours, theirs = (tested[side.role, side.exported.seed] for side in (winner, baseline))
        difference, tests = compare(ours, theirs, seed=config.seed)
        seeds, others = ([one.seed for one in side.networks] for side in sides)
        if len(seeds) > 1 and seeds == others:
            means = paired_differences(
                [tested[WINNER, seed] for seed in seeds],
                [tested[BASELINE, seed] for seed in seeds],
                seed=config.seed,
            )
    return Comparison(
        classes=dataset.classes,
        split=Split.TEST if tested else Split.VALIDATION,
        objective=config.choice,
        synthetic=dataset.synthetic,
        baseline=_scored(baseline, seed=config.seed),
        winner=_scored(winner, seed=config.seed),
        difference=difference,
        mean_difference=means,
        mcnemar=tests,
        subgroups=_subgroups(sides, seed=config.seed),
        calibration={side.role: _calibration(side.exported, config.calibrate) for side in sides},
        retraining=retraining.recipe,
        finalists=retraining.finalists,
        test_evaluations=len(tested),
        times_evaluated=times if tested else 0,
    )


def compare(
    winner: Tested, baseline: Tested, *, seed: int
) -> tuple[dict[str, Estimate], dict[str, McNemar]]:
    """Compare two networks on the same images.

    Returns:
        Winner − baseline by metric, at 0.5 and with the suffix "_at_threshold" at each one's own
        threshold; and McNemar's test at both.

    Raises:
        ValueError: The images are not the same.
    """
    found = paired_differences([winner], [baseline], names=COMPARED, seed=seed)
    difference = {name: one.over_patients for name, one in found.items()}
    (cut, ours), (other_cut, theirs) = winner, baseline
    tests = {
        name: mcnemar(ours.labels, ours.probabilities, theirs.probabilities, thresholds=pair)
        for name, pair in (("at_half", (0.5, 0.5)), ("at_threshold", (cut, other_cut)))
    }
    return difference, tests


def _scored(side: Side, *, seed: int) -> Scored:
    """Score every network of a role on validation and, if there is one, on test."""

    def evaluations(networks: Sequence[Network], split: Split) -> tuple[Evaluation, ...]:
        return tuple(
            evaluate(
                found,
                network.threshold,
                role=side.role,
                seed=network.seed,
                bootstrap_seed=seed,
            )
            for network in networks
            for found in network.predictions
            if found.split is split
        )

    exported = side.exported
    return Scored(
        role=side.role,
        values=exported.trained[0].recipe.values,
        parameters=sum(one.parameters for one in exported.trained),
        exported_seed=exported.seed,
        test=evaluations(side.networks, Split.TEST),
        validation=evaluations(side.networks, Split.VALIDATION),
        ensemble_test=evaluations(side.ensemble, Split.TEST),
        ensemble_validation=evaluations(side.ensemble, Split.VALIDATION),
    )


def _subgroups(sides: Sequence[Side], *, seed: int) -> dict[str, dict[str, Estimate]]:
    """Return the sensitivity at each network's threshold, by subtype and role."""
    found: dict[str, dict[str, Estimate]] = {}
    for side in sides:
        network = side.exported
        recall = subtype_recall(network.predictions[-1], network.threshold.value, seed=seed)
        for subtype, estimate in recall.items():
            found.setdefault(subtype, {})[side.role] = estimate
    return found


def _calibration(network: Network, kind: CalibrationKind) -> CalibrationReport:
    found, temperature = network.predictions, network.temperature
    return CalibrationReport(
        method=kind.value,
        temperature=temperature,
        images=0 if kind is CalibrationKind.NONE else len(found[0].labels),
        note=network.note,
        before={
            one.split: reported(one.labels, scaled(one.probabilities, 1 / temperature))
            for one in found
        },
        after={one.split: reported(one.labels, one.probabilities) for one in found},
    )
