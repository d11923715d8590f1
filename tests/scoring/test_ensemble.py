"""The ensemble: the mean of its members, one exported file."""

import numpy as np
import pytest
from search.scoring.ensemble import ensemble_of
from tiny import SIZE, THRESHOLD, make_network

from search.scoring.export import export_model, load_model


@pytest.fixture(scope="module")
def members():
    return [make_network(seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).integers(0, 256, (5, SIZE, SIZE, 1), dtype=np.uint8)


def test_it_gives_the_mean_probability_and_counts_all_parameters(members, images):
    whole = ensemble_of(members)
    single = [np.asarray(member.predict_on_batch(images)) for member in members]
    assert np.ptp(single, axis=0).max() > 0.01
    np.testing.assert_allclose(whole.predict_on_batch(images), np.mean(single, axis=0), atol=1e-6)
    assert whole.count_params() == sum(member.count_params() for member in members)


def test_it_is_exported_as_one_file(members, images, tmp_path):
    whole = ensemble_of(members)
    path = export_model(
        whole, tmp_path / "model.keras", image_size=SIZE, threshold=THRESHOLD, metadata={}
    )
    loaded = load_model(path)
    np.testing.assert_allclose(
        loaded.model.predict_on_batch(images), whole.predict_on_batch(images), atol=1e-5
    )
    assert loaded.model.count_params() == whole.count_params()


def test_augmentation_stays_behind(images, tmp_path):
    from hypermodels import DocumentedCNN
    from hypermodels.configuration import Configuration

    configuration = Configuration(
        base_filters=2,
        crop_min_area=0.5,
        noise=0.1,
        head="global_average",
        dense_units=(4,),
        dense_dropout=(0.5,),
    )
    made = [
        DocumentedCNN(image_size=SIZE, seed=seed).build_configuration(configuration)
        for seed in (1, 2)
    ]
    whole = ensemble_of(made)
    mean = np.mean([member.predict_on_batch(images) for member in made], axis=0)
    np.testing.assert_allclose(whole.predict_on_batch(images), mean, atol=1e-6)
    config = str(whole.get_config())
    assert "hypermodels" not in config


def test_one_network_is_no_ensemble(members):
    with pytest.raises(ValueError, match="at least two"):
        ensemble_of(members[:1])
