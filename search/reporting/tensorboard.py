"""Writes a run as TensorBoard shows it: scalars a trial and epoch, and the HParams dashboard.

A listener like the terminal. Its folder is made again from the journal whenever a process takes the
run, so a resumed run has no gap and nothing twice. Uses the package `tensorboard` alone, and thus
neither TensorFlow nor a writer thread: a record is in the file when `listen` returns.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from search.journal import Event, EventKind
from search.reporting.format import usable

SCORE = "score"
SHOWN = ("val_auc", "stress_auc", "val_loss", "test/accuracy", "test/auc")
"""Columns of the HParams dashboard besides the score and the objective."""


class TensorBoardLog:
    """Follows a run's events into TensorBoard's files.

    A trial is a TensorBoard run `trials/<id>`, a retraining `retraining/<role>, seed <n>`, an
    ensemble of the seeds `retraining/<role>, ensemble`. Steps are epochs, those of a trial's
    parents included; times are the journal's. `folder` is what `tensorboard --logdir` is given.
    """

    def __init__(
        self,
        folder: Path,  # emptied at the first event
        *,
        space: Sequence[dict[str, Any]],  # hyperparameters that vary, see `tuning.space.ranges`
        objective: str,
        warn: Callable[[str], None] = lambda _: None,  # told once when it cannot be written
    ) -> None:
        """Begin an empty log."""
        self.folder = folder
        self._objective = objective
        self._warn = warn
        self._space = space
        self._files: dict[str, Path] = {}
        self._tried: dict[str, Any] = {}
        self._usable = True

    def listen(self, event: Event) -> None:
        """Write one journal event; never raises, a log must not end a search."""
        if not self._usable:
            return
        try:
            self._listen(event)
        except (OSError, KeyError, TypeError, ValueError) as problem:
            self._usable = False
            self._warn(f"--tensorboard: {self.folder} cannot be written any more ({problem!r})")

    def _listen(self, event: Event) -> None:
        kind, time = event["event"], float(event["time"])
        if not self._files:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self._describe(time)
        if kind in (EventKind.TRIAL_CREATED, EventKind.REFIT_STARTED):
            self._begin(_name(event), event["values"], time)
        elif kind in (EventKind.EPOCH, EventKind.REFIT_EPOCH):
            self._scalars(_name(event), event["metrics"], event["epoch"], time)
        elif kind == EventKind.TRIAL_ENDED:
            self._scalars(_name(event), {SCORE: event["score"]}, event["epochs"], time)
        elif kind == EventKind.TEST_SCORED:
            for scoring in event["scorings"]:
                found = {f"test/{name}": scoring[name] for name in ("accuracy", "auc")}
                self._scalars(_name(scoring), found, 0, time)

    def _describe(self, time: float) -> None:
        """Declare hyperparameters and metrics, once, above all runs."""
        from tensorboard.plugins.hparams import summary_v2 as hparams

        def domain(described: dict[str, Any]) -> Any:
            if "values" in described:
                return hparams.Discrete(described["values"])
            low, high = described["low"], described["high"]
            if isinstance(low, int) and isinstance(high, int):
                return hparams.IntInterval(low, high)
            return hparams.RealInterval(float(low), float(high))

        shown = dict.fromkeys((SCORE, self._objective, *SHOWN))
        found = hparams.hparams_config_pb(
            hparams=[hparams.HParam(item["name"], domain(item)) for item in self._space],
            metrics=[hparams.Metric(tag) for tag in shown],
            time_created_secs=time,
        )
        self._write("", found, time)

    def _begin(self, run: str, values: dict[str, Any], time: float) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        if self._tried.get(run) == values:
            return  # a resumed process went on with it
        if run in self._files:
            del self._files[run]
            shutil.rmtree(self.folder / run)
        self._tried[run] = values
        self._write(run, hparams_pb(values, trial_id=run, start_time_secs=time), time)

    def _scalars(self, run: str, metrics: dict[str, Any], step: int, time: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
            if usable(value)
        ]
        if values:
            self._write(run, Summary(value=values), time, step)

    def _write(self, run: str, summary: Any, time: float, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = [Record(wall_time=time, step=step, summary=summary)]
        if run not in self._files:
            place = self.folder / run
            place.mkdir(parents=True, exist_ok=True)
            self._files[run] = place / f"events.out.tfevents.{int(time):010d}"
            records.insert(0, Record(wall_time=time, file_version="brain.Event:2"))
        # Opened for every event: hundreds of trials must not hold hundreds of files open.
        with open(self._files[run], "ab") as handle:
            for record in records:
                RecordWriter(handle).write(record.SerializeToString())


def _name(event: Event) -> str:
    if "trial_id" in event:
        return f"trials/{event['trial_id']}"
    seed = event["seed"]
    return f"retraining/{event['role']}, {'ensemble' if seed is None else f'seed {seed}'}"
