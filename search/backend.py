"""Loads Keras and its backend quietly, and says what it runs on; imported only when needed.

Importing Keras takes seconds and prints from C++; nothing that answers at once may import it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from search.errors import ConfigurationError


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep C++ start-up chatter off the terminal; an exception lets it through."""
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(descriptor)
        os.dup2(kept.fileno(), descriptor)
        try:
            yield
        except BaseException:
            os.dup2(saved, descriptor)
            kept.seek(0)
            sys.stderr.write(kept.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, descriptor)
            os.close(saved)


def load() -> Any:
    """Import Keras, its backend and KerasTuner, once, and return `keras`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A process takes GPU memory as it needs it, so that workers have room beside their parent;
    # they are given a share each, see `tuning/devices.py`.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Trials and workers of the same shapes share what JAX compiled, also the next run's.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "xray-search" / "compiled"))
    # Also the small ones: a trial has some 300, which took a CPU 6 s in all.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # TensorFlow warns of retracing because every trial is a new model, which is intended here.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quiet_stderr():
        keras = _import_keras()
        # What ~/.keras/keras.json says of them is for other programs.
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")

        if keras.backend.backend() == "tensorflow":
            _limit_gpu_memory()
            _end_data_sets_at_once()
        keras.ops.zeros(1)
    return keras


BACKENDS = ("tensorflow", "jax", "torch")
"""What Keras computes with; the first is the default."""


def _import_keras() -> Any:
    """Import Keras on the backend that was asked for.

    Raises:
        ConfigurationError: Keras has no such backend, or it is not installed; names the remedy.
    """
    asked = os.environ.get("KERAS_BACKEND", "")
    if asked and asked not in BACKENDS:
        raise ConfigurationError(f"KERAS_BACKEND={asked}: choose one of {', '.join(BACKENDS)}")
    try:
        import keras
        import keras_tuner  # noqa: F401
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in BACKENDS:
            raise
        raise ConfigurationError(
            f"KERAS_BACKEND={asked or 'in keras.json'}: {error.name} is not installed; install it, "
            f"or set KERAS_BACKEND={BACKENDS[0]}"
        ) from None
    if keras.backend.backend() not in BACKENDS:
        raise ConfigurationError(
            f"the backend {keras.backend.backend()!r} of keras.json is not supported; set "
            f"KERAS_BACKEND={BACKENDS[0]}"
        )
    return keras


def _end_data_sets_at_once() -> None:
    """Turn off the tuning of the tf.data pipelines that Keras makes of our feeds.

    Its thread sleeps ever longer, up to a minute, and TensorFlow 2.21 waits for it to wake when the
    pipeline of an epoch ends: in searches of five minutes that was seen once or twice, 14 to 16
    seconds each, with idle cores (`results/studies/overhead`). The feed gathers rows of an array in
    memory; there is nothing to tune.
    """
    try:
        from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
    except ImportError:  # another Keras: slower, not wrong
        return
    whole = PyDatasetAdapter.get_tf_dataset
    if getattr(whole, "ends_at_once", False):
        return

    def untuned(self: Any) -> Any:
        import tensorflow as tf

        options = tf.data.Options()
        options.autotune.enabled = False
        return whole(self).with_options(options)

    untuned.ends_at_once = True  # type: ignore[attr-defined]
    PyDatasetAdapter.get_tf_dataset = untuned


def _limit_gpu_memory() -> None:
    """Keep a worker on TensorFlow to its share of the GPU; JAX reads a variable of its own."""
    share = os.environ.get("XRAY_SEARCH_GPU_MEMORY_MB")
    if share is None:
        return
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(share))
        # Refused once the GPU is in use, which is the case when `load` is called again.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(gpu, [limit])


def name() -> str:
    """Return the name of Keras' backend, e.g. "tensorflow"."""
    return str(load().backend.backend())


def device() -> str:
    """Return what training runs on, e.g. "2 × CPU core (tensorflow)" or "gpu:0 (jax)"."""
    found = gpus()
    place = ", ".join(found) if found else f"CPU, {os.cpu_count()} cores"
    return f"{place} ({name()})"


def gpus() -> list[str]:
    """Return the GPUs that training runs on, [] where it runs on the CPU."""
    try:
        return list(load().distribution.list_devices("gpu"))
    except RuntimeError:  # JAX has no empty list: without a GPU, "gpu" is unknown to it
        return []


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and what it computes with."""
    found = {"python": platform.python_version()}
    for package in ("xray-search", "keras", "keras-tuner", "tensorflow", "jax", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
