"""Finds the images: a folder, a `.zip`, an earlier or a new Kaggle download, or the demo.

Looks only where the layouts met in the wild put them, never recursively: Kaggle's archive holds
the whole set a second time in `chest_xray/chest_xray`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from search.data import kaggle
from search.data.archive import extract
from search.data.cache import Progress, silent
from search.data.demo import write_demo
from search.data.listing import child, nested_folders
from search.errors import DataError

__all__ = ["Progress", "Source", "SourceKind", "find_root", "find_source", "silent"]


class SourceKind(StrEnum):
    """Where the images come from."""

    FOLDER = "folder"
    """A folder of the user's."""
    KAGGLE = "kaggle"
    """A download through kagglehub, earlier or now."""
    ZIP = "zip"
    """An archive of the user's, extracted into the cache."""
    DEMO = "demo"
    """The built-in synthetic demo."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images that were found.

    Attributes:
        kind: Where they come from.
        root: The folder that directly holds `train/`.
        synthetic: Whether they are the demo's.
        origin: How they were found, one line for the report.
    """

    kind: SourceKind
    root: Path
    synthetic: bool
    origin: str


def find_source(
    data: str, *, cache_dir: Path, seed: int = 8, progress: Progress = silent
) -> Source:
    """Find the images that `--data` asks for.

    Args:
        data: "auto", "demo", "kaggle", or the path of a folder or `.zip` file.
        cache_dir: Where an archive is extracted and the demo is written.
        seed: Seed of the demo.
        progress: Told of extraction and of the demo's making.

    Raises:
        DataError: There are none; names what was looked for, where, and the remedy.
        StorageError: The cache cannot be written.
    """
    if data == "auto":
        return _find_auto(cache_dir, seed, progress)
    if data == "demo":
        return _demo(cache_dir, seed, progress, "--data demo")
    if data == "kaggle":
        return _from_kaggle()
    if not data:
        raise DataError("--data '': give a folder, a .zip file, kaggle, demo or auto")
    return _from_path(Path(data).expanduser(), f"--data {data}", cache_dir, progress)


def find_root(folder: Path) -> Path | None:
    """Return the folder that directly holds `train/` in any known layout, or None."""
    for candidate in nested_folders(folder):
        if child(candidate, "train") is not None:
            return candidate
    return None


def _find_auto(cache_dir: Path, seed: int, progress: Progress) -> Source:
    named = os.environ.get("CHEST_XRAY_DIR")
    if named:
        # Named explicitly, so a mistake in it must not end in the demo.
        option = f"$CHEST_XRAY_DIR={named}"
        return _from_path(Path(named).expanduser(), option, cache_dir, progress)
    for folder in (Path("chest_xray"), Path("data/chest_xray")):
        if folder.is_dir():
            return _folder(SourceKind.FOLDER, folder, f"./{folder}", f"./{folder}, found by auto")
    if earlier := _earlier_download():
        return earlier
    looked = "$CHEST_XRAY_DIR, ./chest_xray, ./data/chest_xray, an earlier Kaggle download"
    return _demo(cache_dir, seed, progress, f"no images found; looked for {looked}")


def _from_kaggle() -> Source:
    try:
        folder = kaggle.download()
    except DataError:
        # kagglehub asks the net for the newest version even when all of one lies on the disk.
        if earlier := _earlier_download():
            return earlier
        raise
    origin = f"Kaggle data set {kaggle.HANDLE}"
    return _folder(SourceKind.KAGGLE, folder, "--data kaggle", origin)


def _earlier_download() -> Source | None:
    for folder in kaggle.earlier_downloads():
        root = find_root(folder)
        if root is not None:
            origin = f"an earlier Kaggle download, {folder}"
            return Source(kind=SourceKind.KAGGLE, root=root, synthetic=False, origin=origin)
    return None


def _from_path(path: Path, option: str, cache_dir: Path, progress: Progress) -> Source:
    if path.is_file():
        root = extract(path, cache_dir=cache_dir, progress=progress)
        return Source(kind=SourceKind.ZIP, root=root, synthetic=False, origin=f"{option}, archive")
    return _folder(SourceKind.FOLDER, path, option, option)


def _folder(kind: SourceKind, folder: Path, option: str, origin: str) -> Source:
    if not folder.exists():
        raise DataError(
            f"{option}: no such folder or file (from {Path.cwd()}); check the path, or use "
            "--data demo"
        )
    root = find_root(folder)
    if root is None:
        hint = ""
        if child(folder, "NORMAL") or child(folder, "PNEUMONIA"):
            hint = "; it holds the classes directly: give the folder above train/"
        raise DataError(
            f"{option}: no train/ in {folder}{hint}. Looked for train/NORMAL and train/PNEUMONIA "
            "there and under chest_xray/, chest_xray/data/, data/ and CellData/chest_xray/. Give "
            "--data the folder that holds train/, or use --data demo"
        )
    return Source(kind=kind, root=root, synthetic=False, origin=origin)


def _demo(cache_dir: Path, seed: int, progress: Progress, origin: str) -> Source:
    root = write_demo(cache_dir=cache_dir, seed=seed, progress=progress)
    return Source(kind=SourceKind.DEMO, root=root, synthetic=True, origin=origin)
