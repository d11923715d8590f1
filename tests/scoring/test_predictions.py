import csv
import math

import numpy as np
import pytest
from tiny import THRESHOLD, make_predictions

from search.errors import ModelError, StorageError
from search.records import Split
from search.scoring.metrics import ranking_metrics, threshold_metrics
from search.scoring.predictions import (
    evaluate,
    predict_images,
    predict_subset,
    write_predictions_csv,
)


class MeanModel:
    """Says the mean of the image; remembers the batches it was given."""

    def __init__(self):
        self.batches = []

    def predict_on_batch(self, x):
        assert x.dtype == np.uint8
        self.batches.append(len(x))
        return x.mean(axis=(1, 2, 3), dtype=np.float64)[:, np.newaxis] / 255


class ConstantModel:
    def __init__(self, value, shape=(1,)):
        self.value, self.shape = value, shape

    def predict_on_batch(self, x):
        return np.full((len(x), *self.shape), self.value)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_every_image_is_predicted_in_the_order_of_the_rows(subset, batch_size):
    found = predict_subset(MeanModel(), subset, Split.TEST, batch_size=batch_size)
    wanted = subset.open_array()[subset.rows].mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(found.probabilities, wanted)
    assert found.probabilities.dtype == np.float64
    assert found.split is Split.TEST
    assert (found.paths, found.patients, found.subtypes) == (
        subset.paths,
        subset.patients,
        subset.subtypes,
    )


def test_all_batches_after_the_first_have_one_size(subset):
    model = MeanModel()
    predict_subset(model, subset, Split.TEST, batch_size=3)
    assert model.batches == [3, 3, 3]
    model = MeanModel()
    predict_subset(model, subset, Split.TEST, batch_size=64)
    assert model.batches == [7]


def test_the_whole_set_is_never_read_at_once(subset, monkeypatch):
    class Watched(np.ndarray):
        largest = 0

        def __getitem__(self, key):
            rows = super().__getitem__(key)
            Watched.largest = max(Watched.largest, len(rows))
            return np.asarray(rows)

    watched = subset.open_array().view(Watched)
    monkeypatch.setattr(type(subset), "open_array", lambda self: watched)
    predict_subset(MeanModel(), subset, Split.TEST, batch_size=2)
    assert Watched.largest == 2


def test_a_keras_network_takes_the_stored_bytes(network, subset):
    found = predict_subset(network, subset, Split.VALIDATION, batch_size=3)
    wanted = network.predict(subset.open_array()[subset.rows], verbose=0)[:, 0]
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-6)
    everything = predict_images(network, subset.open_array(), batch_size=4)
    np.testing.assert_allclose(everything[subset.rows], wanted, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, 1.5, -0.1])
def test_what_is_no_probability_is_refused(subset, value):
    with pytest.raises(ModelError, match="no probabilities"):
        predict_subset(ConstantModel(value), subset, Split.TEST)


def test_a_model_with_two_outputs_is_refused(subset):
    with pytest.raises(ModelError, match="one probability per image"):
        predict_subset(ConstantModel(0.5, (2,)), subset, Split.TEST)


def test_an_evaluation_holds_every_metric_at_both_thresholds():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    said = np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0, 1)
    found = evaluate(
        make_predictions(labels, said),
        THRESHOLD,
        role="winner",
        seed=2,
        bootstrap_seed=0,
        repeats=50,
    )
    assert (found.role, found.seed, found.split, found.count) == ("winner", 2, Split.TEST, 100)
    for table, wanted in (
        (found.at_half, threshold_metrics(labels, said, 0.5)),
        (found.at_threshold, threshold_metrics(labels, said, THRESHOLD.value)),
        (found.ranking, ranking_metrics(labels, said)),
    ):
        assert {k: e.value for k, e in table.items()} == pytest.approx(wanted)
    assert sum(found.confusion_at_half.values()) == 100
    assert found.confusion_at_threshold["tp"] >= found.confusion_at_half["tp"]
    assert found.threshold == THRESHOLD


def test_predictions_are_written_with_every_digit(tmp_path):
    parts = [
        make_predictions([0, 1], [0.1, 1 / 3], split=Split.VALIDATION),
        make_predictions([1], [0.9], patients=['a,"b"']),
    ]
    file = write_predictions_csv(tmp_path / "run" / "predictions.csv", parts)
    with open(file, newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["path", "patient", "label", "probability", "split", "subtype"]
    assert [row["split"] for row in rows] == ["val", "val", "test"]
    assert [float(row["probability"]) for row in rows] == [0.1, 1 / 3, 0.9]
    assert [row["label"] for row in rows] == ["0", "1", "1"]
    assert rows[2]["patient"] == 'a,"b"'


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file is where a folder should be"):
        write_predictions_csv(tmp_path / "file" / "predictions.csv", [])
