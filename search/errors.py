"""The exceptions a user can meet, one small family.

Every message names the value that is wrong, the place it was found and the remedy. Programming
mistakes are not in here: they raise Python's own exceptions and keep their traceback.
"""

from __future__ import annotations


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
