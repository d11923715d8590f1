"""Loading Keras and its backend, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_jax_keeps_small_programs_for_the_next_process_too(tmp_path, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    program = "from search import backend; keras = backend.load(); keras.ops.arange(7) + 3"
    done = run(program, JAX_COMPILATION_CACHE_DIR=str(tmp_path), KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    assert any(path.is_file() for path in tmp_path.rglob("*"))


LOADS = (
    "from search import backend; keras = backend.load();"
    "assert keras.config.image_data_format() == 'channels_last';"
    "assert keras.config.floatx() == 'float32'"
)


@pytest.mark.parametrize(
    "settings", [{"image_data_format": "channels_first"}, {"floatx": "float16"}]
)
def test_settings_of_another_program_change_nothing(tmp_path, settings):
    whole = {"floatx": "float32", "epsilon": 1e-7, "backend": "tensorflow", **settings}
    (tmp_path / "keras.json").write_text(json.dumps(whole))
    done = run(LOADS, KERAS_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr


REFUSED = (
    "import sys; from search import backend, cli;"
    "sys.exit(cli.execute(lambda _: int(bool(backend.load()))))"
)


@pytest.mark.parametrize("name", ["tensorflo", "numpy", "theano"])
def test_a_backend_that_cannot_be_is_one_line_with_the_remedy(name):
    done = run(REFUSED, KERAS_BACKEND=name)
    assert done.returncode == 2
    assert done.stderr == (f"error: KERAS_BACKEND={name}: choose one of tensorflow, jax, torch\n")


def test_a_backend_that_is_not_installed_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='jax')")
    done = run(REFUSED, KERAS_BACKEND="jax", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 2, done.stderr
    assert "KERAS_BACKEND=jax: jax is not installed; install it" in done.stderr.splitlines()[-1]


def test_an_unsupported_backend_in_keras_json_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "numpy"}))
    environment = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": ""}
    done = run("import os; os.environ.pop('KERAS_BACKEND');" + REFUSED, **environment)
    assert done.returncode == 2, done.stderr
    assert "keras.json" in done.stderr.splitlines()[-1]
