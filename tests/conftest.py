"""What several test folders share: a tiny data set in memory and on disk."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from pathlib import Path

import numpy as np
import pytest

from search.records import Dataset, StressedViews, Subset

SIZE = 32


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> Dataset:
    """Sixty 32-pixel images whose right half is brighter when the label is 1."""
    drawn = np.random.default_rng(0)
    labels = (np.arange(60) % 3 > 0).astype(np.int8)
    images = drawn.integers(0, 90, (60, SIZE, SIZE, 1)).astype(np.uint8)
    images[labels == 1, :, SIZE // 2 :] += 110
    array_file, views_file = tmp_path / "images.npy", tmp_path / "views.npy"
    np.save(array_file, images)
    np.save(views_file, images[:24])

    def subset(rows: np.ndarray) -> Subset:
        names = tuple(f"{row}.jpeg" for row in rows)
        return Subset(
            array_file=array_file,
            rows=rows,
            labels=labels[rows],
            paths=names,
            patients=names,
            subtypes=("",) * len(rows),
        )

    return Dataset(
        image_size=SIZE,
        train=subset(np.arange(24, 60)),
        val=subset(np.arange(24)),
        views=StressedViews(
            array_file=views_file,
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
