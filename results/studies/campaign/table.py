"""Prints the campaign's table from one or more evaluation.json, by default the one beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

HERE = Path(__file__).parent
METRICS = (("ranking", "auc"), ("at_half", "accuracy"), ("at_half", "recall"),
           ("at_half", "specificity"), ("at_threshold", "accuracy"), ("at_threshold", "recall"),
           ("at_threshold", "specificity"))  # fmt: skip
HEADS = ("AUC", "accuracy at 0.5", "sensitivity at 0.5", "specificity at 0.5",
         "accuracy at the threshold", "sensitivity", "specificity")  # fmt: skip


def cells(networks: list[dict[str, Any]]) -> list[str]:
    """Return the mean of every metric over networks, with its 95% t interval over seeds."""
    found = []
    for group, name in METRICS:
        values = np.array([network[group][name]["value"] for network in networks])
        text = f"{values.mean():.3f}"
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
            text += f" ± {half:.3f}"
        found.append(text)
    return found


def main() -> None:
    """Print a row for the seeds' mean, each seed and the ensemble, of both sides."""
    files = [Path(name) for name in sys.argv[1:]] or [HERE / "evaluation.json"]
    for file in files:
        comparison = json.loads(file.read_text())
        rows = []
        for side in ("baseline", "winner"):
            one = comparison[side]
            rows.append([f"{side}, mean of {len(one['test'])}", *cells(one["test"])])
            rows += [[f"{side}, seed {n['seed']}", *cells([n])] for n in one["test"]]
            if one.get("ensemble_test"):
                rows.append([f"{side}, ensemble", *cells(one["ensemble_test"])])
        print(f"\n{file.name}: {comparison['times_evaluated']} evaluation(s) of the test images\n")
        print("| | " + " | ".join(HEADS) + " |\n|---|" + "---:|" * len(HEADS))
        for row in rows:
            print("| " + " | ".join(row) + " |")
        print("\nwinner - baseline, the wider of the intervals over seeds and over patients:")
        for name in ("auc", "accuracy_at_threshold", "recall_at_threshold",
                     "specificity_at_threshold"):  # fmt: skip
            over = comparison["mean_difference"][name].values()
            one = max(over, key=lambda estimate: estimate["high"] - estimate["low"])
            print(f"{name}: {one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})")


if __name__ == "__main__":
    main()
