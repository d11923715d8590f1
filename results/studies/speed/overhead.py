"""What does a search cost besides training? Ours and plain `kt.Hyperband`, the same steps.

Both do the same trials in one process, in turn, several times (see `same_work.py`), and time
themselves: overhead is the wall time of the search over the time in `fit`, which is compiling,
training steps and the validation of the objective. Beside it stands the milliseconds of a training
step in each, and in a bare loop of `Model.fit`: what a search does to the steps themselves.

The schedule is short (R = 3, η = 3: 6 trials, 11 epochs), which is hard on the overhead: a standard
search trains 5 epochs a trial, this one 1.8. What longer schedules would have is computed from the
seconds lost per trial, and said to be.

    python results/studies/speed/overhead.py --data ../shared/chest_xray    # about 10 min
    python results/studies/speed/overhead.py --data demo --image-size 32 --repeats 1 --out /tmp/o

Goes on where it was stopped: finished searches are kept in OUT/jobs.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import rates
from fresh import Job, Ledger, answer

TOOLS = {"ours": "ours", "plain": "keras_tuner.Hyperband"}
LONGER = {"R = 9": 9, "R = 27": 27}
GOAL = 0.05


def work(job: Job) -> Job:
    """Do one search; runs in a process of its own."""
    import same_work

    with tempfile.TemporaryDirectory() as folder:
        return same_work.perform(job, Path(folder))


def jobs(options: argparse.Namespace) -> list[Job]:
    """Return the searches, those of a repeat next to each other, and the bare loop."""
    same = {
        "data": options.data,
        "image_size": options.image_size,
        "images": options.images,
        "max_epochs": options.max_epochs,
        "factor": 3,
        "iterations": 1,
        "whole_space": False,
        "limit": options.limit,
        "workers": 0,
    }
    found = []
    for repeat in range(options.repeats):
        tools = ("ours", "plain") if repeat % 2 == 0 else ("plain", "ours")
        found += [{"name": f"{tool}-{repeat}", "tool": tool, **same} for tool in tools]
        if repeat == 0:
            found.append({"name": "bare", "tool": "bare", **same})
    return found


def report(done: list[Job], options: argparse.Namespace) -> str:
    """Write README.md and overhead.png; return the text."""
    from matplotlib.figure import Figure

    from search.tuning.schedule import hyperband

    bare = next(job for job in done if job["tool"] == "bare")
    searches = {
        tool: [job for job in done if job["tool"] == tool and "error" not in job] for tool in TOOLS
    }
    measured = {tool: [rates.overhead(job) for job in jobs] for tool, jobs in searches.items()}
    table = [
        ["", "overhead", "range", "compiling counted too", "s lost a trial", "ms a step"],
        *(
            [
                TOOLS[tool],
                f"{statistics.median(o.of_fit for o in found):.1%}",
                f"{min(o.of_fit for o in found):.1%} – {max(o.of_fit for o in found):.1%}",
                f"{statistics.median(o.strict for o in found):.1%}",
                f"{statistics.median(o.per_trial for o in found):.2f}",
                f"{statistics.median(o.step for o in found):.1f}",
            ]
            for tool, found in measured.items()
            if found
        ),
    ]
    one = searches["ours"][0] if searches["ours"] else bare
    if bare.get("steps"):
        table.append(["`Model.fit` alone", "", "", "", "", f"{_bare_step(one, bare['steps']):.1f}"])
    lines = [rates.markdown(table), ""]
    for tool, found in searches.items():
        if not found:
            continue
        said = []
        for name, longest in LONGER.items():
            schedule = hyperband(max_epochs=longest, factor=3)
            ratios = [rates.projected(job, schedule.trials, schedule.epochs) for job in found]
            said.append(f"{name} {statistics.median(ratios):.1%}")
        lines.append(f"- {TOOLS[tool]}, computed for longer schedules: {', '.join(said)}")
    if measured["ours"]:
        median = statistics.median(o.of_fit for o in measured["ours"])
        met = "met" if median < GOAL else "not met"
        lines.append(f"- Goal, under {GOAL:.0%} for ours: {met} on this schedule ({median:.1%})")
    lines += [f"- {job['name']}: {line}" for job in done for line in job.get("failures", ())]
    lines += [f"- {job['name']}: {job['error']}" for job in done if "error" in job]
    lines += [
        f"- {job['name']} was stopped after {options.limit:.0f} s, with {job['epochs']} of "
        f"{job['planned_epochs']} epochs"
        for job in done
        if not job.get("complete", True)
    ]
    text = "\n".join(lines)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    parts = ("train", *rates.PARTS)
    for row, found in enumerate(searches.values()):
        left = 0.0
        for index, part in enumerate(parts):
            each = [rates.rates(job) for job in found]
            values = [r.train if part == "train" else r.lost[part] for r in each]
            width = statistics.median(values) if values else 0.0
            axes.barh(row, width, left=left, color=f"C{index}", label=part if row == 0 else None)
            left += width
    axes.set_yticks(range(len(searches)), [TOOLS[tool] for tool in searches])
    axes.set_xlabel("seconds of a trial (medians over the repeats)")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    rates.save(figure, options.out / "overhead.png")
    heading = [
        "# What a search costs besides training",
        "",
        "    " + " ".join(["python results/studies/speed/overhead.py", *sys.argv[1:]]),
        "",
        f"{one['train_images']} training images of {options.image_size} px, R = "
        f"{options.max_epochs}, η = 3: {one['planned_trials']} trials, {one['planned_epochs']} "
        f"epochs; medians of {options.repeats} repeats; {one['device']}; "
        + ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        + ". What is measured is told in `results/studies/speed/overhead.py`.",
        "",
    ]
    (options.out / "README.md").write_text(
        "\n".join([*heading, text, "", "![seconds of a trial](overhead.png)", ""])
    )
    return text


def _bare_step(job: Job, steps: dict[str, float]) -> float:
    """Return the milliseconds of a bare step, configurations weighted as in the search."""
    if "trials" not in job:
        return 1000 * statistics.median(steps.values())
    count = sum(t["epochs"] * job["steps_per_epoch"][repr(t["rate"])] for t in job["trials"])
    return 1000 * rates.bare_seconds(job, steps) / count


def main() -> int:
    """Measure what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/chest_xray")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--max-epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=float, default=900, help="seconds of a search")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return answer(options.job, work)
    ledger = Ledger(options.out / "jobs.jsonl", __file__, seconds=options.limit + 120)
    wanted = jobs(options)
    print(f"{len(wanted)} jobs, one after another", flush=True)
    done = ledger.run(
        wanted,
        tell=lambda job: (
            f"{job['epochs']} epochs in {job['wall']:.0f} s"
            if "wall" in job
            else f"{len(job['steps'])} configurations"
        ),
    )
    print(report(done, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
