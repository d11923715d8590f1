"""Predicts image files one by one, so that a bad file costs its own answer and no other.

How a file becomes pixels is the caller's business: a function is passed in, and it should be the
one that decoded the training images. Knows the layout of a run directory, no data set and no
terminal; imports no Keras before `open_model`, so that wrong arguments are told at once.
"""

from __future__ import annotations

import contextlib
import glob
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search import backend
from search.errors import DataError, ModelError, RunDirectoryError
from search.journal import RunDirectory, file_sha256
from search.scoring.formats import EXPORTS_FILE, FORMATS, KERAS, LoadedModel, format_of

MANIFEST = "manifest.json"
SAVED_MODEL_MARK = "saved_model.pb"

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


def find_model(
    run_or_model: Path, *, results_dir: Path = Path("results"), form: str = KERAS.name
) -> Path:
    """Return an exported model of a run directory, or the exported model itself.

    Args:
        run_or_model: A run directory, its name under `results_dir`, or an exported model.
        results_dir: Where a bare name is looked up.
        form: Which of a run's exports, a key of `FORMATS`.

    Raises:
        RunDirectoryError: There is no such run, or it has no such export.
        ModelError: The model is not the one that the run's manifest lists.
    """
    root = run_or_model
    if not root.exists() and len(root.parts) == 1 and (results_dir / root).is_dir():
        root = results_dir / root
    if root.is_file() or (root / SAVED_MODEL_MARK).is_file():
        return root
    if not root.is_dir():
        raise RunDirectoryError(
            f"{run_or_model}: no such run or file; give a run directory such as results/NAME, or "
            f"an exported model ({', '.join(f.file for f in FORMATS.values())})"
        )
    model = root / FORMATS[form].file
    if not model.exists():
        raise RunDirectoryError(_without_model(RunDirectory(root), model))
    _check_manifest(RunDirectory(root), model)
    return model


def open_model(model: Path) -> LoadedModel:
    """Load an exported model: Keras is imported for its own format only, since it takes seconds.

    Raises:
        ModelError: Missing, damaged, of another kind, made by a newer version, or its runtime is
            not installed.
    """
    if format_of(model) is not KERAS:
        from search.scoring.runtimes import load_export

        return load_export(model)
    backend.load()
    from search.scoring.export import load_model

    return load_model(model)


def unchecked_note(model: Path) -> str:
    """Return what to say of a model whose run has not ended, or ""."""
    run = RunDirectory(model.parent)
    if run.complete or not run.exists or model.name not in {f.file for f in FORMATS.values()}:
        return ""
    return (
        f"note: {run.root} is unfinished (no manifest.json), so {model.name} cannot be checked; "
        f"finish the run with python -m search.run --name {run.name} --resume"
    )


def _without_model(run: RunDirectory, model: Path) -> str:
    if not run.exists:
        return f"{run.root}: no {model.name} in it, and not a run directory"
    finish = f"python -m search.run --name {run.name} --resume"
    keras_there = (run.root / KERAS.file).exists()
    if model.name == KERAS.file or not keras_there:
        if run.complete:
            return f"{model}: is gone, though the run ended; make it again with {finish}"
        state = f"the run is unfinished and has no {model.name} yet"
        return f"{run.root}: {state}; finish it with {finish}"
    form = next(form.name for form in FORMATS.values() if form.file == model.name)
    return (
        f"{run.root}: no {model.name} in it{_why_not(run, form)}; make it with {finish} --export "
        f"{form} and the run's other options, or use {KERAS.file}"
    )


def _why_not(run: RunDirectory, form: str) -> str:
    """Return why an export failed, as `exports.json` has it, or ""."""
    with contextlib.suppress(RunDirectoryError, OSError, TypeError, KeyError, AttributeError):
        rows = run.read_json(EXPORTS_FILE)
        reason = next((row.get("reason") for row in rows if row["format"] == form), "")
        return f" ({reason})" if reason else ""
    return ""


def find_images(arguments: Sequence[str], *, suffixes: frozenset[str]) -> list[Path]:
    """Expand files, folders and globs to files, in the order given, each once.

    A folder stands for the files in it and below whose suffix is an image's; hidden ones and
    `__MACOSX` are passed over. What matches nothing, and a folder without images, stays in the list
    as it is, so that it gets a row which says so.

    Args:
        arguments: As typed.
        suffixes: Of image files, lower case, with the dot; used inside folders only.

    Raises:
        DataError: Nothing but folders without images.
    """
    found: dict[Path, None] = {}
    empty: list[Path] = []
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
                empty.append(match)
            found |= dict.fromkeys(inside or [match])
    if empty and len(found) == len(set(empty)):
        raise DataError(f"{empty[0]}: no images in this folder or below it; give another one")
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
                if file.is_dir():
                    raise DataError("a folder without images; give another one")
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


def _check_manifest(run: RunDirectory, model: Path) -> None:
    """Refuse a model that was changed after its run ended; an unfinished run has no manifest."""
    if not run.complete:
        return
    try:
        manifest = json.loads((run.root / MANIFEST).read_text(encoding="utf-8"))
        listed = {
            name: facts["sha256"]
            for name, facts in manifest["files"].items()
            if name == model.name or name.startswith(f"{model.name}/")
        }
        if not listed:
            raise KeyError(model.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunDirectoryError(
            f"{run.root / MANIFEST}: damaged, or does not list {model.name}; give the model "
            f"itself, {model}, to use it unchecked"
        ) from None
    files = [file for file in model.rglob("*") if file.is_file()] if model.is_dir() else [model]
    found = {file.relative_to(run.root).as_posix(): file_sha256(file) for file in files}
    if found != listed:
        changed = sorted(
            name for name in found.keys() | listed.keys() if found.get(name) != listed.get(name)
        )
        raise ModelError(
            f"{run.root / changed[0]}: its checksum is not the one in {MANIFEST}, so it was "
            "changed after the run ended; restore it, or copy it elsewhere and give the copy to "
            "use it anyway"
        )
