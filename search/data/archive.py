"""Extracts a `.zip` of the data set into the cache: only the images, once, all or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from search.data.cache import Progress, cache_errors, locked
from search.data.listing import FOLDERS, IMAGE_SUFFIXES, is_junk
from search.errors import DataError, StorageError
from search.records import CLASS_NAMES

_BLOCK = 1 << 20
_CLASSES = {name.casefold(): name for name in CLASS_NAMES}


def extract(path: Path, *, cache_dir: Path, progress: Progress) -> Path:
    """Extract an archive in any layout, or find what was extracted before.

    Members are written to names put together from their last three parts, so that no member can
    leave the folder whatever its path says. The shallowest folder with `train/` is taken.

    Args:
        path: The archive.
        cache_dir: It is extracted under `zip/`, in a folder named by the members' checksums.
        progress: Told of every few members.

    Returns:
        The folder that directly holds `train/`.

    Raises:
        DataError: No zip archive, damaged, encrypted, or without training images.
        StorageError: No space or no permission.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = wanted_members(archive.infolist())
            if not any(target.startswith("train/") for target in members):
                raise DataError(
                    f"{path}: no training images in the archive; looked for .../train/NORMAL/ and "
                    ".../train/PNEUMONIA/. Give the Kaggle archive, or --data FOLDER"
                )
            root = cache_dir / "zip" / _key(members)
            with locked(root.with_suffix(".lock"), progress):
                if not _is_whole(root, members):
                    # Caches are swept by hand and by the system, and rarely all at once.
                    shutil.rmtree(root, ignore_errors=True)
                    _extract(archive, members, root, progress)
            return root
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
    ) as error:
        raise DataError(
            f"{path}: not a usable .zip archive ({error}); download it again, or give --data a "
            "folder"
        ) from error
    except RuntimeError as error:
        # zipfile's only sign of an encrypted member.
        raise DataError(f"{path}: {error}; give an archive without a password") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be read ({reason}); check the file") from error


def wanted_members(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Choose the members to extract.

    Returns:
        Members by the path they get, `train/NORMAL/x.jpeg`, in order.
    """
    by_prefix: dict[tuple[str, ...], dict[str, zipfile.ZipInfo]] = {}
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.is_dir() or len(parts) < 3 or any(is_junk(part) for part in parts):
            continue
        *prefix, folder, class_folder, name = parts
        class_name = _CLASSES.get(class_folder.casefold())
        if folder.casefold() not in FOLDERS or class_name is None:
            continue
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            target = f"{folder.casefold()}/{class_name}/{name}"
            by_prefix.setdefault(tuple(prefix), {})[target] = info
    with_train = [
        prefix
        for prefix, members in by_prefix.items()
        if any(target.startswith("train/") for target in members)
    ]
    if not with_train:
        return {}
    best = min(with_train, key=lambda prefix: (len(prefix), prefix))
    return dict(sorted(by_prefix[best].items()))


def _extract(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], root: Path, progress: Progress
) -> None:
    needed = sum(info.file_size for info in members.values())
    with cache_errors(root):
        free = shutil.disk_usage(root.parent).free
    if needed > free:
        raise StorageError(
            f"{root.parent}: the images need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            "free; free some, or choose another --cache-dir"
        )
    with cache_errors(root):
        temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=".extract-"))
    try:
        step = max(1, len(members) // 200)
        for done, (target, info) in enumerate(members.items(), start=1):
            file = temporary / target
            with cache_errors(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(file, "wb") as sink:
                    shutil.copyfileobj(source, sink, _BLOCK)
            if done % step == 0 or done == len(members):
                progress("Extracting the archive", done, len(members))
        with cache_errors(root):
            os.replace(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(root: Path, members: dict[str, zipfile.ZipInfo]) -> bool:
    """Return whether everything that was extracted is still there, by size."""
    try:
        return all((root / name).stat().st_size == info.file_size for name, info in members.items())
    except OSError:
        return False


def _key(members: dict[str, zipfile.ZipInfo]) -> str:
    """Name the extracted folder by content: the members' own checksums and sizes."""
    digest = hashlib.sha256()
    for target, info in members.items():
        digest.update(f"{target}\0{info.CRC}\0{info.file_size}\n".encode())
    return digest.hexdigest()[:24]
