"""How much faster are several workers? Epochs a second and trials an hour, against `kt.Hyperband`.

The same search (see `same_work.py`) in one process of plain `kt.Hyperband`, in one process of ours
("in process": no workers) and with 1, 2, 4 and 8 workers of ours, at 96 and 180 pixels, one after
another in one run. Loading a backend is timed apart ("start"); everything else counts. Where a GPU
is, all workers share it. The bare loop times every configuration's training step in `Model.fit`
alone: the share is what these steps would take over what the search took, so it can exceed 100%
with several workers.

Every search begins with nothing compiled: ours keeps JAX's compiled programs in a folder of its
own, which its workers share; plain KerasTuner keeps none, as its users run it.

    python results/studies/speed/workers.py              # two cores: about 20 min
    KERAS_BACKEND=jax python results/studies/speed/workers.py --images 0 --max-epochs 9
    python results/studies/speed/workers.py --data demo --sizes 32 --images 64 --out /tmp/w

On a CPU the defaults take 200 training images and R = 3 twice, which shows how workers share a
machine, at the price of short epochs: what a trial costs besides weighs more than in a real search.

Goes on where it was stopped: finished searches are kept in OUT/jobs.jsonl. A search that reaches
--limit seconds is stopped after its epoch and reported as cut short; with --minutes, what no longer
fits is left out and done by the next call.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import rates
from fresh import Job, Ledger, answer, card

PLAIN = "keras_tuner.Hyperband"


def work(job: Job) -> Job:
    """Do one search; runs in a process of its own."""
    import same_work

    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
        if job["tool"] == "ours":
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "compiled")
        else:
            os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        return same_work.perform(job, Path(folder))


def jobs(options: argparse.Namespace) -> list[Job]:
    """Return the searches of every size and the bare loop.

    What a session that ends early should know comes first: plain KerasTuner, the most workers, and
    the share of pure steps.
    """
    found = []
    gpu = card()
    where = f" on {gpu}" if gpu else ""
    for size in options.sizes:
        same = {
            "data": options.data,
            "image_size": size,
            "images": options.images,
            "max_epochs": options.max_epochs,
            "factor": options.factor,
            "iterations": options.iterations,
            "whole_space": options.whole_space,
            "limit": options.limit,
            "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
            "card": gpu,
        }
        at = f"{size}px{where}"
        own = [
            {"name": f"ours-{workers}-{at}", "tool": "ours", "workers": workers, **same}
            for workers in sorted(options.workers, reverse=True)
        ]
        found.append({"name": f"plain-{at}", "tool": "plain", "workers": 1, **same})
        found += own[:1]
        found.append({"name": f"bare-{at}", "tool": "bare", "workers": 1, **same})
        found += own[1:]
    return found


def crew(job: Job) -> str:
    """Return who did a search."""
    if job["tool"] == "plain":
        return PLAIN
    count = job["workers"]
    return "ours, in process" if count == 0 else f"ours, {count} worker" + "s" * (count > 1)


def tell(job: Job) -> str:
    """Say what a finished job was."""
    if job["tool"] == "bare":
        return f"{len(job['steps'])} configurations"
    cut = "" if job["complete"] else f", cut short of {job['planned_epochs']}"
    rate = job["epochs"] / job["wall"]
    return f"{job['epochs']} epochs in {job['wall']:.0f} s{cut}: {rate:.3f} a second"


def table_of(done: list[Job], size: int) -> list[list[str]]:
    """Return the table of an image size."""
    here = [job for job in done if job["image_size"] == size and "error" not in job]
    steps = next((job["steps"] for job in here if job["tool"] == "bare"), None)
    searches = [job for job in here if job["tool"] != "bare"]
    searches.sort(key=lambda job: (job["tool"] == "ours", job["workers"]))
    plain = next((rates.rates(job) for job in searches if job["tool"] == "plain"), None)
    table = [
        [
            *("", "epochs/s", "× plain", "trials/h", "images/s", "pure steps"),
            *("training, s a trial", *(f"{part}, s" for part in rates.PARTS)),
            *("start, s", "epochs"),
        ]
    ]
    for job in searches:
        found = rates.rates(job, steps)
        ratio = found.epochs_per_second / plain.epochs_per_second if plain else None
        table.append(
            [
                crew(job),
                f"{found.epochs_per_second:.3f}",
                f"{ratio:.2f}" if ratio else "–",
                f"{found.trials_per_hour:.0f}" if found.trials_per_hour is not None else "–",
                f"{found.images_per_second:.0f}",
                f"{found.share:.0%}" if found.share is not None else "–",
                f"{found.train:.2f}",
                *(f"{found.lost[part]:.2f}" for part in rates.PARTS),
                f"{job['start']:.0f}",
                f"{job['epochs']} of {job['planned_epochs']}",
            ]
        )
    return table


def report(done: list[Job], options: argparse.Namespace) -> str:
    """Write README.md and workers.png; return the text."""
    good = [job for job in done if "error" not in job]
    if not good:
        return "\n".join([f"{job['name']}: {job['error']}" for job in done] or ["nothing was done"])
    parts = []
    for size in options.sizes:
        parts += [f"## {size} pixels", "", rates.markdown(table_of(done, size)), ""]
    parts += [f"- {job['name']}: {line}" for job in good for line in job.get("failures", ())]
    parts += [f"- {job['name']}: {job['error']}" for job in done if "error" in job]
    text = "\n".join(parts)
    draw(good, options)
    about = next((job for job in good if job["tool"] != "bare"), good[0])
    heading = [
        "# Several workers, against plain KerasTuner",
        "",
        "    " + " ".join(["python results/studies/speed/workers.py", *sys.argv[1:]]),
        "",
        f"{about['train_images']} training images, R = {options.max_epochs}, η = "
        f"{options.factor}, {options.iterations} time(s): {about['planned_trials']} trials, "
        f"{about['planned_epochs']} epochs, the same for all; {about['device']}"
        + (f" ({about['card']}); " if about.get("card") else "; ")
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + ". What the columns are is told in `results/studies/speed/workers.py` and `rates.py`.",
        "",
    ]
    (options.out / "README.md").write_text(
        "\n".join([*heading, text, "", "![epochs a second](workers.png)", ""])
    )
    return text


def draw(done: list[Job], options: argparse.Namespace) -> None:
    """Draw epochs a second against workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(options.sizes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(options.sizes), squeeze=False)[0]
    for axes, size in zip(panels, options.sizes, strict=True):
        here = [job for job in done if job["image_size"] == size]
        own = sorted((j for j in here if j["tool"] == "ours"), key=lambda job: job["workers"])
        axes.plot(
            [job["workers"] for job in own],
            [job["epochs"] / job["wall"] for job in own],
            "o-",
            color="#0b6e4f",
            label="ours",
        )
        for job in here:
            if job["tool"] == "plain":
                rate = job["epochs"] / job["wall"]
                axes.axhline(rate, color="#c1121f", label=f"{PLAIN}, one process")
        axes.set_title(f"{size} pixels", fontsize=10)
        axes.set_xlabel("workers")
        axes.set_ylabel("epochs a second")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    rates.save(figure, options.out / "workers.png")


def main() -> int:
    """Measure what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/chest_xray")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 180])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--images", type=int, default=200, help="training images; 0: all")
    parser.add_argument("--max-epochs", type=int, default=3)
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument(
        "--whole-space", action="store_true", help="vary separable and base_filters too"
    )
    parser.add_argument("--limit", type=float, default=600, help="seconds of a search")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return answer(options.job, work)
    ledger = Ledger(options.out / "jobs.jsonl", __file__, seconds=options.limit + 120)
    wanted = jobs(options)
    print(f"{len(wanted)} jobs, one after another", flush=True)
    ends = time.monotonic() + 60 * options.minutes
    print(report(ledger.run(wanted, tell=tell, ends=ends), options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
