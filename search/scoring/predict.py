"""Predicts image files with an exported model; a bad file costs its own answer and no other.

Files become pixels through the function that decoded the training images. Rows are written as they
come, each flushed, so that what is known is kept when the rest fails: a JSON file is an array that
is closed also after an error or Ctrl-C. Knows the layout of a run directory and no terminal;
imports no Keras before `load_model`, so that wrong arguments are reported at once.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from search.data.decode import load_image
from search.errors import DataError, ModelError, RunDirectoryError, StorageError, read_errors
from search.records import ExportRecord, Manifest
from search.run_directory import RunDirectory, file_sha256
from search.scoring.formats import EXPORTS_FILE, FORMATS, KERAS, SAVED_MODEL_MARK, LoadedModel
from search.scoring.predictions import predict_images

NOT_FOR_DIAGNOSIS = "Research use only, not for diagnosis."


@dataclass(frozen=True, kw_only=True)
class FilePrediction:
    """The model's answer for one file."""

    file: str  # The file as asked for
    # Of the positive class, or None where the file could not be read
    probability: float | None = None
    verdict: str | None = None  # Name of the class at the stored threshold, or None
    error: str | None = None  # Why there is no answer, or None
    brightest: int = 0  # As in `data.decode.Decoded`


def find_model(
    run_or_model: str | Path, *, results_dir: Path = Path("results"), form: str = KERAS.name
) -> Path:
    """Return an exported model of a run directory, or the exported model itself.

    Args:
        run_or_model: A run directory, its name under `results_dir`, or an exported model; as typed,
            since a path cannot be empty.
        results_dir: Where a bare name is looked up.
        form: Which of a run's exports, a key of `FORMATS`.

    Raises:
        RunDirectoryError: There is no such run, it has no such export, or it cannot be read.
        ModelError: The model is not the one that the run's manifest lists.
    """
    root = Path(run_or_model)
    if not str(run_or_model):
        raise RunDirectoryError("RUN_OR_MODEL '': an empty name; give a run or an exported model")
    with read_errors(root):
        if not root.exists() and len(root.parts) == 1 and (results_dir / root).is_dir():
            root = results_dir / root
        if root.is_file() or (root / SAVED_MODEL_MARK).is_file():
            return root
        if not root.is_dir():
            raise RunDirectoryError(
                f"{run_or_model}: no such run or file; give a run directory such as results/NAME, "
                f"or an exported model ({', '.join(f.file for f in FORMATS.values())})"
            )
        run, model = RunDirectory(root), root / FORMATS[form].file
        if not model.exists():
            raise RunDirectoryError(_without_model(run, form))
        if run.complete:
            _check_manifest(run, model)
    return model


def unchecked_note(model: Path) -> str:
    """Return what to say of a model whose run has not ended, or ""."""
    run = RunDirectory(model.parent)
    if run.complete or not run.exists or model.name not in {f.file for f in FORMATS.values()}:
        return ""
    return (
        f"note: {run.root} is unfinished (no manifest.json), so {model.name} cannot be checked; "
        f"finish the run with python -m search.run --name {run.name} --resume"
    )


def _without_model(run: RunDirectory, form: str) -> str:
    name = FORMATS[form].file
    if not run.exists:
        return f"{run.root}: no {name} in it, and not a run directory"
    finish = f"python -m search.run --name {run.name} --resume"
    if form == KERAS.name or not (run.root / KERAS.file).exists():
        if run.complete:
            return f"{run.root / name}: is gone, though the run ended; make it again with {finish}"
        state = f"the run is unfinished and has no {name} yet"
        return f"{run.root}: {state}; finish it with {finish}"
    reason = ""
    with contextlib.suppress(RunDirectoryError, OSError):
        rows = run.read(tuple[ExportRecord, ...], EXPORTS_FILE)
        reason = "".join(f" ({row.reason})" for row in rows if row.format == form and row.reason)
    return (
        f"{run.root}: no {name} in it{reason}; make it with {finish} --export {form} and the run's "
        f"other options, or use {KERAS.file}"
    )


def _check_manifest(run: RunDirectory, model: Path) -> None:
    """Refuse a model that was changed after its run ended."""
    listed = {
        name: file.sha256
        for name, file in run.read(Manifest, "manifest.json").files.items()
        if name == model.name or name.startswith(f"{model.name}/")
    }
    if not listed:
        raise RunDirectoryError(
            f"{run.root / 'manifest.json'}: does not list {model.name}; give the model itself, "
            f"{model}, to use it unchecked"
        )
    files = [file for file in model.rglob("*") if file.is_file()] if model.is_dir() else [model]
    found = {file.relative_to(run.root).as_posix(): file_sha256(file) for file in files}
    names = found.keys() | listed.keys()
    changed = sorted(name for name in names if found.get(name) != listed.get(name))
    if changed:
        raise ModelError(
            f"{run.root / changed[0]}: its checksum is not the one in manifest.json, so it was "
            "changed after the run ended; restore it, or copy it elsewhere and give the copy to "
            "use it anyway"
        )


def predict_files(
    loaded: LoadedModel, files: Sequence[Path], *, batch_size: int = 16
) -> Iterator[FilePrediction]:
    """Predict files, in order; yields as batches are done.

    Args:
        loaded: The model.
        files: Image files.
        batch_size: Images at a time.

    Yields:
        One answer per file, with an error where it is no image that can be used.
    """
    about = loaded.metadata
    for start in range(0, len(files), batch_size):
        read: list[FilePrediction] = []
        images: list[np.ndarray] = []
        for file in files[start : start + batch_size]:
            try:
                decoded = load_image(
                    file, about.image_size, channels=about.channels, bits=about.depth
                )
            except DataError as error:
                reason = str(error).removeprefix(f"{file}: ")
                read.append(FilePrediction(file=file.as_posix(), error=reason))
            else:
                read.append(FilePrediction(file=file.as_posix(), brightest=decoded.brightest))
                images.append(decoded.pixels)
        # Later batches are filled up, so that the last one needs no compilation of its own.
        found = iter(
            predict_images(
                loaded.model, np.array(images), batch_size=batch_size, filled=start > 0
            ).tolist()
        )
        for one in read:
            if one.error is None:
                value = next(found)
                verdict = about.classes[int(value >= about.threshold.value)]
                one = replace(one, probability=value, verdict=verdict)
            yield one


@contextmanager
def row_writer(
    path: Path | None, columns: Sequence[str]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what writes a row, to a file or as JSON to standard output.

    Args:
        path: Ends in `.csv` or `.json`; replaced if it is there, its folder is made. None for
            standard output.
        columns: Keys of every row, in order.

    Raises:
        StorageError: The file cannot be written; what the caller's block raises stays as it is.
    """
    as_csv = path is not None and path.suffix.lower() == ".csv"
    begun = False
    with _refusals(path):
        handle = sys.stdout
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Names of files need not be text; what is not becomes a replacement character.
            handle = open(path, "w", encoding="utf-8", errors="replace", newline="")  # noqa: SIM115

    def write(row: dict[str, Any]) -> None:
        nonlocal begun
        if as_csv:
            line = io.StringIO()
            csv.DictWriter(line, columns, lineterminator="\n").writerow(row)
            text = line.getvalue()
        else:
            shown = json.dumps(row, indent=2).replace("\n", "\n  ")
            text = f"{',' if begun else '['}\n  {shown}"
        begun = True
        with _refusals(path):
            handle.write(text)
            handle.flush()

    try:
        if as_csv:
            write(dict(zip(columns, columns, strict=True)))
        yield write
    finally:
        with _refusals(path), contextlib.nullcontext() if path is None else handle:
            handle.write("" if as_csv else "\n]\n" if begun else "[]\n")
            handle.flush()


@contextmanager
def _refusals(path: Path | None) -> Iterator[None]:
    """Turn what the system refuses a file of rows, and nothing else, into StorageError."""
    try:
        yield
    except OSError as error:
        # A pipe's reader has left; the command line knows what that means.
        if path is None or isinstance(error, BrokenPipeError):
            raise
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); give another file"
        ) from error
