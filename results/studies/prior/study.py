"""Compares four heads with the prior's recipe on validation; the design is in README.md."""

from __future__ import annotations

import argparse
import csv
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SIZE, EPOCHS, LAST, SEEDS = 96, 12, 3, (1, 2, 3)
RECIPE = {
    "initializer": "scaled",
    "crop_min_area": 0.08,
    "schedule": "cosine",
    "weight_decay": 0.01,
    "ema": 0.999,
}
ONE_LAYER = {"dense_layers": 1, "dense_units_1": 128, "dense_dropout_1": 0.3}
HEADS: dict[str, dict[str, Any]] = {
    "flatten": {"head": "flatten"},
    "average": {"head": "global_average"},
    "average, one layer": {"head": "global_average", **ONE_LAYER},
    "flatten, one layer": {"head": "flatten", **ONE_LAYER},
}
RUNS = Path("runs/prior")


def train(job: tuple[str, str, int]) -> tuple[str, int, float]:
    """Train one head with one seed and return its objective; goes on where it was stopped."""
    data, head, seed = job
    from search import backend

    backend.load()
    from hypermodels import DocumentedCNN
    from search.config import RunConfig
    from search.data.prepare import prepare
    from search.data.sources import find_source
    from search.records import TrialSpec
    from search.tuning import space as spaces
    from search.tuning.model import Setting
    from search.tuning.trial import train_trial

    config = RunConfig(data=data, image_size=SIZE, seed=seed)
    dataset, _ = prepare(config, find_source(RunConfig(data=data)))
    objective = config.objective
    hypermodel = DocumentedCNN(image_size=SIZE, train_size=len(dataset.train), epochs=EPOCHS)
    setting = Setting(dataset=dataset, hypermodel=hypermodel, objective=objective, prevalence=0.743)
    values = spaces.complete(spaces.declared(hypermodel), {**RECIPE, **HEADS[head]})
    spec = TrialSpec(
        trial_id=f"{head}-{seed}",
        values=values,
        seed=1000 + seed,
        epochs=EPOCHS,
        directory=RUNS / f"{head}-{seed}".replace(", ", "-").replace(" ", "-"),
        precision="mixed_bfloat16",
    )
    result = train_trial(spec, setting)
    if result.failure is not None:
        raise RuntimeError(f"{spec.trial_id}: {result.failure.message}")
    scores = [record.metrics[objective] for record in result.epochs[-LAST:]]
    return head, seed, sum(scores) / len(scores)


def main() -> None:
    """Train everything, two at a time, and write heads.csv."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="../shared/chest_xray")
    data = parser.parse_args().data
    jobs = [(data, head, seed) for seed in SEEDS for head in HEADS]
    rows = []
    with get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        for head, seed, score in pool.imap(train, jobs):
            print(f"{head}, seed {seed}: {score:.4f}", flush=True)
            rows.append({"head": head, "seed": seed, "objective": f"{score:.4f}"})
    with open(Path(__file__).parent / "heads.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
