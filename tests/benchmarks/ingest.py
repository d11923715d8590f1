"""Times ingest against the notebook's `tf.data` pipeline, on original-sized JPEGs made for it.

    python tests/benchmarks/ingest.py [--images 300] [--size 180] [--grain 0 1 2 3]

Both read the same files from a warm page cache, in one run, taking turns. Ours does everything a
first start does: list, read, hash, check, decode, write the array, checksum it.
The notebook's does what its cells do: read, decode_jpeg with 3 channels, convert to float32,
resize, with AUTOTUNE; its batches are thrown away.

How much faster depends on the bytes per pixel: undoing a JPEG's Huffman code takes both as long,
and no decoder can skip it. Grain (Gaussian noise, in gray levels) sets them; the originals on
Kaggle, 1.2 GB in 5,856 files, have about 200 kB each.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from search.data.cache import silent
from search.data.demo import draw_planned, plan_images
from search.data.listing import list_images
from search.data.scan import scan_files

WIDTH, HEIGHT = 1400, 1000
QUALITY = 88


def make_originals(folder: Path, count: int, grain: float) -> float:
    """Write grayscale JPEGs of about 1,400 × 1,000 pixels; return their mean size in kB."""
    rng = np.random.default_rng(0)
    films = plan_images(8)
    sizes = []
    for number in range(count):
        film = films[number * len(films) // count]
        class_name = film.relative.split("/")[1]
        width = int(WIDTH * rng.uniform(0.9, 1.1))
        height = int(HEIGHT * rng.uniform(0.9, 1.1))
        image = draw_planned(film, 8).resize((width, height), Image.Resampling.BICUBIC)
        # Film grain: without it the files would be far smaller than real ones.
        grainy = np.asarray(image) + rng.normal(0, grain, (height, width))
        path = folder / "train" / class_name / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    return float(np.mean(sizes)) / 1000


class Timing(NamedTuple):
    """Seconds on the clock, and of computing over all cores, which other programs disturb less."""

    wall: float
    cpu: float


@contextlib.contextmanager
def timed(into: list[Timing]) -> Iterator[None]:
    """Append the time that the block takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    into.append(Timing(time.perf_counter() - wall, time.process_time() - cpu))


def time_ours(folder: Path, size: int) -> list[Timing]:
    """Time a first start and a second one."""
    times: list[Timing] = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            with timed(times):
                scan_files(
                    folder,
                    list_images(folder).of("train"),
                    image_size=size,
                    cache_dir=Path(cache),
                    label="train",
                    progress=silent,
                )
    return times


def time_notebook(folder: Path, size: int) -> Timing:
    """Time one pass of the notebook's pipeline."""
    import tensorflow as tf

    def process(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        label = tf.strings.split(path, os.path.sep)[-2] == "PNEUMONIA"
        image = tf.image.decode_jpeg(tf.io.read_file(path), channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        return tf.image.resize(image, [size, size]), label

    paths = sorted(str(path) for path in folder.glob("train/*/*"))
    pipeline = (
        tf.data.Dataset.from_tensor_slices(paths)
        .map(process, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(16)
        .prefetch(tf.data.AUTOTUNE)
    )
    times: list[Timing] = []
    with timed(times):
        for _ in pipeline:
            pass
    return times[0]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--size", type=int, default=180)
    parser.add_argument("--grain", type=float, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    table = Table(
        title=f"{arguments.images} grayscale JPEGs, about {WIDTH} × {HEIGHT}, to "
        f"{arguments.size} × {arguments.size}; median of {arguments.repeat}; "
        f"{os.cpu_count()} cores"
    )
    for column in ("kB each", "notebook", "ingest", "faster", "CPU ms", "second start"):
        table.add_column(column, justify="right")
    for grain in arguments.grain:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            kilobytes = make_originals(folder, arguments.images, grain)
            time_notebook(folder, arguments.size)  # imports, traces, warms the page cache
            notebook, ours = [], []
            for _ in range(arguments.repeat):
                notebook.append(time_notebook(folder, arguments.size))
                ours.append(time_ours(folder, arguments.size))
        reference = Timing(*np.median(notebook, axis=0).tolist())
        first, second = (Timing(*np.median([t[i] for t in ours], axis=0)) for i in (0, 1))
        table.add_row(
            f"{kilobytes:.0f}",
            f"{arguments.images / reference.wall:,.0f} images/s",
            f"{arguments.images / first.wall:,.0f} images/s",
            f"{reference.wall / first.wall:.2f} ×",
            " / ".join(f"{t.cpu / arguments.images * 1e3:.1f}" for t in (reference, first)),
            f"{second.wall:.3f} s",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
