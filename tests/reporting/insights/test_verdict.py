"""What the insights say of the models' decisions, against scikit-learn or by counting again."""

import dataclasses

import fake_scores
import numpy as np
import pytest
from sklearn import metrics as sk

from search.scoring.curves import Heatmap
from search.records import CLASS_NAMES
from search.reporting.insights import (
    agreement,
    calibration,
    decisions,
    gallery,
    misses,
    ranking,
    scores,
)
from search.reporting.insights.material import Material

NOTHING = Material(objective="robust_loss")


@pytest.fixture(scope="module")
def material():
    return fake_scores.material()


@pytest.fixture(scope="module")
def winner(material):
    """Labels, probabilities and decisions at the stored threshold of the exported winner."""
    found = material.curves["winner"]
    labels, said = found.predictions.labels, found.predictions.probabilities
    return labels, said, (said >= found.threshold).astype(int)


def one(insights):
    (insight,) = insights
    assert all(len(row) == len(insight.columns) for row in insight.rows)
    assert insight.reading.endswith(".")
    assert insight.caption
    return insight


def test_every_metric_is_there_at_both_thresholds_with_its_interval(material, winner):
    labels, said, called = winner
    rows = {row[:3]: row[3:] for row in one(scores.every_metric(material)).rows}
    assert {(name, at) for name, role, at in rows if role == "winner"} == {
        *((n, at) for k, n in scores.NAMES.items() if k not in scores.RANKING for at in
          ("0.5", "stored")),
        *((scores.NAMES[key], "any") for key in scores.RANKING),
    }  # fmt: skip
    expected = {
        ("balanced accuracy", "stored"): sk.balanced_accuracy_score(labels, called),
        ("PPV (precision)", "stored"): sk.precision_score(labels, called),
        ("NPV", "stored"): sk.precision_score(1 - labels, 1 - called),
        ("specificity", "0.5"): sk.recall_score(labels, said >= 0.5, pos_label=0),
        ("F1", "0.5"): sk.f1_score(labels, said >= 0.5),
        ("AUC", "any"): sk.roc_auc_score(labels, said),
        ("average precision", "any"): sk.average_precision_score(labels, said),
        ("log loss", "any"): sk.log_loss(labels, said),
        ("Brier score", "any"): sk.brier_score_loss(labels, said),
    }
    for (name, at), value in expected.items():
        assert rows[name, "winner", at][0] == pytest.approx(value), name
    assert all(low <= value <= high for value, low, high in rows.values())
    assert one(scores.every_metric(material)).reading.startswith("The winner at its threshold: ")


def test_every_seed_is_a_row_and_one_seed_no_insight(material):
    rows = one(scores.over_seeds(material)).rows
    aucs = {row[2]: row[3] for row in rows if row[:2] == ("AUC", "winner")}
    said = [fake_scores.said(2.0, seed) for seed in (0, 1)]
    assert aucs == {
        seed: pytest.approx(sk.roc_auc_score(p.labels, p.probabilities))
        for seed, p in enumerate(said)
    }
    alone = {"winner": {"test": [{"seed": 0, "ranking": {"auc": {"value": 0.9}}}]}}
    assert scores.over_seeds(dataclasses.replace(NOTHING, evaluation=alone)) == []


def test_an_ensemble_is_what_is_exported_but_no_seed(material):
    seed = material.evaluation["winner"]["test"][0]
    combined = {**seed, "seed": None, "ranking": {"auc": {"value": 0.99, "low": 0.98, "high": 1}}}
    side = {"exported_seed": None, "test": [seed], "ensemble": {"test": [combined]}}
    assert scores.exported({"winner": side}, "winner") == combined
    assert scores.scored({"winner": side}, "winner") == [seed]
    unscored = {"test": [], "validation": [combined]}
    side = {"exported_seed": None, "test": [], "validation": [seed], "ensemble": unscored}
    assert scores.exported({"winner": side}, "winner") == combined


def test_differences_are_paired_and_only_those_beyond_their_interval_are_called(material):
    insight = one(agreement.difference(material))
    rows = {row[:2]: row[2:] for row in insight.rows}
    tables = {(row[0], row[1], row[2]): row[3] for row in one(scores.every_metric(material)).rows}
    for (name, at), (value, low, high, verdict) in rows.items():
        where = "any" if at == "any" else at
        gap = tables[name, "winner", where] - tables[name, "documented", where]
        assert value == pytest.approx(gap)
        assert (verdict == "not told apart") == (low <= 0 <= high)
    assert rows["AUC", "any"][3] == rows["log loss", "any"][3] == "better"
    counts = material.evaluation["mcnemar_at_threshold"]
    assert f"{counts['only_winner_right']} images are judged rightly by the winner" in (
        insight.reading
    )
    assert "McNemar" in insight.reading


def test_an_older_run_has_the_test_of_the_decisions_at_one_half():
    evaluation = {
        "difference": {"accuracy": {"value": 0.1, "low": 0.0, "high": 0.2}},
        "mcnemar": {"only_winner_right": 1, "only_documented_right": 0, "p_value": 1.0},
    }
    insight = one(agreement.difference(dataclasses.replace(NOTHING, evaluation=evaluation)))
    assert insight.reading.startswith("At 0.5, 1 image is judged rightly by the winner alone and 0")


def test_lower_losses_are_better_and_worse_is_said():
    found = {
        "loss": {"value": 0.2, "low": 0.1, "high": 0.3},
        "accuracy": {"value": 0.2, "low": None, "high": None},
    }
    evaluation = dataclasses.replace(NOTHING, evaluation={"difference": found})
    rows = {row[0]: row[-1] for row in one(agreement.difference(evaluation)).rows}
    assert rows == {"log loss": "worse", "accuracy": "unknown"}


def test_confusion_matrices_count_the_images(material, winner):
    labels, _, called = winner
    insight = one(decisions.confusion_matrices(material))
    tn, fp, fn, tp = sk.confusion_matrix(labels, called).ravel()
    assert insight.rows[-1] == ("winner at 0.310", tn, fp, fn, tp)
    assert len(insight.rows) == 4
    assert f"misses {fn} of {fn + tp} ill" in insight.reading


def test_subtypes_are_the_sensitivity_among_each_kind(material, winner):
    _, _, called = winner
    kinds = np.array(material.curves["winner"].predictions.subtypes)
    rows = {row[:3]: row[3:] for row in one(decisions.subtypes(material)).rows}
    for kind in ("bacteria", "virus"):
        count, value, low, high = rows["winner", kind, "threshold"]
        assert count == (kinds == kind).sum()
        assert value == pytest.approx(called[kinds == kind].mean())
        assert low <= value <= high
    assert len(rows) == 8


def test_predictive_values_follow_from_bayes_theorem(material, winner):
    labels, _, called = winner
    sensitivity, healthy = called[labels == 1].mean(), 1 - called[labels == 0].mean()
    rows = {row[:3]: row[3:] for row in one(decisions.predictive_values(material)).rows}
    value, low, high = rows["winner", 0.1, "PPV"]
    assert value == pytest.approx(sensitivity * 0.1 / (sensitivity * 0.1 + (1 - healthy) * 0.9))
    assert low <= value <= high
    value, _, _ = rows["winner", 0.1, "NPV"]
    assert value == pytest.approx(healthy * 0.9 / (healthy * 0.9 + (1 - sensitivity) * 0.1))
    stored = material.evaluation["ppv_at_prevalence"]["winner"]["at_threshold"]
    assert rows["winner", 0.1, "PPV"][0] == pytest.approx(stored["0.1"])


def test_the_roc_has_the_exported_models_points_and_says_the_interval(material, winner):
    labels, said, _ = winner
    insight = one(ranking.roc(material))
    points = [row for row in insight.rows if row[0] == "winner"]
    assert points[0][2:4] == (0.0, 0.0)
    assert points[-1][2:4] == (1.0, 1.0)
    for _, threshold, x, y, _, _ in points[1:]:
        assert (x, y) == pytest.approx(
            ((said[labels == 0] >= threshold).mean(), (said[labels == 1] >= threshold).mean())
        )
    assert f"{sk.roc_auc_score(labels, said):.1%}" in insight.reading
    assert "95% interval" in insight.reading


def test_the_rocs_numbers_have_the_bands_limits(material):
    band = material.curves["winner"].roc
    insight = one(ranking.roc(material))
    assert insight.columns[-2:] == ("low", "high")
    limits = {round(row[2], 6): row[4:] for row in insight.rows if row[0] == "winner"}
    assert all(0 <= low <= high <= 1 for low, high in limits.values())
    known = zip(band.x, band.low, band.high, strict=True)
    found = [(limits[round(x, 6)], ends) for x, *ends in known if round(x, 6) in limits]
    assert len(found) > 10
    for mine, ends in found:
        assert mine == pytest.approx(tuple(ends))


def test_precision_and_recall_have_a_band_around_every_point(material, winner):
    labels, said, _ = winner
    precision, recall, _ = sk.precision_recall_curve(labels, said)
    rows = [r[1:] for r in one(ranking.precision_recall(material)).rows if r[0] == "winner"]
    assert [row[0] for row in rows] == pytest.approx(np.linspace(0, 1, 101).tolist())
    for x, y, _, _ in rows[1:]:
        # Thresholds ascend: of the calls that reach this recall, the last are the fewest.
        assert y == pytest.approx(precision[:-1][recall[:-1] >= x - 1e-9][-1])
    assert all(low <= high for _, _, low, high in rows)
    inside = np.mean([low - 1e-9 <= y <= high + 1e-9 for _, y, low, high in rows])
    assert inside > 0.9


def test_the_reliability_diagram_counts_every_image_once(material, winner):
    labels, said, _ = winner
    insight = one(calibration.reliability(material))
    rows = [row[1:] for row in insight.rows if row[0] == "winner"]
    assert sum(row[1] for row in rows) == len(labels)
    assert rows[-1][0] == "0.9–1.0"
    top = said >= 0.9
    assert rows[-1][1:4] == (top.sum(), *map(pytest.approx, (said[top].mean(), labels[top].mean())))
    error = sum(row[1] * abs(row[2] - row[3]) for row in rows if row[1]) / len(labels)
    stored = material.evaluation["winner"]["test"][-1]["ranking"]["expected_calibration_error"]
    assert error == pytest.approx(stored["value"])
    assert f"{error:.3f}" in insight.reading


def test_an_empty_bin_has_no_share(material):
    predictions = dataclasses.replace(
        material.curves["winner"].predictions, probabilities=np.linspace(0.6, 0.9, 120)
    )
    curves = {
        "winner": dataclasses.replace(
            material.curves["winner"],
            predictions=predictions,
            calibration=calibration_of(predictions),
        )
    }
    rows = one(calibration.reliability(dataclasses.replace(NOTHING, curves=curves))).rows
    assert rows[0] == ("winner", "0.0–0.1", 0, None, None, None, None)


def calibration_of(predictions):
    from search.scoring.curves import calibration_bins

    return calibration_bins(predictions.labels, predictions.probabilities)


def test_the_worst_misses_come_first_with_what_the_other_network_said(material, winner):
    labels, said, called = winner
    insight = one(misses.worst_misses(material))
    wrong = np.flatnonzero(labels != called)
    assert len(insight.rows) == len(wrong)
    logit = np.log(said / (1 - said)) - np.log(0.31 / 0.69)
    worst = wrong[np.abs(logit[wrong]).argmax()]
    path, patient, truth, kind, probability, other, decision = insight.rows[0]
    assert (path, patient) == (f"test/{worst}.jpeg", f"p{worst // 2}")
    assert (truth, probability) == (CLASS_NAMES[labels[worst]], pytest.approx(said[worst]))
    assert kind == (material.curves["winner"].predictions.subtypes[worst] or None)
    control = material.curves["documented"].predictions.probabilities[worst]
    assert other == pytest.approx(control)
    assert decision == ("right" if (control >= 0.42) == labels[worst] else "wrong")
    assert f"misjudges {len(wrong)} of 120 images" in insight.reading
    assert insight.draw is None


def test_without_a_miss_there_is_an_empty_table_that_says_so(material):
    found = material.curves["winner"]
    right = dataclasses.replace(found.predictions, probabilities=found.predictions.labels * 0.9)
    curves = {"winner": dataclasses.replace(found, predictions=right)}
    insight = one(misses.worst_misses(dataclasses.replace(NOTHING, curves=curves)))
    assert insight.rows == ()
    assert insight.reading == "The winner misjudges none of 120 images."


def film(number, label, called):
    return Heatmap(
        path=f"test/{number}.jpeg",
        label=label,
        probability=0.7,
        called=called,
        image=np.zeros((8, 8), np.uint8),
        heat=np.zeros((8, 8), np.float32),
    )


def test_heatmaps_are_local_and_in_groups():
    films = [film(0, 0, 0), film(1, 1, 0), film(2, 1, 1), film(3, 1, 0), film(4, 0, 1)]
    insight = one(gallery.heatmaps(dataclasses.replace(NOTHING, heatmaps=films)))
    assert insight.local
    assert [row[:2] for row in insight.rows] == [
        ("missed pneumonia", "test/1.jpeg"),
        ("missed pneumonia", "test/3.jpeg"),
        ("false alarm", "test/4.jpeg"),
        ("pneumonia found", "test/2.jpeg"),
        ("healthy, called so", "test/0.jpeg"),
    ]
    assert "2 × missed pneumonia" in insight.reading
    assert "Selvaraju" in insight.caption


def test_nothing_is_said_where_nothing_is_known():
    for compute in (
        scores.every_metric,
        scores.over_seeds,
        agreement.difference,
        decisions.confusion_matrices,
        decisions.subtypes,
        decisions.predictive_values,
        ranking.roc,
        ranking.precision_recall,
        calibration.reliability,
        misses.worst_misses,
        gallery.heatmaps,
    ):
        assert compute(NOTHING) == [], compute
