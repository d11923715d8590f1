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


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, ["0", "1"]), ("1", ["1"]), ("", []), ("GPU-abc", ["GPU-abc"])],
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
