"""Reads the patient and the kind of pneumonia out of a file's name.

The table of patterns is in this room's README.md. `person12` alone is not a patient: bacteria
12 and virus 12 are different children. Knows no files, only their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class NameParts:
    """What a file's name tells."""

    # identifier, unique over all patterns; spelled alike whatever the name's case and leading
    # zeros; "" if no pattern fits
    patient: str = ""
    subtype: str = ""  # "bacteria", "virus" or ""


_PERSON = re.compile(r"^person(\d+)_(bacteria|virus)_\d+(?:_\d+)?$", re.IGNORECASE)
_NORMAL = re.compile(r"^(NORMAL2-)?IM-(\d+)-\d+(?:-\d+)?$", re.IGNORECASE)
_MENDELEY = re.compile(r"^(NORMAL|BACTERIA|VIRUS)-(\d+)-\d+$", re.IGNORECASE)


def read_name(relative: str) -> NameParts:
    """Return the patient and subtype that a file's name tells.

    Args:
        relative: Path of the file relative to the data folder, posix. Only its last part is read.
    """
    name = PurePosixPath(relative).stem
    if found := _PERSON.match(name):
        subtype = found[2].lower()
        return NameParts(patient=f"person{int(found[1])}_{subtype}", subtype=subtype)
    if found := _NORMAL.match(name):
        prefix = "NORMAL2-IM" if found[1] else "IM"
        return NameParts(patient=f"{prefix}-{int(found[2]):04d}")
    if found := _MENDELEY.match(name):
        prefix = found[1].upper()
        subtype = "" if prefix == "NORMAL" else prefix.lower()
        return NameParts(patient=f"{prefix}-{int(found[2])}", subtype=subtype)
    return NameParts()
