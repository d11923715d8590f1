"""Reads a run back from its directory, finished or not, and says what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.errors import RunDirectoryError
from search.journal import EventKind
from search.records import TrialRecord
from search.reporting.facts import mapping
from search.reporting.insights.insight import read_insights
from search.reporting.integrity import LIGHT, Integrity, compare
from search.reporting.progress import RunProgress
from search.reporting.trials import Row, refit_rows
from search.run_directory import RunDirectory

PARTS = (
    ("config.json", "the options"),
    ("dataset.json", "the data"),
    ("journal.jsonl", "the search"),
    ("best_hyperparameters.json", "the best configuration"),
    ("history.csv", "the retraining"),
    ("evaluation.json", "the verdict"),
    ("predictions.csv", "the predictions"),
    ("model.keras", "the model"),
    ("report.html", "the report"),
    ("manifest.json", "the manifest, written last"),
)
"""Files of the contract, in the order they come about, and what each holds."""


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """What a run directory holds.

    Attributes:
        run: The directory.
        config: `config.json`, {} if missing.
        dataset: `dataset.json`, {} if missing.
        plan: Fields of the last PLAN event, {} if there is none.
        records: The trials.
        objective: The metric that ranked them.
        progress: Where the run stood at the last event.
        refit: Rows of the retraining.
        evaluation: `evaluation.json`, {} if missing.
        manifest: `manifest.json`, {} if missing.
        missing: (file, what it holds) of the contract that is not there.
        problems: What could not be read, a sentence each.
        integrity: What was changed since the run ended.
    """

    run: RunDirectory
    config: dict[str, Any]
    dataset: dict[str, Any]
    plan: dict[str, Any]
    records: tuple[TrialRecord, ...]
    objective: str
    progress: RunProgress
    refit: tuple[Row, ...]
    evaluation: dict[str, Any]
    manifest: dict[str, Any]
    missing: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    integrity: Integrity = field(default_factory=Integrity)

    @property
    def synthetic(self) -> bool:
        """Return whether the run is on the built-in demo's images."""
        source = mapping(self.dataset.get("source"))
        return bool(self.evaluation.get("synthetic") or source.get("synthetic"))

    @property
    def light(self) -> dict[str, Any]:
        """Return what a light copy's manifest says it is a copy of, {} for a run."""
        return mapping(self.manifest.get(LIGHT))

    @property
    def plots(self) -> list[Path]:
        """Return the plots on disk that may be shown anywhere, in the order of the report."""
        found = read_insights(self.run.plots_dir)
        return [i.picture for i in found if i.picture is not None and not i.local]


def read_run(run: RunDirectory) -> StoredRun:
    """Read everything a run directory holds; what is damaged is named, not fatal."""
    problems: list[str] = []

    def read(name: str) -> dict[str, Any]:
        if not (run.root / name).exists():
            return {}
        try:
            return mapping(run.read_json(name))
        except (RunDirectoryError, OSError, UnicodeDecodeError) as error:
            problems.append(str(error))
            return {}

    config, evaluation = read("config.json"), read("evaluation.json")
    objective = str(config.get("objective") or evaluation.get("objective") or "robust_loss")
    progress = RunProgress(objective)
    events: list[dict[str, Any]] = []
    try:
        events = [event for event in run.events() if isinstance(event, dict)]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{run.journal_file}: cannot be read ({error})")
    readable = [event for event in events if progress.apply(event)]
    if progress.strange:
        problems.append(f"{run.journal_file}: {progress.strange} events could not be read")
    openings = sum(event.get("event") == EventKind.TEST_SCORED for event in readable)
    if evaluation and openings:
        # Runs of before this was counted have it in their journal only.
        evaluation = {"test_openings": openings, **evaluation}
    manifest = read("manifest.json")
    return StoredRun(
        run=run,
        config=config,
        dataset=read("dataset.json"),
        plan=progress.plan,
        records=tuple(progress.records),
        objective=objective,
        progress=progress,
        refit=tuple(refit_rows(readable, evaluation=evaluation)),
        evaluation=evaluation,
        manifest=manifest,
        missing=tuple((n, what) for n, what in PARTS if not (run.root / n).exists()),
        problems=tuple(problems),
        integrity=compare(run, manifest),
    )
