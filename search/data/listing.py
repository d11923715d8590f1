"""Lists the image files of a folder in the Kaggle layout; opens none of them.

The layout is `{train,val,test}/{NORMAL,PNEUMONIA}/<file>`; nothing deeper is looked at, so that a
duplicate `chest_xray/chest_xray` or a `__MACOSX` beside it is never counted. Folder names are
matched whatever their case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from search.errors import DataError
from search.records import CLASS_NAMES

IMAGE_SUFFIXES = frozenset(
    {".jpeg", ".jpg", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".dcm", ".dicom"}
)
"""A file whose name ends in one of these is an image, or is rejected with a reason."""

JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""Left behind by operating systems; passed over, as is every name that begins with a dot."""

FOLDERS = ("train", "val", "test")

NESTINGS = (
    "",
    "chest_xray",
    "chest_xray/chest_xray",
    "chest_xray/data",
    "data",
    "data/chest_xray",
    "CellData/chest_xray",
    "chest_xray/CellData/chest_xray",
    "ZhangLabData/CellData/chest_xray",
)
"""Where `train/` has been met below the folder that people point at; the first one wins, so that
the duplicate in Kaggle's archive is never counted."""


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """One image file, not yet opened.

    Attributes:
        relative: Path relative to the data folder, posix.
        folder: "train", "val" or "test", "" in a folder that holds the classes directly.
        label: 0 NORMAL or 1 PNEUMONIA, from the folder's name.
    """

    relative: str
    folder: str
    label: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The image files of a data folder, in the order of the notebook's sorted glob.

    Attributes:
        root: The data folder.
        files: Train, then val, then test; NORMAL before PNEUMONIA; by name within.
        ignored: Relative paths in class folders that have no image's name, or none that is text.
    """

    root: Path
    files: tuple[FoundFile, ...]
    ignored: tuple[str, ...]

    def of(self, *folders: str) -> tuple[FoundFile, ...]:
        """Return the files of these folders."""
        return tuple(file for file in self.files if file.folder in folders)


def child(folder: Path, name: str) -> Path | None:
    """Return the folder of that name, whatever its case, or None; an exact match wins."""
    exact = folder / name
    if exact.is_dir():
        return exact
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return None
    for entry in entries:
        if entry.name.casefold() == name.casefold() and entry.is_dir():
            return entry
    return None


def nested_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of the known layouts that exist, `folder` itself first."""
    for nesting in NESTINGS:
        candidate: Path | None = folder
        for part in nesting.split("/") if nesting else ():
            candidate = child(candidate, part) if candidate else None
        if candidate is not None:
            yield candidate


def is_junk(name: str) -> bool:
    """Return whether a file or folder was left behind by an operating system."""
    return name.startswith(".") or name.casefold() in JUNK


def list_images(root: Path) -> Listing:
    """List train, val and test.

    Args:
        root: The folder that directly holds `train/`.

    Raises:
        DataError: No `train/`, a class without images in train and val together, or a folder
            that cannot be read; names the folder, what was looked for and the remedy.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give --data the folder that holds train/")
    if child(root, "train") is None:
        raise DataError(
            f"{root}: no train/ in it; looked for train/NORMAL and train/PNEUMONIA. "
            "Give --data the folder that holds train/, or --data demo"
        )
    files: list[FoundFile] = []
    ignored: list[str] = []
    for name in FOLDERS:
        folder = child(root, name)
        if folder is not None:
            found, other = _list_classes(root, folder, name)
            files += found
            ignored += other
    for label, class_name in enumerate(CLASS_NAMES):
        if not any(file.label == label and file.folder != "test" for file in files):
            raise DataError(
                f"{root / 'train'}: no {class_name} images; looked for files such as "
                f"train/{class_name}/*.jpeg. Both classes are needed: put them there, or give "
                "--data another folder"
            )
    return Listing(root=root, files=tuple(files), ignored=tuple(ignored))


def list_labelled(folder: Path) -> Listing:
    """List one set to be scored: a folder's `test/`, or the classes it holds directly.

    Raises:
        DataError: Neither is there, or there are no images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    for candidate in nested_folders(folder):
        inside = child(candidate, "test")
        files, ignored = _list_classes(folder, inside or candidate, "test" if inside else "")
        if files:
            return Listing(root=folder, files=tuple(files), ignored=tuple(ignored))
    raise DataError(
        f"{folder}: no images; looked for test/NORMAL and test/PNEUMONIA, and for NORMAL and "
        "PNEUMONIA directly in it"
    )


def _list_classes(root: Path, folder: Path, name: str) -> tuple[list[FoundFile], list[str]]:
    files: list[FoundFile] = []
    ignored: list[str] = []
    for label, class_name in enumerate(CLASS_NAMES):
        class_folder = child(folder, class_name)
        if class_folder is None:
            continue
        prefix = class_folder.relative_to(root).as_posix()
        try:
            with os.scandir(class_folder) as entries:
                names = sorted(entry.name for entry in entries if not is_junk(entry.name))
        except OSError as error:
            raise DataError(
                f"{class_folder}: cannot be listed ({error.strerror}); check its permissions"
            ) from error
        for file_name in names:
            relative = f"{prefix}/{file_name}"
            if not _is_text(file_name):
                shown = os.fsencode(relative).decode(errors="backslashreplace")
                ignored.append(f"{shown} (the name is not UTF-8; rename the file)")
            elif Path(file_name).suffix.lower() in IMAGE_SUFFIXES:
                files.append(FoundFile(relative=relative, folder=name, label=label))
            else:
                ignored.append(relative)
    return files, ignored


def _is_text(name: str) -> bool:
    """Return whether a name can be hashed, printed and written to JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
