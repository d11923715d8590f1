"""How good a configuration do searches find for the same epochs? Ours, KerasTuner's, Optuna's.

Four searches, five seeds, on the synthetic demo: the same space, data, class weights, objective
and budget, see `contenders.py`. The budget is what one iteration of Hyperband costs by the paper's
schedule (R = 9, η = 3: 69 epochs). A tool whose own schedule costs more finishes it, and what it
finds beyond the budget is drawn but not counted.

Best so far is the smallest `robust_loss` of any finished epoch, against epochs trained so far, in
all trials together and counting failed ones: how each tool ranks its trials plays no part. Tools
are compared seed by seed at a quarter, half, three quarters and all of the budget, the last with a
bootstrap interval over the seeds.

    python tests/benchmarks/tuners.py                # says at once how long it takes
    python tests/benchmarks/tuners.py --max-epochs 3 --seeds 1 --image-size 32 --out /tmp/rehearsal

More, on the same results:

- `--tools ours ours-cold kt-hyperband kt-random optuna` adds ours without the documented
  configuration as its first trial, of which the others are not told;
- `--endpoint-seeds 3` trains the configuration that each tool recommends, by its own rule, anew
  for R epochs with so many seeds that no search saw, and compares the means of the scores, each
  smoothed over the last epochs. Luck that a search selected for is gone there.

Needs `pip install -e '.[bench]'`. Goes on where it was stopped: finished searches are kept in
OUT/jobs.jsonl. Two processes work at a time, one thread each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fresh import ONE_THREAD, Job, Ledger, answer

TOOLS = ("ours", "kt-hyperband", "kt-random", "optuna", "ours-cold")
DEFAULT_TOOLS = TOOLS[:4]
FRESH_SEED = 1001
"""Seeds of endpoints begin here; no search uses them."""


def work(job: Job) -> Job:
    """Do one search, or train one recommended configuration; runs in a process of its own."""
    from search import backend

    backend.load()
    import contenders

    from hypermodels import DocumentedCNN

    dataset = contenders.load_data(job["data"], job["image_size"])
    hypermodel = DocumentedCNN(
        image_size=job["image_size"], train_size=len(dataset.train), epochs=job["max_epochs"]
    )
    with tempfile.TemporaryDirectory() as folder:
        if job["kind"] == "endpoint":
            return _endpoint(job, dataset, hypermodel, Path(folder))
        if job["kind"] == "pace":
            return _pace(job, dataset, hypermodel, Path(folder))
        task = contenders.Task(
            dataset=dataset,
            max_epochs=job["max_epochs"],
            factor=job["factor"],
            seed=job["seed"],
            directory=Path(folder) / "search",
            hypermodel=hypermodel,
            budget=job["budget"],
        )
        error = ""
        outcome = contenders.Outcome(selected=None, score=None)
        try:
            outcome = contenders.CONTENDERS[job["tool"]](task)
        except Exception as problem:  # a crash is a result; what was trained before it counts
            error = f"{type(problem).__name__}: {str(problem)[:300]}"
    return {
        "rows": task.rows,
        "selected": outcome.selected,
        "score": outcome.score,
        "failures": [*outcome.failures, *([error] if error else [])],
    }


def _endpoint(job: Job, dataset: Any, hypermodel: Any, folder: Path) -> Job:
    from contenders import OBJECTIVE

    from search.records import TrialSpec
    from search.tuning.model import Setting
    from search.tuning.selection import smoothed
    from search.tuning.trial import train_trial

    setting = Setting(
        dataset=dataset,
        hypermodel=hypermodel,
        objective=OBJECTIVE,
        prevalence=dataset.prevalence,
    )
    scores = []
    for seed in range(FRESH_SEED, FRESH_SEED + job["endpoint_seeds"]):
        spec = TrialSpec(
            trial_id=str(seed),
            values=job["values"],
            seed=seed,
            epochs=job["max_epochs"],
            directory=folder / str(seed),
        )
        result = train_trial(spec, setting)
        if result.failure is not None:
            return {"error": f"retraining failed: {result.failure.message}"}
        history = [epoch.metrics[OBJECTIVE] for epoch in result.epochs]
        scores.append(smoothed(history, epochs=job["max_epochs"]))
    return {"scores": scores}


def searches(options: argparse.Namespace) -> Iterator[Job]:
    """Yield the searches to run, all tools of a seed together."""
    from search.tuning.schedule import hyperband

    budget = hyperband(max_epochs=options.max_epochs, factor=options.factor).epochs
    for seed in range(1, options.seeds + 1):
        for tool in options.tools:
            size = f"{options.image_size}px-R{options.max_epochs}"
            yield {
                "name": f"{tool}-{seed}-{size}",
                "kind": "search",
                "tool": tool,
                "seed": seed,
                "data": options.data,
                "image_size": options.image_size,
                "max_epochs": options.max_epochs,
                "factor": options.factor,
                "budget": budget,
            }


def endpoints(found: list[Job], seeds: int) -> Iterator[Job]:
    """Yield the training of every search's recommendation with so many seeds."""
    shared = ("tool", "seed", "data", "image_size", "max_epochs")
    for job in found:
        if seeds and job.get("selected"):
            yield {
                "name": f"endpoint-{job['name']}-{seeds}",
                "endpoint_seeds": seeds,
                "kind": "endpoint",
                "values": job["selected"],
                **{key: job[key] for key in shared},
            }


def _pace(job: Job, dataset: Any, hypermodel: Any, folder: Path) -> Job:
    """Return the seconds of an epoch, of a trial besides, and of starting, for the estimate."""
    from contenders import OBJECTIVE, declared_space

    from search.records import TrialSpec
    from search.tuning import space as spaces
    from search.tuning.model import Setting
    from search.tuning.trial import train_trial

    setting = Setting(
        dataset=dataset, hypermodel=hypermodel, objective=OBJECTIVE, prevalence=dataset.prevalence
    )
    values = spaces.defaults(declared_space(hypermodel))
    spec = TrialSpec(trial_id="pace", values=values, seed=1, epochs=3, directory=folder / "pace")
    result = train_trial(spec, setting)
    epoch = min(record.seconds for record in result.epochs)
    return {"epoch": epoch, "trial": result.seconds - 3 * epoch}


def estimate(found: list[Job], options: argparse.Namespace, missing: int) -> float:
    """Return the seconds that the missing searches take, from measured paces."""
    from search.tuning.schedule import hyperband

    schedule = hyperband(max_epochs=options.max_epochs, factor=options.factor)
    epoch = max(job["epoch"] for job in found)
    trial = max(job["trial"] for job in found)
    start = max(job["seconds"] - job["trial"] - 3 * job["epoch"] for job in found)
    return missing * (start + schedule.trials * trial + schedule.epochs * epoch) / options.workers


def main() -> int:
    """Run what is missing, then summarize."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--max-epochs", type=int, default=9)
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(DEFAULT_TOOLS))
    parser.add_argument("--endpoint-seeds", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/studies/tuners"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return answer(options.job, work)
    from search import backend

    backend.load()  # quietly
    import contenders

    # Once, before two processes want the same images.
    contenders.load_data(options.data, options.image_size)
    ledger = Ledger(options.out / "jobs.jsonl", __file__, variables=lambda job: ONE_THREAD)
    wanted = list(searches(options))
    missing = sum(not ledger.finished(job) for job in wanted)
    if missing:
        same = {key: wanted[0][key] for key in ("data", "image_size", "max_epochs")}
        paces = [
            {"name": f"pace-{n}-{same['image_size']}px", "kind": "pace", **same}
            for n in range(options.workers)
        ]
        measured = ledger.run(
            paces, processes=options.workers, tell=lambda job: f"{job['epoch']:.2f} s an epoch"
        )
        broken = [job["error"] for job in measured if "error" in job]
        if broken:
            sys.exit(f"no search can be measured here: {broken[0]}")
        seconds = estimate(measured, options, missing)
        ends = time.strftime("%H:%M", time.localtime(time.time() + seconds))
        print(f"{missing} searches: about {seconds / 60:.0f} min, until {ends}", flush=True)
    found = ledger.run(
        wanted, processes=options.workers, tell=lambda job: f"{len(job['rows'])} epochs"
    )
    trained = ledger.run(
        list(endpoints(found, options.endpoint_seeds)),
        processes=options.workers,
        tell=lambda job: f"{job['scores']}",
    )
    from tuners_report import write_report

    print(write_report(found, trained, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
