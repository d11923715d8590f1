"""Writes a trained network as files that take raw images, and checks each with its own runtime.

`model.keras` comes first: the network without what acts in training only, between the functions of
`preprocessing`, in float32. It holds no class of this project, so that any Keras loads it, on any
backend and in safe mode. The other formats are made from that file by Keras' own `export`, one
process each: a converter that crashes or hangs costs its format and nothing else, the conversion
runs on TensorFlow whatever trained the network, and it runs on the CPU, where every runtime
computes in float32, so that a difference is the format's.

A format that cannot be had costs itself only: `exports.json` gives the reason, and so does the
console. `main` is the process of a conversion.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from search.config import ExportFormat
from search.errors import ModelError, SearchError, storage_errors
from search.records import ExportRecord, Reporter, Subset, to_json
from search.run_directory import RunDirectory, atomic, write_text
from search.scoring.calibration import scaled
from search.scoring.formats import (
    EXPORTS_FILE,
    FAILED,
    FORMATS,
    KERAS,
    METADATA,
    WRITTEN,
    Format,
    LoadedModel,
    ModelMetadata,
)
from search.scoring.loading import METADATA_FILE, SAVED_MODEL_METADATA, load_model
from search.scoring.predictions import predict_images
from search.scoring.preprocessing import calibrated, raw_images

TOLERANCE = 1e-4
"""Largest difference in probability between the network and `model.keras`, and between that and
another export of it."""

IMAGES = 256
"""Validation images compared, at most; evenly spaced over the split."""

RAW_SHAPES = ((1.3, 1.7, 1), (2.6, 2.1, 3), (9.0, 8.2, 1))
"""Raw images compared besides: height and width in units of the image size, and channels."""

TIMEOUT = 900.0
"""Seconds after which a conversion is given up."""

INPUT, OUTPUT = "image", "probability"
"""Names of input and output in ONNX, which other formats cannot name."""

_BATCH = 32
_NOISE_IMAGES = 4
_PROJECT = Path(__file__).parents[2]


def export_all(
    network: keras.Model,
    directory: RunDirectory,
    *,
    formats: Sequence[ExportFormat],
    metadata: ModelMetadata,
    temperature: float,
    val: Subset,
    reporter: Reporter,
) -> list[ExportRecord]:
    """Write `model.keras` and every other format that was asked for, and check each.

    Args:
        network: The winner, uncalibrated.
        directory: Gets the exports and `exports.json`.
        formats: What was asked for.
        metadata: What the model says of itself.
        temperature: By which the network's logit is divided, see `calibration`.
        val: The validation images, on which the exports are compared.
        reporter: Told of every format, and of what went wrong with it.

    Returns:
        What `exports.json` says, `model.keras` first.

    Raises:
        ModelError: `model.keras` differs from the network on noise already; it is not written.
        StorageError: The disk is full or read-only.
    """
    root = directory.root
    for form in FORMATS.values():
        if form is not KERAS:
            remove(root / form.file)  # made from an earlier network, it must not outlive it
    model_file = export_model(
        network, root / KERAS.file, metadata=metadata, temperature=temperature
    )
    images = np.asarray(val.open_array()[val.rows[evenly_spaced(len(val))]])
    # Computed here, on the run's device: the network may not be the one that validation chose. And
    # in the exports' batches: for another size a GPU may choose another algorithm, which rounds
    # differently.
    wanted = scaled(predict_images(network, images, batch_size=_BATCH), temperature)
    found = predict_images(load_model(model_file).model, images, batch_size=_BATCH)
    largest = float(np.abs(found - wanted).max())
    exports = [
        ExportRecord(
            format=KERAS.name,
            path=KERAS.file,
            status=WRITTEN if largest <= TOLERANCE else FAILED,
            reason="" if largest <= TOLERANCE else _too_different("the network", largest),
            bytes=model_file.stat().st_size,
            images=len(images),
            max_difference=largest,
            runtime=KERAS.runtime_version,
        )
    ]
    exports += [
        convert(model_file, name.value, images=images)
        for name in formats
        if name is not ExportFormat.KERAS
    ]
    for made in exports:
        if made.status == WRITTEN:
            reporter.info(
                f"Export: {made.path}, {made.bytes / 1e6:.1f} MB; read back by {made.runtime} it "
                f"gives the same probabilities, within {made.max_difference:.1g} on {made.images} "
                "images"
            )
            continue
        said = f"was not written: {made.reason}"
        if made.format == KERAS.name:
            said = f"{made.reason}. It is kept, and other exports are made from it; check it "
            said += "before you use one of them"
        reporter.warn(f"--export {made.format}: {made.path} {said}")
    directory.write_json(EXPORTS_FILE, exports)
    return exports


def export_model(
    network: keras.Model, path: Path, *, metadata: ModelMetadata, temperature: float = 1.0
) -> Path:
    """Write a network with its preprocessing, temperature and metadata to a `.keras` file.

    The network is functional or sequential, (batch, S, S, channels) 0–255 to (batch, 1)
    probability. An earlier file is replaced only when the new one is whole and checked.

    Raises:
        ModelError: The file, loaded back, differs from the network by more than `TOLERANCE`.
        StorageError: The disk is full or read-only.
    """
    inputs = keras.Input((None, None, None), name=INPUT)
    pixels = raw_images(inputs, metadata.image_size, channels=metadata.channels)
    outputs = inference_copy(network)(pixels)
    if temperature != 1:
        outputs = calibrated(outputs, temperature)
    model = keras.Model(inputs, outputs, name="xray_search")
    with atomic(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(METADATA_FILE, _text(metadata))
        _check_same(network, load_model(temporary), path, temperature)
    return path


def _check_same(network: keras.Model, loaded: LoadedModel, path: Path, temperature: float) -> None:
    about = loaded.metadata
    shape = (_NOISE_IMAGES, about.image_size, about.image_size, about.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    wanted = scaled(predict_images(network, images), temperature)
    found = predict_images(loaded.model, images)
    # What Keras does outside of `predict`: a layer that draws numbers would show.
    direct = keras.ops.convert_to_numpy(loaded.model(images)).reshape(-1)
    largest = float(np.abs(np.stack([found, direct]) - wanted).max())
    if not largest <= TOLERANCE:
        raise ModelError(
            f"{path}: the exported model differs from the network by {largest:.2g} in "
            f"probability (at most {TOLERANCE:g} is allowed); it was not written"
        )


def inference_copy(network: keras.Model, *, name: str = "") -> keras.Model:
    """Copy a network in float32, without its optimizer and without its random layers.

    Those draw numbers, have no weights and keep the shape of what they get: augmentation, dropout,
    noise, of Keras or of any package, also inside nested models. Initializers, regularizers and
    constraints, which act in training only too, may be another package's and are left out.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return inference_copy(layer)
        return type(layer).from_config(_inference_config(layer))

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if _is_random(layer) else layer(*args, **kwargs)

    graph = keras.Model(network.inputs, network.outputs[0], name=name or network.name)
    copy = keras.models.clone_model(graph, clone_function=clone, call_function=call)
    copy.set_weights(graph.get_weights())
    return copy


def _inference_config(layer: keras.layers.Layer) -> dict[str, Any]:
    config = dict(layer.get_config())
    for key in config:
        if key.endswith("_initializer"):
            config[key] = "zeros"
        elif key.endswith(("_regularizer", "_constraint")):
            config[key] = None
    if not isinstance(layer, keras.layers.InputLayer):
        config["dtype"] = "float32"
    return config


def _is_random(layer: keras.layers.Layer) -> bool:
    return not layer.weights and any(
        isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values()
    )


def ensemble_of(members: Sequence[keras.Model]) -> keras.Model:
    """Return a model that gives the mean probability of at least two networks of equal input.

    They stay whole inside it, one layer each, so that `gradcam.networks` finds them: copies in
    float32, without their random layers.
    """
    copies = [inference_copy(member, name=f"member_{i}") for i, member in enumerate(members)]
    inputs = keras.Input(members[0].inputs[0].shape[1:], dtype="uint8", name=INPUT)
    outputs = keras.layers.Average(dtype="float32", name="mean_probability")(
        [copy(inputs) for copy in copies]
    )
    return keras.Model(inputs, outputs, name="ensemble")


def convert(
    model_file: Path, name: str, *, images: np.ndarray, timeout: float = TIMEOUT
) -> ExportRecord:
    """Convert `model.keras` to another format beside it, and check the result.

    An earlier file of that name is replaced only by one that passed, and removed otherwise.
    `images` are `uint8` (n, S, S, channels), of validation; the timeout is in seconds.

    Raises:
        StorageError: The disk is full or read-only.
    """
    form = FORMATS[name]
    target = model_file.with_name(form.file)
    failed = ExportRecord(format=name, path=form.file, status=FAILED)
    if form.missing:
        return dataclasses.replace(failed, reason=form.missing)
    with (
        storage_errors(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{form.file}.") as folder,
    ):
        made = Path(folder) / form.file
        np.save(Path(folder) / "images.npy", images)
        found = _run(model_file, form, Path(folder), timeout)
        remove(target)
        if found.get("reason"):
            return dataclasses.replace(failed, **found)
        os.replace(made, target)
    return dataclasses.replace(failed, status=WRITTEN, bytes=_size(target), **found)


def _run(model_file: Path, form: Format, folder: Path, timeout: float) -> dict[str, Any]:
    """Run the process; return the fields of `ExportRecord` that it found, or a reason."""
    result = folder / "result.json"
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
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found
    last = done.stdout.decode(errors="replace").strip().split("\n")[-1]
    return {"reason": f"the conversion ended with exit code {done.returncode} ({last[:300]})"}


def main(argv: Sequence[str] | None = None) -> int:
    """Convert and check: model file, format, and the folder of images that gets the result."""
    model_file, name, folder = (sys.argv[1:] if argv is None else argv)[:3]
    try:
        found = _convert_here(Path(model_file), FORMATS[name], Path(folder))
    except Exception as error:
        # Converters raise anything; each means that this format cannot be had.
        lines = [line.strip() for line in str(error).split("\n") if line.strip()]
        found = {"reason": f"{type(error).__name__}: {' '.join(lines)}"[:500]}
    write_text(Path(folder) / "result.json", json.dumps(found))
    return 0


def _convert_here(model_file: Path, form: Format, folder: Path) -> dict[str, Any]:
    """Convert to `folder`; return fields of `ExportRecord`."""
    images = np.load(folder / "images.npy")
    loaded = load_model(model_file)
    target = folder / form.file
    WRITERS[form.name](loaded, target)
    try:
        again = load_model(target)
    except SearchError as error:
        return {"reason": str(error).replace(f"{folder}{os.sep}", "")}
    differences = [
        np.abs(
            predict_images(again.model, batch, batch_size=_BATCH)
            - predict_images(loaded.model, batch, batch_size=_BATCH)
        ).max()
        for batch in (images, *enlarged(images))
    ]
    largest = float(np.max(differences))
    reason = ""
    if again.metadata != loaded.metadata:
        reason = "its metadata came back changed"
    elif not largest <= TOLERANCE:
        reason = _too_different(KERAS.file, largest)
    return {
        "reason": reason,
        "runtime": form.runtime_version,
        "images": len(images) + len(RAW_SHAPES),
        "max_difference": largest,
    }


def _too_different(other: str, difference: float) -> str:
    return (
        f"differs from {other} by {difference:.2g} in probability; at most {TOLERANCE:g} is allowed"
    )


def write_saved_model(loaded: LoadedModel, target: Path) -> None:
    """Write a TensorFlow SavedModel, a folder, with the endpoint `serve`."""
    loaded.model.export(str(target), format="tf_saved_model", verbose=False)
    metadata = target / SAVED_MODEL_METADATA
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(_text(loaded.metadata), encoding="utf-8")


def write_onnx(loaded: LoadedModel, target: Path) -> None:
    """Write an ONNX file, with names for its input, its output and their dimensions."""
    import onnx

    _teach_tf2onnx_erfc()
    size = loaded.metadata.image_size
    # Keras exports to ONNX only what has been called once, which a loaded model has not.
    loaded.model.predict_on_batch(np.zeros((1, size, size, 1), "uint8"))
    loaded.model.export(str(target), format="onnx", verbose=False)
    model = onnx.load(str(target))
    _name_ports(model.graph)
    onnx.helper.set_model_props(model, {METADATA: _text(loaded.metadata)})
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def write_litert(loaded: LoadedModel, target: Path) -> None:
    """Write a LiteRT file of built-in operations only, so that any LiteRT runtime runs it."""
    import tensorflow as tf

    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    loaded.model.export(str(target), format="litert", verbose=False, target_spec=builtins)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(METADATA_FILE, _text(loaded.metadata))


WRITERS = {"saved_model": write_saved_model, "onnx": write_onnx, "litert": write_litert}


def _text(metadata: ModelMetadata) -> str:
    """Return the metadata as an export carries them, with how to feed it."""
    feed = {
        "input": f"{INPUT}: float32 (batch, height, width, 1 or 3), 0-255, the pixels of the "
        "decoded file, of any size; nothing needs to be done to them before",
        "output": f"float32 (batch, 1), the probability of {metadata.classes[1]}",
    }
    return json.dumps({**to_json(metadata), "feed": feed}, indent=2) + "\n"


def _name_ports(graph: Any) -> None:
    old = graph.output[0].name
    for node in graph.node:
        node.output[:] = [OUTPUT if name == old else name for name in node.output]
        node.input[:] = [OUTPUT if name == old else name for name in node.input]
    graph.output[0].name = OUTPUT
    names = ("batch", "height", "width", "channels")
    for port, wanted in ((graph.input[0], names), (graph.output[0], names[:1])):
        for dimension, name in zip(port.type.tensor_type.shape.dim, wanted, strict=False):
            dimension.dim_param = name


def _teach_tf2onnx_erfc() -> None:
    """Let tf2onnx 1.17 convert GELU: it knows the error function, but not its complement."""
    from tf2onnx.handler import tf_op

    class Erfc:
        """erfc(x) = 1 − erf(x)."""

        @classmethod
        def version_9(cls, context: Any, node: Any, **_: Any) -> None:
            """Replace the node; `Erf` is in ONNX from operator set 9 on."""
            shapes, dtypes = node.output_shapes, node.output_dtypes
            one = context.make_const(f"{node.name}_one", np.ones((), np.float32)).output[0]
            erf = context.make_node("Erf", [node.input[0]]).output[0]
            context.remove_node(node.name)
            context.make_node(
                "Sub", [one, erf], outputs=node.output, name=node.name, shapes=shapes, dtypes=dtypes
            )

    tf_op("Erfc")(Erfc)


def evenly_spaced(count: int, most: int = IMAGES) -> np.ndarray:
    """Return which of `count` validation images are compared: `int64` positions, at most `most`."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64))


def enlarged(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield `uint8` (1, H, W, 1 or 3), images enlarged to each of `RAW_SHAPES`, with grain."""
    rng = np.random.default_rng(0)
    size = images.shape[1]
    for number, (tall, wide, channels) in enumerate(RAW_SHAPES):
        rows = (np.arange(int(size * tall)) / tall).astype(np.int64)
        columns = (np.arange(int(size * wide)) / wide).astype(np.int64)
        large = images[number % len(images), :, :, 0][rows][:, columns].astype(np.int64)
        grain = rng.integers(-8, 9, (*large.shape, channels))
        yield np.clip(large[..., np.newaxis] + grain, 0, 255).astype(np.uint8)[np.newaxis]


def remove(path: Path) -> None:
    """Remove an export, file or folder, if it is there."""
    with storage_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    sys.exit(main())
