"""The configuration of a run: validated once, at construction, and trusted afterwards.

Presets replace defaults; an option given explicitly wins over both. Knows nothing of files,
Keras or KerasTuner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from search.errors import ConfigurationError


class TunerKind(StrEnum):
    """Which oracle proposes configurations."""

    HYPERBAND = "hyperband"
    """Successive halving over several brackets (Li et al., JMLR 18, 2018)."""
    RANDOM = "random"
    """Independent draws, each trained to the full budget."""
    BAYESIAN = "bayesian"
    """KerasTuner's Gaussian process, each trial trained to the full budget."""
    GRID = "grid"
    """Every combination of a (narrowed) space, in order."""


class SourceKind(StrEnum):
    """Where Hyperband's configurations come from."""

    PRIOR = "prior"
    """Around what is known, and around the best so far (PriorBand: Mallik et al., 2023)."""
    UNIFORM = "uniform"
    """Anywhere in the space, as in the paper of Hyperband."""


class ExecutorKind(StrEnum):
    """Where trials are trained."""

    LOCAL = "local"
    """On this machine: in worker processes, or in this one."""
    RAY = "ray"
    """In workers on the nodes of a Ray cluster."""


class Precision(StrEnum):
    """In which number format networks are trained; weights and the loss are float32 always."""

    FLOAT32 = "float32"
    """Single precision throughout."""
    MIXED_BFLOAT16 = "mixed_bfloat16"
    """Layers compute in bfloat16; the documented configuration stays in float32."""
    AUTO = "auto"
    """mixed_bfloat16 on GPUs and on processors that have instructions for it, else float32."""


class RefitSchedule(StrEnum):
    """The learning rate while the finalists are retrained."""

    AS_SEARCHED = "as-searched"
    """As the configuration has it."""
    CONSTANT = "constant"
    """The same from beginning to end."""
    COSINE = "cosine"
    """A short warm-up and a half cosine over all epochs of the retraining."""


class RefitOn(StrEnum):
    """The images that the exported model is trained on."""

    TRAIN = "train"
    """The training images."""
    TRAIN_AND_VALIDATION = "train+val"
    """Both, for the epochs that validation found best on the training images alone."""


class CalibrationKind(StrEnum):
    """What is done to make probabilities mean what they say."""

    NONE = "none"
    """Nothing: the network's own."""
    TEMPERATURE = "temperature"
    """Logits divided by one number fitted on clean validation (Guo et al., ICML 2017)."""


class ExportFormat(StrEnum):
    """What the trained model is written as; see `scoring/formats.py`."""

    KERAS = "keras"
    """Always written: the others are made from it."""
    SAVED_MODEL = "saved_model"
    """TensorFlow's."""
    ONNX = "onnx"
    """Needs the extra `onnx`."""
    LITERT = "litert"
    """Formerly TensorFlow Lite; needs the extra `litert`."""


class Channels(StrEnum):
    """The channels that the network sees."""

    ONE = "1"
    """Gray."""
    THREE = "3"
    """Gray, three times, as the baseline has it."""
    RGB = "rgb"
    """Real colour."""


class SplitKind(StrEnum):
    """How train + val files are divided 80:20."""

    PATIENT = "patient"
    """By patient, stratified by class: no child on both sides."""
    NOTEBOOK = "notebook"
    """As the notebook: `random.seed(8); random.shuffle` over sorted file names."""
    FOLDERS = "folders"
    """As the folders are: validation on the user's own val/."""


MINIMIZED = ("loss", "brier", "calibration_error")
"""A metric whose name ends in one of these is minimized, every other one maximized."""

OBJECTIVES = (
    *(
        f"{prefix}_{name}"
        for prefix in ("val", "stress")
        for name in ("loss", "accuracy", "precision", "recall", "specificity", "auc")
    ),
    "robust_loss",
    "robust_auc",
    *("loss", "accuracy", "precision", "recall", "auc"),
)
"""The metrics logged every epoch (see `tuning/validation.py`), last those of training itself."""

THRESHOLD_RULE = re.compile(r"(youden|0\.5|(?:sensitivity|specificity)=(?:0?\.\d+|1(?:\.0+)?))\Z")


def direction(objective: str) -> str:
    """Return "min" or "max" for a metric's name."""
    return "min" if objective.endswith(MINIMIZED) else "max"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that was asked for; `config.json` holds exactly this.

    Attributes:
        tuner: Which oracle.
        data: "auto", "demo", "kaggle", or a folder or `.zip` file.
        split: How train + val are divided.
        val_fraction: Share of images for validation, 0.05–0.5.
        image_size: Side in pixels, 32–512.
        channels: The channels that the network sees.
        classes: The two classes to take, where there are more folders.
        positive: The class that is the finding, "" for the one whose name is not that of health.
        patients: Regular expression that finds the patient in a file's name.
        table: CSV file that says label, patient and split of files.
        max_epochs: Hyperband's R; the epochs of every trial for the other tuners.
        factor: Hyperband's eta, at least 2.
        iterations: How often Hyperband is repeated.
        max_trials: Trials of the random and Bayesian tuners, and a cap for the grid.
        objective: Metric that ranks trials; its direction is inferred.
        choose_by: Metric by which the finalists are chosen; "" is the objective.
        refit_epochs: Epochs of retraining.
        refit_seeds: How many seeds the finalists and the control are retrained with.
        refit_schedule: Learning rate of the finalists' retraining.
        refit_patience: Epochs without a better objective after which the retraining of a finalist
            stops, 0 for never.
        ema: Decay of an average of the finalists' weights that is kept in their place, 0 for none.
        ensemble: Export the mean probability of all seeds' networks as one model.
        refit_on: The images that the exported model is trained on in the end.
        top: How many of the search's best are retrained.
        source: Where Hyperband's configurations come from.
        prior: An earlier run whose best configuration is what is known, "" for the HyperModel's.
        seed: Seed of everything; 0 is a seed like any other.
        name: Name of the run directory.
        results_dir: Its parent.
        preset: The preset that gave the defaults, "" for none.
        cache_dir: Where decoded images are kept, "" for the user's cache directory.
        threshold_rule: "sensitivity=0.95", "specificity=…", "youden" or "0.5".
        calibrate: What is done to the probabilities before the threshold is chosen.
        export: Formats of the trained model, "keras" always among them.
        prevalence: Prior of PNEUMONIA for the log losses; None: that of the training files.
        views: Kinds of stressed view, of crop, shift, zoom_out and tone.
        views_per_image: Stressed views made of each validation image, at most one a kind.
        view_strength: Strengths that differ from the defaults, by name; see
            `data.views.ViewSettings` for names, meaning and clinical reason.
        max_parameters: Largest model allowed, 0 for no limit.
        budget: "" or e.g. "2h", "300epochs": the largest schedule that fits.
        fix: Hyperparameters held at a value.
        search: If not empty, only these hyperparameters vary.
        enqueue: Configurations to try first, each a mapping of values.
        precision: Number format of training.
        executor: Where trials are trained.
        address: Of the Ray cluster; "" for this machine's, started if there is none.
        cpus_per_trial: CPU cores that a trial takes of a Ray cluster.
        gpus_per_trial: Share of a GPU that a trial takes of a Ray cluster, 0 to train on CPUs.
        workers: Worker processes that train trials; 0: this process; None: by a rule, see
            `tuning/devices.py`, or on Ray as many as have room.
        trial_timeout: Seconds a trial may take in one worker, 0 for no limit.
        stall_timeout: Seconds without a sign of life after which a worker counts as hung.
        retries: How often a trial is started again after losing its worker.
        tensorboard: Whether to write the run for TensorBoard too.
    """

    tuner: TunerKind = TunerKind.HYPERBAND
    data: str = "auto"
    split: SplitKind = SplitKind.PATIENT
    val_fraction: float = 0.2
    image_size: int = 180
    channels: Channels = Channels.THREE
    classes: tuple[str, ...] = ()
    positive: str = ""
    patients: str = ""
    table: str = ""
    max_epochs: int = 27
    factor: int = 3
    iterations: int = 1
    max_trials: int = 30
    objective: str = "robust_loss"
    choose_by: str = ""
    refit_epochs: int = 25
    refit_seeds: int = 3
    refit_schedule: RefitSchedule = RefitSchedule.AS_SEARCHED
    refit_patience: int = 0
    ema: float = 0.0
    ensemble: bool = False
    refit_on: RefitOn = RefitOn.TRAIN
    top: int = 1
    source: SourceKind = SourceKind.PRIOR
    prior: str = ""
    seed: int = 8
    name: str = "run"
    results_dir: str = "results"
    preset: str = ""
    cache_dir: str = ""
    threshold_rule: str = "sensitivity=0.95"
    calibrate: CalibrationKind = CalibrationKind.NONE
    export: tuple[ExportFormat, ...] = (ExportFormat.KERAS,)
    prevalence: float | None = None
    views: tuple[str, ...] = ("crop", "shift", "zoom_out", "tone")
    views_per_image: int = 2
    view_strength: dict[str, Any] = field(default_factory=dict)
    max_parameters: int = 4_000_000
    budget: str = ""
    fix: dict[str, Any] = field(default_factory=dict)
    search: tuple[str, ...] = ()
    enqueue: tuple[dict[str, Any], ...] = ()
    precision: Precision = Precision.AUTO
    executor: ExecutorKind = ExecutorKind.LOCAL
    address: str = ""
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    workers: int | None = None
    trial_timeout: float = 0.0
    stall_timeout: float = 600.0
    retries: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigurationError: Names the option, the value and what is allowed.
        """
        _in_range("--val-fraction", self.val_fraction, 0.05, 0.5)
        _in_range("--image-size", self.image_size, 32, 512)
        _in_range("--max-epochs", self.max_epochs, 1, 100_000)
        _in_range("--factor", self.factor, 2, 100)
        _in_range("--iterations", self.iterations, 1, 1000)
        _in_range("--max-trials", self.max_trials, 1, 1_000_000)
        _in_range("--refit-epochs", self.refit_epochs, 1, 100_000)
        _in_range("--refit-seeds", self.refit_seeds, 1, 100)
        _in_range("--refit-patience", self.refit_patience, 0, 100_000)
        _in_range("--ema", self.ema, 0, 0.99999)
        if self.ensemble and self.refit_seeds < 2:
            raise ConfigurationError(
                f"--ensemble with --refit-seeds {self.refit_seeds}: an ensemble needs at least 2 "
                "networks; give --refit-seeds 3"
            )
        _in_range("--top", self.top, 1, 100)
        _in_range("--seed", self.seed, 0, 2**31 - 1)
        _in_range("--views-per-image", self.views_per_image, 1, 4)
        _in_range("--max-parameters", self.max_parameters, 0, 10**12)
        if self.workers is not None:
            _in_range("--workers", self.workers, 0, 1024)
        self._check_executor()
        self._check_source()
        _in_range("--trial-timeout", self.trial_timeout, 0, 10**7)
        _in_range("--stall-timeout", self.stall_timeout, 0, 10**7)
        _in_range("--retries", self.retries, 0, 1000)
        if self.prevalence is not None:
            _in_range("--prevalence", self.prevalence, 0.001, 0.999)
        for option, metric in (("--objective", self.objective), ("--choose-by", self.choose_by)):
            if metric not in OBJECTIVES and (metric or option == "--objective"):
                raise ConfigurationError(
                    f"{option} {metric}: no metric of this name is logged; choose one of "
                    + ", ".join(OBJECTIVES)
                )
        if not THRESHOLD_RULE.match(self.threshold_rule):
            raise ConfigurationError(
                f"--threshold-rule {self.threshold_rule}: must be youden, 0.5, "
                "sensitivity=0.NN or specificity=0.NN"
            )
        if not re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", self.name):
            raise ConfigurationError(
                f"--name {self.name!r}: use letters, digits, '.', '_' and '-' only; "
                "it becomes a folder's name"
            )
        if self.budget and not BUDGET.match(self.budget):
            raise ConfigurationError(
                f"--budget {self.budget}: write a time such as 90m or 2h, or 300epochs"
            )

    def _check_source(self) -> None:
        """Check what concerns the prior."""
        if self.prior and self.source is not SourceKind.PRIOR:
            raise ConfigurationError(
                f"--prior {self.prior} with --source {self.source.value}: only --source prior "
                "draws around a prior; leave one of them out"
            )
        if self.prior and self.tuner is not TunerKind.HYPERBAND:
            raise ConfigurationError(
                f"--prior {self.prior} with --tuner {self.tuner.value}: only --tuner hyperband "
                "draws around a prior; leave --prior out"
            )

    def _check_executor(self) -> None:
        """Check what concerns a Ray cluster."""
        _in_range("--cpus-per-trial", self.cpus_per_trial, 1, 1024)
        _in_range("--gpus-per-trial", self.gpus_per_trial, 0, 1)
        ray = self.executor is ExecutorKind.RAY
        if ray and self.workers == 0:
            raise ConfigurationError(
                "--workers 0 --executor ray: 0 trains in this process; give a number, or auto"
            )
        if not ray and (self.address or self.gpus_per_trial or self.cpus_per_trial != 1):
            raise ConfigurationError(
                "--address, --cpus-per-trial, --gpus-per-trial: only with --executor ray"
            )
        for place in (self.results_dir, self.cache_dir):
            if "://" in place:
                raise ConfigurationError(f"{place}: must be a folder; mount what is elsewhere")

    @property
    def direction(self) -> str:
        """Return "min" or "max", inferred from the objective's name."""
        return direction(self.objective)

    @property
    def choice(self) -> str:
        """Return the metric by which the finalists are chosen."""
        return self.choose_by or self.objective


BUDGET = re.compile(r"(?=0*\.?0*[1-9])(\d{1,9}(?:\.\d+)?)(s|m|h|epochs)\Z")
BUDGET_IN_TIME = re.compile(r"\d+(?:\.\d+)?(s|m|h)\Z")


def _in_range(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{option} {value}: must be between {low} and {high}")


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "image_size": 64,
        "max_epochs": 9,
        "refit_epochs": 18,
        "refit_seeds": 1,
        "fix": {"separable": True, "base_filters": 16},
    },
    "quick": {
        "image_size": 96,
        "max_epochs": 9,
        "refit_epochs": 18,
        "refit_seeds": 1,
        # The two that make an epoch up to ten times dearer on a CPU.
        "fix": {"separable": True, "base_filters": 16},
    },
    "standard": {},
    "thorough": {"max_epochs": 81, "refit_epochs": 60, "refit_seeds": 5, "top": 3},
}
"""Defaults by preset; "standard" is RunConfig's own."""


def with_preset(preset: str, explicit: dict[str, Any]) -> RunConfig:
    """Build a configuration from a preset and the options given explicitly.

    Args:
        preset: A key of `PRESETS`, or "" for RunConfig's own defaults.
        explicit: RunConfig fields by name; these win.

    Raises:
        ConfigurationError: The preset or a value is not allowed.
    """
    if preset and preset not in PRESETS:
        raise ConfigurationError(
            f"--preset {preset}: no such preset; choose one of {', '.join(PRESETS)}"
        )
    chosen = {**(PRESETS[preset] if preset else {}), **explicit, "preset": preset}
    held = {**(PRESETS[preset] if preset else {}).get("fix", {}), **explicit.get("fix", {})}
    # What is asked to vary is not held by a preset.
    asked = set(explicit.get("search", ())) - set(explicit.get("fix", {}))
    chosen["fix"] = {name: value for name, value in held.items() if name not in asked}
    return RunConfig(**chosen)
