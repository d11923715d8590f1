"""The configuration of a run, one row per option.

The command line's parser and help (see `cli`), the checks, `config.json`, what may change on
`--resume` and the table in `search/README.md` are made from these rows. Presets replace defaults;
an option given explicitly wins over both. A configuration is checked once, at construction, and
trusted afterwards. Knows no Keras and no KerasTuner.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
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
    """Layers compute in bfloat16; the baseline stays in float32."""
    AUTO = "auto"
    """mixed_bfloat16 on GPUs and, but for JAX, on processors with instructions for it."""


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


class SplitKind(StrEnum):
    """How train + val files are divided 80:20."""

    PATIENT = "patient"
    """By patient, stratified by class: no patient on both sides."""
    NOTEBOOK = "notebook"
    """As the notebook: `random.seed(8); random.shuffle` over sorted file names."""
    FOLDERS = "folders"
    """As the folders are: validation on the user's own val/."""


class Channels(StrEnum):
    """The channels that the network sees."""

    ONE = "1"
    """Gray."""
    THREE = "3"
    """Gray, three times, as the baseline has it."""
    RGB = "rgb"
    """Real colour."""


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


BUDGET = re.compile(r"(?=0*\.?0*[1-9])(\d{1,9}(?:\.\d+)?)(s|m|h|epochs)\Z")
BUDGET_IN_TIME = re.compile(r"\d+(?:\.\d+)?(s|m|h)\Z")
NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,199})?\Z")
FOLDER = re.compile(r"(?!.*://)")
MOUNTED = "must be a folder; mount what is elsewhere"


def direction(objective: str) -> str:
    """Return "min" or "max" for a metric's name."""
    return "min" if objective.endswith(MINIMIZED) else "max"


def cost(metric: str, value: float | None) -> float:
    """Return a metric's value so that less is better; infinite where it is None or not finite."""
    if value is None or not math.isfinite(value):
        return math.inf
    return value if direction(metric) == "min" else -value


def flag(name: str) -> str:
    """Return how a field is written on the command line, e.g. "--image-size"."""
    return f"--{name.replace('_', '-')}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" for a mistyped word, "" where nothing is like it."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def unknown(option: str, text: str, known: Iterable[str]) -> ConfigurationError:
    """Return the error for a word that is none of those known."""
    known = list(known)
    return ConfigurationError(
        f"{option} {text}: choose one of {', '.join(known)}{nearest(text, known)}"
    )


def number(option: str, text: str, kind: type[int] | type[float]) -> float:
    """Read a finite number."""
    with_what = "a whole number" if kind is int else "a number"
    try:
        value = kind(text)
    except ValueError:
        raise ConfigurationError(f"{option} {text}: must be {with_what}") from None
    if not math.isfinite(value):
        raise ConfigurationError(f"{option} {text}: must be {with_what}")
    return value


def _formats(text: str) -> tuple[ExportFormat, ...]:
    """Read formats; "keras", which is always written, is left out."""
    found = []
    for name in (part.strip() for part in text.split(",") if part.strip()):
        if name not in [form.value for form in ExportFormat]:
            raise unknown("--export", name, [form.value for form in ExportFormat])
        if name != ExportFormat.KERAS and name not in found:
            found.append(ExportFormat(name))
    return tuple(found)


def _assignment(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigurationError(f"{option} {text}: write NAME=VALUE, e.g. --fix flip=false")
    return name.strip(), value.strip()


def _strength(text: str) -> tuple[str, float | tuple[float, ...]]:
    """Read a strength: one number, or the ends of a range with a colon between them."""
    name, value = _assignment("--view-strength", text)
    try:
        numbers = tuple(float(part) for part in value.split(":"))
    except ValueError:
        raise ConfigurationError(
            f"--view-strength {text}: write a number, or LOW:HIGH, e.g. crop_area=0.6:0.9"
        ) from None
    return name, numbers if len(numbers) > 1 else numbers[0]


LARGEST_QUEUE = 10_000_000
"""Bytes of a file with configurations."""


def _queue(path: Path) -> tuple[dict[str, Any], ...]:
    """Read configurations in the form of `best_hyperparameters.json`, one or a list."""
    option = f"--enqueue {path}"

    def refuse(constant: str) -> Any:
        raise ConfigurationError(f"{option}: holds {constant}, which is no value to try")

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_QUEUE:
            raise ConfigurationError(f"{option}: must be a regular file of less than 10 MB")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError:
        raise ConfigurationError(f"{option}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{option}: cannot be read as JSON ({error})") from None
    entries = content if isinstance(content, list) else [content]
    values = [entry.get("values", entry) if isinstance(entry, dict) else None for entry in entries]
    found_values = tuple(entry for entry in values if isinstance(entry, dict) and entry)
    if len(found_values) != len(entries) or not entries:
        raise ConfigurationError(
            f"{option}: must hold configurations as best_hyperparameters.json does"
        )
    for entry in found_values:
        for name, value in entry.items():
            if not isinstance(value, str | bool | int | float) or (
                isinstance(value, int | float) and not abs(value) <= LARGEST_VALUE
            ):
                raise ConfigurationError(f"{option}: {name} is {value!r:.60}, no value to try")
    return found_values


LARGEST_VALUE = 1e9
"""No hyperparameter has a larger one; what its own range is, its space knows."""


class OnResume(StrEnum):
    """What may happen to an option when a run is resumed."""

    FIXED = "no"
    """It would change the search, so that its trials could not be compared."""
    FREE = "yes"
    """It acts after the search or outside of it."""
    GROWS = "up"
    """It may grow: the search goes on where it ended."""
    PLANNED = "where the schedule fits"
    """The schedule tells whether what was begun can go on."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """Everything about one option but its name, type and default."""

    group: str  # Heading in the help
    help: str  # What it does, and when one would change it
    metavar: str = ""  # What stands for the value in the help
    between: tuple[float, float] | None = None  # Smallest and largest number allowed
    known: tuple[str, ...] = ()  # Every text allowed; () for any
    pattern: re.Pattern[str] | None = None  # What a text must match
    must: str = ""  # The same in words
    on_resume: OnResume = OnResume.FIXED  # What may happen to it when a run is resumed
    # Makes the value of the text that was typed; None: as its type says
    read: Callable[[Any], Any] | None = None
    repeated: bool = False  # Whether it may be given several times; `read` then gets a list
    shown: str = ""  # The default in the help where the value itself says little


def option(
    default: Any, text: str, *, group: str, on_resume: OnResume = OnResume.FIXED, **more: Any
) -> Any:
    """Return a field of RunConfig with its row."""
    metadata = {"option": Option(group=group, help=text, on_resume=on_resume, **more)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


FREE, GROWS, PLANNED = OnResume.FREE, OnResume.GROWS, OnResume.PLANNED
data_option = partial(option, group="data")
search_option = partial(option, group="search")
worker_option = partial(option, group="workers", on_resume=FREE)
retraining_option = partial(option, group="retraining and verdict", on_resume=FREE)
run_option = partial(option, group="run directory", on_resume=FREE)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that was asked for; `config.json` holds exactly this."""

    data: str = data_option(
        "auto",
        "demo, kaggle, a folder or a .zip file; auto takes $CHEST_XRAY_DIR, ./chest_xray, "
        "./data/chest_xray, an earlier Kaggle download, else the demo",
        metavar="SOURCE",
        on_resume=FREE,
    )
    split: SplitKind = data_option(
        SplitKind.PATIENT,
        "how validation images are chosen: patient puts no patient on both sides; notebook repeats "
        "the notebook's random split, to compare with it; folders takes your own val/",
    )
    val_fraction: float = data_option(
        0.2,
        "share of the images for validation; more ranks configurations better, less trains better",
        between=(0.05, 0.5),
    )
    image_size: int = data_option(
        180,
        "side of the images in pixels; 96 takes a quarter of the time of 180 and costs little",
        metavar="PX",
        between=(32, 512),
    )
    channels: Channels = data_option(
        Channels.THREE,
        "1 (gray), 3 (gray, three times, as the baseline has it), or rgb, which keeps real colour",
    )
    classes: tuple[str, ...] = data_option(
        (),
        "the two classes to take, of more folders; the others are listed as left out",
        metavar="A,B",
        shown="those of the folders",
    )
    positive: str = data_option(
        "",
        "the class that is the finding",
        metavar="NAME",
        shown="the one not called normal, negative, healthy, benign, control or 0",
    )
    patients: str = data_option(
        "",
        "regular expression with one group, the patient, searched in a file's name and then in its "
        "path",
        metavar="REGEX",
        shown="known names of files",
    )
    table: str = data_option(
        "",
        "CSV file with the columns file, label, patient, split; all but the first are optional",
        metavar="FILE.csv",
        shown="no table",
    )
    views: tuple[str, ...] = data_option(
        ("crop", "shift", "zoom_out", "tone"),
        "perturbed validation images: the kinds of perturbation; leave out what cannot happen to "
        "your images",
        metavar="KIND,KIND",
    )
    views_per_image: int = data_option(
        2, "perturbed copies of each validation image", between=(1, 4)
    )
    view_strength: dict[str, float | tuple[float, ...]] = data_option(
        {},
        "strength of a perturbation, e.g. shift=0.1 or crop_area=0.6:0.9 (repeatable)",
        metavar="NAME=VALUE",
        repeated=True,
        read=lambda texts: dict(_strength(text) for text in texts),
        shown="see search/data/views.py",
    )
    prevalence: float | None = data_option(
        None,
        "share of positives where the network will be used, for the log losses",
        metavar="P",
        between=(0.001, 0.999),
        shown="that of the training images",
    )
    cache_dir: str = data_option(
        "",
        "where decoded images are kept",
        metavar="DIR",
        on_resume=FREE,
        shown="~/.cache/xray-search",
        pattern=FOLDER,
        must=MOUNTED,
    )
    tuner: TunerKind = search_option(
        TunerKind.HYPERBAND,
        "how configurations are chosen; hyperband stops bad ones early, the others train all to "
        "the end",
    )
    preset: str = search_option(
        "",
        "other defaults: quick for a first result on a CPU in about an hour, thorough for a GPU "
        "over night; see below",
        known=("", "demo", "quick", "standard", "thorough"),
        on_resume=FREE,
        shown="standard, with --data demo: demo",
    )
    max_epochs: int = search_option(
        27,
        "epochs of the longest trials (Hyperband's R); the other tuners train all trials this long",
        metavar="R",
        between=(1, 100_000),
    )
    min_epochs: int = search_option(
        1,
        "epochs of hyperband's shortest trials; after very few, strongly regularized networks look "
        "worse than they are",
        between=(1, 100_000),
    )
    factor: int = search_option(
        3,
        "hyperband keeps one configuration of this many (its eta); larger is harsher",
        between=(2, 100),
    )
    iterations: int = search_option(
        1,
        "repetitions of hyperband; raise it on --resume to go on searching",
        between=(1, 1000),
        on_resume=GROWS,
    )
    max_trials: int = search_option(
        30,
        "trials of random and bayesian, and a cap for grid",
        between=(1, 1_000_000),
        on_resume=GROWS,
    )
    budget: str = search_option(
        "",
        "the largest search that fits: 300epochs, or a time for the whole run, such as 90m or 2h",
        metavar="B",
        on_resume=PLANNED,
        shown="no limit",
        pattern=re.compile(rf"({BUDGET.pattern})?\Z"),
        must="write a time such as 90m or 2h, or 300epochs",
    )
    objective: str = search_option(
        "stress_auc",
        "metric that ranks configurations; robust_ ones are of the worst perturbation, stress_ "
        "ones of all perturbed images, val_ ones of the images as they are",
        metavar="METRIC",
        known=OBJECTIVES,
    )
    fix: dict[str, Any] = search_option(
        {},
        "hold a hyperparameter, e.g. flip=false (repeatable)",
        metavar="NAME=VALUE",
        repeated=True,
        read=lambda texts: dict(_assignment("--fix", text) for text in texts),
    )
    search: tuple[str, ...] = search_option(
        (), "vary only these hyperparameters", metavar="NAME,NAME", shown="all"
    )
    hypermodel: str = search_option(
        "",
        "your own network: a kt.HyperModel, its class, or a function build(hp); see "
        "search/tuning/README.md for what it must accept",
        metavar="MODULE:NAME",
        shown="the documented network",
    )
    source: SourceKind = search_option(
        SourceKind.PRIOR, "hyperband draws around what is known, or uniformly from the whole space"
    )
    prior: str = search_option(
        "",
        "draw around the best configuration of that earlier run",
        metavar="RUN",
        shown="what the HyperModel knows",
    )
    enqueue: tuple[dict[str, Any], ...] = search_option(
        (),
        "configurations to try first, as in best_hyperparameters.json, one or a list",
        metavar="FILE.json",
        read=lambda text: _queue(Path(text)),
    )
    max_parameters: int = search_option(
        4_000_000, "largest network that the search trains, 0 for no limit", between=(0, 10**12)
    )
    seed: int = search_option(
        8, "of everything; another one is another search", between=(0, 2**31 - 1)
    )
    precision: Precision = worker_option(
        Precision.AUTO,
        "number format of training; mixed_bfloat16 is faster on recent GPUs and some CPUs, auto "
        "takes it where the machine has it; the baseline stays float32",
        on_resume=OnResume.FIXED,
    )
    workers: int | None = worker_option(
        None,
        "processes that train trials side by side; auto by cores, memory and GPUs, 0 trains in "
        "this process",
        between=(0, 1024),
        read=lambda text: None if text == "auto" else number("--workers", text, int),
        shown="auto",
    )
    executor: ExecutorKind = worker_option(
        ExecutorKind.LOCAL, "local, or ray for the nodes of a Ray cluster, see search/tuning/RAY.md"
    )
    address: str = worker_option(
        "", "of the Ray cluster", metavar="HOST:PORT", shown="this machine's"
    )
    cpus_per_trial: int = worker_option(
        1, "CPU cores of a Ray node that a trial takes", between=(1, 1024)
    )
    gpus_per_trial: float = worker_option(
        0.0, "share of a Ray node's GPU that a trial takes, e.g. 0.25", between=(0, 1)
    )
    trial_timeout: float = worker_option(
        0.0, "seconds that a trial may take in one worker, 0 for no limit", between=(0, 10**7)
    )
    stall_timeout: float = worker_option(
        600.0,
        "seconds without a sign of life after which a worker counts as hung; raise it on a slow "
        "machine",
        between=(0, 10**7),
    )
    retries: int = worker_option(
        2, "how often a trial is started again when its worker is lost", between=(0, 1000)
    )
    choose_by: str = retraining_option(
        "",
        "metric that chooses the configurations to retrain",
        metavar="METRIC",
        known=("", *OBJECTIVES),
        shown="the objective",
    )
    top: int = retraining_option(
        1,
        "how many of the search's best are retrained; the best on validation is the winner",
        between=(1, 100),
    )
    refit_epochs: int = retraining_option(
        25, "epochs of retraining; the best of them on validation is kept", between=(1, 100_000)
    )
    refit_image_size: int | None = retraining_option(
        None,
        "side of the images in the retraining and of the trained network: a search on small images "
        "is cheap, and larger ones show more",
        metavar="PX",
        between=(32, 512),
        shown="--image-size",
    )
    refit_seeds: int = retraining_option(
        3,
        "networks per configuration, each with another seed; with one, differences of a few points "
        "may be noise",
        between=(1, 100),
    )
    refit_patience: int = retraining_option(
        0,
        "stop a retraining after so many epochs without a better objective, 0 for never",
        between=(0, 100_000),
    )
    refit_on: RefitOn = retraining_option(
        RefitOn.TRAIN,
        "train+val trains the exported network once more on both, which gains a little and leaves "
        "no images to check it on",
    )
    ensemble: bool = retraining_option(
        False, "export the mean probability of all seeds' networks as one model"
    )
    threshold_rule: str = retraining_option(
        "sensitivity=0.95",
        "how the decision threshold is chosen on validation: sensitivity=0.NN, specificity=0.NN, "
        "youden, or 0.5",
        metavar="RULE",
        pattern=THRESHOLD_RULE,
        must="must be youden, 0.5, sensitivity=0.NN or specificity=0.NN",
    )
    calibrate: CalibrationKind = retraining_option(
        CalibrationKind.NONE, "temperature: divide the logits by one number fitted on validation"
    )
    export: tuple[ExportFormat, ...] = retraining_option(
        (ExportFormat.KERAS,),
        "formats of the trained model; keras is always written",
        metavar="FORMAT,FORMAT",
        read=lambda text: (ExportFormat.KERAS, *_formats(text)),
    )
    name: str = run_option(
        "",
        "of the run directory",
        metavar="NAME",
        shown="the time",
        pattern=NAME,
        must="use up to 200 letters, digits, '.', '_' and '-'; it becomes the name of a folder",
    )
    results_dir: str = run_option(
        "results",
        "folder that holds the run directories",
        metavar="DIR",
        pattern=FOLDER,
        must=MOUNTED,
    )
    tensorboard: bool = run_option(False, "write the run for TensorBoard too")
    tracker: str = run_option(
        "",
        "mlflow or wandb: send parameters, every epoch's metrics and the model there too, no "
        "images (needs the extra of that name)",
        metavar="NAME",
        known=("", "mlflow", "wandb"),
        shown="none",
    )

    def __post_init__(self) -> None:
        """Check every value, then those that contradict each other.

        Raises:
            ConfigurationError: Names the option, the value and what is allowed.
        """
        for name, row in OPTIONS.items():
            _check(name, row, getattr(self, name))
        if self.ensemble and self.refit_seeds < 2:
            raise ConfigurationError(
                f"--ensemble with --refit-seeds {self.refit_seeds}: an ensemble needs at least 2 "
                "networks; give --refit-seeds 3"
            )
        if self.min_epochs > self.max_epochs:
            raise ConfigurationError(
                f"--min-epochs {self.min_epochs} with --max-epochs {self.max_epochs}: the shortest "
                "trials cannot be longer than the longest"
            )
        self._check_labels()
        self._check_executor()
        self._check_source()

    def _check_labels(self) -> None:
        """Check what is said of classes and patients."""
        if self.classes and len({name.casefold() for name in self.classes}) != 2:
            raise ConfigurationError(
                f"--classes {','.join(self.classes)}: give two different names, A,B"
            )
        try:
            groups = re.compile(self.patients).groups
        except re.error as error:
            raise ConfigurationError(
                f"--patients {self.patients}: not a regular expression ({error}); write one with "
                r"one group, such as (patient\d+)"
            ) from error
        if self.patients and groups != 1:
            raise ConfigurationError(
                f"--patients {self.patients}: has {groups} groups; put the part of the name that "
                "tells the patient, and nothing else, in parentheses"
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
        ray = self.executor is ExecutorKind.RAY
        if ray and self.workers == 0:
            raise ConfigurationError(
                "--workers 0 --executor ray: 0 trains in this process; give a number, or auto"
            )
        if not ray and (self.address or self.gpus_per_trial or self.cpus_per_trial != 1):
            raise ConfigurationError(
                "--address, --cpus-per-trial, --gpus-per-trial: only with --executor ray"
            )

    @property
    def direction(self) -> str:
        """Return "min" or "max", inferred from the objective's name."""
        return direction(self.objective)

    @property
    def refit(self) -> RunConfig:
        """Return the same with the image size of the retraining."""
        return dataclasses.replace(self, image_size=self.refit_image_size or self.image_size)

    @property
    def refit_area(self) -> float:
        """Return how many times more pixels an image has in the retraining."""
        return (self.refit.image_size / self.image_size) ** 2

    @property
    def choice(self) -> str:
        """Return the metric by which the finalists are chosen."""
        return self.choose_by or self.objective


OPTIONS: dict[str, Option] = {
    part.name: part.metadata["option"] for part in dataclasses.fields(RunConfig)
}
"""The rows by field."""


def _check(name: str, row: Option, value: Any) -> None:
    """Check a value against its row alone."""
    if value is None:
        return
    if isinstance(value, str) and not value.isprintable():
        # Bytes that are no UTF-8 among it, which could not be written to a report.
        raise ConfigurationError(f"{flag(name)} {value!r}: holds characters that cannot be printed")
    if row.known and str(value) not in row.known:
        raise unknown(flag(name), str(value), [known for known in row.known if known])
    if row.between is not None and not row.between[0] <= value <= row.between[1]:
        low, high = row.between
        raise ConfigurationError(f"{flag(name)} {value}: must be between {low:g} and {high:.10g}")
    if row.pattern is not None and not row.pattern.match(value):
        raise ConfigurationError(f"{flag(name)} {value:.60}: {row.must}")


FRUGAL = {"separable": True, "base_filters": 16, "activation": "relu"}
"""Held where there may be no GPU: more filters, full convolutions and gelu, whose error function
has no fast instruction, each make an epoch on a CPU several times dearer."""

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "image_size": 64,
        # The phantoms' test images differ from the others in framing alone; crops as wide as these
        # hide how an image was framed.
        "views": ("crop",),
        "view_strength": {"crop_area": (0.25, 1.0)},
        "max_epochs": 15,
        # On few images, networks that crop look worse at first: none is judged before.
        "min_epochs": 5,
        "iterations": 2,
        "refit_epochs": 18,
        "refit_seeds": 1,
        "top": 3,
        "fix": FRUGAL,
    },
    "quick": {
        "image_size": 64,
        "max_epochs": 27,
        "min_epochs": 3,
        "refit_image_size": 96,
        "refit_epochs": 20,
        "top": 2,
        "fix": FRUGAL,
    },
    "standard": {"max_epochs": 27, "min_epochs": 3, "top": 3},
    "thorough": {
        "max_epochs": 81,
        "min_epochs": 3,
        "refit_epochs": 60,
        "refit_seeds": 5,
        "top": 3,
    },
}
"""Defaults by preset; what is not named is RunConfig's own."""


def with_preset(preset: str, explicit: dict[str, Any]) -> RunConfig:
    """Build a configuration from a preset and the options given explicitly.

    Args:
        preset: A key of `PRESETS`, or "" for standard.
        explicit: RunConfig fields by name; these win.

    Raises:
        ConfigurationError: The preset or a value is not allowed.
    """
    _check("preset", OPTIONS["preset"], preset or None)
    defaults = _defaults(preset or "standard", explicit)
    held = {**defaults.get("fix", {}), **explicit.get("fix", {})}
    # What is asked to vary is not held by a preset.
    asked = set(explicit.get("search", ())) - set(explicit.get("fix", {}))
    fix = {name: value for name, value in held.items() if name not in asked}
    merged = {**defaults, **explicit, "preset": preset, "fix": fix}
    if "min_epochs" not in explicit:
        merged["min_epochs"] = max(1, min(merged["min_epochs"], merged["max_epochs"]))
    return RunConfig(**merged)


def with_options(stored: RunConfig, explicit: dict[str, Any]) -> RunConfig:
    """Return a stored configuration with the options in it that were given explicitly.

    Args:
        stored: `config.json` of a run.
        explicit: RunConfig fields by name; a preset's values come with it.

    Raises:
        ConfigurationError: A value is not allowed.
    """
    preset = explicit.get("preset", "")
    _check("preset", OPTIONS["preset"], preset or None)
    defaults = _defaults(preset, explicit) if preset else {}
    fix = {**stored.fix, **explicit.get("fix", {})}
    return dataclasses.replace(stored, **{**defaults, **explicit, "fix": fix})


def _defaults(preset: str, explicit: dict[str, Any]) -> dict[str, Any]:
    """Return a preset's values; the image size of its retraining goes with that of its search."""
    found = dict(PRESETS[preset])
    if "image_size" in explicit:
        found.pop("refit_image_size", None)
    return found


Difference = tuple[str, Any, Any]
"""Field, stored value, wanted value."""


def differences(stored: RunConfig, wanted: RunConfig) -> list[Difference]:
    """List the changed fields that would change the search of a stored run.

    Returns:
        Empty when the run can be resumed, as far as can be told without its schedule.
    """
    found = []
    for name, old, new in _changed(stored, wanted):
        rule = OPTIONS[name].on_resume
        if rule is OnResume.FIXED or (rule is OnResume.GROWS and new < old):
            found.append((name, old, new))
    return found


def schedule_differences(stored: RunConfig, wanted: RunConfig) -> list[Difference]:
    """List the changed fields that act through the schedule."""
    return [
        (name, old, new)
        for name, old, new in _changed(stored, wanted)
        if OPTIONS[name].on_resume in (OnResume.GROWS, OnResume.PLANNED)
    ]


def _changed(stored: RunConfig, wanted: RunConfig) -> list[Difference]:
    pairs = [(name, getattr(stored, name), getattr(wanted, name)) for name in OPTIONS]
    return [(name, old, new) for name, old, new in pairs if old != new]
