"""`python -m search.data DIR`: what is in a folder of images, and what the network sees of it.

Prints the report that a run would write to `dataset.json`; `--show` draws training images and the
same ones under the augmentation of a run or of flags. Keras is imported for that alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from search import cli
from search.config import RunConfig
from search.data.prepare import prepare
from search.data.report import table
from search.data.sources import find_source
from search.errors import ConfigurationError
from search.records import BestHyperparameters, Dataset
from search.run_directory import RunDirectory, write_json

OPTIONS = (
    "split", "val_fraction", "image_size", "channels", "classes", "positive", "patients", "table",
    "views", "views_per_image", "view_strength", "cache_dir", "seed",
)  # fmt: skip
"""The options of a run that this command has as well."""

AUGMENTATION: dict[str, Any] = {
    "crop_min_area": 1.0, "tone_jitter": 0.0, "flip": False, "rotation": 0.0, "noise": 0.0,
}  # fmt: skip
"""The hyperparameters that alter images, with the values that leave them as they are."""

COLUMNS, DRAWS, TILE, LINE = 8, 4, 180, 16
"""Of the sheet: images across, half of each class; rows of augmented images; sides in pixels."""


@cli.plain
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0; 2 for a user error; 130 after Ctrl-C."""
    _show(_parser().parse_args(arguments))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m search.data",
        description="Say what is in a folder of images of two classes: counts, patients, sizes, "
        "unusable files, duplicates, leakage between the splits.",
    )
    parser.add_argument(
        "data",
        nargs="?",
        default="auto",
        metavar="DIR",
        help="a folder or .zip, kaggle, demo, or auto (%(default)s)",
    )
    cli.add_options(parser, OPTIONS)
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
    config = RunConfig(**{**cli.read_options(arguments), "data": arguments.data})
    settings = _augmentation_settings(arguments)
    console, errors = Console(), Console(stderr=True)
    with Progress(transient=True, console=errors, disable=not errors.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=None)
            bar.update(tasks[label], completed=done, total=total or None)

        dataset, _ = prepare(config, find_source(config, progress=progress), progress=progress)
    if notice := dataset.report.source.notice:
        banner = Text(notice.upper(), justify="center")
        console.print(Panel(banner, style="bold black on yellow"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, text in table(dataset.report):
        grid.add_row(Text(name), Text(text, style="bold red" if name == "warning" else ""))
    console.print(grid)
    if arguments.json:
        write_json(arguments.json, dataset.report, option="--json")
    if arguments.show:
        _draw(arguments.show, dataset, settings, config.seed)
        console.print(f"sheet: {arguments.show}", highlight=False)


def _augmentation_settings(arguments: argparse.Namespace) -> dict[str, Any]:
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
        place = arguments.run
        run = RunDirectory(place if place.is_dir() else Path(RunConfig().results_dir) / place)
        values = run.read(BestHyperparameters, "best_hyperparameters.json").values
        given = {name: values[name] for name in AUGMENTATION if name in values}
    return {name: value for name, value in given.items() if value != AUGMENTATION[name]}


def _augmented(images: np.ndarray, settings: dict[str, Any], seed: int) -> list[np.ndarray]:
    """Return some draws of augmented images, `uint8` (n, S, S, C) as they are."""
    from search import backend

    keras = backend.load()
    from hypermodels.augmentation import augmentation_layers

    try:
        layers = augmentation_layers(**settings, seed=seed)
    except ValueError as error:
        raise ConfigurationError(f"augmentation: {error}") from error
    drawn = []
    for _ in range(DRAWS):
        altered = images.astype(np.float32) / 255
        for layer in layers:
            altered = layer(altered, training=True)
        levels = np.clip(keras.ops.convert_to_numpy(altered), 0, 1) * 255
        drawn.append(np.rint(levels).astype(np.uint8))
    return drawn


def _draw(path: Path, dataset: Dataset, settings: dict[str, Any], seed: int) -> None:
    """Draw some training images, and below them what augmentation makes of them.

    Raises:
        ConfigurationError: An augmentation is out of range, or the file cannot be written.
    """
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in (0, 1):
        positions = np.flatnonzero(dataset.train.labels == label)
        count = min(COLUMNS // 2, len(positions))
        chosen += rng.choice(positions, count, replace=False).tolist()
    images = dataset.train.open_array()[dataset.train.rows[chosen]]
    rows = [images, *(_augmented(images, settings, seed) if settings else [])]
    listed = ", ".join(f"{name} {value}" for name, value in settings.items())
    heads = 3 * LINE
    page = Image.new("RGB", (len(chosen) * TILE, heads + len(rows) * TILE + LINE), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    title = f"First row as decoded, below it under {listed}" if settings else "As decoded"
    pen.text((4, 0), title, fill="black", font=font)
    for column, position in enumerate(chosen):
        name = dataset.classes[dataset.train.labels[position]]
        for line, text in enumerate((name, dataset.train.patients[position]), start=1):
            pen.text((column * TILE + 4, line * LINE), text[-24:], fill="black", font=font)
    for row, drawn in enumerate(rows):
        for column, pixels in enumerate(drawn):
            tile = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            page.paste(tile.resize((TILE, TILE)), (column * TILE, heads + row * TILE))
    notice = dataset.report.source.notice.upper()
    pen.text((4, page.height - LINE), notice, fill="black", font=font)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path, format="PNG")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"--show {path}: cannot be written ({reason}); choose another place"
        ) from error


if __name__ == "__main__":
    sys.exit(cli.execute(main))
