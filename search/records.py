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
    """The images of one split, as rows of a memory-mapped array."""

    array_file: Path  # `.npy` file, `uint8`, shape (N, S, S, C); C is 1 for gray, 3 for real colour
    rows: np.ndarray  # `int64` (n,), the rows of that array which belong to this split
    labels: np.ndarray  # `int8` (n,), 0 negative or 1 positive, aligned with `rows`
    paths: tuple[str, ...]  # n file paths relative to the data folder, posix
    patients: tuple[str, ...]  # n patient identifiers; where it is unknown, one for each file
    subtypes: tuple[str, ...]  # n of "bacteria", "virus" or "" where the name tells none

    def __len__(self) -> int:
        return len(self.rows)

    def open_array(self) -> np.ndarray:
        """Memory-map the whole array, read-only; index it with `rows`."""
        array: np.ndarray = np.load(self.array_file, mmap_mode="r")
        return array


@dataclass(frozen=True, kw_only=True)
class PerturbedViews:
    """Fixed, seeded alterations of validation images."""

    array_file: Path  # `.npy` file, `uint8`, shape (m, S, S, C)
    names: tuple[str, ...]  # The kinds of view, e.g. ("crop", "shift", "zoom_out", "tone")
    view: np.ndarray  # `int8` (m,), index into `names`
    source: np.ndarray  # `int64` (m,), position of the original in the validation subset
    labels: np.ndarray  # `int8` (m,)

    def __len__(self) -> int:
        return len(self.labels)

    def open_array(self) -> np.ndarray:
        """Memory-map the views, read-only."""
        array: np.ndarray = np.load(self.array_file, mmap_mode="r")
        return array


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a search may see: training and validation images, never the test's."""

    image_size: int  # Side S in pixels
    channels: int  # Of the arrays: 1 for gray, 3 for real colour
    classes: tuple[str, str]  # Names of the negative and the positive class
    train: Subset
    val: Subset
    views: PerturbedViews  # Perturbed copies of the validation subset
    class_weights: dict[int, float]  # Loss weight by label, from the counts after the split
    prevalence: float  # Share of the positive class among the files of train + val
    fingerprint: str  # SHA-256 over sorted (path, content hash) of the accepted files
    synthetic: bool  # Whether the images are the built-in demo's
    report: DatasetReport  # The content of `dataset.json`


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files that are not used."""

    path: str  # The file, or the folder of several, relative to the data folder
    reason: str  # Why, e.g. "not an image"
    files: int = 1  # How many
    other_class: str = ""  # Their class, where it is none of the two


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the images come from."""

    # "folder", "zip" (a user's archive, extracted into the cache), "kaggle" (a download through
    # kagglehub, earlier or now) or "demo"
    kind: str
    root: Path  # The folder that directly holds `train/`, or the classes
    origin: str  # How it was found
    archive: str = ""  # The file that the folder was extracted from, or ""
    # Files that are there and not used; before the folder is listed, those that the archive holds
    # and that were not extracted
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
    """What is known of the images of a run; the content of `dataset.json`."""

    source: Source  # Where they come from
    fingerprint: str  # As in `Dataset`
    classes: tuple[str, str]  # Names of the negative and the positive class
    split: str  # How validation was made: "patient", "notebook" or "folders"
    val_fraction: float  # Share of train + val that it aimed at
    seed: int  # Of that split
    image_size: int  # Side in pixels
    channels: int  # As in `Dataset`
    depth: int  # Bits in use of the images of 9 to 16 bits that do not tell; 0 if there are none
    counts: dict[str, dict[str, int]]  # Images by split ("train", "val", "test") and class
    patients: dict[str, dict[str, int]]  # Patients by split, and by class or "total"
    # Whether the patient of most images is known; otherwise splits are by image
    patients_known: bool
    unmatched_names: int  # Images whose patient is unknown
    # Smallest, median and largest "width" and "height" of the original images in pixels, by class
    sizes: dict[str, dict[str, tuple[float, float, float]]]
    modes: dict[str, int]  # Images by Pillow's mode of the original
    colour: tuple[str, ...]  # Images with real colour
    turned: int  # Images whose EXIF orientation was applied
    rejected: tuple[LeftOut, ...]  # Image files that cannot be used
    identical: tuple[tuple[str, ...], ...]  # Groups of byte-identical files
    # Those of them that are on two sides of a border: "test", "validation" (of training and
    # validation), "classes" or "patients"
    crossing: dict[str, tuple[tuple[str, ...], ...]]
    val_sharing_patients: int  # Validation images that share a patient with training
    test_patients_in_train: tuple[str, ...]  # Patients of the test who are in train + val too
    class_weights: dict[str, float]  # By class
    prevalence: float  # As in `Dataset`
    # Settings of the perturbed validation images: "kinds", "views_per_image" and strengths by name
    views: dict[str, Any]
    view_count: int  # How many of them there are
    cache: CacheReport  # Of decoded images
    notes: tuple[str, ...]  # What was done that a reader might not expect, a sentence each
    alarms: tuple[str, ...] = ()  # What a reader must not miss, a sentence each


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything that training one trial needs besides the data and the HyperModel."""

    trial_id: str  # Unique within the run; also names the trial's directory
    values: Values
    seed: int  # Seed of initialization, data order and augmentation, from run seed and values
    initial_epoch: int = 0  # Epochs already trained by the parent
    epochs: int  # Epoch number to train to
    parent_checkpoint: Path | None = None  # Checkpoint to start from when `initial_epoch` > 0
    directory: Path  # Where this trial's checkpoint and epoch log live
    early_stopping: int = 0  # Stop after this many epochs without a better objective; 0 is never
    # Whether to keep the weights of the best epoch beside the last one's, ready for inference; the
    # last one's are for training to go on
    keep_best: bool = False
    # Keras dtype policy, "float32" or "mixed_bfloat16": weights, loss and output are float32 under
    # both
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch of a trial."""

    trial_id: str
    epoch: int  # 1 for the first epoch a configuration ever trains
    metrics: Metrics  # Every logged metric, see `tuning/validation.py`
    seconds: float  # Wall time of training and validating it


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a trial failed."""

    kind: FailureKind  # The class of failure
    message: str  # One line
    traceback: str = ""  # The last lines of the traceback, or ""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What training one trial gave."""

    trial_id: str
    # Records of the epochs `initial_epoch + 1 .. epochs` that finished.
    epochs: tuple[EpochRecord, ...]
    parameters: int  # Parameter count of the model, 0 if it was never built
    seconds: float  # Wall time
    # Seconds by kind: build, train, validate, checkpoint
    costs: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0  # Number of the epoch with the best smoothed objective, 0 if there is none
    failure: Failure | None = None  # None when it trained to its budget
    notes: tuple[str, ...] = ()  # What a reader should know, e.g. a halved batch
    # Whether its validation AUC is above chance by more than its standard error
    learned: bool = True
    memory_mb: int = 0  # Main memory that its process held after it, 0 where it trains on a GPU


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial as the journal knows it; a row of `trials.csv`."""

    trial_id: str  # Unique id
    configuration: int  # Number of the configuration; 0 is the baseline
    iteration: int = 0  # Which repetition of Hyperband; 0 first
    bracket: int = 0  # Hyperband bracket s, or 0 for tuners without brackets
    rung: int = 0  # 0 is the first
    parent: str | None = None  # The trial it continues, or None
    status: TrialStatus  # Where it stands
    values: Values
    initial_epoch: int = 0  # Epochs its parent had trained
    epochs: int = 0  # Epochs trained in all, parents included, so far
    target_epochs: int  # Epochs it is to reach
    seconds: float = 0.0  # Wall time of this trial, without its parents'
    score: float | None = None  # Objective smoothed over the last epochs, None if failed or running
    metrics: Metrics = field(default_factory=dict)  # Metrics of the last epoch
    history: tuple[EpochRecord, ...] = ()  # Metrics epoch by epoch, this trial's own epochs
    parameters: int = 0  # Parameter count of the model
    failure: Failure | None = None  # Why it failed, or None
    notes: tuple[str, ...] = ()  # Remarks, e.g. a halved batch


@dataclass(frozen=True, kw_only=True)
class BestHyperparameters:
    """The best configuration of a search; the content of `best_hyperparameters.json`."""

    trial_id: str
    values: Values


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95% interval."""

    value: float  # Point estimate
    low: float  # Lower end, NaN where no interval can be given
    high: float  # Upper end


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Probabilities of the positive class for one split."""

    split: Split
    paths: tuple[str, ...]  # n file paths relative to the data folder
    patients: tuple[str, ...]  # n patient identifiers
    subtypes: tuple[str, ...]  # n of "bacteria", "virus" or ""
    labels: np.ndarray  # `int8` (n,)
    probabilities: np.ndarray  # `float64` (n,)

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
    """A decision threshold and where it came from."""

    value: float  # Call positive at or above this probability
    rule: str  # The rule as typed, e.g. "sensitivity=0.95"
    chosen_on: str  # The images that fixed it, e.g. "perturbed validation images (n = 2002)"
    reached: float  # The rule's quantity at that threshold on those images


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One trained model scored on one split."""

    role: str  # "baseline" or "winner"
    seed: int | None  # Which repetition; None for the ensemble of all
    split: Split  # The split scored
    count: int  # Number of images
    # Threshold-free metrics by name: auc, average_precision, loss, brier,
    # expected_calibration_error
    ranking: dict[str, Estimate]
    at_half: dict[str, Estimate]  # Metrics at threshold 0.5
    at_threshold: dict[str, Estimate]  # Metrics at the stored threshold
    threshold: Threshold  # The stored threshold
    confusion_at_half: dict[str, int]  # {"tn", "fp", "fn", "tp"} counts
    confusion_at_threshold: dict[str, int]  # The same at the stored threshold


@dataclass(frozen=True, kw_only=True)
class SeedDifference:
    """Winner minus baseline of one metric, the mean over seeds, with its two 95% intervals."""

    over_patients: Estimate  # The interval is over resampled patients
    over_seeds: Estimate  # The interval is over seeds, NaN with fewer than two


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Images that only one of two networks gets right, and the exact two-sided p value."""

    only_winner_right: int
    only_baseline_right: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A configuration, retrained with several seeds and scored; one side of a comparison."""

    role: str  # "baseline" or "winner"
    values: Values
    parameters: int  # Parameter count of the exported network
    exported_seed: int | None  # The repetition that is exported, None for the ensemble
    test: tuple[Evaluation, ...]  # Evaluations on test, one per seed; () where there is no test set
    validation: tuple[Evaluation, ...]  # Evaluations on validation, one per seed
    ensemble_test: tuple[Evaluation, ...] = ()  # The ensemble's on test, () without one
    ensemble_validation: tuple[Evaluation, ...] = ()  # The same on validation

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
    """A configuration that was retrained, as far as validation knows it."""

    role: str  # "baseline", "finalist_1", …; the best of them is the winner
    values: Values
    parameters: int
    # Objective on validation by seed: their spread is how far it can be trusted. The better a
    # finalist, the more seeds it was trained with.
    scores: dict[int, float]
    failure: str = ""  # Why it could not be trained, or ""


@dataclass(frozen=True, kw_only=True)
class RetrainingRecipe:
    """How the winner was retrained."""

    trained_as: str  # Its role among the finalists; "baseline" where nothing was better
    epochs: int  # Epochs of each retraining, at most
    seeds: int  # Repetitions
    patience: int  # Epochs without a better objective after which one stopped, 0 for never
    precision: str  # Keras dtype policy
    trained_on: str  # "train" or "train+val"
    kept_epochs: dict[int, int]  # The epoch kept, by seed
    ensemble: int | None = None  # Number of networks in the exported ensemble, None without one
    notes: tuple[str, ...] = ()  # What a reader should know


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """The calibration of one exported network."""

    method: str  # A name of `config.CalibrationKind`
    temperature: float  # The logit's divisor; above 1 for a network that is too sure of itself
    images: int  # Validation images that it was fitted on
    note: str  # Why none could be fitted, or ""
    # Expected calibration error, log loss and Brier score of the uncalibrated probabilities, by
    # split
    before: dict[Split, dict[str, float]]
    after: dict[Split, dict[str, float]]  # The same of the calibrated ones


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`evaluation.json`: the winner beside the baseline."""

    classes: tuple[str, str]  # Names of the negative and the positive class
    split: Split  # What was scored: "test", or "val" where there is no test set
    objective: str  # The metric that ranked trials
    synthetic: bool  # Whether the images are the demo's
    baseline: Scored  # The HyperModel's defaults
    winner: Scored  # What the search found
    difference: dict[str, Estimate]  # Winner minus baseline of the exported networks, by metric
    # The same of the means over seeds, by metric; {} where the two were not trained with the same
    # two or more seeds
    mean_difference: dict[str, SeedDifference]
    mcnemar: dict[str, McNemar]  # By "at_half" and "at_threshold"
    # Sensitivity at each network's threshold by subtype, then by role; {} where names tell no
    # subtype
    subgroups: dict[str, dict[str, Estimate]]
    calibration: dict[str, CalibrationReport]  # By role
    retraining: RetrainingRecipe  # How the winner was retrained
    finalists: tuple[Finalist, ...]  # Everything that was retrained, best first
    test_evaluations: int  # Networks that were scored on the test set
    # How often the test set was evaluated in this run, 1 unless resumed after a change
    times_evaluated: int


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """A row of `exports.json`: a file made of the winner, read back by its own runtime."""

    format: str  # A name of `config.ExportFormat`
    path: str  # Below the run directory
    status: str  # "written", or "failed" with a reason
    reason: str = ""  # Why it failed, or ""
    bytes: int = 0  # Size, of a folder all its files
    images: int = 0  # Validation images that were compared
    # Largest difference of a probability from `model.keras`'s, and of that file's from the
    # network's
    max_difference: float = float("nan")
    runtime: str = ""  # What read it back, with its version


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One level of successive halving."""

    count: int  # Trials that are to complete here
    initial_epoch: int  # Epochs they bring along from the rung below
    epochs: int  # Epoch number they are trained to

    @property
    def trained(self) -> int:
        """Return the epochs trained in this rung, all trials together."""
        return self.count * (self.epochs - self.initial_epoch)


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """One run of successive halving."""

    iteration: int  # Which repetition of Hyperband, 0 first
    bracket: int  # The paper's s; the number of halvings
    rungs: tuple[Rung, ...]  # First to last


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What a search is going to do, as the PLAN event has it."""

    tuner: str
    max_epochs: int  # Hyperband's R
    brackets: tuple[Bracket, ...]  # In the order they are started
    configurations: int  # Configurations that are started
    trials: int  # A configuration is one trial a rung
    epochs: int  # Epochs of all trials; a continued one counts what it adds
    # Of the baseline, with all workers busy: the time between two of them that end, whichever
    # workers train them. None while unmeasured.
    seconds_per_epoch: float | None = None
    seconds_per_trial: float | None = None  # What a trial takes besides, likewise
    estimated_seconds: float | None = None  # Of the search, None while unmeasured
    after_seconds: float = 0.0  # Of all that follows it, up to the report
    reserved_seconds: float = 0.0  # What of a budget in time is for everything but the search
    refit_epochs: int = 0  # Of all retrainings together, at most
    refit_area: float = 1.0  # How many times more pixels an image has then
    trainings: int = 0  # How many retrainings there are, at most
    workers: int = 0  # Processes that train trials, 0 for this one
    precision: str = ""  # Keras dtype policy of the trials
    notes: tuple[str, ...] = ()  # What a reader should know


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """A file of a finished run."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`manifest.json`, the last file that a run writes."""

    name: str  # Of the run
    finished: str  # ISO 8601, UTC
    synthetic: bool  # Whether the images are the demo's
    versions: dict[str, str]  # Of Python, this package and what it computes with
    device: str  # What training ran on
    host: str  # Where the last process of the run ran
    seed: int  # The run's
    seconds: dict[str, float]  # Wall time by stage, all processes of a resumed run together
    costs: dict[str, float]  # What the seconds of the trials went into
    fingerprint: str  # Of the images
    files: dict[str, ManifestFile] = field(default_factory=dict)  # By path below the run directory


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
