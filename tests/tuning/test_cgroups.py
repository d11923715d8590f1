"""Limits of control groups, of both versions, in a made-up /sys/fs/cgroup."""

from pathlib import Path

import pytest

from search.tuning import cgroups

HUGE = str(2**63 - 4096)
"""What version 1 says where there is no limit."""


@pytest.fixture
def limits(tmp_path):
    def of(own: str, files: dict[str, str]) -> tuple[float | None, int | None]:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        where = {"root": tmp_path / "groups", "own": tmp_path / "own"}
        return cgroups.cpu_limit(**where), cgroups.free_memory_mb(**where)

    return of


def mib(count: int) -> str:
    return str(count * 2**20)


def test_the_smallest_limit_from_the_own_group_upwards_counts(limits):
    found = limits(
        "0::/job/step",
        {
            "job/step/cpu.max": "max 100000",
            "job/cpu.max": "250000 100000",
            "cpu.max": "800000 100000",
            "job/step/memory.max": mib(4000),
            "job/step/memory.current": mib(1500),
            "job/step/memory.stat": f"anon 5\ninactive_file {mib(500)}",
            "job/memory.max": "max",
            "job/memory.current": mib(9000),
        },
    )
    assert found == (2.5, 3000)


def test_version_1_is_understood(limits):
    found = limits(
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n0::/",
        {
            # Inside a container its own group is mounted at the top.
            "cpu,cpuacct/cpu.cfs_quota_us": "150000",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": mib(2000),
            "memory/memory.usage_in_bytes": mib(1200),
            "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {mib(100)}",
        },
    )
    assert found == (1.5, 900)


def test_no_limit_is_none_or_huge(limits):
    assert limits("0::/", {"cpu.max": "max 100000", "memory.max": "max"}) == (None, None)
    cores, memory = limits(
        "4:memory:/\n3:cpu:/",
        {
            **{"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            **{"memory/memory.limit_in_bytes": HUGE, "memory/memory.usage_in_bytes": "0"},
        },
    )
    assert cores is None
    assert memory > 10**9


def test_another_system_has_none(tmp_path):
    nowhere = {"root": Path(tmp_path / "none"), "own": tmp_path / "neither"}
    assert cgroups.cpu_limit(**nowhere) is None
    assert cgroups.free_memory_mb(**nowhere) is None
