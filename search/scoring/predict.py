"""Predicts image files one by one, so that a bad file costs its own answer and no other.

How a file becomes pixels is the caller's business: a function is passed in, and it should be the
one that decoded the training images. Knows the layout of a run directory, no data set and no
terminal; imports no Keras, so that wrong arguments are told at once.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.errors import DataError, ModelError, RunDirectoryError
from search.journal import RunDirectory, file_sha256

if TYPE_CHECKING:
    from search.scoring.export import LoadedModel

MODEL_FILE = "model.keras"

NOT_FOR_DIAGNOSIS = "Research use only, not for diagnosis."

Decode = Callable[[Path, int], np.ndarray]
"""(file, image size S) to `uint8` (S, S) gray; raises DataError for a file that is no image."""


@dataclass(frozen=True, kw_only=True)
class FilePrediction:
    """What the model says of one file.

    Attributes:
        file: The file as asked for.
        probability: Of PNEUMONIA, or None where the file could not be read.
        verdict: Name of the class at the stored threshold, or None.
        error: Why there is no answer, or None.
    """

    file: str
    probability: float | None = None
    verdict: str | None = None
    error: str | None = None


def find_model(run_or_model: Path, *, results_dir: Path = Path("results")) -> Path:
    """Return the model file of a run directory, or the model file itself.

    Args:
        run_or_model: A run directory, its name under `results_dir`, or a `.keras` file.
        results_dir: Where a bare name is looked up.

    Raises:
        RunDirectoryError: There is no such run, or it has no model yet.
        ModelError: The model is not the one that the run's manifest lists.
    """
    if run_or_model.is_file():
        return run_or_model
    root = run_or_model
    if not root.is_dir() and len(root.parts) == 1 and (results_dir / root).is_dir():
        root = results_dir / root
    if not root.is_dir():
        raise RunDirectoryError(
            f"{run_or_model}: no such run or file; give a run directory such as results/NAME, or a "
            ".keras file"
        )
    model_file = root / MODEL_FILE
    if not model_file.is_file():
        run = RunDirectory(root)
        if not run.exists:
            raise RunDirectoryError(f"{root}: no {MODEL_FILE} in it, and not a run directory")
        raise RunDirectoryError(
            f"{root}: the run is unfinished and has no {MODEL_FILE} yet; finish it with "
            f"python -m search.run --name {run.name} --resume"
        )
    _check_manifest(RunDirectory(root), model_file)
    return model_file


def find_images(arguments: Sequence[str], *, suffixes: frozenset[str]) -> list[Path]:
    """Expand files, folders and globs to files, in the order given, each once.

    A folder stands for the files in it and below whose suffix is an image's; hidden ones and
    `__MACOSX` are passed over. What matches nothing stays in the list as it is, so that it gets a
    row which says so.

    Args:
        arguments: As typed.
        suffixes: Of image files, lower case, with the dot; used inside folders only.

    Raises:
        DataError: A folder without images.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument)
        # A name may hold brackets; only what is not there as it is typed can be a pattern.
        matches = [] if path.exists() else sorted(glob.glob(argument, recursive=True))
        for match in [Path(m) for m in matches] or [path]:
            if not match.is_dir():
                found[match] = None
                continue
            inside = [file for file in sorted(match.rglob("*")) if _is_image(file, match, suffixes)]
            if not inside:
                raise DataError(f"{match}: no images in this folder or below it; give another one")
            found |= dict.fromkeys(inside)
    return list(found)


def predict_files(
    loaded: LoadedModel, files: Sequence[Path], *, decode: Decode, batch_size: int = 16
) -> Iterator[FilePrediction]:
    """Predict files, in order; yields as batches are done.

    Args:
        loaded: The model.
        files: Image files.
        decode: Reads one; see `Decode`.
        batch_size: Images at a time.

    Yields:
        One answer a file, an error where `decode` raised DataError.
    """
    for start in range(0, len(files), batch_size):
        rows: list[np.ndarray] = []
        errors: dict[Path, str] = {}
        batch = files[start : start + batch_size]
        for file in batch:
            try:
                rows.append(decode(file, loaded.image_size))
            except DataError as error:
                errors[file] = str(error).removeprefix(f"{file}: ")
        # Later batches are filled up, so that the last one needs no compilation of its own.
        answers = iter(_probabilities(loaded, rows, full=batch_size if start else len(rows)))
        for file in batch:
            if file in errors:
                yield FilePrediction(file=file.as_posix(), error=errors[file])
                continue
            probability = next(answers)
            called = probability >= loaded.threshold.value
            yield FilePrediction(
                file=file.as_posix(),
                probability=probability,
                verdict=loaded.class_names[int(called)],
            )


def _probabilities(loaded: LoadedModel, rows: list[np.ndarray], *, full: int) -> list[float]:
    if not rows:
        return []
    images = np.stack(rows)[..., np.newaxis]
    filled = np.concatenate([images, np.repeat(images[-1:], max(0, full - len(rows)), axis=0)])
    answers = np.asarray(loaded.model.predict_on_batch(filled), dtype=np.float64)
    found: list[float] = answers.reshape(-1)[: len(rows)].tolist()
    return found


def _is_image(file: Path, folder: Path, suffixes: frozenset[str]) -> bool:
    parts = file.relative_to(folder).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and file.suffix.lower() in suffixes and file.is_file()


def _check_manifest(run: RunDirectory, model_file: Path) -> None:
    """Refuse a model that was changed after its run ended; an unfinished run has no manifest."""
    if not run.complete:
        return
    try:
        manifest = json.loads((run.root / "manifest.json").read_text(encoding="utf-8"))
        wanted = manifest["files"][MODEL_FILE]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunDirectoryError(
            f"{run.root / 'manifest.json'}: damaged, or does not list {MODEL_FILE}; give the "
            f"model itself, {model_file}, to use it unchecked"
        ) from None
    if file_sha256(model_file) != wanted:
        raise ModelError(
            f"{model_file}: its checksum is not the one in manifest.json, so it was changed after "
            "the run ended; restore it, or copy it elsewhere and give the copy to use it anyway"
        )
