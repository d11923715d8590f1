"""The formats a trained model is exported to: what each is called, needs and leaves behind.

Every export is complete in itself: it takes raw images, and carries its preprocessing, threshold
and metadata. Where the metadata lie differs by format:

| format | file | metadata |
|---|---|---|
| keras | `model.keras` | `xray_search.json` in the zip archive that it is |
| saved_model | `model.saved_model/` | `assets.extra/xray_search.json` inside |
| onnx | `model.onnx` | `metadata_props["xray_search"]` |
| litert | `model.tflite` | `xray_search.json` in the zip archive at its end, like TFLite metadata |

Imports nothing heavy, so that a missing package is reported before a search begins.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from search.errors import ConfigurationError, ModelError
from search.records import Threshold, Values

METADATA = "xray_search"
"""Name under which the metadata lie in an export, with ".json" where it is a file's."""

EXPORTS_FILE = "exports.json"
"""What became of every export, in a run directory: a list of `ExportRecord`."""

SAVED_MODEL_MARK = "saved_model.pb"
"""The file that tells a SavedModel's folder."""

METADATA_VERSION = 2
"""Raise it when an older reader would misread newer metadata."""

WRITTEN = "written"
"""Status of an export: loaded back by its own runtime, it gives the network's probabilities."""

FAILED = "failed"
"""Status of an export that could not be made, or differs. There is no file, except that
`model.keras` is kept: a run without a model is worth less than one whose model is known to differ.
"""


class Format(NamedTuple):
    """One format."""

    name: str  # As `--export` takes it
    file: str  # Name of the export in a run directory
    modules: tuple[str, ...]  # What must be importable to write it and read it back
    runtime: str  # The distribution that runs it
    extra: str = ""  # The extra of this project that brings them, "" if it needs none

    @property
    def missing(self) -> str:
        """Return which packages it lacks and how to get them, "" if none; imports none of them."""
        lacking = [name for name in self.modules if importlib.util.find_spec(name) is None]
        wanted = f".[{self.extra}]" if self.extra else "."
        text = f"needs {', '.join(lacking)}, not installed; pip install -e '{wanted}'"
        return text if lacking else ""

    @property
    def runtime_version(self) -> str:
        """Return the runtime and its version, e.g. "onnxruntime 1.32.0"."""
        try:
            return f"{self.runtime} {metadata.version(self.runtime)}"
        except metadata.PackageNotFoundError:
            return self.runtime


KERAS = Format("keras", "model.keras", modules=("keras",), runtime="keras")

FORMATS = {
    form.name: form
    for form in (
        KERAS,
        Format("saved_model", "model.saved_model", modules=("tensorflow",), runtime="tensorflow"),
        Format(
            "onnx",
            "model.onnx",
            modules=("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
            extra="onnx",
            runtime="onnxruntime",
        ),
        Format(
            "litert",
            "model.tflite",
            modules=("tensorflow", "ai_edge_litert"),
            extra="litert",
            runtime="ai-edge-litert",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What an exported model says of itself."""

    image_size: int  # Side S in pixels of the network's input
    threshold: Threshold  # Call the positive class at or above it
    channels: int = 1  # 1 for a network that takes gray images, 3 for real colour
    # Bits in use of training images of 9 to 16 bits that did not tell; 0 if there were none
    depth: int = 0
    # Names of the negative and the positive class
    classes: tuple[str, str] = ("negative", "positive")
    role: str = "winner"  # "winner" or "baseline"
    seed: int | None = None  # The repetition that it is, None for an ensemble
    notice: str = ""  # What must be said with every answer of the model, or ""
    run: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # Of Python and packages
    values: Values = field(default_factory=dict)
    fingerprint: str = ""  # Of the data set
    version: int = METADATA_VERSION  # Of this record


class Predictor(Protocol):
    """What every loaded export can do."""

    def predict_on_batch(self, x: Any) -> Any:
        """Return (batch, 1) probabilities of (batch, height, width, 1 or 3) images, 0–255."""


class LoadedModel(NamedTuple):
    """An exported model, ready to predict, see `Predictor`, and the file it came from."""

    path: Path
    model: Any
    metadata: ModelMetadata


def require(names: Iterable[str]) -> None:
    """Refuse formats whose packages are not installed; call it before anything slow.

    Raises:
        ConfigurationError: Names the packages that are missing and the command that brings them.
    """
    for name in names:
        if missing := FORMATS[name].missing:
            raise ConfigurationError(f"--export {name}: {missing}")


def format_of(path: Path) -> Format:
    """Tell the format of a model by its name, or of a folder by what is in it.

    Raises:
        ModelError: Nothing is there, or it is of none of the formats.
    """
    if not path.exists():
        raise ModelError(
            f"{path}: no such file; give a run directory or an exported model "
            f"({', '.join(form.file for form in FORMATS.values())})"
        )
    if path.is_dir():
        if (path / SAVED_MODEL_MARK).is_file():
            return FORMATS["saved_model"]
        raise ModelError(f"{path}: a folder, not a .keras file and no SavedModel")
    for form in FORMATS.values():
        if path.suffix.lower() == Path(form.file).suffix:
            return form
    # A model file under another name is most likely Keras', whose reader says what it is not.
    return KERAS
