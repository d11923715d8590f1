"""Damaged files of a run, and places that cannot be used: each command says so in one line."""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from search import ablate, evaluate, predict, report, run, watch
from search.config import RunConfig
from search.data import __main__ as data
from search.data.decode import load_image
from search.data.listing import find_images
from search.errors import DataError
from search.run_directory import RunDirectory, new_run
from tests.data.trees import make_tree

ROOT = str(Path(__file__).parents[1])

COMMANDS = {
    "resume": lambda root: run.main(["--resume", str(root), "--no-live"]),
    "watch": lambda root: watch.main([str(root), "--once"]),
    "report": lambda root: report.main([str(root)]),
    "predict": lambda root: predict.main([str(root), "image.png"]),
    "evaluate": lambda root: evaluate.main([str(root), "--data", "images"]),
    "ablate": lambda root: ablate.main([str(root), "--no-live"]),
}


def said(capsys) -> str:
    words = " ".join("".join(capsys.readouterr()).split())
    assert "Traceback" not in words
    return words


def may_read_all(allowed: bool) -> None:
    """Take from this thread of root's the right to read and write what the mode forbids."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, sets) == 0
    sets[0] = sets[0] | sets[1] & 0b110 if allowed else sets[0] & ~0b110
    assert libc.capset(head, sets) == 0


@pytest.fixture
def powerless():
    """Gives a block in which a path may not be read, by root neither."""
    root = os.getuid() == 0
    if root and sys.platform != "linux":
        pytest.skip("root reads everything")

    @contextlib.contextmanager
    def block(path: Path):
        mode = path.stat().st_mode
        path.chmod(0)
        if root:
            may_read_all(False)
        try:
            yield
        finally:
            if root:
                may_read_all(True)
            path.chmod(mode)

    return block


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


DAMAGE = {
    "no JSON": lambda path: path.write_text("{\n"),
    "a list": lambda path: path.write_text("[1]\n"),
    "a number": lambda path: path.write_text("3\n"),
    "nothing": lambda path: path.write_text("\n"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00\n"),
    "a folder": lambda path: [path.unlink(), path.mkdir()],
    "a link loop": lambda path: [path.unlink(), path.symlink_to(path.name)],
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
    assert name in said(capsys).replace(" ", "")
    assert {path.name for path in begun.root.iterdir()} - set(before) <= {".lock"}


FIELDS = {
    "unknown": ({"colour": 1}, "unknown field 'colour'"),
    "text for a number": ({"image_size": "big"}, "image_size: must be a whole number"),
    "out of range": ({"image_size": 7}, "--image-size 7: must be between"),
    "no such tuner": ({"tuner": "magic"}, "tuner: must be one of"),
    "values in a list": ({"fix": [1]}, "fix: must be an object"),
    "truth for a number": ({"image_size": True}, "image_size: must be a whole number"),
    "a number for truth": ({"ensemble": 1}, "ensemble: must be true or false"),
    "a number for text": ({"classes": [1, 2]}, "classes: [0]: must be text"),
}


@pytest.mark.parametrize(("change", "message"), FIELDS.values(), ids=FIELDS)
def test_a_wrong_option_in_config_json_is_named(begun, capsys, change, message):
    path = begun.root / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert COMMANDS["resume"](begun.root) == 2
    assert message in said(capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["x" * 250, "x" * 300, "loop", "missing"])
def test_a_run_that_cannot_be_is_named(tmp_path, monkeypatch, capsys, name, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert COMMANDS[command](Path(name)) == 2
    assert name in said(capsys).replace(" ", "")


@pytest.mark.parametrize("command", ["report {}", "predict {} a.png", "run --resume {}"])
def test_a_run_whose_name_is_no_utf8_is_named(tmp_path, command):
    line = [os.fsencode(word.format("no\udcff")) for word in command.split()]
    done = subprocess.run(
        [sys.executable, "-m", "search", *line],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"no?: no such run" in done.stdout + done.stderr


ANY = tuple(COMMANDS)
UNREADABLE = {
    "config.json": ("resume", "watch", "report", "ablate"),
    "journal.jsonl": ("resume", "watch", "report"),
    "dataset.json": ("watch", "report"),
    "manifest.json": ("report", "predict", "evaluate"),
    "model.keras": ("predict", "evaluate"),
    ".": ANY,
    "..": ANY,
}


@pytest.mark.parametrize(
    ("name", "command"), [(name, each) for name, those in UNREADABLE.items() for each in those]
)
def test_what_may_not_be_read_is_named(begun, capsys, powerless, name, command):
    for other in [name] if name == "model.keras" else [name, "manifest.json", "model.keras"]:
        if not (begun.root / other).exists():
            (begun.root / other).write_text("{}")
    path = (begun.root / name).resolve()
    with powerless(path):
        assert COMMANDS[command](begun.root) == 2
    words = said(capsys)
    assert str(path).replace(" ", "") in words.replace(" ", "")
    assert "Permission denied" in words


@pytest.mark.parametrize("name", ["train/NORMAL", "test", "."])
def test_a_folder_of_images_that_may_not_be_listed_is_named(tmp_path, capsys, powerless, name):
    tree = make_tree(tmp_path / "tree", patients=2)
    with powerless(tree / name):
        assert data.main([str(tree), "--cache-dir", str(tmp_path / "cache")]) == 2
    assert f"{tree / name}: cannot be listed (Permission denied)" in said(capsys)


@pytest.mark.parametrize("typed", ["test/NORMAL", "test", "test/*/*.jpeg", "**/*.jpeg"])
def test_such_a_folder_gets_a_row_however_it_is_given(tmp_path, powerless, typed):
    tree = make_tree(tmp_path / "tree", patients=2)
    with powerless(tree / "test/NORMAL"):
        found = find_images([str(tree / typed)])
        assert tree / "test/NORMAL" in found
        with pytest.raises(DataError, match="Permission denied"):
            load_image(tree / "test/NORMAL", 32)


RESULTS = {
    "a file": lambda path: path.write_text(""),
    "a loop": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_results_folder_that_is_none_is_named(tmp_path, capsys, kind):
    RESULTS[kind](tmp_path / "results")
    given = ["--data", "demo", "--cache-dir", str(tmp_path / "cache"), "--no-live"]
    assert run.main([*given, "--image-size", "32", "--results-dir", str(tmp_path / "results")]) == 2
    assert str(tmp_path / "results").replace(" ", "") in said(capsys).replace(" ", "")


def test_of_two_runs_without_a_name_in_one_second_both_start(tmp_path, monkeypatch):
    same_second = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    monkeypatch.setattr("search.run_directory.datetime", same_second)
    names = [new_run(tmp_path).name for _ in range(3)]
    assert names == ["20260102-030405", "20260102-030405-2", "20260102-030405-3"]
