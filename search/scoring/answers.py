"""The answers of an ablation: the test opened once, differences and intervals, one JSON file.

Stands beside `ablation.py`, which trains what is judged here.

`RUN/ablation/ablation.json`, written last:

    version                 1
    run, finished           name of the run; ISO time
    synthetic, notice       as in `evaluation.json`
    objective, direction    the metric of "validation"; "min" or "max"
    epochs, repeats         of each training; seeds
    images                  {val, stressed, test (None without a test set)}
    test_metrics            names in order, the first decides
    test_scorings           networks scored on test
    test_openings           how often ablations of this run opened the test, this one included
    method                  {validation, test, answer}: a sentence each
    notes                   [sentence]
    bases                   [{base ("documented" or "winner"), values, options (of its training),
                              parameters, epochs, seeds [int], scores [one a seed],
                              test None or {metric: [one a seed]}}]
    answers                 [{base, factor, question, name, before, after, values, epochs,
                              parameters, failed (None or why it could not be trained),
                              seeds [int], scores [one a seed],
                              validation {difference {value, low, high}, per_seed [number],
                                          answer ("helps", "hurts", "can't be told apart")},
                              test None or {answer, metrics {metric:
                                  {over_patients {value, low, high}, over_seeds {…},
                                   per_seed [number], answer}}}}]
    questions               [{name, question, sentence}], in the order of the five

Differences are changed − base: of a loss, below 0 is better. Where `failed` is not None,
`validation` and `test` are None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from search.config import RunConfig, direction
from search.data.prepare import SealedTest
from search.errors import DataError
from search.journal import EventKind
from search.records import (
    SYNTHETIC_NOTICE,
    Dataset,
    Predictions,
    Split,
    to_json,
)
from search.run_directory import RunDirectory
from search.scoring import effects, factors
from search.scoring.factors import Change
from search.scoring.predictions import predict_subset
from search.scoring.refit import Candidate, Role
from search.scoring.threshold import choose_threshold
from search.tuning import checkpoint
from search.tuning.model import Setting, build_model, release_memory
from search.tuning.validation import predict

METHOD = {
    "validation": "Difference of the objective at the kept epoch, changed − unchanged, the mean "
    "over seeds; both networks of a pair have the same seed. Interval: Student's t over the seeds "
    "(95%).",
    "test": "Difference on the test, the mean over seeds. Two intervals: a bootstrap over patients "
    "(1,000 resamples, 95%), the same resamples for all networks, and Student's t over the seeds "
    "(95%).",
    "answer": "It helps or hurts where every interval lies on that side of 0; else it can't be "
    "told apart from no change. On test the log loss decides.",
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A configuration that is trained with every seed.

    Attributes:
        base: "documented" or "winner".
        change: What is changed of it, None for the base itself.
        role: How it is trained.
        epochs: For how long.
    """

    base: str
    change: Change | None
    role: Role
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """An arm and what its training gave.

    Attributes:
        arm: The arm.
        networks: A candidate a seed that could be trained.
        failed: Why there is none, or None.
    """

    arm: Arm
    networks: tuple[Candidate, ...]
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One trained network, scored on test.

    Attributes:
        threshold: Its own.
        test: Its probabilities of the test.
    """

    threshold: float
    test: Predictions

    @property
    def values(self) -> dict[str, float]:
        """Return `effects.TEST_METRICS`."""
        return effects.scores(self.test.labels, self.test.probabilities, self.threshold)


BySeed = dict[int, Scored]
"""The scored networks of one arm."""


def score_test(
    trained: Sequence[Trained],
    sealed: SealedTest,
    *,
    setting: Setting,
    config: RunConfig,
    directory: RunDirectory,
    console: Any,
) -> dict[str, BySeed]:
    """Open the test and let every network predict it.

    Args:
        trained: Every arm; nothing is trained after this.
        sealed: The test images.
        setting: Data and HyperModel.
        config: Of the run; its rule gives each network its threshold, on stressed validation.
        directory: Of the ablation; its journal says that the test was opened.
        console: Where a person watches.

    Returns:
        Networks by role; {} without a test set.
    """
    try:
        test = sealed.open()
    except DataError as error:
        console.warn(f"{error}. Answers are given on validation only")
        return {}
    views = setting.dataset.views
    scored: dict[str, BySeed] = {}
    jobs = [(one.arm.role.name, network) for one in trained for network in one.networks]
    for done, (name, network) in enumerate(jobs):
        console.progress("Scoring the test", done, len(jobs))
        model = build_model(setting, network.values, config.seed)
        checkpoint.load(model, network.weights_file)
        threshold = choose_threshold(
            views.labels,
            predict(model, views.open_array(), np.arange(len(views))),
            config.threshold_rule,
            chosen_on="stressed validation",
        )
        scored.setdefault(name, {})[network.seed or 0] = Scored(
            threshold=threshold.value, test=predict_subset(model, test, Split.TEST)
        )
        release_memory()
    console.progress("Scoring the test", len(jobs), len(jobs))
    directory.append(EventKind.TEST_SCORED, scorings=[], networks=len(jobs))
    return scored


def content(
    trained: Sequence[Trained],
    scored: dict[str, BySeed],
    *,
    run: str,
    config: RunConfig,
    dataset: Dataset,
    epochs: int,
    repeats: int,
    openings: int,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the content of `ablation.json`.

    Args:
        trained: Every arm, each base before its changes.
        scored: Networks scored on test, by role.
        run: Name of the run.
        config: Of the run.
        dataset: Its images.
        epochs: Of each training.
        repeats: Seeds.
        openings: How often the test was opened so far.
        notes: Sentences to add to the usual cautions.
    """
    bases = {one.arm.base: one for one in trained if one.arm.change is None}
    answers = [
        _answer(one, one.arm.change, bases[one.arm.base], scored, config)
        for one in trained
        if one.arm.change is not None
    ]
    tested = next((one.test for seeds in scored.values() for one in seeds.values()), None)
    ready: dict[str, Any] = to_json(
        {
            "version": 1,
            "run": run,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "synthetic": dataset.synthetic,
            "notice": SYNTHETIC_NOTICE if dataset.synthetic else None,
            "objective": config.choice,
            "direction": direction(config.choice),
            "epochs": epochs,
            "repeats": repeats,
            "images": {
                "val": len(dataset.val),
                "stressed": len(dataset.views),
                "test": None if tested is None else len(tested.labels),
            },
            "test_metrics": effects.TEST_METRICS,
            "test_scorings": sum(len(seeds) for seeds in scored.values()),
            "test_openings": openings,
            "method": METHOD,
            "notes": [*notes, *_cautions(answers)],
            "bases": [_base(one, scored.get(one.arm.role.name, {})) for one in bases.values()],
            "answers": answers,
            "questions": [
                {"name": name, "question": text, "sentence": factors.summary(mine)}
                for name, text in factors.QUESTIONS.items()
                if (mine := [one for one in answers if one["question"] == name])
            ],
        }
    )
    return ready


def _base(trained: Trained, scored: BySeed) -> dict[str, Any]:
    found = [one.values for one in scored.values()]
    return {
        "base": trained.arm.base,
        "values": trained.arm.role.values,
        "options": trained.arm.role.options,
        "epochs": trained.arm.epochs,
        **_networks(trained.networks),
        "test": {name: [values[name] for values in found] for name in effects.TEST_METRICS}
        if found
        else None,
    }


def _answer(
    trained: Trained,
    change: Change,
    base: Trained,
    scored: dict[str, BySeed],
    config: RunConfig,
) -> dict[str, Any]:
    unchanged = {network.seed: network for network in base.networks}
    pairs = [(one, unchanged[one.seed]) for one in trained.networks if one.seed in unchanged]
    failed, validation, test = trained.failed, None, None
    if pairs:
        per_seed = [one.score - other.score for one, other in pairs]
        difference = effects.over_seeds(per_seed)
        validation = {
            "difference": difference,
            "per_seed": per_seed,
            "answer": effects.answer(config.choice, [difference]),
        }
        names = (trained.arm.role.name, base.arm.role.name)
        test = _on_test(*(scored.get(name, {}) for name in names), seed=config.seed)
    elif failed is None:
        failed = "no seed was trained both with and without the change"
    return {
        "base": trained.arm.base,
        "factor": change.factor,
        "question": change.question,
        "name": change.name,
        "before": change.before,
        "after": change.after,
        "values": change.values,
        "epochs": change.epochs,
        **_networks([one for one, _ in pairs]),
        "failed": failed,
        "validation": validation,
        "test": test,
    }


def _on_test(ours: BySeed, theirs: BySeed, *, seed: int) -> dict[str, Any] | None:
    pairs = [(ours[number], theirs[number]) for number in sorted(ours) if number in theirs]
    if not pairs:
        return None
    images = pairs[0][0].test
    patients = effects.over_patients(
        images.labels,
        np.stack([one.test.probabilities for one, _ in pairs]),
        np.stack([other.test.probabilities for _, other in pairs]),
        images.patients,
        thresholds=([one.threshold for one, _ in pairs], [other.threshold for _, other in pairs]),
        seed=seed,
    )
    metrics = {}
    for name in effects.TEST_METRICS:
        per_seed = [one.values[name] - other.values[name] for one, other in pairs]
        seeds = effects.over_seeds(per_seed)
        metrics[name] = {
            "over_patients": patients[name],
            "over_seeds": seeds,
            "per_seed": per_seed,
            "answer": effects.answer(name, [patients[name], seeds]),
        }
    return {"answer": metrics[effects.TEST_METRICS[0]]["answer"], "metrics": metrics}


def _networks(networks: Sequence[Candidate]) -> dict[str, Any]:
    return {
        "parameters": networks[0].parameters if networks else 0,
        "seeds": [network.seed for network in networks],
        "scores": [network.score for network in networks],
    }


def _cautions(answers: Sequence[dict[str, Any]]) -> list[str]:
    notes = [
        f"Each of the {len(answers)} changes is judged at 95%: were all of them without effect, "
        "about one in twenty would be said to help or hurt on validation all the same."
    ]
    if any(one["factor"] == "epochs" for one in answers):
        notes.append(
            "The epoch with the best objective on validation is kept, and more epochs are more to "
            "choose from: on validation they look a little better than they are."
        )
    return notes
