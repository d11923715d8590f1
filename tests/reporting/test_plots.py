"""The data of charts, computed from the records of a run, and their pictures."""

import dataclasses
import math

from search.records import TrialStatus
from search.reporting.documents import draw
from search.reporting.plots import course, hyperparameters
from search.reporting.plots.failures import misses
from search.reporting.plots.style import page_data

OBJECTIVE = "robust_loss"


def many(made, count):
    """A search of so many configurations whose score follows the learning rate."""
    record = made.trials[0]
    return [
        dataclasses.replace(
            record,
            trial_id=f"{n:04d}",
            configuration=n,
            parent=None,
            score=math.log(1e-4 * 1.1**n) ** 2 + 0.01 * (n % 3),
            values={"learning_rate": 1e-4 * 1.1**n, "flip": n % 2 == 0},
        )
        for n in range(count)
    ]


def test_the_best_so_far_never_gets_worse_among_trials_of_equal_length(made):
    chart = course.history(made.events, made.state.trials, OBJECTIVE)
    by_epochs, by_time = chart.panels
    for panel in chart.panels:
        trials, best = panel.series
        assert trials.x == best.x
        assert list(trials.x) == sorted(trials.x)
    completed = [r for r in made.trials if r.status is TrialStatus.COMPLETED]
    assert len(by_epochs.series[0].y) == len(completed)
    assert by_epochs.series[1].y[-1] == made.trials[0].score
    assert by_time.x == "minutes"


def test_slices_show_every_configuration_once(made):
    chart = hyperparameters.slices(made.trials, OBJECTIVE)
    for panel in chart.panels:
        ids = [i for one in panel.series for i in one.ids]
        assert len(ids) == len(set(ids))
    assert hyperparameters.slices(made.trials[:2], OBJECTIVE) is None


def test_slices_of_wide_ranges_are_logarithmic(made):
    chart = hyperparameters.slices(many(made, 30), OBJECTIVE)
    assert {panel.x: panel.log for panel in chart.panels} == {
        "learning_rate": True,
        "flip": False,
    }


def test_what_has_one_value_wherever_it_is_active_has_no_slice(made):
    records = many(made, 9)
    held = [dataclasses.replace(r, values={**r.values, "held": 16}) for r in records[1:]]
    chart = hyperparameters.slices([records[0], *held], OBJECTIVE)
    assert {panel.x for panel in chart.panels} == {"learning_rate", "flip"}


def test_parallel_coordinates_place_values_between_the_ends(made):
    found = hyperparameters.parallel(many(made, 5), OBJECTIVE)
    assert [axis["name"] for axis in found["axes"]] == ["learning_rate", "flip", "robust_loss"]
    places = [line["places"] for line in found["lines"]]
    assert sorted(p[0] for p in places)[::4] == [0, 1]
    assert {p[1] for p in places} == {0, 1}
    assert sorted(line["good"] for line in found["lines"]) == [0, 0.25, 0.5, 0.75, 1]


def test_an_inactive_hyperparameter_has_no_place(made):
    records = many(made, 4)
    records[2] = dataclasses.replace(records[2], values={"learning_rate": 1e-4})
    lines = hyperparameters.parallel(records, OBJECTIVE)["lines"]
    assert [line["id"] for line in lines if None in line["places"]] == ["0002"]


def test_importance_is_said_only_where_it_can_be_told(made):
    assert hyperparameters.importance(made.trials, OBJECTIVE) is None
    chart = hyperparameters.importance(many(made, 60), OBJECTIVE)
    assert chart.panels[0].series[0].x[0] == "learning_rate"
    noise = [dataclasses.replace(r, score=(7919 * n % 101) / 101) for n, r in
             enumerate(many(made, 60))]  # fmt: skip
    assert hyperparameters.importance(noise, OBJECTIVE) is None


def test_learning_curves_go_on_from_their_parents(made):
    found = course.curves(made.state.trials, OBJECTIVE)
    child = next(r for r in made.trials if r.parent is not None)
    assert found[child.trial_id]["x"] == list(range(1, child.epochs + 1))
    chart = course.learning_curves(made.state.trials, OBJECTIVE)
    assert any(one.colour == "baseline" for one in chart.panels[0].series)


def test_roc_marks_where_each_network_decides(made):
    chart = made.charts["roc"]
    dots = [one for one in chart.panels[0].series if one.kind == "points"]
    assert [one.colour for one in dots] == ["baseline", "winner"]
    assert chart.numbers()[1]


def test_misses_are_the_wrong_decisions_the_most_confident_first(made):
    said = made.predictions["winner"]
    found = misses(said, made.predictions["baseline"], threshold=0.5)
    wrong = {p for p, q, y in zip(said.paths, said.probabilities, said.labels, strict=True)
             if (q >= 0.5) != y}  # fmt: skip
    assert {miss.path for miss in found} == wrong
    distance = [abs(math.log(m.probability / (1 - m.probability))) for m in found]
    assert distance == sorted(distance, reverse=True)


def test_every_chart_is_data_for_the_page_and_a_table(made):
    wanted = ["history", "slices", "curves", "retraining", "roc", "calibration"]
    assert list(made.charts) == wanted
    for chart in made.charts.values():
        panels = page_data(chart)["panels"]
        assert [len(panel["series"]) for panel in panels] == [len(p.series) for p in chart.panels]
        columns, rows = chart.numbers()
        assert {len(row) for row in rows} == {len(columns)}


def test_pictures_of_before_are_removed(made):
    stale = made.directory.plots_dir / "importance.png"
    stale.parent.mkdir(exist_ok=True)
    stale.write_bytes(b"")
    files = draw(made)
    assert not stale.exists()
    assert {path.name for path in files} == {path.name for path in stale.parent.glob("*.png")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
