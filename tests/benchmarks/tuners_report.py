"""Tables, figure and README of `tuners.py`, from its finished jobs; loads no Keras."""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from fresh import Job

SHARES = (0.25, 0.5, 0.75, 1.0)
TITLES = {
    "ours": "ours",
    "ours-cold": "ours, without the documented start",
    "kt-hyperband": "keras_tuner.Hyperband",
    "kt-random": "keras_tuner.RandomSearch",
    "optuna": "Optuna TPE + HyperbandPruner",
}
COLOURS = {
    "ours": "#0b6e4f",
    "ours-cold": "#6bbf59",
    "kt-hyperband": "#c1121f",
    "kt-random": "#8d99ae",
    "optuna": "#3a5a98",
}


def best_so_far(job: Job) -> list[float]:
    """Return the smallest objective after each epoch trained; infinite before the first."""
    best, found = math.inf, []
    for _, _, loss in job.get("rows", ()):
        # NaN, of a diverged epoch, compares false.
        best = loss if loss < best else best
        found.append(best)
    return found


def paired_difference(
    ours: dict[int, float], theirs: dict[int, float], *, seed: int = 0
) -> tuple[float, float, float] | None:
    """Return the mean of ours minus theirs over the seeds, with its 95% bootstrap interval.

    Seeds are drawn with replacement; up to six seeds all draws are counted, not a sample of them.

    Returns:
        (mean, low, high), negative where ours is better; None where a search found nothing.
    """
    differences = np.array([ours[key] - theirs[key] for key in sorted(ours)])
    if not np.isfinite(differences).all():
        return None
    count = len(differences)
    if count <= 6:
        drawn = np.array(list(itertools.product(range(count), repeat=count)))
    else:
        drawn = np.random.default_rng(seed).integers(0, count, (20_000, count))
    means = differences[drawn].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5], method="inverted_cdf")
    return float(differences.mean()), float(low), float(high)


def best_at(job: Job, epochs: int) -> float:
    """Return the best after so many epochs, or after all where the search ended before."""
    curve = best_so_far(job)
    return curve[min(epochs, len(curve)) - 1] if curve else math.inf


def spread(values: list[float]) -> str:
    """Return the median and the range."""
    if not values:
        return "–"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


class Results:
    """The jobs, by tool."""

    def __init__(self, found: list[Job], trained: list[Job]) -> None:
        self.searches: dict[str, list[Job]] = {}
        for job in found:
            self.searches.setdefault(job["tool"], []).append(job)
        self.ends = {(job["tool"], job["seed"]): job for job in trained}
        self.budget = int(found[0]["budget"])

    def marks(self) -> list[int]:
        """Return the epochs at which searches are compared."""
        return [math.floor(share * self.budget) for share in SHARES]

    def at(self, tool: str, epochs: int) -> dict[int, float]:
        """Return the best so far by seed."""
        return {job["seed"]: best_at(job, epochs) for job in self.searches[tool]}

    def endpoint(self, tool: str) -> dict[int, float]:
        """Return the mean score of the retrained recommendation by seed; infinite without one."""
        found = {}
        for job in self.searches[tool]:
            scores = self.ends.get((tool, job["seed"]), {}).get("scores")
            found[job["seed"]] = statistics.mean(scores) if scores else math.inf
        return found

    def failures(self, tool: str) -> list[str]:
        """Return what went wrong, one line each."""
        lines = []
        for job in self.searches[tool]:
            said = [*job.get("failures", ()), *filter(None, [job.get("error")])]
            end = self.ends.get((tool, job["seed"]), {}).get("error")
            said += [f"endpoint: {end}"] if end else []
            lines += [f"seed {job['seed']}: {line}" for line in said]
        return lines


def write_report(found: list[Job], trained: list[Job], options: argparse.Namespace) -> str:
    """Write curves.csv, table.csv, tuners.png and README.md; return the table and the verdict."""
    results = Results(found, trained)
    out = options.out
    _write_curves(results, out / "curves.csv")
    table = _table(results)
    with open(out / "table.csv", "w", newline="") as handle:
        csv.writer(handle).writerows(table)
    draw(results, out / "tuners.png")
    text = "\n".join([_markdown(table), "", *verdict(results)])
    _write_readme(results, options, text)
    return text


def _write_curves(results: Results, path: Path) -> None:
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["tool", "seed", "spent", "trial", "epoch", "robust_loss", "best_so_far"])
        for tool, jobs in results.searches.items():
            for job in jobs:
                rows = zip(job.get("rows", ()), best_so_far(job), strict=True)
                for spent, ((trial, epoch, loss), best) in enumerate(rows, 1):
                    numbers = [f"{loss:.5f}", f"{best:.5f}"]
                    writer.writerow([tool, job["seed"], spent, trial, epoch, *numbers])


def _table(results: Results) -> list[list[str]]:
    heads = [f"best at {epochs} epochs" for epochs in results.marks()]
    ends = ["endpoint"] if results.ends else []
    table = [["search", *heads, *ends, "epochs", "trials", "failures"]]
    for tool, jobs in results.searches.items():
        spent = [len(job.get("rows", ())) for job in jobs]
        trials = [len({row[0] for row in job.get("rows", ())}) for job in jobs]
        table.append(
            [
                TITLES[tool],
                *(spread(list(results.at(tool, epochs).values())) for epochs in results.marks()),
                *([spread(list(results.endpoint(tool).values()))] if results.ends else []),
                f"{statistics.median(spent):.0f}",
                f"{statistics.median(trials):.0f}",
                str(len(results.failures(tool))),
            ]
        )
    return table


def _markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|---" * len(table[0]) + "|")
    return "\n".join(lines)


def verdict(results: Results) -> list[str]:
    """Say for each rival whether ours is behind it anywhere: medians, and seeds won."""
    lines = []
    mine = "ours" if "ours" in results.searches else "ours-cold"
    for rival in results.searches:
        if mine not in results.searches or rival in ("ours", "ours-cold"):
            continue
        for ours in [tool for tool in ("ours", "ours-cold") if tool in results.searches]:
            behind, won = [], []
            marks = [
                (f"{n} epochs", results.at(ours, n), results.at(rival, n)) for n in results.marks()
            ]
            if results.ends:
                marks.append(("endpoint", results.endpoint(ours), results.endpoint(rival)))
            for name, us, them in marks:
                wins = sum(us[seed] <= them[seed] for seed in us)
                won.append(f"{name} {wins} of {len(us)}")
                if statistics.median(us.values()) > statistics.median(them.values()):
                    behind.append(name)
            said = f"behind at {', '.join(behind)}" if behind else "never behind"
            lines.append(
                f"- {TITLES[ours]} against {TITLES[rival]}: {said} (medians). "
                f"{_difference(*marks[len(SHARES) - 1])}"
                + (f" {_difference(*marks[-1])}" if results.ends else "")
                + f" Seeds not worse: {', '.join(won)}."
            )
    return lines


def _difference(name: str, ours: dict[int, float], theirs: dict[int, float]) -> str:
    found = paired_difference(ours, theirs)
    if found is None:
        return f"At {name} a search had found nothing."
    mean, low, high = found
    return (
        f"At {name} the difference, seed by seed, is {mean:+.3f} on average "
        f"(95% bootstrap interval {low:+.3f} to {high:+.3f})."
    )


def draw(results: Results, path: Path) -> None:
    """Draw best so far against epochs spent, with each tool's range, and the endpoints."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1), sharey=False)
    for tool, jobs in results.searches.items():
        curves = [best_so_far(job) for job in jobs if job.get("rows")]
        if not curves:
            continue
        length = max(map(len, curves))
        columns = [[best_at(job, n) for job in jobs] for n in range(1, length + 1)]
        epochs = range(1, length + 1)
        style: dict[str, Any] = {"color": COLOURS[tool]}
        left.step(
            epochs,
            [statistics.median(column) for column in columns],
            where="post",
            label=TITLES[tool],
            linewidth=2,
            **style,
        )
        left.fill_between(
            epochs,
            list(map(min, columns)),
            list(map(max, columns)),
            step="post",
            alpha=0.13,
            linewidth=0,
            **style,
        )
    left.axvline(results.budget, color="black", linewidth=0.8, linestyle=":")
    left.set_yscale("log")
    left.set_xlabel("epochs trained, all trials together (dotted: the common budget)")
    left.set_ylabel("smallest robust_loss of any epoch so far")
    left.legend(fontsize=8)
    left.grid(alpha=0.3, which="both")
    for place, tool in enumerate(results.searches):
        last = results.endpoint(tool) if results.ends else results.at(tool, results.budget)
        ends = [value for value in last.values() if math.isfinite(value)]
        right.plot([place] * len(ends), ends, "o", color=COLOURS[tool], alpha=0.6)
        if ends:
            right.plot(
                [place - 0.25, place + 0.25],
                [statistics.median(ends)] * 2,
                color=COLOURS[tool],
                linewidth=2.5,
            )
    right.set_xticks(range(len(results.searches)), list(results.searches), rotation=30, ha="right")
    right.set_ylabel(
        "robust_loss of the recommendation, trained anew"
        if results.ends
        else f"smallest robust_loss after {results.budget} epochs, by seed"
    )
    right.set_yscale("log")
    right.grid(alpha=0.3, which="both")
    figure.suptitle(
        f"{len(next(iter(results.searches.values())))} seeds on the synthetic demo; median and "
        "range. These numbers say nothing about X-rays"
    )
    figure.savefig(path, dpi=110)


def _write_readme(results: Results, options: argparse.Namespace, text: str) -> None:
    packages = ("keras", "keras-tuner", "optuna", "tensorflow")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    arguments = " ".join(sys.argv[1:])
    failures = [
        f"- {TITLES[tool]}, {line}" for tool in results.searches for line in results.failures(tool)
    ]
    doc = [
        "# Ours against other searches, for the same epochs",
        "",
        "    " + f"python tests/benchmarks/tuners.py {arguments}".strip(),
        "",
        f"{options.data} data at {options.image_size} px, {results.budget} epochs a search "
        f"(R = {options.max_epochs}, η = {options.factor}); medians and ranges over "
        f"{options.seeds} seeds; {versions}. Smaller is better. What is measured, and what makes "
        "it alike for all, is told in `tests/benchmarks/tuners.py` and `contenders.py`; every "
        "epoch is in `curves.csv`.",
        "",
        text,
        "",
        "![best so far against epochs](tuners.png)",
        "",
        "Plain KerasTuner needs a subclass to run at all here: it imports tensorboard in every "
        "trial, which TensorFlow 2.21 does not bring. With that mended, failed trials and "
        "crashes were:",
        "",
        *(failures or ["- none"]),
        "",
    ]
    (options.out / "README.md").write_text("\n".join(doc))
