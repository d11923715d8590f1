"""Converts `model.keras` to the other formats and checks each, one process a format.

A process of its own for three reasons: a converter that crashes or hangs costs its format and
nothing else; the conversion runs on TensorFlow whatever backend trained the network; and it runs
on the CPU, where every runtime computes in float32, so that a difference is the format's.

`convert` is what a run calls; `main` is the process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import SearchError, storage_errors
from search.scoring.formats import FORMATS, Export, ExportStatus, Format, Predictor, missing_text

TOLERANCE = 1e-4
"""Largest difference in probability between the network and `model.keras`, and between that and
another export of it."""

IMAGES = 256
"""Validation images compared, at most; evenly spaced over the split."""

RAW_SHAPES = ((1.3, 1.7, 1), (2.6, 2.1, 3), (9.0, 8.2, 1))
"""Raw images compared besides: height and width in units of the image size, and channels."""

TIMEOUT = 900.0
"""Seconds after which a conversion is given up."""

_BATCH = 32
_PROJECT = Path(__file__).parents[2]


def evenly_spaced(count: int, most: int = IMAGES) -> np.ndarray:
    """Return which of `count` validation images are compared: `int64` positions, at most `most`."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64))


def convert(
    model_file: Path,
    name: str,
    *,
    images: np.ndarray,
    probabilities: np.ndarray,
    timeout: float = TIMEOUT,
) -> Export:
    """Convert an exported Keras model to another format beside it, and check the result.

    Args:
        model_file: `model.keras`.
        name: A key of `FORMATS`, not "keras".
        images: `uint8` (n, S, S, 1), validation images.
        probabilities: `float64` (n,), the run's own for them.
        timeout: Seconds after which it is given up.

    Returns:
        What became of it; whatever goes wrong is in `reason`, and an earlier file of that name is
        replaced only by one that passed and removed otherwise.

    Raises:
        StorageError: The disk is full or read-only.
    """
    form = FORMATS[name]
    target = model_file.with_name(form.file)
    export = Export(format=name, path=form.file, status=ExportStatus.FAILED)
    if form.missing:
        return replace(export, reason=missing_text(form))
    with (
        storage_errors(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{form.file}.") as folder,
    ):
        made = Path(folder) / form.file
        np.savez(Path(folder) / "images.npz", images=images, probabilities=probabilities)
        found = _run(model_file, form, Path(folder), timeout)
        remove(target)
        if found.get("reason"):
            return replace(export, **found)
        os.replace(made, target)
    return replace(export, status=ExportStatus.WRITTEN, bytes=_size(target), **found)


def _run(model_file: Path, form: Format, folder: Path, timeout: float) -> dict[str, Any]:
    """Run the process; return the fields of `Export` that it found, with a reason if it failed."""
    answer = folder / "answer.json"
    command = [sys.executable, "-m", __name__, str(model_file), form.name, str(folder)]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(
            [str(_PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    try:
        # A session of its own: the first Ctrl-C asks the run to stop, not the converter to die.
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"the conversion took longer than {timeout:g} s and was given up"}
    if answer.exists():
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
    last = done.stdout.decode(errors="replace").strip().split("\n")[-1]
    return {"reason": f"the conversion ended with exit code {done.returncode} ({last[:300]})"}


def remove(path: Path) -> None:
    """Remove an export, file or folder, if it is there.

    Raises:
        StorageError: It cannot be removed.
    """
    with storage_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main(argv: Sequence[str] | None = None) -> int:
    """Convert and check: model file, format, and the folder of images that gets the result."""
    model_file, name, folder = (sys.argv[1:] if argv is None else argv)[:3]
    try:
        found = _convert_here(Path(model_file), FORMATS[name], Path(folder))
    except Exception as error:
        # Converters raise anything; each means that this format cannot be had.
        lines = [line.strip() for line in str(error).split("\n") if line.strip()]
        found = {"reason": f"{type(error).__name__}: {' '.join(lines)}"[:500]}
    (Path(folder) / "answer.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


def _convert_here(model_file: Path, form: Format, folder: Path) -> dict[str, Any]:
    """Convert to `folder`; return fields of `Export`."""
    from search.scoring.export import load_model
    from search.scoring.loading import load_export
    from search.scoring.writers import WRITERS

    stored = np.load(folder / "images.npz")
    images, probabilities = stored["images"], stored["probabilities"]
    loaded = load_model(model_file)
    target = folder / form.file
    WRITERS[form.name](loaded, target)
    try:
        again = load_export(target)
    except SearchError as error:
        return {"reason": str(error).replace(f"{folder}{os.sep}", "")}
    said = answers(again.model, images)
    raw = [
        np.abs(answers(again.model, batch) - answers(loaded.model, batch)).max()
        for batch in raw_images(images)
    ]
    differences = [*raw, np.abs(said - answers(loaded.model, images)).max()]
    # `max` would hide a NaN behind a number.
    largest = float(np.max(differences)) if np.isfinite(differences).all() else float("nan")
    found: dict[str, Any] = {
        "runtime": form.runtime_version,
        "images": len(images) + len(raw),
        "max_difference": largest if np.isfinite(largest) else None,
        "max_difference_from_run": float(np.abs(said - probabilities).max()),
    }
    if (again.threshold, again.image_size) != (loaded.threshold, loaded.image_size):
        found["reason"] = "its papers came back changed"
    elif not largest <= TOLERANCE:
        found["reason"] = (
            f"differs from model.keras by {largest:.2g} in probability; at most {TOLERANCE:g} is "
            "allowed"
        )
    return found


def answers(model: Predictor, images: np.ndarray) -> np.ndarray:
    """Return a model's probabilities, `float64` (n,), asked for in small batches."""
    parts = [
        np.asarray(model.predict_on_batch(images[start : start + _BATCH]), dtype=np.float64)
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate([part.reshape(-1) for part in parts])


def raw_images(images: np.ndarray) -> list[np.ndarray]:
    """Enlarge the first images, with grain, to test what an export does to raw sizes.

    Args:
        images: `uint8` (n, S, S, 1).

    Returns:
        Batches of one, `uint8` (1, H, W, 1 or 3), one each of `RAW_SHAPES`.
    """
    rng = np.random.default_rng(0)
    size = images.shape[1]
    batches = []
    for number, (tall, wide, channels) in enumerate(RAW_SHAPES):
        rows = (np.arange(int(size * tall)) / tall).astype(np.int64)
        columns = (np.arange(int(size * wide)) / wide).astype(np.int64)
        large = images[number % len(images), :, :, 0][rows][:, columns].astype(np.int64)
        grain = rng.integers(-8, 9, (*large.shape, channels))
        batches.append(np.clip(large[..., np.newaxis] + grain, 0, 255).astype(np.uint8)[np.newaxis])
    return batches


if __name__ == "__main__":
    sys.exit(main())
