"""Writes an exported Keras model in the other formats, papers inside; runs on TensorFlow only.

Keras' own `export` does the conversions. Sizes of images and batches stay open in all of them:
pixels are float32 (batch, height, width, 1 or 3), the answer float32 (batch, 1). Meant for a
process of its own, see `conversion`: a converter that crashes takes its process with it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from search.scoring.formats import PAPERS, PAPERS_VERSION, LoadedModel
from search.scoring.loading import LITERT_PAPERS, SAVED_MODEL_PAPERS

INPUT = "image"
OUTPUT = "probability"
DIMENSIONS = ("batch", "height", "width", "channels")

PREPROCESSING = (
    "none is needed: give the pixels of the decoded file, gray or RGB, 0-255, in float32 and of "
    "any size. Inside, RGB becomes ITU-R 601 luma; where both sides are at least 2, 4 or 8 times "
    "image_size, blocks of that side are averaged; then an antialiased bilinear resize to "
    "image_size x image_size"
)


def papers_of(loaded: LoadedModel) -> dict[str, Any]:
    """Return what every export carries: how to feed it, and what its answer means."""
    threshold = loaded.threshold
    return {
        "version": PAPERS_VERSION,
        "input": f"{INPUT}: float32 (batch, height, width, 1 or 3), 0-255",
        "output": f"float32 (batch, 1), the probability of {loaded.class_names[1]}",
        "preprocessing": PREPROCESSING,
        "image_size": loaded.image_size,
        "class_names": list(loaded.class_names),
        "threshold": {
            "value": threshold.value,
            "rule": threshold.rule,
            "chosen_on": threshold.chosen_on,
            "reached": threshold.reached,
        },
        "metadata": loaded.metadata,
    }


def write_saved_model(loaded: LoadedModel, target: Path) -> None:
    """Write a TensorFlow SavedModel, a folder, with the endpoint `serve`."""
    loaded.model.export(str(target), format="tf_saved_model", verbose=False)
    papers = target / SAVED_MODEL_PAPERS
    papers.parent.mkdir(exist_ok=True)
    papers.write_text(_text(loaded), encoding="utf-8")


def write_onnx(loaded: LoadedModel, target: Path) -> None:
    """Write an ONNX file."""
    import onnx

    _teach_tf2onnx_erfc()
    # Keras exports to ONNX only what has been called once, which a loaded model has not.
    loaded.model.predict_on_batch(np.zeros((1, loaded.image_size, loaded.image_size, 1), "uint8"))
    loaded.model.export(str(target), format="onnx", verbose=False)
    model = onnx.load(str(target))
    _name_ports(model.graph)
    onnx.helper.set_model_props(model, {PAPERS: _text(loaded)})
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def write_litert(loaded: LoadedModel, target: Path) -> None:
    """Write a LiteRT file of built-in operations only, so that any LiteRT runtime runs it."""
    import tensorflow as tf

    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    loaded.model.export(str(target), format="litert", verbose=False, target_spec=builtins)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(LITERT_PAPERS, _text(loaded))


WRITERS = {"saved_model": write_saved_model, "onnx": write_onnx, "litert": write_litert}


def _text(loaded: LoadedModel) -> str:
    return json.dumps(papers_of(loaded), indent=2) + "\n"


def _name_ports(graph: Any) -> None:
    """Give input and output the names that the papers use, and their dimensions readable ones."""
    old = graph.output[0].name
    for node in graph.node:
        node.output[:] = [OUTPUT if name == old else name for name in node.output]
        node.input[:] = [OUTPUT if name == old else name for name in node.input]
    graph.output[0].name = OUTPUT
    for port, names in ((graph.input[0], DIMENSIONS), (graph.output[0], DIMENSIONS[:1])):
        for dimension, name in zip(port.type.tensor_type.shape.dim, names, strict=False):
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
