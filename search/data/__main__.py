"""`python -m search.data DIR`: what is in a folder of films, and what the network sees of it.

Prints the report that a run would write to `dataset.json`; `--show` draws training images and the
same ones under the augmentation of a run or of flags. Keras is imported for that alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from search.config import RunConfig, SplitKind
from search.data.prepare import default_cache_dir, prepare
from search.data.sheet import Augment, draw_sheet, make_sheet, save_sheet
from search.data.sources import find_source
from search.data.tables import report_view
from search.data.views import ViewSettings
from search.errors import ConfigurationError, RunDirectoryError, SearchError
from search.run_directory import RunDirectory, write_json

INTERRUPTED = 130

AUGMENTATION: dict[str, Any] = {
    "crop_min_area": 1.0,
    "tone_jitter": 0.0,
    "flip": False,
    "rotation": 0.0,
    "noise": 0.0,
}
"""The hyperparameters that alter images, with the values that leave them as they are."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        0; 2 for a user error; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        _show(arguments)
    except SearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.data",
        description="Say what is in a folder of chest X-rays: counts, patients, sizes, unusable "
        "files, duplicates, leakage between the splits.",
    )
    default = RunConfig()
    parser.add_argument(
        "data",
        nargs="?",
        default="auto",
        metavar="DIR",
        help="a folder or .zip, kaggle, demo, or auto (%(default)s)",
    )
    parser.add_argument(
        "--split",
        type=str,
        choices=[kind.value for kind in SplitKind],
        default=default.split.value,
        help="%(default)s by default",
    )
    parser.add_argument("--val-fraction", type=float, default=default.val_fraction, metavar="F")
    parser.add_argument("--image-size", type=int, default=default.image_size, metavar="PIXELS")
    parser.add_argument("--seed", type=int, default=default.seed, metavar="N")
    parser.add_argument("--views-per-image", type=int, default=default.views_per_image, metavar="N")
    parser.add_argument("--cache-dir", type=Path, default=None, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report to FILE")
    sheet = parser.add_argument_group("what the network sees")
    sheet.add_argument(
        "--show", type=Path, metavar="FILE.png", help="draw training images, plain and augmented"
    )
    sheet.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="augment as the best configuration of a run: its folder, or its name under results/",
    )
    sheet.add_argument("--crop-min-area", type=float, metavar="SHARE", help="0.05–1; 1 is off")
    sheet.add_argument("--tone-jitter", type=float, metavar="X", help="0–0.4; 0 is off")
    sheet.add_argument("--flip", action="store_true", default=None)
    sheet.add_argument("--rotation", type=float, metavar="DEGREES")
    sheet.add_argument("--noise", type=float, metavar="SD", help="of pixels in 0–1")
    return parser


def _show(arguments: argparse.Namespace) -> None:
    # RunConfig holds the ranges of the options that both commands have.
    config = RunConfig(
        split=SplitKind(arguments.split),
        val_fraction=arguments.val_fraction,
        image_size=arguments.image_size,
        seed=arguments.seed,
        views_per_image=arguments.views_per_image,
    )
    settings = augmentation_settings(arguments)
    cache_dir = arguments.cache_dir or default_cache_dir()
    console = Console()
    errors = Console(stderr=True)
    with Progress(transient=True, console=errors, disable=not errors.is_terminal) as bar:
        progress = _listener(bar)
        source = find_source(
            arguments.data, cache_dir=cache_dir, seed=config.seed, progress=progress
        )
        dataset, _ = prepare(
            source,
            split=config.split,
            val_fraction=config.val_fraction,
            image_size=config.image_size,
            seed=config.seed,
            cache_dir=cache_dir,
            views=ViewSettings(views_per_image=config.views_per_image),
            progress=progress,
        )
    console.print(report_view(dataset.report))
    if arguments.json:
        write_json(arguments.json, dataset.report)
    if arguments.show:
        augment = _augmentation(settings, config.seed) if settings else None
        listed = ", ".join(f"{name} {value}" for name, value in settings.items())
        title = f"Under augmentation: {listed}" if settings else "No augmentation"
        sheet = make_sheet(dataset, augment, title=title, seed=config.seed)
        save_sheet(draw_sheet(sheet, dataset.report["source"]["notice"]), arguments.show)
        console.print(f"sheet: {arguments.show}", highlight=False)


def augmentation_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the augmentation that is asked for, without what is off.

    Raises:
        ConfigurationError: Both a run and flags, or either without `--show`.
        RunDirectoryError: The run has no best configuration.
    """
    given = {
        name: getattr(arguments, name)
        for name in AUGMENTATION
        if getattr(arguments, name) is not None
    }
    if (given or arguments.run) and not arguments.show:
        raise ConfigurationError("augmentation is only drawn: add --show FILE.png")
    if arguments.run:
        if given:
            raise ConfigurationError(
                f"--run {arguments.run} brings its own augmentation: leave out "
                + ", ".join(f"--{name.replace('_', '-')}" for name in given)
            )
        values = _best_values(arguments.run)
        given = {name: values[name] for name in AUGMENTATION if name in values}
    return {name: value for name, value in given.items() if value != AUGMENTATION[name]}


def _best_values(place: Path) -> dict[str, Any]:
    """Return the hyperparameters of a run's best configuration."""
    run = RunDirectory(place if place.is_dir() else Path(RunConfig().results_dir) / place)
    best = run.read_json("best_hyperparameters.json")
    if not isinstance(best, dict) or not isinstance(best.get("values"), dict):
        raise RunDirectoryError(f"{run.root}/best_hyperparameters.json: damaged, has no values")
    values: dict[str, Any] = best["values"]
    return values


def _augmentation(settings: dict[str, Any], seed: int) -> Augment:
    from search import backend

    keras = backend.load()
    from hypermodels.augmentation import augmentation_layers

    try:
        layers = augmentation_layers(**settings, seed=seed)
    except ValueError as error:
        raise ConfigurationError(f"augmentation: {error}") from error

    def augment(images: np.ndarray) -> np.ndarray:
        for layer in layers:
            images = layer(images, training=True)
        array: np.ndarray = keras.ops.convert_to_numpy(images)
        return array

    return augment


def _listener(bar: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def progress(label: str, done: int, total: int) -> None:
        if label not in tasks:
            tasks[label] = bar.add_task(label, total=total or None)
        bar.update(tasks[label], completed=done, total=total or None)

    return progress


if __name__ == "__main__":
    sys.exit(main())
