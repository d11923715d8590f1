"""What passes between the rooms: frozen snapshots, without links back to what made them.

Imports nothing heavier than NumPy, so that `--help`, `--plan` and reports start at once.
Times are seconds, rates are fractions in [0, 1], labels are 0 (NORMAL) and 1 (PNEUMONIA).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

CLASS_NAMES = ("NORMAL", "PNEUMONIA")
SYNTHETIC_NOTICE = "synthetic demo data: these numbers say nothing about X-rays"

Metrics = dict[str, float]
Values = dict[str, Any]
"""Hyperparameter values by name, active ones only, as KerasTuner keeps them."""


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
class StressedViews:
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
    views: StressedViews
    class_weights: dict[int, float]
    prevalence: float
    fingerprint: str
    synthetic: bool
    report: DatasetReport


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Where the images come from.

    Attributes:
        kind: "folder", "kaggle", "zip" or "demo".
        root: The data folder.
        origin: How it was found.
        synthetic: Whether the images are the built-in demo's.
        notice: What must be said with the numbers, or "".
    """

    kind: str
    root: str
    origin: str
    synthetic: bool
    notice: str


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Smallest, median and largest width and height of original images, in pixels."""

    width: tuple[float, float, float]
    height: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image file that cannot be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files that are not used because of what or where they are.

    Attributes:
        path: The file, or the folder of several, relative to the data folder.
        files: How many.
        reason: Why, e.g. "not an image".
    """

    path: str
    files: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Byte-identical files: groups, files in them, and the groups of paths that cross a border."""

    groups: int
    files: int
    crossing_test: tuple[tuple[str, ...], ...]
    crossing_validation: tuple[tuple[str, ...], ...]
    crossing_classes: tuple[tuple[str, ...], ...]
    crossing_patients: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """What one side of a split could know of another through a patient."""

    val_images_sharing_a_patient_with_train: int
    val_images: int
    test_patients_in_train: int
    test_patients_in_train_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ViewsReport:
    """The perturbed validation images: kinds, strengths by name, and number."""

    names: tuple[str, ...]
    settings: dict[str, Any]
    count: int


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
        sizes: Of the original images, by class.
        modes: Images by Pillow's mode of the original.
        colour: Images with real colour.
        turned: Images whose EXIF orientation was applied.
        rejected: Image files that cannot be used.
        left_out: Other files that are not used.
        duplicates: Identical files.
        leakage: Patients on two sides.
        class_weights: By class.
        prevalence: As in `Dataset`.
        views: The perturbed validation images.
        cache: Of decoded images; None in a copy that is passed on.
        notes: What was done that a reader might not expect, a sentence each.
        alarms: What a reader must not miss, a sentence each.
    """

    source: DatasetSource
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
    sizes: dict[str, Sides]
    modes: dict[str, int]
    colour: tuple[str, ...]
    turned: int
    rejected: tuple[Rejected, ...]
    left_out: tuple[LeftOut, ...]
    duplicates: Duplicates
    leakage: Leakage
    class_weights: dict[str, float]
    prevalence: float
    views: ViewsReport
    cache: CacheReport | None
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
        best_epoch: Number of the epoch with the best objective, 0 if there is none.
        failure: None when it trained to its budget.
        notes: What a reader should know, e.g. a halved batch.
        learned: Whether its validation AUC is above chance by more than its standard error.
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


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial as the journal knows it; a row of `trials.csv`.

    Attributes:
        trial_id: Unique id.
        configuration: Number of the configuration; 0 is the documented one.
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
    """Probabilities of PNEUMONIA for one split.

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


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A decision threshold and where it came from.

    Attributes:
        value: Call PNEUMONIA at or above this probability.
        rule: The rule as typed, e.g. "sensitivity=0.95".
        chosen_on: The images that fixed it, e.g. "stressed validation (n = 2002)".
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
        role: "documented" or "winner".
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
