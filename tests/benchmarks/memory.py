"""How much main memory does a search take? The peak of each of its processes, and of all together.

Runs `python -m search.run` with the options given and reads `/proc` twice a second: VmHWM of
every process, which counts mapped files too, and the sum of their proportional shares (Pss), which
counts what they share once. Linux only.

    python tests/benchmarks/memory.py --tuner random --data ../shared/chest_xray --image-size 180 \\
        --max-epochs 1 --max-trials 6 --refit-epochs 1 --refit-seeds 1 --name mem180 --overwrite
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.5


def family(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # After the name in parentheses: the state, then the parent.
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            parents[int(entry.name)] = int(fields[1])
        except (OSError, IndexError):
            continue  # it has ended
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def field(pid: int, file: str, name: str) -> int:
    """Return a field of a file under /proc/PID in MB, 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return (
        next((int(line.split()[1]) for line in lines if line.startswith(name)), 0) * 1024 // 10**6
    )


def main(options: list[str]) -> int:
    """Run the search and print the table; the exit code is the search's."""
    process = subprocess.Popen([sys.executable, "-m", "search.run", "--no-live", *options])
    peaks: dict[int, int] = {}
    names: dict[int, str] = {}
    together = 0
    while process.poll() is None:
        alive = family(process.pid)
        for pid in alive:
            peak = field(pid, "status", "VmHWM:")
            if peak > peaks.get(pid, 0):
                peaks[pid] = peak
                names[pid] = "the command" if pid == process.pid else "a child"
        together = max(together, sum(field(pid, "smaps_rollup", "Pss:") for pid in alive))
        time.sleep(POLL_SECONDS)
    print("\nprocess        pid     peak (VmHWM)")
    for pid, peak in sorted(peaks.items(), key=lambda item: -item[1]):
        print(f"{names[pid]:12}{pid:7}{peak:10,} MB")
    largest = max(peaks.values(), default=0)
    print(f"\nlargest process {largest:,} MB; all together {together:,} MB (Pss)")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
