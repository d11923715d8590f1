"""Which validation criterion ranks configurations as the test set does?

Trains configurations spread over the search space, each with several seeds and the same epochs, and
compares every validation criterion with the test half that is at hand. The design is fixed
beforehand: configuration 0 is the documented one, 1 the same with a global-average head, the others
are drawn from the space with seeds "study/2", "study/3", …, their `crop_min_area` set in turn to
1.0, 0.8, 0.6, 0.4, 0.2 so that the factor that matters most is spread evenly. To fit two CPU cores
`separable` and `base_filters` are held at their defaults; so is `batch_norm`, because without it no
configuration of a first attempt learned anything in eight epochs (validation AUC 0.5 in four of
four), and eight ties at chance would only lend every criterion the same correlation.
A configuration's figures are the means
over seeds; its validation metrics are smoothed over the last three epochs as in a search.

The test images are scored here once for every model, openly, to judge criteria; no strength of a
stressed view was or is chosen by them.

    python tests/benchmarks/ranking_study.py --data ../shared/chest_xray
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

CROPS = (1.0, 0.8, 0.6, 0.4, 0.2)
HELD = {"separable": True, "base_filters": 16, "batch_norm": True}
CRITERIA = {
    # name: (sign that turns it into "larger is better")
    "val_auc": 1,
    "val_loss": -1,
    "stress_auc": 1,
    "stress_loss": -1,
    "robust_auc": 1,
    "robust_loss": -1,
}
TARGETS = {"test_auc": 1, "test_loss": -1, "test_accuracy": 1}


def design(count: int) -> list[dict[str, Any]]:
    """Return the configurations of the study."""
    import keras_tuner as kt

    from hypermodels import DocumentedCNN
    from search.tuning import space as spaces

    space = kt.HyperParameters()
    DocumentedCNN(image_size=96, train_size=1).declare(space)
    chosen = [{}, {"head": "global_average"}]
    for number in range(2, count):
        drawn = spaces.sample(space, seed=f"study/{number}")
        chosen.append({**drawn, **HELD, "crop_min_area": CROPS[number % len(CROPS)]})
    return [spaces.complete(space, values) for values in chosen[:count]]


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Train one configuration with one seed and score it; runs in a worker process."""
    from search import backend

    backend.load()
    from sklearn.metrics import log_loss, roc_auc_score

    from hypermodels import DocumentedCNN
    from search.config import SplitKind
    from search.data.prepare import default_cache_dir, prepare
    from search.data.sources import find_source
    from search.data.views import ViewSettings
    from search.records import TrialSpec
    from search.tuning import checkpoint
    from search.tuning.feed import TrainingFeed
    from search.tuning.model import Setting, build_model
    from search.tuning.normalization import reestimated
    from search.tuning.selection import smoothed
    from search.tuning.trial import train_trial
    from search.tuning.validation import predict

    cache = default_cache_dir()
    source = find_source(job["data"], cache_dir=cache, progress=lambda *_: None)
    dataset, sealed = prepare(
        source,
        split=SplitKind.PATIENT,
        val_fraction=0.2,
        image_size=job["image_size"],
        seed=8,
        cache_dir=cache,
        views=ViewSettings(),
        progress=lambda *_: None,
    )
    setting = Setting(
        dataset=dataset,
        hypermodel=DocumentedCNN(
            image_size=job["image_size"], train_size=len(dataset.train), epochs=job["epochs"]
        ),
        objective="robust_loss",
        prevalence=dataset.prevalence,
    )
    with tempfile.TemporaryDirectory() as folder:
        spec = TrialSpec(
            trial_id=job["name"],
            values=job["values"],
            seed=1000 + job["seed"],
            epochs=job["epochs"],
            directory=Path(folder),
        )
        result = train_trial(spec, setting)
        if result.failure is not None:
            raise RuntimeError(f"{job['name']}: {result.failure.message}")
        model = build_model(setting, job["values"], spec.seed)
        checkpoint.load(model, Path(folder) / checkpoint.LAST)
        test = sealed.open()
        feed = TrainingFeed(
            dataset.train,
            class_weights=dataset.class_weights,
            batch_size=job["values"]["batch_size"],
            seed=spec.seed,
        )
        feed.epoch = job["epochs"]
        with reestimated(model, feed):
            probabilities = predict(model, test.open_array(), test.rows)
    found = {
        name: smoothed([e.metrics[name] for e in result.epochs], epochs=job["epochs"])
        for name in [*CRITERIA, "val_accuracy", "stress_accuracy", "val_specificity"]
    }
    called = probabilities >= 0.5
    found |= {
        "test_auc": float(roc_auc_score(test.labels, probabilities)),
        "test_loss": float(log_loss(test.labels, np.clip(probabilities, 1e-7, 1 - 1e-7))),
        "test_accuracy": float(np.mean(called == (test.labels == 1))),
        "test_specificity": float(np.mean(~called[test.labels == 0])),
        "seconds": result.seconds,
        "parameters": result.parameters,
    }
    return {**job, "found": found}


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def interval(x: np.ndarray, y: np.ndarray, *, repeats: int = 2000) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval over configurations."""
    drawn = np.random.default_rng(0)
    values = []
    while len(values) < repeats:
        chosen = drawn.integers(0, len(x), len(x))
        if len(np.unique(chosen)) > 2:
            values.append(spearman(x[chosen], y[chosen]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def gain(x: np.ndarray, clean: np.ndarray, y: np.ndarray, *, repeats: int = 2000) -> list[float]:
    """Return how much better x predicts y than a clean criterion: difference, and 95% interval.

    Paired: both correlations come from the same resampled configurations.
    """
    drawn = np.random.default_rng(0)
    values = []
    while len(values) < repeats:
        chosen = drawn.integers(0, len(x), len(x))
        if len(np.unique(chosen)) > 2:
            values.append(spearman(x[chosen], y[chosen]) - spearman(clean[chosen], y[chosen]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return [spearman(x, y) - spearman(clean, y), float(low), float(high)]


def summarize(jobs: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Write configurations.csv, correlations.csv and the scatter plot; return the correlations."""
    numbers = sorted({job["configuration"] for job in jobs})
    rows = []
    for number in numbers:
        same = [job for job in jobs if job["configuration"] == number]
        names = same[0]["found"]
        means = {name: float(np.mean([job["found"][name] for job in same])) for name in names}
        rows.append({"configuration": number, "seeds": len(same), **means, **same[0]["values"]})
    fields = list(dict.fromkeys(field for row in rows for field in row))
    with open(out / "configurations.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, fields)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    table: dict[str, Any] = {}
    for criterion, sign in CRITERIA.items():
        table[criterion] = {}
        for target, turned in TARGETS.items():
            x = sign * np.array([row[criterion] for row in rows])
            y = turned * np.array([row[target] for row in rows])
            low, high = interval(x, y)
            clean_name = "val_auc" if criterion.endswith("auc") else "val_loss"
            clean = CRITERIA[clean_name] * np.array([row[clean_name] for row in rows])
            table[criterion][target] = {
                "value": spearman(x, y),
                "low": low,
                "high": high,
                "gain": gain(x, clean, y),
            }
    with open(out / "correlations.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        names = ["spearman", "low", "high", "over_clean", "over_clean_low", "over_clean_high"]
        writer.writerow(["criterion", "target", *names])
        for criterion, targets in table.items():
            for target, value in targets.items():
                numbers = [value["value"], value["low"], value["high"], *value["gain"]]
                cells = [f"{number:.2f}" for number in numbers]
                writer.writerow([criterion, target, *cells])
    draw(rows, table, out / "ranking.png")
    return table


def draw(rows: list[dict[str, Any]], table: dict[str, Any], path: Path) -> None:
    """Scatter the clean, stressed and robust criteria against the test."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(12, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    pairs = [
        ("val_loss", "test_loss"),
        ("stress_loss", "test_loss"),
        ("robust_loss", "test_loss"),
        ("val_auc", "test_auc"),
        ("stress_auc", "test_auc"),
        ("robust_auc", "test_auc"),
    ]
    for axis, (criterion, target) in zip(axes.flat, pairs, strict=True):
        points = axis.scatter(
            [row[criterion] for row in rows],
            [row[target] for row in rows],
            c=[row["crop_min_area"] for row in rows],
            cmap="viridis",
            vmin=0,
            vmax=1,
            s=45,
            edgecolors="black",
            linewidths=0.5,
        )
        if criterion.endswith("loss"):
            axis.set_xscale("log")
            axis.set_yscale("log")
            for one in (axis.xaxis, axis.yaxis):
                one.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
                one.set_major_formatter(StrMethodFormatter("{x:g}"))
                one.set_minor_formatter(NullFormatter())
        value = table[criterion][target]
        axis.set_title(
            f"Spearman {value['value']:.2f}  [{value['low']:.2f}, {value['high']:.2f}]", fontsize=10
        )
        axis.set_xlabel(criterion)
        axis.set_ylabel(target)
        axis.grid(alpha=0.3)
    figure.colorbar(points, ax=axes, label="crop_min_area (1 = no crops)", shrink=0.6)
    figure.suptitle(
        f"{len(rows)} configurations: what validation says against what the test gives\n"
        "(correlations signed so that positive is right, with 95% bootstrap intervals)"
    )
    figure.savefig(path, dpi=110)


def main() -> int:
    """Run what is missing, then summarize."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/chest_xray")
    parser.add_argument("--out", type=Path, default=Path("results/studies/ranking"))
    parser.add_argument("--configurations", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", OMP_NUM_THREADS="1")
    jobs_file = options.out / "jobs.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    if jobs_file.exists():
        for line in jobs_file.read_text().splitlines():
            job = json.loads(line)
            done[job["name"]] = job
    wanted = []
    values_of = design(options.configurations)
    for seed in range(options.seeds):
        for number, values in enumerate(values_of):
            job = {
                "name": f"{number:02d}-{seed}-{options.image_size}px-{options.epochs}e",
                "configuration": number,
                "seed": seed,
                "values": values,
                "data": options.data,
                "image_size": options.image_size,
                "epochs": options.epochs,
            }
            wanted.append(job)
    missing = [job for job in wanted if job["name"] not in done]
    # Not concurrent.futures: with max_tasks_per_child its pool hangs (CPython issue 115634).
    with get_context("spawn").Pool(options.workers, maxtasksperchild=4) as pool:
        for count, job in enumerate(pool.imap_unordered(run_job, missing), 1):
            done[job["name"]] = job
            with open(jobs_file, "a") as handle:
                handle.write(json.dumps(job) + "\n")
            found = {k: round(v, 3) for k, v in job["found"].items()}
            print(f"{count}/{len(missing)} {job['name']} {found}", flush=True)
    table = summarize([done[job["name"]] for job in wanted], options.out)
    for criterion, targets in table.items():
        cells = "  ".join(
            f"{target} {value['value']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}], "
            f"over clean {value['gain'][0]:+.2f} [{value['gain'][1]:+.2f}, {value['gain'][2]:+.2f}]"
            for target, value in targets.items()
        )
        print(f"{criterion:12s} {cells}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
