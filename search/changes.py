"""Which options may change when a run is resumed; compares configurations, knows no run."""

from __future__ import annotations

import dataclasses
from typing import Any

from search.config import RunConfig

HARMLESS = frozenset(
    {
        "data",
        "results_dir",
        "cache_dir",
        "choose_by",
        "refit_epochs",
        "refit_seeds",
        "refit_schedule",
        "refit_patience",
        "ema",
        "ensemble",
        "refit_on",
        "top",
        "threshold_rule",
        "calibrate",
        "export",
        "preset",
        "executor",
        "address",
        "cpus_per_trial",
        "gpus_per_trial",
        "workers",
        "trial_timeout",
        "stall_timeout",
        "retries",
        "tensorboard",
    }
)
"""Fields that may change on `--resume`: they act after the search or outside it. Where the images
lie may change; that they are the same ones is checked by their fingerprint."""

GROWABLE = frozenset({"iterations", "max_trials"})
"""Fields that may grow on `--resume`: the search goes on where it ended."""

PLANNED = frozenset({"budget"})
"""Fields whose change can be judged by the schedule alone, which must go on with what was begun;
see `resuming.refuse_other_search`."""

Difference = tuple[str, Any, Any]
"""Field, stored value, wanted value."""


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[Difference]:
    """List the fields whose change would change the search of a stored run.

    Args:
        stored: `config.json` of the run.
        wanted: The configuration asked for now, in the same form.

    Returns:
        Empty when the run can be resumed, as far as can be told without its schedule.
    """
    return [
        (name, old, new)
        for name, old, new in _changed(stored, wanted)
        if name not in PLANNED and not (name in GROWABLE and new >= (old or 0))
    ]


def schedule_differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[Difference]:
    """List the changed fields that act through the schedule; arguments as for `differences`."""
    return [change for change in _changed(stored, wanted) if change[0] in GROWABLE | PLANNED]


def _changed(stored: dict[str, Any], wanted: dict[str, Any]) -> list[Difference]:
    fields = [f.name for f in dataclasses.fields(RunConfig) if f.name not in HARMLESS]
    pairs = [(name, stored.get(name), wanted.get(name)) for name in fields]
    return [(name, old, new) for name, old, new in pairs if old != new]
