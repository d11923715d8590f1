"""Sends a run to MLflow or to Weights & Biases: parameters, the metrics of every epoch, files.

A thread follows the journal from where an earlier process stopped (`logs/<tracker>.json`), so that
nothing is sent twice, and a server that is slow or away neither holds up nor ends a search. Each
trial and each retraining is a run of the tracker below that of the search. Images, names of files
and folders are not sent. Where to, the libraries' own settings say (`MLFLOW_TRACKING_URI`, …).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from search.config import OPTIONS, RunConfig
from search.errors import ConfigurationError
from search.journal import Event, EventKind
from search.records import Comparison, Metrics, TrialStatus, to_json
from search.reporting.console import Console
from search.reporting.format import one_line, training, usable
from search.reporting.sentences import headlines
from search.run_directory import RunDirectory, write_json

PROJECT = "xray-search"
"""Of the tracker, where its own settings name no other."""

SENT = ("evaluation.json", "trials.csv", "report.md", "model_card.md", "model.*", "plots/*.png")
"""Files that are sent at the end; `report.html` shows images, predictions name files."""

UNSENT = ("data", "table", "cache_dir", "results_dir", "name", "address", "prior", "enqueue")
"""Options that name folders or machines, or are long."""

LONGEST_END = 600.0
"""Seconds that the end of a run waits for what is still to be sent."""

SEARCH = ""
"""The name of the whole search among the runs of a tracker."""


class _MLflow:
    """Runs of MLflow, known by its ids; those of trials are nested below that of the search."""

    def __init__(self, group: str) -> None:
        # It otherwise prints how it makes a data base, in the middle of the live view.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        import mlflow

        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        self._experiment = known.experiment_id if known else self._client.create_experiment(name)

    def begin(self, name: str, values: dict[str, Any], *, above: str | None, known: str) -> str:
        """Begin a run below another one, or go on with that of the id `known`; return its id."""
        if known:
            self._client.update_run(known, status="RUNNING")
            return known
        tags = {"mlflow.parentRunId": above} if above else {}
        run: str = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        params = [self._entities.Param(k, str(v)[:500]) for k, v in values.items()]
        self._client.log_batch(run, params=params)
        return run

    def log(self, run: str, metrics: Metrics, *, step: int, time: float) -> None:
        """Log numbers of one epoch; time is Unix seconds."""
        at = int(time * 1000)
        found = [self._entities.Metric(k, v, at, step) for k, v in metrics.items()]
        self._client.log_batch(run, metrics=found)

    def send(self, run: str, root: Path, files: Sequence[Path]) -> None:
        for file in files:
            folder = file.parent.relative_to(root).as_posix()
            self._client.log_artifact(run, str(file), None if folder == "." else folder)

    def end(self, run: str, *, ok: bool) -> None:
        self._client.set_terminated(run, "FINISHED" if ok else "FAILED")


class _WandB:
    """Runs of Weights & Biases in one group; offline where nobody is logged in."""

    def __init__(self, group: str) -> None:
        import wandb

        self._wandb = wandb
        self._group = group
        self._runs: dict[str, Any] = {}
        asked = "WANDB_MODE" in os.environ or wandb.login(prompt=False, verify=False)
        self._mode: Any = None if asked else "offline"
        self._settings = wandb.Settings(
            silent=True, console="off", save_code=False, disable_git=True, disable_code=True
        )

    def begin(self, name: str, values: dict[str, Any], *, above: str | None, known: str) -> str:
        run = known or uuid.uuid4().hex[:12]
        self._runs[run] = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run,
            name=name,
            group=self._group,
            job_type="trial" if above else "search",
            config=values,
            mode=self._mode,
            reinit="create_new",
            resume="allow",
            settings=self._settings,
        )
        return run

    def log(self, run: str, metrics: Metrics, *, step: int, time: float) -> None:
        self._runs[run].log(metrics, step=step)

    def send(self, run: str, root: Path, files: Sequence[Path]) -> None:
        artifact = self._wandb.Artifact(self._group, type="run")
        for file in files:
            artifact.add_file(str(file), name=file.relative_to(root).as_posix())
        self._runs[run].log_artifact(artifact)

    def end(self, run: str, *, ok: bool) -> None:
        self._runs.pop(run).finish(exit_code=int(not ok))


Service = _MLflow | _WandB
SERVICES: dict[str, Callable[[str], Service]] = {"mlflow": _MLflow, "wandb": _WandB}


def require_tracker(kind: str) -> None:
    """Check that what `--tracker` needs is installed; imports nothing.

    Raises:
        ConfigurationError: It is not.
    """
    if kind and importlib.util.find_spec(kind) is None:
        raise ConfigurationError(
            f"--tracker {kind}: the package {kind} is not installed; pip install "
            f"'xray-search[{kind}]', or leave the option out"
        )


class Tracker:
    """Follows the journal of a run in a thread; never raises, warns once."""

    def __init__(
        self, config: RunConfig, directory: RunDirectory, warn: Callable[[str], None]
    ) -> None:
        """Prepare; nothing is read or sent before the first event."""
        self._config = config
        self._directory = directory
        self._warn = warn
        self._file = directory.logs_dir / f"{config.tracker}.json"
        # Of the journal; the tracker's ids and the folders of retrainings, by name. Kept in a file.
        self._state: dict[str, Any] = {"offset": 0, "runs": {}, "folders": {}}
        self._service: Service | None = None
        self._open: set[str] = set()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def listen(self, event: Event) -> None:
        """Have the journal read on."""
        if self._thread.ident is None:
            self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Send what is left, of a finished run its files as well, and end all runs."""
        self._closing = True
        self._wake.set()
        if self._thread.ident is None:
            return
        self._thread.join(LONGEST_END)
        if self._thread.is_alive():
            self._give_up(f"no answer for {LONGEST_END:.0f} seconds")

    def _give_up(self, reason: object) -> None:
        self._warn(
            f"--tracker {self._config.tracker}: {one_line(reason)}; the run goes on without it. "
            "What is missing there is sent when the run is resumed with --resume"
        )

    def _follow(self) -> None:
        try:
            if self._file.exists():
                self._state = json.loads(self._file.read_text(encoding="utf-8"))
            while not self._closing:
                self._wake.wait()
                self._wake.clear()
                self._catch_up()
            self._catch_up()
            self._finish()
        except Exception as problem:  # of the library, its server or the network
            self._give_up(problem)

    def _catch_up(self) -> None:
        if not self._directory.journal_file.exists():
            return
        with open(self._directory.journal_file, "rb") as handle:
            handle.seek(self._state["offset"])
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # being written
                self._take(json.loads(line))
                self._state["offset"] += len(line)
                write_json(self._file, self._state)

    def _take(self, event: Event) -> None:
        kind, time = event["event"], event.get("time", 0.0)
        if kind == EventKind.TRIAL_CREATED:
            placed = {name: event[name] for name in ("configuration", "bracket", "rung")}
            self._begin(_name(event), {**event["values"], **placed})
        elif kind == EventKind.REFIT_STARTED:
            name, folders = _name(event), self._state["folders"]
            if folders.get(name) != event["folder"]:
                # Another training than an earlier process had under this name.
                folders[name] = event["folder"]
                self._state["runs"].pop(name, None)
                self._begin(name, event["values"])
        elif kind in (EventKind.EPOCH, EventKind.REFIT_EPOCH):
            found = {**event["metrics"], "epoch_seconds": event["seconds"]}
            self._log(_name(event), found, step=event["epoch"], time=time)
        elif kind == EventKind.TRIAL_ENDED:
            name = _name(event)
            self._log(name, {"score": event["score"]}, step=event["epochs"], time=time)
            self._end(name, ok=event["status"] == TrialStatus.COMPLETED)
        elif kind == EventKind.REFIT_ENDED:
            self._end(_name(event), ok=event["failure"] is None)

    def _begin(self, name: str, values: dict[str, Any]) -> tuple[Service, str]:
        """Begin a run, or go on with it, unless this process has it open."""
        if self._service is None:
            self._service = SERVICES[self._config.tracker](self._directory.name)
        runs = self._state["runs"]
        if name not in self._open:
            options = {k: getattr(self._config, k) for k in OPTIONS if k not in UNSENT}
            above = None if name == SEARCH else self._begin(SEARCH, to_json(options))[1]
            shown, known = name or self._directory.name, runs.get(name, "")
            runs[name] = self._service.begin(shown, values, above=above, known=known)
            self._open.add(name)
        return self._service, runs[name]

    def _log(self, name: str, metrics: dict[str, Any], *, step: int, time: float) -> None:
        service, run = self._begin(name, {})
        found = {key: float(value) for key, value in metrics.items() if usable(value)}
        service.log(run, found, step=step, time=time)

    def _end(self, name: str, *, ok: bool) -> None:
        service, run = self._begin(name, {})
        service.end(run, ok=ok)
        self._open.discard(name)

    def _finish(self) -> None:
        """Send the verdict and the files of a finished run; end what is open."""
        if self._directory.complete and self._state["runs"]:
            comparison = self._directory.read(Comparison, "evaluation.json")
            found = {
                f"{comparison.split.value}/{one.key} {side}": getattr(one, side)
                for one in headlines(comparison)
                for side in ("baseline", "winner")
            }
            root = self._directory.root
            time = (root / "manifest.json").stat().st_mtime
            self._log(SEARCH, found, step=0, time=time)
            files = (path for pattern in SENT for path in root.glob(pattern) if path.is_file())
            service, run = self._begin(SEARCH, {})
            service.send(run, root, sorted(files))
        for name in sorted(self._open, reverse=True):
            self._end(name, ok=self._directory.complete)


def _name(event: Event) -> str:
    if "trial_id" in event:
        return f"trial {event['trial_id']}"
    return training(event["role"], event["seed"])


@contextlib.contextmanager
def tracking(config: RunConfig, directory: RunDirectory, console: Console) -> Iterator[None]:
    """Send a run to the tracker that was asked for, if any, until the block ends."""
    if not config.tracker:
        yield
        return
    tracker = Tracker(config, directory, console.warn)
    console.also(tracker.listen)
    try:
        yield
    finally:
        tracker.close()
