"""One factor changed and nothing else."""

import pytest

from search.errors import ConfigurationError, RunDirectoryError
from search.run_directory import RunDirectory
from search.scoring.effects import (
    FACTORS,
    FILE,
    QUESTIONS,
    changed,
    parse_factors,
    read_report,
)

BASE = {
    "base_filters": 16,
    "activation": "relu",
    "batch_norm": True,
    "initializer": "keras",
    "conv_dropout": 0.2,
    "dense_layers": 2,
    "dense_dropout_1": 0.7,
    "dense_dropout_2": 0.5,
    "flip": False,
    "batch_size": 16,
    "learning_rate": 0.001,
}
DROPOUTS = {"conv_dropout", "dense_dropout_1", "dense_dropout_2"}


def test_every_factor_changes_only_its_own_values_and_every_question_has_one():
    own = {
        "epochs": set(),
        "batch_size": {"batch_size"},
        "batch_norm": {"batch_norm"},
        "batch_norm_scaled": {"batch_norm", "initializer"},
        "dropout": DROPOUTS,
        "flip": {"flip"},
        "filters": {"base_filters"},
        "activation": {"activation"},
    }
    assert set(own) == set(FACTORS)
    found = [changed(*request, BASE, 10) for request in parse_factors("all")]
    assert {change.question for change in found} == set(QUESTIONS)
    for change in found:
        assert change.values.keys() == BASE.keys()
        differing = {name for name in BASE if change.values[name] != BASE[name]}
        assert differing == own[change.factor], change.factor
        assert change.epochs == (20 if change.factor == "epochs" else 10)
        assert change.before != change.after
    assert len({change.name for change in found}) == len(found)


@pytest.mark.parametrize(
    ("factor", "base", "before", "after"),
    [
        ("batch_norm", {"batch_norm": False}, "off", "on"),
        ("flip", {"flip": True}, "on", "off"),
        ("batch_size", {"batch_size": 64}, "64", "32"),
        ("filters", {"base_filters": 32}, "32", "16"),
        ("activation", {"activation": "silu"}, "silu", "relu"),
        ("dropout", dict.fromkeys(DROPOUTS, 0.0), "off", "on"),
    ],
)
def test_what_the_base_has_already_is_turned_round(factor, base, before, after):
    change = changed(factor, "", {**BASE, **base}, 10)
    assert (change.before, change.after) == (before, after)


def test_levels_are_read():
    requested = parse_factors("epochs=25, filters=8,filters=32,activation=silu")
    found = [changed(*request, BASE, 10) for request in requested]
    assert [c.name for c in found] == ["epochs=25", "filters=8", "filters=32", "activation=silu"]
    assert (found[0].epochs, found[1].values["base_filters"]) == (25, 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("magic", "no such factor"),
        ("filters=many", "whole number"),
        ("epochs=0", "whole number"),
        ("flip=maybe", "on or off"),
        ("dropout=half", "on or off"),
        ("flip=off", "that is what the configuration has"),
        ("filters=16", "that is what the configuration has"),
    ],
)
def test_a_wrong_factor_is_one_clear_message(text, said):
    with pytest.raises(ConfigurationError, match=said):
        [changed(*request, BASE, 10) for request in parse_factors(text)]


def test_what_is_inactive_is_changed_by_its_own_factor_only_and_what_is_not_there_told():
    base = {name: v for name, v in BASE.items() if name not in ("batch_norm", "activation")}
    off = changed("batch_norm", "", base, 10)
    assert (off.before, off.after, off.values) == ("on", "off", {**base, "batch_norm": False})
    assert changed("flip", "", base, 10).values == {**base, "flip": True}
    with pytest.raises(ConfigurationError, match="no hyperparameter 'base_filters'"):
        changed("filters", "", {"batch_size": 16}, 10)


def test_a_report_is_read_back_as_it_was_written(tmp_path):
    run = RunDirectory(tmp_path)
    assert read_report(run) is None
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / FILE).write_text("[]")
    with pytest.raises(RunDirectoryError, match=FILE):
        read_report(run)
