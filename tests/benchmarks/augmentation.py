"""What augmentation costs: milliseconds per training step, with it and without, in one run.

Steps of the documented network alternate with steps of the same network under each augmentation,
so that the load of the machine meets all; medians are compared, and processor time beside wall
time.

    python tests/benchmarks/augmentation.py --image-size 180 --batch-size 16
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=180)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    from search import backend

    backend.load()
    import numpy as np

    from hypermodels import Configuration, DocumentedCNN

    hypermodel = DocumentedCNN(image_size=options.image_size)
    cases = {
        "documented": Configuration(),
        "crop": Configuration(crop_min_area=0.32),
        "crop + tone": Configuration(crop_min_area=0.32, tone_jitter=0.3),
        "flip": Configuration(flip=True),
        "rotation": Configuration(rotation=15.0),
        "noise": Configuration(noise=0.1),
        "all of them": Configuration(
            crop_min_area=0.32, tone_jitter=0.3, flip=True, rotation=15.0, noise=0.1
        ),
    }
    drawn = np.random.default_rng(0)
    shape = (options.batch_size, options.image_size, options.image_size, 1)
    images = drawn.integers(0, 256, shape).astype(np.uint8)
    labels = (np.arange(options.batch_size) % 2).astype(np.float32)[:, None]
    models = {name: hypermodel.build_configuration(case) for name, case in cases.items()}
    wall: dict[str, list[float]] = {name: [] for name in cases}
    processor: dict[str, list[float]] = {name: [] for name in cases}
    for step in range(options.steps + 2):
        for name, model in models.items():
            begin, busy = time.perf_counter(), time.process_time()
            model.train_on_batch(images, labels)
            if step >= 2:
                wall[name].append(time.perf_counter() - begin)
                processor[name].append(time.process_time() - busy)
    base = statistics.median(processor["documented"])
    base_wall = statistics.median(wall["documented"])
    print(f"{options.image_size} px, batch {options.batch_size}, {backend.device()}")
    for name in cases:
        seconds, busy = statistics.median(wall[name]), statistics.median(processor[name])
        print(
            f"{name:12s} wall {1000 * seconds:6.1f} ms ({seconds / base_wall - 1:+.1%})   "
            f"processor {1000 * busy:6.1f} ms ({busy / base - 1:+.1%})"
        )
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
