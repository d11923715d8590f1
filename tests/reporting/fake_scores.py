"""Two made-up models on a made-up test set: predictions, curves and the `evaluation.json` of it."""

import functools

import fake_runs as fake
import numpy as np
from search.reporting.insights.material import Material
from search.reporting.trials import refit_histories, refit_rows

from search.records import Predictions, Split, Threshold, to_json
from search.reporting.progress import RunProgress
from search.scoring.comparison import Scored, evaluation_report
from search.scoring.curves import score_curves
from search.scoring.predictions import evaluate

THRESHOLDS = {"documented": 0.42, "winner": 0.31}
REPEATS = 40


def said(level, seed=0, count=120):
    """Predictions that are the better the higher the level; a third of the images is healthy."""
    drawn = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 > 0).astype(np.int8)
    logits = 1.5 * drawn.normal(size=count) + level * (2 * labels - 1)
    kinds = [("bacteria", "virus")[i % 2] if label else "" for i, label in enumerate(labels)]
    return Predictions(
        split=Split.TEST,
        paths=tuple(f"test/{i}.jpeg" for i in range(count)),
        patients=tuple(f"p{i // 2}" for i in range(count)),
        subtypes=tuple(kinds),
        labels=labels,
        probabilities=1 / (1 + np.exp(-logits)),
    )


def scored(role, level, seeds=2):
    """One side of the comparison; seed 1 is exported."""
    threshold = Threshold(
        value=THRESHOLDS[role],
        rule="sensitivity=0.95",
        chosen_on="stressed validation (n = 99)",
        reached=0.951,
    )
    predictions = [said(level, seed) for seed in range(seeds)]
    evaluations = tuple(
        evaluate(p, threshold, role=role, seed=seed, bootstrap_seed=0, repeats=REPEATS)
        for seed, p in enumerate(predictions)
    )
    return Scored(
        role=role,
        values=fake.DOCUMENTED,
        parameters=1,
        exported_seed=seeds - 1,
        test=evaluations,
        validation=(),
        predictions=predictions[-1],
    )


@functools.cache
def material(seeds=2):
    """A run with everything but heatmaps."""
    sides = {"documented": scored("documented", 0.8, seeds), "winner": scored("winner", 2.0, seeds)}
    evaluation = evaluation_report(
        sides["winner"],
        sides["documented"],
        objective="robust_loss",
        synthetic=False,
        test_scorings=2 * seeds,
        bootstrap_seed=0,
        repeats=REPEATS,
    )
    events = list(fake.FakeRun(seeds=seeds).events())
    progress = RunProgress("robust_loss")
    for event in events:
        progress.apply(event)
    shown = {role: side.predictions for role, side in sides.items()}
    return Material(
        objective="robust_loss",
        records=progress.records,
        events=events,
        histories=refit_histories(refit_rows(events)),
        evaluation=to_json(evaluation),
        predictions={role: (p.labels, p.probabilities) for role, p in shown.items()},
        curves={
            role: score_curves(p, THRESHOLDS[role], repeats=REPEATS, seed=0)
            for role, p in shown.items()
        },
    )
