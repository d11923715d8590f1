"""How fast epochs go by, measured on the events themselves."""

from __future__ import annotations

from collections import deque

WINDOW = 60
"""Events whose pace gives the time left; enough to smooth, short enough to follow a change."""


class Throughput:
    """Wall time per epoch of a whole run, and seconds of an epoch within one worker.

    The first is what the time left follows: it counts building, waiting and every worker at once.
    The second bounds it from below, where epochs can only follow one another.
    """

    def __init__(self) -> None:
        """Start without a measurement."""
        self._previous: float | None = None
        self._passed: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._within: deque[float] = deque(maxlen=WINDOW)

    def pause(self) -> None:
        """Leave out the time up to the next event: nobody worked."""
        self._previous = None

    def forget(self) -> None:
        """Start to measure another kind of work."""
        self._passed.clear()
        self._within.clear()

    def count(self, time: float | None, *, epoch_seconds: float | None = None) -> None:
        """Count an event.

        Args:
            time: When, Unix seconds.
            epoch_seconds: What the epoch took in its worker, if the event is the end of one.
        """
        if time is None:
            return
        if self._previous is not None:
            passed = max(0.0, time - self._previous)
            self._passed.append((passed, 0 if epoch_seconds is None else 1))
        if epoch_seconds is not None:
            self._within.append(epoch_seconds)
        self._previous = time

    @property
    def per_epoch(self) -> float | None:
        """Return wall seconds per epoch, all workers together; None before the first epoch."""
        epochs = sum(count for _, count in self._passed)
        return sum(seconds for seconds, _ in self._passed) / epochs if epochs else None

    @property
    def within_worker(self) -> float | None:
        """Return the mean seconds of an epoch in its worker; None before the first epoch."""
        return sum(self._within) / len(self._within) if self._within else None
