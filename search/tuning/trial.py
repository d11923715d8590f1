"""Trains one trial: configuration, epoch range, parent checkpoint, seed and data in; a result out.

Knows no oracle, no schedule and no run, so it runs the same in this process, in a worker process,
or on another machine. All randomness of an epoch (data order, dropout, augmentation) is set at its
beginning from (trial seed, epoch), so stopping after any epoch and continuing from its checkpoint
gives the same weights as never stopping.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import math
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt

from search.config import direction
from search.errors import DataError, SearchError, StopRequestedError, storage_errors
from search.records import (
    Dataset,
    EpochRecord,
    Failure,
    FailureKind,
    Metrics,
    TrialResult,
    TrialSpec,
)
from search.tuning import checkpoint
from search.tuning.feed import TrainingFeed
from search.tuning.model import (
    Setting,
    averaged,
    build_model,
    release_memory,
    reseed,
    training_feed,
)
from search.tuning.normalization import StatisticsImages, reestimated
from search.tuning.selection import smoothed
from search.tuning.validation import Validator, above_chance

OnEpoch = Callable[[EpochRecord], None]
ShouldStop = Callable[[], bool]
OnStep = Callable[[], None]
TRACEBACK_LINES = 12
MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors of the system that no configuration causes, wherever they are met."""
COSTS = ("build", "compile", "data", "train", "validate", "checkpoint")
"""What a trial's seconds go into. compile: the first step, with tracing and compiling; data:
gathering batches, in a thread beside the training and so part of its time; train: other steps."""


def train_trial(
    spec: TrialSpec,
    setting: Setting,
    *,
    on_epoch: OnEpoch | None = None,
    should_stop: ShouldStop | None = None,
    on_step: OnStep | None = None,
) -> TrialResult:
    """Train a trial to its epoch, continuing its own or its parent's checkpoint.

    Args:
        spec: What to train.
        setting: With what.
        on_epoch: Called after each epoch is durable, also for epochs found finished on disk.
        should_stop: Asked after each epoch.
        on_step: Called after each training step and each batch of validation: a sign of life.

    Returns:
        The result. Exceptions of build and fit, running out of memory and divergence are results
        with a failure, not exceptions.

    Raises:
        StopRequestedError: `should_stop` said so; the finished epochs are kept.
        SearchError: The run cannot go on whatever the configuration, e.g. a full disk.
    """
    begin = time.perf_counter()
    run = _Run(
        spec,
        setting,
        on_epoch=on_epoch or (lambda record: None),
        should_stop=should_stop or (lambda: False),
        on_step=on_step or (lambda: None),
    )
    batch_size = int(spec.values.get("batch_size", 0))
    try:
        failure = _attempt(run)
        if failure is not None and failure.kind is FailureKind.OUT_OF_MEMORY and batch_size > 1:
            release_memory()
            half = batch_size // 2
            run.notes += (f"out of memory at batch size {batch_size}; retried at {half}",)
            run.spec = dataclasses.replace(spec, values={**spec.values, "batch_size": half})
            failure = _attempt(run)
    finally:
        release_memory()
    return TrialResult(
        trial_id=spec.trial_id,
        epochs=tuple(run.records),
        parameters=run.parameters,
        seconds=time.perf_counter() - begin,
        costs=dict(run.costs),
        best_epoch=run.best_epoch,
        failure=failure,
        notes=run.notes,
        learned=failure is not None or run.learned,
    )


class _Run:
    """The mutable state of training one trial."""

    def __init__(
        self,
        spec: TrialSpec,
        setting: Setting,
        *,
        on_epoch: OnEpoch,
        should_stop: ShouldStop,
        on_step: OnStep,
    ) -> None:
        self.spec = spec
        self.setting = setting
        self.on_epoch = on_epoch
        self.should_stop = should_stop
        self.on_step = on_step
        self.records: list[EpochRecord] = []
        self.parameters = 0
        self.costs = dict.fromkeys(COSTS, 0.0)
        self.notes: tuple[str, ...] = ()

    def objective(self, record: EpochRecord) -> float:
        """Return a record's objective, smaller is better."""
        value = record.metrics[self.setting.objective]
        return value if direction(self.setting.objective) == "min" else -value

    @property
    def best_epoch(self) -> int:
        """Return the epoch with the best score, the earliest of equals; 0 without epochs.

        The score of an epoch is that of the training so far (`selection.smoothed`): the luckiest of
        many single epochs would favour trainings that jump. Without validation it is the last one.
        """
        if not self.records:
            return 0
        if not self.setting.validated:
            return self.records[-1].epoch
        costs = [self.objective(record) for record in self.records]
        scores = [
            smoothed(costs[:number], epochs=record.epoch)
            for number, record in enumerate(self.records, 1)
        ]
        return self.records[scores.index(min(scores))].epoch

    @property
    def learned(self) -> bool:
        """Return whether the last epoch's ranking of the validation images is above chance."""
        if not self.setting.validated or not self.records:
            return True
        return above_chance(self.records[-1].metrics["val_auc"], self.setting.dataset.val.labels)

    @property
    def out_of_patience(self) -> bool:
        """Return whether early stopping ends the trial here."""
        patience = self.spec.early_stopping
        return bool(
            patience and self.records and self.records[-1].epoch - self.best_epoch >= patience
        )


def _attempt(run: _Run) -> Failure | None:
    """Train, and turn exceptions into a failure: the one place that does so."""
    spec, setting = run.spec, run.setting
    try:
        if (ready := _prepare(run)) is not None:
            model, feed, validator, initial = ready
            hyperparameters = kt.HyperParameters()
            hyperparameters.values = copy.deepcopy(spec.values)
            setting.hypermodel.fit(
                hyperparameters,
                model,
                feed,
                initial_epoch=initial,
                epochs=spec.epochs,
                callbacks=[_EpochEnd(run, feed, validator)],
                shuffle=False,
                verbose=0,
            )
    except SearchError:
        raise
    except _DivergedError as error:
        return Failure(kind=FailureKind.DIVERGED, message=str(error))
    except Exception as error:
        refuse_machine_faults(setting.dataset, error)
        first, _, _ = str(error).strip().partition("\n")
        return Failure(
            kind=failure_kind(error),
            message=": ".join(filter(None, (type(error).__name__, first[:300]))),
            traceback="\n".join(traceback.format_exc().strip().splitlines()[-TRACEBACK_LINES:]),
        )
    return None


def _prepare(run: _Run) -> tuple[Any, TrainingFeed, Validator, int] | None:
    """Build what trains and restore it; return it with the epochs behind it, None if it is done."""
    spec, setting = run.spec, run.setting
    begin = time.perf_counter()
    model = build_model(
        setting,
        spec.values,
        spec.seed,
        precision=spec.precision,
        max_parameters=setting.max_parameters,
    )
    run.parameters = int(model.count_params())
    feed = training_feed(setting, spec.values, spec.seed)
    initial = _restore(run, model, feed.num_batches)
    for record in run.records:
        run.on_epoch(record)
    if initial >= spec.epochs or run.out_of_patience:
        return None
    validator = Validator(setting.dataset, prevalence=setting.prevalence, on_batch=run.on_step)
    run.costs["build"] += time.perf_counter() - begin
    return model, feed, validator, initial


def refuse_machine_faults(dataset: Dataset, error: BaseException | None = None) -> None:
    """Tell faults of the machine from failures of configurations: the one place that does so.

    Called where a trial failed or lost its worker. A fault of the machine ends the search, which
    trains the trial when it is resumed; a failure is the trial's result for good.

    Args:
        dataset: Whose prepared images trials read.
        error: What was raised; None where a worker was lost.

    Raises:
        DataError: Prepared images are gone or cut short.
        StorageError: The disk refused to be read or written.
    """
    for part in (dataset.train, dataset.val, dataset.views):
        try:
            part.open_array()
        except (OSError, ValueError) as cause:
            raise DataError(
                f"{part.array_file}: the prepared images are gone or cut short ({cause}). What is "
                "finished is kept; run the same command with --resume, which prepares them again"
            ) from cause
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        place = Path(error.filename or "the results or log folder")
        with storage_errors(place):
            raise error


def failure_kind(error: BaseException) -> FailureKind:
    """Return the class of failure that an exception means."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or name == "ResourceExhaustedError":
        return FailureKind.OUT_OF_MEMORY
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return FailureKind.OUT_OF_MEMORY
    if name == "ModelTooLargeError":
        return FailureKind.TOO_LARGE
    return FailureKind.ERROR


def _restore(run: _Run, model: Any, steps_per_epoch: int) -> int:
    """Load this trial's checkpoint, or its parent's; return the epochs that are behind it.

    Where a checkpoint is gone or damaged, its epochs are trained again, to the same weights.

    Raises:
        ValueError: The checkpoint is that of another optimizer.
    """
    spec = run.spec
    own, parent = spec.directory / checkpoint.LAST, spec.parent_checkpoint
    checkpoint.tidy(spec.directory)
    run.records = []
    epoch = checkpoint.saved_epoch(own)
    # Of the epochs behind it, one is the best, whose weights cannot be had but by training.
    whole = not spec.keep_best or checkpoint.saved_epoch(spec.directory / checkpoint.BEST) > 0
    if epoch and whole:
        checkpoint.load(model, own, steps=epoch * steps_per_epoch)
        run.records = [
            record
            for record in checkpoint.read_epochs(spec.directory, up_to=epoch)
            if record.epoch > spec.initial_epoch
        ]
        return epoch
    if own.exists():
        run.notes += ("its checkpoint was damaged; its epochs were trained again",)
    if spec.initial_epoch == 0:
        return 0
    if parent is not None and checkpoint.saved_epoch(parent) == spec.initial_epoch:
        checkpoint.load(model, parent, steps=spec.initial_epoch * steps_per_epoch)
        return spec.initial_epoch
    run.notes += ("the parent's checkpoint was gone or damaged; trained from the beginning",)
    return 0


class _DivergedError(Exception):
    """The loss or the objective is not finite."""


class _EpochEnd(keras.callbacks.Callback):
    """Sets an epoch's randomness, then validates, checkpoints and reports it.

    Attributes:
        async_safe: Tells Keras that `on_train_batch_end` may be called from any thread. On JAX the
            steps are then sent to the device without waiting for each to end; Keras waits for
            all calls before the end of the epoch.
    """

    async_safe = True

    def __init__(self, run: _Run, feed: TrainingFeed, validator: Validator) -> None:
        super().__init__()
        self.run = run
        self.feed = feed
        self.validator = validator
        self.images = StatisticsImages(run.setting.dataset.train)
        self.begin = 0.0
        self.compiled = False
        self._lock = threading.Lock()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set data order and the state of every random layer; Keras counts epochs from 0."""
        self.begin = time.perf_counter()
        self.feed.epoch = epoch + 1
        reseed(self.model, seed=self.run.spec.seed, epoch=epoch + 1)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Give a sign of life; the first step tells what compiling took."""
        with self._lock:
            first, self.compiled = not self.compiled, True
        if first:
            now = time.perf_counter()
            self.run.costs["compile"] += now - self.begin
            self.run.costs["train"] -= now - self.begin
        self.run.on_step()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate, keep and report the epoch."""
        run = self.run
        trained = time.perf_counter()
        metrics: Metrics = {name: float(value) for name, value in (logs or {}).items()}
        statistics = reestimated(self.model, self.images, on_batch=run.on_step)
        with averaged(self.model), statistics:
            if run.setting.validated:
                metrics.update(self.validator.metrics(self.model))
            validated = time.perf_counter()
            record = self._record(epoch + 1, metrics, validated)
            if run.spec.keep_best and run.best_epoch == record.epoch:
                # Kept for use, so with the statistics it was validated with.
                best = run.spec.directory / checkpoint.BEST
                checkpoint.save(self.model, best, epoch=record.epoch)
        checkpoint.append_epoch(run.spec.directory, record)
        checkpoint.save(self.model, run.spec.directory / checkpoint.LAST, epoch=record.epoch)
        run.costs["train"] += trained - self.begin
        run.costs["data"] = self.feed.seconds
        run.costs["validate"] += validated - trained
        run.costs["checkpoint"] += time.perf_counter() - validated
        if record.epoch > run.spec.initial_epoch:  # else the parent's, trained again
            run.on_epoch(record)
        if run.should_stop():
            raise StopRequestedError(f"stopped after epoch {record.epoch} as asked")
        if run.out_of_patience:
            self.model.stop_training = True

    def _record(self, epoch: int, metrics: Metrics, now: float) -> EpochRecord:
        """Note a finished epoch.

        Raises:
            _DivergedError: The loss or the objective is not finite.
        """
        setting = self.run.setting
        for name in ("loss", setting.objective) if setting.validated else ("loss",):
            if not math.isfinite(metrics[name]):
                raise _DivergedError(f"{name} is {metrics[name]} in epoch {epoch}")
        record = EpochRecord(
            trial_id=self.run.spec.trial_id,
            epoch=epoch,
            metrics=metrics,
            seconds=now - self.begin,
        )
        if epoch > self.run.spec.initial_epoch:
            self.run.records.append(record)
        return record
