"""The rules of imports, read from the source: a stack, without circles, and light where it says."""

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STACK = (
    {"errors", "records", "backend"},
    {"journal", "run_directory", "config"},
    {"data"},
    {"tuning"},
    {"scoring"},
    {"reporting"},
    {"workflow"},
    {"cli", "run", "predict", "evaluate", "report", "watch", "ablate", "__main__"},
)
"""What may be imported from above only; within a floor each other, but not in a circle."""


ABOVE = {
    "search.data.__main__": "the command of a room shows augmentation too",
}
"""Modules that import from above, with the reason."""

LIGHT = [
    *("search", "search.__main__", "search.run", "search.config", "search.journal"),
    *("search.run_directory", "search.report", "search.watch", "search.predict"),
    *("search.evaluate", "search.ablate", "search.data.prepare", "search.data.__main__"),
    *("search.reporting.console", "search.tuning.schedule"),
]
HEAVY = {"keras", "keras_tuner", "tensorflow", "jax", "sklearn", "scipy", "matplotlib"}


def sources() -> dict[str, Path]:
    """Return every module of ours by name."""
    found = {}
    for package in ("search", "hypermodels"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = sources()


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Return the names a file imports, those inside of functions too unless `at_import`."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    # `from search import cli` needs `search.cli`, and of the package itself nothing.
    return {name for name in names if name in MODULES} - {"search"}


def floor(module: str) -> int:
    """Return how high a module stands."""
    parts = module.split(".")
    if parts[0] == "hypermodels":
        return 0
    if len(parts) < 2:
        return len(STACK)
    return next(height for height, names in enumerate(STACK) if parts[1] in names)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_nothing_from_above(module):
    for name in ours(imports(MODULES[module])):
        assert module in ABOVE or floor(name) <= floor(module), f"{module} imports {name}"


def test_hypermodels_can_be_used_without_the_search():
    for module, path in MODULES.items():
        if module.startswith("hypermodels"):
            assert not {name for name in imports(path) if name.split(".")[0] == "search"}, module


def test_no_modules_import_each_other_in_a_circle():
    uses = {module: ours(imports(path)) - {module} for module, path in MODULES.items()}
    while leaves := [module for module, used in uses.items() if not used & set(uses)]:
        for module in leaves:
            del uses[module]
    # One starts the other in a process of its own.
    assert not set(uses) - reach(uses, {"search.scoring.conversion", "search.scoring.export"})


def reach(uses: dict[str, set[str]], those: set[str]) -> set[str]:
    """Return `those` and what uses them, however indirectly."""
    found = those & set(uses)
    while more := {module for module in set(uses) - found if uses[module] & found}:
        found |= more
    return found


def test_nothing_imports_tensorflow_when_it_is_imported():
    for module, path in MODULES.items():
        names = imports(path, at_import=True)
        assert not any(name.split(".")[0] == "tensorflow" for name in names), module


def test_what_must_answer_at_once_loads_no_keras():
    code = (
        f"import importlib, sys\nfor name in {LIGHT!r}: importlib.import_module(name)\n"
        "from search import watch; watch.main(['tests/reporting/run', '--once'])\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_answers_in_about_a_second():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "search.run", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--tuner" in done.stdout
    # Of the processor's time: on a machine that does something else the clock tells nothing.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
