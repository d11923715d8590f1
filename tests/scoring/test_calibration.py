import numpy as np
import pytest
from tiny import SIZE, exported, make_network

from search.scoring.calibration import LIMITS, fit_temperature, reported, scaled
from search.scoring.loading import load_model
from search.scoring.metrics import ranking_metrics


def too_sure(factor, count=20_000, seed=0):
    """Labels drawn from honest probabilities, and what a network says that multiplies its logit."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.5, 1.5, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(int)
    return labels, 1 / (1 + np.exp(-logits * factor))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_factor_by_which_a_network_is_too_sure_is_found(factor):
    labels, said = too_sure(factor)
    temperature, note = fit_temperature(labels, said)
    assert temperature == pytest.approx(factor, rel=0.05)
    assert note == ""


def test_calibration_improves_what_it_should_and_leaves_the_order():
    labels, said = too_sure(3.0)
    temperature, _ = fit_temperature(labels, said)
    calibrated = scaled(said, temperature)
    uncalibrated = scaled(calibrated, 1 / temperature)
    before, after = reported(labels, uncalibrated), reported(labels, calibrated)
    for metric in ("expected_calibration_error", "loss", "brier"):
        assert after[metric] < before[metric]
        assert before[metric] == pytest.approx(ranking_metrics(labels, said)[metric])
    assert (np.diff(calibrated[np.argsort(said)]) >= 0).all()
    assert ranking_metrics(labels, calibrated)["auc"] == ranking_metrics(labels, said)["auc"]
    assert np.array_equal(calibrated >= 0.5, said >= 0.5)


@pytest.mark.parametrize(
    ("labels", "said", "note"),
    [
        ([1, 1, 1], [0.9, 0.4, 0.7], "lacks a class"),
        ([0, 1, 0, 1], [0.1, 0.8, 0.3, 0.6], "on its side of 0.5"),
        ([0, 1, 0, 1], [0.9, 0.2, 0.7, 0.4], "no better than a coin"),
    ],
)
def test_where_no_temperature_is_best_none_is_used_and_the_reason_given(labels, said, note):
    temperature, reason = fit_temperature(np.array(labels), np.array(said))
    assert temperature == 1
    assert note in reason


def test_saturated_probabilities_give_a_finite_temperature():
    labels, said = too_sure(1.0, count=300)
    temperature, _ = fit_temperature(labels, np.where(said > 0.5, 1.0, 0.0))
    assert LIMITS[0] < temperature < LIMITS[1]
    assert np.isfinite(scaled(np.array([0.0, 1.0]), temperature)).all()


@pytest.mark.parametrize("temperature", [0.4, 1.7, 6.0])
def test_the_exported_file_calibrates_as_the_run_did(tmp_path, temperature):
    network = make_network()
    file = exported(network, tmp_path / "model.keras", temperature=temperature)
    images = np.random.default_rng(1).integers(0, 256, (6, SIZE, SIZE, 1), dtype=np.uint8)
    wanted = scaled(network.predict_on_batch(images), temperature)
    assert np.abs(wanted - network.predict_on_batch(images)).max() > 0.01
    np.testing.assert_allclose(load_model(file).model.predict_on_batch(images), wanted, atol=1e-6)
