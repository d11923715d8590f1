"""What each worker gets of the machine."""

import subprocess

import pytest

from search.tuning import devices
from search.tuning.devices import GPU_MEMORY_VARIABLE, Gpu, find_gpus, worker_environments


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
    monkeypatch.setattr(devices.cgroups, "cpu_limit", lambda: None)
    monkeypatch.setattr(devices.cgroups, "free_memory_mb", lambda: None)
    cores, memory = devices.usable_cores(), devices.available_memory_mb()
    monkeypatch.setattr(devices.cgroups, "cpu_limit", lambda: 0.5)
    monkeypatch.setattr(devices.cgroups, "free_memory_mb", lambda: 7)
    assert (devices.usable_cores(), devices.available_memory_mb()) == (1, 7)
    monkeypatch.setattr(devices.cgroups, "cpu_limit", lambda: 1e6)
    monkeypatch.setattr(devices.cgroups, "free_memory_mb", lambda: 10**9)
    assert devices.usable_cores() == cores
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
    told = subprocess.CompletedProcess([], 0, stdout="0, 81559\n1, 81559\nnonsense\n")
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: told)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_gpus()
    assert [gpu.index for gpu in found] == expected
    assert all(gpu.memory_mb == 81559 for gpu in found)


def test_no_tool_or_a_broken_one_means_no_gpu(monkeypatch):
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    assert find_gpus() == ()

    def fails(*_, **__):
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(devices.subprocess, "run", fails)
    assert find_gpus() == ()
