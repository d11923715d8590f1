"""How good a configuration do searches find for the same epochs? Ours, KerasTuner's, Optuna's.

Five searches, five seeds, on the synthetic demo: the same space, data, class weights, objective
and budget, see `contenders.py`. The budget is what one iteration of Hyperband costs by the paper's
schedule (R = 9, η = 3: 69 epochs). A tool whose own schedule costs more finishes it, and what it
finds beyond the budget is drawn but not counted; its recommendation is taken from all of it.

Two quantities, defined alike for all:

- best so far: the smallest `robust_loss` of any finished epoch, against epochs trained so far, in
  all trials together and counting failed ones. How each tool ranks its trials plays no part.
- endpoint: the configuration that the tool recommends, by its own rule, trained anew from nothing
  for R epochs with three seeds that no search saw; the mean of the scores, each smoothed over the
  last three epochs. Luck that a search selected for is gone here.

    python tests/benchmarks/tuners.py                  # about 70 min on two idle cores
    python tests/benchmarks/tuners.py --max-epochs 3 --seeds 1 --image-size 32 --out /tmp/rehearsal

Goes on where it was stopped: finished searches are kept in OUT/jobs.jsonl. Two processes work at a
time, one thread each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from fresh import ONE_THREAD, Job, answer, run_fresh

TOOLS = ("ours", "ours-cold", "kt-hyperband", "kt-random", "optuna")
FRESH_SEEDS = (1001, 1002, 1003)


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
    from search.tuning.selection import smoothed
    from search.tuning.trial import Setting, train_trial

    setting = Setting(
        dataset=dataset,
        hypermodel=hypermodel,
        objective=OBJECTIVE,
        prevalence=dataset.prevalence,
    )
    scores = []
    for seed in FRESH_SEEDS:
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


class Ledger:
    """Finished jobs, by name, on disk."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.done: dict[str, Job] = {}
        if file.exists():
            for line in file.read_text().splitlines():
                job = json.loads(line)
                self.done[job["name"]] = job

    def run(self, jobs: list[Job], *, processes: int) -> list[Job]:
        """Run the jobs that are missing, and return all of them with their answers."""
        missing = [job for job in jobs if job["name"] not in self.done]
        with ThreadPoolExecutor(processes) as threads:
            running = {
                threads.submit(run_fresh, __file__, job, variables=ONE_THREAD): job
                for job in missing
            }
            try:
                for count, future in enumerate(as_completed(running), 1):
                    job = {**running[future], **future.result()}
                    self._keep(job)
                    said = job.get("error") or job.get("scores") or f"{len(job['rows'])} epochs"
                    print(f"{count}/{len(missing)} {job['name']}: {said}", flush=True)
            except KeyboardInterrupt:
                threads.shutdown(cancel_futures=True)
                raise
        return [self.done[job["name"]] for job in jobs]

    def _keep(self, job: Job) -> None:
        self.done[job["name"]] = job
        with open(self.file, "a") as handle:
            handle.write(json.dumps(job) + "\n")


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


def endpoints(found: list[Job]) -> Iterator[Job]:
    """Yield the training of every search's recommendation."""
    shared = ("tool", "seed", "data", "image_size", "max_epochs")
    for job in found:
        if job.get("selected"):
            yield {
                "name": f"endpoint-{job['name']}",
                "kind": "endpoint",
                "values": job["selected"],
                **{key: job[key] for key in shared},
            }


def main() -> int:
    """Run what is missing, then summarize."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--max-epochs", type=int, default=9)
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/studies/tuners"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return answer(options.job, work)
    options.out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(options.out / "jobs.jsonl")
    # Once, before two processes want the same images.
    import contenders

    contenders.load_data(options.data, options.image_size)
    found = ledger.run(list(searches(options)), processes=options.workers)
    trained = ledger.run(list(endpoints(found)), processes=options.workers)
    from tuners_report import write_report

    print(write_report(found, trained, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
