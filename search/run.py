"""`python -m search.run`: parses, calls the workflow, exits."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from search.config import (
    PRESETS,
    CalibrationKind,
    Channels,
    ExecutorKind,
    ExportFormat,
    Precision,
    RefitOn,
    RefitSchedule,
    RunConfig,
    SourceKind,
    SplitKind,
    TunerKind,
    with_preset,
)
from search.errors import ConfigurationError, SearchError
from search.reporting.console import Console
from search.reporting.tensorboard import require_tensorboard
from search.scoring.formats import require

EPILOG = """\
examples:
  python -m search.run --tuner hyperband
  python -m search.run --tuner hyperband --data chest_xray --preset quick --name first
  python -m search.run --data kaggle --budget 2h --plan
  python -m search.run --name first --resume        (with the options it was started with)
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; every default is RunConfig's or the preset's."""
    new = argparse.ArgumentParser(
        prog="python -m search.run",
        description="Search, retrain, score and export a chest X-ray network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    default = RunConfig()
    data = new.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="SOURCE",
        help="auto, demo, kaggle, a folder or a .zip file (auto: $CHEST_XRAY_DIR, ./chest_xray, "
        "./data/chest_xray, an earlier Kaggle download, else the demo)",
    )
    data.add_argument("--split", choices=[k.value for k in SplitKind], help=_default("patient"))
    data.add_argument("--val-fraction", type=float, metavar="F", help=_default(0.2))
    data.add_argument("--image-size", type=int, metavar="PX", help=_default(default.image_size))
    data.add_argument("--channels", choices=[k.value for k in Channels], help=_default("3"))
    data.add_argument("--classes", metavar="A,B", help="the two classes to take, of several")
    data.add_argument("--positive", metavar="NAME", help="the class that is the finding")
    data.add_argument("--patients", metavar="REGEX", help="finds the patient in a file's name")
    data.add_argument("--table", metavar="FILE.csv", help="columns file, label, patient, split")
    data.add_argument("--views", metavar="KIND,KIND", help="stressed views (all four kinds)")
    data.add_argument("--views-per-image", type=int, metavar="N", help=_default(2))
    data.add_argument(
        "--view-strength",
        action="append",
        metavar="NAME=VALUE",
        help="e.g. shift=0.1 or crop_area=0.6:0.9 (repeatable)",
    )
    data.add_argument("--prevalence", type=float, metavar="P", help="prior (the files' own)")
    data.add_argument("--cache-dir", metavar="DIR", help="decoded images (~/.cache/xray-search)")
    search = new.add_argument_group("search")
    search.add_argument("--tuner", choices=[k.value for k in TunerKind], help=_default("hyperband"))
    search.add_argument("--preset", choices=list(PRESETS), help="other defaults")
    search.add_argument("--max-epochs", type=int, metavar="R", help=_default(default.max_epochs))
    search.add_argument("--factor", type=int, metavar="N", help=_default(default.factor))
    search.add_argument("--iterations", type=int, metavar="N", help=_default(default.iterations))
    search.add_argument(
        "--max-trials",
        type=int,
        metavar="N",
        help=f"for random, bayesian, grid ({default.max_trials})",
    )
    search.add_argument("--budget", metavar="B", help="e.g. 90m, 2h, 300epochs: what fits")
    search.add_argument("--objective", metavar="METRIC", help=_default(default.objective))
    search.add_argument(
        "--fix",
        action="append",
        metavar="NAME=VALUE",
        help="hold a hyperparameter (repeatable)",
    )
    search.add_argument("--search", metavar="NAME,NAME", help="vary only these hyperparameters")
    search.add_argument(
        "--source",
        choices=[k.value for k in SourceKind],
        help="hyperband draws around what is known, or uniformly (prior)",
    )
    search.add_argument(
        "--prior", metavar="RUN", help="draw around the best of that earlier run (HyperModel's)"
    )
    search.add_argument("--enqueue", metavar="FILE.json", help="configurations to try first")
    search.add_argument("--max-parameters", type=int, metavar="N", help="0: no limit (4000000)")
    search.add_argument("--seed", type=int, metavar="N", help=_default(default.seed))
    machine = new.add_argument_group("workers")
    machine.add_argument(
        "--precision",
        choices=[k.value for k in Precision],
        help="auto: bfloat16 where the machine has it; the baseline stays float32 (auto)",
    )
    machine.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="worker processes; auto: by cores and memory, 0 trains in this process (auto)",
    )
    machine.add_argument(
        "--executor",
        choices=[k.value for k in ExecutorKind],
        help="ray: workers on a Ray cluster, see search/tuning/RAY.md (local)",
    )
    machine.add_argument(
        "--address", metavar="HOST:PORT", help="of the Ray cluster (this machine's)"
    )
    machine.add_argument(
        "--cpus-per-trial", type=int, metavar="N", help="of a Ray node's CPU cores (1)"
    )
    machine.add_argument(
        "--gpus-per-trial", type=float, metavar="F", help="of a Ray node's GPU, e.g. 0.25 (0)"
    )
    machine.add_argument(
        "--trial-timeout", type=float, metavar="S", help="seconds a trial may take (no limit)"
    )
    machine.add_argument(
        "--stall-timeout",
        type=float,
        metavar="S",
        help=f"a worker silent for so long has hung ({default.stall_timeout:g})",
    )
    machine.add_argument(
        "--retries", type=int, metavar="N", help=f"after a lost worker ({default.retries})"
    )
    final = new.add_argument_group("retraining and verdict")
    final.add_argument("--choose-by", metavar="METRIC", help="chooses the finalists (objective)")
    final.add_argument("--refit-epochs", type=int, metavar="N", help=_default(25))
    final.add_argument("--refit-seeds", type=int, metavar="N", help=_default(3))
    final.add_argument(
        "--refit-schedule",
        choices=[k.value for k in RefitSchedule],
        help="learning rate of the finalists' retraining (as-searched)",
    )
    final.add_argument(
        "--refit-patience",
        type=int,
        metavar="N",
        help="stop a finalist after N epochs without a better objective (0: never)",
    )
    final.add_argument(
        "--ema", type=float, metavar="DECAY", help="keep an average of weights, e.g. 0.999 (0: no)"
    )
    final.add_argument(
        "--ensemble", action="store_true", help="export the mean of all seeds as one model"
    )
    final.add_argument(
        "--refit-on",
        choices=[k.value for k in RefitOn],
        help="train+val trains the exported model once more on both (train)",
    )
    final.add_argument("--top", type=int, metavar="N", help="finalists retrained (1)")
    final.add_argument(
        "--threshold-rule",
        metavar="RULE",
        help="youden, sensitivity=…, specificity=…, 0.5 (sensitivity=0.95)",
    )
    final.add_argument(
        "--calibrate",
        choices=[k.value for k in CalibrationKind],
        help="temperature: scale the logits on clean validation first (none)",
    )
    final.add_argument(
        "--export",
        metavar="FORMAT,FORMAT",
        help=f"of {', '.join(ExportFormat)} (keras, which is always written)",
    )
    place = new.add_argument_group("run directory and terminal")
    place.add_argument("--name", metavar="NAME", help="of the run directory (a time stamp)")
    place.add_argument("--results-dir", metavar="DIR", help=_default("results"))
    place.add_argument("--resume", action="store_true", help="continue the run of that name")
    place.add_argument("--overwrite", action="store_true", help="replace the run of that name")
    place.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    place.add_argument("--no-live", action="store_true", help="plain lines, no live view")
    place.add_argument("--quiet", action="store_true", help="only warnings and the verdict")
    place.add_argument(
        "--tensorboard",
        action="store_true",
        help="write scalars and HParams to RUN/tensorboard (pip install '.[tensorboard]')",
    )
    return new


def _default(value: Any) -> str:
    return f"({value})"


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write a number, or auto") from None


FLAGS = ("preset", "resume", "overwrite", "plan", "no_live", "quiet")


def explicit_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the RunConfig fields that were given on the command line.

    Raises:
        ConfigurationError: A value cannot be read.
    """
    given = {key: value for key, value in vars(options).items() if key not in FLAGS}
    if "tuner" in given:
        given["tuner"] = TunerKind(given["tuner"])
    if "source" in given:
        given["source"] = SourceKind(given["source"])
    if "executor" in given:
        given["executor"] = ExecutorKind(given["executor"])
    if "precision" in given:
        given["precision"] = Precision(given["precision"])
    if "refit_schedule" in given:
        given["refit_schedule"] = RefitSchedule(given["refit_schedule"])
    if "refit_on" in given:
        given["refit_on"] = RefitOn(given["refit_on"])
    if "calibrate" in given:
        given["calibrate"] = CalibrationKind(given["calibrate"])
    if "export" in given:
        given["export"] = _formats(given["export"])
    if "split" in given:
        given["split"] = SplitKind(given["split"])
    if "channels" in given:
        given["channels"] = Channels(given["channels"])
    if "classes" in given:
        given["classes"] = tuple(name.strip() for name in given["classes"].split(","))
    if "fix" in given:
        given["fix"] = dict(_assignment("--fix", text) for text in given["fix"])
    if "search" in given:
        given["search"] = tuple(name.strip() for name in given["search"].split(",") if name)
    if "views" in given:
        given["views"] = tuple(name.strip() for name in given["views"].split(",") if name)
    if "view_strength" in given:
        given["view_strength"] = dict(_strength(text) for text in given["view_strength"])
    if "enqueue" in given:
        given["enqueue"] = _queue(Path(given["enqueue"]))
    given.setdefault("name", datetime.now().strftime("%Y%m%d-%H%M%S"))
    return given


def _formats(text: str) -> tuple[ExportFormat, ...]:
    """Read the formats, "keras" first whether named or not.

    Raises:
        ConfigurationError: There is no such format.
    """
    known = {form.value: form for form in ExportFormat}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"--export {text}: no format {name}; choose of {', '.join(known)}"
            )
    return tuple(dict.fromkeys([ExportFormat.KERAS, *(known[name] for name in names)]))


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


def _queue(path: Path) -> tuple[dict[str, Any], ...]:
    """Read configurations in the form of `best_hyperparameters.json`, one or a list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"--enqueue {path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"--enqueue {path}: cannot be read as JSON ({error})") from None
    entries = content if isinstance(content, list) else [content]
    values = [entry.get("values", entry) if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(entry, dict) and entry for entry in values):
        raise ConfigurationError(
            f"--enqueue {path}: must hold configurations as best_hyperparameters.json does"
        )
    return tuple(entry for entry in values if entry is not None)


class Interrupt:
    """Ctrl-C: the first asks to stop after this epoch, the second stops at once."""

    def __init__(self, console: Console) -> None:
        """Start listening, where this is the main thread."""
        self._console = console
        self._asked = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._on_signal)

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self._asked

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._console.warn("stopping after this epoch; press Ctrl-C again to stop at once")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1, 2 for user errors, 130 for Ctrl-C."""
    options = parser().parse_args(argv)
    console = Console(
        live=False if getattr(options, "no_live", False) else None,
        quiet=getattr(options, "quiet", False),
    )
    interrupt = Interrupt(console)
    try:
        _start(options, console, interrupt)
    except SearchError as error:
        console.close()
        console.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.close()
        console.error("stopped")
        return 130
    finally:
        console.close()
    return 0


def _start(options: argparse.Namespace, console: Console, interrupt: Interrupt) -> None:
    given = explicit_options(options)
    preset = getattr(options, "preset", "")
    # Checked before anything slow, so that a typing mistake is told at once.
    config = with_preset(preset, given)
    require(config.export)
    if config.tensorboard:
        require_tensorboard()
    resume, overwrite = getattr(options, "resume", False), getattr(options, "overwrite", False)
    if resume and overwrite:
        raise ConfigurationError("--resume and --overwrite: give one of them")
    if resume and "name" not in vars(options):
        raise ConfigurationError("--resume: say which run with --name")
    from search.data.prepare import default_cache_dir
    from search.data.sources import find_source

    cache = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    source = find_source(
        config.data, cache_dir=cache, table=config.table, progress=console.progress
    )
    if source.synthetic and not preset:
        config = with_preset("demo", given)
    console.follow(config.objective)
    from search import backend

    backend.load()
    from search import workflow

    workflow.run(
        workflow.Job(
            config=config,
            source=source,
            resume=resume,
            overwrite=overwrite,
            plan_only=getattr(options, "plan", False),
        ),
        console,
        should_stop=interrupt,
    )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
