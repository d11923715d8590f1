"""What each of several workers gets of this machine: its threads, its GPU, its share of memory.

Knows no Keras: it only makes environment variables, which a worker sets before a backend is loaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

GPU_MEMORY_VARIABLE = "XRAY_SEARCH_GPU_MEMORY_MB"
"""Tells a worker on TensorFlow its share; JAX has a variable of its own."""

GPU_SHARE = 0.9
"""Share of a GPU's memory that all workers on it take together; contexts need the rest."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU.

    Attributes:
        index: What `CUDA_VISIBLE_DEVICES` calls it.
        memory_mb: Its memory in MiB.
    """

    index: str
    memory_mb: int


def find_gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that this process may use, without loading a backend."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        told = subprocess.run(
            [tool, "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = []
    for line in told.splitlines():
        index, _, megabytes = line.partition(",")
        if megabytes.strip().isdigit():
            found.append(Gpu(index=index.strip(), memory_mb=int(megabytes)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(found)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    by_index = {gpu.index: gpu for gpu in found}
    # A name may also be a UUID or a slice of a GPU; it is kept as it is.
    memory = min((gpu.memory_mb for gpu in found), default=0)
    return tuple(by_index.get(name, Gpu(index=name, memory_mb=memory)) for name in names)


def worker_environments(
    workers: int, *, gpus: Sequence[Gpu] = (), cores: int | None = None
) -> list[dict[str, str]]:
    """Return the environment variables of each worker.

    On a CPU the cores are divided, so that workers do not fight over them; on GPUs the workers are
    dealt out in turn and share each GPU's memory.

    Args:
        workers: How many there are.
        gpus: The GPUs to use; none means the CPU.
        cores: CPU cores to divide; those of this process by default.
    """
    threads = max(1, (cores or usable_cores()) // workers)
    environments: list[dict[str, str]] = []
    for number in range(workers):
        environment = {}
        if gpus:
            gpu = gpus[number % len(gpus)]
            neighbours = len(range(number % len(gpus), workers, len(gpus)))
            environment["CUDA_VISIBLE_DEVICES"] = gpu.index
            environment |= _memory_variables(GPU_SHARE / neighbours, gpu.memory_mb)
        if workers > 1:
            environment |= thread_variables(threads)
        environments.append(environment)
    return environments


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that keep a worker to so many CPU cores."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")
    return dict.fromkeys((*names, "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def gpu_share_variables(share: float) -> dict[str, str]:
    """Return the environment variables of a worker that has a share of the one GPU it may see.

    Args:
        share: Of the GPU that `CUDA_VISIBLE_DEVICES` names here; 0 for the CPU alone.
    """
    if not share:
        return {"CUDA_VISIBLE_DEVICES": ""}
    memory = min((gpu.memory_mb for gpu in find_gpus()), default=0)
    return _memory_variables(GPU_SHARE * share, memory)


def _memory_variables(share: float, memory_mb: int) -> dict[str, str]:
    """Return what keeps a worker to its share of a GPU's memory, on JAX and on TensorFlow."""
    variables = {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{share:.3f}",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
    }
    if memory_mb:
        variables[GPU_MEMORY_VARIABLE] = str(int(share * memory_mb))
    return variables


def usable_cores() -> int:
    """Return how many CPU cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def available_memory_mb() -> int | None:
    """Return the main memory that is free for use, in MiB; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            for line in handle:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) // 1024
    except OSError:
        pass
    return None
