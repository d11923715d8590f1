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
from typing import Any, TextIO

from search.errors import ConfigurationError, StorageError

SUFFIXES = (".csv", ".json")

WriteRow = Callable[[dict[str, Any]], None]


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
        StorageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files need not be text; what is not becomes a replacement character.
        with open(path, "w", encoding="utf-8", errors="replace", newline="") as handle:
            if path.suffix.lower() == ".csv":
                yield _csv_rows(handle, columns)
            else:
                with json_rows(handle) as write:
                    yield write
    except BrokenPipeError:
        raise  # Not of this file: nobody reads what is printed beside it.
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); give another file"
        ) from error


@contextmanager
def json_rows(handle: TextIO) -> Iterator[WriteRow]:
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


def _csv_rows(handle: TextIO, columns: Sequence[str]) -> WriteRow:
    writer = csv.DictWriter(handle, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()

    def write(row: dict[str, Any]) -> None:
        writer.writerow(row)
        handle.flush()

    return write
