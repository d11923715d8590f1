"""What a written report contains, gathered once for Markdown and HTML alike; draws nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import RunConfig, direction
from search.records import SYNTHETIC_NOTICE, TrialRecord, to_json
from search.reporting.facts import mapping
from search.reporting.insights.insight import LOCAL, Insight, read_insights
from search.reporting.verdict import Verdict, read_verdict
from search.reporting.wording import duration, is_number, one_line, setting


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A plot on disk.

    Attributes:
        path: The PNG file.
        title: Its heading.
        caption: What is seen.
        columns: Names of its numbers' columns.
        rows: Its numbers.
    """

    path: Path
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """Everything that is known of a run; empty dictionaries for what is not.

    Attributes:
        name: Name of the run.
        root: Its directory.
        notice: What must be stamped on the report, "" for real data.
        config: The content of `config.json`.
        dataset: The content of `dataset.json`.
        plan: Fields of the PLAN event.
        records: The trials.
        evaluation: The content of `evaluation.json`.
        pictures: The plots that may be shown anywhere.
        insights: Everything the run teaches, in the order of the report: the plots again, tables
            without one, and pictures that must stay in the run directory.
        manifest: What the manifest says or will say.
    """

    name: str
    root: Path
    notice: str
    config: dict[str, Any]
    dataset: dict[str, Any]
    plan: dict[str, Any]
    records: tuple[TrialRecord, ...]
    evaluation: dict[str, Any]
    pictures: tuple[Picture, ...]
    manifest: dict[str, Any]
    insights: tuple[Insight, ...] = ()

    @property
    def objective(self) -> str:
        """Return the metric that ranked the trials."""
        return str(self.config.get("objective") or self.evaluation.get("objective") or "score")

    @property
    def direction(self) -> str:
        """Return "min" or "max", for the objective."""
        return direction(self.objective)

    @property
    def verdict(self) -> Verdict | None:
        """Return the worded verdict, None while there is no evaluation."""
        return read_verdict(self.evaluation) if self.evaluation else None

    @property
    def winner(self) -> dict[str, Any]:
        """Return the winner's hyperparameters, empty while unknown."""
        return mapping(mapping(self.evaluation.get("winner")).get("values"))

    @property
    def documented(self) -> dict[str, Any]:
        """Return the documented configuration's hyperparameters, empty while unknown."""
        return mapping(mapping(self.evaluation.get("documented")).get("values"))


def gather(
    root: Path,
    *,
    config: RunConfig | dict[str, Any],
    dataset: dict[str, Any],
    plan: dict[str, Any],
    records: Sequence[TrialRecord],
    evaluation: dict[str, Any],
    plots: Sequence[Path],
    manifest_like: dict[str, Any],
) -> RunContent:
    """Put a report's content together; see `documents.write_reports` for the arguments."""
    synthetic = bool(evaluation.get("synthetic") or mapping(dataset.get("source")).get("synthetic"))
    return RunContent(
        name=root.resolve().name,
        root=root,
        notice=str(evaluation.get("notice") or SYNTHETIC_NOTICE) if synthetic else "",
        config=mapping(to_json(config)),
        dataset=dataset,
        plan=plan,
        records=tuple(records),
        evaluation=evaluation,
        pictures=tuple(
            picture(path) for path in plots if path.exists() and path.parent.name != LOCAL
        ),
        insights=tuple(read_insights(root / "plots")),
        manifest=mapping(to_json(manifest_like)),
    )


def picture(path: Path) -> Picture:
    """Read a plot and the numbers beside it; without them it is shown all the same."""
    numbers: dict[str, Any] = {}
    with contextlib.suppress(OSError, json.JSONDecodeError):
        numbers = mapping(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    rows = numbers.get("rows")
    columns = numbers.get("columns")
    return Picture(
        path=path,
        title=str(numbers.get("title") or path.stem.replace("_", " ")),
        caption=str(numbers.get("caption") or ""),
        columns=tuple(str(c) for c in columns) if isinstance(columns, list) else (),
        rows=tuple(tuple(r) for r in rows if isinstance(r, list)) if isinstance(rows, list) else (),
    )


def settings_rows(content: RunContent) -> list[tuple[str, str, str, bool]]:
    """Return (hyperparameter, documented, winner, whether they differ)."""
    rows = []
    for name in dict.fromkeys((*content.documented, *content.winner)):
        old = setting(content.documented[name]) if name in content.documented else "–"
        new = setting(content.winner[name]) if name in content.winner else "–"
        rows.append((name, old, new, old != new))
    return rows


def about_rows(content: RunContent) -> list[tuple[str, str]]:
    """Return (what, text) of the options and of the manifest, nested keys joined by dots."""
    options = {
        key: value for key, value in content.config.items() if value not in ("", [], {}, None)
    }
    manifest = {key: value for key, value in content.manifest.items() if key != "files"}
    return [*_flat(options, "option "), *_flat(manifest, "")]


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        joint = "" if not name or name.endswith(" ") else "."
        return [row for key, item in value.items() for row in _flat(item, f"{name}{joint}{key}")]
    if isinstance(value, list):
        return [(name, one_line(", ".join(str(item) for item in value), 500))]
    timed = "seconds" in name or name.startswith("stages.")
    if is_number(value) and timed:
        return [(name, duration(value))]
    return [(name, one_line(value, 500))]
