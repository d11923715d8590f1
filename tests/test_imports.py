"""The import rules of ARCHITECTURE.md, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "tuning", "scoring", "reporting")
BELOW = {"scoring": {"data", "tuning"}}
GROUND = {"journal", "config", "records", "evidence", "errors", "history", "backend"}
LIGHT = [
    "search.run",
    "search.config",
    "search.records",
    "search.errors",
    "search.journal",
    "search.history",
    "search.report",
    "search.watch",
    "search.predict",
    "search.evaluate",
    "search.ablate",
    "search.data.prepare",
    "search.data.__main__",
    "search.reporting.console",
    "search.tuning.schedule",
]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sources(*parts: str) -> list[Path]:
    found = sorted(ROOT.joinpath(*parts).rglob("*.py"))
    assert found
    return found


def test_hypermodels_never_imports_search():
    for path in sources("hypermodels"):
        assert not any(name.split(".")[0] == "search" for name in imports(path)), path


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_other_room_and_nothing_above_it(room):
    allowed = {room, *GROUND, *BELOW.get(room, ())}
    for path in sources("search", room):
        # A room's own command line is above it: `python -m search.data` shows augmentation too.
        if path.name == "__main__.py":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "search" and len(parts) > 1:
                assert parts[1] in allowed, f"{path} imports {name}"
            assert parts[0] != "hypermodels", f"{path} imports {name}"


def test_only_the_workflow_and_a_rooms_command_line_import_hypermodels():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sources("search")
        if any(name.split(".")[0] == "hypermodels" for name in imports(path))
    }
    commands = {"search/data/__main__.py", "search/predict.py", "search/evaluate.py"}
    assert "search/workflow.py" in users
    assert users <= {"search/workflow.py", *commands}


def test_the_ground_imports_no_room():
    for name in sorted(GROUND):
        found = imports(ROOT / "search" / f"{name}.py")
        used = {n.split(".")[1] for n in found if n.startswith("search.")}
        assert used <= GROUND, name


def test_nothing_imports_tensorflow_when_it_is_imported():
    for path in [*sources("search"), *sources("hypermodels")]:
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "tensorflow" for name in names), path


def test_what_must_answer_at_once_loads_no_keras():
    code = (
        f"import importlib, sys\nfor name in {LIGHT!r}: importlib.import_module(name)\n"
        "heavy = {'keras', 'keras_tuner', 'tensorflow', 'jax', 'sklearn', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_answers_in_about_a_second():
    import time

    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "search.run", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--tuner" in done.stdout
    # The goal is one second; a loaded test machine gets some slack.
    assert time.perf_counter() - begin < 3
