"""Damaged files of a run, and places that cannot be used: each command says so in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search import evaluate, predict, report, run, watch
from search.config import RunConfig
from search.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]

COMMANDS = {
    "resume": lambda root: run.main(["--resume", str(root), "--no-live"]),
    "watch": lambda root: watch.main([str(root), "--once"]),
    "report": lambda root: report.main([str(root)]),
    "predict": lambda root: predict.main([str(root), "image.png"]),
    "evaluate": lambda root: evaluate.main([str(root), "images"]),
}


@pytest.fixture
def begun(tmp_path, monkeypatch) -> RunDirectory:
    """A run that was begun: options and a journal."""
    monkeypatch.chdir(tmp_path)
    directory = RunDirectory(tmp_path / "begun")
    directory.create()
    directory.write_json("config.json", RunConfig(name="begun", data="demo", image_size=32))
    directory.journal_file.write_text(
        '{"event": "stage", "time": 1.0, "name": "a", "seconds": 1}\n'
    )
    return directory


def is_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def is_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


DAMAGE = {
    "no JSON": lambda path: path.write_text("{\n"),
    "a list": lambda path: path.write_text("[1]\n"),
    "a number": lambda path: path.write_text("3\n"),
    "nothing": lambda path: path.write_text("\n"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00\n"),
    "a folder": is_folder,
    "a link loop": is_loop,
}


@pytest.mark.parametrize("command", ["resume", "watch", "report"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "journal.jsonl"])
def test_a_damaged_file_is_named_and_nothing_is_changed(begun, capsys, name, damage, command):
    if (name, damage, command) == ("config.json", "a link loop", "watch"):
        pytest.skip("watches without the options, as before they are written")
    DAMAGE[damage](begun.root / name)
    before = sorted(path.name for path in begun.root.iterdir())
    assert COMMANDS[command](begun.root) == 2
    said = "".join(capsys.readouterr())
    assert name in " ".join(said.split()).replace(" ", "")
    assert "Traceback" not in said
    assert {path.name for path in begun.root.iterdir()} - set(before) <= {".lock"}


FIELDS = {
    "unknown": ({"colour": 1}, "unknown field 'colour'"),
    "text for a number": ({"image_size": "big"}, "image_size: must be a whole number"),
    "out of range": ({"image_size": 7}, "--image-size 7: must be between"),
    "no such tuner": ({"tuner": "magic"}, "tuner: must be one of"),
    "values in a list": ({"fix": [1]}, "fix: must be an object"),
}


@pytest.mark.parametrize(("change", "message"), FIELDS.values(), ids=FIELDS)
def test_a_wrong_option_in_config_json_is_named(begun, capsys, change, message):
    path = begun.root / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert COMMANDS["resume"](begun.root) == 2
    assert message in " ".join("".join(capsys.readouterr()).split())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["x" * 250, "x" * 300, "loop", "no\udcffbytes", "missing"])
def test_a_run_that_cannot_be_is_one_line(tmp_path, monkeypatch, name, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    module = "run" if command == "resume" else command
    line = {
        "resume": ["--resume", name],
        "watch": [name],
        "report": [name],
        "predict": [name, "image.png"],
        "evaluate": [name, "images"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "search", module, *map(os.fsencode, line)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


RESULTS = {
    "a file": lambda path: path.write_text(""),
    "a loop": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_results_folder_that_is_none_is_named(tmp_path, capsys, kind):
    RESULTS[kind](tmp_path / "results")
    given = ["--data", "demo", "--cache-dir", str(tmp_path / "cache"), "--no-live"]
    code = run.main([*given, "--image-size", "32", "--results-dir", str(tmp_path / "results")])
    assert code == 2
    said = " ".join("".join(capsys.readouterr()).split())
    assert str(tmp_path / "results").replace(" ", "") in said.replace(" ", "")
