"""The verdict in words, judged by intervals."""

import dataclasses

import pytest

from search.records import Estimate, SeedDifference
from search.reporting.documents import markdown, page
from search.reporting.sentences import headlines, verdict

NOTHING = Estimate(value=0.0, low=-0.1, high=0.1)
BETTER = Estimate(value=0.095, low=0.034, high=0.155)
WORSE = Estimate(value=-0.037, low=-0.06, high=-0.01)


def judged(comparison, **differences):
    """The comparison with other differences, and values to match."""
    mean = {}
    for key in ("auc", "accuracy_at_threshold", "recall_at_threshold", "specificity_at_threshold"):
        found = differences.get(key.removesuffix("_at_threshold"), NOTHING)
        mean[key] = SeedDifference(over_patients=found, over_seeds=found)
    return dataclasses.replace(comparison, mean_difference=mean)


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ({}, "no significant difference in accuracy"),
        ({"accuracy": BETTER}, "the winner is more accurate"),
        ({"accuracy": WORSE}, "the winner is less accurate"),
        ({"auc": BETTER}, "the winner ranks better"),
        ({"accuracy": BETTER, "auc": WORSE}, "but ranks worse"),
    ],
)
def test_the_verdict_is_one_sentence_of_at_most_thirty_words(made, differences, words):
    text = verdict(judged(made.comparison, **differences))
    assert words in text
    assert text.endswith(".")
    assert len(text.split()) <= 30


def test_a_winner_that_is_the_baseline_is_called_so(made):
    baseline = made.comparison.baseline
    same = dataclasses.replace(made.comparison, winner=dataclasses.replace(baseline, role="winner"))
    assert "nothing better on validation than the baseline" in verdict(same)


def test_headlines_are_the_means_over_seeds(made):
    found = {one.key: one for one in headlines(made.comparison)}
    tests = made.comparison.winner.test
    values = [evaluation.at_threshold["accuracy"].value for evaluation in tests]
    assert found["accuracy"].winner == pytest.approx(sum(values) / len(values))
    assert found["recall"].name == "sensitivity"


def test_one_seed_is_said_to_be_noise(made):
    one = {
        side: dataclasses.replace(getattr(made.comparison, side), test=scored[:1])
        for side in ("winner", "baseline")
        for scored in [getattr(made.comparison, side).test]
    }
    alone = dataclasses.replace(made.comparison, mean_difference={}, **one)
    assert "- Trained with one seed" in markdown(dataclasses.replace(made, comparison=alone))


def test_class_names_come_from_the_data(made):
    other = dataclasses.replace(
        made.dataset,
        classes=("benign", "malignant"),
        counts={s: {"benign": 5, "malignant": 7} for s in ("train", "val", "test")},
        source=dataclasses.replace(made.dataset.source, kind="folder"),
        alarms=(),
        patients_known=False,
    )
    comparison = dataclasses.replace(made.comparison, classes=other.classes)
    said = markdown(dataclasses.replace(made, dataset=other, comparison=comparison))
    assert "7 malignant" in said
    assert "Patients are unknown" in said
    for word in ("hildren", "hospital", "neumonia", "PNEUMONIA"):
        assert word not in said


def test_every_metric_and_miss_of_the_run_is_on_its_page(made):
    text = page(made)
    network = made.comparison.winner.exported
    assert f"{len(made.misses)} of {network.count} images are misjudged" in text
    for key in ("average precision", "negative predictive value at 0.5", "McNemar"):
        assert key in text
