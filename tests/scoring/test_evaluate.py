import json
import shutil

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


@pytest.mark.parametrize(("about", "seed"), [({"seed": 2}, 2), ({}, None)])
def test_the_numbers_name_the_seed_that_was_exported(say, films, network, tmp_path, about, seed):
    model = exported(network, tmp_path / "model.keras", **ABOUT, **about)
    code, _, err = say(model, "--data", films, "--json", tmp_path / "found.json")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["role"], found["seed"]) == ("winner", seed)


def test_the_numbers_are_printed_where_their_file_cannot_be_written(say, run_dir, films, tmp_path):
    # The classes may lie directly in the folder.
    code, out, err = say(run_dir, "--data", films / "test", "--json", tmp_path)
    assert code == 2
    assert "8 images of 6 patients" in out
    assert "choose another --json" in err
    assert "--resume to go on" not in err


def test_a_bad_file_is_left_out_and_listed_with_its_reason(say, run_dir, films, tmp_path):
    (films / "test" / "NORMAL" / "broken.jpeg").write_bytes(b"hello")
    code, out, _ = say(run_dir, "--data", films, "--json", tmp_path / "found.json")
    assert code == 2
    (rejected,) = json.loads((tmp_path / "found.json").read_text())["rejected"]
    assert rejected["path"] == "test/NORMAL/broken.jpeg"
    assert "not an image" in rejected["reason"]
    assert "broken.jpeg: not an image" in out


@pytest.mark.parametrize(
    ("run", "data", "more", "said"),
    [
        ("", "films/nowhere", (), "no"),
        ("", "results", (), "no images"),
        ("/nowhere", "films", (), "no such run"),
        ("", "films/healthy", (), "no NORMAL images"),
        ("", "films/bad", (), "no usable NORMAL images"),
        ("", "films", ("--seed", "-1"), "--seed -1: must be at least 0"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line_and_code_2(
    say, run_dir, films, tmp_path, run, data, more, said
):
    for name in ("healthy", "bad"):
        shutil.copytree(films / "test", films / name)
    (films / "healthy/NORMAL").rename(films / "healthy/healthy")
    for file in (films / "bad/NORMAL").iterdir():
        file.write_bytes(b"")
    code, out, err = say(f"{run_dir}{run}", "--data", tmp_path / data, *more)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


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
