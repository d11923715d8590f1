"""What every report says about the data and the plan, as rows of plain text; pure.

Reads the dictionaries of `dataset.json` and of the PLAN event and tolerates missing keys, since a
report of an unfinished or older run should show what there is.
"""

from __future__ import annotations

from typing import Any

from search.config import SplitKind
from search.records import CLASS_NAMES, Split
from search.reporting.wording import MISSING, duration, is_number, one_line, plural, size, whole

Facts = list[tuple[str, str]]
Counts = list[tuple[str, str, str, str, str]]

SPLIT_NAMES = {
    Split.TRAIN.value: "train",
    Split.VALIDATION.value: "validation",
    Split.TEST.value: "test",
}
SHOWN_REJECTS = 5


def class_counts(report: dict[str, Any]) -> Counts:
    """Return (split, NORMAL, PNEUMONIA, images, patients) for every split that is counted."""
    counts, patients = mapping(report.get("counts")), mapping(report.get("patients"))
    rows = []
    for split, name in SPLIT_NAMES.items():
        by_class = mapping(counts.get(split))
        if not by_class:
            continue
        normal, pneumonia = (_integer(by_class.get(label)) for label in CLASS_NAMES)
        children = patients.get(split)
        total = mapping(children).get("total", children)
        rows.append(
            (name, whole(normal), whole(pneumonia), whole(normal + pneumonia), whole(total))
        )
    return rows


def data_words(report: dict[str, Any]) -> str:
    """Return a few words on the data, "" if nothing is known: "4,185 films"."""
    images = next((row[3] for row in class_counts(report) if row[0] == "train"), "")
    synthetic = bool(mapping(report.get("source")).get("synthetic"))
    return f"{'SYNTHETIC, ' if synthetic else ''}{images} films" if images else ""


def data_facts(report: dict[str, Any]) -> Facts:
    """Return (what, text) about the source, patients, rejects, leakage, weights and cache."""
    facts: Facts = []
    source = report.get("source")
    if isinstance(source, dict):
        place = str(source.get("root", "")) or MISSING
        origin = source.get("origin") or source.get("kind")
        facts.append(("source", f"{place} ({origin})" if origin else place))
    elif source:
        facts.append(("source", str(source)))
    if "split" in report:
        facts.append(("split", _split(report)))
    if "leakage" in report:
        facts.append(("leakage", _leakage(report["leakage"])))
    weights = mapping(report.get("class_weights"))
    if weights:
        facts.append(("class weights", _weights(weights)))
    if is_number(report.get("prevalence")):
        facts.append(("prevalence", f"{report['prevalence']:.3f} PNEUMONIA in train + validation"))
    rejected = report.get("rejected")
    if isinstance(rejected, list):
        facts.append(("rejected", plural(len(rejected), "file") if rejected else "no file"))
    cache = report.get("cache")
    if isinstance(cache, dict):
        facts.append(("cache", f"{cache.get('dir', MISSING)} ({size(cache.get('bytes'))})"))
    return facts


def rejected_files(report: dict[str, Any]) -> list[str]:
    """Return "path: reason" for the files that were left out, the first few of them."""
    rejected = report.get("rejected")
    if not isinstance(rejected, list):
        return []
    lines = []
    for entry in rejected[:SHOWN_REJECTS]:
        if isinstance(entry, dict):
            lines.append(
                one_line(f"{entry.get('path', MISSING)}: {entry.get('reason', 'no reason given')}")
            )
        else:
            lines.append(one_line(entry))
    if len(rejected) > SHOWN_REJECTS:
        lines.append(f"… {len(rejected) - SHOWN_REJECTS} more in dataset.json")
    return lines


def data_alarms(report: dict[str, Any]) -> list[str]:
    """Return what a reader must not miss about the data, then the remarks, a sentence each."""
    found: list[str] = []
    for key in ("alarms", "notes"):
        lines = report.get(key)
        if isinstance(lines, list):
            found.extend(str(line) for line in lines)
    return found


def plan_rows(plan: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """Return (bracket, rungs, trials, epochs trained) for every bracket of a plan.

    Rungs read "27 × 1 → 9 × 3": configurations × the epoch they are trained to.
    """
    brackets = _dicts(plan.get("brackets"))
    repeated = len({bracket.get("iteration", 0) for bracket in brackets}) > 1
    rows = []
    for bracket in brackets:
        rungs = _dicts(bracket.get("rungs"))
        name = str(bracket.get("bracket", 0))
        if repeated:
            name = f"{name} (round {int(bracket.get('iteration', 0)) + 1})"
        path = " → ".join(f"{r.get('count', '?')} × {r.get('epochs', '?')}" for r in rungs)
        trials = sum(_integer(r.get("count")) for r in rungs)
        epochs = sum(
            _integer(r.get("count"))
            * (_integer(r.get("epochs")) - _integer(r.get("initial_epoch")))
            for r in rungs
        )
        rows.append((name, path, trials, epochs))
    return rows


def plan_sentence(plan: dict[str, Any]) -> str:
    """Return the plan's totals and estimated time as one sentence."""
    parts = [
        plural(_integer(plan.get("configurations")), "configuration"),
        plural(_integer(plan.get("trials")), "trial"),
        plural(_integer(plan.get("epochs")), "epoch"),
    ]
    text = ", ".join(parts)
    if is_number(plan.get("estimated_seconds")):
        text += f"; the search takes about {duration(plan['estimated_seconds'])}"
        if is_number(plan.get("seconds_per_epoch")):
            text += f" at {duration(plan['seconds_per_epoch'])} an epoch of the documented network"
            if plan.get("seconds_per_trial"):
                text += f" and {duration(plan['seconds_per_trial'])} a trial to build and compile"
    else:
        text += "; time not measured yet"
    return text + "."


def plan_notes(plan: dict[str, Any]) -> list[str]:
    """Return the plan's remarks."""
    notes = plan.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def mapping(value: Any) -> dict[str, Any]:
    """Return a value if it is a dictionary, else an empty one."""
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _integer(value: Any) -> int:
    return int(value) if is_number(value) else 0


def _split(report: dict[str, Any]) -> str:
    text = {
        SplitKind.PATIENT.value: "by patient: no child in train and validation",
        SplitKind.NOTEBOOK.value: "as the notebook's: shuffled files, patients on both sides",
    }.get(str(report["split"]), str(report["split"]))
    if is_number(report.get("seed")):
        text += f", seed {report['seed']}"
    return text


def _leakage(value: Any) -> str:
    if not isinstance(value, dict):
        return "none" if value in (0, None, False, "", []) else one_line(value)
    sharing, images = (
        value.get("val_images_sharing_a_patient_with_train"),
        value.get("val_images"),
    )
    parts = []
    if is_number(sharing):
        of = f" of {whole(images)}" if is_number(images) else ""
        parts.append(f"{whole(sharing)}{of} validation images share a patient with train")
    if is_number(value.get("test_patients_in_train")):
        parts.append(f"{whole(value['test_patients_in_train'])} test patients are in train")
    return "; ".join(parts) or "not measured"


def _weights(weights: dict[str, Any]) -> str:
    parts = []
    for key, value in weights.items():
        label = CLASS_NAMES[int(key)] if str(key) in ("0", "1") else str(key)
        parts.append(f"{label} {value:.3g}" if is_number(value) else f"{label} {value}")
    return " · ".join(parts)
