import json

import numpy as np
import pytest
from tiny import ABOUT, MANIFEST, exported

from search.data.decode import load_image
from search.evaluate import main
from search.records import SYNTHETIC_NOTICE
from search.run_directory import RunDirectory
from search.scoring.metrics import ranking_metrics, threshold_metrics


@pytest.fixture
def say(capsys, tmp_path):
    def run(*arguments):
        code = main([str(a) for a in (*arguments, "--cache-dir", tmp_path / "cache")])
        captured = capsys.readouterr()
        return code, " ".join(captured.out.split()), captured.err

    return run


def test_the_numbers_are_those_of_the_network_on_the_decoded_files(
    say, run_dir, films, network, tmp_path
):
    RunDirectory(run_dir).write_manifest(MANIFEST)
    code, out, err = say(run_dir, "--data", films, "--json", tmp_path / "found.json")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    files = sorted((films / "test").rglob("*.jpeg"))
    pixels = np.stack([load_image(file, 32).pixels for file in files])
    said = network.predict_on_batch(pixels)[:, 0]
    labels = np.array([file.parent.name == "PNEUMONIA" for file in files])
    for table, wanted in (
        ("ranking", ranking_metrics(labels, said)),
        ("at_half", threshold_metrics(labels, said, 0.5)),
        ("at_threshold", threshold_metrics(labels, said, 0.4)),
    ):
        for name, value in wanted.items():
            given = found[table][name]["value"]
            assert given is None if np.isnan(value) else given == pytest.approx(value, abs=1e-5)
    assert found["images"] == {"NORMAL": 4, "PNEUMONIA": 4}
    assert found["patients"] == 6
    assert found["rejected"] == []
    assert found["subtypes"].keys() == {"bacteria", "virus"}
    assert found["notice"] == SYNTHETIC_NOTICE
    assert SYNTHETIC_NOTICE in out
    for word in ("accuracy", "specificity", "F1", "AUC", "log loss", "recall, virus", "diagnosis"):
        assert word in out


@pytest.mark.parametrize(
    ("about", "seed"),
    [({"seed": 2}, 2), ({}, None)],
)
def test_the_numbers_name_the_seed_that_was_exported(say, films, network, tmp_path, about, seed):
    model = exported(network, tmp_path / "model.keras", **{**ABOUT, **about})
    code, _, err = say(model, "--data", films, "--json", tmp_path / "found.json")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["role"], found["seed"]) == ("winner", seed)


def test_the_numbers_are_printed_where_their_file_cannot_be_written(say, run_dir, films, tmp_path):
    code, out, err = say(run_dir, "--data", films, "--json", tmp_path)
    assert code == 2
    assert "8 images of 6 patients" in out
    assert "choose another --json" in err
    assert "--resume to go on" not in err


def test_a_seed_that_cannot_be_one_is_told_before_anything(say, run_dir, films):
    code, out, err = say(run_dir, "--data", films, "--seed", "-1")
    assert (code, out) == (2, "")
    assert err == "error: --seed -1: must be at least 0\n"


def test_classes_may_lie_directly_in_the_folder(say, run_dir, films):
    code, out, _ = say(run_dir, "--data", films / "test")
    assert code == 0
    assert "8 images of 6 patients" in out


def test_a_bad_file_is_left_out_and_listed_with_its_reason(say, run_dir, films, tmp_path):
    (films / "test" / "NORMAL" / "broken.jpeg").write_bytes(b"hello")
    code, out, _ = say(run_dir, "--data", films, "--json", tmp_path / "found.json")
    assert code == 2
    (rejected,) = json.loads((tmp_path / "found.json").read_text())["rejected"]
    assert rejected["path"] == "test/NORMAL/broken.jpeg"
    assert "not an image" in rejected["reason"]
    assert "broken.jpeg: not an image" in out


@pytest.mark.parametrize("missing", ["class", "folder", "images", "run"])
def test_what_is_missing_is_one_line_and_code_2(say, run_dir, films, missing):
    if missing == "class":
        (films / "test" / "NORMAL").rename(films / "test" / "healthy")
    elif missing == "folder":
        films = films / "nowhere"
    elif missing == "images":
        films = run_dir
    else:
        run_dir = run_dir / "nowhere"
    code, out, err = say(run_dir, "--data", films)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert ("NORMAL" if missing == "class" else "no") in err


def test_an_unfinished_run_is_scored_and_a_changed_model_refused(say, run_dir, films):
    code, _, err = say(run_dir, "--data", films)
    assert code == 0
    assert "is unfinished (no manifest.json)" in err
    RunDirectory(run_dir).write_manifest(MANIFEST)
    with open(run_dir / "model.keras", "ab") as handle:
        handle.write(b"x")
    code, out, err = say(run_dir, "--data", films)
    assert (code, out) == (2, "")
    assert "checksum" in err


def test_an_export_that_a_run_lacks_is_named_with_the_remedy(say, run_dir, films):
    code, out, err = say(run_dir, "--data", films, "--format", "onnx")
    assert (code, out) == (2, "")
    assert "no model.onnx in it" in err
    assert "--export onnx" in err


def test_dicom_films_are_scored_like_their_lossless_copies(say, run_dir, films, tmp_path):
    pytest.importorskip("pydicom")
    from PIL import Image

    from tests.data.trees import dicom_file

    files = sorted(films.rglob("*.jpeg"))
    pixels = [np.asarray(Image.open(file).convert("L")) for file in files]
    found = {}
    for kind in ("png", "dcm"):
        for file, film in zip(files, pixels, strict=True):
            for old in file.parent.glob(f"{file.stem}.*"):
                old.unlink()
            if kind == "png":
                Image.fromarray(film).save(file.with_suffix(".png"))
            else:
                file.with_suffix(".dcm").write_bytes(dicom_file(film, bits=8))
        code, _, err = say(run_dir, "--data", films, "--json", tmp_path / f"{kind}.json")
        assert code == 0, err
        found[kind] = json.loads((tmp_path / f"{kind}.json").read_text())
    assert found["dcm"]["images"] == {"NORMAL": 4, "PNEUMONIA": 4}
    assert found["dcm"]["patients"] == found["png"]["patients"] == 6
    assert found["dcm"]["ranking"] == found["png"]["ranking"]


def test_a_class_whose_only_files_are_bad_is_missing(say, run_dir, films):
    for file in (films / "test" / "NORMAL").iterdir():
        file.write_bytes(b"")
    code, _, err = say(run_dir, "--data", films)
    assert code == 2
    assert "no usable NORMAL images" in err


def test_ctrl_c_is_130(say, run_dir, films, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("search.evaluate.predict_subset", interrupt)
    assert say(run_dir, "--data", films) == (130, "", "error: stopped\n")
