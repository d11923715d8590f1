"""A data set of sixty 32-pixel images, for tests of a search that trains for real."""

from pathlib import Path

import numpy as np

from search.records import Dataset, PerturbedViews, Subset

SIZE = 32


def tiny_data(folder: Path, *, contrast: int) -> Dataset:
    """Return sixty images, written once, whose right half is brighter when the label is 1.

    Args:
        folder: Where their arrays are kept; what is there already is used again.
        contrast: By how many gray levels it is brighter; noise has 90.
    """
    images, views = folder / "images.npy", folder / "views.npy"
    labels = (np.arange(60) % 3 > 0).astype(np.int8)
    if not views.exists():
        drawn = np.random.default_rng(0).integers(0, 90, (60, SIZE, SIZE, 1)).astype(np.uint8)
        drawn[labels == 1, :, SIZE // 2 :] += contrast
        np.save(images, drawn)
        np.save(views, drawn[:24])

    def subset(rows: np.ndarray) -> Subset:
        names = tuple(f"{row}.jpeg" for row in rows)
        return Subset(
            array_file=images,
            rows=rows,
            labels=labels[rows],
            paths=names,
            patients=names,
            subtypes=("",) * len(rows),
        )

    return Dataset(
        image_size=SIZE,
        channels=1,
        classes=("NORMAL", "PNEUMONIA"),
        train=subset(np.arange(24, 60)),
        val=subset(np.arange(24)),
        views=PerturbedViews(
            array_file=views,
            names=("crop", "tone"),
            view=(np.arange(24) % 2).astype(np.int8),
            source=np.arange(24),
            labels=labels[:24],
        ),
        class_weights={0: 1.5, 1: 0.75},
        prevalence=2 / 3,
        fingerprint="tiny",
        synthetic=True,
        report={},
    )
