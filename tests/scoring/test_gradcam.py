"""Grad-CAM finds what a network looks at."""

import subprocess
import sys

import keras
import keras_tuner as kt
import numpy as np
import pytest
from tiny import exported, make_predictions

from hypermodels import DocumentedCNN
from search.errors import ModelError
from search.scoring.export import ensemble_of
from search.scoring.gradcam import (
    FEWEST_PLACES,
    PER_GROUP,
    chosen_images,
    explain_images,
    gradcam,
    networks,
)
from search.scoring.loading import load_model

SIZE = 32


def network_of(*layers):
    """Scaled images, the layers, one probability."""
    x = inputs = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    for layer in (keras.layers.Rescaling(1 / 255), *layers):
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


def bright_spot_network(weight=8.0, bias=-2.0):
    """Calls PNEUMONIA where there is a bright spot: a convolution that passes light on."""
    model = network_of(
        keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="last"),
        keras.layers.AveragePooling2D(4),
        keras.layers.GlobalMaxPooling2D(),
    )
    kernel = np.zeros((3, 3, 1, 2), np.float32)
    kernel[1, 1, 0] = (1.0, -1.0)  # the second map is dark everywhere
    model.get_layer("last").set_weights([kernel, np.zeros(2, np.float32)])
    model.layers[-1].set_weights(
        [np.array([[weight], [0.0]], np.float32), np.array([bias], np.float32)]
    )
    return model


def spotted(row, column):
    image = np.zeros((SIZE, SIZE, 1), np.uint8)
    image[row : row + 4, column : column + 4] = 255
    return image


def test_heat_lies_on_the_spot_the_decision_rests_on():
    images = np.stack([spotted(4, 4), spotted(20, 24)])
    heat = gradcam(bright_spot_network(), images, called=[True, True])
    assert heat.shape == (2, SIZE, SIZE)
    assert heat.dtype == np.float32
    for found, (row, column) in zip(heat, ((4, 4), (20, 24)), strict=True):
        top = np.unravel_index(found.argmax(), found.shape)
        assert row - 1 <= top[0] <= row + 4
        assert column - 1 <= top[1] <= column + 4
        assert found.max() > 0.95
        assert found[-1, 0] < 0.05


def test_nothing_bright_speaks_for_normal():
    heat = gradcam(bright_spot_network(), np.stack([spotted(4, 4)]), called=[False])
    assert heat.max() == 0


def test_a_saturated_sigmoid_still_has_a_heatmap():
    network = bright_spot_network(weight=200.0, bias=50.0)
    image = np.stack([spotted(8, 8)])
    assert float(np.asarray(network.predict_on_batch(image))[0, 0]) == 1.0
    assert gradcam(network, image, called=[True]).max() > 0.95


@pytest.mark.parametrize("head", ["flatten", "global_average"])
def test_the_documented_network_is_explained(head):
    hp = kt.HyperParameters()
    for name, value in {"base_filters": 8, "head": head, "crop_min_area": 0.36}.items():
        hp.Fixed(name, value)
    network = DocumentedCNN(image_size=SIZE).build(hp)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), dtype=np.uint8)
    heat = gradcam(network, images, called=[True, False, True])
    assert heat.shape == (3, SIZE, SIZE)
    assert np.isfinite(heat).all()


def test_images_come_with_their_names_and_decisions():
    images = np.stack([spotted(4, 4), spotted(4, 4) // 255, spotted(16, 16)])
    network = bright_spot_network()
    said = np.asarray(network.predict_on_batch(images)).reshape(-1).astype(float)
    found = explain_images(network, make_predictions([1, 1, 0], said), images, threshold=0.5)
    assert [m.path for m in found] == ["test/0.jpeg", "test/1.jpeg", "test/2.jpeg"]
    assert [(m.label, m.called) for m in found] == [(1, 1), (1, 0), (0, 1)]
    assert found[0].image.shape == found[0].heat.shape == (SIZE, SIZE)


def test_an_exported_model_and_an_ensemble_are_explained_by_the_networks_inside(tmp_path):
    images = np.stack([spotted(4, 4)])
    said = make_predictions([1], [0.9])
    single = explain_images(bright_spot_network(), said, images, threshold=0.5)
    both = ensemble_of([bright_spot_network(), bright_spot_network(weight=6.0)])
    assert len(networks(both)) == 2
    path = exported(both, tmp_path / "model.keras", temperature=2.0)
    model = load_model(path).model
    assert len(networks(model)) == 2
    found = explain_images(model, said, images, threshold=0.5)
    np.testing.assert_allclose(found[0].heat, single[0].heat, atol=1e-5)


def test_of_a_small_image_an_earlier_convolution_tells_more_places_apart():
    network = network_of(
        keras.layers.Conv2D(2, 3, strides=8, activation="relu", name="fine"),
        keras.layers.Conv2D(2, 3, activation="relu", name="coarse"),
        keras.layers.GlobalAveragePooling2D(),
    )
    assert network.get_layer("fine").output.shape[1] == FEWEST_PLACES
    network.set_weights([np.ones(w.shape, np.float32) for w in network.weights])
    heat = gradcam(network, np.stack([spotted(0, 0)]), called=[True])[0]
    # The coarse one sees 2 × 2 places, all with the same slope: it could not tell a corner.
    assert heat[2, 2] > 0.9
    assert heat[-3, -3] < heat[2, 2]


def test_normalized_maps_tell_places_apart_that_raw_ones_do_not():
    convolution = keras.layers.Conv2D(1, 3, padding="same", name="last")
    network = network_of(convolution, keras.layers.BatchNormalization(), keras.layers.Flatten())
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1.0
    # Bright everywhere, the spot a little more so: 10, and 11.
    convolution.set_weights([kernel, np.full(1, 10, np.float32)])
    one = np.ones(1, np.float32)
    network.layers[3].set_weights([one, 0 * one, 10.1 * one, one])
    network.layers[-1].set_weights([np.ones((SIZE * SIZE, 1), np.float32), 0 * one])
    found, dark = gradcam(network, np.stack([spotted(8, 8)] * 2), called=[True, False])
    assert found[9, 9] > 0.95
    assert found[20, 20] == 0
    assert dark[9, 9] == 0
    assert dark[20, 20] > 0.95


def test_a_network_without_convolution_is_refused():
    with pytest.raises(ModelError, match="needs a convolution"):
        gradcam(network_of(keras.layers.Flatten()), np.stack([spotted(4, 4)]), called=[True])


def test_the_most_confident_misses_and_evenly_spread_hits_are_shown():
    said = np.concatenate([np.linspace(0.0, 0.4, 10), np.linspace(0.6, 1.0, 10)])
    labels = np.array([1] * 6 + [0] * 4 + [0] * 6 + [1] * 4)
    chosen = chosen_images(make_predictions(labels, said), threshold=0.5)
    missed, alarms = chosen[:PER_GROUP], chosen[PER_GROUP : 2 * PER_GROUP]
    assert missed.tolist() == [0, 1, 2, 3]
    assert alarms.tolist() == [15, 14, 13, 12]
    assert len(set(chosen.tolist())) == len(chosen) == 4 * PER_GROUP
    assert chosen[2 * PER_GROUP :].tolist() == [16, 17, 18, 19, 6, 7, 8, 9]


def test_a_group_without_images_is_left_out():
    assert chosen_images(make_predictions([], []), threshold=0.5).tolist() == []
    assert chosen_images(make_predictions([1, 0], [0.9, 0.1]), threshold=0.5).tolist() == [0, 1]


@pytest.mark.slow
def test_jax_gives_the_same_heatmaps(tmp_path):
    pytest.importorskip("jax")
    code = (
        "import sys, numpy as np; sys.path[:0] = ['tests/scoring', 'tests'];"
        "import test_gradcam as t;"
        "images = np.stack([t.spotted(4, 4), t.spotted(20, 24)]);"
        "np.save(sys.argv[1], t.gradcam(t.bright_spot_network(), images, called=[True, False]))"
    )
    found = {}
    for backend in ("tensorflow", "jax"):
        file = tmp_path / f"{backend}.npy"
        subprocess.run(
            [sys.executable, "-c", code, str(file)],
            check=True,
            env={"KERAS_BACKEND": backend, "PYTHONPATH": ".", "PATH": "", "HOME": str(tmp_path)},
        )
        found[backend] = np.load(file)
    np.testing.assert_allclose(found["tensorflow"], found["jax"], atol=1e-4)
