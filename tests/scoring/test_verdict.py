"""The verdict: thresholds before the test, both sides scored with every seed, exports."""

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import Said, make_network, make_predictions

from search.config import CalibrationKind, RunConfig
from search.data.prepare import SealedTest
from search.records import Comparison, ExportRecord, RetrainingRecipe, Split, to_json
from search.reporting.console import Console
from search.reporting.tensorboard import TensorBoardLog
from search.run_directory import RunDirectory
from search.scoring import verdict
from search.scoring.bootstrap import MEAN_METRICS
from search.scoring.loading import load_model
from search.scoring.predictions import PREDICTION_FILES, evaluate, read_predictions_csv
from search.scoring.retrain import Recipe, Retrained, Retraining
from search.scoring.verdict import compare, decide
from tests.tiny_data import tiny_data


@pytest.fixture(scope="module")
def retraining(tmp_path_factory):
    """Two seeds of baseline and winner, and the winner's ensemble; the weights are drawn."""
    folder = tmp_path_factory.mktemp("weights")

    def network(role, first, seed):
        file = folder / f"{role}-{seed}.weights.h5"
        make_network(first + seed).save_weights(file)
        recipe = Recipe(role=role, values={"role": role}, epochs=3)
        trained = {"parameters": 7, "weights_file": file, "kept_epoch": 2}
        return Retrained(recipe=recipe, seed=seed, score=0.5 - 0.1 * seed, **trained)

    baseline, winner = (
        tuple(network(role, first, seed) for seed in (0, 1))
        for role, first in (("baseline", 1), ("finalist_1", 5))
    )
    recipe = RetrainingRecipe(
        trained_as="finalist_1", epochs=3, seeds=2, patience=0, precision="float32",
        trained_on="train", kept_epochs={0: 2, 1: 2},
    )  # fmt: skip
    return Retraining(baseline=baseline, winner=winner, recipe=recipe, finalists=())


@pytest.fixture
def decided(tmp_path, retraining, monkeypatch):
    """Return a function that decides; it gives comparison, directory and what was reported."""
    monkeypatch.setattr(verdict, "build_model", lambda setting, values, seed: make_network())
    monkeypatch.setattr(verdict.checkpoint, "load", lambda model, file: model.load_weights(file))
    dataset = tiny_data(tmp_path, contrast=40)
    dataset = dataclasses.replace(dataset, report=SimpleNamespace(depth=12))
    test = dataclasses.replace(dataset.train)

    def run(found=retraining, *, sealed=test, **options):
        directory = RunDirectory(tmp_path / "run")
        directory.create()
        said = Said()
        config = {"objective": "robust_loss", "refit_seeds": 2, "export": (), **options}
        comparison = decide(
            RunConfig(**config),
            dataset,
            SealedTest(folder=tmp_path, classes=dataset.classes, subset=sealed),
            found, setting=SimpleNamespace(dataset=dataset), directory=directory, reporter=said,
        )  # fmt: skip
        return comparison, directory, said

    return run


def test_both_sides_are_scored_with_every_seed_and_written_as_they_are_read(decided):
    comparison, directory, said = decided()
    # As JSON, where NaN is equal to itself.
    assert to_json(directory.read(Comparison, "evaluation.json")) == to_json(comparison)
    assert [one.seed for one in comparison.winner.test] == [0, 1]
    assert [one.seed for one in comparison.baseline.validation] == [0, 1]
    assert comparison.split is Split.TEST
    assert comparison.winner.exported_seed == 1  # the better score
    assert comparison.winner.exported is comparison.winner.test[1]
    assert comparison.winner.exported.threshold.chosen_on == "perturbed validation images (n = 24)"
    assert comparison.mean_difference.keys() == set(MEAN_METRICS)
    assert comparison.mcnemar.keys() == {"at_half", "at_threshold"}
    assert (comparison.test_evaluations, comparison.times_evaluated) == (4, 1)
    assert comparison.classes == ("NORMAL", "PNEUMONIA")
    for file in PREDICTION_FILES.values():
        assert read_predictions_csv(directory.root / file).keys() == {Split.VALIDATION, Split.TEST}
    assert said.warnings == []


def test_the_evaluation_of_the_test_is_journaled_and_told_as_the_readers_of_the_journal_expect(
    decided, tmp_path
):
    comparison, directory, said = decided()
    assert said.events == directory.events()
    (event,) = said.events
    tested = (*comparison.winner.test, *comparison.baseline.test)
    scored = {(one.role, one.seed): one for one in tested}
    assert len(event["scorings"]) == len(scored)
    for told in event["scorings"]:
        one = scored[told["role"], told["seed"]]
        assert told["accuracy"] == pytest.approx(one.at_half["accuracy"].value)
        assert told["auc"] == pytest.approx(one.ranking["auc"].value)
    file = io.StringIO()
    Console(live=False, file=file).listen(event)
    assert "evaluated on the test set: 4 networks" in file.getvalue()
    pytest.importorskip("tensorboard")
    warnings = []
    log = TensorBoardLog(tmp_path / "log", space=[], objective="auc", warn=warnings.append)
    log.listen(event)
    assert warnings == []
    assert (tmp_path / "log" / "retraining" / "winner, seed 0").is_dir()


def test_what_is_exported_carries_what_its_answers_need(decided):
    comparison, directory, said = decided()
    about = load_model(directory.root / "model.keras").metadata
    assert about.threshold == comparison.winner.exported.threshold
    assert (about.classes, about.channels, about.depth) == (("NORMAL", "PNEUMONIA"), 1, 12)
    assert (about.role, about.seed, about.values) == ("winner", 1, {"role": "finalist_1"})
    (row,) = directory.read(tuple[ExportRecord, ...], "exports.json")
    assert row.status == "written"
    assert "gives the same probabilities" in said.infos[0]


def test_every_evaluation_of_the_test_counts(decided):
    decided()
    comparison, *_ = decided()
    assert comparison.times_evaluated == 2


def test_without_a_test_set_there_is_no_difference(decided):
    comparison, directory, said = decided(sealed=None)
    assert comparison.split is Split.VALIDATION
    assert (comparison.difference, comparison.mean_difference, comparison.mcnemar) == ({}, {}, {})
    assert comparison.winner.test == ()
    assert comparison.winner.exported in comparison.winner.validation
    assert (comparison.test_evaluations, comparison.times_evaluated) == (0, 0)
    assert "scored on validation only" in said.warnings[0]
    json.loads((directory.root / "evaluation.json").read_text())


def test_an_ensemble_is_scored_beside_its_members_and_exported(decided, retraining):
    together = dataclasses.replace(retraining.recipe, ensemble=2)
    comparison, directory, _ = decided(retraining._replace(recipe=together))
    assert comparison.winner.exported_seed is None
    assert len(comparison.winner.test) == 2
    (whole,) = comparison.winner.ensemble_test
    assert comparison.winner.exported is whole
    assert comparison.test_evaluations == 5
    assert load_model(directory.root / "model.keras").metadata.seed is None


def test_calibration_keeps_decisions_at_one_half_and_is_reported(decided):
    plain, *_ = decided()
    comparison, *_ = decided(calibrate=CalibrationKind.TEMPERATURE)
    found = comparison.calibration["winner"]
    assert found.method == "temperature"
    assert found.before.keys() == found.after.keys() == {Split.VALIDATION, Split.TEST}
    assert comparison.winner.exported.confusion_at_half == plain.winner.exported.confusion_at_half


def test_on_train_and_validation_the_final_network_is_tested_and_the_other_validates(
    decided, retraining, tmp_path
):
    file = tmp_path / "final.weights.h5"
    make_network(9).save_weights(file)
    last = tuple(dataclasses.replace(one, final_weights=file) for one in retraining.winner)
    plain, *_ = decided()
    comparison, *_ = decided(retraining._replace(winner=last))
    assert comparison.winner.validation[1].ranking == plain.winner.validation[1].ranking
    assert comparison.winner.test[1].ranking != plain.winner.test[1].ranking
    assert "without validation images" in comparison.winner.exported.threshold.chosen_on


def test_predictions_of_other_images_are_not_compared():
    found = make_predictions([0, 1], [0.1, 0.9])
    other = dataclasses.replace(found, labels=np.array([1, 1], np.int8))
    with pytest.raises(ValueError, match="not of the same images"):
        compare((0.5, found), (0.5, other), seed=0)


def test_the_numbers_of_a_recorded_run_follow_from_its_predictions():
    run = RunDirectory(Path(__file__).parents[1] / "reporting" / "run")
    recorded = run.read(Comparison, "evaluation.json")
    seed = run.read(RunConfig, "config.json").seed
    tested = {}
    for role, file in PREDICTION_FILES.items():
        predictions = read_predictions_csv(run.root / file)[recorded.split]
        exported = getattr(recorded, role).exported
        about = {"role": role, "seed": exported.seed, "bootstrap_seed": seed}
        again = evaluate(predictions, exported.threshold, **about)
        assert to_json(again) == to_json(exported)
        tested[role] = exported.threshold.value, predictions
    difference, tests = compare(tested["winner"], tested["baseline"], seed=seed)
    assert to_json(difference) == to_json(recorded.difference)
    assert tests == recorded.mcnemar
