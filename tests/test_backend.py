"""Loading Keras and its backend, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_jax_keeps_small_programs_for_the_next_process_too(tmp_path):
    pytest.importorskip("jax")
    program = "from search import backend; keras = backend.load(); keras.ops.arange(7) + 3"
    kept = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "KERAS_BACKEND": "jax"}
    environment = {**os.environ, **kept, "PYTHONPATH": str(ROOT)}
    environment.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=True)
    assert any(path.is_file() for path in tmp_path.rglob("*"))
