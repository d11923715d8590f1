"""What is said of data, plan and verdict."""

import io

import fake_runs as fake
import pytest
from rich.console import Console
from search.reporting.comparison import METRICS
from search.reporting.verdict import COLUMNS, read_verdict

from search.records import Estimate, to_json
from search.reporting import facts, tables
from search.tuning.schedule import hyperband


def printed(renderable):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(renderable)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


def test_a_plan_reads_as_brackets_and_rungs():
    plan = hyperband(max_epochs=27, factor=3).plan(2.0)
    assert facts.plan_rows(plan)[0] == ("3", "27 × 1 → 9 × 3 → 3 × 9 → 1 × 27", 40, 81)
    assert sum(row[3] for row in facts.plan_rows(plan)) == plan["epochs"]
    text = printed(tables.plan_table(plan))
    assert "12 × 3 → 4 × 9 → 1 × 27" in text
    assert "11 min 54 s" in text


def test_repeated_brackets_name_their_round():
    rows = facts.plan_rows(hyperband(max_epochs=3, factor=3, iterations=2).plan())
    assert [row[0] for row in rows] == ["1 (round 1)", "0 (round 1)", "1 (round 2)", "0 (round 2)"]


def test_an_unmeasured_plan_says_so():
    assert "not measured" in facts.plan_sentence(hyperband(max_epochs=3, factor=3).plan())


def test_the_data_table_shows_counts_weights_leakage_and_rejects():
    text = printed(tables.data_table(fake.dataset()))
    assert "4,185" in text
    assert "2,915" in text
    assert "NORMAL 1.94 · PNEUMONIA 0.674" in text
    assert "0 of 1,047 validation images share a patient" in text
    assert "empty file" in text
    assert "53.0 MB" in text


def test_many_rejected_files_are_cut_short():
    lines = facts.rejected_files(
        {"rejected": [{"path": f"{i}.jpeg", "reason": "empty"} for i in range(9)]}
    )
    assert lines[-1] == "… 4 more in dataset.json"
    assert len(lines) == 6


@pytest.mark.parametrize(
    "report",
    [{}, {"counts": None, "rejected": None, "leakage": None}, {"source": "x", "class_weights": []}],
)
def test_an_incomplete_data_report_is_no_error(report):
    printed(tables.data_table(report))


def test_the_verdict_has_every_metric_at_both_thresholds_with_intervals():
    verdict = read_verdict(fake.evaluation())
    assert [name for name, _ in verdict.rows] == [name for _, name in METRICS]
    accuracy = dict(verdict.rows)["accuracy"]
    assert len(accuracy) == len(COLUMNS)
    assert accuracy[0].value == "0.760"
    assert accuracy[3].interval == "0.870–0.930"
    assert verdict.outcome == "better"
    assert "331 test images" in verdict.sentence
    assert "+0.136 (95% interval +0.090 to +0.180)" in verdict.sentence
    text = printed(tables.verdict_view(verdict))
    assert "stressed validation (n = 2094)" in text
    assert "One seed is an anecdote" in text
    assert "52 images only the winner gets right" in text


def differences(accuracy, auc):
    return to_json(
        {
            "accuracy": Estimate(value=sum(accuracy) / 2, low=accuracy[0], high=accuracy[1]),
            "auc": Estimate(value=sum(auc) / 2, low=auc[0], high=auc[1]),
        }
    )


@pytest.mark.parametrize(
    ("difference", "outcome", "words"),
    [
        (differences((0.01, 0.05), (-0.01, 0.02)), "better", "is better in accuracy at 0.5 than"),
        (differences((0.01, 0.05), (0.01, 0.02)), "better", "is better than"),
        (differences((-0.05, -0.01), (-0.01, 0.02)), "worse", "is worse in accuracy at 0.5 than"),
        (differences((-0.05, 0.01), (-0.01, 0.02)), "undecided", "can't be told apart"),
        (differences((-0.05, -0.01), (0.01, 0.02)), "mixed", "better in AUC and worse in accuracy"),
        ({"loss": {"value": -0.2, "low": -0.3, "high": -0.1}}, "better", "is better than"),
        ({"auc": {"value": 0.1, "low": None, "high": None}}, "undecided", "without an interval"),
        ({}, "unknown", "No comparison"),
    ],
)
def test_the_sentence_follows_the_intervals(difference, outcome, words):
    verdict = read_verdict(fake.evaluation(difference=difference))
    assert verdict.outcome == outcome
    assert words in verdict.sentence


def test_accuracies_name_the_threshold_they_were_compared_at():
    difference = {"accuracy": {"value": 0.14, "low": 0.1, "high": 0.2}}
    verdict = read_verdict(fake.evaluation(difference=difference))
    assert "accuracy at 0.5 +0.140" in verdict.sentence


def test_a_search_that_ends_with_the_documented_configuration_says_so():
    verdict = read_verdict(fake.evaluation(same=True))
    assert "nothing better" in verdict.sentence
    assert verdict.outcome == "undecided"


def test_several_seeds_show_the_exported_one_and_the_spread():
    verdict = read_verdict(fake.evaluation(seeds=3))
    assert dict(verdict.rows)["accuracy"][2].value == "0.904"
    assert verdict.spread[0] == ("accuracy", "0.762 (0.760–0.764)", "0.902 (0.900–0.904)")
    assert "seed 2" in verdict.remarks[-1]
    assert "anecdote" not in " ".join(verdict.remarks)


@pytest.mark.parametrize("evaluation", [{}, {"winner": None, "difference": []}, {"winner": {}}])
def test_an_incomplete_evaluation_is_no_error(evaluation):
    verdict = read_verdict(evaluation)
    assert verdict.outcome == "unknown"
    printed(tables.verdict_view(verdict))


def test_a_test_set_that_was_opened_again_is_told():
    evaluation = fake.evaluation()
    assert ", opened once;" in read_verdict({**evaluation, "test_openings": 1}).remarks[0]
    assert ", opened 3 times;" in read_verdict({**evaluation, "test_openings": 3}).remarks[0]


def test_how_often_the_test_was_opened_is_not_said_where_it_is_not_known():
    evaluation = fake.evaluation()
    assert "test_openings" not in evaluation
    assert read_verdict(evaluation).remarks[0] == "331 test images; ranges are 95% intervals."


def over_seeds(**ranges):
    """`difference_over_seeds` from {metric: (over patients, over seeds)}."""
    found = {"seeds": 3}
    for name, pair in ranges.items():
        value = sum(pair[0]) / 2
        found[name] = {
            f"over_{over}": {"value": value, "low": low, "high": high}
            for over, (low, high) in zip(("patients", "seeds"), pair, strict=True)
        }
    return found


def test_with_several_seeds_the_claim_rests_on_their_means_by_both_intervals():
    found = fake.evaluation(seeds=3, difference=differences((0.09, 0.18), (0.02, 0.08)))
    found["difference_over_seeds"] = over_seeds(
        accuracy=((0.06, 0.13), (0.034, 0.158)), auc=((0.05, 0.1), (-0.01, 0.16))
    )
    verdict = read_verdict(found)
    assert verdict.outcome == "better"
    assert verdict.sentence == (
        "On the mean of 3 seeds, the winner is better in accuracy at 0.5 than the documented "
        "configuration on the 331 test images: accuracy at 0.5 +0.095 (95% intervals +0.060 to "
        "+0.130 over patients, +0.034 to +0.158 over seeds); AUC +0.075 (95% intervals +0.050 to "
        "+0.100 over patients, −0.010 to +0.160 over seeds), which is within chance. Seed 2 alone: "
        "accuracy at 0.5 +0.135 (95% interval +0.090 to +0.180); AUC +0.050 (95% interval +0.020 "
        "to +0.080)."
    )
    text = printed(tables.verdict_view(verdict))
    assert " ".join(verdict.sentence.split()) in text


@pytest.mark.parametrize(
    ("patients", "seeds", "outcome", "words"),
    [
        ((0.01, 0.05), (-0.01, 0.07), "undecided", "can't be told apart"),
        ((-0.01, 0.05), (0.01, 0.03), "undecided", "can't be told apart"),
        ((0.01, 0.05), (None, None), "undecided", "without an interval over seeds"),
        ((-0.05, -0.01), (-0.04, -0.02), "worse", "the winner is worse than"),
    ],
)
def test_one_lucky_seed_claims_nothing_for_the_mean(patients, seeds, outcome, words):
    found = fake.evaluation(seeds=3)
    found["difference_over_seeds"] = over_seeds(accuracy=(patients, seeds))
    verdict = read_verdict(found)
    assert verdict.outcome == outcome
    assert verdict.sentence.startswith("On the mean of 3 seeds, the winner ")
    assert words in verdict.sentence


PRICE = {
    "recall": {"value": -0.034, "low": -0.059, "high": -0.011},
    "recall_at_threshold": {"value": -0.038, "low": -0.067, "high": -0.015},
    "specificity": {"value": 0.26, "low": 0.18, "high": 0.34},
    "precision": {"value": -0.1, "low": -0.2, "high": -0.05},
}


def test_a_worse_recall_is_in_the_headline():
    better = {**differences((0.01, 0.05), (0.01, 0.02)), **PRICE}
    sentence = read_verdict(fake.evaluation(difference=better)).sentence
    assert sentence.startswith(
        "The winner is better in accuracy at 0.5 and AUC than the documented configuration on the "
        "331 test images; it is worse in recall at 0.5 and recall at the thresholds: accuracy"
    )
    assert "recall at the thresholds −0.038 (95% interval −0.067 to −0.015)." in sentence
    assert "specificity" not in sentence
    assert "precision" not in sentence
    undecided = {**differences((-0.01, 0.05), (-0.01, 0.02)), **PRICE}
    sentence = read_verdict(fake.evaluation(difference=undecided)).sentence
    assert "told apart on the 331 test images; the winner is worse in recall at 0.5" in sentence


def test_a_worse_recall_of_the_exported_seed_is_in_the_headline_of_the_means():
    found = fake.evaluation(seeds=3, difference={**differences((0, 1), (0, 1)), **PRICE})
    found["difference_over_seeds"] = over_seeds(accuracy=((0.06, 0.13), (0.034, 0.158)))
    sentence = read_verdict(found).sentence
    assert (
        "the winner is better in accuracy at 0.5 than the documented configuration on the 331 test "
        "images; seed 2, which is exported, is worse in recall at 0.5 and recall at the thresholds:"
    ) in sentence
    assert "recall at 0.5 −0.034" in sentence.partition("Seed 2 alone: ")[2]
