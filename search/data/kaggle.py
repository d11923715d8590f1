"""Downloads the data set through kagglehub, and knows where earlier downloads lie.

kagglehub is an extra and is imported only to download; it shows its own progress and resumes a
download that was cut short. The data set needs no account.
"""

from __future__ import annotations

import os
from pathlib import Path

from search.errors import DataError

HANDLE = "paultimothymooney/chest-xray-pneumonia"
MOUNT = Path("/kaggle/input")
ADDRESS = f"https://www.kaggle.com/datasets/{HANDLE}"


def download() -> Path:
    """Download the data set, or return the earlier download.

    Raises:
        DataError: kagglehub is not installed, or the download failed; says what to do.
    """
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


def earlier_downloads() -> list[Path]:
    """Return the folders of finished earlier downloads, the newest version first.

    Looks in kagglehub's cache (`$KAGGLEHUB_CACHE`, else `~/.cache/kagglehub`) and where Kaggle's
    own notebooks mount a data set (`/kaggle/input`).
    """
    base = os.environ.get("KAGGLEHUB_CACHE")
    hub = Path(base).expanduser() if base else Path.home() / ".cache" / "kagglehub"
    folder = hub / "datasets" / HANDLE
    versions = []
    if (folder / "versions").is_dir():
        for entry in (folder / "versions").iterdir():
            # kagglehub writes N.complete beside versions/ when all of version N is there.
            if entry.name.isdigit() and entry.is_dir():
                versions.append(entry)
    versions.sort(key=lambda entry: -int(entry.name))
    found = [entry for entry in versions if (folder / f"{entry.name}.complete").exists()]
    mounts = [MOUNT / HANDLE.split("/")[1], MOUNT / "datasets" / HANDLE]
    return found + [mount for mount in mounts if mount.is_dir()]
