"""How numbers, times and hyperparameters are written, the same in every report; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeGuard

from search.records import Estimate, TrialRecord, Values, with_implied

MISSING = "–"
SPARKS = "▁▂▃▄▅▆▇█"

METRIC_NAMES = {
    "auc": "AUC",
    "recall": "sensitivity",
    "npv": "negative predictive value",
    "f1": "F1",
    "loss": "log loss",
    "brier": "Brier score",
}
"""What people call a metric, where that is not its key with blanks."""

SHORT = {
    "base_filters": "filters",
    "separable": "sep",
    "activation": "act",
    "batch_norm": "norm",
    "initializer": "init",
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


def usable(value: float | None) -> TypeGuard[float]:
    """Return whether there is a finite number to show."""
    return value is not None and math.isfinite(value)


def metric_name(key: str) -> str:
    """Return what people call a metric: "recall" is "sensitivity"."""
    return METRIC_NAMES.get(key, key.replace("_", " "))


def metric(value: float | None) -> str:
    """Write a rate or a loss: three decimals, or three digits when it is tiny or huge."""
    if not usable(value):
        return MISSING
    if value != 0 and not 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.3f}"


def signed(value: float | None) -> str:
    """Write a difference with its sign; a typographic minus."""
    return f"{value:+.3f}".replace("-", "−") if usable(value) else MISSING


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """Write the 95% interval of an estimate, "" where there is none."""
    write = signed if sign else metric
    known = usable(estimate.low) and usable(estimate.high)
    return f"{write(estimate.low)} to {write(estimate.high)}" if known else ""


def thousands(number: int) -> str:
    """Write a count in three digits: 950, 57.6k, 1.33M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return str(number)


def whole(value: int | None) -> str:
    """Write a count with thousands separated."""
    return MISSING if value is None else f"{value:,}"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 epoch, 3 epochs."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def training(role: str, seed: int) -> str:
    """Write which retraining: "finalist 1, seed 0"."""
    return f"{role.replace('_', ' ')}, seed {seed}"


def times(count: int) -> str:
    """Write how often: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def duration(seconds: float | None) -> str:
    """Write seconds as a person would: 0.8 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if not usable(seconds):
        return MISSING
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{round(seconds)} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def clock(seconds: float | None) -> str:
    """Write seconds as h:mm:ss, for a display that ticks."""
    if not usable(seconds):
        return "–:––:––"
    count = int(max(0.0, seconds))
    return f"{count // 3600}:{count % 3600 // 60:02d}:{count % 60:02d}"


def stopwatch(seconds: float) -> str:
    """Write a short time that ticks as m:ss, from an hour on as h:mm:ss."""
    count = int(max(0.0, seconds))
    return clock(count) if count >= 3600 else f"{count // 60}:{count % 60:02d}"


def stamp(seconds: float) -> str:
    """Write Unix seconds as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def one_line(text: Any, limit: int = 200) -> str:
    """Flatten a message to one line of at most `limit` characters."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def setting(value: Any) -> str:
    """Write a hyperparameter's value compactly."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def abbreviated(text: str) -> str:
    """Return the abbreviation of a hyperparameter's name or value, where there is one."""
    return SHORT.get(text, text)


def baseline_values(records: Iterable[TrialRecord]) -> Values:
    """Return the values of the baseline, configuration 0; empty if it was never tried."""
    return next((record.values for record in records if record.configuration == 0), {})


def differing(values: Values, baseline: Values) -> Values:
    """Return the hyperparameters whose value is not the baseline's, in their order.

    One that is active here and absent there counts as different; one that is absent here is
    implied by the value that switched it off, and is not listed.
    """
    baseline = with_implied(baseline)
    return {
        name: value
        for name, value in values.items()
        if name not in baseline or not same(value, baseline[name])
    }


def same(one: Any, other: Any) -> bool:
    """Compare two hyperparameter values; floats may differ by rounding."""
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def compact(values: Values, *, short: bool = False) -> str:
    """Write hyperparameters on one line: "head=global_average  learning_rate=0.0021"."""
    written = [(name, setting(value)) for name, value in values.items()]
    if not short:
        return "  ".join(f"{name}={value}" for name, value in written)
    return " ".join(f"{abbreviated(name)}={abbreviated(value)}" for name, value in written)


def described(record: TrialRecord, baseline: Values, *, short: bool = False) -> str:
    """Write what a trial tries: the baseline, or what differs from it."""
    if record.configuration == 0:
        return "baseline"
    return compact(differing(record.values, baseline), short=short) or "as the baseline"


def status_words(record: TrialRecord) -> str:
    """Return a trial's status as people read it, with the reason where it failed."""
    kind = f": {record.failure.kind.value}" if record.failure else ""
    return f"{record.status.value}{kind}".replace("_", " ")


def reason(record: TrialRecord) -> str:
    """Write on one line why a trial failed, "" if it did not."""
    if record.failure is None:
        return ""
    return f"{record.failure.kind.value.replace('_', ' ')}: {one_line(record.failure.message)}"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw the last values as block characters; what is not finite is left blank."""
    recent = list(values)[-width:]
    finite = [value for value in recent if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    return "".join(
        " "
        if not math.isfinite(value)
        else SPARKS[round((value - low) / span * (len(SPARKS) - 1)) if span else 3]
        for value in recent
    )


def fitting(parts: Sequence[tuple[int, str]], width: int) -> str:
    """Join texts, leaving out the least important ones until they fit."""
    kept = list(parts)
    while True:
        line = " · ".join(text for _, text in kept)
        if len(line) <= width or len(kept) <= 1:
            return line
        kept.remove(max(kept, key=lambda part: part[0]))
