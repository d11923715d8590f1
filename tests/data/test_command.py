import json

import pytest
from PIL import Image

from search.data.__main__ import main
from tests.data.trees import make_tree, write


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


@pytest.fixture
def options(tmp_path):
    return ["--cache-dir", str(tmp_path / "cache"), "--image-size", "32"]


def test_the_report_is_printed_and_written_as_json(tree, options, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    write(tree / "train/NORMAL/bad.jpeg", b"")
    file = tmp_path / "r.json"
    assert main([str(tree), *options, "--split", "notebook", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["split"] == "notebook"
    assert sum(sum(report["counts"][split].values()) for split in ("train", "val")) == 40
    printed = capsys.readouterr().out
    for text in ("training", "validation", "class weight", "bad.jpeg: empty file", "leakage"):
        assert text in printed
    assert "SYNTHETIC" not in printed


@pytest.mark.parametrize(
    ("given", "said"), [(["none"], "none"), (["tree", "--val-fraction", "0.9"], "--val-fraction")]
)
def test_a_user_error_is_one_line_and_code_2(tree, tmp_path, options, capsys, given, said):
    assert main([str(tmp_path / given[0]), *given[1:], *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_sheet_shows_the_augmentation_of_a_run(tree, options, tmp_path, capsys):
    run = tmp_path / "run"
    values = {"crop_min_area": 0.3, "tone_jitter": 0.2, "flip": True, "base_filters": 16}
    best = {"trial_id": "0001", "values": values}
    write(run / "best_hyperparameters.json", json.dumps(best).encode())
    plain, shown = tmp_path / "deep/plain.png", tmp_path / "shown.png"
    assert main([str(tree), *options, "--show", str(plain)]) == 0
    assert main([str(tree), *options, "--show", str(shown), "--run", str(run)]) == 0
    with Image.open(plain) as first, Image.open(shown) as second:
        assert (first.width, second.height) == (8 * 180, first.height + 4 * 180)


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        (["--flip"], "add --show"),
        (["--show", "x.png", "--run", "r", "--flip"], "brings its own"),
        (["--show", "x.png", "--crop-min-area", "7"], "augmentation"),
        (["--show", "x.png", "--run", "nowhere"], "no such file"),
        (["--show", "file/x.png"], "choose another place"),
    ],
)
def test_a_sheet_that_cannot_be_is_code_2(
    tree, options, tmp_path, monkeypatch, capsys, extra, text
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file", b"")
    assert main([str(tree), *options, *extra]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_a_run_is_found_by_its_name_and_a_damaged_one_is_told(
    tree, options, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    best = tmp_path / "results/first/best_hyperparameters.json"
    write(best, b'{"trial_id": "1", "values": {"base_filters": 16}}')
    asked = [str(tree), *options, "--show", "s.png", "--run", "first"]
    assert main(asked) == 0
    best.write_bytes(b"[]")
    assert main(asked) == 2
    assert "best_hyperparameters.json" in capsys.readouterr().err
