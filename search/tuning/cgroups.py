"""What a container or a batch job lets this process use: the limits of its control groups.

Linux has two interfaces, of which a machine may have both. A limit binds all groups inside, so the
smallest from the process's own group upwards counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cpu_limit(*, root: Path = ROOT, own: Path = OWN) -> float | None:
    """Return how many cores' time may be used, None without a limit.

    Args:
        root: Where the groups are.
        own: The file that names this process's groups.
    """
    found = []
    for group in _groups("cpu", root, own):
        both = _text(group / "cpu.max").split()
        quota, period = both or (
            _text(group / "cpu.cfs_quota_us"),
            _text(group / "cpu.cfs_period_us"),
        )
        if quota.isdigit() and period.isdigit():  # else "max", or -1
            found.append(int(quota) / int(period))
    return min(found, default=None)


def free_memory_mb(*, root: Path = ROOT, own: Path = OWN) -> int | None:
    """Return the main memory that is left to use, in MiB, None without a limit.

    What is kept of files that were read counts as free, as in the system's own "available".

    Args:
        root: Where the groups are.
        own: The file that names this process's groups.
    """
    found = []
    for group in _groups("memory", root, own):
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


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups that a controller limits, and of those above."""
    for line in _text(own).splitlines():
        _, controllers, inside = line.split(":", 2)
        if not controllers:
            bases = {root, root / "unified"}
        elif controller in controllers.split(","):
            bases = {root / controllers, root / controller}
        else:
            continue
        for base in bases:
            group = base / inside.lstrip("/")
            yield group
            yield from (above for above in group.parents if above.is_relative_to(base))


def _text(path: Path) -> str:
    """Return what a file says, "" where it is not there or not to be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
