"""What each of several workers gets of this machine: its threads, its GPU, its share of memory.

Knows no Keras: it only makes environment variables, which a worker sets before a backend is loaded.
Imports nothing but the standard library, for that worker's sake.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from search.tuning import cgroups

GPU_MEMORY_VARIABLE = "XRAY_SEARCH_GPU_MEMORY_MB"
"""Tells a worker on TensorFlow its share; JAX has a variable of its own."""

JAX_SHARE_VARIABLE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
RIVAL_VARIABLES = ("XLA_CLIENT_MEM_FRACTION",)
"""Its other name: JAX ends where both are set."""

GPU_SHARE = 0.9
"""Share of a GPU's memory that all workers on it take together, at the most."""
LEAST_GPU_SHARE = 0.5
CONTEXT_MB = 500
"""GPU memory that a process takes besides, for CUDA itself; so does the one that has the run."""


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
    by_index = {gpu.index: gpu for gpu in found}
    memory = min((gpu.memory_mb for gpu in found), default=0)
    chosen = []
    for name in filter(None, map(str.strip, visible.split(","))):
        if name not in by_index and name.lstrip("-").isdigit():
            break  # CUDA takes no name after one that no GPU has; -1 is the usual one
        # A name may also be a UUID or a slice of a GPU; it is kept as it is.
        chosen.append(by_index.get(name, Gpu(index=name, memory_mb=memory)))
    return tuple(chosen)


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
            if "CUDA_DEVICE_ORDER" not in os.environ:
                # As nvidia-smi counts them; by itself CUDA begins with the fastest.
                environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            environment |= _memory_variables(neighbours, gpu.memory_mb)
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
    return _memory_variables(1 / share, memory)


def _memory_variables(workers: float, memory_mb: int) -> dict[str, str]:
    """Return what keeps a worker to its share of a GPU's memory, on JAX and on TensorFlow.

    Args:
        workers: How many have the GPU.
        memory_mb: Its memory, 0 if unknown.
    """
    contexts = CONTEXT_MB * (workers + 1) / memory_mb if memory_mb else 0.0
    share = max(LEAST_GPU_SHARE, min(GPU_SHARE, 1 - contexts)) / workers
    variables = {
        JAX_SHARE_VARIABLE: f"{share:.3f}",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
    }
    if memory_mb:
        variables[GPU_MEMORY_VARIABLE] = str(int(share * memory_mb))
    return variables


def set_environment(variables: dict[str, str]) -> None:
    """Set a worker's variables, before a backend is loaded in it."""
    if JAX_SHARE_VARIABLE in variables:
        for name in RIVAL_VARIABLES:
            os.environ.pop(name, None)
    os.environ.update(variables)


def usable_cores() -> int:
    """Return how many CPU cores this process may use, whole ones."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    limit = cgroups.cpu_limit()
    return cores if limit is None else max(1, min(cores, int(limit)))


def available_memory_mb() -> int | None:
    """Return the main memory that is free for use, in MiB; None where the system does not say."""
    known = [mb for mb in (_system_memory_mb(), cgroups.free_memory_mb()) if mb is not None]
    return min(known, default=None)


def _system_memory_mb() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            for line in handle:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) // 1024
    except OSError:
        pass
    return None
