"""What an insight is, how it is kept on disk, and how it is read back; knows no drawing library."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOCAL = "local"
"""Folder under `plots/` of what must not leave the run directory."""


class Section(StrEnum):
    """Part of the report that an insight belongs to, in order; the value is its heading."""

    TEST = "On the test set"
    """How good the models are."""
    FAILURES = "Where it fails"
    """Which images are misjudged, and what the network looked at."""
    SEARCH = "What the search found"
    """Which hyperparameters matter."""
    COURSE = "How the run went"
    """Trials, rungs, retraining, time."""


OLD = {"confusion": Section.TEST, "roc": Section.TEST}
"""Sections of the pictures that earlier versions drew, which did not say."""


@dataclass(frozen=True, kw_only=True)
class Insight:
    """One thing a run teaches.

    Attributes:
        name: Name of its files without ending; an anchor in the report.
        section: Part of the report.
        title: Heading.
        reading: One sentence: what this run shows.
        caption: How to read the picture and the numbers, and what method made them.
        columns: Names of the numbers' columns.
        rows: The numbers: str, int, float or None.
        draw: Draws the picture; None where there is none, or it lies on disk.
        picture: The picture on disk, None before it is saved and where there is none.
        local: Whether it shows radiographs, and must stay in the run directory.
    """

    name: str
    section: Section
    title: str
    reading: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    draw: Callable[[], Figure] | None = dataclasses.field(default=None, compare=False, repr=False)
    picture: Path | None = None
    local: bool = False


def as_json(insight: Insight, *, place: int) -> dict[str, Any]:
    """Return what `plots/<name>.json` holds; `place` orders the insights of a report."""
    return {
        "place": place,
        "title": insight.title,
        "section": insight.section,
        "reading": insight.reading,
        "caption": insight.caption,
        "columns": insight.columns,
        "rows": insight.rows,
    }


def read_insights(folder: Path) -> list[Insight]:
    """Read every insight of a run from its folder `plots`, in the order of the report."""
    found = []
    for place in (folder, folder / LOCAL):
        names = sorted({p.stem for p in place.glob("*.*") if p.suffix in (".json", ".png")})
        for name in names:
            if not name.startswith("."):
                found.append(_read(place / f"{name}.json", local=place.name == LOCAL))
    known = [pair for pair in found if pair is not None]
    sections = list(Section)
    # Pictures of earlier versions have no place; they come last in their section.
    known.sort(key=lambda pair: (sections.index(pair[1].section), pair[0]))
    return [insight for _, insight in known]


def _read(path: Path, *, local: bool) -> tuple[int, Insight] | None:
    """Return an insight with its place; what is damaged is left empty, None if nothing is left."""
    picture = path.with_suffix(".png")
    said: Any = {}
    with contextlib.suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):
        said = json.loads(path.read_text(encoding="utf-8"))
    said = said if isinstance(said, dict) else {}
    columns, rows = said.get("columns"), said.get("rows")
    if not picture.exists() and not (columns and rows):
        return None
    sections = {section.value: section for section in Section}
    place = said.get("place")
    insight = Insight(
        name=path.stem,
        section=sections.get(str(said.get("section")), OLD.get(path.stem, Section.COURSE)),
        title=str(said.get("title") or path.stem.replace("_", " ")),
        reading=str(said.get("reading") or ""),
        caption=str(said.get("caption") or ""),
        columns=tuple(str(c) for c in columns) if isinstance(columns, list) else (),
        rows=tuple(tuple(r) for r in rows if isinstance(r, list)) if isinstance(rows, list) else (),
        picture=picture if picture.exists() else None,
        local=local,
    )
    return place if isinstance(place, int) else sys.maxsize, insight
