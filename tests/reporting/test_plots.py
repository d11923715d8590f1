"""What the plots show, and the files they become."""

import json
import math

import fake_runs as fake
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score

from search.records import SYNTHETIC_NOTICE
from search.reporting import curves, figures
from search.reporting.plots import MAX_ROWS, draw_all, draw_roc, draw_trials
from search.reporting.progress import RunProgress
from search.reporting.trials import refit_histories, refit_rows


@pytest.fixture(scope="module")
def played():
    events = list(fake.FakeRun(seeds=2).events())
    progress = RunProgress()
    for event in events:
        progress.apply(event)
    return progress.records, refit_histories(refit_rows(events))


def test_training_curves_take_flat_and_nested_rows():
    flat = [{"epoch": 2, "val_loss": 0.2}, {"epoch": 1, "val_loss": 0.3, "val_auc": None}]
    nested = [{"epoch": 1, "metrics": {"val_loss": 0.4}}]
    first, second = curves.training_curves({"a": flat, "b": nested}, objective="val_loss")
    assert first.epochs == (1, 2)
    assert first.metrics["val_loss"] == (0.3, 0.2)
    assert math.isnan(first.metrics["val_auc"][0])
    assert second.metrics["val_loss"] == (0.4,)


def test_a_line_joins_the_trials_of_a_configuration(played):
    lines = curves.trials_by_rung(played[0], objective="robust_loss")
    longest = max(lines, key=lambda line: len(line.epochs))
    assert longest.epochs == (1, 3, 9)
    assert sum(line.winner for line in lines) == 1
    best = next(line for line in lines if line.winner)
    assert best.scores[-1] == min(line.scores[-1] for line in lines if line.epochs[-1] == 9)
    assert all(math.isfinite(score) for line in lines for score in line.scores)


def test_the_roc_is_that_of_scikit_learn_also_with_ties():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    scores = np.round(rng.random(300) + 0.3 * labels, 1)
    (curve,) = curves.roc({"winner": (labels, scores)})
    assert curve.auc == pytest.approx(roc_auc_score(labels, scores))
    assert curve.false_positive_rate[0] == curve.true_positive_rate[0] == 0
    assert curve.false_positive_rate[-1] == curve.true_positive_rate[-1] == 1


def test_the_operating_point_is_at_the_stored_threshold():
    labels, probabilities = fake.predictions(1.0)
    (curve,) = curves.roc({"winner, seed 0": (labels, probabilities)}, evaluation=fake.evaluation())
    x, y = curve.operating_point
    assert x == (probabilities[labels == 0] >= 0.312).mean()
    assert y == (probabilities[labels == 1] >= 0.312).mean()


def test_one_class_or_not_a_number_has_no_roc():
    assert curves.roc({"a": (np.ones(4), np.ones(4)), "b": (np.array([0, 1]), [math.nan, 1])}) == []


def test_a_long_roc_keeps_few_numbers_and_its_ends():
    rng = np.random.default_rng(1)
    plot = draw_roc(curves.roc({"winner": (rng.integers(0, 2, 3000), rng.random(3000))}))
    assert len(plot.rows) <= MAX_ROWS + 1
    assert plot.rows[0][2:] == (0.0, 0.0)
    assert plot.rows[-1][2:] == (1.0, 1.0)


def test_confusion_matrices_are_both_models_at_both_thresholds():
    matrices = curves.confusion(fake.evaluation())
    assert [m.name for m in matrices] == [
        "documented at 0.5",
        "documented at 0.312",
        "winner at 0.5",
        "winner at 0.312",
    ]
    assert (matrices[3].tn, matrices[3].fp, matrices[3].fn, matrices[3].tp) == (101, 16, 8, 206)


def test_every_plot_is_a_stamped_png_with_its_numbers(tmp_path, played, monkeypatch):
    texts = []
    original = Figure.text

    def text(self, x, y, s, **options):
        texts.append(s)
        return original(self, x, y, s, **options)

    monkeypatch.setattr(Figure, "text", text)
    records, histories = played
    files = draw_all(
        tmp_path,
        records=records,
        refit_histories=histories,
        predictions={"documented": fake.predictions(0.8), "winner": fake.predictions(1.5)},
        evaluation=fake.evaluation(),
        objective="robust_loss",
        synthetic=True,
    )
    assert [f.stem for f in files] == ["confusion", "roc", "trials_by_rung", "training_curves"]
    assert texts.count(SYNTHETIC_NOTICE) == len(files)
    for path in files:
        with Image.open(path) as image:
            assert min(image.size) > 500
        numbers = json.loads(path.with_suffix(".json").read_text())
        assert all(len(row) == len(numbers["columns"]) for row in numbers["rows"])
    assert {p.suffix for p in (tmp_path / "plots").iterdir()} == {".png", ".json"}


def test_what_there_is_no_data_for_is_not_drawn(tmp_path):
    assert (
        draw_all(
            tmp_path,
            records=[fake.failed("0001")],
            refit_histories={},
            predictions={},
            evaluation={},
            objective="val_auc",
            synthetic=False,
        )
        == []
    )


def test_a_wide_range_of_losses_is_drawn_on_a_logarithmic_axis():
    records = [fake.trial("0001", score=0.1), fake.trial("0002", score=50.0)]
    plot = draw_trials(curves.trials_by_rung(records, objective="val_loss"), objective="val_loss")
    assert plot.figure.axes[0].get_yscale() == "log"
    assert "lower is better" in plot.figure.axes[0].get_ylabel()


def test_roles_have_colours_of_their_own():
    assert figures.role_colour("documented, seed 1") == figures.ORANGE
    assert figures.role_colour("winner") == figures.BLUE
    assert figures.role_colour("finalist_2") not in (figures.ORANGE, figures.BLUE)
