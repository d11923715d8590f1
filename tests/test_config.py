"""The rows of options: checks, presets, what may change on resume, config.json and back."""

import json

import pytest

from search.config import (
    PRESETS,
    ExecutorKind,
    RunConfig,
    differences,
    with_options,
    with_preset,
)
from search.errors import ConfigurationError
from search.records import from_json, to_json

RAY = {"executor": ExecutorKind.RAY}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factor": 1}, "--factor 1"),
        ({"objective": "val_charm"}, "--objective val_charm"),
        ({"threshold_rule": "best"}, "--threshold-rule best"),
        ({"name": "../up"}, "--name"),
        ({"budget": "2 days"}, "--budget 2 days"),
        ({"seed": -1}, "--seed -1"),
        ({"prevalence": 1.5}, "--prevalence 1.5"),
        ({"refit_image_size": 16}, "--refit-image-size 16"),
        ({"classes": ("a",)}, "--classes a: give two"),
        ({"classes": ("a", "A")}, "--classes a,A: give two different"),
        ({"classes": ("a", "b", "c")}, "--classes a,b,c: give two"),
        ({"patients": "("}, "--patients [(]: not a regular expression"),
        ({"patients": "p[0-9]+"}, "has 0 groups"),
        ({"patients": "(a)(b)"}, "has 2 groups"),
        ({**RAY, "workers": 0}, "--workers 0 --executor ray"),
        ({"address": "head:6379"}, "only with --executor ray"),
        ({"gpus_per_trial": 0.25}, "only with --executor ray"),
        ({**RAY, "gpus_per_trial": 2}, "--gpus-per-trial 2"),
        ({"cache_dir": "s3://bucket/cache"}, "s3://bucket/cache: must be a folder"),
    ],
)
def test_what_cannot_be_is_named_with_its_option(options, said):
    with pytest.raises(ConfigurationError, match=said):
        RunConfig(**options)


def test_an_explicit_option_wins_over_the_preset():
    assert with_preset("quick", {}).image_size == 64
    assert with_preset("quick", {"image_size": 96}).image_size == 96


def test_the_retraining_has_the_image_size_of_the_search_unless_it_is_given():
    quick = with_preset("quick", {})
    assert (quick.refit.image_size, quick.refit_area) == (96, 2.25)
    assert with_preset("quick", {"image_size": 128}).refit.image_size == 128
    assert with_options(quick, {"refit_image_size": 128}).refit.image_size == 128
    assert with_preset("standard", {}).refit == with_preset("standard", {})


def test_varying_what_a_preset_holds_frees_it():
    assert with_preset("quick", {}).fix["base_filters"] == 16
    assert "base_filters" not in with_preset("quick", {"search": ("base_filters",)}).fix
    assert with_preset("quick", {"fix": {"flip": True}}).fix["separable"] is True


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_configuration(preset):
    assert with_preset(preset, {}).preset == preset


def test_the_shortest_trials_of_a_preset_are_no_longer_than_the_longest_asked_for():
    assert with_preset("quick", {"max_epochs": 1}).min_epochs == 1
    with pytest.raises(ConfigurationError, match="--min-epochs 5 with --max-epochs 2"):
        with_preset("quick", {"max_epochs": 2, "min_epochs": 5})


def test_config_json_is_read_back_as_it_was():
    config = RunConfig(
        view_strength={"crop_area": (0.6, 0.9), "shift": 0.1},
        enqueue=({"flip": True},),
        executor=ExecutorKind.RAY,
        workers=3,
        prevalence=0.3,
    )
    assert from_json(RunConfig, json.loads(json.dumps(to_json(config)))) == config


def test_resume_refuses_what_changes_the_search_and_accepts_the_rest():
    stored = RunConfig()
    assert differences(stored, stored) == []
    grown = RunConfig(refit_epochs=3, top=2, choose_by="val_auc", iterations=4)
    assert differences(stored, grown) == []
    changed = differences(stored, RunConfig(seed=9, factor=4))
    assert [name for name, _, _ in changed] == ["factor", "seed"]
    shrunk = differences(RunConfig(iterations=3), RunConfig(iterations=2))
    assert shrunk == [("iterations", 3, 2)]


def test_stored_options_hold_where_none_is_given_now():
    stored = with_preset("quick", {"seed": 9, "fix": {"flip": True}})
    assert with_options(stored, {}) == stored
    assert with_options(stored, {"top": 2}).top == 2
    # The same command with --resume added gives the same options.
    again = {"preset": "quick", "seed": 9, "fix": {"flip": True}}
    assert with_options(stored, again) == stored
