"""The end of the verdict stage: calibrated networks, and the exports of the one that won.

Stands between `judging.py` and the room `scoring`, as `judging.py` stands between the workflow and
the rooms. A format that cannot be had costs itself only: `exports.json` says why, and so does the
console. `model.keras` is always written, since the others are made from it; where it differs from
the network on validation images it is kept and counts as failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from search.config import CalibrationKind, ExportFormat
from search.records import Predictions, Split, Subset, Threshold
from search.run_directory import RunDirectory
from search.scoring.calibration import (
    Calibrated,
    Calibration,
    before_and_after,
    fit_temperature,
    scaled,
)
from search.scoring.conversion import answers, convert, evenly_spaced, remove
from search.scoring.export import export_model, keras_export
from search.scoring.formats import EXPORTS_FILE, FORMATS, KERAS, Export, ExportStatus, Predictor
from search.scoring.predictions import predict_subset


def calibrate(
    networks: Sequence[Predictor], val: Subset, kind: CalibrationKind, console: Any
) -> list[Calibration]:
    """Fit a temperature to every network on the clean validation images.

    Args:
        networks: As trained, on other images than these.
        val: The validation images.
        kind: How; for "none" every temperature is 1.
        console: Told where a network could not be calibrated.
    """
    if kind is CalibrationKind.NONE:
        return [Calibration() for _ in networks]
    said = [predict_subset(network, val, Split.VALIDATION) for network in networks]
    fitted = [fit_temperature(one.labels, one.probabilities) for one in said]
    for note in dict.fromkeys(found.note for found in fitted if found.note):
        console.warn(f"--calibrate {kind.value}: {note}")
    return fitted


def calibrated(networks: Sequence[Any], fitted: Sequence[Calibration]) -> list[Any]:
    """Return the networks as they are scored and exported."""
    return [
        network if found.temperature == 1 else Calibrated(network, found.temperature)
        for network, found in zip(networks, fitted, strict=True)
    ]


def calibration_report(
    kind: CalibrationKind,
    fitted: dict[str, Calibration],
    scored: Iterable[tuple[str, Predictions]],
) -> dict[str, Any]:
    """Return what `evaluation.json` says of the calibration.

    Args:
        kind: How it was done.
        fitted: By role, that of the exported seed.
        scored: (role, calibrated predictions on one split) of the exported seed.

    Returns:
        {"method", and by role {"temperature", "images", "note", and by split {"before", "after"}:
        expected calibration error, log loss and Brier score}}.
    """
    roles: dict[str, Any] = {
        role: {"temperature": found.temperature, "images": found.images, "note": found.note}
        for role, found in fitted.items()
    }
    for role, said in scored:
        roles[role][said.split.value] = before_and_after(
            said.labels, said.probabilities, fitted[role].temperature
        )
    return {"method": kind.value, **roles}


def export_all(
    network: Any,
    directory: RunDirectory,
    *,
    formats: Sequence[ExportFormat],
    image_size: int,
    threshold: Threshold,
    temperature: float,
    metadata: dict[str, Any],
    val: Subset,
    console: Any,
) -> list[Export]:
    """Write `model.keras` and every other format that was asked for, and check each.

    Args:
        network: The winner, uncalibrated.
        directory: Gets the exports and `exports.json`.
        formats: What was asked for.
        image_size: Side S in pixels.
        threshold: The decision threshold.
        temperature: See `calibrate`.
        metadata: See `export.export_model`.
        val: The validation images, on which the exports are compared.
        console: Told of every format, and of what went wrong with it.

    Returns:
        What `exports.json` says, `model.keras` first.

    Raises:
        ModelError: `model.keras` differs from the network on noise already; it is not written.
        StorageError: The disk is full or read-only.
    """
    root = directory.root
    for form in FORMATS.values():
        if form is not KERAS:
            remove(root / form.file)  # made from an earlier network, it must not outlive it
    model_file = export_model(
        network,
        root / KERAS.file,
        image_size=image_size,
        threshold=threshold,
        metadata=metadata,
        temperature=temperature,
    )
    images = np.asarray(val.open_array()[val.rows[evenly_spaced(len(val))]])
    # Asked here, on the run's device: the network may not be the one that validation chose. And in
    # the exports' batches: for another size a GPU may choose another algorithm, rounding otherwise.
    probabilities = scaled(answers(network, images), temperature)
    ours = keras_export(model_file, images=images, probabilities=probabilities)
    exports = [ours]
    if ours.status is ExportStatus.FAILED:
        console.warn(
            f"--export {KERAS.name}: {ours.path} {ours.reason}. It is kept, and other exports are "
            "made from it; check it before you use one of them"
        )
    else:
        console.info(_summary(ours))
    for name in formats:
        if name is ExportFormat.KERAS:
            continue
        made = convert(model_file, name.value, images=images, probabilities=probabilities)
        exports.append(made)
        if made.status is ExportStatus.FAILED:
            console.warn(f"--export {name.value}: {made.path} was not written: {made.reason}")
        else:
            console.info(_summary(made))
    directory.write_json(EXPORTS_FILE, exports)
    return exports


def _summary(export: Export) -> str:
    return (
        f"Export: {export.path}, {export.bytes / 1e6:.1f} MB; read back by {export.runtime} it "
        f"gives the same probabilities, within {export.max_difference:.1g} on {export.images} "
        "images"
    )
