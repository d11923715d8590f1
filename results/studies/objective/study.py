"""Does the score of a configuration repeat, and does it rank as the test does?

The design, fixed before the first result, is in README.md beside this file. Run from the checkout:

    python results/studies/objective/study.py train --data ../shared/chest_xray
    python results/studies/objective/study.py tables

`train` goes on where it was stopped. Probabilities are kept under `runs/objective` (ignored by
git); `tables` makes the committed tables of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

SIZE, EPOCHS, SEEDS = 64, 6, 2
CONFIGURATIONS, LIVING, FROZEN = 26, 24, 12
LAST_EPOCHS = (4, 5, 6)
CROPS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.08)
HELD = {"separable": True, "base_filters": 16}
PREVALENCE = 0.743
HELD_OUT = ("shift", "zoom_out")
"""Kinds of view that no augmentation of the space makes."""

RUNS = Path("runs/objective")
OUT = Path(__file__).parent


def design() -> list[dict[str, Any]]:
    """Return the configurations: two documented ones, a standard recipe, the others drawn."""
    import keras_tuner as kt

    from hypermodels import DocumentedCNN
    from search.tuning import space as spaces

    space = kt.HyperParameters()
    DocumentedCNN(image_size=SIZE, train_size=1).declare(space)
    recipe = {
        "initializer": "scaled",
        "crop_min_area": 0.08,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "ema": 0.999,
    }
    chosen = [{}, {"head": "global_average"}, recipe]
    for number in range(len(chosen), CONFIGURATIONS):
        drawn = spaces.sample(space, seed=f"objective/{number}")
        chosen.append({**drawn, **HELD, "crop_min_area": CROPS[number % len(CROPS)]})
    return [spaces.complete(space, values) for values in chosen]


def setting(data: str) -> tuple[Any, Any]:
    """Return the data and HyperModel of every training, and the test set, sealed."""
    from hypermodels import DocumentedCNN
    from search.config import RunConfig
    from search.data.prepare import prepare
    from search.data.sources import find_source
    from search.tuning.model import Setting

    config = RunConfig(data=data, image_size=SIZE)
    dataset, sealed = prepare(config, find_source(config))
    hypermodel = DocumentedCNN(image_size=SIZE, train_size=len(dataset.train), epochs=EPOCHS)
    common = Setting(
        dataset=dataset, hypermodel=hypermodel, objective="val_auc", prevalence=PREVALENCE
    )
    return common, sealed


def statistics(model: Any, twin: Any, dataset: Any) -> Iterator[tuple[str, Any]]:
    """Yield each way to estimate statistics at frozen weights: its name, and what gives them.

    Args:
        model: The network.
        twin: The same without augmentation layers.
        dataset: Its images.
    """
    from search.tuning.normalization import StatisticsImages, reestimated

    everything = len(dataset.train)
    for draw in range(4):
        few = StatisticsImages(dataset.train, count=256, seed=draw)
        some = StatisticsImages(dataset.train, count=1024, seed=draw)
        every = StatisticsImages(dataset.train, count=everything, seed=draw)
        yield f"256 augmented, dropout/{draw}", (model, reestimated(model, few, dropout=True))
        yield f"1024 augmented, dropout/{draw}", (model, reestimated(model, some, dropout=True))
        yield f"1024 augmented/{draw}", (model, reestimated(model, some))
        yield f"1024 plain/{draw}", (twin, reestimated(twin, some))
        yield f"all augmented, dropout/{draw}", (model, reestimated(model, every, dropout=True))
        yield f"all augmented/{draw}", (model, reestimated(model, every))
        yield f"all plain/{draw}", (twin, reestimated(twin, every))


def plain_twin(common: Any, values: dict[str, Any], model: Any) -> Any:
    """Return the same network without augmentation layers, with the same weights."""
    from search.tuning.model import build_model

    off = {"crop_min_area": 1.0, "tone_jitter": 0.0, "flip": False, "rotation": 0.0, "noise": 0.0}
    twin = build_model(common, {**values, **off}, 0, precision="mixed_bfloat16")
    weights = {v.path: v for v in model.weights if "seed_generator" not in v.path}
    for variable in twin.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])
    return twin


def run_job(job: dict[str, Any]) -> str:
    """Train one configuration with one seed, and keep what it says of every image."""
    from search import backend

    backend.load()
    from search.records import TrialSpec
    from search.tuning import checkpoint
    from search.tuning.model import averaged, build_model, release_memory
    from search.tuning.normalization import StatisticsImages, reestimated
    from search.tuning.trial import train_trial
    from search.tuning.validation import predict

    common, sealed = setting(job["data"])
    dataset = common.dataset
    views, test = dataset.views, sealed.open()
    folder = RUNS / job["name"]
    fixed = StatisticsImages(dataset.train)
    kept: dict[str, np.ndarray] = {}
    times: dict[str, list[float]] = {}

    def say(model: Any, name: str) -> None:
        kept[f"{name}/val"] = predict(model, dataset.val.open_array(), dataset.val.rows)
        kept[f"{name}/views"] = predict(model, views.open_array(), np.arange(len(views)))

    for epoch in LAST_EPOCHS:
        spec = TrialSpec(
            trial_id=job["name"],
            values=job["values"],
            seed=1000 + job["seed"],
            epochs=epoch,
            directory=folder / "trial",
            precision="mixed_bfloat16",
        )
        result = train_trial(spec, common)
        if result.failure is not None:
            raise RuntimeError(f"{job['name']}: {result.failure.message}")
        model = build_model(common, job["values"], spec.seed, precision="mixed_bfloat16")
        checkpoint.load(model, folder / "trial" / checkpoint.LAST)
        few = StatisticsImages(dataset.train, count=256, seed=100 * job["seed"] + epoch)
        with averaged(model):
            with reestimated(model, few, dropout=True):
                say(model, f"before/{epoch}")
            with reestimated(model, fixed):
                say(model, f"fixed/{epoch}")
                if epoch == EPOCHS:
                    kept["fixed/test"] = predict(model, test.open_array(), test.rows)
            if epoch == EPOCHS and job["frozen"]:
                twin = plain_twin(common, job["values"], model)
                for name, (network, estimated) in statistics(model, twin, dataset):
                    begin = time.perf_counter()
                    with estimated:
                        times.setdefault(name.partition("/")[0], []).append(
                            time.perf_counter() - begin
                        )
                        say(network, f"frozen/{name}")
        release_memory()
    epochs = checkpoint.read_epochs(folder / "trial", up_to=EPOCHS)
    about = {
        **job,
        "parameters": result.parameters,
        "epoch_seconds": float(np.median([record.seconds for record in epochs])),
        "statistics_seconds": {name: float(np.median(found)) for name, found in times.items()},
    }
    np.savez_compressed(
        folder / "said.npz",
        val_labels=dataset.val.labels,
        view_labels=views.labels,
        view=views.view,
        view_names=np.array(views.names),
        test_labels=test.labels,
        **kept,
    )
    (folder / "job.json").write_text(json.dumps(about, indent=1))
    return str(job["name"])


def train(options: argparse.Namespace) -> None:
    """Train what is missing, two at a time."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", OMP_NUM_THREADS="1")
    values_of = design()
    jobs = [
        {
            "name": f"{number:02d}-{seed}",
            "configuration": number,
            "seed": seed,
            "values": values,
            "data": options.data,
            "frozen": seed == 0 and number < FROZEN,
        }
        for number, values in enumerate(values_of)
        for seed in range(SEEDS)
    ]
    missing = [job for job in jobs if not (RUNS / job["name"] / "job.json").exists()]
    RUNS.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with get_context("spawn").Pool(options.workers, maxtasksperchild=4) as pool:
        for count, name in enumerate(pool.imap_unordered(run_job, missing), 1):
            minutes = (time.perf_counter() - begin) / 60
            print(f"{count}/{len(missing)} {name} after {minutes:.1f} min", flush=True)


def criteria(said: Any, prefix: str) -> dict[str, float]:
    """Return every criterion of one state of one network, larger is better."""
    from search.tuning.validation import auc, log_loss

    clean, labels = said[f"{prefix}/val"], said["val_labels"].astype(int)
    views, view_labels = said[f"{prefix}/views"], said["view_labels"].astype(int)
    kinds = {name: said["view"] == n for n, name in enumerate(said["view_names"])}
    aucs = {name: auc(views[chosen], view_labels[chosen]) for name, chosen in kinds.items()}
    held_out = np.isin(said["view_names"][said["view"]], HELD_OUT)
    losses = [log_loss(clean, labels, PREVALENCE)]
    losses += [log_loss(views[c], view_labels[c], PREVALENCE) for c in kinds.values()]
    shifted, (clean_moved, views_moved) = fit_bias(clean, views, view_labels)
    moved = [log_loss(clean_moved, labels, PREVALENCE)]
    moved += [log_loss(views_moved[c], view_labels[c], PREVALENCE) for c in kinds.values()]
    clean_auc = auc(clean, labels)
    return {
        "val_auc": clean_auc,
        "val_loss": -losses[0],
        "stress_auc": auc(views, view_labels),
        "stress_loss": -log_loss(views, view_labels, PREVALENCE),
        "robust_auc": min(clean_auc, *aucs.values()),
        "robust_loss": -max(losses),
        "mean_auc": float(np.mean([clean_auc, *aucs.values()])),
        "heldout_auc": auc(views[held_out], view_labels[held_out]),
        "heldout_worst_auc": min(aucs[name] for name in HELD_OUT),
        "bias_stress_loss": -shifted,
        "bias_robust_loss": -max(moved),
    }


def fit_bias(
    clean: np.ndarray, views: np.ndarray, labels: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """Return the views' log loss with the bias that is best for it, and both probabilities."""
    from scipy.optimize import minimize_scalar

    from search.tuning.validation import log_loss

    def logit(p: np.ndarray) -> np.ndarray:
        clipped = np.clip(p, 1e-7, 1 - 1e-7)
        return np.log(clipped / (1 - clipped))

    def moved(p: np.ndarray, bias: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(logit(p) + bias)))

    found = minimize_scalar(
        lambda bias: log_loss(moved(views, bias), labels, PREVALENCE), bounds=(-10, 10)
    )
    return float(found.fun), (moved(clean, found.x), moved(views, found.x))


def learned(said: Any) -> bool:
    """Return whether a network's clean AUC is above chance by more than its standard error."""
    from search.tuning.validation import auc

    labels = said["val_labels"].astype(int)
    positives, negatives = labels.sum(), (1 - labels).sum()
    error = np.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    return auc(said[f"fixed/{EPOCHS}/val"], labels) > 0.5 + error


def tables() -> None:
    """Write spread.csv, configurations.csv and correlations.csv."""
    done = sorted(path.parent for path in RUNS.glob("*/job.json"))
    jobs = {path.name: json.loads((path / "job.json").read_text()) for path in done}
    said = {path.name: np.load(path / "said.npz") for path in done}
    write_spread(jobs, said)
    complete = [
        number
        for number in range(CONFIGURATIONS)
        if all(f"{number:02d}-{seed}" in jobs for seed in range(SEEDS))
    ]
    living = [
        number
        for number in complete
        if all(learned(said[f"{number:02d}-{seed}"]) for seed in range(SEEDS))
    ][:LIVING]
    print(f"{len(complete)} configurations are complete; living and used: {living}")
    write_correlations(jobs, said, living)


def write_spread(jobs: dict[str, Any], said: dict[str, Any]) -> None:
    """Write, by way to estimate statistics, spread and bias of criteria at frozen weights."""
    frozen = [name for name, job in jobs.items() if job["frozen"]]
    ways = list(jobs[frozen[0]]["statistics_seconds"])
    shown = ("robust_loss", "robust_auc", "stress_auc", "val_auc", "bias_robust_loss")
    found = {
        way: [
            [criteria(said[name], f"frozen/{way}/{draw}") for draw in range(4)] for name in frozen
        ]
        for way in ways
    }
    rows = []
    for way in ways:
        row: dict[str, Any] = {"statistics": way, "networks": len(frozen)}
        for name in shown:
            drawn = np.array([[one[name] for one in four] for four in found[way]])
            best = np.array([[one[name] for one in four] for four in found["all augmented"]])
            row[f"{name}: range of 4 draws, median"] = np.median(np.ptp(drawn, axis=1))
            row[f"{name}: largest"] = np.max(np.ptp(drawn, axis=1))
            row[f"{name}: bias"] = np.median(drawn.mean(axis=1) - best.mean(axis=1))
        row["seconds / epoch"] = np.median(
            [jobs[name]["statistics_seconds"][way] / jobs[name]["epoch_seconds"] for name in frozen]
        )
        rows.append(row)
    write_csv(OUT / "spread.csv", rows)


def write_correlations(jobs: dict[str, Any], said: dict[str, Any], living: list[int]) -> None:
    """Write configurations.csv, and agreement across seeds and with the test by criterion."""
    from scipy.stats import spearmanr

    from search.tuning.validation import auc, log_loss

    score: dict[str, dict[str, np.ndarray]] = {}
    for statistic in ("before", "fixed"):
        per = [
            [
                [
                    criteria(said[f"{number:02d}-{seed}"], f"{statistic}/{epoch}")
                    for epoch in LAST_EPOCHS
                ]
                for seed in range(SEEDS)
            ]
            for number in living
        ]
        for name in per[0][0][0]:
            values = [[np.mean([e[name] for e in epochs]) for epochs in seeds] for seeds in per]
            score.setdefault(name, {})[statistic] = np.array(values)
    test: dict[str, list[list[float]]] = {"test_auc": [], "test_loss": [], "test_accuracy": []}
    for number in living:
        each = [said[f"{number:02d}-{seed}"] for seed in range(SEEDS)]
        labels = each[0]["test_labels"].astype(int)
        test["test_auc"].append([auc(s["fixed/test"], labels) for s in each])
        test["test_loss"].append(
            [-log_loss(s["fixed/test"], labels, float(labels.mean())) for s in each]
        )
        test["test_accuracy"].append(
            [float(np.mean((s["fixed/test"] >= 0.5) == labels)) for s in each]
        )
    targets = {name: np.array(values) for name, values in test.items()}
    rows = []
    for name, by_statistic in score.items():
        for statistic, values in by_statistic.items():
            row: dict[str, Any] = {"criterion": name, "statistics": statistic}
            row |= interval("agreement", lambda i, v=values: spearmanr(v[i, 0], v[i, 1])[0], living)
            for target, reached in targets.items():
                row |= interval(
                    target,
                    lambda i, v=values, t=reached: spearmanr(v[i].mean(1), t[i].mean(1))[0],
                    living,
                )
            rows.append(row)
    write_csv(OUT / "correlations.csv", rows)
    write_csv(
        OUT / "configurations.csv",
        [
            {
                "configuration": number,
                **{name: score[name]["fixed"][i].mean() for name in score},
                **{name: values[i].mean() for name, values in targets.items()},
                **jobs[f"{number:02d}-0"]["values"],
            }
            for i, number in enumerate(living)
        ],
    )


def interval(name: str, measure: Any, living: list[int]) -> dict[str, float]:
    """Return a measure with its 95% percentile bootstrap interval over configurations."""
    drawn = np.random.default_rng(0)
    everything = np.arange(len(living))
    values = [measure(drawn.integers(0, len(living), len(living))) for _ in range(1000)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {name: measure(everything), f"{name} low": low, f"{name} high": high}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with numbers to four decimals, and print them."""
    fields = list(dict.fromkeys(field for row in rows for field in row))
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, fields)
        writer.writeheader()
        for row in rows:
            cells = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(cells)
            print(cells)


def main() -> int:
    """Train, or make the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["train", "tables"])
    parser.add_argument("--data", default="../shared/chest_xray")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.stage == "train":
        train(options)
    else:
        tables()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    sys.exit(main())
