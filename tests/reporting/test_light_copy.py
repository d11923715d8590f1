"""`python -m search.report RUN --light DIR`, and the light copy that is committed."""

import base64
import json
import re
import shutil
from pathlib import Path

import fake_runs as fake
import pytest

from search import report
from search.run_directory import RunDirectory, file_sha256

EXAMPLE = Path(__file__).parents[2] / "results" / "examples" / "quick-real"
HOME = "/home/jane/results"


@pytest.fixture
def run(made, tmp_path):
    """A finished run whose failures, options and exports name folders of this computer."""
    shutil.copytree(made.root, tmp_path / "mine")
    run = RunDirectory(tmp_path / "mine")
    events = run.journal_file.read_text()
    told = json.dumps(f"{HOME}/mine/tuner: no space")[1:-1]
    run.journal_file.write_text(events.replace(json.dumps(fake.NASTY)[1:-1], told))
    config = run.read_json("config.json")
    run.write_json("config.json", {**config, "results_dir": HOME, "data": "/data/chest_xray"})
    failed = {"format": "onnx", "status": "failed", "reason": "no converter in /home/jane/lib"}
    run.write_json("exports.json", [failed])
    run.write_manifest(run.read_json("manifest.json"))
    return run


def light(run, folder):
    return report.main([run.root.as_posix(), "--light", folder.as_posix()])


def test_a_light_copy_has_what_may_be_passed_on_and_nothing_else(run, tmp_path, capsys):
    copy = tmp_path / "light"
    assert light(run, copy) == 0
    assert copy.as_posix() in capsys.readouterr().out
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "model_card.md", "trials.csv", "history.csv"} <= names
    assert {"evaluation.json", "predictions.csv", "plots/roc.png", "plots/roc.json"} <= names
    assert not {"model.keras", "journal.jsonl", ".lock"} & names
    assert not any("local" in name for name in names)
    film = base64.b64encode((run.root / "plots/local/heatmaps.png").read_bytes()).decode()
    assert film not in (copy / "report.html").read_text()
    for name in (n for n in names if not n.endswith(".png")):
        text = re.sub(r"base64,[^\"]+", "", (copy / name).read_text())
        for word in ("/home/", "jane", "/data/", "/root/", "this-computer", str(tmp_path)):
            assert word not in text, (name, word)
    assert "tuner: no space" in (copy / "trials.csv").read_text()
    assert "no converter in lib" in (copy / "exports.json").read_text()


def test_a_light_copy_lists_its_own_files_and_says_what_it_is_a_copy_of(run, tmp_path, capsys):
    copy = tmp_path / "light"
    assert light(run, copy) == 0
    manifest = RunDirectory(copy).read_json("manifest.json")
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert manifest["light_copy"]["of"] == "mine"
    assert manifest["light_copy"]["manifest_sha256"] == file_sha256(run.root / "manifest.json")
    assert {"journal.jsonl", "model.keras"} <= set(manifest["light_copy"]["left_out"])
    capsys.readouterr()
    assert report.main([copy.as_posix()]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "a light copy of the run mine" in out
    assert "changed since" not in out
    assert "no longer there" not in out
    (copy / "evaluation.json").write_text("{}")
    assert report.main([copy.as_posix()]) == 2


def test_the_answers_of_an_ablation_are_in_the_copy_with_their_checksum(run, tmp_path):
    run.write_json("ablation/ablation.json", {"answers": [], "notes": ["see /home/jane/notes"]})
    copy = tmp_path / "light"
    assert light(run, copy) == 0
    assert RunDirectory(copy).read_json("ablation/ablation.json")["notes"] == ["see notes"]
    (copy / "ablation" / "ablation.json").write_text("{}")
    assert report.main([copy.as_posix()]) == 2


def test_a_stranger_among_the_plots_is_not_copied(run, tmp_path):
    (run.root / "plots" / "film.png").write_bytes((run.root / "plots/roc.png").read_bytes())
    assert light(run, tmp_path / "light") == 0
    assert not (tmp_path / "light" / "plots" / "film.png").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run.root / "manifest.json").unlink(), "copies finished runs"),
        (lambda run: (run.root / "best_hyperparameters.json").write_text("1"), "nothing is copied"),
        (lambda run: (run.root / "history.csv").write_text("1"), "nothing is copied"),
        (lambda run: run.journal_file.unlink(), "name the run itself"),
    ],
)
def test_only_a_finished_unchanged_run_is_copied(run, tmp_path, capsys, spoil, said):
    spoil(run)
    assert light(run, tmp_path / "light") == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "light").exists()


def test_a_light_copy_writes_over_nothing(run, tmp_path, capsys):
    (tmp_path / "light").mkdir()
    (tmp_path / "light" / "thesis.doc").write_text("precious")
    assert light(run, tmp_path / "light") == 2
    assert "holds something already" in capsys.readouterr().err
    assert light(run, run.root / "light") == 2
    assert "lies in the run itself" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "light").iterdir()] == ["thesis.doc"]


def test_the_committed_example_is_what_its_manifest_lists(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert report.main([EXAMPLE.as_posix()]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "a light copy of the run quick" in out
    assert "331 test images, opened 3 times" in out
    names = {p.relative_to(EXAMPLE).as_posix() for p in EXAMPLE.rglob("*") if p.is_file()}
    listed = set(RunDirectory(EXAMPLE).read_json("manifest.json")["files"])
    assert listed == names - {"manifest.json", "README.md"}
    for name in (n for n in listed if not n.endswith(".png")):
        text = (EXAMPLE / name).read_text()
        assert "/work/" not in text, name
        assert "/root/" not in text, name
