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
from tiny import ABOUT, SIZE, THRESHOLD, Said, exported, make_network, smooth_image

from hypermodels.augmentation import augmentation_layers
from search.data.decode import load_image
from search.errors import ModelError, StorageError
from search.records import SYNTHETIC_NOTICE
from search.run_directory import RunDirectory
from search.scoring import export
from search.scoring.export import TOLERANCE, convert, ensemble_of, export_all
from search.scoring.formats import FORMATS, ModelMetadata
from search.scoring.loading import load_model
from search.scoring.predictions import predict_images

OTHERS = [name for name in FORMATS if name != "keras"]
MODULES = {"saved_model": "tensorflow", "onnx": "onnxruntime", "litert": "ai_edge_litert"}
TEMPERATURE = 1.6


LOAD_ELSEWHERE = """
import json, sys
import numpy as np
import keras
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
answers = [float(model.predict_on_batch(images)[0, 0]) for images in np.load(sys.argv[2]).values()]
assert not any(name.startswith(("search", "hypermodels")) for name in sys.modules)
print(json.dumps([keras.backend.backend(), *answers]))
"""

SAVE_ELSEWHERE = """
import sys
from pathlib import Path
from tiny import exported, make_network
exported(make_network(), Path(sys.argv[1]))
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
    assert loaded.metadata == ModelMetadata(image_size=SIZE, threshold=THRESHOLD, **ABOUT)
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 1), dtype=np.uint8)
    wanted = network.predict_on_batch(images)
    assert np.ptp(wanted) > 0.01
    np.testing.assert_allclose(loaded.model.predict_on_batch(images), wanted, atol=1e-6)


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
        # Below twice the side, `load_image` decodes at full scale: only colour is rounded twice.
        ((60, 50), 0.002),
        # Above it, pixels were rounded one by one before they are averaged over blocks; a JPEG
        # decoded at reduced scale rounds once.
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
        decoded = load_image(file, SIZE).pixels[np.newaxis]
        trained = float(network.predict_on_batch(decoded)[0, 0])
        differences.append(abs(ask(loaded, np.asarray(Image.open(file))) - trained))
    assert max(differences) <= tolerance


def augmented(*, nested=False):
    """A network with every kind of layer that acts in training only, and answers that differ.

    With GELU, whose export is not a matter of course.
    """
    keras.utils.set_random_seed(4)
    layers = [keras.layers.RandomFlip("horizontal"), keras.layers.GaussianNoise(0.1)]
    layers += augmentation_layers(
        flip=True, rotation=5.0, crop_min_area=0.5, tone_jitter=0.2, noise=0.1, seed=1
    )
    x = inputs = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    for layer in (
        keras.layers.Rescaling(1 / 255, dtype="float32"),
        *([keras.Sequential(layers)] if nested else layers),
        keras.layers.SeparableConv2D(
            4, 3, strides=2, activation="gelu", depthwise_regularizer="l2"
        ),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(6, 3, strides=2, activation="silu"),
        keras.layers.Dropout(0.5),
        keras.layers.Flatten(),
        keras.layers.Rescaling(10),
        keras.layers.Dense(1, activation="sigmoid", kernel_initializer="random_normal"),
    ):
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_what_acts_in_training_only_is_left_out(tmp_path, nested):
    images = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 1), dtype=np.uint8)
    model = augmented(nested=nested)
    model.compile("adam", "binary_crossentropy")
    model.fit(images, np.arange(8) % 2, verbose=0)
    file = exported(model, tmp_path / "model.keras")
    loaded = load_model(file).model
    wanted = loaded.predict(images, verbose=0)
    for training in (False, None):
        found = keras.ops.convert_to_numpy(loaded(images, training=training))
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    with zipfile.ZipFile(file) as archive:
        config = archive.read("config.json").decode()
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    for word in ("hypermodels", "Random", "Noise", "Dropout", "seed", "L2", "Glorot"):
        assert word not in config, word
    stored: list[str] = []
    weights.visit(stored.append)
    assert any("separable" in name for name in stored)
    assert not any("optimizer" in name for name in stored)


@pytest.mark.parametrize(
    ("saved", "opened"),
    [
        ("tensorflow", "tensorflow"),
        ("tensorflow", "jax"),
        pytest.param("jax", "tensorflow", marks=pytest.mark.slow),
        pytest.param("jax", "jax", marks=pytest.mark.slow),
    ],
)
def test_the_file_opens_where_only_keras_is_on_the_other_backend_too(tmp_path, saved, opened):
    if "jax" in (saved, opened):
        pytest.importorskip("jax")
    file = tmp_path / "model.keras"
    if saved == "jax":
        run(SAVE_ELSEWHERE, file, backend="jax")
    else:
        exported(augmented(), file)
    own = smooth_image(np.random.default_rng(9), SIZE, SIZE)
    raw = smooth_image(np.random.default_rng(9), 300, 90, 3)
    batches = [own[None, ..., None], np.stack([own] * 3, axis=-1)[None], raw[None]]
    np.savez(tmp_path / "images.npz", *batches)
    found = run(LOAD_ELSEWHERE, file, tmp_path / "images.npz", backend=opened)
    name, gray, colour, large = json.loads(found)
    here = load_model(file)
    assert name == opened
    assert [gray, colour] == pytest.approx([ask(here, own)] * 2, abs=1e-5)
    if saved == "jax":
        # One gray level in a few pixels may round to the other side, which this network forgives.
        assert large == pytest.approx(ask(here, raw), abs=1e-3)


def test_mixed_precision_is_exported_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_network()
    finally:
        keras.config.set_dtype_policy("float32")
    copy = export.inference_copy(model)
    assert {layer.compute_dtype for layer in copy.layers} <= {"float32", "uint8"}


@keras.saving.register_keras_serializable(package="elsewhere")
class Halve(keras.layers.Layer):
    def call(self, inputs):
        return inputs / 2


@pytest.mark.parametrize("more", [[], [Halve()]], ids=["Sequential", "a layer of another package"])
def test_other_networks_can_be_exported(tmp_path, more):
    layers = [*more, keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")]
    network = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    file = exported(network, tmp_path / "m.keras", size=8)
    assert load_model(file).metadata.image_size == 8


def test_a_file_that_differs_from_the_network_is_not_written(tmp_path, monkeypatch):
    other = make_network(seed=99)
    monkeypatch.setattr(export, "inference_copy", lambda network: other)
    with pytest.raises(ModelError, match="differs from the network"):
        exported(make_network(), tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_is_kept_when_the_new_one_cannot_be_written(tmp_path, network, monkeypatch):
    file = tmp_path / "model.keras"
    file.write_text("earlier")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(StorageError, match="no space left"):
        exported(network, file)
    assert file.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [file]


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


def rewritten(model_file, target, old, new):
    with zipfile.ZipFile(model_file) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, data.replace(old.encode(), new.encode()))
    return target


def test_weights_of_gigabytes_are_refused_before_they_are_made(model_file, tmp_path):
    greedy = ('"units": 1,', '"units": 2000000000,')
    with pytest.raises(ModelError, match=r"need [\d,]+ MB of weights and the file holds 0"):
        load_model(rewritten(model_file, tmp_path / "m.keras", *greedy))


def test_code_hidden_in_a_model_is_not_run(model_file, tmp_path):
    # The class name stays, so that the file looks like ours until Keras builds it.
    layer = '"module": "keras.layers", "class_name": "Flatten"'
    evil = (layer, '"module": "os", "class_name": "system"')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(rewritten(model_file, tmp_path / "m.keras", *evil))


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_a_model_that_differs_on_validation_images_is_kept_and_counts_as_failed(
    tmp_path, network, subset, monkeypatch, shift
):
    honest = export.scaled
    monkeypatch.setattr(
        export, "scaled", lambda p, t: honest(p, t) + shift * (len(p) == len(subset))
    )
    said = Said()
    # Of an earlier network.
    (tmp_path / "model.saved_model" / "variables").mkdir(parents=True)
    (tmp_path / "model.onnx").touch()
    metadata = ModelMetadata(image_size=SIZE, threshold=THRESHOLD)
    (row,) = export_all(
        network, RunDirectory(tmp_path), formats=(), metadata=metadata, temperature=1.0,
        val=subset, reporter=said,
    )  # fmt: skip
    assert {path.name for path in tmp_path.glob("model.*")} == {"model.keras"}
    (stored,) = json.loads((tmp_path / "exports.json").read_text())
    assert row.status == stored["status"] == ("failed" if shift else "written")
    if shift:
        assert said.infos == []
        assert "model.keras differs from the network by 0.25" in said.warnings[0]
        assert "It is kept" in said.warnings[0]
    else:
        assert said.warnings == []
        assert "gives the same probabilities" in said.infos[0]


def test_an_ensemble_gives_the_mean_probability_in_one_file(tmp_path, images):
    members = [make_network(seed) for seed in (0, 1, 2)]
    whole = ensemble_of(members)
    single = [predict_images(member, images) for member in members]
    np.testing.assert_allclose(predict_images(whole, images), np.mean(single, axis=0), atol=1e-6)
    assert whole.count_params() == sum(member.count_params() for member in members)
    path = exported(whole, tmp_path / "model.keras")
    found = predict_images(load_model(path).model, images)
    np.testing.assert_allclose(found, np.mean(single, axis=0), atol=1e-5)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(2)
    return np.stack([smooth_image(rng, SIZE, SIZE) for _ in range(9)])[..., np.newaxis]


@pytest.fixture(scope="module")
def calibrated_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("calibrated") / "model.keras"
    about = {"run": "tiny", "notice": SYNTHETIC_NOTICE, "temperature": TEMPERATURE}
    return exported(augmented(), file, **about)


def probabilities(model_file, images):
    return predict_images(load_model(model_file).model, images)


@pytest.fixture(scope="module", params=OTHERS)
def converted(request, calibrated_file, images):
    pytest.importorskip(MODULES[request.param])
    if FORMATS[request.param].missing:
        pytest.skip(FORMATS[request.param].missing)
    return convert(calibrated_file, request.param, images=images)


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
    if FORMATS["onnx"].missing:
        pytest.skip(FORMATS["onnx"].missing)
    (tmp_path / "broken.py").write_text(module)
    monkeypatch.setattr(export, "__name__", "broken")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    copy = tmp_path / "model.keras"
    copy.write_bytes(model_file.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"of an earlier network")
    row = convert(copy, "onnx", images=images, timeout=3)
    assert row.status == "failed"
    assert said in row.reason
    assert {path.name for path in tmp_path.iterdir()} == {"broken.py", "model.keras"}


@pytest.mark.slow
def test_an_export_gives_the_same_probabilities_and_carries_its_metadata(
    converted, calibrated_file, images, tmp_path
):
    assert converted.reason == ""
    assert converted.status == "written"
    assert converted.max_difference <= TOLERANCE
    assert converted.images == len(images) + 3
    assert FORMATS[converted.format].runtime in converted.runtime
    original = load_model(calibrated_file)
    again = load_model(calibrated_file.with_name(converted.path))
    assert again.metadata == original.metadata
    # Asked here, in another process than the one that compared them.
    said = predict_images(again.model, images)
    assert np.ptp(said) > 0.01
    np.testing.assert_allclose(said, probabilities(calibrated_file, images), atol=TOLERANCE)
    leftovers = [path for path in calibrated_file.parent.iterdir() if path.name.startswith(".")]
    assert leftovers == []
    # It takes the raw film too, of any size, gray or colour.
    for shape in [(40, 33), (300, 410), (200, 260, 3)]:
        film = smooth_image(np.random.default_rng(7), *shape)
        Image.fromarray(film).save(tmp_path / "film.png")
        raw = film[np.newaxis] if film.ndim == 3 else film[np.newaxis, ..., np.newaxis]
        decoded = load_image(tmp_path / "film.png", SIZE).pixels[np.newaxis]
        wanted = predict_images(original.model, decoded)
        np.testing.assert_allclose(predict_images(again.model, raw), wanted, atol=TOLERANCE)


# Not a SavedModel: TensorFlow brings Keras along.
@pytest.mark.slow
@pytest.mark.parametrize("converted", ["onnx", "litert"], indirect=True)
def test_an_export_answers_without_keras(converted, calibrated_file, tmp_path):
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
    wanted = load_image(tmp_path / "film.png", SIZE).pixels[np.newaxis]
    expected = float(probabilities(calibrated_file, wanted)[0])
    assert row["probability"] == pytest.approx(expected, abs=TOLERANCE)


def test_a_conversion_that_differs_is_reported(tmp_path, images, model_file, monkeypatch):
    def other_network(loaded, target):
        weights = loaded.model.get_weights()
        loaded.model.set_weights([weight * 1.05 for weight in weights])
        export.write_saved_model(loaded, target)
        loaded.model.set_weights(weights)

    monkeypatch.setitem(export.WRITERS, "saved_model", other_network)
    np.save(tmp_path / "images.npy", images)
    assert export.main([str(model_file), "saved_model", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert "differs from model.keras by" in found["reason"]
    assert found["max_difference"] > TOLERANCE
