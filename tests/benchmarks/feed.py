"""Times the feeding of an epoch against its training, and the memory that training takes.

    python tests/benchmarks/feed.py [--data ../shared/chest_xray] [--size 180] [--steps 60]

Feeding is what the training process does besides computing: gathering each `uint8` batch from the
memory map. Training is the documented network, timed over some steps after the first (which
compiles) and scaled to the epoch.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from search import backend
from search.config import SplitKind
from search.data.prepare import default_cache_dir, prepare
from search.data.sources import find_source
from search.data.views import ViewSettings


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="auto")
    parser.add_argument("--size", type=int, default=180)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    cache_dir = default_cache_dir()
    begin = time.perf_counter()
    dataset, _ = prepare(
        find_source(arguments.data, cache_dir=cache_dir),
        split=SplitKind.PATIENT,
        val_fraction=0.2,
        image_size=arguments.size,
        seed=8,
        cache_dir=cache_dir,
        views=ViewSettings(),
    )
    ready = time.perf_counter() - begin

    keras = backend.load()
    from hypermodels.configuration import DOCUMENTED
    from hypermodels.documented_cnn import DocumentedCNN
    from search.tuning.feed import TrainingFeed

    feed = TrainingFeed(
        dataset.train,
        class_weights=dataset.class_weights,
        batch_size=arguments.batch_size,
        seed=8,
    )
    feeding = []
    for epoch in (1, 2, 3):
        begin = time.perf_counter()
        feed.epoch = epoch
        for index in range(feed.num_batches):
            feed[index]
        feeding.append(time.perf_counter() - begin)
    keras.utils.set_random_seed(8)
    model = DocumentedCNN(image_size=arguments.size, seed=8).build_configuration(DOCUMENTED)
    batches = [feed[index] for index in range(min(arguments.steps, feed.num_batches - 1))]
    for images, labels, weights in batches[:3]:
        model.train_on_batch(images, labels, sample_weight=weights)
    begin = time.perf_counter()
    for images, labels, weights in batches:
        model.train_on_batch(images, labels, sample_weight=weights)
    training = (time.perf_counter() - begin) / len(batches) * feed.num_batches

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    fed = float(np.median(feeding[1:]))
    table = Table(
        title=f"{len(dataset.train):,} images at {arguments.size} × {arguments.size}, batches of "
        f"{arguments.batch_size}, {backend.device()}"
    )
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("data ready", f"{ready:.2f} s")
    table.add_row("feeding an epoch", f"{fed:.3f} s")
    table.add_row("training an epoch, documented network", f"{training:.1f} s")
    table.add_row("feeding / training", f"{fed / training:.2%}")
    table.add_row("peak memory of this process", f"{peak:.2f} GB")
    Console().print(table)


if __name__ == "__main__":
    main()
