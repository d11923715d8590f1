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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorflo", "error: KERAS_BACKEND=tensorflo: choose one of tensorflow, jax, torch"),
        ("numpy", "error: KERAS_BACKEND=numpy: choose one of tensorflow, jax, torch"),
        ("jax", "KERAS_BACKEND=jax: jax is not installed; install it"),
        ("", "keras.json"),
    ],
)
def test_a_backend_that_cannot_be_is_one_line_with_the_remedy(tmp_path, monkeypatch, name, said):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "numpy"}))
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='jax')")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    named = {"KERAS_BACKEND": name} if name else {"KERAS_HOME": str(tmp_path)}
    done = run(REFUSED, PYTHONPATH=f"{tmp_path}:{ROOT}", **named)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
