"""Writes what a run teaches into its folder `plots`: pictures, and numbers beside them."""

from __future__ import annotations

from pathlib import Path

from search.reporting import figures
from search.reporting.insights.explain import explain
from search.reporting.insights.material import Material


def draw_all(root: Path, material: Material, *, synthetic: bool) -> list[Path]:
    """Draw every plot there is data for into `root/plots`, and its numbers as JSON beside it.

    Args:
        root: The run directory.
        material: All there is to explain the run with.
        synthetic: Whether to stamp the figures.

    Returns:
        The files, in the order of the report; insights that are tables have a JSON file alone.
        Those under `plots/local` show radiographs.

    Raises:
        StorageError: The disk is full or read-only.
    """
    return [
        path
        for place, insight in enumerate(explain(material))
        for path in figures.save(insight, root, place=place, synthetic=synthetic)
    ]


def pictures(files: list[Path]) -> list[Path]:
    """Return the PNG files among those of `draw_all`."""
    return [path for path in files if path.suffix == ".png"]
