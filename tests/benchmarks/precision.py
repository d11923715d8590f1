"""What does mixed precision do to quality and to speed? The same trainings in both, seed by seed.

Trains the documented network and a run's best configuration on real X-rays, in float32 and in
bfloat16 with float32 weights, with the same seeds, and compares them on validation: the mean
paired difference with its interval over seeds (Student's t). The test is not opened. Two processes
work at a time with one thread each, so the seconds of an epoch are of one core.

    python tests/benchmarks/precision.py --data ../shared/chest_xray   # about 20 min on two cores
    python tests/benchmarks/precision.py --data demo --image-size 32 --epochs 1 --out /tmp/rehearsal

Goes on where it was stopped: finished trainings are kept in OUT/jobs.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from fresh import ONE_THREAD, ROOT, Job, Ledger, answer

BEST = ROOT / "results/examples/quick-real/best_hyperparameters.json"
PRECISIONS = ("float32", "mixed_bfloat16")
METRICS = ("robust_loss", "val_loss", "val_auc", "stress_auc", "val_accuracy")


def work(job: Job) -> Job:
    """Train once; runs in a process of its own."""
    from search import backend

    backend.load()
    import contenders

    from hypermodels import DocumentedCNN
    from search.records import TrialSpec
    from search.tuning.model import Setting
    from search.tuning.selection import smoothed
    from search.tuning.trial import train_trial

    dataset = contenders.load_data(job["data"], job["image_size"])
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
            seed=2000 + job["seed"],
            epochs=job["epochs"],
            directory=Path(folder),
            precision=job["precision"],
        )
        result = train_trial(spec, setting)
    if result.failure is not None:
        raise RuntimeError(result.failure.message)
    found = {
        name: smoothed([e.metrics[name] for e in result.epochs], epochs=job["epochs"])
        for name in METRICS
    }
    # The first epoch compiles.
    seconds = [e.seconds for e in result.epochs[1:] or result.epochs]
    return {**job, "found": found, "epoch_seconds": statistics.median(seconds)}


def jobs(options: argparse.Namespace) -> list[Job]:
    """Return the trainings, both precisions of a seed next to each other."""
    import keras_tuner as kt

    from hypermodels import DocumentedCNN
    from search.tuning import space as spaces

    space = kt.HyperParameters()
    DocumentedCNN(image_size=options.image_size).declare(space)
    best = json.loads(BEST.read_text())
    configurations = {
        "documented": spaces.defaults(space),
        "best": spaces.complete(space, best.get("values", best)),
    }
    return [
        {
            "name": f"{label}-{seed}-{precision}",
            "configuration": label,
            "values": configurations[label],
            "seed": seed,
            "precision": precision,
            "data": options.data,
            "image_size": options.image_size,
            "epochs": options.epochs,
        }
        for label in options.configurations
        for seed in range(options.seeds)
        for precision in PRECISIONS
    ]


def report(done: list[Job], command: str) -> str:
    """Return the table in Markdown."""
    from search.scoring.effects import over_seeds

    lines = [
        f"`{command}`",
        "",
        "| configuration | metric | float32 | bfloat16 | difference (95% over seeds) |",
        "|---|---|---|---|---|",
    ]
    ratios = []
    for label in dict.fromkeys(job["configuration"] for job in done):
        pairs = {}
        for job in done:
            if job["configuration"] == label and "found" in job:
                pairs.setdefault(job["seed"], {})[job["precision"]] = job
        whole = [pair for pair in pairs.values() if len(pair) == len(PRECISIONS)]
        if not whole:
            continue
        for name in METRICS:
            sides = [[pair[p]["found"][name] for pair in whole] for p in PRECISIONS]
            change = over_seeds([new - old for old, new in zip(*sides, strict=True)])
            means = " | ".join(f"{statistics.fmean(side):.3f}" for side in sides)
            lines.append(
                f"| {label} | {name} | {means} | {change.value:+.3f} "
                f"({change.low:+.3f} to {change.high:+.3f}) |"
            )
        speeds = [pair[PRECISIONS[0]]["epoch_seconds"] for pair in whole]
        mixed = [pair[PRECISIONS[1]]["epoch_seconds"] for pair in whole]
        ratios.append(
            f"- {label}: {len(whole)} seeds; an epoch, validation included, took "
            f"{statistics.median(speeds):.1f} s in float32 and {statistics.median(mixed):.1f} s "
            f"in bfloat16, median ratio "
            f"{statistics.median(a / b for a, b in zip(speeds, mixed, strict=True)):.2f}"
        )
    return "\n".join([*lines, "", *ratios, ""])


def main() -> int:
    """Train what is missing, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/chest_xray")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--configurations", nargs="+", default=["documented", "best"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "results/studies/precision")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return answer(options.job, work)
    ledger = Ledger(options.out / "jobs.jsonl", __file__, variables=lambda job: ONE_THREAD)
    done = ledger.run(
        jobs(options),
        tell=lambda job: f"robust_loss {job['found']['robust_loss']:.3f}",
        processes=options.workers,
    )
    text = report(done, " ".join(["python", "tests/benchmarks/precision.py", *sys.argv[1:]]))
    (options.out / "precision.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
