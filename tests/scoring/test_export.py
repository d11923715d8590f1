import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from PIL import Image
from tiny import SIZE, THRESHOLD, make_network, smooth_image

from search.data.decode import load_gray
from search.errors import ModelError, StorageError
from search.records import SYNTHETIC_NOTICE
from search.run_directory import RunDirectory
from search.scoring import exporting
from search.scoring.export import export_model, load_model

LOAD_ELSEWHERE = """
import json, sys
import numpy as np
import keras, search.scoring.preprocessing
assert not any(name.startswith("hypermodels") for name in sys.modules)
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
answers = [float(model.predict_on_batch(images)[0, 0]) for images in np.load(sys.argv[2]).values()]
print(json.dumps([keras.backend.backend(), *answers]))
"""

SAVE_ELSEWHERE = """
import sys
from pathlib import Path
from tiny import SIZE, THRESHOLD, make_network
from search.scoring.export import export_model
export_model(make_network(), Path(sys.argv[1]), image_size=SIZE, threshold=THRESHOLD, metadata={})
"""


def run(script, *arguments, backend):
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": f"{here.parent.parent}{os.pathsep}{here}",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("\n")[-1]


def ask(loaded, pixels):
    batch = pixels[np.newaxis] if pixels.ndim == 3 else pixels[np.newaxis, ..., np.newaxis]
    return float(loaded.model.predict_on_batch(batch)[0, 0])


def test_the_file_gives_the_networks_probabilities_for_its_own_input(network, loaded):
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 1), dtype=np.uint8)
    wanted = network.predict_on_batch(images)
    assert np.ptp(wanted) > 0.01
    np.testing.assert_allclose(loaded.model.predict_on_batch(images), wanted, atol=1e-6)


def test_threshold_size_classes_and_papers_survive(loaded, model_file):
    assert loaded.threshold == THRESHOLD
    assert loaded.image_size == SIZE
    assert loaded.class_names == ("NORMAL", "PNEUMONIA")
    assert loaded.metadata == {"run": "tiny", "notice": SYNTHETIC_NOTICE}
    assert loaded.notice == SYNTHETIC_NOTICE
    assert loaded.path == model_file


@pytest.mark.parametrize("shape", [(32, 32), (64, 50), (200, 300), (20, 24), (500, 90)], ids=str)
def test_any_size_gray_or_colour_integer_or_float_gives_one_answer(loaded, shape):
    pixels = smooth_image(np.random.default_rng(1), *shape)
    answers = {
        ask(loaded, image.astype(dtype))
        for image in (pixels, np.stack([pixels] * 3, axis=-1))
        for dtype in ("uint8", "float32")
    }
    assert max(answers) - min(answers) < 1e-6


@pytest.mark.parametrize("colour", [False, True], ids=["gray", "colour"])
@pytest.mark.parametrize(
    ("shape", "tolerance"),
    [
        # Below twice the side, `load_gray` decodes at full scale: only colour is rounded twice.
        ((60, 50), 0.002),
        # Above it, pixels were rounded one by one before they are averaged over blocks; a JPEG
        # decoded at reduced scale rounds once. Original films: `tests/benchmarks/parity.py`.
        ((150, 210), 0.005),
        ((900, 1200), 0.005),
    ],
    ids=["under twice the side", "decoded at one quarter", "decoded at one eighth"],
)  # fmt: skip
def test_the_raw_file_and_the_training_pipeline_agree(
    network, loaded, tmp_path, shape, tolerance, colour
):
    differences = []
    for seed in range(4):
        pixels = smooth_image(np.random.default_rng(seed), *shape, 3 if colour else None)
        file = tmp_path / f"{seed}.jpeg"
        Image.fromarray(pixels).save(file, quality=90)
        decoded = load_gray(file, SIZE)[np.newaxis, ..., np.newaxis]
        trained = float(network.predict_on_batch(decoded)[0, 0])
        differences.append(abs(ask(loaded, np.asarray(Image.open(file))) - trained))
    assert max(differences) <= tolerance


def test_augmentation_and_optimizer_are_left_out(tmp_path):
    hypermodels = pytest.importorskip("hypermodels.augmentation")
    inputs = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(inputs)
    for layer in hypermodels.augmentation_layers(
        flip=True, rotation=5.0, crop_min_area=0.5, tone_jitter=0.2, noise=0.1, seed=1
    ):
        x = layer(x)
    x = keras.layers.Concatenate()([x] * 3)
    x = keras.layers.BatchNormalization()(keras.layers.SeparableConv2D(4, 3)(x))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile("adam", "binary_crossentropy")
    images = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 1), dtype=np.uint8)
    model.fit(images, np.arange(8) % 2, verbose=0)

    file = export_model(
        model, tmp_path / "model.keras", image_size=SIZE, threshold=THRESHOLD, metadata={}
    )
    np.savez(tmp_path / "images.npz", images)
    alone = json.loads(run(LOAD_ELSEWHERE, file, tmp_path / "images.npz", backend="tensorflow"))
    assert alone[1] == pytest.approx(float(model.predict_on_batch(images)[0, 0]), abs=1e-5)
    with zipfile.ZipFile(file) as archive:
        assert "hypermodels" not in archive.read("config.json").decode()
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    stored: list[str] = []
    weights.visit(stored.append)
    assert any("separable" in name for name in stored)
    assert not any("optimizer" in name for name in stored)


def test_a_sequential_network_can_be_exported(tmp_path):
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")]
    )
    file = export_model(
        network, tmp_path / "m.keras", image_size=8, threshold=THRESHOLD, metadata={}
    )
    assert load_model(file).notice == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("saved", "opened"), [("tensorflow", "jax"), ("jax", "tensorflow"), ("jax", "jax")]
)
def test_a_model_of_one_backend_opens_on_the_other(saved, opened, tmp_path, loaded):
    pytest.importorskip("jax")
    file = loaded.path
    if saved == "jax":
        file = tmp_path / "model.keras"
        run(SAVE_ELSEWHERE, file, backend="jax")
    here = load_model(file)
    rng = np.random.default_rng(9)
    shapes = [(SIZE, SIZE), (100, 140), (300, 90, 3)]
    images = [smooth_image(rng, *shape) for shape in shapes]
    batches = [i[np.newaxis] if i.ndim == 3 else i[np.newaxis, ..., np.newaxis] for i in images]
    np.savez(tmp_path / "images.npz", *batches)
    backend, *answers = json.loads(
        run(LOAD_ELSEWHERE, file, tmp_path / "images.npz", backend=opened)
    )
    assert backend == opened
    # One gray level in a few pixels may round to the other side.
    assert answers == pytest.approx([ask(here, image) for image in images], abs=1e-3)


def test_a_file_that_differs_from_the_network_is_not_written(tmp_path, monkeypatch):
    other = make_network(seed=99)
    monkeypatch.setattr("search.scoring.export.for_inference", lambda network: other)
    with pytest.raises(ModelError, match="differs from the network"):
        export_model(
            make_network(), tmp_path / "m.keras", image_size=SIZE, threshold=THRESHOLD, metadata={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_would_be_lost_is_noticed(tmp_path):
    @keras.saving.register_keras_serializable(package="elsewhere")
    class Halve(keras.layers.Layer):
        def call(self, inputs):
            return inputs / 2

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(Halve()(keras.layers.Rescaling(1 / 255)(inputs)))
    network = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(x))
    with pytest.raises(ModelError, match="differs from the network"):
        export_model(network, tmp_path / "m.keras", image_size=8, threshold=THRESHOLD, metadata={})


def test_an_earlier_file_is_kept_when_the_new_one_cannot_be_written(tmp_path, network, monkeypatch):
    file = tmp_path / "model.keras"
    file.write_text("earlier")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(StorageError, match="no space left"):
        export_model(network, file, image_size=SIZE, threshold=THRESHOLD, metadata={})
    assert file.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.keras: no such file"):
        load_model(tmp_path / "nothing.keras")


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="a folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_file_is_refused(model_file, tmp_path, damage):
    content = bytearray(model_file.read_bytes())
    if damage == "flipped":
        with zipfile.ZipFile(model_file) as archive:
            inside = archive.getinfo("model.weights.h5")
        content[inside.header_offset + 200 + len(inside.filename)] ^= 0xFF
    damaged = {
        "cut": content[: len(content) // 2], "flipped": content, "text": b"hello", "empty": b""
    }[damage]  # fmt: skip
    (tmp_path / "model.keras").write_bytes(damaged)
    with pytest.raises(ModelError, match="damaged"):
        load_model(tmp_path / "model.keras")


def test_another_keras_model_is_refused(network, tmp_path):
    network.save(tmp_path / "plain.keras")
    with pytest.raises(ModelError, match="not a model exported by this program"):
        load_model(tmp_path / "plain.keras")


def test_another_zip_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match="not a model exported by this program"):
        load_model(tmp_path / "other.keras")


def rewritten(model_file, target, change):
    with zipfile.ZipFile(model_file) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, change(data.decode()) if name == "config.json" else data)
    return target


def test_a_newer_format_says_so(model_file, tmp_path):
    newer = rewritten(
        model_file,
        tmp_path / "m.keras",
        lambda text: text.replace('"format_version": 1', '"format_version": 2'),
    )
    with pytest.raises(ModelError, match=r"newer.*saved with Keras 3"):
        load_model(newer)


def test_code_hidden_in_a_model_is_not_run(model_file, tmp_path):
    # The class name stays, so that the file looks like ours until Keras builds it.
    evil = rewritten(
        model_file,
        tmp_path / "m.keras",
        lambda text: text.replace('"module": "keras.layers", "class_name": "Flatten"',
                                  '"module": "os", "class_name": "system"'),
    )  # fmt: skip
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(evil)


class Said:
    """Keeps what a console is told."""

    def __init__(self):
        self.infos, self.warnings = [], []
        self.info, self.warn = self.infos.append, self.warnings.append


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_a_model_that_differs_on_validation_films_is_kept_with_a_warning_and_counts_as_failed(
    tmp_path, network, subset, monkeypatch, shift
):
    honest = exporting.answers
    monkeypatch.setattr(exporting, "answers", lambda *asked: honest(*asked) + shift)
    said = Said()
    rows = exporting.export_all(
        network,
        RunDirectory(tmp_path),
        formats=(),
        image_size=SIZE,
        threshold=THRESHOLD,
        temperature=1.0,
        metadata={},
        val=subset,
        console=said,
    )
    assert (tmp_path / "model.keras").is_file()
    (stored,) = json.loads((tmp_path / "exports.json").read_text())
    assert [row.status for row in rows] == [stored["status"]] == ["failed" if shift else "written"]
    if shift:
        assert said.infos == []
        assert "model.keras differs from the network by 0.25" in said.warnings[0]
        assert "It is kept" in said.warnings[0]
    else:
        assert said.warnings == []
        assert "gives the same probabilities" in said.infos[0]
