"""Finds the images: a folder, a `.zip`, an earlier or a new Kaggle download, or the demo.

kagglehub is an extra and is imported only to download; it shows its own progress and resumes a
download that was cut short. The data set needs no account.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from search.config import RunConfig
from search.data.cache import Progress, cache_errors, cache_of, expanded, locked, silent
from search.data.decode import MAX_BYTES, begins_image
from search.data.demo import write_demo
from search.data.listing import IMAGE_SUFFIXES, LeftOutFiles, find_root, is_junk
from search.data.table import SPLITS
from search.errors import DataError, StorageError
from search.records import LeftOut, Source
from search.run_directory import atomic

HANDLE = "paultimothymooney/chest-xray-pneumonia"
MOUNT = Path("/kaggle/input")
ADDRESS = f"https://www.kaggle.com/datasets/{HANDLE}"

_BLOCK = 1 << 20

_Layout = tuple[tuple[str, ...], bool]
"""The parts of the folder that holds an archive's data set, and whether that has splits."""


def find_source(config: RunConfig, *, progress: Progress = silent) -> Source:
    """Find the images that `--data` asks for.

    Args:
        config: Says too where an archive is extracted and the demo is written, the demo's seed,
            and whether there is a table of files, which makes up for a layout.
        progress: Told of extraction and of the demo's making.

    Raises:
        DataError: There are none; names what was looked for, where, and the remedy.
        StorageError: The cache cannot be written.
    """
    data = config.data
    if data == "auto":
        return _find_auto(config, progress)
    if data == "demo":
        return _demo(config, "--data demo", progress)
    if data == "kaggle":
        return _from_kaggle()
    if not data:
        raise DataError("--data '': give a folder, a .zip file, kaggle, demo or auto")
    return _from_path(expanded(data), f"--data {data}", config, progress)


def _find_auto(config: RunConfig, progress: Progress) -> Source:
    if named := os.environ.get("CHEST_XRAY_DIR"):
        # Named explicitly, so a mistake in it must not end in the demo.
        return _from_path(expanded(named), f"$CHEST_XRAY_DIR={named}", config, progress)
    for folder in (Path("chest_xray"), Path("data/chest_xray")):
        if folder.is_dir():
            root = _root(folder, f"./{folder}")
            return Source(kind="folder", root=root, origin=f"./{folder}, found by auto")
    if earlier := _earlier_download():
        return earlier
    looked = "$CHEST_XRAY_DIR, ./chest_xray, ./data/chest_xray, an earlier Kaggle download"
    return _demo(config, f"no images found; looked for {looked}", progress)


def _from_path(path: Path, option: str, config: RunConfig, progress: Progress) -> Source:
    any_layout = bool(config.table)
    try:
        archive = path.is_file()
    except OSError as error:  # a name that is too long, for one
        raise DataError(f"{option}: cannot be read ({error.strerror}); check the path") from error
    if archive:
        root, left_out = extract(
            path, cache_dir=cache_of(config), any_layout=any_layout, progress=progress
        )
        origin = f"{option}, archive"
        return Source(kind="zip", root=root, origin=origin, archive=str(path), left_out=left_out)
    if not path.exists():
        raise DataError(
            f"{option}: no such folder or file (from {Path.cwd()}); check the path, or use "
            "--data demo"
        )
    if not path.is_dir():
        raise DataError(f"{option}: neither a folder nor a file; give a folder or a .zip file")
    return Source(kind="folder", root=path if any_layout else _root(path, option), origin=option)


def _root(folder: Path, option: str) -> Path:
    """Return the folder that directly holds `train/` or the classes."""
    root = find_root(folder)
    if root is None:
        raise DataError(
            f"{option}: no train/ in {folder}, and no folders of two classes. Looked for "
            "train/CLASS/ and CLASS/ there and one level deeper, and under chest_xray/, "
            "chest_xray/data/, data/ and CellData/chest_xray/. Give --data the folder that holds "
            "train/ or the classes, or use --data demo"
        )
    return root


def _demo(config: RunConfig, origin: str, progress: Progress) -> Source:
    root = write_demo(cache_dir=cache_of(config), seed=config.seed, progress=progress)
    return Source(kind="demo", root=root, origin=origin)


# Kaggle.


def _from_kaggle() -> Source:
    try:
        folder = _download()
    except DataError:
        # kagglehub asks the net for the newest version even when all of one lies on the disk.
        if earlier := _earlier_download():
            return earlier
        raise
    root = _root(folder, "--data kaggle")
    return Source(kind="kaggle", root=root, origin=f"Kaggle data set {HANDLE}")


def _download() -> Path:
    """Download the data set, or return the earlier download."""
    try:
        import kagglehub
    except ImportError as error:
        raise DataError(
            '--data kaggle: kagglehub is not installed; run pip install "xray-search[kaggle]", '
            f"or download {ADDRESS} by hand and give --data FOLDER_OR_ZIP"
        ) from error
    try:
        return Path(kagglehub.dataset_download(HANDLE))
    except Exception as error:
        # kagglehub lets requests', urllib3's and its own exceptions through; for the user all
        # mean the same.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"--data kaggle: the download of {HANDLE} failed ({reason}). Check the connection and "
            f"run the same command again, which goes on where it stopped; or download {ADDRESS} "
            "by hand and give --data FOLDER_OR_ZIP; or use --data demo"
        ) from error


def _earlier_download() -> Source | None:
    """Return what was downloaded before, the newest finished version first.

    Looks in kagglehub's cache (`$KAGGLEHUB_CACHE`, else `~/.cache/kagglehub`) and where Kaggle's
    own notebooks mount a data set (`/kaggle/input`).
    """
    hub = expanded(os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub")
    home = hub / "datasets" / HANDLE
    numbers = [int(v.name) for v in home.glob("versions/*") if v.name.isdigit() and v.is_dir()]
    folders = [
        # kagglehub writes N.complete beside versions/ when all of version N is there.
        *(
            home / f"versions/{n}"
            for n in sorted(numbers)[::-1]
            if (home / f"{n}.complete").exists()
        ),
        *(MOUNT / name for name in (HANDLE.split("/")[1], f"datasets/{HANDLE}")),
    ]
    for folder in folders:
        root = find_root(folder) if folder.is_dir() else None
        if root is not None:
            origin = f"an earlier Kaggle download, {folder}"
            return Source(kind="kaggle", root=root, origin=origin)
    return None


# Archives.


def extract(
    path: Path, *, cache_dir: Path, any_layout: bool = False, progress: Progress = silent
) -> tuple[Path, tuple[LeftOut, ...]]:
    """Extract the images of an archive in any layout, or find what was extracted before.

    The shallowest folder with `train/` is taken, or else the one that holds the classes; all of it
    where a table makes up for a layout. Names are put together from the parts that name something,
    so that no member can leave the folder.

    Returns:
        The folder that directly holds `train/` or the classes, under `zip/` in the cache and named
        by the members' checksums; and what was not extracted.

    Raises:
        DataError: No zip archive, damaged, encrypted, or without a known layout.
        StorageError: No space or no permission.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members, left_out = _wanted_members(archive, path, any_layout=any_layout)
            root = cache_dir / "zip" / _key(members)
            with locked(root.with_suffix(".lock"), progress):
                # Caches are swept by hand and by the system, and rarely all at once.
                if not _is_whole(root, members):
                    _extract(archive, members, root, progress)
            return root, left_out
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: names in the archive are marked as UTF-8 and are not ({error.reason}); "
            "extract it and give --data the folder"
        ) from error
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # zipfile's word for a compression that it does not know
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


def _wanted_members(
    archive: zipfile.ZipFile, path: Path, *, any_layout: bool
) -> tuple[dict[str, zipfile.ZipInfo], tuple[LeftOut, ...]]:
    """Return the members to extract by the path they get, in order, and what is left out."""
    found = {}
    for info in archive.infolist():
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        parts = tuple(part for part in parts if part not in ("/", ".", ".."))
        if parts and not info.is_dir() and not any(is_junk(part) for part in parts):
            found[parts] = info
    layout: _Layout | None = ((), False) if any_layout else _find_layout(list(found))
    if layout is None:
        raise DataError(
            f"{path}: no training images in the archive; looked for .../train/CLASS/ and for "
            ".../CLASS/ of two classes. Give another archive, or --data FOLDER"
        )
    prefix, has_train = layout
    depth = len(prefix)
    left = LeftOutFiles()
    members = {}
    for parts, info in sorted(found.items()):
        relative, inside = "/".join(parts), parts[depth:]
        beside = has_train and (len(inside) < 2 or inside[0].casefold() not in SPLITS)
        if parts[:depth] != prefix or beside:
            left.add(relative, "beside the data set", place="/".join(parts[:-1][: depth + 1]))
        elif info.file_size > MAX_BYTES:
            left.add(relative, "too large")
        elif not _is_image(archive, info):
            left.add(relative, "not an image")
        else:
            members["/".join(inside)] = info
    return members, left.rows()


def _find_layout(paths: list[tuple[str, ...]]) -> _Layout | None:
    images = [parts for parts in paths if _has_suffix(parts[-1])] or paths
    trains = {
        parts[:depth]
        for parts in images
        for depth, part in enumerate(parts[:-2])
        if SPLITS.get(part.casefold()) == "train"
    }
    if trains:
        return min(trains, key=lambda prefix: (len(prefix), prefix)), True
    prefix: tuple[str, ...] = ()
    while True:
        folders = {parts[len(prefix)] for parts in images if len(parts) > len(prefix) + 1}
        if len(folders) != 1:
            break
        prefix += tuple(folders)
    if len(folders) < 2 or any(name.casefold() in SPLITS for name in folders):
        return None
    return prefix, False


def _has_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _is_image(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    if _has_suffix(info.filename):
        return True
    with archive.open(info) as content:
        return begins_image(content.read(132))


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
    step = max(1, len(members) // 200)
    with atomic(root, option="--cache-dir") as temporary:
        for done, (target, info) in enumerate(members.items(), start=1):
            file = temporary / target
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, open(file, "wb") as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
            if done % step == 0 or done == len(members):
                progress("Extracting the archive", done, len(members))


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
