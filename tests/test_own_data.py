"""Other people's images, from the command line to the last report: two folders, a table, colour."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.run import main
from search.run_directory import RunDirectory
from search.scoring.loading import load_model

pytestmark = pytest.mark.slow

FOREIGN = re.compile(r"child|hospital|pneumonia", re.IGNORECASE)
REPORTS = ("report.html", "report.md", "model_card.md")


def draw(path: Path, number: int, *, ill: bool, colour: bool = False) -> None:
    """Write an image that is bright on the right where it shows the finding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 90, (36, 40, 3 if colour else 1))
    pixels[:, 20:] += 150 * ill
    pixels = pixels.astype(np.uint8)
    Image.fromarray(pixels if colour else pixels[..., 0]).save(path)


def run(folder: Path, *options: str) -> int:
    return main(
        [
            *("--data", str(folder), "--name", "own", "--results-dir", str(folder.parent / "out")),
            *("--cache-dir", str(folder.parent / "cache"), "--no-live", "--workers", "0"),
            *("--tuner", "random", "--max-trials", "2", "--image-size", "32", "--max-epochs", "1"),
            *("--refit-epochs", "1", "--refit-seeds", "1", *options),
        ]
    )


def reports(folder: Path, *words: str) -> RunDirectory:
    """Check what a person reads of each report, markup and programs left out; return the run."""
    run = RunDirectory(folder.parent / "out" / "own")
    assert run.complete
    for name in REPORTS:
        text = (run.root / name).read_text(encoding="utf-8")
        text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
        assert not FOREIGN.search(text), (name, FOREIGN.search(text))
        for word in words:
            assert re.search(word, text, re.DOTALL), (name, word)
    return run


def test_three_classes_in_colour_are_refused_and_two_of_them_finished(tmp_path, capsys):
    folder = tmp_path / "skin"
    for number in range(90):
        name = ("benign", "malignant", "unclear")[number % 3]
        path = folder / name / f"{number:03}.png"
        draw(path, number, ill=name == "malignant", colour=True)
    assert run(folder, "--channels", "rgb") == 2
    said = " ".join(capsys.readouterr().out.split())
    assert all(word in said for word in ("benign", "malignant", "unclear", "--classes"))
    assert run(folder, "--channels", "rgb", "--classes", "benign,malignant") == 0
    found = reports(folder, "malignant", r"unclear.{0,80}30|30.{0,80}unclear")
    dataset = found.read_json("dataset.json")
    assert dataset["channels"] == 3
    assert dataset["classes"] == ["benign", "malignant"]
    assert dataset["counts"]["test"]["malignant"] > 0


def test_covid_and_normal_folders_are_searched_with_covid_as_the_finding(tmp_path, capsys):
    folder = tmp_path / "films"
    for number in range(60):
        split, name = ("train", "train", "test")[number % 3], ("covid", "normal")[number % 2]
        draw(folder / split / name / f"{number:03}.png", number, ill=name == "covid")
    assert run(folder, "--refit-image-size", "48") == 0
    said = capsys.readouterr().out
    assert "covid" in said
    assert "at 48 × 48" in said
    # Nothing in these names tells whose images they are, which each report has to say.
    found = reports(folder, "covid", "patient")
    dataset = found.read_json("dataset.json")
    assert (dataset["classes"], dataset["patients_known"]) == (["normal", "covid"], False)
    assert dataset["image_size"] == 32
    assert load_model(found.root / "model.keras").metadata.image_size == 48


def test_a_table_of_files_with_patients_keeps_every_patient_on_one_side(tmp_path):
    folder = tmp_path / "table"
    rows = []
    for number in range(72):
        # Twelve patients with six images each; the finding is the patient's.
        patient = number % 12
        ill = patient % 2 == 1
        draw(folder / "images" / f"{number:03}.png", number, ill=ill)
        rows.append((f"images/{number:03}.png", "lesion" if ill else "none", f"p{patient}"))
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("file", "label", "patient"), *rows])
    options = ("--table", str(folder / "labels.csv"), "--positive", "lesion")
    assert run(folder, *options) == 0
    found = reports(folder, "lesion")
    dataset = found.read_json("dataset.json")
    assert dataset["patients_known"]
    assert sum(count["total"] for count in dataset["patients"].values()) == 12
    patients = {path: patient for path, _, patient in rows}
    with open(found.root / "predictions.csv", encoding="utf-8", newline="") as handle:
        scored = list(csv.DictReader(handle))
    val, test = (
        {patients[row["path"]] for row in scored if row["split"] == split}
        for split in ("val", "test")
    )
    assert test
    assert not val & test
