"""The formats a trained model is exported to: what each is called, needs and leaves behind.

Every export is complete in itself: it takes raw images, and carries its preprocessing, threshold
and papers. Where those lie differs by format:

| format | file | papers |
|---|---|---|
| keras | `model.keras` | the configuration of its `RawImages` layer |
| saved_model | `model.saved_model/` | `assets.extra/xray_search.json` inside |
| onnx | `model.onnx` | `metadata_props["xray_search"]` |
| litert | `model.tflite` | `xray_search.json` in the zip archive at its end, like TFLite metadata |

Imports nothing heavy, so that a missing package is told before a search begins.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from search.errors import ConfigurationError, ModelError
from search.records import Threshold

PAPERS = "xray_search"
"""Name under which the papers lie in an export, with ".json" where it is a file's."""

EXPORTS_FILE = "exports.json"
"""What became of every export, in a run directory: a list of `Export`."""

PAPERS_VERSION = 1
"""Raise it when an older reader would misread newer papers."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format.

    Attributes:
        name: As `--export` takes it.
        file: Name of the export in a run directory.
        modules: What must be importable to write it and read it back.
        extra: The extra of this project that brings them, "" if it needs none.
        runtime: The distribution that runs it.
    """

    name: str
    file: str
    modules: tuple[str, ...]
    extra: str = ""
    runtime: str

    @property
    def missing(self) -> list[str]:
        """Return the modules that are not installed; imports none of them."""
        return [name for name in self.modules if importlib.util.find_spec(name) is None]

    @property
    def runtime_version(self) -> str:
        """Return the runtime and its version, e.g. "onnxruntime 1.32.0"."""
        try:
            return f"{self.runtime} {metadata.version(self.runtime)}"
        except metadata.PackageNotFoundError:
            return self.runtime


KERAS = Format(name="keras", file="model.keras", modules=("keras",), runtime="keras")

FORMATS = {
    form.name: form
    for form in (
        KERAS,
        Format(
            name="saved_model",
            file="model.saved_model",
            modules=("tensorflow",),
            runtime="tensorflow",
        ),
        Format(
            name="onnx",
            file="model.onnx",
            modules=("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
            extra="onnx",
            runtime="onnxruntime",
        ),
        Format(
            name="litert",
            file="model.tflite",
            modules=("tensorflow", "ai_edge_litert"),
            extra="litert",
            runtime="ai-edge-litert",
        ),
    )
}


class ExportStatus(StrEnum):
    """What became of an export."""

    WRITTEN = "written"
    """Loaded back by its own runtime, it gives the network's probabilities."""
    FAILED = "failed"
    """It could not be made, or differs. There is no file, except that `model.keras` is kept: a run
    without a model is worth less than one whose model is known to differ."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """An export, as a row of `exports.json`.

    Attributes:
        format: Its name.
        path: Name in the run directory.
        status: What became of it.
        reason: Why it failed, or "".
        bytes: Size, of a folder with all it holds; 0 if there is no file.
        images: How many images it was compared on.
        max_difference: Largest difference in probability; of `model.keras` from the network in
            this run, of every other format from `model.keras`, both on the CPU. None if it could
            not be compared.
        max_difference_from_run: The same from the run's own probabilities of these validation
            images, on the run's device, where a GPU may round more coarsely.
        runtime: What loaded it back, with its version.
    """

    format: str
    path: str
    status: ExportStatus
    reason: str = ""
    bytes: int = 0
    images: int = 0
    max_difference: float | None = None
    max_difference_from_run: float | None = None
    runtime: str = ""


class Predictor(Protocol):
    """What every loaded export can do."""

    def predict_on_batch(self, x: Any) -> Any:
        """Return (batch, 1) probabilities of (batch, height, width, 1 or 3) images, 0–255."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """An exported model, ready to predict.

    Attributes:
        path: The file or folder it came from.
        model: (batch, height, width, 1 or 3), 0–255, to float32 (batch, 1), the probability of
            PNEUMONIA.
        threshold: The stored threshold.
        image_size: Side S in pixels of the network's input.
        class_names: Names of label 0 and label 1.
        metadata: What was stored with it, see `export.export_model`.
    """

    path: Path
    model: Any
    threshold: Threshold
    image_size: int
    class_names: tuple[str, ...]
    metadata: dict[str, Any]

    @property
    def notice(self) -> str:
        """Return what must be said with every answer of the model, or ""."""
        return str(self.metadata.get("notice") or "")


def require(names: Iterable[str]) -> None:
    """Refuse formats whose packages are not installed; call it before anything slow.

    Raises:
        ConfigurationError: Names the packages that are missing and the command that brings them.
    """
    for form in (FORMATS[name] for name in names):
        if form.missing:
            raise ConfigurationError(f"--export {form.name}: {missing_text(form)}")


def missing_text(form: Format) -> str:
    """Return which packages a format lacks and how to get them."""
    wanted = f".[{form.extra}]" if form.extra else "."
    return f"needs {', '.join(form.missing)}, not installed; pip install -e '{wanted}'"


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
        if (path / "saved_model.pb").is_file():
            return FORMATS["saved_model"]
        raise ModelError(f"{path}: a folder, not a .keras file and no SavedModel")
    for form in FORMATS.values():
        if path.suffix.lower() == Path(form.file).suffix:
            return form
    # A model file under another name is most likely Keras', whose reader says what it is not.
    return KERAS


def read_threshold(stored: dict[str, Any], path: Path) -> Threshold:
    """Return the threshold that a model carries.

    Raises:
        ModelError: A field is missing.
    """
    try:
        return Threshold(**{f.name: stored[f.name] for f in fields(Threshold)})
    except KeyError as error:
        raise ModelError(f"{path}: its threshold has no {error}; export the model again") from error
