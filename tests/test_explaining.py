"""What a run is explained with, gathered from its directory."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from search import explaining
from search.errors import RunDirectoryError
from search.records import Predictions, Split, Threshold
from search.run_directory import RunDirectory
from search.scoring.predictions import PREDICTION_FILES, write_predictions_csv

SIZE = 16
PATHS = ("test/NORMAL/a.png", "test/NORMAL/b.png", "test/PNEUMONIA/c.png", "test/PNEUMONIA/d.png")
THRESHOLD = Threshold(value=0.3, rule="0.3", chosen_on="nothing", reached=0.0)


def predictions(split=Split.TEST, said=(0.1, 0.4, 0.2, 0.9)):
    return Predictions(
        split=split,
        paths=PATHS,
        patients=("1", "2", "3", "4"),
        subtypes=("", "", "virus", "bacteria"),
        labels=np.array([0, 0, 1, 1], np.int8),
        probabilities=np.array(said),
    )


@pytest.fixture
def run(tmp_path):
    """A run directory with four predictions and the films they are of, but without a model."""
    run = RunDirectory(tmp_path / "run")
    run.create()
    films = tmp_path / "films"
    for i, path in enumerate(PATHS):
        (films / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((40, 30), 40 * i, np.uint8)
        pixels[:10, :10] = 255
        Image.fromarray(pixels).save(films / path)
    run.write_json("config.json", {"objective": "val_auc", "seed": 3, "image_size": SIZE})
    run.write_json("dataset.json", {"source": {"root": films.as_posix()}})
    scored = [{"seed": 0, "threshold": {"value": THRESHOLD.value}}]
    run.write_json("evaluation.json", {"winner": {"exported_seed": 0, "test": scored}})
    write_predictions_csv(run.root / PREDICTION_FILES["winner"], [predictions()])
    return run


@pytest.fixture
def exported(run):
    import keras

    from search.scoring.export import export_model

    inputs = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(1, 3, kernel_initializer="ones", activation="relu")(x)
    outputs = keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalMaxPooling2D()(x))
    network = keras.Model(inputs, outputs)
    export_model(
        network, run.root / "model.keras", image_size=SIZE, threshold=THRESHOLD, metadata={}
    )
    return run


def test_each_candidates_predictions_are_read_at_its_own_threshold(run):
    control = predictions(said=(0.6, 0.2, 0.7, 0.8))
    write_predictions_csv(run.root / PREDICTION_FILES["documented"], [control])
    found = explaining.material(run.root)
    assert list(found.curves) == list(found.predictions) == ["documented", "winner"]
    assert found.curves["winner"].threshold == 0.3
    assert found.curves["documented"].threshold == 0.5
    assert found.curves["winner"].predictions.subtypes == ("", "", "virus", "bacteria")
    assert found.predictions["documented"][1].tolist() == [0.6, 0.2, 0.7, 0.8]
    assert (found.objective, found.split) == ("val_auc", "the test set")


def test_a_run_without_a_test_is_explained_on_validation(run):
    write_predictions_csv(
        run.root / PREDICTION_FILES["winner"], [predictions(split=Split.VALIDATION)]
    )
    assert explaining.material(run.root).curves["winner"].predictions.split is Split.VALIDATION


def test_an_older_run_has_the_winner_alone_and_no_subtypes(run):
    rows = ["path,patient,label,probability,split"]
    rows += [f"{p},{i},{int(i > 1)},0.{i + 1},test" for i, p in enumerate(PATHS)]
    (run.root / "predictions.csv").write_text("\n".join(rows) + "\n")
    found = explaining.material(run.root)
    assert list(found.curves) == ["winner"]
    assert found.curves["winner"].predictions.subtypes == ("",) * 4


def test_an_unfinished_run_is_explained_as_far_as_it_got(tmp_path):
    run = RunDirectory(tmp_path / "young")
    run.create()
    lines = ["garbage", "3", json.dumps({"event": "epoch"}), json.dumps({"event": "trial_created"})]
    run.journal_file.write_text("\n".join(lines) + "\n")
    found = explaining.material(run.root)
    assert (found.records, found.curves, found.evaluation) == ([], {}, {})
    assert explaining.look(run.root, warn=pytest.fail) == []


def test_damaged_predictions_are_named(run):
    (run.root / "predictions.csv").write_text("path,label\nx,maybe\n")
    with pytest.raises(RunDirectoryError, match=r"predictions\.csv: damaged"):
        explaining.material(run.root)


def test_the_exported_model_is_looked_into_with_films_decoded_anew(exported):
    found = explaining.look(exported.root, warn=pytest.fail)
    # Missed, false alarm, found, healthy: at 0.3.
    assert [(m.path, m.label, m.called) for m in found] == [
        (PATHS[2], 1, 0),
        (PATHS[1], 0, 1),
        (PATHS[3], 1, 1),
        (PATHS[0], 0, 0),
    ]
    assert [m.probability for m in found] == [0.2, 0.4, 0.9, 0.1]
    assert all(m.image.shape == m.heat.shape == (SIZE, SIZE) for m in found)
    assert found[1].image[-1, -1] == 40


def test_without_the_films_there_are_no_heatmaps_and_it_is_said(run, monkeypatch):
    (run.root / "model.keras").write_text("not looked at")
    monkeypatch.setitem(sys.modules, "keras", None)
    for path in (run.root.parent / "films").rglob("*.png"):
        path.unlink()
    said = []
    assert explaining.look(run.root, warn=said.append) == []
    assert len(said) == 1
    assert "c.png" in said[0]


def test_a_model_that_cannot_be_loaded_is_named(run):
    (run.root / "model.keras").write_text("nonsense")
    said = []
    assert explaining.look(run.root, warn=said.append) == []
    assert "model.keras: damaged" in said[0]


def test_a_run_without_a_model_is_not_complained_about(run):
    assert explaining.look(run.root, warn=pytest.fail) == []
