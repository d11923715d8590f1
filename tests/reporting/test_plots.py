"""What the plots show, and the files they become."""

import dataclasses
import math

import fake_runs as fake
import fake_scores
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score

from search.scoring.curves import Heatmap
from search.records import SYNTHETIC_NOTICE, to_json
from search.reporting import curves, figures
from search.reporting.insights import ranking
from search.reporting.insights.course import draw_trials
from search.reporting.insights.explain import explain
from search.reporting.insights.insight import Section, read_insights
from search.reporting.insights.material import Material
from search.reporting.plots import draw_all, pictures
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
    predictions = {"winner": (rng.integers(0, 2, 3000), rng.random(3000))}
    (insight,) = ranking.roc(Material(objective="val_auc", predictions=predictions))
    assert len(insight.rows) <= ranking.MAX_ROWS + 1
    assert insight.rows[0][2:] == (0.0, 0.0, None, None)
    assert insight.rows[-1][2:] == (1.0, 1.0, None, None)


def test_confusion_matrices_are_both_models_at_both_thresholds():
    matrices = curves.confusion(fake.evaluation())
    assert [m.name for m in matrices] == [
        "documented at 0.5",
        "documented at 0.312",
        "winner at 0.5",
        "winner at 0.312",
    ]
    assert (matrices[3].tn, matrices[3].fp, matrices[3].fn, matrices[3].tp) == (101, 16, 8, 206)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Everything there is to draw of a run: its directory, material, files and texts drawn."""
    root, texts, original = tmp_path_factory.mktemp("drawn"), [], Figure.text

    def text(self, x, y, s, **options):
        texts.append(s)
        return original(self, x, y, s, **options)

    film = Heatmap(
        path="test/0.jpeg",
        label=1,
        probability=0.1,
        called=0,
        image=np.zeros((8, 8), np.uint8),
        heat=np.zeros((8, 8), np.float32),
    )
    material = dataclasses.replace(fake_scores.material(), heatmaps=[film])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "text", text)
        return root, material, draw_all(root, material, synthetic=True), texts


def test_every_plot_is_a_stamped_png_with_its_numbers(drawn):
    root, _, files, texts = drawn
    shown = pictures(files)
    assert [f.stem for f in shown] == [
        "metrics",
        "difference",
        "seeds",
        "confusion",
        "roc",
        "precision_recall",
        "calibration",
        "subtypes",
        "predictive_values",
        "heatmaps",
        "importance",
        "marginals_1",
        "marginals_2",
        "parallel_coordinates",
        "trials_by_rung",
        "learning_curves",
        "training_curves",
        "timeline",
    ]
    assert {f.stem for f in files} - {f.stem for f in shown} == {"misses"}
    assert texts.count(SYNTHETIC_NOTICE) == len(shown)
    for path in shown:
        with Image.open(path) as image:
            assert min(image.size) > 250
    local = root / "plots" / "local"
    assert [f.name for f in files if f.parent == local] == ["heatmaps.png", "heatmaps.json"]
    assert (local / ".gitignore").read_text() == "*\n"
    found = [p for p in (root / "plots").rglob("*") if p.suffix in (".png", ".json")]
    assert sorted(found) == sorted(files)


def test_insights_are_read_back_as_they_were_in_the_order_of_the_report(drawn):
    root, material, _, _ = drawn
    read, made = read_insights(root / "plots"), explain(material)
    assert [i.name for i in read] == [i.name for i in made]
    for before, after in zip(made, read, strict=True):
        for name in ("section", "title", "reading", "caption", "columns", "local"):
            assert getattr(after, name) == getattr(before, name)
        # What JSON has no number for, such as the first threshold of a ROC, comes back as None.
        assert list(map(list, after.rows)) == to_json(before.rows)
        assert (after.picture is None) == (before.draw is None)


def test_damaged_and_old_files_are_read_as_far_as_they_go(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "roc.png")
    (tmp_path / "roc.json").write_text('{"title": "ROC", "columns": ["x"], "rows": [[1], 2]}')
    Image.new("RGB", (4, 4)).save(tmp_path / "timeline.png")
    (tmp_path / "timeline.json").write_text("{")
    (tmp_path / "misses.json").write_text("[]")
    roc, timeline = read_insights(tmp_path)
    assert (roc.name, roc.title, roc.section, roc.rows) == ("roc", "ROC", Section.TEST, ((1,),))
    assert (timeline.title, timeline.section, timeline.rows) == ("timeline", Section.COURSE, ())


def test_what_there_is_no_data_for_is_not_drawn(tmp_path):
    material = Material(objective="val_auc", records=[fake.failed("0001")])
    assert draw_all(tmp_path, material, synthetic=False) == []
    assert not (tmp_path / "plots").exists()


def test_plots_of_an_earlier_pass_are_removed_and_other_files_stay(tmp_path):
    local = tmp_path / "plots" / "local"
    local.mkdir(parents=True)
    old = [tmp_path / "plots" / "seeds.png", tmp_path / "plots" / "seeds.json"]
    old += [local / "heatmaps.png", local / "heatmaps.json"]
    others = [tmp_path / "plots" / "roc.png", tmp_path / "plots" / "notes.txt"]
    for path in (*old, *others):
        path.write_text("{}")
    records = [fake.trial("0001"), fake.trial("0002", score=0.2)]
    material = Material(objective="robust_loss", records=records)
    drawn = draw_all(tmp_path, material, synthetic=False, keep=("roc",))
    assert drawn
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (*others, *drawn))


def test_a_wide_range_of_losses_is_drawn_on_a_logarithmic_axis():
    records = [fake.trial("0001", score=0.1), fake.trial("0002", score=50.0)]
    lines = curves.trials_by_rung(records, objective="val_loss")
    (axes,) = draw_trials(lines, objective="val_loss").axes
    assert axes.get_yscale() == "log"
    assert "lower is better" in axes.get_ylabel()


def test_roles_have_colours_of_their_own():
    assert figures.role_colour("documented, seed 1") == figures.ORANGE
    assert figures.role_colour("winner") == figures.BLUE
    assert figures.role_colour("finalist_2") not in (figures.ORANGE, figures.BLUE)
