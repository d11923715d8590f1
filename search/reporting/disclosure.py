"""What may leave this computer: texts without its folders, facts that do not name it; pure.

A folder may name a person or a hospital. Texts come from anywhere, from the options as well as from
the message of a failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

LOCAL_FACTS = ("host", "results_dir", "cache_dir", "cache", "address")
"""What is left out of what is passed on: it names the computer or folders on it."""

_FOLDERS = re.compile(r"(?<![\w.])(?:~|\.\.?)?/(?:[^\s(),/]+/)*(?=[^\s(),/])")
"""All of a path but its last part, where the path does not begin below the working directory."""


def without_local_facts(facts: Mapping[str, Any], places: Iterable[Any]) -> dict[str, Any]:
    """Return the facts without `LOCAL_FACTS` and without folders in their texts."""
    kept = {name: value for name, value in facts.items() if name not in LOCAL_FACTS}
    return {name: without_folders(value, places) for name, value in kept.items()}


def without_folders(value: Any, places: Iterable[Any]) -> Any:
    """Leave only the last part of the paths in a text, or in every text of a structure.

    Args:
        value: A text, a number, or lists and dictionaries of them; keys stay as they are.
        places: Paths known to be in such texts, whose parts may have blanks; others are recognized
            by their look, and end at a blank.
    """
    if isinstance(value, str):
        for place in sorted({str(p) for p in places if p}, key=len, reverse=True):
            if "/" in place and PurePath(place).name:
                value = value.replace(place, PurePath(place).name)
        return _FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {name: without_folders(item, places) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_folders(item, places) for item in value)
    return value
