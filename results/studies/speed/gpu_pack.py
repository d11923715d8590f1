"""Packs what `gpu_session.py` needs on a lent GPU machine without network, into `.gpu/`.

`.gpu/wheels`: Keras, KerasTuner and what they need beyond JAX and NumPy, which the machine has.
`.gpu/chest_xray.tar`: the films. `.gpu/earlier`: what earlier sessions measured, with --keep, so
that the next one goes on from there. The folder is ignored by git and named in `carry`.

    python results/studies/speed/gpu_pack.py --data ../shared/chest_xray
    python results/studies/speed/gpu_pack.py --keep PATH/NAME.tgz    # the last of a session
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACK = ROOT / ".gpu"
PACKAGES = (
    "keras==3.15.1",
    "keras-tuner==1.4.8",
    "kt-legacy",
    "namex",
    "optree",
    "six",
    "simplejpeg",
)
MOST_BYTES = 60 * 2**20


def fetch_wheels(folder: Path, python: str) -> None:
    """Download the wheels, without what they need, for another Python on x86-64 Linux."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + ["manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder), "--only-binary=:all:", "--python-version", python]
    command += ["--implementation", "cp"]
    for platform in platforms:
        command += ["--platform", platform]
    subprocess.run([*command, *PACKAGES], check=True)


def pack_films(data: Path, target: Path) -> None:
    """Write the folder as `chest_xray/` into a tar, once."""
    if target.exists():
        return
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; give --data DIR with train/ and test/")
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        tar.add(data, arcname="chest_xray")
    partial.rename(target)


def main() -> int:
    """Pack, and say what to run there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "chest_xray")
    parser.add_argument("--python", default="3.12", help="that machine's (3.12)")
    parser.add_argument("--keep", type=Path, help="the last .tgz of an earlier session")
    options = parser.parse_args()
    PACK.mkdir(exist_ok=True)
    if not list((PACK / "wheels").glob("*.whl")):
        fetch_wheels(PACK / "wheels", options.python)
    pack_films(options.data, PACK / "chest_xray.tar")
    if options.keep:
        shutil.rmtree(PACK / "earlier", ignore_errors=True)
        with tarfile.open(options.keep) as tar:
            tar.extractall(PACK / "earlier", filter="data")
    total = sum(path.stat().st_size for path in PACK.rglob("*") if path.is_file())
    print(f"{PACK}: {total / 2**20:.0f} MiB")
    if total > MOST_BYTES:
        print("that is near the limit of what may travel (64 MiB with the working tree)")
    print("There, with carry=['.gpu']; --keep the results before each further call:")
    print("  python3 results/studies/speed/gpu_session.py --out $OUT --minutes 9.5")
    return 0


if __name__ == "__main__":
    sys.exit(main())
