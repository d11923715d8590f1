"""The exceptions a user can meet, one small family.

Every message names the value that is wrong, the place it was found and the remedy. Programming
mistakes are not in here: they raise Python's own exceptions and keep their traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


class SearchError(Exception):
    """Something the user can mend; the command line prints it without a traceback.

    Attributes:
        exit_code: What the process returns to the shell.
    """

    exit_code: int = 2


class ConfigurationError(SearchError):
    """An option's value is unknown, out of range, or contradicts another."""


class DataError(SearchError):
    """The images cannot be found, read, or used for training."""


class RunDirectoryError(SearchError):
    """The run directory is missing, taken, locked, damaged, or cannot be written."""


class StorageError(RunDirectoryError):
    """The disk is full or read-only; what was written so far can be resumed."""


class ModelError(SearchError):
    """A model file cannot be loaded, or does not fit the data."""


class SearchFailedError(SearchError):
    """Every configuration failed; the message shows the first failure's traceback."""

    exit_code = 1


class WorkerError(SearchError):
    """Worker processes cannot be started, or their cluster is gone; the run can be resumed."""

    exit_code = 1


class StopRequestedError(SearchError):
    """The user pressed Ctrl-C; everything up to the last finished epoch is kept."""

    exit_code = 130


RESULTS_DIR = "--results-dir"
"""The option that moves everything a run writes."""

ONE_FILE = ("--json", "--share")
"""Options that name what is made from a finished run; nothing is to be resumed."""


@contextlib.contextmanager
def read_errors(place: Path) -> Iterator[None]:
    """Turn the operating system's refusals to read into RunDirectoryError.

    Raises:
        RunDirectoryError: Names what could not be read, and why.
    """
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"{os.fsdecode(error.filename or place)}: cannot be read "
            f"({error.strerror or error}); check its name and permissions"
        ) from error


@contextlib.contextmanager
def storage_errors(place: Path, *, option: str = RESULTS_DIR) -> Iterator[None]:
    """Turn the operating system's refusals to write into StorageError, with the remedy.

    Args:
        place: What was to be written.
        option: The option that moves it elsewhere.

    Raises:
        StorageError: No space, read-only, no permission, or a file where a folder should be.
    """
    reasons = {
        errno.ENOSPC: "no space left on the disk; free some",
        errno.EDQUOT: "the disk quota is used up; free some space",
        errno.EFBIG: "a file may not grow any more; raise the limit (ulimit -f)",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "no permission to write",
        errno.EPERM: "no permission to write",
        errno.ENOTDIR: "a file is where a folder should be",
        errno.EEXIST: "a file is where a folder should be",
        errno.EISDIR: "a folder is where a file should be",
        errno.ENOENT: "it cannot be made there",
        errno.ENAMETOOLONG: "the name is too long",
        errno.ELOOP: "a link leads back to itself",
    }
    try:
        yield
    except OSError as error:
        reason = reasons.get(error.errno or 0)
        if reason is None:
            raise
        way = ", or choose another" if ";" in reason else "; choose another"
        kept = ". What is finished is kept; run the same command with --resume to go on"
        told = "" if option in ONE_FILE else kept
        raise StorageError(f"{place}: {reason}{way} {option}{told}") from error
