"""Opens exports with their own runtimes, none of which is Keras; reads the papers inside them.

TensorFlow for a SavedModel, ONNX Runtime for ONNX, LiteRT for a `.tflite` file, all on the CPU.
Each runtime is imported when a file of its format is opened. A SavedModel is a program: open only
those whose origin you trust. The other two hold nothing that could run.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from search.backend import quiet_stderr
from search.errors import ModelError
from search.scoring.formats import (
    PAPERS,
    PAPERS_VERSION,
    Format,
    LoadedModel,
    format_of,
    missing_text,
    read_threshold,
)

SAVED_MODEL_PAPERS = Path("assets.extra") / f"{PAPERS}.json"
LITERT_PAPERS = f"{PAPERS}.json"


class SavedModelPredictor:
    """A SavedModel, run by TensorFlow."""

    def __init__(self, path: Path) -> None:
        """Load it."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with quiet_stderr():
            import tensorflow as tf

            self._constant = tf.constant
            self._model = tf.saved_model.load(str(path))

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Return (batch, 1) probabilities of (batch, height, width, channels) images, 0–255."""
        batch = self._constant(np.asarray(x, dtype=np.float32))
        return np.asarray(self._model.serve(batch))


class OnnxPredictor:
    """An ONNX file, run by ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        """Load it."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.stored = dict(self._session.get_modelmeta().custom_metadata_map)

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Return (batch, 1) probabilities of (batch, height, width, channels) images, 0–255."""
        name = self._session.get_inputs()[0].name
        return np.asarray(self._session.run(None, {name: np.asarray(x, dtype=np.float32)})[0])


class LitertPredictor:
    """A `.tflite` file, run by LiteRT."""

    def __init__(self, path: Path) -> None:
        """Load it."""
        with quiet_stderr():
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(str(path), num_threads=os.cpu_count() or 1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape: tuple[int, ...] = ()

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Return (batch, 1) probabilities of (batch, height, width, channels) images, 0–255."""
        batch = np.asarray(x, dtype=np.float32)
        if batch.shape != self._shape:
            with quiet_stderr():
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                self._interpreter.allocate_tensors()
            self._shape = batch.shape
        self._interpreter.set_tensor(self._input, batch)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output))


PREDICTORS = {
    "saved_model": SavedModelPredictor,
    "onnx": OnnxPredictor,
    "litert": LitertPredictor,
}


def load_export(path: Path) -> LoadedModel:
    """Open an export that is not Keras'.

    Raises:
        ModelError: Missing, damaged, not made by this program or by a newer version of it, or its
            runtime is not installed.
    """
    form = format_of(path)
    if form.missing:
        raise ModelError(f"{path}: {missing_text(form)}")
    if form.name != "onnx":
        papers = _read_papers(form, path)
    try:
        model: Any = PREDICTORS[form.name](path)
    except Exception as error:
        # Runtimes meet a damaged file with any exception there is.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(
            f"{path}: cannot be loaded by {form.runtime_version} ({reason}); copy the file anew, "
            "or export the model again"
        ) from error
    if form.name == "onnx":
        papers = _parse(model.stored.get(PAPERS), path)
    return LoadedModel(
        path=path,
        model=model,
        threshold=read_threshold(papers["threshold"], path),
        image_size=int(papers["image_size"]),
        class_names=tuple(papers["class_names"]),
        metadata=dict(papers["metadata"]),
    )


def _read_papers(form: Format, path: Path) -> dict[str, Any]:
    try:
        if form.name == "saved_model":
            return _parse((path / SAVED_MODEL_PAPERS).read_text(encoding="utf-8"), path)
        with zipfile.ZipFile(path) as archive:
            return _parse(archive.read(LITERT_PAPERS).decode(), path)
    except (OSError, KeyError, zipfile.BadZipFile):
        raise _foreign(path) from None


def _parse(text: str | None, path: Path) -> dict[str, Any]:
    if text is None:
        raise _foreign(path)
    try:
        papers: dict[str, Any] = json.loads(text)
        version = int(papers["version"])
        complete = {"threshold", "image_size", "class_names", "metadata"} <= papers.keys()
    except (ValueError, KeyError, TypeError):
        raise _foreign(path) from None
    if version > PAPERS_VERSION:
        raise ModelError(
            f"{path}: its papers have version {version}, this program reads up to "
            f"{PAPERS_VERSION}; install a newer xray-search"
        )
    if not complete:
        raise _foreign(path)
    return papers


def _foreign(path: Path) -> ModelError:
    return ModelError(
        f"{path}: damaged, or not a model exported by this program (no papers in it); copy it "
        "anew, or give a model of a run directory"
    )
