"""Reads the patient and the kind of pneumonia out of a file's name.

The table of patterns is in this room's README.md. `person12` alone is not a patient: bacteria
12 and virus 12 are different children. Knows no files, only their names.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_PERSON = re.compile(r"^person(\d+)_(bacteria|virus)_\d+(?:_\d+)?$", re.IGNORECASE)
_NORMAL = re.compile(r"^(NORMAL2-)?IM-(\d+)-\d+(?:-\d+)?$", re.IGNORECASE)
_MENDELEY = re.compile(r"^(NORMAL|BACTERIA|VIRUS)-(\d+)-\d+$", re.IGNORECASE)


def read_name(relative: str) -> tuple[str, str]:
    """Return the patient and subtype that a file's name tells, "" for what it does not.

    A patient's identifier is unique over all patterns, and spelled alike whatever the name's case
    and leading zeros; a subtype is "bacteria" or "virus".
    """
    name = PurePosixPath(relative).stem
    if found := _PERSON.match(name):
        subtype = found[2].lower()
        return f"person{int(found[1])}_{subtype}", subtype
    if found := _NORMAL.match(name):
        prefix = "NORMAL2-IM" if found[1] else "IM"
        return f"{prefix}-{int(found[2]):04d}", ""
    if found := _MENDELEY.match(name):
        prefix = found[1].upper()
        return f"{prefix}-{int(found[2])}", "" if prefix == "NORMAL" else prefix.lower()
    return "", ""
