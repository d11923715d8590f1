import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import ABOUT, SIZE, exported, make_network, smooth_image

from search.records import Subset


@pytest.fixture(scope="session")
def network():
    return make_network()


@pytest.fixture(scope="session")
def model_file(network, tmp_path_factory):
    return exported(network, tmp_path_factory.mktemp("exported") / "model.keras", **ABOUT)


@pytest.fixture(scope="session")
def loaded(model_file):
    from search.scoring.loading import load_model

    return load_model(model_file)


@pytest.fixture
def run_dir(model_file, tmp_path):
    """A run directory with a model and nothing else."""
    root = tmp_path / "results" / "tiny"
    root.mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "model.keras").write_bytes(model_file.read_bytes())
    return root


@pytest.fixture
def subset(tmp_path):
    """Seven of nine images, out of order."""
    rng = np.random.default_rng(3)
    np.save(tmp_path / "array.npy", rng.integers(0, 256, (9, SIZE, SIZE, 1), dtype=np.uint8))
    rows = np.array([8, 0, 3, 2, 7, 5, 1])
    return Subset(
        array_file=tmp_path / "array.npy",
        rows=rows,
        labels=np.array([0, 1, 0, 1, 1, 0, 1], dtype=np.int8),
        paths=tuple(f"test/{row}.jpeg" for row in rows),
        patients=tuple("aabcdef"),
        subtypes=("", "virus", "", "bacteria", "virus", "", "bacteria"),
    )


@pytest.fixture
def films(tmp_path):
    """A folder in the Kaggle layout with eight films of different sizes and modes."""
    rng = np.random.default_rng(5)
    root: Path = tmp_path / "films"
    for i in range(4):
        for folder, name in (
            ("NORMAL", f"IM-{i // 2:04d}-{i:04d}.jpeg"),
            ("PNEUMONIA", f"person{i}_{('bacteria', 'virus')[i % 2]}_{i}.jpeg"),
        ):
            path = root / "test" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = smooth_image(rng, 60 + 10 * i, 90 - 5 * i, 3 if i == 3 else None)
            Image.fromarray(pixels).save(path, quality=95)
    return root
