"""Times ingest against the notebook's `tf.data` pipeline, on original-sized JPEGs made for it.

    python tests/benchmarks/ingest.py [--images 300] [--size 180] [--repeat 3]

Both read the same files from a warm page cache, in one run, taking turns. Ours does everything a
first start does: list, read, hash, check, decode, write the array, sync it to disk, checksum it.
The notebook's does what its cells do: read, decode_jpeg with 3 channels, convert to float32,
resize, with AUTOTUNE; its batches are thrown away.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from search.data.cache import silent
from search.data.demo import draw_planned, plan_films
from search.data.listing import list_images
from search.data.scan import scan_files

WIDTH, HEIGHT = 1400, 1000
QUALITY = 88


def make_originals(folder: Path, count: int) -> float:
    """Write grayscale JPEGs of about 1,400 × 1,000 pixels; return their mean size in kB."""
    rng = np.random.default_rng(0)
    films = plan_films(8)
    sizes = []
    for number in range(count):
        film = films[number * len(films) // count]
        class_name = film.relative.split("/")[1]
        width = int(WIDTH * rng.uniform(0.9, 1.1))
        height = int(HEIGHT * rng.uniform(0.9, 1.1))
        image = draw_planned(film, 8).resize((width, height), Image.Resampling.BICUBIC)
        # Film grain: without it the files would be far smaller than real ones.
        grainy = np.asarray(image) + rng.normal(0, 4, (height, width))
        path = folder / "train" / class_name / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    return float(np.mean(sizes)) / 1000


def time_ours(folder: Path, size: int) -> tuple[float, float]:
    """Return seconds of a first start and of a second one."""
    with tempfile.TemporaryDirectory() as cache:
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            files = list_images(folder).of("train")
            scan_files(
                folder,
                files,
                image_size=size,
                cache_dir=Path(cache),
                label="train",
                progress=silent,
            )
            times.append(time.perf_counter() - begin)
    return times[0], times[1]


def time_notebook(folder: Path, size: int) -> float:
    """Return the seconds of one pass of the notebook's pipeline."""
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
    begin = time.perf_counter()
    for _ in pipeline:
        pass
    return time.perf_counter() - begin


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--size", type=int, default=180)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kilobytes = make_originals(folder, arguments.images)
        time_notebook(folder, arguments.size)  # imports, traces, warms the page cache
        ours, warm, notebook = [], [], []
        for _ in range(arguments.repeat):
            notebook.append(time_notebook(folder, arguments.size))
            first, second = time_ours(folder, arguments.size)
            ours.append(first)
            warm.append(second)
    table = Table(
        title=f"{arguments.images} grayscale JPEGs, about {WIDTH} × {HEIGHT}, {kilobytes:.0f} kB "
        f"each, to {arguments.size} × {arguments.size}; median of {arguments.repeat}; "
        f"{os.cpu_count()} cores"
    )
    for column in ("", "seconds", "images/s", "× notebook"):
        table.add_column(column, justify="right" if column else "left")
    reference = float(np.median(notebook))
    for title, times in (
        ("notebook's tf.data pipeline, one epoch", notebook),
        ("ingest, first start", ours),
        ("ingest, second start", warm),
    ):
        seconds = float(np.median(times))
        rate = arguments.images / seconds
        table.add_row(title, f"{seconds:.2f}", f"{rate:,.0f}", f"{reference / seconds:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
