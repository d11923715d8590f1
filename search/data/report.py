"""Puts together the report of a data set, the content of `dataset.json`. Pure; reads no files."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.data.listing import FoundFile
from search.data.naming import NameParts, read_name
from search.data.scan import FileRecord, Scan
from search.records import CLASS_NAMES, Split


@dataclass(frozen=True, kw_only=True)
class Film:
    """One usable image.

    Attributes:
        row: Its row in the array of its scan.
        file: Where it was found.
        record: What the file told.
        name: What its name tells.
    """

    row: int
    file: FoundFile
    record: FileRecord
    name: NameParts


def usable_films(scan: Scan) -> list[Film]:
    """Return the images of a scan that are not rejected, in order."""
    return [
        Film(row=row, file=file, record=record, name=read_name(file.relative))
        for row, (file, record) in enumerate(zip(scan.files, scan.records, strict=True))
        if not record.reason
    ]


def fingerprint(films: Sequence[Film]) -> str:
    """Return SHA-256 over the sorted (path, content hash) of the images."""
    digest = hashlib.sha256()
    for path, content in sorted((film.file.relative, film.record.sha256) for film in films):
        digest.update(f"{path}\0{content}\n".encode())
    return digest.hexdigest()


def class_weights(labels: Sequence[int]) -> dict[int, float]:
    """Return n / (2 n_class) for each class, from the training images after the split."""
    counts = Counter(labels)
    return {label: len(labels) / (2 * counts[label]) for label in range(len(CLASS_NAMES))}


def counts(films: Sequence[Film]) -> dict[str, int]:
    """Return the number of images by class name."""
    found = Counter(film.file.label for film in films)
    return {name: found[label] for label, name in enumerate(CLASS_NAMES)}


def patients(films: Sequence[Film]) -> dict[str, int]:
    """Return the number of patients by class name, and in all."""
    by_class = {
        name: len({film.name.patient for film in films if film.file.label == label})
        for label, name in enumerate(CLASS_NAMES)
    }
    return {**by_class, "total": len({film.name.patient for film in films})}


def rejected(scans: Sequence[Scan]) -> list[dict[str, str]]:
    """Return path and reason of every file that is left out."""
    return [
        {"path": file.relative, "reason": record.reason}
        for scan in scans
        for file, record in zip(scan.files, scan.records, strict=True)
        if record.reason
    ]


def sizes(films: Sequence[Film]) -> dict[str, Any]:
    """Return the smallest, median and largest width and height in pixels, by class."""
    found: dict[str, Any] = {}
    for label, name in enumerate(CLASS_NAMES):
        records = [film.record for film in films if film.file.label == label]
        if records:
            widths = [record.width for record in records]
            heights = [record.height for record in records]
            found[name] = {
                "width": [min(widths), statistics.median(widths), max(widths)],
                "height": [min(heights), statistics.median(heights), max(heights)],
            }
    return found


def modes(films: Sequence[Film]) -> dict[str, int]:
    """Return how many images each of Pillow's modes has."""
    return dict(sorted(Counter(film.record.mode for film in films).items()))


def duplicates(films: Sequence[Film], split_of: dict[str, Split]) -> dict[str, Any]:
    """Find byte-identical files.

    Args:
        films: All usable images.
        split_of: The split of each image, by relative path.

    Returns:
        groups: how many groups there are; files: how many files are in them; and the groups
        (lists of paths) that cross train/test, training/validation, classes and patients.
    """
    by_content: dict[str, list[Film]] = defaultdict(list)
    for film in films:
        by_content[film.record.sha256].append(film)
    groups = [group for group in by_content.values() if len(group) > 1]

    def crossing(kinds: list[set[Any]]) -> list[list[str]]:
        return [
            [film.file.relative for film in group]
            for group, found in zip(groups, kinds, strict=True)
            if len(found) > 1
        ]

    splits = [{split_of[film.file.relative] for film in group} for group in groups]
    return {
        "groups": len(groups),
        "files": sum(len(group) for group in groups),
        "crossing_test": crossing([{split is Split.TEST for split in found} for found in splits]),
        "crossing_validation": crossing([found - {Split.TEST} for found in splits]),
        "crossing_classes": crossing([{film.file.label for film in group} for group in groups]),
        "crossing_patients": crossing([{film.name.patient for film in group} for group in groups]),
    }


def leakage(train: Sequence[Film], val: Sequence[Film], test: Sequence[Film]) -> dict[str, Any]:
    """Count what one side of a split could know of the other.

    Returns:
        val_images_sharing_a_patient_with_train, of val_images; and test_patients_in_train, the
        patients of the test that are in train or validation, with their identifiers.
    """
    known = {film.name.patient for film in train}
    sharing = sum(film.name.patient in known for film in val)
    seen = known | {film.name.patient for film in val}
    both = sorted(seen & {film.name.patient for film in test})
    return {
        "val_images_sharing_a_patient_with_train": sharing,
        "val_images": len(val),
        "test_patients_in_train": len(both),
        "test_patients_in_train_ids": both,
    }


def alarms(report: dict[str, Any]) -> list[str]:
    """Return what a user must not miss, one sentence each."""
    found = []
    twins = report["duplicates"]
    if twins["crossing_test"]:
        found.append(
            f"{len(twins['crossing_test'])} group(s) of identical files are in train and in test: "
            "the test is not independent"
        )
    if twins["crossing_classes"]:
        found.append(
            f"{len(twins['crossing_classes'])} group(s) of identical files have both labels: "
            "one of them is wrong"
        )
    if twins["crossing_validation"]:
        found.append(
            f"{len(twins['crossing_validation'])} group(s) of identical files are in training and "
            "in validation; --split patient avoids it"
        )
    shared = report["leakage"]["test_patients_in_train"]
    if shared:
        found.append(f"{shared} patient(s) of the test are also in train: the test is not clean")
    sharing = report["leakage"]["val_images_sharing_a_patient_with_train"]
    if sharing:
        found.append(
            f"{sharing} of {report['leakage']['val_images']} validation images share a patient "
            "with train: validation flatters; --split patient avoids it"
        )
    lacking = [name for name, count in report["counts"]["test"].items() if not count]
    if lacking:
        found.append(
            f"test has no usable {' and no '.join(lacking)} image: a model can be scored on "
            "validation only"
        )
    if report["colour"]:
        found.append(f"{len(report['colour'])} file(s) have real colour and are used as gray")
    if report["rejected"]:
        found.append(f"{len(report['rejected'])} file(s) are left out, see the list of reasons")
    return found
