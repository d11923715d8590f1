"""What temperature scaling did to a run's probabilities, from `evaluation.json`; pure.

`scoring` fits one temperature T a network, or refuses and leaves T = 1 with a note; what was asked
for is in the options, what was done in the evaluation.
"""

from __future__ import annotations

from typing import Any

from search.config import CalibrationKind
from search.reporting.facts import mapping
from search.reporting.wording import is_number, metric, whole

COLUMNS = (
    "network",
    "T",
    "log loss before",
    "log loss after",
    "calibration error before",
    "calibration error after",
)
HEADING = "Temperature scaling, on the clean validation films"
CAPTION = (
    "T divides the logit; above 1 the network was too sure of itself. These are the films it was "
    "fitted on, where the log loss cannot rise; what it is worth elsewhere, the test set says."
)
REPORTED = ("loss", "expected_calibration_error")


def sentence(config: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """Say what the exported probabilities are, "" where it is not known."""
    if not _asked(config, evaluation):
        none = CalibrationKind.NONE.value
        return "the network's own, not recalibrated" if config.get("calibrate") == none else ""
    fitted = mapping(_report(evaluation).get("winner"))
    if fitted.get("note"):
        return (
            "the network's own: temperature scaling was asked for and could not be fitted "
            f"({fitted['note']})"
        )
    if not is_number(fitted.get("temperature")):
        return "temperature scaling on the clean validation films was asked for"
    return (
        f"temperature scaling fitted on the {whole(fitted.get('images'))} clean validation films, "
        f"T = {metric(fitted['temperature'])}, in the exported model too"
    )


def rows(config: dict[str, Any], evaluation: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row a network under `COLUMNS`; none where calibration was not asked for."""
    if not _asked(config, evaluation):
        return []
    found = []
    for role in ("documented", "winner"):
        fitted = mapping(_report(evaluation).get(role))
        if not is_number(fitted.get("temperature")):
            continue
        value = metric(fitted["temperature"])
        said = mapping(fitted.get("val"))
        cells = [
            metric(mapping(said.get(when)).get(name))
            for name in REPORTED
            for when in ("before", "after")
        ]
        found.append((role, f"{value}, not fitted" if fitted.get("note") else value, *cells))
    return found


def _asked(config: dict[str, Any], evaluation: dict[str, Any]) -> bool:
    kind = _report(evaluation).get("method") or config.get("calibrate")
    return bool(kind == CalibrationKind.TEMPERATURE.value)


def _report(evaluation: dict[str, Any]) -> dict[str, Any]:
    return mapping(evaluation.get("calibration"))
