"""What passes between the rooms: frozen snapshots, without links back to what made them.

Imports nothing heavier than NumPy, so that `--help`, `--plan` and reports start at once.
Times are seconds, rates are fractions in [0, 1], labels are 0 (negative) and 1 (positive).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
import typing
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from search.errors import RunDirectoryError

SYNTHETIC_NOTICE = "synthetic demo data: these numbers say nothing about X-rays"

Metrics = dict[str, float]
Values = dict[str, Any]
"""Hyperparameter values by name, active ones only, as KerasTuner keeps them."""

IMPLIED: Values = {"base_filters": 16, "activation": "relu", "batch_norm": True}
"""What Keras' initialization implies in the documented network: with it they are no choice."""


def with_implied(values: Values) -> Values:
    """Return values with those that the initialization implies."""
    return {**IMPLIED, **values} if "initializer" in values else values


class Split(StrEnum):
    """The part of the data an image is used for."""

    TRAIN = "train"
    """Fits weights."""
    VALIDATION = "val"
    """Chooses: configurations, epochs, thresholds."""
    TEST = "test"
    """Scores a frozen recipe; chooses nothing."""


class TrialStatus(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    """Asked for and not yet ended; after a kill, the one to continue."""
    COMPLETED = "completed"
    """Trained to its budget with a finite score."""
    LEARNED_NOTHING = "learned_nothing"
    """Trained to its budget, but no better than chance: never promoted or retrained."""
    FAILED = "failed"
    """Ended without a usable score; ranks below every other trial."""


class FailureKind(StrEnum):
    """Why a trial failed."""

    ERROR = "error"
    """An exception while building or fitting."""
    OUT_OF_MEMORY = "out_of_memory"
    """The device ran out of memory, also at half the batch size."""
    DIVERGED = "diverged"
    """The loss or the objective became NaN or infinite."""
    TOO_LARGE = "too_large"
    """The model has more parameters than `--max-parameters` allows."""
    WORKER_LOST = "worker_lost"
    """The process that trained it died or hung, more often than is retried."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The images of one split, as rows of a memory-mapped array.

    Attributes:
        array_file: `.npy` file, `uint8`, shape (N, S, S, C); C is 1 for gray, 3 for real colour.
        rows: `int64` (n,), the rows of that array which belong to this split.
        labels: `int8` (n,), 0 negative or 1 positive, aligned with `rows`.
        paths: n file paths relative to the data folder, posix.
        patients: n patient identifiers; where it is unknown, one for each file.
        subtypes: n of "bacteria", "virus" or "" where the name tells none.
    """

    array_file: Path
    rows: np.ndarray
    labels: np.ndarray
    paths: tuple[str, ...]
    patients: tuple[str, ...]
    subtypes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def open_array(self) -> np.ndarray:
        """Memory-map the whole array, read-only; index it with `rows`."""
        array: np.ndarray = np.load(self.array_file, mmap_mode="r")
        return array


@dataclass(frozen=True, kw_only=True)
class PerturbedViews:
    """Fixed, seeded alterations of validation images.

    Attributes:
        array_file: `.npy` file, `uint8`, shape (m, S, S, C).
        names: The kinds of view, e.g. ("crop", "shift", "zoom_out", "tone").
        view: `int8` (m,), index into `names`.
        source: `int64` (m,), position of the original in the validation subset.
        labels: `int8` (m,).
    """

    array_file: Path
    names: tuple[str, ...]
    view: np.ndarray
    source: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def open_array(self) -> np.ndarray:
        """Memory-map the views, read-only."""
        array: np.ndarray = np.load(self.array_file, mmap_mode="r")
        return array


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a search may see: training and validation images, never the test's.

    Attributes:
        image_size: Side S in pixels.
        channels: Of the arrays: 1 for gray, 3 for real colour.
        classes: Names of the negative and the positive class.
        train: Training subset.
        val: Validation subset.
        views: Perturbed copies of the validation subset.
        class_weights: Loss weight by label, from the counts after the split.
        prevalence: Share of the positive class among the files of train + val.
        fingerprint: SHA-256 over sorted (path, content hash) of the accepted files.
        synthetic: Whether the images are the built-in demo's.
        report: The content of `dataset.json`.
    """

    image_size: int
    channels: int
    classes: tuple[str, str]
    train: Subset
    val: Subset
    views: PerturbedViews
    class_weights: dict[int, float]
    prevalence: float
    fingerprint: str
    synthetic: bool
    report: DatasetReport


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files that are not used.

    Attributes:
        path: The file, or the folder of several, relative to the data folder.
        reason: Why, e.g. "not an image".
        files: How many.
        other_class: Their class, where it is none of the two.
    """

    path: str
    reason: str
    files: int = 1
    other_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the images come from.

    Attributes:
        kind: "folder", "zip" (a user's archive, extracted into the cache), "kaggle" (a download
            through kagglehub, earlier or now) or "demo".
        root: The folder that directly holds `train/`, or the classes.
        origin: How it was found.
        archive: The file that the folder was extracted from, or "".
        left_out: Files that are there and not used; before the folder is listed, those that the
            archive holds and that were not extracted.
    """

    kind: str
    root: Path
    origin: str
    archive: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Return whether the images are the built-in demo's."""
        return self.kind == "demo"

    @property
    def notice(self) -> str:
        """Return what must be said with the numbers, or ""."""
        return SYNTHETIC_NOTICE if self.synthetic else ""


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """Where the decoded images lie, and whether they were there before."""

    dir: str
    files: tuple[str, ...]
    bytes: int
    reused: bool


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What is known of the images of a run; the content of `dataset.json`.

    Attributes:
        source: Where they come from.
        fingerprint: As in `Dataset`.
        classes: Names of the negative and the positive class.
        split: How validation was made: "patient", "notebook" or "folders".
        val_fraction: Share of train + val that it aimed at.
        seed: Of that split.
        image_size: Side in pixels.
        channels: As in `Dataset`.
        depth: Bits in use of the images of 9 to 16 bits that do not tell; 0 if there are none.
        counts: Images by split ("train", "val", "test") and class.
        patients: Patients by split, and by class or "total".
        patients_known: Whether the patient of most images is known; otherwise splits are by image.
        unmatched_names: Images whose patient is unknown.
        sizes: Smallest, median and largest "width" and "height" of the original images in pixels,
            by class.
        modes: Images by Pillow's mode of the original.
        colour: Images with real colour.
        turned: Images whose EXIF orientation was applied.
        rejected: Image files that cannot be used.
        identical: Groups of byte-identical files.
        crossing: Those of them that are on two sides of a border: "test", "validation" (of
            training and validation), "classes" or "patients".
        val_sharing_patients: Validation images that share a patient with training.
        test_patients_in_train: Patients of the test who are in train + val too.
        class_weights: By class.
        prevalence: As in `Dataset`.
        views: Settings of the perturbed validation images: "kinds", "views_per_image" and
            strengths by name.
        view_count: How many of them there are.
        cache: Of decoded images.
        notes: What was done that a reader might not expect, a sentence each.
        alarms: What a reader must not miss, a sentence each.
    """

    source: Source
    fingerprint: str
    classes: tuple[str, str]
    split: str
    val_fraction: float
    seed: int
    image_size: int
    channels: int
    depth: int
    counts: dict[str, dict[str, int]]
    patients: dict[str, dict[str, int]]
    patients_known: bool
    unmatched_names: int
    sizes: dict[str, dict[str, tuple[float, float, float]]]
    modes: dict[str, int]
    colour: tuple[str, ...]
    turned: int
    rejected: tuple[LeftOut, ...]
    identical: tuple[tuple[str, ...], ...]
    crossing: dict[str, tuple[tuple[str, ...], ...]]
    val_sharing_patients: int
    test_patients_in_train: tuple[str, ...]
    class_weights: dict[str, float]
    prevalence: float
    views: dict[str, Any]
    view_count: int
    cache: CacheReport
    notes: tuple[str, ...]
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything that training one trial needs besides the data and the HyperModel.

    Attributes:
        trial_id: Unique within the run; also names the trial's directory.
        values: Hyperparameter values.
        seed: Seed of initialization, data order and augmentation, from run seed and values.
        initial_epoch: Epochs already trained by the parent.
        epochs: Epoch number to train to.
        parent_checkpoint: Checkpoint to start from when `initial_epoch` > 0.
        directory: Where this trial's checkpoint and epoch log live.
        early_stopping: Stop after this many epochs without a better objective; 0 is never.
        keep_best: Whether to keep the weights of the best epoch beside the last one's, ready for
            inference; the last one's are for training to go on.
        precision: Keras dtype policy, "float32" or "mixed_bfloat16": weights, loss and output are
            float32 under both.
    """

    trial_id: str
    values: Values
    seed: int
    initial_epoch: int = 0
    epochs: int
    parent_checkpoint: Path | None = None
    directory: Path
    early_stopping: int = 0
    keep_best: bool = False
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch of a trial.

    Attributes:
        trial_id: The trial.
        epoch: 1 for the first epoch a configuration ever trains.
        metrics: Every logged metric, see `tuning/validation.py`.
        seconds: Wall time of training and validating it.
    """

    trial_id: str
    epoch: int
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a trial failed.

    Attributes:
        kind: The class of failure.
        message: One line.
        traceback: The last lines of the traceback, or "".
    """

    kind: FailureKind
    message: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What training one trial gave.

    Attributes:
        trial_id: The trial.
        epochs: Records of the epochs `initial_epoch + 1 .. epochs` that finished.
        parameters: Parameter count of the model, 0 if it was never built.
        seconds: Wall time.
        costs: Seconds by kind: build, train, validate, checkpoint.
        best_epoch: Number of the epoch with the best smoothed objective, 0 if there is none.
        failure: None when it trained to its budget.
        notes: What a reader should know, e.g. a halved batch.
        learned: Whether its validation AUC is above chance by more than its standard error.
        memory_mb: Main memory that its process held after it, 0 where it trains on a GPU.
    """

    trial_id: str
    epochs: tuple[EpochRecord, ...]
    parameters: int
    seconds: float
    costs: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    failure: Failure | None = None
    notes: tuple[str, ...] = ()
    learned: bool = True
    memory_mb: int = 0


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial as the journal knows it; a row of `trials.csv`.

    Attributes:
        trial_id: Unique id.
        configuration: Number of the configuration; 0 is the baseline.
        iteration: Which repetition of Hyperband; 0 first.
        bracket: Hyperband bracket s, or 0 for tuners without brackets.
        rung: 0 is the first.
        parent: The trial it continues, or None.
        status: Where it stands.
        values: Hyperparameter values.
        initial_epoch: Epochs its parent had trained.
        epochs: Epochs trained in all, parents included, so far.
        target_epochs: Epochs it is to reach.
        seconds: Wall time of this trial, without its parents'.
        score: Objective smoothed over the last epochs, None if failed or running.
        metrics: Metrics of the last epoch.
        history: Metrics epoch by epoch, this trial's own epochs.
        parameters: Parameter count of the model.
        failure: Why it failed, or None.
        notes: Remarks, e.g. a halved batch.
    """

    trial_id: str
    configuration: int
    iteration: int = 0
    bracket: int = 0
    rung: int = 0
    parent: str | None = None
    status: TrialStatus
    values: Values
    initial_epoch: int = 0
    epochs: int = 0
    target_epochs: int
    seconds: float = 0.0
    score: float | None = None
    metrics: Metrics = field(default_factory=dict)
    history: tuple[EpochRecord, ...] = ()
    parameters: int = 0
    failure: Failure | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BestHyperparameters:
    """The best configuration of a search; the content of `best_hyperparameters.json`."""

    trial_id: str
    values: Values


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95% interval.

    Attributes:
        value: Point estimate.
        low: Lower end, NaN where no interval can be given.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Probabilities of the positive class for one split.

    Attributes:
        split: The split.
        paths: n file paths relative to the data folder.
        patients: n patient identifiers.
        subtypes: n of "bacteria", "virus" or "".
        labels: `int8` (n,).
        probabilities: `float64` (n,).
    """

    split: Split
    paths: tuple[str, ...]
    patients: tuple[str, ...]
    subtypes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    def take(self, rows: np.ndarray) -> Predictions:
        """Return the predictions of the images at some positions."""
        return Predictions(
            split=self.split,
            paths=tuple(self.paths[row] for row in rows),
            patients=tuple(self.patients[row] for row in rows),
            subtypes=tuple(self.subtypes[row] for row in rows),
            labels=self.labels[rows],
            probabilities=self.probabilities[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A decision threshold and where it came from.

    Attributes:
        value: Call positive at or above this probability.
        rule: The rule as typed, e.g. "sensitivity=0.95".
        chosen_on: The images that fixed it, e.g. "perturbed validation images (n = 2002)".
        reached: The rule's quantity at that threshold on those images.
    """

    value: float
    rule: str
    chosen_on: str
    reached: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One trained model scored on one split.

    Attributes:
        role: "baseline" or "winner".
        seed: Which repetition; None for the ensemble of all.
        split: The split scored.
        count: Number of images.
        ranking: Threshold-free metrics by name: auc, average_precision, loss, brier,
            expected_calibration_error.
        at_half: Metrics at threshold 0.5.
        at_threshold: Metrics at the stored threshold.
        threshold: The stored threshold.
        confusion_at_half: {"tn", "fp", "fn", "tp"} counts.
        confusion_at_threshold: The same at the stored threshold.
    """

    role: str
    seed: int | None
    split: Split
    count: int
    ranking: dict[str, Estimate]
    at_half: dict[str, Estimate]
    at_threshold: dict[str, Estimate]
    threshold: Threshold
    confusion_at_half: dict[str, int]
    confusion_at_threshold: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class SeedDifference:
    """Winner minus baseline of one metric, the mean over seeds, with its two 95% intervals.

    Attributes:
        over_patients: The interval is over resampled patients.
        over_seeds: The interval is over seeds, NaN with fewer than two.
    """

    over_patients: Estimate
    over_seeds: Estimate


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Images that only one of two networks gets right, and the exact two-sided p value."""

    only_winner_right: int
    only_baseline_right: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A configuration, retrained with several seeds and scored; one side of a comparison.

    Attributes:
        role: "baseline" or "winner".
        values: Hyperparameter values.
        parameters: Parameter count of the exported network.
        exported_seed: The repetition that is exported, None for the ensemble.
        test: Evaluations on test, one per seed; () where there is no test set.
        validation: Evaluations on validation, one per seed.
        ensemble_test: The ensemble's on test, () without one.
        ensemble_validation: The same on validation.
    """

    role: str
    values: Values
    parameters: int
    exported_seed: int | None
    test: tuple[Evaluation, ...]
    validation: tuple[Evaluation, ...]
    ensemble_test: tuple[Evaluation, ...] = ()
    ensemble_validation: tuple[Evaluation, ...] = ()

    @property
    def scored_on_test(self) -> tuple[Evaluation, ...]:
        """Return every evaluation on test, the ensemble's last."""
        return self.test + self.ensemble_test

    @property
    def exported(self) -> Evaluation:
        """Return the evaluation of what is exported, on test or without one on validation."""
        scored = self.scored_on_test or self.validation + self.ensemble_validation
        return next(one for one in scored if one.seed == self.exported_seed)


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A configuration that was retrained, as far as validation knows it.

    Attributes:
        role: "baseline", "finalist_1", …; the best of them is the winner.
        values: Hyperparameter values.
        parameters: Parameter count.
        scores: Objective on validation by seed: their spread is how far it can be trusted. The
            better a finalist, the more seeds it was trained with.
        failure: Why it could not be trained, or "".
    """

    role: str
    values: Values
    parameters: int
    scores: dict[int, float]
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class RetrainingRecipe:
    """How the winner was retrained.

    Attributes:
        trained_as: Its role among the finalists; "baseline" where nothing was better.
        epochs: Epochs of each retraining, at most.
        seeds: Repetitions.
        patience: Epochs without a better objective after which one stopped, 0 for never.
        precision: Keras dtype policy.
        trained_on: "train" or "train+val".
        kept_epochs: The epoch kept, by seed.
        ensemble: Number of networks in the exported ensemble, None without one.
        notes: What a reader should know.
    """

    trained_as: str
    epochs: int
    seeds: int
    patience: int
    precision: str
    trained_on: str
    kept_epochs: dict[int, int]
    ensemble: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """The calibration of one exported network.

    Attributes:
        method: A name of `config.CalibrationKind`.
        temperature: The logit's divisor; above 1 for a network that is too sure of itself.
        images: Validation images that it was fitted on.
        note: Why none could be fitted, or "".
        before: Expected calibration error, log loss and Brier score of the uncalibrated
            probabilities, by split.
        after: The same of the calibrated ones.
    """

    method: str
    temperature: float
    images: int
    note: str
    before: dict[Split, dict[str, float]]
    after: dict[Split, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`evaluation.json`: the winner beside the baseline.

    Attributes:
        classes: Names of the negative and the positive class.
        split: What was scored: "test", or "val" where there is no test set.
        objective: The metric that ranked trials.
        synthetic: Whether the images are the demo's.
        baseline: The HyperModel's defaults.
        winner: What the search found.
        difference: Winner minus baseline of the exported networks, by metric.
        mean_difference: The same of the means over seeds, by metric; {} where the two were not
            trained with the same two or more seeds.
        mcnemar: By "at_half" and "at_threshold".
        subgroups: Sensitivity at each network's threshold by subtype, then by role; {} where names
            tell no subtype.
        calibration: By role.
        retraining: How the winner was retrained.
        finalists: Everything that was retrained, best first.
        test_evaluations: Networks that were scored on the test set.
        times_evaluated: How often the test set was evaluated in this run, 1 unless resumed after
            a change.
    """

    classes: tuple[str, str]
    split: Split
    objective: str
    synthetic: bool
    baseline: Scored
    winner: Scored
    difference: dict[str, Estimate]
    mean_difference: dict[str, SeedDifference]
    mcnemar: dict[str, McNemar]
    subgroups: dict[str, dict[str, Estimate]]
    calibration: dict[str, CalibrationReport]
    retraining: RetrainingRecipe
    finalists: tuple[Finalist, ...]
    test_evaluations: int
    times_evaluated: int


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """A row of `exports.json`: a file made of the winner, read back by its own runtime.

    Attributes:
        format: A name of `config.ExportFormat`.
        path: Below the run directory.
        status: "written", or "failed" with a reason.
        reason: Why it failed, or "".
        bytes: Size, of a folder all its files.
        images: Validation images that were compared.
        max_difference: Largest difference of a probability from `model.keras`'s, and of that
            file's from the network's.
        runtime: What read it back, with its version.
    """

    format: str
    path: str
    status: str
    reason: str = ""
    bytes: int = 0
    images: int = 0
    max_difference: float = float("nan")
    runtime: str = ""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One level of successive halving.

    Attributes:
        count: Trials that are to complete here.
        initial_epoch: Epochs they bring along from the rung below.
        epochs: Epoch number they are trained to.
    """

    count: int
    initial_epoch: int
    epochs: int

    @property
    def trained(self) -> int:
        """Return the epochs trained in this rung, all trials together."""
        return self.count * (self.epochs - self.initial_epoch)


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """One run of successive halving.

    Attributes:
        iteration: Which repetition of Hyperband, 0 first.
        bracket: The paper's s; the number of halvings.
        rungs: Its rungs, first to last.
    """

    iteration: int
    bracket: int
    rungs: tuple[Rung, ...]


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What a search is going to do, as the PLAN event has it.

    Attributes:
        tuner: Name of the tuner.
        max_epochs: Hyperband's R.
        brackets: In the order they are started.
        configurations: Configurations that are started.
        trials: A configuration is one trial a rung.
        epochs: Epochs of all trials; a continued one counts what it adds.
        seconds_per_epoch: Of the baseline, with all workers busy: the time between two of them that
            end, whichever workers train them. None while unmeasured.
        seconds_per_trial: What a trial takes besides, likewise.
        estimated_seconds: Of the search, None while unmeasured.
        after_seconds: Of all that follows it, up to the report.
        reserved_seconds: What of a budget in time is for everything but the search.
        refit_epochs: Of all retrainings together, at most.
        refit_area: How many times more pixels an image has then.
        trainings: How many retrainings there are, at most.
        workers: Processes that train trials, 0 for this one.
        precision: Keras dtype policy of the trials.
        notes: What a reader should know.
    """

    tuner: str
    max_epochs: int
    brackets: tuple[Bracket, ...]
    configurations: int
    trials: int
    epochs: int
    seconds_per_epoch: float | None = None
    seconds_per_trial: float | None = None
    estimated_seconds: float | None = None
    after_seconds: float = 0.0
    reserved_seconds: float = 0.0
    refit_epochs: int = 0
    refit_area: float = 1.0
    trainings: int = 0
    workers: int = 0
    precision: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """A file of a finished run."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`manifest.json`, the last file that a run writes.

    Attributes:
        name: Of the run.
        finished: ISO 8601, UTC.
        synthetic: Whether the images are the demo's.
        versions: Of Python, this package and what it computes with.
        device: What training ran on.
        host: Where the last process of the run ran.
        seed: The run's.
        seconds: Wall time by stage, all processes of a resumed run together.
        costs: What the seconds of the trials went into.
        fingerprint: Of the images.
        files: By path below the run directory.
    """

    name: str
    finished: str
    synthetic: bool
    versions: dict[str, str]
    device: str
    host: str
    seed: int
    seconds: dict[str, float]
    costs: dict[str, float]
    fingerprint: str
    files: dict[str, ManifestFile] = field(default_factory=dict)


class Reporter(Protocol):
    """What the stages of a run tell, so that they need to know no terminal."""

    def stage(self, title: str) -> AbstractContextManager[None]:
        """Announce a stage, and its end."""

    def info(self, text: str) -> None:
        """Say something worth a line."""

    def warn(self, text: str) -> None:
        """Say something that a person should look at."""

    def notice(self, text: str) -> None:
        """Say something that no one may miss, again at the end."""

    def progress(self, text: str, done: int, total: int) -> None:
        """Show how far a long piece of work is; a total of 0 is an unknown length."""

    def listen(self, event: dict[str, Any]) -> None:
        """Take in an event of the journal."""


def to_json(value: Any) -> Any:
    """Turn records into what `json` writes: dicts, lists, strings, numbers, None.

    NaN and infinities become None, since JSON has neither; arrays become lists.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, StrEnum):
        return value.value
    return value


T = TypeVar("T")


def from_json(kind: type[T], data: Any, *, where: str = "") -> T:
    """Turn what `json` read back into the record it was; the inverse of `to_json`.

    Args:
        kind: A record, or any annotation made of records, enums, tuples, lists, dicts, unions,
            Path and JSON's own types. None becomes NaN where a float is due.
        data: What `json.loads` returned.
        where: The file, for messages.

    Raises:
        RunDirectoryError: Names the file, the field and what is wrong with it.
    """
    read: T = _read(kind, data, where)
    return read


def fields_from_json(
    kind: Any, data: dict[str, Any], names: Iterable[str], *, where: str
) -> dict[str, Any]:
    """Read some fields of a record from an object that holds more.

    Args:
        kind: The record.
        data: What `json.loads` returned.
        names: The fields, each of which must be there.
        where: The file, for messages.

    Raises:
        RunDirectoryError: As for `from_json`.
    """
    hints, found = _hints(kind), {}
    for name in names:
        if name not in data:
            raise RunDirectoryError(f"{where}: {name} is missing")
        found[name] = _read(hints[name], data[name], f"{where}: {name}")
    return found


def _read(kind: Any, data: Any, where: str) -> Any:
    """Read one value; `where` grows by a field or a position on the way down."""
    if dataclasses.is_dataclass(kind):
        return _read_record(kind, data, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, data, where)
    if origin is tuple:
        return _read_tuple(arguments, data, where)
    if origin is list:
        return list(_read_tuple((arguments[0], ...), data, where))
    if origin is dict:
        if not isinstance(data, dict):
            raise _damaged(where, "an object", data)
        key, item = arguments
        return {
            _read_key(key, name, where): _read(item, value, f"{where}: {name}")
            for name, value in data.items()
        }
    return _read_plain(kind, data, where)


def _read_record(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _damaged(where, "an object", data)
    hints = _hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise RunDirectoryError(
            f"{where}: unknown field {unknown[0]!r}; it was written by another version, or changed"
        )
    found = {}
    for part in dataclasses.fields(kind):
        if part.name in data:
            found[part.name] = _read(hints[part.name], data[part.name], f"{where}: {part.name}")
        elif part.default is part.default_factory is dataclasses.MISSING:
            raise RunDirectoryError(f"{where}: {part.name} is missing")
    return kind(**found)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the annotations of a record; evaluating them takes long."""
    return typing.get_type_hints(kind)


def _read_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    """Read the first kind that fits."""
    if data is None and types.NoneType in kinds:
        return None
    candidates = [kind for kind in kinds if kind is not types.NoneType]
    for kind in candidates[:-1]:
        with contextlib.suppress(RunDirectoryError):
            return _read(kind, data, where)
    return _read(candidates[-1], data, where)


def _read_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise _damaged(where, "a list", data)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise _damaged(where, f"a list of {len(kinds)}", data)
    pairs = enumerate(zip(kinds, data, strict=True))
    return tuple(_read(kind, item, f"{where}: [{index}]") for index, (kind, item) in pairs)


def _read_key(kind: Any, name: str, where: str) -> Any:
    """Read the key of an object, which JSON keeps as a string."""
    try:
        return kind(name)
    except ValueError:
        raise _damaged(where, f"keys that are {kind.__name__}", name) from None


def _read_plain(kind: Any, data: Any, where: str) -> Any:
    """Read a leaf."""
    if kind is Any:
        return data
    if kind is float and data is None:
        return float("nan")
    if kind is np.ndarray and isinstance(data, list):
        return np.asarray(data)
    if kind is Path and isinstance(data, str):
        return Path(data)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(data)
        except ValueError:
            raise _damaged(where, f"one of {', '.join(kind)}", data) from None
    number = isinstance(data, int | float) and not isinstance(data, bool)
    if kind is float and number:
        return float(data)
    # For Python, True is an int.
    if isinstance(data, kind) and (kind is bool or not isinstance(data, bool)):
        return data
    raise _damaged(where, NAMES.get(kind, kind.__name__), data)


NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _damaged(where: str, wanted: str, data: Any) -> RunDirectoryError:
    shown = repr(data)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return RunDirectoryError(f"{where}: must be {wanted}, is {shown}")
