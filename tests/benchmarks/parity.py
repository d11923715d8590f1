"""Measures how closely an exported model, given raw pixels, answers as the training pipeline does.

    python tests/benchmarks/parity.py RUN_OR_MODEL [--images 50] [--data FOLDER]

The training pipeline reads a file with `load_gray` and gives the network its S × S array. Beside it
stand: the model given the whole decoded picture, as any program would that knows nothing of this
one; the same without the averages over blocks that a JPEG decoder at reduced scale makes, which is
how the model of version 0.1 did it; four neighbouring pixels without antialiasing, the resize of
`tf.image` and the notebook; and the file saved again without loss.

Films are original-sized JPEGs drawn for it, of which every third is stored as RGB, or those of a
folder (`--data`) whose shorter side is at least twice the network's.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from search.data.decode import load_gray, shrink
from search.scoring.formats import LoadedModel
from search.scoring.predict import find_model, open_model
from tests.benchmarks.ingest import make_originals

GRAIN = 2.0

Answer = Callable[[LoadedModel, Path], float]


def ask(loaded: LoadedModel, pixels: np.ndarray) -> float:
    """Return the probability for one picture, (H, W) or (H, W, 3)."""
    batch = pixels[np.newaxis] if pixels.ndim == 3 else pixels[np.newaxis, ..., np.newaxis]
    return float(np.asarray(loaded.model.predict_on_batch(batch)).reshape(()))


def by_training(loaded: LoadedModel, file: Path) -> float:
    return ask(loaded, load_gray(file, loaded.image_size))


def by_raw_pixels(loaded: LoadedModel, file: Path) -> float:
    return ask(loaded, np.asarray(Image.open(file)))


def without_blocks(loaded: LoadedModel, file: Path) -> float:
    return ask(loaded, shrink(Image.open(file).convert("L"), loaded.image_size, blocks=False))


def four_neighbours(loaded: LoadedModel, file: Path) -> float:
    gray = np.asarray(Image.open(file).convert("L"), dtype=np.float64)
    size = loaded.image_size
    for axis in (0, 1):
        place = (np.arange(size) + 0.5) * gray.shape[axis] / size - 0.5
        low = np.clip(np.floor(place).astype(int), 0, gray.shape[axis] - 2)
        share = np.clip(place - low, 0, 1).reshape((-1, 1) if axis == 0 else (1, -1))
        gray = gray.take(low, axis) * (1 - share) + gray.take(low + 1, axis) * share
    return ask(loaded, np.rint(gray).astype(np.uint8))


def saved_without_loss(loaded: LoadedModel, file: Path) -> float:
    content = io.BytesIO()
    Image.open(file).save(content, "PNG")
    return ask(loaded, load_gray(content.getvalue(), loaded.image_size))


WAYS: dict[str, Answer] = {
    "model on the raw pixels": by_raw_pixels,
    "the file saved as PNG, training pipeline": saved_without_loss,
    "antialiased, but no averages over blocks": without_blocks,
    "four neighbours, not antialiased": four_neighbours,
}


def some_as_colour(folder: Path) -> list[Path]:
    """Store every third film as RGB, as some of the originals are; return all."""
    files = sorted(folder.rglob("*.jpeg"))
    for file in files[::3]:
        Image.open(file).convert("RGB").save(file, quality=88)
    return files


def of_folder(folder: Path, count: int, size: int) -> list[Path]:
    """Return images spread over a folder that are at least twice the network's size."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpeg", ".jpg"))
    spread = [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)]
    return [file for file in spread if min(Image.open(file).size) >= 2 * size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--data", type=Path, help="a folder of JPEGs (drawn ones)")
    options = parser.parse_args()
    loaded = open_model(find_model(Path(options.model)))
    with tempfile.TemporaryDirectory() as temporary:
        if options.data:
            files = of_folder(options.data, options.images, loaded.image_size)
        else:
            make_originals(Path(temporary), options.images, GRAIN)
            files = some_as_colour(Path(temporary))
        wanted = np.array([by_training(loaded, file) for file in files])
        found = {
            name: np.array([answer(loaded, file) for file in files])
            for name, answer in WAYS.items()
        }
        sides = [Image.open(file).size for file in files]
    cut = loaded.threshold.value
    table = Table(
        title=f"{len(files)} JPEGs of about {np.mean(sides, axis=0).round().astype(int)} pixels, "
        f"network {loaded.image_size} × {loaded.image_size}; probabilities "
        f"{wanted.min():.3f} – {wanted.max():.3f}"
    )
    for column in ("against the training pipeline", "mean |Δp|", "largest |Δp|", "other verdict"):
        table.add_column(column, justify="left" if column.startswith("against") else "right")
    for name, said in found.items():
        apart = np.abs(said - wanted)
        changed = int(((said >= cut) != (wanted >= cut)).sum())
        table.add_row(name, f"{apart.mean():.5f}", f"{apart.max():.5f}", str(changed))
    Console().print(table)


if __name__ == "__main__":
    main()
