"""Keeps the live view on a terminal: redraws what changed, a few times a second, without flicker.

Knows when to draw and how to put it on the terminal; what is drawn comes from `live`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.live import Live
from rich.segment import ControlType, Segment, Segments

from search.reporting.live import LiveView

REFRESH_SECONDS = 0.25

Draw = Callable[[int], LiveView]
"""Gives the view for a number of lines."""


class Screen:
    """A live view on a terminal, from `start` to `stop`.

    A thread redraws it when an event came in, or when a second passed, at most four times a
    second. What is printed meanwhile appears above it. It leaves nothing behind.
    """

    def __init__(self, console: Console, draw: Draw) -> None:
        """Prepare; nothing is printed yet.

        Args:
            console: Where to draw.
            draw: Gives the view; called by the redrawing thread too.
        """
        self._frame = _Frame(draw)
        self._live = _SteadyLive(self._frame, console=console, auto_refresh=False, transient=True)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="screen", daemon=True)

    def start(self) -> None:
        """Draw the first time, and begin to redraw."""
        self._live.start(refresh=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the view off the terminal."""
        self._done.set()
        self._live.stop()

    def _refresh(self) -> None:
        while not self._done.wait(REFRESH_SECONDS):
            # Whatever fails in a display must not end the thread: the next second may be better.
            with contextlib.suppress(Exception):
                if self._frame.stale(self._live.console) and not self._done.is_set():
                    self._live.refresh()


class _Frame:
    """The lines of the view, rendered once for each moment that differs."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._key: tuple[int, ...] | None = None
        self._lines: list[list[Segment]] = []

    def stale(self, console: Console) -> bool:
        """Return whether what is on the terminal is not what should be there."""
        return self._key_of(self._view(console), console) != self._key

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines; those of before if the state changes while they are made.

        There is no lock, since a signal handler that prints could wait for it forever. A view that
        fails because an event changed the state under it is dropped for the one before.
        """
        with contextlib.suppress(Exception):
            view = self._view(console)
            key = self._key_of(view, console)
            if key != self._key:
                self._lines = console.render_lines(view, options, pad=False)
                self._key = key
        for line in self._lines:
            yield from line
            yield Segment.line()

    def _view(self, console: Console) -> LiveView:
        # The last line of a terminal is left free: a full screen would scroll.
        return self._draw(console.height - 1)

    def _key_of(self, view: LiveView, console: Console) -> tuple[int, ...]:
        return view.progress.version, int(view.now), console.width, console.height


class _SteadyLive(Live):
    """Asks the terminal to show each redrawing at once, where it can (DEC private mode 2026).

    Rich erases the old lines and writes the new ones; a terminal that paints in between flickers.
    Terminals that do not know the mode ignore it.
    """

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        drawn = super().process_renderables(renderables)
        return [_control("\x1b[?2026h"), *drawn, _control("\x1b[?2026l")]


def _control(code: str) -> Segments:
    # Rich prints the text of a control segment as it is; the kind named here has no effect.
    codes: Sequence[Any] = [(ControlType.CARRIAGE_RETURN,)]
    return Segments([Segment(code, None, codes)])
