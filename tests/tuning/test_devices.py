"""This machine, how many workers it gets by the rule, and what each of them gets of it."""

import os
import subprocess

import pytest

from search.tuning import devices
from search.tuning.devices import (
    GPU_MEMORY_VARIABLE,
    Gpu,
    default_precision,
    default_workers,
    find_gpus,
    worker_environments,
)

MIB = 2**20


@pytest.mark.parametrize(
    ("cores", "memory", "gpus", "trials", "expected"),
    [
        (2, 16_000, (), 50, 2),
        (1, None, (), 50, 2),
        (16, 64_000, (), 50, 8),
        (16, 64_000, (), 3, 3),
        (16, 8_000, (), 50, 3),
        (16, 500, (), 50, 1),
        (1, None, (80_000,), 50, 4),
        (1, None, (16_000,), 50, 2),
        (1, None, (6_000,), 50, 1),
        (1, None, (80_000, 24_000), 50, 7),
        (1, None, (80_000, 24_000), 1, 1),
    ],
)
def test_trials_memory_and_cores_or_gpus_limit_the_workers(
    monkeypatch, cores, memory, gpus, trials, expected
):
    monkeypatch.setattr(devices, "usable_cores", lambda: cores)
    monkeypatch.setattr(devices, "available_memory_mb", lambda: memory)
    found = [Gpu(index=str(i), memory_mb=size) for i, size in enumerate(gpus)]
    assert default_workers(trials, gpus=found) == expected


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 avx512f avx512_bf16", "mixed_bfloat16"),
        ("fpu amx_bf16 amx_tile", "mixed_bfloat16"),
        ("fpu avx2 avx512f", "float32"),
    ],
)
def test_bfloat16_where_the_processor_multiplies_in_it(monkeypatch, tmp_path, flags, precision):
    (tmp_path / "cpuinfo").write_text(f"model name\t: any\nflags\t\t: {flags}\n")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    assert default_precision(gpu=False) == precision
    assert default_precision(gpu=False, jax=True) == "float32"
    assert default_precision(gpu=True, jax=True) == default_precision(gpu=True) == "mixed_bfloat16"
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "none")  # another system than Linux
    assert default_precision(gpu=False) == "float32"


def test_cores_are_divided_and_one_worker_keeps_them_all():
    assert worker_environments(1, cores=8) == [{}]
    four = worker_environments(4, cores=8)
    assert [e["TF_NUM_INTRAOP_THREADS"] for e in four] == ["2"] * 4
    assert {e["NPROC"] for e in worker_environments(8, cores=2)} == {"1"}


def test_gpus_are_dealt_out_and_their_memory_shared():
    gpus = [Gpu(index="0", memory_mb=80_000), Gpu(index="3", memory_mb=40_000)]
    found = worker_environments(3, gpus=gpus, cores=12)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in found] == ["0", "3", "0"]
    shares = [float(e["XLA_PYTHON_CLIENT_MEM_FRACTION"]) for e in found]
    assert shares == [0.45, 0.9, 0.45]
    assert [e[GPU_MEMORY_VARIABLE] for e in found] == ["36000", "36000", "36000"]


@pytest.mark.parametrize(("workers", "memory"), [(4, 16_000), (16, 81_559), (8, 24_000)])
def test_a_gpu_has_room_for_every_process_besides_the_workers_shares(workers, memory):
    (first, *_) = worker_environments(workers, gpus=[Gpu(index="0", memory_mb=memory)])
    taken = float(first["XLA_PYTHON_CLIENT_MEM_FRACTION"]) * memory * workers
    assert memory / 2 < taken <= memory - 500 * (workers + 1) + 0.001 * memory * workers
    same = devices.gpu_share_variables(1 / workers)
    assert same["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


def test_workers_count_gpus_as_nvidia_smi_does_unless_told_otherwise(monkeypatch):
    gpus = [Gpu(index="1", memory_mb=80_000)]
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert worker_environments(1, gpus=gpus)[0]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert "CUDA_DEVICE_ORDER" not in worker_environments(1, gpus=gpus)[0]


def test_a_share_of_the_users_own_does_not_stand_beside_ours(monkeypatch):
    monkeypatch.setattr(devices.os, "environ", {"XLA_CLIENT_MEM_FRACTION": "0.3"})
    devices.set_environment({"NPROC": "1"})
    assert devices.os.environ == {"XLA_CLIENT_MEM_FRACTION": "0.3", "NPROC": "1"}
    devices.set_environment(worker_environments(1, gpus=[Gpu(index="0", memory_mb=1000)])[0])
    assert "XLA_CLIENT_MEM_FRACTION" not in devices.os.environ
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in devices.os.environ


def test_a_containers_limits_count(monkeypatch):
    monkeypatch.setattr(devices, "free_memory_mb", lambda: None)
    memory = devices.available_memory_mb()
    assert 1 <= devices.usable_cores() <= os.cpu_count()
    monkeypatch.setattr(devices, "free_memory_mb", lambda: 7)
    assert devices.available_memory_mb() == 7
    monkeypatch.setattr(devices, "free_memory_mb", lambda: 10**9)
    assert memory is None or devices.available_memory_mb() < 10**9


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1"]),
        ("1", ["1"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("0,7,1", ["0"]),
        ("GPU-abc", ["GPU-abc"]),
    ],
)
def test_only_visible_gpus_are_used(monkeypatch, visible, expected):
    listed = subprocess.CompletedProcess([], 0, stdout="0, 81559\n1, 81559\nnonsense\n")
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: listed)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_gpus()
    assert [gpu.index for gpu in found] == expected
    assert all(gpu.memory_mb == 81559 for gpu in found)


@pytest.mark.parametrize("tool", [None, "/usr/bin/nvidia-smi"])
def test_no_tool_or_a_broken_one_means_no_gpu(monkeypatch, tool):
    def fails(*_, **__):
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(devices.shutil, "which", lambda name: tool)
    monkeypatch.setattr(devices.subprocess, "run", fails)
    assert find_gpus() == ()


JOB = {
    "job/step/memory.max": 4000 * MIB,
    "job/step/memory.current": 1500 * MIB,
    "job/step/memory.stat": f"anon 5\ninactive_file {500 * MIB}",
    "job/memory.max": "max",
    "job/memory.current": 9000 * MIB,
}
# Of version 1. Inside a container its own group is mounted at the top.
CONTAINER = {
    "memory/memory.limit_in_bytes": 2000 * MIB,
    "memory/memory.usage_in_bytes": 1200 * MIB,
    "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MIB}",
}
OWN_CONTAINER = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n0::/"
UNLIMITED = {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": 0}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/job/step", JOB, 3000),
        (OWN_CONTAINER, CONTAINER, 900),
        ("0::/", {"memory.max": "max"}, None),
        ("4:memory:/\n3:cpu:/", UNLIMITED, (2**63 - 4096) // MIB),
        ("", {}, None),
    ],
    ids=["version 2", "version 1", "no limit", "no limit in version 1", "none of both"],
)
def test_the_smallest_memory_limit_from_the_own_control_group_upwards_counts(
    tmp_path, own, files, expected
):
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    if own:
        (tmp_path / "own").write_text(own)
    found = devices.free_memory_mb(root=tmp_path / "groups", own=tmp_path / "own")
    assert found == expected
