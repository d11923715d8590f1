"""Reads a table that says of image files what folders and names do not: label, patient, split."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from search.data.decode import UnusableImageError, opened
from search.errors import DataError

COLUMNS = ("file", "label", "patient", "split")

SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of a table's splits and of folders, lower case, with what they mean."""

_SHOWN = 3


Row = dict[str, str]
"""What a table says of a file: a value for each of `COLUMNS`, "" where it says nothing."""


def read_table(path: Path) -> dict[int, Row]:
    """Read a CSV file whose first line names its columns; return its rows by line.

    Raises:
        DataError: It cannot be read, has no column `file`, lacks the label of a file where others
            have one, or names an unknown split; says the line and the value.
    """
    try:
        with opened(path) as data:
            text = data.decode("utf-8-sig")
    except (UnusableImageError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise DataError(f"--table {path}: {reason}; give a CSV file") from error
    lines = csv.reader(io.StringIO(text))
    rows = {}
    try:
        header = [name.strip().casefold() for name in next(lines, [])]
        for cells in lines:
            said = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            if any(said.values()):
                rows[lines.line_num] = {name: said.get(name, "") for name in COLUMNS}
    except csv.Error as error:
        raise DataError(f"--table {path}: line {lines.line_num}: {error}") from error
    if "file" not in header:
        raise DataError(
            f"--table {path}: no column file in its first line ({', '.join(header)}); the columns "
            f"are {', '.join(COLUMNS)}"
        )
    labelled = any(row["label"] for row in rows.values())
    for line, row in rows.items():
        place, split = f"--table {path}: line {line}", row["split"]
        if labelled and not row["label"]:
            raise DataError(f"{place}: no label for {row['file']}; others have one")
        if "split" in header and split.casefold() not in SPLITS:
            raise DataError(f"{place}: split {split!r}: must be train, val or test")
    return rows


def match_files(
    table: Path, rows: dict[int, Row], paths: Sequence[str], root: Path
) -> dict[str, Row]:
    """Find the images that a table speaks of.

    A file is named by its path below the data folder, or by as much of the path's end as is unique,
    with its suffix or without.

    Returns:
        Rows by path relative to `root`, for the images that the table has.

    Raises:
        DataError: The table has a file that is not there or is several, or says two things of one;
            names the lines.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts = PurePosixPath(path).parts
        for start in range(len(parts)):
            ending = PurePosixPath(*parts[start:])
            for name in {ending.as_posix(), ending.with_suffix("").as_posix()}:
                by_name[name].append(path)
    lines: dict[str, int] = {}
    unknown = []
    for line, row in rows.items():
        place, file = f"--table {table}: line {line}", row["file"]
        written = PurePosixPath(file.replace("\\", "/"))
        if written.is_relative_to(root.as_posix()):
            written = written.relative_to(root.as_posix())
        matches = by_name.get(written.as_posix(), [])
        if written.as_posix() in matches:
            matches = [written.as_posix()]
        if len(matches) > 1:
            raise DataError(
                f"{place}: {file} is more than one file, {matches[0]} and {matches[1]}; give the "
                "path"
            )
        if not matches:
            unknown.append(f"line {line}: {file}")
            continue
        before = lines.setdefault(matches[0], line)
        if _said(rows[before]) != _said(row):
            raise DataError(
                f"{place}: says {_said(row)} of {file}, and line {before} says "
                f"{_said(rows[before])}; leave one line for a file"
            )
    if unknown:
        raise DataError(
            f"--table {table}: {len(unknown):,} of {len(rows):,} files are no images below {root}, "
            f"{'; '.join(unknown[:_SHOWN])}; give paths relative to the data folder"
        )
    return {path: rows[line] for path, line in lines.items()}


def _said(row: Row) -> str:
    return ", ".join(f"{column} {row[column]}" for column in COLUMNS[1:] if row[column])
