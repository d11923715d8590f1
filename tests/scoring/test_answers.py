"""The content of `ablation.json`, from networks that were never trained."""

import io
import json

import numpy as np
import pytest
from search.scoring.answers import Arm, Scored, Trained, content
from search.scoring.refit import Candidate, Role

from search.config import RunConfig
from search.records import Predictions, Split
from search.scoring.factors import changed, parse_factors
from tests.scoring.test_factors import BASE

SEEDS = (0, 1, 2)


def network(role, seed, score, folder):
    return Candidate(
        role=role.name,
        seed=seed,
        values=role.values,
        parameters=7,
        weights_file=folder / role.name / str(seed),
        kept_epoch=1,
        score=score,
    )


def arms(factors):
    base = Role(name="baseline", values=BASE)
    found = [Arm(base="baseline", change=None, role=base, epochs=10)]
    for wish in parse_factors(factors):
        change = changed(wish, BASE, 10)
        role = Role(name=f"baseline.{change.name}", values=change.values)
        found.append(Arm(base="baseline", change=change, role=role, epochs=change.epochs))
    return found


def said(labels, shift, seed):
    drawn = np.random.default_rng(seed)
    noise = drawn.normal(0, 0.15, len(labels))
    probabilities = np.clip(0.5 + (labels - 0.5) * (0.3 + shift) + noise, 0.01, 0.99)
    names = tuple(f"{i}.jpeg" for i in range(len(labels)))
    return Predictions(
        split=Split.TEST,
        paths=names,
        patients=names,
        subtypes=("",) * len(labels),
        labels=labels,
        probabilities=probabilities,
    )


@pytest.fixture
def found(tiny_dataset, tmp_path):
    """One base; flips help clearly, no dropout hurts, other filters could not be trained."""
    labels = (np.arange(80) % 2).astype(np.int8)
    effects = {"baseline": 0.0, "baseline.flip=on": -0.2, "baseline.dropout=off": 0.2}
    trained, scored = [], {}
    for arm in arms("flip,dropout,filters=8"):
        name = arm.role.name
        if name not in effects:
            trained.append(Trained(arm=arm, networks=(), failed="out of memory"))
            continue
        trained.append(
            Trained(
                arm=arm,
                networks=tuple(
                    network(arm.role, seed, 0.5 + effects[name] + 0.01 * seed, tmp_path)
                    for seed in SEEDS
                ),
            )
        )
        scored[name] = {
            seed: Scored(threshold=0.5, test=said(labels, -effects[name], seed)) for seed in SEEDS
        }

    def make(scored=scored, trained=trained):
        return content(
            trained,
            scored,
            run="tiny",
            config=RunConfig(),
            dataset=tiny_dataset,
            epochs=10,
            repeats=3,
            openings=1,
            notes=["a note"],
        )

    return make


def test_every_question_that_was_asked_is_answered(found):
    ablation = found()
    json.dumps(ablation, allow_nan=False)
    answers = {one["factor"]: one for one in ablation["answers"]}
    assert answers["flip"]["validation"]["answer"] == "helps"
    assert answers["flip"]["validation"]["difference"]["value"] == pytest.approx(-0.2)
    assert answers["flip"]["test"]["answer"] == "helps"
    assert answers["dropout"]["validation"]["answer"] == "hurts"
    assert answers["dropout"]["test"]["answer"] == "hurts"
    assert answers["filters"]["failed"] == "out of memory"
    assert answers["filters"]["validation"] is answers["filters"]["test"] is None
    assert [q["name"] for q in ablation["questions"]] == ["dropout", "flip", "network"]
    sentences = {q["name"]: q["sentence"] for q in ablation["questions"]}
    assert sentences["flip"] == ("flip off → on (documented) helps on validation, helps on test.")
    assert "could not be trained" in sentences["network"]
    assert ablation["images"]["test"] == 80
    assert ablation["test_scorings"] == 9
    assert ablation["notes"][0] == "a note"


def test_without_a_test_set_answers_are_of_validation_only(found):
    ablation = found(scored={})
    assert ablation["images"]["test"] is None
    assert all(one["test"] is None for one in ablation["answers"])
    assert ablation["answers"][0]["validation"]["answer"] == "helps"


def test_only_seeds_that_both_were_trained_with_are_compared(found, tmp_path):
    base, flip = arms("flip")
    trained = [
        Trained(arm=base, networks=tuple(network(base.role, s, 0.5, tmp_path) for s in (0, 1))),
        Trained(arm=flip, networks=tuple(network(flip.role, s, 0.4, tmp_path) for s in (1, 2))),
    ]
    (answer,) = found(scored={}, trained=trained)["answers"]
    assert answer["seeds"] == [1]
    assert answer["validation"]["answer"] == "can't be told apart"


def test_the_terminal_shows_every_change_with_its_answer(found):
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    text = console.export_text()
    for words in ("Do horizontal flips help?", "off → on", "−0.200", "helps", "hurts", "seeds"):
        assert words in text, words
    assert "not trained: out of memory" in text
    assert max(map(len, text.splitlines())) <= 80
