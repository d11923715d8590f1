"""Writes a trained network as one file that takes raw images, and loads exported models.

The file is Keras 3's own format, loads in Keras' safe mode on any backend, and needs no module of
this project besides `search.scoring.preprocessing`: the augmentation, which does nothing after
training, is left out. Before the file gets its name it is loaded back and must give the network's
probabilities. The other formats are made from this file, see `conversion`.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from search.errors import ModelError, storage_errors
from search.records import CLASS_NAMES, Threshold, to_json
from search.scoring.calibration import scaled
from search.scoring.conversion import TOLERANCE, answers
from search.scoring.formats import (
    KERAS,
    Export,
    ExportStatus,
    LoadedModel,
    Predictor,
    format_of,
    read_threshold,
)
from search.scoring.loading import load_export
from search.scoring.preprocessing import RawImages, TemperatureScaling

_CHECKED = 4
_LAYER = "search>RawImages"


def export_model(
    network: keras.Model,
    path: Path,
    *,
    image_size: int,
    threshold: Threshold,
    metadata: dict[str, Any],
    temperature: float = 1.0,
) -> Path:
    """Write the network, its preprocessing, its threshold and its papers to one file.

    Args:
        network: Functional or sequential; (batch, S, S, 1) gray 0–255 to (batch, 1) probability.
        path: The file, `.keras`; replaced only when the new one is whole and checked.
        image_size: Side S in pixels.
        threshold: The decision threshold.
        metadata: JSON values. "notice", a sentence or None, is read again by
            `LoadedModel.notice`, "role" and "seed" (None for an ensemble) by `search.evaluate`; the
            rest, e.g. "run" and "versions", is only carried along.
        temperature: By which the network's logit is divided, see `calibration`; 1 changes nothing.

    Returns:
        `path`.

    Raises:
        ModelError: The file, loaded back, differs from the network by more than `TOLERANCE`.
        StorageError: The disk is full or read-only.
    """
    inputs = keras.Input((None, None, None), name="image")
    raw = RawImages(
        image_size,
        threshold=to_json(threshold),
        class_names=list(CLASS_NAMES),
        metadata=to_json(metadata),
        name="raw_images",
    )
    outputs = for_inference(network)(raw(inputs))
    if temperature != 1:
        outputs = TemperatureScaling(temperature, name="temperature")(outputs)
    model = keras.Model(inputs, outputs, name="xray_search")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.keras")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            model.save(temporary)
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            _check_same(network, load_model(temporary), path, temperature)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def keras_export(path: Path, *, images: np.ndarray, probabilities: np.ndarray) -> Export:
    """Describe an exported Keras model as a row of `exports.json`.

    Args:
        path: The file.
        images: `uint8` (n, S, S, 1), validation images.
        probabilities: `float64` (n,), the network's for them, asked for by `answers` too.

    Returns:
        Failed, with the reason, above `TOLERANCE`; the file stays where it is.

    Raises:
        ModelError: See `load_model`.
    """
    difference = float(np.abs(answers(load_model(path).model, images) - probabilities).max())
    alike = difference <= TOLERANCE  # False for NaN
    return Export(
        format=KERAS.name,
        path=path.name,
        status=ExportStatus.WRITTEN if alike else ExportStatus.FAILED,
        reason=""
        if alike
        else f"differs from the network by {difference:.2g} in probability; at most "
        f"{TOLERANCE:g} is allowed",
        bytes=path.stat().st_size,
        images=len(images),
        max_difference=difference if np.isfinite(difference) else None,
        max_difference_from_run=difference if np.isfinite(difference) else None,
        runtime=KERAS.runtime_version,
    )


def load_model(path: Path) -> LoadedModel:
    """Load an exported model: Keras' own in safe mode, the others by their runtimes.

    Raises:
        ModelError: Missing, damaged, of another kind, or made by a newer version.
    """
    if format_of(path) is not KERAS:
        return load_export(path)
    described = _describe(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        # Keras meets a file it cannot build with any exception there is.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(
            f"{path}: cannot be loaded ({reason}); it was saved with Keras {described or '?'}, "
            f"this is Keras {keras.__version__}. Export the model again with this version"
        ) from error
    layers = [layer for layer in model.layers if isinstance(layer, RawImages)]
    if len(layers) != 1:
        raise _foreign(path)
    (layer,) = layers
    return LoadedModel(
        path=path,
        model=model,
        threshold=read_threshold(layer.threshold, path),
        image_size=layer.image_size,
        class_names=tuple(layer.class_names),
        metadata=dict(layer.papers),
    )


def _describe(path: Path) -> str:
    """Check that a file is an exported model before Keras opens it; return its Keras version."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(f"{broken} does not match its checksum")
            config = archive.read("config.json").decode()
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    except KeyError:
        raise _foreign(path) from None
    except (zipfile.BadZipFile, OSError, ValueError, AttributeError, EOFError) as error:
        raise ModelError(
            f"{path}: damaged, or not a Keras file ({error}); export the model again, or copy the "
            "file anew"
        ) from error
    if f'"{_LAYER}"' not in config:
        raise _foreign(path)
    return str(version)


def _foreign(path: Path) -> ModelError:
    return ModelError(
        f"{path}: not a model exported by this program (no {_LAYER} layer in it); give the "
        "model.keras of a run directory"
    )


def for_inference(network: keras.Model, *, name: str = "") -> keras.Model:
    """Copy a network without its optimizer and without this project's augmentation layers.

    Those are the layers of another package than Keras that have no weights; `export_model` checks
    that nothing else was lost.

    Args:
        network: Functional or sequential, with one output.
        name: Of the copy; "" is the network's own.
    """

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        is_ours = ">" in keras.saving.get_registered_name(type(layer))
        return args[0] if is_ours and not layer.weights else layer(*args, **kwargs)

    graph = keras.Model(network.inputs, network.outputs[0], name=name or network.name)
    copy = keras.models.clone_model(graph, call_function=call)
    copy.set_weights(graph.get_weights())
    return copy


def _check_same(network: Predictor, loaded: LoadedModel, path: Path, temperature: float) -> None:
    size = loaded.image_size
    images = np.random.default_rng(0).integers(0, 256, (_CHECKED, size, size, 1), dtype=np.uint8)
    wanted = scaled(answers(network, images), temperature)
    largest = float(np.abs(wanted - answers(loaded.model, images)).max())
    if not largest <= TOLERANCE:
        raise ModelError(
            f"{path}: the exported model differs from the network by {largest:.2g} in "
            f"probability (at most {TOLERANCE:g} is allowed); it was not written"
        )
