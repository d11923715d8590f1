import dataclasses
import json

import numpy as np
import pytest
from search.scoring.comparison import Scored, compare, compare_means, evaluation_report
from tiny import THRESHOLD, make_predictions

from search.records import SYNTHETIC_NOTICE, Split, Threshold, to_json
from search.scoring.metrics import RANKING_METRICS, THRESHOLD_METRICS
from search.scoring.predictions import evaluate

HALF = Threshold(value=0.5, rule="0.5", chosen_on="nothing", reached=0.0)


def two_models(n=120):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    patients = [f"p{i // 2}" for i in range(n)]
    kinds = [("", ("bacteria", "virus")[i % 2])[label] for i, label in enumerate(labels)]
    good = np.clip(rng.normal(0.2 + 0.6 * labels, 0.2), 0, 1)
    bad = np.clip(rng.normal(0.6 + 0.3 * labels, 0.2), 0, 1)
    return (
        make_predictions(labels, good, patients, kinds),
        make_predictions(labels, bad, patients, kinds),
    )


def scored(role, predictions, seeds=(0, 1)):
    evaluations = tuple(
        evaluate(predictions, THRESHOLD, role=role, seed=seed, bootstrap_seed=0, repeats=20)
        for seed in seeds
    )
    return Scored(
        role=role,
        values={"base_filters": 16},
        parameters=1234,
        exported_seed=seeds[-1],
        test=evaluations,
        validation=evaluations[:1],
        predictions=predictions,
        test_predictions=tuple(predictions for _ in seeds),
    )


def test_the_difference_is_winner_minus_documented_with_its_interval():
    winner, documented = two_models()
    found = compare(winner, documented, thresholds=(THRESHOLD, HALF), seed=0, repeats=200)
    difference = found["difference"]
    assert list(difference)[:5] == ["accuracy", "auc", "specificity", "recall", "loss"]
    assert difference.keys() == {
        *THRESHOLD_METRICS,
        *RANKING_METRICS,
        *(f"{name}_at_threshold" for name in THRESHOLD_METRICS),
    }
    ours = np.mean((winner.probabilities >= 0.5) == winner.labels)
    theirs = np.mean((documented.probabilities >= 0.5) == winner.labels)
    assert difference["accuracy"].value == pytest.approx(ours - theirs)
    assert 0 < difference["accuracy"].low < difference["accuracy"].value
    assert difference["loss"].high < 0
    at_own = np.mean((winner.probabilities >= 0.4) == winner.labels)
    assert difference["accuracy_at_threshold"].value == pytest.approx(at_own - theirs)


def test_mcnemar_counts_the_images_that_only_one_gets_right():
    winner, documented = two_models()
    found = compare(winner, documented, thresholds=(HALF, HALF), seed=0, repeats=20)
    counts = found["mcnemar"]
    gap = counts["only_winner_right"] - counts["only_documented_right"]
    assert gap / 120 == pytest.approx(found["difference"]["accuracy"].value)
    assert 0 <= counts["p_value"] < 0.001
    assert found["mcnemar_at_threshold"] == counts


def test_predictions_of_other_images_are_not_compared():
    winner, _ = two_models(40)
    _, other = two_models(42)
    with pytest.raises(ValueError, match="same images"):
        compare(winner, other, thresholds=(HALF, HALF), seed=0)


def test_the_report_has_the_contracts_keys_and_is_json():
    winner, documented = two_models()
    report = evaluation_report(
        scored("winner", winner),
        scored("baseline", documented),
        objective="robust_loss",
        synthetic=True,
        test_scorings=4,
        bootstrap_seed=0,
        repeats=20,
    )
    read = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert {"winner", "baseline", "difference", "mcnemar"} <= read.keys()
    assert read["notice"] == SYNTHETIC_NOTICE
    assert (read["objective"], read["test_scorings"]) == ("robust_loss", 4)
    side = read["winner"]
    assert (side["parameters"], side["exported_seed"]) == (1234, 1)
    assert [item["seed"] for item in side["test"]] == [0, 1]
    assert side["test"][0]["at_half"]["accuracy"].keys() == {"value", "low", "high"}
    assert side["spread"]["at_half"]["accuracy"]["sd"] == 0
    assert read["subtypes"]["winner"]["count"]["virus"] > 0
    assert read["subtypes"]["winner"]["at_half"]["virus"]["value"] > 0.5
    at_half = read["ppv_at_prevalence"]["winner"]["at_half"]
    assert at_half["0.01"] < at_half["0.5"]
    at_half = read["npv_at_prevalence"]["winner"]["at_half"]
    assert at_half["0.01"] > at_half["0.5"]


def test_the_means_over_seeds_are_compared_with_both_intervals():
    winner, documented = two_models()
    sides = scored("winner", winner), scored("baseline", documented)
    found = compare_means(*sides, seed=0, repeats=100)
    single = compare(winner, documented, thresholds=(THRESHOLD, THRESHOLD), seed=0, repeats=100)
    assert found["seeds"] == 2
    accuracy = found["accuracy"]
    # The two seeds say the same here: patients vary as for one, seeds not at all.
    for end in ("value", "low", "high"):
        same = getattr(single["difference"]["accuracy"], end)
        assert getattr(accuracy["over_patients"], end) == pytest.approx(same)
    assert accuracy["over_seeds"].low == pytest.approx(accuracy["over_seeds"].high)
    assert accuracy["over_seeds"].value == pytest.approx(accuracy["over_patients"].value)


def test_a_single_seed_or_other_seeds_have_no_mean_to_compare():
    winner, documented = two_models()
    one = scored("winner", winner, seeds=(0,)), scored("baseline", documented, seeds=(0,))
    assert compare_means(*one, seed=0) == {}
    other = scored("winner", winner), scored("baseline", documented, seeds=(1, 2))
    assert compare_means(*other, seed=0) == {}


def test_real_images_carry_no_notice_and_one_seed_has_no_spread():
    winner, documented = two_models()
    report = evaluation_report(
        scored("winner", winner, seeds=(0,)),
        scored("baseline", documented, seeds=(0,)),
        objective="val_auc",
        synthetic=False,
        test_scorings=2,
        bootstrap_seed=0,
        repeats=20,
    )
    assert report["notice"] is None
    assert report["winner"]["spread"]["ranking"]["auc"]["sd"] is None


def test_a_metric_that_one_seed_leaves_undefined_has_no_spread():
    labels = np.array([0, 1] * 20)
    usual = make_predictions(labels, 0.1 + 0.8 * labels)
    silent = make_predictions(labels, np.full(40, 0.01))
    sides = [scored(role, usual, seeds=(0,)) for role in ("winner", "baseline")]
    evaluations = (*sides[0].test, *scored("winner", silent, seeds=(1,)).test)
    report = evaluation_report(
        dataclasses.replace(sides[0], test=evaluations),
        sides[1],
        objective="val_auc",
        synthetic=False,
        test_scorings=3,
        bootstrap_seed=0,
        repeats=20,
    )
    spread = to_json(report)["winner"]["spread"]["at_half"]
    assert np.isnan(evaluations[1].at_half["precision"].value)
    assert spread["precision"] == {"mean": None, "sd": None, "min": None, "max": None}
    assert spread["recall"]["mean"] == 0.5


def test_without_a_test_set_validation_is_reported_and_nothing_compared():
    sides = [
        dataclasses.replace(scored(role, predictions), test=(), validation=())
        for role, predictions in zip(("winner", "baseline"), two_models(), strict=True)
    ]
    predictions = [dataclasses.replace(s.predictions, split=Split.VALIDATION) for s in sides]
    sides = [
        dataclasses.replace(
            side, predictions=said, validation=scored(side.role, said, seeds=(0, 1)).test
        )
        for side, said in zip(sides, predictions, strict=True)
    ]
    report = evaluation_report(
        *sides,
        objective="robust_loss",
        synthetic=False,
        test_scorings=0,
        bootstrap_seed=0,
        repeats=20,
    )
    read = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert (read["split"], read["difference"], read["mcnemar"]) == ("val", {}, {})
    assert read["winner"]["test"] == []
    assert len(read["winner"]["validation"]) == 2
    assert read["winner"]["spread"]["ranking"]["auc"]["mean"] > 0.5
    assert read["subtypes"]["winner"]["at_half"]["virus"]["value"] > 0.5


def test_the_terminal_report_reads_what_is_written():
    verdict = pytest.importorskip("search.reporting.verdict")
    winner, documented = two_models()
    report = evaluation_report(
        scored("winner", winner),
        scored("baseline", documented),
        objective="robust_loss",
        synthetic=False,
        test_scorings=4,
        bootstrap_seed=0,
        repeats=50,
    )
    report["winner"]["values"] = {"base_filters": 32}
    assert verdict.read_verdict(to_json(report)).outcome == "better"
