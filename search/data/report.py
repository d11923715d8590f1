"""Puts together the report of a data set, the content of `dataset.json`, and its table.

Pure; reads no files.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

from search.config import RunConfig, SplitKind
from search.data.cache import ArrayFile, cache_of
from search.data.listing import ImageFile
from search.data.scan import Scan
from search.data.split import NOTEBOOK_SEED
from search.records import CacheReport, DatasetReport, LeftOut, Source, Split

SHOWN = 10
"""Longest list of paths in the table; `dataset.json` has all."""

SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


def class_weights(labels: Sequence[int]) -> dict[int, float]:
    """Return n / (2 n_class) for each class, from the training images after the split."""
    found = Counter(labels)
    return {label: len(labels) / (2 * found[label]) for label in (0, 1)}


def counts(images: Sequence[ImageFile], classes: tuple[str, str]) -> dict[str, int]:
    """Return the number of images by class name."""
    found = Counter(image.label for image in images)
    return {name: found[label] for label, name in enumerate(classes)}


def left_out(rejected: Iterable[ImageFile]) -> tuple[LeftOut, ...]:
    """Return path and reason of image files that cannot be used."""
    return tuple(LeftOut(path=file.relative, reason=file.reason) for file in rejected)


def describe(
    config: RunConfig,
    source: Source,
    classes: tuple[str, str],
    scans: Sequence[Scan],
    sides: Mapping[Split, Sequence[ImageFile]],
    *,
    channels: int,
    views: dict[str, Any],
    view_count: int,
    arrays: Sequence[ArrayFile],
    notes: Sequence[str],
) -> DatasetReport:
    """Return the report of a data set.

    Args:
        config: The run's options.
        source: Where the images come from, with all that is left out there.
        classes: Names of the negative and the positive class.
        scans: Of train + val, and of the test if there is one.
        sides: The usable images by split.
        channels: 1 for gray, 3 for colour.
        views: Settings of the perturbed validation images.
        view_count: Their number.
        arrays: Where images are kept, decoded.
        notes: What was done that a reader might not expect; what is known here is added.
    """
    images = [image for scan in scans for image in scan.images]
    train, val, test = (sides[split] for split in Split)
    weights = class_weights([image.label for image in train])
    unknown = sum(not image.patient for image in images)
    in_train = {image.known_as for image in train}
    known = in_train | {image.known_as for image in val}
    identical = _identical(images)
    depth = max(scan.bits for scan in scans)
    report = DatasetReport(
        source=source,
        fingerprint=fingerprint(images, with_table=bool(config.table)),
        classes=classes,
        split=config.split.value,
        val_fraction=config.val_fraction,
        seed=NOTEBOOK_SEED if config.split is SplitKind.NOTEBOOK else config.seed,
        image_size=config.image_size,
        channels=channels,
        depth=depth,
        counts={split.value: counts(side, classes) for split, side in sides.items()},
        patients={split.value: _patients(side, classes) for split, side in sides.items()},
        patients_known=2 * unknown < len(images),
        unmatched_names=unknown,
        sizes=_sizes(images, classes),
        modes=dict(sorted(Counter(image.mode for image in images).items())),
        colour=tuple(image.relative for image in images if image.colour),
        turned=sum(image.turned for image in images),
        rejected=left_out(file for scan in scans for file in scan.rejected),
        identical=_paths(identical),
        crossing=_crossing(identical, sides),
        val_sharing_patients=sum(image.known_as in in_train for image in val),
        test_patients_in_train=tuple(sorted(known & {image.known_as for image in test})),
        class_weights={classes[label]: weight for label, weight in weights.items()},
        prevalence=sum(image.label for image in (*train, *val)) / (len(train) + len(val)),
        views=views,
        view_count=view_count,
        cache=CacheReport(
            dir=cache_of(config).resolve().as_posix(),
            files=tuple(array.path.name for array in arrays),
            bytes=sum(array.path.stat().st_size for array in arrays),
            reused=all(array.reused for array in arrays),
        ),
        notes=(*notes, *_notes(images, depth, arrays)),
    )
    return replace(report, alarms=tuple(_alarms(report)))


def fingerprint(images: Sequence[ImageFile], *, with_table: bool = False) -> str:
    """Return SHA-256 over the sorted (path, content hash) of the images.

    Label, patient and split count as well where they come from a table and not with the path.
    """
    lines = []
    for image in images:
        said = f"\0{image.label}\0{image.patient}\0{image.folder}" if with_table else ""
        lines.append(f"{image.relative}\0{image.sha256}{said}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _patients(images: Sequence[ImageFile], classes: tuple[str, str]) -> dict[str, int]:
    """Return the number of patients by class name, and in all."""
    found = {(image.label, image.known_as) for image in images}
    by_class = {name: sum(label == of for of, _ in found) for label, name in enumerate(classes)}
    return {**by_class, "total": len({patient for _, patient in found})}


def _sizes(
    images: Sequence[ImageFile], classes: tuple[str, str]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return smallest, median and largest width and height of the original images by class."""

    def three(values: list[int]) -> tuple[float, float, float]:
        return min(values), statistics.median(values), max(values)

    of = {name: [i for i in images if i.label == label] for label, name in enumerate(classes)}
    return {
        name: {
            "width": three([image.width for image in group]),
            "height": three([image.height for image in group]),
        }
        for name, group in of.items()
        if group
    }


Groups = list[list[ImageFile]]


def _identical(images: Sequence[ImageFile]) -> Groups:
    """Return groups of byte-identical files."""
    by_content = defaultdict(list)
    for image in images:
        by_content[image.sha256].append(image)
    return [group for group in by_content.values() if len(group) > 1]


def _crossing(
    groups: Groups, sides: Mapping[Split, Sequence[ImageFile]]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return the groups of identical files that are on two sides of a border, by border."""
    split_of = {image.relative: split for split, side in sides.items() for image in side}
    splits = [{split_of[image.relative] for image in group} for group in groups]
    on_sides: dict[str, list[Sized]] = {
        "test": [{split is Split.TEST for split in found} for found in splits],
        "validation": [found - {Split.TEST} for found in splits],
        "classes": [{image.label for image in group} for group in groups],
        "patients": [{image.known_as for image in group} for group in groups],
    }
    return {
        border: _paths([group for group, of in zip(groups, found, strict=True) if len(of) > 1])
        for border, found in on_sides.items()
    }


def _paths(groups: Groups) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(image.relative for image in group) for group in groups)


def _notes(images: Sequence[ImageFile], depth: int, arrays: Sequence[ArrayFile]) -> list[str]:
    found = []
    if deep := sum(image.brightest > 0 for image in images):
        found.append(
            f"{deep:,} images have 16 bits a pixel and do not tell how many are in use: taken as "
            f"{depth}, by the brightest pixels of all of them"
        )
    return found + [
        f"the cached {array.path.name} was damaged ({array.damaged}) and has been rebuilt"
        for array in arrays
        if array.damaged
    ]


def _alarms(report: DatasetReport) -> list[str]:
    """Return what a user must not miss, one sentence each."""
    twins, tested = report.crossing, report.test_patients_in_train
    lacking = [name for name, count in report.counts["test"].items() if not count]
    total, coloured = sum(report.modes.values()), len(report.colour)
    sentences = [
        (
            twins["test"],
            f"{len(twins['test'])} group(s) of identical files are in train and in test: the test "
            "is not independent",
        ),
        (
            twins["classes"],
            f"{len(twins['classes'])} group(s) of identical files have both labels: one of them is "
            "wrong",
        ),
        (
            twins["validation"],
            f"{len(twins['validation'])} group(s) of identical files are in training and in "
            "validation; --split patient avoids it",
        ),
        (
            tested,
            f"{len(tested)} patient(s) of the test are also in train: the test is not independent",
        ),
        (
            report.val_sharing_patients,
            f"{report.val_sharing_patients} of {sum(report.counts['val'].values())} validation "
            "images share a patient with train: validation flatters; --split patient avoids it",
        ),
        (
            not report.patients_known,
            f"the patient of {report.unmatched_names:,} images is unknown: images of one patient "
            "may be on both sides of a split; --patients or --table says who they are of",
        ),
        (
            lacking,
            f"test has no usable {' and no '.join(lacking)} image: a model can be scored on "
            "validation only",
        ),
        (
            coloured and report.channels == 1,
            f"{coloured:,} of {total:,} images have real colour and are used as gray; "
            "--channels rgb keeps it",
        ),
        (
            report.channels == 3 and coloured < total,
            f"a mix: {total - coloured:,} of {total:,} images are gray among images in colour; "
            "where that goes with the class, a network may learn it instead",
        ),
        (
            report.rejected,
            f"{len(report.rejected):,} image file(s) cannot be used, see the reasons",
        ),
    ]
    other = Counter[str]()
    for row in report.source.left_out:
        other[row.other_class] += row.files
    for name, files in sorted(other.items(), reverse=True):
        what = f"images of {name}, a class that was not asked for," if name else "other file(s)"
        sentences.append((True, f"{files:,} {what} are left out, see the reasons"))
    return [sentence for holds, sentence in sentences if holds]


def table(report: DatasetReport) -> list[tuple[str, str]]:
    """Return `dataset.json` as pairs of a name and a text, for the report and `search.data`."""
    rows = _origin(report)
    rows += [(title, _count(report, split)) for split, title in SPLIT_TITLES.items()]
    rows += _quality(report)
    twins = {
        border: [" = ".join(group) for group in groups]
        for border, groups in report.crossing.items()
    }
    lists = (
        ("cannot be used", [f"{file.path}: {file.reason}" for file in report.rejected]),
        (
            "left out",
            [f"{row.path}: {row.files:,}, {row.reason}" for row in report.source.left_out],
        ),
        ("identical, train and test", twins["test"]),
        ("identical, both classes", twins["classes"]),
        ("identical, training and validation", twins["validation"]),
        ("patients of the test in train", report.test_patients_in_train),
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
    state = "found" if report.cache.reused else "written"
    return [
        ("folder", str(report.source.root)),
        ("classes", f"{report.classes[1]} (the finding) against {report.classes[0]}"),
        ("split", how[report.split]),
        ("found by", report.source.origin),
        ("fingerprint", report.fingerprint[:16]),
        ("decoded", f"{report.image_size} × {report.image_size} pixels, {colour}"),
        ("cache", f"{report.cache.dir} ({report.cache.bytes / 1e6:.0f} MB, {state})"),
    ]


def _count(report: DatasetReport, split: str) -> str:
    counted = report.counts[split]
    text = f"{sum(counted.values()):,} images: "
    text += ", ".join(f"{count:,} {name}" for name, count in counted.items())
    if report.patients_known:
        text += f"; {report.patients[split]['total']:,} patients"
    return text


def _quality(report: DatasetReport) -> list[tuple[str, str]]:
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
    leakage = "patients are unknown; the split is by image"
    if report.patients_known:
        leakage = (
            f"{report.val_sharing_patients:,} of {sum(report.counts['val'].values()):,} validation "
            f"images share a patient with training; {len(report.test_patients_in_train):,} test "
            "patients are in train + val; the patient of "
            f"{report.unmatched_names:,} images is unknown"
        )
    crossing = {border: f"{len(groups):,} across" for border, groups in report.crossing.items()}
    duplicates = (
        f"{len(report.identical):,} groups of identical files "
        f"({sum(map(len, report.identical)):,} files); {crossing['test']} train and test, "
        f"{crossing['classes']} classes, {crossing['patients']} patients, "
        f"{crossing['validation']} training and validation"
    )
    kinds = ", ".join(report.views["kinds"])
    return [
        *rows,
        ("pixel modes", pixels),
        ("leakage", leakage),
        ("duplicates", duplicates),
        ("perturbed images", f"{report.view_count:,} of validation: {kinds}"),
    ]
