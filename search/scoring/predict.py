"""Predicts image files one by one, so that a bad file costs its own answer and no other.

How a file becomes pixels is the caller's business: a function is passed in, and it should be the
one that decoded the training images. Knows the layout of a run directory, no data set and no
terminal; imports no Keras before `open_model`, so that wrong arguments are told at once.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search import backend
from search.errors import DataError, ModelError, RunDirectoryError
from search.run_directory import RunDirectory, file_sha256
from search.scoring.formats import EXPORTS_FILE, FORMATS, KERAS, LoadedModel, format_of

MANIFEST = "manifest.json"
SAVED_MODEL_MARK = "saved_model.pb"

NOT_FOR_DIAGNOSIS = "Research use only, not for diagnosis."

Decode = Callable[[Path, int], np.ndarray]
"""(file, image size S) to `uint8` (S, S) gray; raises DataError for a file that is no image."""

Recognise = Callable[[Path], bool]
"""Whether a file is an image by its content, whatever its name; cheap, raises nothing."""


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
    if not str(run_or_model):
        raise RunDirectoryError("RUN_OR_MODEL '': an empty name; give a run or an exported model")
    try:
        return _find_model(Path(run_or_model), results_dir, form)
    except OSError as error:
        raise RunDirectoryError(
            f"{run_or_model}: cannot be read ({error.strerror or error}); check its name and "
            "permissions, or give another run or model"
        ) from error


def _find_model(run_or_model: Path, results_dir: Path, form: str) -> Path:
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
        from search.scoring.loading import load_export

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


def find_images(
    arguments: Sequence[str], *, suffixes: frozenset[str], recognise: Recognise = lambda _: False
) -> list[Path]:
    """Expand files, folders and globs to files, in the order given, each once.

    A folder stands for the files in it and below whose suffix is an image's or that are recognised;
    hidden ones and `__MACOSX` are passed over. What matches nothing, a folder without images and
    what cannot be listed stay in the list as they are, so that they get a row which says so.

    Args:
        arguments: As typed.
        suffixes: Of image files, lower case, with the dot; used inside folders only.
        recognise: Asked of files inside folders that have another suffix.

    Raises:
        DataError: Nothing but folders without images, or an empty name, which Python would take
            for the working directory.
    """
    found: dict[Path, None] = {}
    empty: list[Path] = []
    for argument in arguments:
        if not argument:
            raise DataError("IMAGE '': an empty name; give a file, a folder or a glob")
        path = Path(argument)
        # A name may hold brackets; only what is not there as it is typed can be a pattern.
        matches = [] if _mode(path) else sorted(glob.glob(argument, recursive=True))
        for match in [Path(m) for m in matches] or [path]:
            if not stat.S_ISDIR(_mode(match)):
                found[match] = None
                continue
            inside = _images_in(match, suffixes, recognise)
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
        One answer a file, an error where it is neither a regular file nor a pipe or `decode` raised
        DataError.
    """
    for start in range(0, len(files), batch_size):
        rows: list[np.ndarray] = []
        errors: dict[Path, str] = {}
        batch = files[start : start + batch_size]
        for file in batch:
            try:
                _refuse_endless(file)
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


def _images_in(folder: Path, suffixes: frozenset[str], recognise: Recognise) -> list[Path]:
    """Return the images in a folder and below, and the folders there that cannot be listed."""
    found: list[Path] = []

    def keep(refusal: OSError) -> None:
        found.append(Path(os.fsdecode(refusal.filename)))

    for place, folders, names in os.walk(folder, onerror=keep):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        files = [Path(place, name) for name in names if not _is_hidden(name)]
        found += [file for file in files if _is_image(file, suffixes, recognise)]
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_image(file: Path, suffixes: frozenset[str], recognise: Recognise) -> bool:
    mode = _mode(file)
    if file.suffix.lower() in suffixes:
        return stat.S_ISREG(mode) or not mode  # why it cannot be looked at is told when it is read
    return stat.S_ISREG(mode) and recognise(file)


def _mode(path: Path) -> int:
    """Return what the system says a path is; 0 where nothing is there or it cannot look."""
    try:
        return path.stat().st_mode
    except OSError:  # `exists` would raise some of them, as for a name that is too long
        return 0


def _refuse_endless(file: Path) -> None:
    """Refuse what is no file, before it is read: a device may never end. A pipe does.

    Raises:
        DataError: A folder, a device or a socket, or it cannot be looked at.
    """
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(file).close()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot be read ({reason}); give another file") from error
    if stat.S_ISDIR(mode):
        raise DataError("a folder without images; give another one")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise DataError("neither a regular file nor a pipe; give another one")


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
