"""This machine: its cores, GPUs and memory, and what each of several workers gets of them.

By rules, not by measuring: how many workers train at once, and in which precision. Limits of
containers and batch jobs (Linux control groups) count as the machine's.

Knows no Keras: it only makes environment variables, which a worker sets before a backend is loaded.
Imports nothing but the standard library, for that worker's sake.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GPU_MEMORY_VARIABLE = "XRAY_SEARCH_GPU_MEMORY_MB"
"""A worker on TensorFlow reads its share here; JAX has a variable of its own."""

JAX_SHARE_VARIABLE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
RIVAL_VARIABLES = ("XLA_CLIENT_MEM_FRACTION",)
"""Its other name: JAX ends where both are set."""

GPU_SHARE = 0.9
"""Share of a GPU's memory that all workers on it take together, at the most."""
LEAST_GPU_SHARE = 0.5
CONTEXT_MB = 500
"""GPU memory that a process takes besides, for CUDA itself; so does the one that has the run."""

WORKER_MEMORY_MB = 2500
"""Main memory of a worker, at 180 × 180 on TensorFlow."""

GPU_WORKER_MEMORY_MB = 8000
MOST_PER_GPU = 4
"""A GPU gets a worker for each so many MiB, and at most so many: beyond that they only take turns
at computing."""

MIXED = "mixed_bfloat16"
BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
"""What Linux calls a processor's instructions that multiply in bfloat16."""

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU."""

    index: str  # What `CUDA_VISIBLE_DEVICES` calls it
    memory_mb: int  # Its memory in MiB


def find_gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that this process may use, without loading a backend."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listed = subprocess.run(
            [tool, "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = []
    for line in listed.splitlines():
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


def default_workers(trials: int, *, gpus: Sequence[Gpu] = ()) -> int:
    """Return how many workers train at once where no number was asked for.

    On a CPU min(trials, max(2, cores / 2), memory / 2.5 GB): a network of this size keeps two cores
    busy, not more. On GPUs one worker for every 8 GB of each, at most four on one.

    Args:
        trials: How many there are to train.
        gpus: The GPUs to use; none means the CPU.
    """
    if gpus:
        most = sum(min(MOST_PER_GPU, gpu.memory_mb // GPU_WORKER_MEMORY_MB) or 1 for gpu in gpus)
    else:
        most = max(2, usable_cores() // 2)
    memory = available_memory_mb()
    if memory is not None:
        most = min(most, memory // WORKER_MEMORY_MB)
    return max(1, min(trials, most))


def default_precision(*, gpu: bool, jax: bool = False) -> str:
    """Return the Keras dtype policy of trials where none was asked for.

    Args:
        gpu: Whether they train on GPUs, all of which compute in bfloat16.
        jax: Whether JAX computes, whose max pooling of bfloat16 on a CPU gave infinities (0.11.2).
    """
    return MIXED if gpu or (_multiplies_in_bfloat16() and not jax) else "float32"


def _multiplies_in_bfloat16() -> bool:
    for line in _text(CPU_INFO).splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return not BFLOAT16_FLAGS.isdisjoint(flags.split())
    return False


def worker_environments(
    workers: int, *, gpus: Sequence[Gpu] = (), cores: int | None = None
) -> list[dict[str, str]]:
    """Return the environment variables of each worker.

    On a CPU the cores are divided, so that workers do not compete for them; on GPUs the workers are
    distributed in turn and share each GPU's memory.

    A trial's sums depend on the threads that compute them. So scores are the same, bit for bit, for
    the same number of threads per worker on the same kind of processor; between others, one worker
    and two on two cores for example, a metric may differ by some 0.001.

    Args:
        workers: How many there are.
        gpus: The GPUs to use; none means the CPU.
        cores: CPU cores to divide; those of this process by default.
    """
    threads = threads_per_worker(workers, cores=cores)
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


def threads_per_worker(workers: int, *, cores: int | None = None) -> int:
    """Return how many threads compute in each of some workers."""
    return max(1, (cores or usable_cores()) // workers)


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
    """Return what keeps each of some workers to its share of a GPU's memory, 0 if unknown."""
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
    """Return how many CPU cores this process may use; a container's limit counts."""
    from joblib import cpu_count  # not where a worker begins

    return int(cpu_count())


def available_memory_mb() -> int | None:
    """Return the main memory that is free for use, in MiB; None where the system does not say."""
    known = [mb for mb in (_system_memory_mb(), free_memory_mb()) if mb is not None]
    return min(known, default=None)


def _system_memory_mb() -> int | None:
    for line in _text(MEMORY_INFO).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return None


def resident_mb() -> int:
    """Return the main memory this process holds, in MB, mapped files included; 0 if unknown."""
    fields = _text(Path("/proc/self/statm")).split()
    if len(fields) < 2:  # not Linux
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def free_memory_mb(*, root: Path = CGROUP_ROOT, own: Path = CGROUP_OWN) -> int | None:
    """Return the main memory that the control groups leave, in MiB, None without a limit.

    What is kept of files that were read counts as free, as in the system's own "available".

    Args:
        root: Where the groups are.
        own: The file that names this process's groups.
    """
    found = []
    for group in _groups(root, own):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, now = _text(group / limit), _text(group / used)
            if most.isdigit() and now.isdigit():
                stated = (line.split() for line in _text(group / "memory.stat").splitlines())
                kept = next((int(value) for name, value in stated if name == cache), 0)
                found.append(max(0, int(most) - int(now) + kept) // 2**20)
    return min(found, default=None)


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups that limit memory, and of those above.

    Linux has two interfaces, of which a machine may have both.
    """
    for line in _text(own).splitlines():
        _, controllers, inside = line.split(":", 2)
        if not controllers:
            bases = {root, root / "unified"}
        elif "memory" in controllers.split(","):
            bases = {root / controllers, root / "memory"}
        else:
            continue
        for base in bases:
            group = base / inside.lstrip("/")
            yield group
            yield from (above for above in group.parents if above.is_relative_to(base))


def _text(path: Path) -> str:
    """Return the text of a file, "" where it is not there or not to be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
