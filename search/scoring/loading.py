"""Opens exported models with their own runtimes and reads the metadata inside them.

Keras for `model.keras`, in its safe mode; TensorFlow for a SavedModel, ONNX Runtime for ONNX,
LiteRT for a `.tflite` file, these on the CPU. Each is imported when a file of its format is opened,
since that takes seconds. A SavedModel is a program: open only those whose origin you trust. The
others hold nothing that could run.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from search import backend
from search.errors import ModelError, RunDirectoryError
from search.records import from_json
from search.scoring.formats import (
    KERAS,
    METADATA,
    METADATA_VERSION,
    Format,
    LoadedModel,
    ModelMetadata,
    format_of,
)

METADATA_FILE = f"{METADATA}.json"
SAVED_MODEL_METADATA = Path("assets.extra") / METADATA_FILE

_BYTES_OF_A_WEIGHT = 4
_LARGEST_WEIGHTS, _LARGEST_TEXT = 4 * 2**30, 64 * 2**20
"""Bytes of a `.keras` file's weights, and of its other parts, above which it is refused unread."""


def load_model(path: Path) -> LoadedModel:
    """Load an exported model of any format.

    Args:
        path: The file, or the folder of a SavedModel.

    Raises:
        ModelError: Missing, damaged, not made by this program or by a newer version of it, or its
            runtime is not installed.
    """
    form = format_of(path)
    if form.missing:
        raise ModelError(f"{path}: {form.missing}")
    try:
        text = _stored_metadata(form, path)
    except PermissionError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    except (OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError):
        raise _foreign(path) from None
    about = _parse(text, path) if form.name != "onnx" else None
    try:
        model = _OPENERS[form.name](path)
    except ModelError:
        raise
    except Exception as error:
        # Runtimes meet a damaged file with any exception there is.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(
            f"{path}: cannot be loaded by {form.runtime_version} ({reason}); copy the file again, "
            "or export the model again with this version"
        ) from error
    if about is None:
        about = _parse(model.stored, path)
    return LoadedModel(path=path, model=model, metadata=about)


def _open_keras(path: Path) -> Any:
    """Return the model, not compiled, unless it asks for more memory than its weights take."""
    keras = backend.load()
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
        stored = archive.getinfo("model.weights.h5").file_size
    # Layers made without values tell how many there would be; to compile makes the optimizer's.
    layers = json.loads(config, object_hook=_without_compilation)
    with keras.StatelessScope(initialize_variables=False):
        model = keras.models.model_from_json(json.dumps(layers))
    described = model.count_params() * _BYTES_OF_A_WEIGHT
    if described > stored:
        raise ModelError(
            f"{path}: its layers need {described / 2**20:,.0f} MB of weights and the file holds "
            f"{stored / 2**20:,.1f} MB; it is damaged, export the model again"
        )
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _without_compilation(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "compile_config"}


class Served:
    """A model that another runtime than Keras runs.

    Attributes:
        stored: The metadata's text, where only the runtime can read it out of the file.
    """

    def __init__(self, run: Callable[[np.ndarray], Any], stored: str | None = None) -> None:
        """Take what runs a float32 batch."""
        self._run = run
        self.stored = stored

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Return (batch, 1) probabilities of (batch, height, width, channels) images, 0–255."""
        return np.asarray(self._run(np.asarray(x, dtype=np.float32)))


def _open_saved_model(path: Path) -> Served:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with backend.quiet_stderr():
        import tensorflow as tf

        model = tf.saved_model.load(str(path))
    return Served(lambda batch: model.serve(tf.constant(batch)))


def _open_onnx(path: Path) -> Served:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Served(
        lambda batch: session.run(None, {name: batch})[0],
        stored=session.get_modelmeta().custom_metadata_map.get(METADATA),
    )


def _open_litert(path: Path) -> Served:
    with backend.quiet_stderr():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=os.cpu_count() or 1)
    taken = interpreter.get_input_details()[0]["index"]
    given = interpreter.get_output_details()[0]["index"]
    shape: tuple[int, ...] = ()

    def run(batch: np.ndarray) -> Any:
        nonlocal shape
        if batch.shape != shape:
            with backend.quiet_stderr():
                interpreter.resize_tensor_input(taken, batch.shape)
                interpreter.allocate_tensors()
            shape = batch.shape
        interpreter.set_tensor(taken, batch)
        interpreter.invoke()
        return interpreter.get_tensor(given)

    return Served(run)


_OPENERS: dict[str, Callable[[Path], Any]] = {
    "keras": _open_keras,
    "saved_model": _open_saved_model,
    "onnx": _open_onnx,
    "litert": _open_litert,
}


def _stored_metadata(form: Format, path: Path) -> str:
    """Return the metadata's text, after checking that the file around it is whole."""
    if form.name == "onnx":
        return ""  # The runtime reads it out.
    if form.name == "saved_model":
        return (path / SAVED_MODEL_METADATA).read_text(encoding="utf-8")
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            limit = _LARGEST_WEIGHTS if part.filename.endswith(".h5") else _LARGEST_TEXT
            if part.file_size > limit:
                raise ModelError(
                    f"{path}: its {part.filename} has {part.file_size / 2**30:.1f} GB, more than "
                    "any of ours; it is not opened"
                )
        reason = ""
        try:
            if form is KERAS and (broken := archive.testzip()):
                reason = f"{broken} does not match its checksum"
        except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
            reason = str(error) or type(error).__name__
        if reason:
            raise ModelError(
                f"{path}: damaged ({reason}); copy the file again, or export the model again"
            )
        return archive.read(METADATA_FILE).decode()


def _parse(text: str | None, path: Path) -> ModelMetadata:
    if text is None:
        raise _foreign(path)
    try:
        stored = json.loads(text)
        version = int(stored["version"])
        del stored["feed"]  # For who reads it without this program.
    except (ValueError, KeyError, TypeError):
        raise _foreign(path) from None
    if version > METADATA_VERSION:
        raise ModelError(
            f"{path}: its metadata have version {version}, this program reads up to "
            f"{METADATA_VERSION}; install a newer xray-search"
        )
    try:
        return from_json(ModelMetadata, stored, where=f"{path}, {METADATA_FILE}")
    except RunDirectoryError as error:
        raise ModelError(f"{error}; export the model again") from None


def _foreign(path: Path) -> ModelError:
    return ModelError(
        f"{path}: damaged, or not a model exported by this program (no {METADATA_FILE} in it); "
        "copy it again, or give a model of a run directory"
    )
