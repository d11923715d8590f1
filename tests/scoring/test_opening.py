"""The kept look at the test: found again for the very same question, and for no other."""

import dataclasses

import numpy as np
import pytest
from search.scoring.opening import FILE, question, read_answers, write_answers
from search.scoring.refit import Candidate

from search.journal import EventKind
from search.records import Predictions, Split, Threshold
from search.run_directory import RunDirectory
from search.scoring import refit
from search.scoring.calibration import Calibration

IMAGES = ["fingerprint", 96, 3]


@pytest.fixture
def networks(tmp_path):
    """Two seeds, the second trained once more on train + val, and their ensemble."""
    found = []
    for seed in (0, 1):
        file = tmp_path / f"best-{seed}"
        file.write_text(f"weights {seed}")
        found.append(
            Candidate(
                role="winner",
                seed=seed,
                values={"size": 1},
                parameters=7,
                weights_file=file,
                kept_epoch=2,
                score=0.5,
            )
        )
    last = tmp_path / "final"
    last.write_text("final weights")
    found[1] = dataclasses.replace(found[1], final_weights=last)
    return [*found, refit.ensemble(found, "winner", direction="min")]


def ask(networks, *, temperature=1.5, threshold=0.4, rule="youden", images=IMAGES):
    return question(
        networks,
        [Calibration(temperature=temperature)] * len(networks),
        [Threshold(value=threshold, rule=rule, chosen_on="x", reached=0.9)] * len(networks),
        images=images,
    )


def said(number, count=5):
    return Predictions(
        split=Split.TEST,
        paths=tuple(f"test/{i}, é.jpeg" for i in range(count)),
        patients=tuple(f"p{i // 2}" for i in range(count)),
        subtypes=("virus", "", "", "bacteria", ""),
        labels=np.array([1, 0, 0, 1, 0], dtype=np.int8),
        probabilities=np.random.default_rng(number).random(count),
    )


@pytest.fixture
def kept(tmp_path, networks):
    """A run whose test was asked once, and what it said."""
    run = RunDirectory(tmp_path / "run")
    run.create()
    answers = [said(number) for number in range(3)]
    run.append(EventKind.TEST_SCORED, scorings=[], **write_answers(run, ask(networks), answers))
    return run, answers


def test_the_same_question_gets_the_same_answers_to_the_last_digit(kept, networks):
    run, answers = kept
    found = read_answers(run, ask(networks, temperature=1.5 + 1e-9))
    for one, other in zip(found, answers, strict=True):
        assert (one.split, one.paths, one.patients) == (other.split, other.paths, other.patients)
        assert one.subtypes == other.subtypes
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
    header = (run.root / FILE).read_text().splitlines()[0]
    assert (
        header == 'path,patient,label,subtype,"winner, seed 0","winner, seed 1","winner, ensemble"'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1.6},
        {"threshold": 0.41},
        {"rule": "0.5"},
        {"images": ["other films", 96, 3]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_question_is_not_answered(kept, networks, change):
    assert read_answers(kept[0], ask(networks, **change)) is None


def test_other_networks_are_not_answered_for(kept, networks):
    run, _ = kept
    assert read_answers(run, ask(networks[:2])) is None
    other = dataclasses.replace(networks[0], role="baseline")
    assert read_answers(run, ask([other, *networks[1:]])) is None
    # What is tested is the network trained on train + val, alone and in the ensemble.
    networks[1].weights_file.write_text("other weights")
    assert read_answers(run, ask(networks)) is not None
    networks[1].final_weights.write_text("other weights")
    assert read_answers(run, ask(networks)) is None


@pytest.mark.parametrize("damage", ["changed", "cut short", "gone", "never journaled"])
def test_answers_that_are_not_whole_are_not_used(kept, networks, damage):
    run, _ = kept
    file = run.root / FILE
    if damage == "changed":
        file.write_text(file.read_text().replace("virus", "bacteria"))
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "gone":
        file.unlink()
    else:
        run.journal_file.unlink()
    assert read_answers(run, ask(networks)) is None
