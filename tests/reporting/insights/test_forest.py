"""Importance and marginal effects, of searches whose truth is known."""

import fake_runs as fake
import numpy as np
import pytest
from search.reporting.insights import forest
from search.reporting.insights.importance import claimed, importance_and_marginals, reading
from search.reporting.insights.material import Material

from search.records import TrialStatus


def searched(score, count=60, seed=0, rungs=(1, 3)):
    """Trials of drawn configurations; every third goes on to the next rung, which halves losses."""
    drawn = np.random.default_rng(seed)
    records = []
    for number in range(count):
        values = {
            "strong": ("a", "b")[int(drawn.integers(2))],
            "weak": int(drawn.integers(2)),
            "idle": float(drawn.uniform(1, 100)),
            "fixed": 7,
        }
        if values["strong"] == "a":
            values["inner"] = int(drawn.integers(3))
        for rung, epochs in enumerate(rungs):
            if rung and number % 3:
                break
            records.append(
                fake.trial(
                    f"{len(records):04d}",
                    configuration=number,
                    rung=rung,
                    epochs=epochs,
                    target_epochs=epochs,
                    values=values,
                    score=float(score(values, drawn) / 2**rung),
                )
            )
    return records


def known(values, drawn):
    """A loss whose logarithm has variance 1 by "strong", 0.25 by "weak" and little by chance."""
    effect = (values["strong"] == "b") * 2.0 + values["weak"] * 1.0
    return np.exp(effect + 0.05 * drawn.normal())


@pytest.fixture(scope="module")
def found():
    return forest.effects(searched(known), objective="robust_loss")


def effect(found, name):
    return next(e for e in found.effects if e.name == name)


def test_importance_is_the_share_of_the_variance_that_each_explains(found):
    assert [e.name for e in found.effects][:2] == ["strong", "weak"]
    # 0.8 and 0.2; a forest understates.
    assert 0.45 < effect(found, "strong").importance < 0.9
    assert 0.05 < effect(found, "weak").importance < 0.25
    assert effect(found, "idle").importance < 0.05
    assert sum(e.importance for e in found.effects) < 1.2
    assert found.skill > 0.8
    assert (found.configurations, found.trials, found.epochs) == (60, 80, 3)


def test_intervals_hold_the_estimates(found):
    for e in found.effects:
        assert 0 <= e.importance_low <= e.importance <= e.importance_high <= 1
        for low, value, high in zip(e.low, e.expected, e.high, strict=True):
            assert low <= value <= high


def test_only_what_passes_chance_is_claimed(found):
    assert next(e.name for e in found.effects if claimed(found, e)) == "strong"
    assert not claimed(found, effect(found, "idle"))
    assert found.chance < effect(found, "strong").importance
    assert reading(found).startswith("Beyond chance: strong ")


def test_marginals_hold_for_the_most_epochs_in_the_unit_of_the_score(found):
    strong = effect(found, "strong")
    assert strong.levels == ("a", "b")
    # e^0.5 and e^2.5, both halved by the second rung, and drawn towards their mean.
    assert np.exp(0.5) / 2 < strong.expected[0] < strong.expected[1] < np.exp(2.5) / 2 * 1.4
    assert strong.expected[1] / strong.expected[0] == pytest.approx(np.exp(2), rel=0.5)


def test_a_hyperparameter_counts_as_often_as_it_is_there(found):
    inner = effect(found, "inner")
    assert inner.active == pytest.approx(0.5, abs=0.15)
    assert inner.levels == (0, 1, 2)
    assert inner.importance < 0.05


def test_what_has_one_value_is_left_out(found):
    assert "fixed" not in [e.name for e in found.effects]


def test_many_values_are_asked_at_few_places(found):
    idle = effect(found, "idle")
    assert idle.numeric
    assert 2 < len(idle.levels) <= forest.MAX_LEVELS
    assert list(idle.levels) == sorted(idle.levels)


def test_noise_is_called_noise():
    noise = forest.effects(
        searched(lambda values, drawn: np.exp(drawn.normal())), objective="robust_loss"
    )
    assert not any(claimed(noise, e) for e in noise.effects)
    assert "Beyond chance" not in reading(noise)


def test_higher_can_be_better():
    records = searched(lambda values, drawn: 0.5 + 0.1 * (values["strong"] == "b"), rungs=(1,))
    found = forest.effects(records, objective="val_auc")
    strong = effect(found, "strong")
    assert found.effects[0] is strong
    assert strong.importance > 0.5
    assert strong.expected == pytest.approx((0.5, 0.6), abs=0.03)


def test_too_little_says_nothing():
    assert forest.effects([], objective="robust_loss") is None
    assert forest.effects(searched(known, count=5), objective="robust_loss") is None
    same = searched(lambda values, drawn: 0.3, rungs=(1,))
    assert forest.effects(same, objective="robust_loss") is None
    failed = [fake.failed(f"{i:04d}") for i in range(40)]
    assert all(record.status is TrialStatus.FAILED for record in failed)
    assert forest.effects(failed, objective="robust_loss") is None


def test_few_configurations_are_shown_but_nothing_is_claimed():
    found = forest.effects(searched(known, count=12), objective="robust_loss")
    assert not any(claimed(found, e) for e in found.effects)
    assert reading(found).startswith("Too few to tell: 12 configurations")


def test_the_same_trials_give_the_same_numbers():
    first, second = (
        forest.effects(searched(known, count=20), objective="robust_loss") for _ in range(2)
    )
    assert first == second


def test_importance_and_marginals_are_tables_with_the_method_named():
    material = Material(objective="robust_loss", records=searched(known))
    importance, marginals = importance_and_marginals(material)
    assert [row[0] for row in importance.rows] == [e.name for e in material.effects.effects]
    assert importance.rows[0][4] == "yes"
    assert importance.rows[-1][4] == "no"
    assert "Functional ANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014)" in importance.caption
    strong = [row[1:] for row in marginals.rows if row[0] == "strong"]
    assert [row[0] for row in strong] == ["a", "b"]
    assert [row[1] for row in strong] == list(material.effects.effects[0].expected)
    assert "best on average: strong=a" in marginals.reading
    assert importance_and_marginals(Material(objective="robust_loss")) == []
