import csv
import math

import numpy as np
import pytest
from tiny import make_predictions

from search.errors import ModelError, StorageError
from search.records import Split
from search.scoring.predictions import (
    predict_subset,
    write_predictions_csv,
)


class ConstantModel:
    def __init__(self, value, shape=(1,)):
        self.value, self.shape = value, shape

    def predict_on_batch(self, x):
        return np.full((len(x), *self.shape), self.value)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_every_image_is_predicted_in_the_order_of_the_rows(network, subset, batch_size):
    found = predict_subset(network, subset, Split.TEST, batch_size=batch_size)
    wanted = network.predict(subset.open_array()[subset.rows], verbose=0)[:, 0]
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-6)
    assert found.probabilities.dtype == np.float64
    assert found.split is Split.TEST
    assert (found.paths, found.patients, found.subtypes) == (
        subset.paths,
        subset.patients,
        subset.subtypes,
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        *((ConstantModel(value), "no probabilities") for value in (math.nan, 1.5, -0.1)),
        (ConstantModel(0.5, (2,)), "one probability per image"),
    ],
)
def test_what_is_no_probability_is_refused(subset, model, said):
    with pytest.raises(ModelError, match=said):
        predict_subset(model, subset, Split.TEST)


def test_predictions_are_written_with_every_digit_or_the_place_is_told(tmp_path):
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
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file is where a folder should be"):
        write_predictions_csv(tmp_path / "file" / "predictions.csv", [])
