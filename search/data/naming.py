"""Reads the patient and the kind of pneumonia out of a file's name.

The table of patterns is in the README's data section. `person12` alone is not a patient: bacteria
12 and virus 12 are different children. Knows no files, only their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class NameParts:
    """What a file's name tells.

    Attributes:
        patient: Identifier, unique over all patterns; spelled alike whatever the name's case and
            leading zeros.
        subtype: "bacteria", "virus" or "".
        matched: Whether a pattern was recognized; if not, `patient` is the file itself.
    """

    patient: str
    subtype: str
    matched: bool


_SUFFIX = r"\.(?:jpe?g|jpe|png|bmp|tiff?|gif|webp|dcm|dicom)$"
_PERSON = re.compile(r"^person(\d+)_(bacteria|virus)_\d+(?:_\d+)?" + _SUFFIX, re.IGNORECASE)
_NORMAL = re.compile(r"^(NORMAL2-)?IM-(\d+)-\d+(?:-\d+)?" + _SUFFIX, re.IGNORECASE)
_MENDELEY = re.compile(r"^(NORMAL|BACTERIA|VIRUS)-(\d+)-\d+" + _SUFFIX, re.IGNORECASE)


def read_name(relative: str) -> NameParts:
    """Return the patient and subtype that a file's name tells.

    Args:
        relative: Path of the file relative to the data folder, posix. Only its last part is read;
            a name that fits no pattern makes the whole path a patient of its own, so that two
            such files never count as one child.
    """
    name = PurePosixPath(relative).name
    if found := _PERSON.match(name):
        subtype = found[2].lower()
        return NameParts(patient=f"person{int(found[1])}_{subtype}", subtype=subtype, matched=True)
    if found := _NORMAL.match(name):
        prefix = "NORMAL2-IM" if found[1] else "IM"
        return NameParts(patient=f"{prefix}-{int(found[2]):04d}", subtype="", matched=True)
    if found := _MENDELEY.match(name):
        prefix = found[1].upper()
        subtype = "" if prefix == "NORMAL" else prefix.lower()
        return NameParts(patient=f"{prefix}-{int(found[2])}", subtype=subtype, matched=True)
    return NameParts(patient=f"file:{relative}", subtype="", matched=False)
