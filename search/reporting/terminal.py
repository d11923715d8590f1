"""What is printed to: a text file that never raises, and whether it is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


class LastingFile:
    """A text file that never raises: a search does not end because `head` or a log's disk did.

    What its encoding cannot write is replaced; after the reader of a pipe has left, or the disk of
    a redirected output is full, everything is dropped.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lost = False

    def write(self, text: str) -> int:
        """Write, or drop."""
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        self._try(lambda: self._file.write(text.encode(encoding, "replace").decode(encoding)))
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        self._try(self._file.flush)

    def _try(self, act: Callable[[], Any]) -> None:
        if self._lost:
            return
        try:
            act()
        except OSError:
            self._lost = True
            if self._file is sys.stdout:
                # What is buffered would raise again when the interpreter flushes it at exit.
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def is_terminal(file: TextIO) -> bool:
    """Return whether a file is a terminal; a closed or strange one is not."""
    try:
        return file.isatty()
    except (AttributeError, ValueError):
        return False
