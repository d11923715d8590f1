"""How numbers, times and hyperparameters are written, the same in every report; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeGuard

from search.records import TrialRecord, Values

MISSING = "–"
SPARKS = "▁▂▃▄▅▆▇█"

SHORT = {
    "base_filters": "filters",
    "separable": "sep",
    "activation": "act",
    "batch_norm": "norm",
    "conv_dropout": "drop",
    "global_average": "average",
    "dense_layers": "dense",
    **{f"dense_units_{i}": f"units_{i}" for i in (1, 2, 3)},
    **{f"dense_dropout_{i}": f"drop_{i}" for i in (1, 2, 3)},
    "crop_min_area": "crop",
    "tone_jitter": "tone",
    "learning_rate": "lr",
    "weight_decay": "decay",
    "label_smoothing": "smooth",
    "batch_size": "batch",
}
"""Abbreviations of hyperparameter names and values; what is not here is written out."""


def thousands(number: Any) -> str:
    """Write a count in three digits: 950, 57.6k, 1.33M."""
    if not is_number(number):
        return MISSING
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return str(round(number))


def opened(evaluation: Any) -> str:
    """Write how often a run opened its test set: "opened once", "opened 3 times", "" if unknown."""
    times = evaluation.get("test_openings") if isinstance(evaluation, dict) else None
    if not is_number(times) or times < 1:
        return ""
    return "opened once" if times == 1 else f"opened {whole(times)} times"


def duration(seconds: Any) -> str:
    """Write seconds as a person would: 0.8 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if not is_number(seconds):
        return MISSING
    seconds = max(0.0, float(seconds))
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def clock(seconds: Any) -> str:
    """Write seconds as h:mm:ss, for a display that ticks."""
    if not is_number(seconds):
        return "–:––:––"
    whole = int(max(0.0, float(seconds)))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def stopwatch(seconds: float) -> str:
    """Write a short time that ticks as m:ss, from an hour on as h:mm:ss."""
    whole = int(max(0.0, seconds))
    return clock(whole) if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"


def size(count: Any) -> str:
    """Write a number of bytes."""
    if not is_number(count):
        return MISSING
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def metric(value: Any) -> str:
    """Write a rate or a loss: three decimals, or three digits when it is tiny or huge."""
    if not is_number(value):
        return MISSING
    value = float(value)
    if value != 0 and not 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.3f}"


def signed(value: Any) -> str:
    """Write a difference with its sign; a typographic minus."""
    if not is_number(value):
        return MISSING
    return f"{float(value):+.3f}".replace("-", "−")


def whole(value: Any) -> str:
    """Write a count with thousands separated."""
    return f"{int(value):,}" if is_number(value) else MISSING


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 epoch, 3 epochs."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Write names as a list: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def stamp(seconds: float) -> str:
    """Write Unix seconds as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number; None, NaN and True are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def setting(value: Any) -> str:
    """Write a hyperparameter's value compactly."""
    if value is True:
        return "on"
    if value is False:
        return "off"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def documented_values(records: Iterable[TrialRecord]) -> Values:
    """Return the values of the documented configuration, number 0; empty if it was never tried."""
    for record in records:
        if record.configuration == 0:
            return record.values
    return {}


def differing(values: Values, documented: Values) -> Values:
    """Return the hyperparameters whose value is not the documented one, in their order.

    One that is active here and absent there counts as different; one that is absent here is
    implied by the value that switched it off, and is not listed.
    """
    return {
        name: value
        for name, value in values.items()
        if name not in documented or not same(value, documented[name])
    }


def same(one: Any, other: Any) -> bool:
    """Compare two hyperparameter values; floats may differ by rounding."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def same_values(one: Values, other: Values) -> bool:
    """Compare two configurations; floats may differ by rounding."""
    return one.keys() == other.keys() and all(same(v, other[name]) for name, v in one.items())


def compact(values: Values, *, short: bool = False) -> str:
    """Write hyperparameters on one line: "head=global_average  learning_rate=0.0021".

    Args:
        values: Hyperparameters by name.
        short: Abbreviate the names that are long, for a live line of 80 columns.
    """
    if not short:
        return "  ".join(f"{name}={setting(value)}" for name, value in values.items())
    return " ".join(
        f"{SHORT.get(name, name)}={SHORT.get(setting(value), setting(value))}"
        for name, value in values.items()
    )


def described(record: TrialRecord, documented: Values, *, short: bool = False) -> str:
    """Write what a trial tries: the documented configuration, or what differs from it."""
    if record.configuration == 0:
        return "documented configuration"
    different = differing(record.values, documented)
    return compact(different, short=short) if different else "as documented"


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Draw the last values as block characters; what is not finite is left blank."""
    recent = list(values)[-width:]
    finite = [value for value in recent if is_number(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    span = high - low
    drawn = []
    for value in recent:
        if not is_number(value):
            drawn.append(" ")
        elif span == 0:
            drawn.append(SPARKS[3])
        else:
            drawn.append(SPARKS[round((value - low) / span * (len(SPARKS) - 1))])
    return "".join(drawn)


def fitting(parts: Sequence[tuple[int, str]], width: int, separator: str = " · ") -> str:
    """Join texts, leaving out the least important ones until they fit.

    Args:
        parts: (importance, text) in the order of the line; 0 is the most important.
        width: Columns there are.
        separator: What stands between two.
    """
    kept = list(parts)
    while True:
        line = separator.join(text for _, text in kept)
        if len(line) <= width or len(kept) <= 1:
            return line
        kept.remove(max(kept, key=lambda part: part[0]))


def one_line(text: Any, limit: int = 200) -> str:
    """Flatten a message to one line of at most `limit` characters."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
