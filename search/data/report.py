"""Puts together the report of a data set, the content of `dataset.json`, and its table.

Pure; reads no files.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from search.data.listing import OTHER_CLASS, FoundFile
from search.data.scan import FileRecord, Scan
from search.records import (
    DatasetReport,
    Duplicates,
    Leakage,
    Rejected,
    Split,
)

SHOWN = 10
"""Longest list of paths in the table; `dataset.json` has all."""

SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class UsableImage:
    """One usable image."""

    row: int  # its row in the array of its scan
    file: FoundFile  # where it was found, and what is known of it
    record: FileRecord  # what opening it told

    @property
    def patient(self) -> str:
        """Return its patient; one of its own where that is unknown."""
        return self.file.patient or f"file:{self.file.relative}"


def usable_images(scan: Scan) -> list[UsableImage]:
    """Return the images of a scan that are not rejected, in order."""
    return [
        UsableImage(row=row, file=file, record=record)
        for row, (file, record) in enumerate(zip(scan.files, scan.records, strict=True))
        if not record.reason
    ]


def fingerprint(images: Sequence[UsableImage], *, with_table: bool = False) -> str:
    """Return SHA-256 over the sorted (path, content hash) of the images.

    Label, patient and split count as well where they come from a table and not with the path.
    """
    lines = []
    for image in images:
        file = image.file
        said = f"\0{file.label}\0{file.patient}\0{file.folder}" if with_table else ""
        lines.append(f"{file.relative}\0{image.record.sha256}{said}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def class_weights(labels: Sequence[int]) -> dict[int, float]:
    """Return n / (2 n_class) for each class, from the training images after the split."""
    counts = Counter(labels)
    return {label: len(labels) / (2 * counts[label]) for label in (0, 1)}


def counts(images: Sequence[UsableImage], classes: tuple[str, str]) -> dict[str, int]:
    """Return the number of images by class name."""
    found = Counter(image.file.label for image in images)
    return {name: found[label] for label, name in enumerate(classes)}


def patients(images: Sequence[UsableImage], classes: tuple[str, str]) -> dict[str, int]:
    """Return the number of patients by class name, and in all."""
    by_class = {
        name: len({image.patient for image in images if image.file.label == label})
        for label, name in enumerate(classes)
    }
    return {**by_class, "total": len({image.patient for image in images})}


def rejected(scans: Sequence[Scan]) -> tuple[Rejected, ...]:
    """Return path and reason of every image file that cannot be used."""
    return tuple(
        Rejected(path=file.relative, reason=record.reason)
        for scan in scans
        for file, record in zip(scan.files, scan.records, strict=True)
        if record.reason
    )


def sizes(
    images: Sequence[UsableImage], classes: tuple[str, str]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return smallest, median and largest width and height of the original images by class."""

    def three(values: list[int]) -> tuple[float, float, float]:
        return min(values), statistics.median(values), max(values)

    found = {}
    for label, name in enumerate(classes):
        records = [image.record for image in images if image.file.label == label]
        if records:
            found[name] = {
                "width": three([record.width for record in records]),
                "height": three([record.height for record in records]),
            }
    return found


def modes(images: Sequence[UsableImage]) -> dict[str, int]:
    """Return how many images each of Pillow's modes has."""
    return dict(sorted(Counter(image.record.mode for image in images).items()))


def duplicates(images: Sequence[UsableImage], split_of: dict[str, Split]) -> Duplicates:
    """Find byte-identical files; `split_of` is the split of each image, by relative path."""
    by_content: dict[str, list[UsableImage]] = defaultdict(list)
    for image in images:
        by_content[image.record.sha256].append(image)
    groups = [group for group in by_content.values() if len(group) > 1]

    def crossing(kinds: Sequence[AbstractSet[object]]) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(image.file.relative for image in group)
            for group, found in zip(groups, kinds, strict=True)
            if len(found) > 1
        )

    splits = [{split_of[image.file.relative] for image in group} for group in groups]
    tested = [{split is Split.TEST for split in found} for found in splits]
    return Duplicates(
        groups=len(groups),
        files=sum(len(group) for group in groups),
        crossing_test=crossing(tested),
        crossing_validation=crossing([found - {Split.TEST} for found in splits]),
        crossing_classes=crossing([{image.file.label for image in group} for group in groups]),
        crossing_patients=crossing([{image.patient for image in group} for group in groups]),
    )


def leakage(
    train: Sequence[UsableImage], val: Sequence[UsableImage], test: Sequence[UsableImage]
) -> Leakage:
    """Count what one side of a split could know of the other."""
    known = {image.patient for image in train}
    sharing = sum(image.patient in known for image in val)
    seen = known | {image.patient for image in val}
    both = sorted(seen & {image.patient for image in test})
    return Leakage(
        val_images_sharing_a_patient_with_train=sharing,
        val_images=len(val),
        test_patients_in_train=len(both),
        test_patients_in_train_ids=tuple(both),
    )


def with_alarms(report: DatasetReport) -> DatasetReport:
    """Return a report with what a user must not miss, one sentence each."""
    found = []
    twins, leak = report.duplicates, report.leakage
    if twins.crossing_test:
        found.append(
            f"{len(twins.crossing_test)} group(s) of identical files are in train and in test: "
            "the test is not independent"
        )
    if twins.crossing_classes:
        found.append(
            f"{len(twins.crossing_classes)} group(s) of identical files have both labels: "
            "one of them is wrong"
        )
    if twins.crossing_validation:
        found.append(
            f"{len(twins.crossing_validation)} group(s) of identical files are in training and "
            "in validation; --split patient avoids it"
        )
    if leak.test_patients_in_train:
        found.append(
            f"{leak.test_patients_in_train} patient(s) of the test are also in train: the test is "
            "not independent"
        )
    if leak.val_images_sharing_a_patient_with_train:
        found.append(
            f"{leak.val_images_sharing_a_patient_with_train} of {leak.val_images} validation "
            "images share a patient with train: validation flatters; --split patient avoids it"
        )
    if not report.patients_known:
        found.append(
            f"the patient of {report.unmatched_names:,} images is unknown: images of one patient "
            "may be on both sides of a split; --patients or --table says who they are of"
        )
    lacking = [name for name, count in report.counts["test"].items() if not count]
    if lacking:
        found.append(
            f"test has no usable {' and no '.join(lacking)} image: a model can be scored on "
            "validation only"
        )
    total = sum(report.modes.values())
    if report.colour and report.channels == 1:
        found.append(
            f"{len(report.colour):,} of {total:,} images have real colour and are used as gray; "
            "--channels rgb keeps it"
        )
    if report.channels == 3 and len(report.colour) < total:
        found.append(
            f"a mix: {total - len(report.colour):,} of {total:,} images are gray among images in "
            "colour; where that goes with the class, a network may learn it instead"
        )
    if report.rejected:
        found.append(f"{len(report.rejected):,} image file(s) cannot be used, see the reasons")
    other = Counter[str]()
    for row in report.left_out:
        name, of_a_class, _ = row.reason.partition(OTHER_CLASS)
        other[name if of_a_class else ""] += row.files
    for name, files in sorted(other.items(), reverse=True):
        what = f"images of {name}, a class that was not asked for," if name else "other file(s)"
        found.append(f"{files:,} {what} are left out, see the reasons")
    return replace(report, alarms=tuple(found))


def table(report: DatasetReport) -> list[tuple[str, str]]:
    """Return `dataset.json` as pairs of a name and a text, for the report and `search.data`."""
    rows = _origin(report)
    rows += [(title, _count(report, split)) for split, title in SPLIT_TITLES.items()]
    rows += _quality(report)
    lists = (
        ("cannot be used", [f"{file.path}: {file.reason}" for file in report.rejected]),
        ("left out", [f"{row.path}: {row.files:,}, {row.reason}" for row in report.left_out]),
        ("identical, train and test", _groups(report.duplicates.crossing_test)),
        ("identical, both classes", _groups(report.duplicates.crossing_classes)),
        ("identical, training and validation", _groups(report.duplicates.crossing_validation)),
        ("patients of the test in train", list(report.leakage.test_patients_in_train_ids)),
    )
    for title, lines in lists:
        more = [f"… {len(lines) - SHOWN:,} more in dataset.json"] if len(lines) > SHOWN else []
        shown = [*lines[:SHOWN], *more]
        rows += [(title if number == 0 else "", line) for number, line in enumerate(shown)]
    rows += [("note", note) for note in report.notes]
    rows += [("warning", alarm) for alarm in report.alarms]
    return rows


def _origin(report: DatasetReport) -> list[tuple[str, str]]:
    how = {
        "folders": "validation is the folder val/",
        "notebook": f"as the notebook, {report.val_fraction:.0%} of train + val for validation",
        "patient": f"{report.val_fraction:.0%} of train + val for validation, by "
        f"{'patient' if report.patients_known else 'image'}, seed {report.seed}",
    }
    colour = "gray" if report.channels == 1 else "colour"
    rows = [
        ("folder", report.source.root),
        ("classes", f"{report.classes[1]} (the finding) against {report.classes[0]}"),
        ("split", how[report.split]),
        ("found by", report.source.origin),
        ("fingerprint", report.fingerprint[:16]),
        ("decoded", f"{report.image_size} × {report.image_size} pixels, {colour}"),
    ]
    if report.cache is not None:
        state = "found" if report.cache.reused else "written"
        size = f"{report.cache.bytes / 1e6:.0f} MB"
        rows.append(("cache", f"{report.cache.dir} ({size}, {state})"))
    return rows


def _count(report: DatasetReport, split: str) -> str:
    counted = report.counts[split]
    text = f"{sum(counted.values()):,} images: "
    text += ", ".join(f"{count:,} {name}" for name, count in counted.items())
    if report.patients_known:
        text += f"; {report.patients[split]['total']:,} patients"
    return text


def _quality(report: DatasetReport) -> list[tuple[str, str]]:
    twins, leak, views = report.duplicates, report.leakage, report.views
    weights = ", ".join(f"{weight:.2f} {name}" for name, weight in report.class_weights.items())
    pixels = ", ".join(f"{count:,} {mode}" for mode, count in report.modes.items())
    pixels += f"; {len(report.colour):,} with real colour"
    if report.turned:
        pixels += f"; {report.turned:,} turned upright as their EXIF orientation says"
    if report.depth:
        pixels += f"; depth {report.depth} bits"
    rows = [
        ("class weights", weights),
        ("prevalence", f"{report.prevalence:.3f} {report.classes[1]} in train + val"),
    ]
    for name, sides in report.sizes.items():
        across, down = (
            f"{low:,.0f} – {high:,.0f} (median {middle:,.0f})"
            for low, middle, high in (sides["width"], sides["height"])
        )
        rows.append((f"original pixels, {name}", f"{across} × {down}"))
    rows.append(("pixel modes", pixels))
    if report.patients_known:
        rows.append(
            (
                "leakage",
                f"{leak.val_images_sharing_a_patient_with_train:,} of {leak.val_images:,} "
                "validation images share a patient with training; "
                f"{leak.test_patients_in_train:,} test patients are in train + val; the patient of "
                f"{report.unmatched_names:,} images is unknown",
            )
        )
    else:
        rows.append(("leakage", "patients are unknown; the split is by image"))
    rows.append(
        (
            "duplicates",
            f"{twins.groups:,} groups of identical files ({twins.files:,} files); "
            f"{len(twins.crossing_test):,} across train and test, "
            f"{len(twins.crossing_classes):,} across classes, "
            f"{len(twins.crossing_patients):,} across patients, "
            f"{len(twins.crossing_validation):,} across training and validation",
        )
    )
    names = ", ".join(views.names)
    rows.append(("perturbed images", f"{views.count:,} of validation: {names}"))
    return rows


def _groups(groups: Sequence[Sequence[str]]) -> list[str]:
    return [" = ".join(group) for group in groups]
