"""Writes what a run teaches into its folder `plots`: pictures, and numbers beside them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from search.errors import storage_errors
from search.reporting import figures
from search.reporting.insights.explain import explain
from search.reporting.insights.insight import LOCAL
from search.reporting.insights.material import Material

KINDS = (".png", ".json")


def draw_all(
    root: Path, material: Material, *, synthetic: bool, keep: Collection[str] = ()
) -> list[Path]:
    """Draw every plot there is data for into `root/plots`, and its numbers as JSON beside it.

    A report shows whatever lies there, so what an earlier pass of the run drew and this one did
    not is removed.

    Args:
        root: The run directory.
        material: All there is to explain the run with.
        synthetic: Whether to stamp the figures.
        keep: Names of plots that stay as they are where they cannot be drawn again.

    Returns:
        The files, in the order of the report; insights that are tables have a JSON file alone.
        Those under `plots/local` show radiographs.

    Raises:
        StorageError: The disk is full or read-only.
    """
    drawn = [
        path
        for place, insight in enumerate(explain(material))
        for path in figures.save(insight, root, place=place, synthetic=synthetic)
    ]
    for folder in (root / "plots", root / "plots" / LOCAL):
        for path in folder.glob("*"):
            if path.suffix in KINDS and path not in drawn and path.stem not in keep:
                with storage_errors(path):
                    path.unlink()
    return drawn


def pictures(files: list[Path]) -> list[Path]:
    """Return the PNG files among those of `draw_all`."""
    return [path for path in files if path.suffix == ".png"]
