"""What a written report contains, gathered once for Markdown and HTML alike; draws nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.config import RunConfig, direction
from search.records import SYNTHETIC_NOTICE, TrialRecord, to_json
from search.reporting import facts
from search.reporting.disclosure import without_folders, without_local_facts
from search.reporting.facts import mapping
from search.reporting.insights.insight import LOCAL, Insight, read_insights
from search.reporting.integrity import LIGHT
from search.reporting.verdict import Verdict, read_verdict
from search.reporting.wording import (
    MISSING,
    duration,
    is_number,
    one_line,
    same_values,
    setting,
    size,
    whole,
)


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
        exports: Rows of `exports.json`.
        ablation: The content of `ablation/ablation.json`.
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
    exports: tuple[dict[str, Any], ...] = ()
    ablation: dict[str, Any] = field(default_factory=dict)

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

    @property
    def places(self) -> tuple[str, ...]:
        """Return paths on this computer that the run's texts may hold."""
        config, source = self.config, mapping(self.dataset.get("source"))
        known = (config.get("data"), config.get("results_dir"), config.get("cache_dir"))
        cache = mapping(self.dataset.get("cache")).get("dir")
        here = (self.root, self.root.resolve())
        return tuple(str(place) for place in (source.get("root"), *known, cache, *here) if place)

    def passed_on(self) -> RunContent:
        """Return the same run without what names this computer or a folder on it, and its films."""
        places = self.places

        def clean(value: Any) -> Any:
            return without_folders(value, places)

        return dataclasses.replace(
            self,
            config=without_local_facts(self.config, places),
            dataset=without_local_facts(self.dataset, places),
            manifest=without_local_facts(self.manifest, places),
            plan=clean(self.plan),
            records=tuple(_record(record, clean) for record in self.records),
            evaluation=clean(self.evaluation),
            insights=tuple(
                dataclasses.replace(
                    shown,
                    reading=clean(shown.reading),
                    caption=clean(shown.caption),
                    rows=clean(shown.rows),
                )
                for shown in self.insights
                if not shown.local
            ),
            exports=clean(self.exports),
            ablation=clean(self.ablation),
        )

    @property
    def stale_ablation(self) -> bool:
        """Return whether the ablation changed factors of another winner than this run has now."""
        bases = self.ablation.get("bases")
        changed = [
            mapping(base.get("values"))
            for base in (bases if isinstance(bases, list) else ())
            if isinstance(base, dict) and base.get("base") == "winner"
        ]
        return bool(self.winner) and any(not same_values(one, self.winner) for one in changed)


def _record(record: TrialRecord, clean: Callable[[Any], Any]) -> TrialRecord:
    failure = record.failure
    if failure is not None:
        failure = dataclasses.replace(
            failure, message=clean(failure.message), traceback=clean(failure.traceback)
        )
    return dataclasses.replace(record, failure=failure, notes=clean(record.notes))


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
        exports=tuple(row for row in _listed(root / "exports.json") if isinstance(row, dict)),
        ablation=mapping(_json(root / "ablation" / "ablation.json")),
    )


def _json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or damaged."""
    with contextlib.suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def _listed(path: Path) -> list[Any]:
    found = _json(path)
    return found if isinstance(found, list) else []


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


def export_rows(content: RunContent) -> list[tuple[str, ...]]:
    """Return (format, file, size, largest difference, images, runtime, remark) of every export."""
    rows: list[tuple[str, ...]] = []
    for row in content.exports:
        difference = row.get("max_difference")
        failed = row.get("status") != "written"
        remark = str(row.get("reason") or "") or ("failed" if failed else "")
        rows.append(
            (
                str(row.get("format", MISSING)),
                # `model.keras` is kept where it failed.
                MISSING if failed and not row.get("bytes") else str(row.get("path", MISSING)),
                size(row.get("bytes") or None),
                f"{difference:.1e}" if is_number(difference) else MISSING,
                whole(row.get("images")),
                str(row.get("runtime") or MISSING),
                one_line(remark),
            )
        )
    return rows


def data_rows(content: RunContent) -> list[tuple[str, str]]:
    """Return (what, text) of the data."""
    return facts.data_facts(content.dataset)


def about_rows(content: RunContent) -> list[tuple[str, str]]:
    """Return (what, text) of the manifest: versions, device, seed, seconds; a line each."""
    rows = []
    for key, value in content.manifest.items():
        if key in ("files", "notice", LIGHT):
            continue
        timed = key in ("seconds", "costs", "stages")
        name = {"seconds": "time by stage", "costs": "time by kind"}.get(key, key)
        if isinstance(value, dict):
            parts = [f"{k} {duration(v) if timed else v}" for k, v in value.items()]
            rows.append((name, one_line(" · ".join(parts), 500)))
        elif value is not None:
            rows.append((name, one_line(value, 500)))
    return rows


def option_rows(content: RunContent) -> list[tuple[str, str]]:
    """Return (option, value) of `config.json`, without those left empty."""
    rows = []
    for key, value in content.config.items():
        if value in ("", [], {}, None):
            continue
        if isinstance(value, dict):
            text = ", ".join(f"{name}={item}" for name, item in value.items())
        elif isinstance(value, list):
            text = ", ".join(str(item) for item in value)
        else:
            text = setting(value)
        rows.append((f"--{key.replace('_', '-')}", one_line(text, 500)))
    return rows
