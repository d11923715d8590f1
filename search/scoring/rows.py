"""Writes rows as they come, to CSV or JSON, so that what is known is kept when the rest fails.

Each row is flushed. A JSON file is an array that is closed also after an error or Ctrl-C, and so
can be read; after a kill it lacks its last bracket. Knows nothing of what the rows say.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from search.errors import ConfigurationError, StorageError

SUFFIXES = (".csv", ".json")

WriteRow = Callable[[dict[str, Any]], None]


class Handle(Protocol):
    """What rows are written to."""

    def write(self, text: str, /) -> int:
        """Write text; return its length."""

    def flush(self) -> None:
        """Hand what was written to the system."""


def check_suffix(option: str, path: Path) -> None:
    """Refuse a file whose name does not say its format.

    Raises:
        ConfigurationError: It ends in neither `.csv` nor `.json`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"{option} {path}: the name must end in {' or '.join(SUFFIXES)}")


@contextmanager
def row_file(path: Path, columns: Sequence[str]) -> Iterator[WriteRow]:
    """Open a file of rows, replacing what is there; its folder is made.

    Args:
        path: Ends in `.csv` or `.json`.
        columns: Keys of every row, in order.

    Raises:
        StorageError: It cannot be written; what the caller's block raises stays as it is.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files need not be text; what is not becomes a replacement character.
        file = open(path, "w", encoding="utf-8", errors="replace", newline="")  # noqa: SIM115
    handle = _File(path, file)
    try:
        if path.suffix.lower() == ".csv":
            yield _csv_rows(handle, columns)
        else:
            with json_rows(handle) as write:
                yield write
    finally:
        with _refusals(path):
            file.close()


class _File:
    """A file whose refusals say its name; those of other files pass through the block above."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file

    def write(self, text: str, /) -> int:
        with _refusals(self._path):
            return self._file.write(text)

    def flush(self) -> None:
        with _refusals(self._path):
            self._file.flush()


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # Nobody reads any more; the command line knows what that means.
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); give another file"
        ) from error


@contextmanager
def json_rows(handle: Handle) -> Iterator[WriteRow]:
    """Write rows as a JSON array, closed whatever happens."""
    begun = False

    def write(row: dict[str, Any]) -> None:
        nonlocal begun
        text = json.dumps(row, indent=2).replace("\n", "\n  ")
        handle.write(f"{',' if begun else '['}\n  {text}")
        handle.flush()
        begun = True

    try:
        yield write
    finally:
        handle.write("\n]\n" if begun else "[]\n")
        handle.flush()


def _csv_rows(handle: Handle, columns: Sequence[str]) -> WriteRow:
    writer = csv.DictWriter(handle, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()

    def write(row: dict[str, Any]) -> None:
        writer.writerow(row)
        handle.flush()

    return write
