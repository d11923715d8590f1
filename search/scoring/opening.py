"""The look at the test set, kept, so that a finished run that is resumed need not look again.

What was asked has a fingerprint: the networks by the checksums of their weights, the temperature
and threshold of each, and the images. So has the file of the answers. Both are in the journal's
line about the opening; where nothing that is asked has changed and the file is whole, it holds what
the test would say. Knows predictions and files, no network.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.journal import EventKind
from search.records import Predictions, Split, Threshold, to_json
from search.run_directory import RunDirectory, file_sha256, write_text
from search.scoring.calibration import Calibration
from search.scoring.refit import Candidate

FILE = "predictions_test.csv"
"""A row a test image: path, patient, label (0 or 1), subtype, and what every network said."""

COLUMNS = ("path", "patient", "label", "subtype")

_DIGITS = 6
"""Decimals of temperature and threshold that count: found again, they may differ by rounding."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the test is asked.

    Attributes:
        names: Of the networks, in order, e.g. "winner, seed 0"; columns of the file.
        fingerprint: SHA-256 over everything that an answer depends on.
    """

    names: tuple[str, ...]
    fingerprint: str


def question(
    candidates: Sequence[Candidate],
    fitted: Sequence[Calibration],
    thresholds: Sequence[Threshold],
    *,
    images: Sequence[Any],
) -> Question:
    """Return what the test is asked of these networks.

    Args:
        candidates: The networks; their weights are read.
        fitted: Temperature of each.
        thresholds: Threshold of each.
        images: What tells the test images and their decoding apart; JSON values.
    """
    names = tuple(f"{c.role}, {'ensemble' if c.members else f'seed {c.seed}'}" for c in candidates)
    networks = [
        {
            "name": name,
            "weights": [_weights(member) for member in candidate.members or (candidate,)],
            "values": candidate.values,
            "average": candidate.average,
            "temperature": round(calibration.temperature, _DIGITS),
            "threshold": round(threshold.value, _DIGITS),
            "rule": threshold.rule,
        }
        for name, candidate, calibration, threshold in zip(
            names, candidates, fitted, thresholds, strict=True
        )
    ]
    text = json.dumps(to_json([networks, list(images)]), sort_keys=True)
    return Question(names=names, fingerprint=hashlib.sha256(text.encode()).hexdigest())


def write_answers(
    directory: RunDirectory, asked: Question, answers: Sequence[Predictions]
) -> dict[str, str]:
    """Write what every network said of the test.

    Args:
        directory: The run directory.
        asked: What was asked.
        answers: Of every network, on the same images in the same order.

    Returns:
        {"asked", "answers"}: both checksums, for the journal's line about the opening.

    Raises:
        StorageError: The disk is full or read-only.
    """
    first = answers[0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, *asked.names))
    said = (one.probabilities.tolist() for one in answers)
    about = (first.paths, first.patients, first.labels.tolist(), first.subtypes)
    writer.writerows(zip(*about, *said, strict=True))
    path = write_text(directory.root / FILE, text.getvalue())
    return {"asked": asked.fingerprint, "answers": file_sha256(path)}


def read_answers(directory: RunDirectory, asked: Question) -> list[Predictions] | None:
    """Return what the test said when it was asked the very same.

    Args:
        directory: The run directory.
        asked: What is asked now.

    Returns:
        Predictions of every network in order; None if the test was never asked this, or the file
        is missing or not the one that was written then.
    """
    path = directory.root / FILE
    if not path.is_file():
        return None
    known = {"asked": asked.fingerprint, "answers": file_sha256(path)}
    if not any(
        event["event"] == EventKind.TEST_SCORED and known.items() <= event.items()
        for event in directory.events()
    ):
        return None
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return [
        Predictions(
            split=Split.TEST,
            paths=tuple(row["path"] for row in rows),
            patients=tuple(row["patient"] for row in rows),
            subtypes=tuple(row["subtype"] for row in rows),
            labels=np.array([int(row["label"]) for row in rows], dtype=np.int8),
            probabilities=np.array([float(row[name]) for row in rows]),
        )
        for name in asked.names
    ]


def _weights(network: Candidate) -> str:
    file: Path = network.final_weights or network.weights_file
    return file_sha256(file)
