"""Everything that is known of a run, read back from its directory once, for every report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, TypeVar

from search.config import RunConfig
from search.journal import Event
from search.records import (
    SYNTHETIC_NOTICE,
    Comparison,
    DatasetReport,
    ExportRecord,
    Manifest,
    Predictions,
    TrialRecord,
    with_implied,
)
from search.reporting.format import MISSING, one_line, setting
from search.reporting.plots import course, hyperparameters, scores
from search.reporting.plots.failures import Miss, misses
from search.reporting.plots.style import Chart
from search.reporting.progress import Retraining, RunProgress
from search.run_directory import RunDirectory
from search.scoring.effects import AblationReport, read_report
from search.scoring.predictions import PREDICTION_FILES, read_predictions_csv, scored_split
from search.tuning.selection import ordered

PARTS = (
    ("config.json", "the options"),
    ("dataset.json", "the data"),
    ("journal.jsonl", "the search"),
    ("history.csv", "the retraining"),
    ("evaluation.json", "the result"),
    ("model.keras", "the model"),
    ("report.html", "the report"),
    ("manifest.json", "the manifest, written last"),
)
"""Files of a run in the order they come about, and what each holds."""

T = TypeVar("T")

LOCAL_OPTIONS = ("data", "results_dir", "cache_dir", "table", "enqueue")
"""Options that name folders of this computer."""

_FOLDERS = re.compile(r"(?<![\w.<])(?:~|\.\.?)?/(?:[^\s(),/<>]+/)*(?=[^\s(),/<>])")
"""All of a path but its last part, where the path does not begin below the working directory."""


@dataclass(frozen=True)
class RunContents:
    """A run, finished or not; None for what it has not."""

    directory: RunDirectory
    config: RunConfig
    dataset: DatasetReport | None
    events: tuple[Event, ...]
    state: RunProgress  # at the last event
    comparison: Comparison | None
    exports: tuple[ExportRecord, ...]
    manifest: Manifest | None
    missing: tuple[str, ...]  # "file (what it holds)" for every part that is not there
    ablation: AblationReport | None = None

    @property
    def name(self) -> str:
        """Return the run's name."""
        return self.directory.root.resolve().name

    @property
    def notice(self) -> str:
        """Return what must be stamped on a report, "" for real data."""
        synthetic = self.dataset is not None and self.dataset.source.synthetic
        return SYNTHETIC_NOTICE if synthetic else ""

    @cached_property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Return the trials, best first by epochs trained."""
        return tuple(ordered(self.state.trials.values(), self.config.objective))

    @cached_property
    def retrainings(self) -> tuple[Retraining, ...]:
        """Return the retrainings; the finalist that won is called "winner"."""
        runs = tuple(self.state.retraining.values())
        if self.comparison is not None:
            for run in runs:
                if run.role != "baseline" and run.values == self.comparison.winner.values:
                    run.role = "winner"
        return runs

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Return what the exported networks said of the scored images, the baseline first."""
        found = {}
        for role in ("baseline", "winner"):
            said = scored_split(read_predictions_csv(self.directory.root / PREDICTION_FILES[role]))
            if said is not None:
                found[role] = said
        return found

    @cached_property
    def misses(self) -> list[Miss]:
        """Return the images that the winner misjudges, the most confident mistakes first."""
        if self.comparison is None or "winner" not in self.predictions:
            return []
        threshold = self.comparison.winner.exported.threshold.value
        return misses(
            self.predictions["winner"], self.predictions.get("baseline"), threshold=threshold
        )

    @cached_property
    def parallel(self) -> dict[str, Any] | None:
        """Return the parallel coordinates of the configurations."""
        return hyperparameters.parallel(self.trials, self.config.objective)

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """Return every chart there is data for, by name."""
        by_id, objective = self.state.trials, self.config.objective
        found = [
            course.history(self.events, by_id, objective),
            hyperparameters.slices(self.trials, objective),
            hyperparameters.importance(self.trials, objective),
            course.learning_curves(by_id, objective),
            course.retraining(self.retrainings, objective),
        ]
        if self.comparison is not None:
            roc = scores.roc(self.predictions, self.comparison, self.config.seed)
            if roc is not None:
                classes = self.comparison.classes
                found += [roc, scores.calibration(self.predictions, classes[1])]
        return {chart.name: chart for chart in found if chart is not None}

    @property
    def places(self) -> tuple[str, ...]:
        """Return paths on this computer that the run's texts may hold, the longest first."""
        known = [getattr(self.config, name, "") for name in LOCAL_OPTIONS]
        if self.dataset is not None:
            known += [self.dataset.source.root, self.dataset.cache.dir]
        known += [self.directory.root, self.directory.root.resolve()]
        return tuple(sorted({str(p) for p in known if p and "/" in str(p)}, key=len, reverse=True))

    def without_folders(self, text: str) -> str:
        """Leave only the last part of the paths in a text: a folder may name a person."""
        for place in self.places:
            text = text.replace(place, PurePath(place).name)
        return _FOLDERS.sub("", text)


def read(directory: RunDirectory) -> RunContents:
    """Read what the directory of a run, finished or not, holds.

    Raises:
        RunDirectoryError: A file is damaged, or there is no `config.json`.
    """
    config = directory.read(RunConfig, "config.json")
    state = RunProgress(config.objective)
    events = tuple(directory.events())
    for event in events:
        state.apply(event)

    def stored(kind: type[T], name: str) -> T | None:
        return directory.read(kind, name) if (directory.root / name).exists() else None

    return RunContents(
        directory=directory,
        config=config,
        dataset=stored(DatasetReport, "dataset.json"),
        events=events,
        state=state,
        comparison=stored(Comparison, "evaluation.json"),
        exports=stored(tuple[ExportRecord, ...], "exports.json") or (),
        manifest=stored(Manifest, "manifest.json"),
        ablation=read_report(directory),
        missing=tuple(
            f"{name} ({what})" for name, what in PARTS if not (directory.root / name).exists()
        ),
    )


def history_rows(retrainings: Iterable[Retraining]) -> list[dict[str, Any]]:
    """Return one row per epoch of the retraining: role, seed, epoch, seconds and every metric."""
    return [
        {"role": run.role, "seed": run.seed, "epoch": epoch, "seconds": seconds, **metrics}
        for run in retrainings
        for epoch, (seconds, metrics) in enumerate(zip(run.seconds, run.metrics, strict=True), 1)
    ]


def setting_rows(comparison: Comparison) -> list[tuple[str, str, str, bool]]:
    """Return (hyperparameter, baseline, winner, whether they differ), those that differ first."""
    baseline = with_implied(comparison.baseline.values)
    winner = with_implied(comparison.winner.values)
    rows = []
    for name in dict.fromkeys((*winner, *baseline)):
        old, new = (setting(one[name]) if name in one else MISSING for one in (baseline, winner))
        rows.append((name, old, new, old != new))
    return sorted(rows, key=lambda row: not row[3])


def option_rows(config: RunConfig, *, local: bool) -> list[tuple[str, str]]:
    """Return (option, value) of `config.json`, without those left empty."""
    rows = []
    for key, value in vars(config).items():
        if value in ("", (), {}, None) or (key in LOCAL_OPTIONS and not local):
            continue
        text = setting(value)
        if isinstance(value, dict):
            text = ", ".join(f"{name}={item}" for name, item in value.items())
        elif isinstance(value, tuple):
            text = ", ".join(map(str, value))
        rows.append((f"--{key.replace('_', '-')}", one_line(text, 500)))
    return rows
