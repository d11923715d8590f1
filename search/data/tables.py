"""Draws the report of a data set as rich tables, for `python -m search.data`. Reads no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from search.records import CLASS_NAMES

SHOWN = 10
"""Longest list of paths printed; `--json` has all."""

SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


def report_view(report: dict[str, Any]) -> RenderableType:
    """Return everything the report says, in reading order."""
    parts: list[RenderableType] = []
    if report["source"]["notice"]:
        notice = report["source"]["notice"].upper()
        parts.append(Panel(Text(notice, justify="center"), style="bold black on yellow"))
    parts += [_facts(report), _counts(report), _sizes(report), _quality(report)]
    lists = {
        "left out": [f"{bad['path']}: {bad['reason']}" for bad in report["rejected"]],
        "in colour": report["colour"],
        "not images": report["ignored"],
        "identical, train and test": _groups(report["duplicates"]["crossing_test"]),
        "identical, both classes": _groups(report["duplicates"]["crossing_classes"]),
        "identical, training and validation": _groups(report["duplicates"]["crossing_validation"]),
        "patients of the test in train": report["leakage"]["test_patients_in_train_ids"],
    }
    parts += [_listing(title, lines) for title, lines in lists.items() if lines]
    parts += [Text(f"! {line}", style="bold red") for line in report["alarms"]]
    parts += [Text(f"· {line}", style="yellow") for line in report["notes"]]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table


def _grid(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def _facts(report: dict[str, Any]) -> Table:
    source, cache = report["source"], report["cache"]
    split = (
        f"{report['split']}, {report['val_fraction']:.0%} of train + val for validation, "
        f"seed {report['seed']}"
    )
    state = "found" if cache["reused"] else "written"
    return _grid(
        [
            ("folder", source["root"]),
            ("found by", source["origin"]),
            ("fingerprint", report["fingerprint"][:16]),
            ("split", split),
            ("decoded", f"{report['image_size']} × {report['image_size']} gray, uint8"),
            ("cache", f"{cache['dir']} ({cache['bytes'] / 1e6:.0f} MB, {state})"),
        ]
    )


def _counts(report: dict[str, Any]) -> Table:
    table = _table("", *CLASS_NAMES, "images", "patients", *(f"{c} pat." for c in CLASS_NAMES))
    for split, title in SPLIT_TITLES.items():
        counts, patients = report["counts"][split], report["patients"][split]
        table.add_row(
            title,
            *(f"{counts[name]:,}" for name in CLASS_NAMES),
            f"{sum(counts.values()):,}",
            f"{patients['total']:,}",
            *(f"{patients[name]:,}" for name in CLASS_NAMES),
        )
    weights = report["class_weights"]
    table.add_row("class weight", *(f"{weights[name]:.2f}" for name in CLASS_NAMES), style="dim")
    return table


def _sizes(report: dict[str, Any]) -> Table:
    table = _table("original pixels", "smallest", "median", "largest")
    for name, sides in report["sizes"].items():
        for side, (low, middle, high) in sides.items():
            table.add_row(f"{name} {side}", f"{low:,}", f"{middle:,.0f}", f"{high:,}")
    return table


def _quality(report: dict[str, Any]) -> Table:
    twins, leak, views = report["duplicates"], report["leakage"], report["views"]
    modes = ", ".join(f"{count:,} {mode}" for mode, count in report["modes"].items())
    shared = leak["val_images_sharing_a_patient_with_train"]
    identical = (
        f"{twins['groups']} groups of identical files ({twins['files']} files); "
        f"{len(twins['crossing_test'])} across train and test, "
        f"{len(twins['crossing_classes'])} across classes, "
        f"{len(twins['crossing_patients'])} across patients, "
        f"{len(twins['crossing_validation'])} across training and validation"
    )
    return _grid(
        [
            ("pixel modes", f"{modes}; {len(report['colour'])} with real colour"),
            ("left out", f"{len(report['rejected'])} files"),
            ("names", f"{report['unmatched_names']} match no known pattern"),
            ("duplicates", identical),
            (
                "leakage",
                f"{shared:,} of {leak['val_images']:,} validation images share a patient with "
                f"training; {leak['test_patients_in_train']} test patients are in train + val",
            ),
            ("prevalence", f"{report['prevalence']:.3f} PNEUMONIA in train + val"),
            ("stressed views", f"{views['count']:,} of validation: {', '.join(views['names'])}"),
        ]
    )


def _groups(groups: Sequence[Sequence[str]]) -> list[str]:
    return [" = ".join(group) for group in groups]


def _listing(title: str, lines: Sequence[str]) -> Table:
    shown = [(title if number == 0 else "", line) for number, line in enumerate(lines[:SHOWN])]
    if len(lines) > SHOWN:
        shown.append(("", f"… {len(lines) - SHOWN} more; --json lists all"))
    return _grid(shown)
