"""Runs the README's first command with ten seeds, and tabulates winner against baseline.

The design, fixed before the first result, is in README.md beside this file. `run` goes on where it
was stopped; run directories are under `runs/demo` (ignored by git).
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

SEEDS = range(1, 11)
RUNS = Path("runs/demo")
TABLE = Path(__file__).parent / "seeds.csv"


def known() -> dict[int, dict[str, float]]:
    """Return the rows of seeds.csv by seed."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    return {int(row["seed"]): row for row in rows}


def run() -> None:
    """Run every seed that has no row and no finished run."""
    for seed in SEEDS:
        name = f"seed-{seed}"
        if seed in known() or (RUNS / name / "manifest.json").exists():
            continue
        command = [sys.executable, "-m", "search.run", "--tuner", "hyperband", "--data", "demo"]
        command += ["--seed", str(seed), "--name", name, "--results-dir", str(RUNS), "--no-live"]
        command += ["--resume"] if (RUNS / name).exists() else []
        subprocess.run(command, check=True)


def table() -> None:
    """Add finished runs to seeds.csv, and print the mean differences with their intervals."""
    found = known()
    for seed in SEEDS:
        root = RUNS / f"seed-{seed}"
        if not (root / "manifest.json").exists():
            continue
        evaluation = json.loads((root / "evaluation.json").read_text())
        manifest = json.loads((root / "manifest.json").read_text())
        row: dict[str, float] = {"seed": seed}
        for role in ("baseline", "winner"):
            (test,) = evaluation[role]["test"]
            row[f"{role} auc"] = test["ranking"]["auc"]["value"]
            row[f"{role} loss"] = test["ranking"]["loss"]["value"]
        row["minutes"] = sum(manifest["seconds"].values()) / 60
        found[seed] = row
    rows = [found[seed] for seed in sorted(found)]
    with TABLE.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({name: f"{value:.4g}" for name, value in row.items()} for row in rows)
    for metric in ("auc", "loss"):
        difference = np.array([row[f"winner {metric}"] - row[f"baseline {metric}"] for row in rows])
        better = np.sum(difference > 0 if metric == "auc" else difference < 0)
        interval = stats.t.interval(
            0.95, len(rows) - 1, loc=difference.mean(), scale=stats.sem(difference)
        )
        low, high = (float(edge) for edge in interval)
        print(
            f"{metric}: winner better in {better} of {len(rows)} seeds, mean difference "
            f"{difference.mean():+.3f} (95% interval {low:+.3f} to {high:+.3f})"
        )


if __name__ == "__main__":
    {"run": run, "table": table}[sys.argv[1]]()
