"""Conversions, each in its process; the slow ones write real files and ask their own runtimes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from search.scoring.conversion import TOLERANCE, convert, evenly_spaced, raw_images, remove
from tiny import SIZE, THRESHOLD, make_network, smooth_image

from search.data.decode import load_gray
from search.records import SYNTHETIC_NOTICE
from search.scoring import conversion
from search.scoring.export import export_model, keras_export, load_model
from search.scoring.formats import FORMATS, ExportStatus

OTHERS = [name for name in FORMATS if name != "keras"]
MODULES = {"saved_model": "tensorflow", "onnx": "onnxruntime", "litert": "ai_edge_litert"}
TEMPERATURE = 1.6

OTHER_NETWORK = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import search.scoring.writers as writers

def write(loaded, target, write=writers.write_saved_model):
    for weight in loaded.model.weights:
        weight.assign(weight * 1.01)
    write(loaded, target)
    for weight in loaded.model.weights:
        weight.assign(weight / 1.01)

writers.WRITERS["saved_model"] = write
"""


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(2)
    return np.stack([smooth_image(rng, SIZE, SIZE) for _ in range(9)])[..., np.newaxis]


@pytest.fixture(scope="module")
def calibrated_file(tmp_path_factory):
    """With GELU, whose conversion is not a matter of course, and a temperature."""
    import keras

    keras.utils.set_random_seed(4)
    inputs = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.SeparableConv2D(4, 3, strides=2, activation="gelu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="silu")(x)
    outputs = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="random_normal")(
        keras.layers.Rescaling(100)(keras.layers.Flatten()(x))
    )
    return export_model(
        keras.Model(inputs, outputs),
        tmp_path_factory.mktemp("calibrated") / "model.keras",
        image_size=SIZE,
        threshold=THRESHOLD,
        metadata={"run": "tiny", "notice": SYNTHETIC_NOTICE},
        temperature=TEMPERATURE,
    )


def probabilities(model_file, images):
    return conversion.answers(load_model(model_file).model, images)


@pytest.fixture(scope="module", params=OTHERS)
def converted(request, calibrated_file, images):
    pytest.importorskip(MODULES[request.param])
    if FORMATS[request.param].missing:
        pytest.skip(f"needs {FORMATS[request.param].missing}")
    said = probabilities(calibrated_file, images)
    return convert(calibrated_file, request.param, images=images, probabilities=said)


def test_at_most_so_many_images_are_compared_from_all_over_the_split():
    assert evenly_spaced(3).tolist() == [0, 1, 2]
    many = evenly_spaced(1047, 256)
    assert len(many) == 256
    assert (many[0], many[-1]) == (0, 1046)
    assert np.diff(many).max() <= 5
    assert evenly_spaced(0).tolist() == []


def test_raw_images_are_larger_than_the_networks_input_and_in_both_modes(images):
    shapes = [batch.shape for batch in raw_images(images)]
    assert all(height > SIZE and width > SIZE for _, height, width, _ in shapes)
    assert {channels for *_, channels in shapes} == {1, 3}


def test_model_keras_is_a_row_like_the_others(calibrated_file, images):
    said = probabilities(calibrated_file, images)
    row = keras_export(calibrated_file, images=images, probabilities=said + TOLERANCE / 2)
    assert (row.status, row.path, row.reason) == (ExportStatus.WRITTEN, "model.keras", "")
    assert row.max_difference == pytest.approx(TOLERANCE / 2, abs=1e-6)
    assert row.bytes == calibrated_file.stat().st_size


@pytest.mark.parametrize("shift", [0.25, np.nan])
def test_model_keras_fails_where_it_differs_from_the_network_and_is_kept(
    calibrated_file, images, shift
):
    said = probabilities(calibrated_file, images)
    row = keras_export(calibrated_file, images=images, probabilities=said + shift)
    assert (row.status, row.path) == (ExportStatus.FAILED, "model.keras")
    assert "differs from the network by" in row.reason
    assert row.max_difference == (None if np.isnan(shift) else pytest.approx(0.25, abs=1e-6))
    assert row.bytes == calibrated_file.stat().st_size


def test_a_missing_package_costs_no_process(monkeypatch, calibrated_file, images):
    monkeypatch.setattr(conversion, "_run", None)
    lacking = {**FORMATS, "onnx": FORMATS["onnx"].__class__(
        name="onnx", file="model.onnx", modules=("no_such_chisel",), extra="onnx", runtime="x"
    )}  # fmt: skip
    monkeypatch.setattr(conversion, "FORMATS", lacking)
    row = convert(calibrated_file, "onnx", images=images, probabilities=np.zeros(len(images)))
    assert row.status is ExportStatus.FAILED
    assert "no_such_chisel" in row.reason


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
        ("print('no room'); raise SystemExit(3)", "exit code 3 (no room)"),
        ("import time; time.sleep(60)", "took longer than 3 s"),
    ],
    ids=["crash", "exit", "hang"],
)
def test_a_converter_that_crashes_or_hangs_fails_and_takes_the_old_file_with_it(
    monkeypatch, tmp_path, model_file, images, module, said
):
    (tmp_path / "broken.py").write_text(module)
    monkeypatch.setattr(conversion, "__name__", "broken")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    copy = tmp_path / "model.keras"
    copy.write_bytes(model_file.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"of an earlier network")
    row = convert(copy, "onnx", images=images, probabilities=np.zeros(len(images)), timeout=3)
    if FORMATS["onnx"].missing:
        pytest.skip("told before")
    assert row.status is ExportStatus.FAILED
    assert said in row.reason
    assert {path.name for path in tmp_path.iterdir()} == {"broken.py", "model.keras"}


def test_files_and_folders_are_removed_and_what_is_not_there_is_no_matter(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    for name in ("folder", "file", "nothing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_conversion_gives_the_same_probabilities_and_carries_its_papers(
    converted, calibrated_file, images
):
    assert converted.reason == ""
    assert converted.status is ExportStatus.WRITTEN
    assert converted.max_difference <= TOLERANCE
    assert converted.max_difference_from_run <= TOLERANCE
    assert converted.images == len(images) + 3
    assert FORMATS[converted.format].runtime in converted.runtime
    original = load_model(calibrated_file)
    again = load_model(calibrated_file.with_name(converted.path))
    assert (again.threshold, again.image_size, again.class_names, again.metadata) == (
        original.threshold, original.image_size, original.class_names, original.metadata
    )  # fmt: skip
    # Asked here, in another process than the one that compared them.
    said = conversion.answers(again.model, images)
    assert np.ptp(said) > 0.01
    np.testing.assert_allclose(said, probabilities(calibrated_file, images), atol=TOLERANCE)
    leftovers = [path for path in calibrated_file.parent.iterdir() if path.name.startswith(".")]
    assert leftovers == []


@pytest.mark.slow
def test_a_conversion_takes_the_raw_film_of_any_size_gray_or_colour(
    converted, calibrated_file, tmp_path
):
    again = load_model(calibrated_file.with_name(converted.path))
    original = load_model(calibrated_file)
    for shape in [(40, 33), (300, 410), (200, 260, 3)]:
        film = smooth_image(np.random.default_rng(7), *shape)
        Image.fromarray(film).save(tmp_path / "film.png")
        raw = film[np.newaxis] if film.ndim == 3 else film[np.newaxis, ..., np.newaxis]
        decoded = load_gray(tmp_path / "film.png", SIZE)[np.newaxis, ..., np.newaxis]
        wanted = conversion.answers(original.model, decoded)
        np.testing.assert_allclose(conversion.answers(again.model, raw), wanted, atol=TOLERANCE)


@pytest.mark.slow
def test_a_conversion_answers_without_keras(converted, calibrated_file, tmp_path):
    if converted.format == "saved_model":
        pytest.skip("TensorFlow brings Keras along")
    Image.fromarray(smooth_image(np.random.default_rng(8), 90, 80)).save(tmp_path / "film.png")
    script = (
        "import sys\nfrom search.predict import main\ncode = main(sys.argv[1:])\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\nsys.exit(code)"
    )
    model = calibrated_file.with_name(converted.path)
    done = subprocess.run(
        [sys.executable, "-c", script, str(model), str(tmp_path / "film.png"), "--json"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    wanted = load_gray(tmp_path / "film.png", SIZE)[np.newaxis, ..., np.newaxis]
    expected = float(probabilities(calibrated_file, wanted)[0])
    assert row["probability"] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.slow
def test_a_conversion_that_differs_is_reported_and_not_kept(tmp_path, images, monkeypatch):
    # Python runs this first in the converter's process: it then writes another network.
    (tmp_path / "sitecustomize.py").write_text(OTHER_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "run"
    file = export_model(
        make_network(), folder / "model.keras", image_size=SIZE, threshold=THRESHOLD, metadata={}
    )
    said = probabilities(file, images)
    row = convert(file, "saved_model", images=images, probabilities=said)
    assert row.status is ExportStatus.FAILED
    assert "differs from model.keras by" in row.reason
    assert row.max_difference > TOLERANCE
    assert [path.name for path in folder.iterdir()] == ["model.keras"]
