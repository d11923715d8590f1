"""From a folder of films to what a search may see: scan, split, decode, alter, report.

The test is decoded into an array of its own and handed out sealed: nothing that trains holds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.config import SplitKind
from search.data import report as reporting
from search.data.cache import ArrayFile, Progress, default_cache_dir, locked, silent
from search.data.listing import list_images, list_labelled
from search.data.report import Film
from search.data.scan import Scan, folder_key, scan_files
from search.data.sources import Source
from search.data.split import (
    NOTEBOOK_SEED,
    SplitRows,
    merge_patients,
    notebook_split,
    patient_split,
)
from search.data.views import VIEWS_SEED, ViewSettings, cached_views
from search.errors import DataError
from search.records import CLASS_NAMES, SYNTHETIC_NOTICE, Dataset, Split, Subset

__all__ = [
    "SealedTest",
    "default_cache_dir",
    "labelled_folder",
    "prepare",
    "with_validation_trained",
]

MOST_REJECTED = 0.5
"""With a larger share of unusable files the folder is not what the user thinks it is."""


@dataclass(frozen=True)
class SealedTest:
    """The test images, not to be looked at before the recipe is frozen.

    Attributes:
        folder: Where they lie.
        subset: The images; use `open`.
    """

    folder: Path
    subset: Subset | None

    def open(self) -> Subset:
        """Return the test images.

        Raises:
            DataError: There is no test folder, or a class is missing in it.
        """
        if self.subset is None:
            raise DataError(
                f"{self.folder}: no test images; looked for test/NORMAL and test/PNEUMONIA. Put "
                "them there to have the model scored"
            )
        for label, name in enumerate(CLASS_NAMES):
            if label not in self.subset.labels:
                raise DataError(
                    f"{self.folder}: no usable {name} images; a test needs both classes"
                )
        return self.subset


def prepare(
    source: Source,
    *,
    split: SplitKind,
    val_fraction: float,
    image_size: int,
    seed: int,
    cache_dir: Path,
    views: ViewSettings,
    progress: Progress = silent,
) -> tuple[Dataset, SealedTest]:
    """Scan, split and decode a source.

    Args:
        source: Where the images are.
        split: How train + val are divided.
        val_fraction: Share of the images to validate on.
        image_size: Side S in pixels.
        seed: Seed of the patient split. The stressed views do not depend on it, see `VIEWS_SEED`.
        cache_dir: Where decoded images are kept.
        views: Which stressed views are made.
        progress: Told of every stage.

    Raises:
        DataError: No images, a class missing, or most files unusable.
        StorageError: The cache cannot be written.
    """
    listing = list_images(source.root)
    lock = cache_dir / "scan" / f"{folder_key(source.root)}.lock"
    with locked(lock, progress):
        known = scan_files(
            source.root,
            listing.of("train", "val"),
            image_size=image_size,
            cache_dir=cache_dir,
            label="train",
            progress=progress,
        )
        sealed_files = listing.of("test")
        sealed = (
            scan_files(
                source.root,
                sealed_files,
                image_size=image_size,
                cache_dir=cache_dir,
                label="test",
                progress=progress,
            )
            if sealed_files
            else None
        )
    scans = [known] if sealed is None else [known, sealed]
    _check_usable(source.root, known)
    films = reporting.usable_films(known)
    test_films = [] if sealed is None else reporting.usable_films(sealed)
    rows = _split(known, films, split=split, val_fraction=val_fraction, seed=seed)
    train_films = [films[position] for position in rows.train]
    val_films = [films[position] for position in rows.val]
    _check_sides(source.root, train_films, val_films, split)

    train = _subset(known.array.path, train_films)
    val = _subset(known.array.path, val_films)
    progress("Making the stressed views", 0, 0)
    stressed, views_file = cached_views(val, settings=views, seed=VIEWS_SEED, cache_dir=cache_dir)
    weights = reporting.class_weights(train.labels.tolist())
    prevalence = sum(film.file.label for film in films) / len(films)
    everything = [*films, *test_films]
    sides = {
        Split.TRAIN: train_films,
        Split.VALIDATION: val_films,
        Split.TEST: test_films,
    }
    split_of = {film.file.relative: side for side, group in sides.items() for film in group}
    arrays = [*(scan.array for scan in scans), views_file]
    content: dict[str, Any] = {
        "source": {
            "kind": source.kind.value,
            "root": source.root.resolve().as_posix(),
            "origin": source.origin,
            "synthetic": source.synthetic,
            "notice": SYNTHETIC_NOTICE if source.synthetic else "",
        },
        "fingerprint": reporting.fingerprint(everything),
        "split": split.value,
        "val_fraction": val_fraction,
        "seed": NOTEBOOK_SEED if split is SplitKind.NOTEBOOK else seed,
        "image_size": image_size,
        "counts": {side.value: reporting.counts(group) for side, group in sides.items()},
        "patients": {side.value: reporting.patients(group) for side, group in sides.items()},
        "unmatched_names": sum(not film.name.matched for film in everything),
        "sizes": reporting.sizes(everything),
        "modes": reporting.modes(everything),
        "colour": [film.file.relative for film in everything if film.record.colour],
        "rejected": reporting.rejected(scans),
        "ignored": list(listing.ignored),
        "duplicates": reporting.duplicates(everything, split_of),
        "leakage": reporting.leakage(train_films, val_films, test_films),
        "class_weights": {CLASS_NAMES[label]: weights[label] for label in weights},
        "prevalence": prevalence,
        "views": {
            "names": list(stressed.names),
            "settings": asdict(views),
            "count": len(stressed),
        },
        "cache": {
            "dir": cache_dir.resolve().as_posix(),
            "files": [array.path.name for array in arrays],
            "bytes": sum(array.path.stat().st_size for array in arrays),
            "reused": all(array.reused for array in arrays),
        },
        "notes": _damage(arrays),
    }
    content["alarms"] = reporting.alarms(content)
    dataset = Dataset(
        image_size=image_size,
        train=train,
        val=val,
        views=stressed,
        class_weights=weights,
        prevalence=prevalence,
        fingerprint=content["fingerprint"],
        synthetic=source.synthetic,
        report=content,
    )
    test = None if sealed is None or not test_films else _subset(sealed.array.path, test_films)
    return dataset, SealedTest(folder=source.root / "test", subset=test)


def with_validation_trained(dataset: Dataset) -> Dataset:
    """Return the data set with its validation images among the training images.

    Class weights are those of the larger set. The validation images stay where they were, but
    nothing that trains on this may be validated with them.

    Args:
        dataset: Training and validation images, rows of one array.
    """
    train, val = dataset.train, dataset.val
    if train.array_file != val.array_file:
        raise ValueError(f"{train.array_file} and {val.array_file} are not one array")
    joined = Subset(
        array_file=train.array_file,
        rows=np.concatenate([train.rows, val.rows]),
        labels=np.concatenate([train.labels, val.labels]),
        paths=train.paths + val.paths,
        patients=train.patients + val.patients,
        subtypes=train.subtypes + val.subtypes,
    )
    weights = reporting.class_weights(joined.labels.tolist())
    return dataclasses.replace(dataset, train=joined, class_weights=weights)


def labelled_folder(
    folder: Path, *, image_size: int, cache_dir: Path, progress: Progress = silent
) -> Subset:
    """Decode a folder to be scored: its `test/`, or the NORMAL/ and PNEUMONIA/ it holds.

    Raises:
        DataError: Neither is there, a class is missing, or most files are unusable.
        StorageError: The cache cannot be written.
    """
    listing = list_labelled(folder)
    with locked(cache_dir / "scan" / f"{folder_key(folder)}.lock", progress):
        scan = scan_files(
            folder,
            listing.files,
            image_size=image_size,
            cache_dir=cache_dir,
            label="test",
            progress=progress,
        )
    _check_usable(folder, scan)
    films = reporting.usable_films(scan)
    return SealedTest(folder=folder, subset=_subset(scan.array.path, films)).open()


def _check_usable(root: Path, scan: Scan) -> None:
    bad = [
        (file, record)
        for file, record in zip(scan.files, scan.records, strict=True)
        if record.reason
    ]
    if len(bad) > MOST_REJECTED * len(scan.files):
        file, record = bad[0]
        raise DataError(
            f"{root}: {len(bad)} of {len(scan.files)} files are unusable, e.g. {file.relative}: "
            f"{record.reason}. Check the download, or give --data another folder"
        )


def _split(
    scan: Scan, films: Sequence[Film], *, split: SplitKind, val_fraction: float, seed: int
) -> SplitRows:
    if split is SplitKind.PATIENT:
        return patient_split(
            merge_patients(
                [film.name.patient for film in films], [film.record.sha256 for film in films]
            ),
            [film.file.label for film in films],
            val_fraction=val_fraction,
            seed=seed,
        )
    # Rejected files take part in the shuffle, so that one bad file does not move all others.
    rows = notebook_split(len(scan.files), val_fraction)
    position = {film.row: index for index, film in enumerate(films)}
    return SplitRows(
        train=tuple(position[row] for row in rows.train if row in position),
        val=tuple(position[row] for row in rows.val if row in position),
    )


def _check_sides(root: Path, train: Sequence[Film], val: Sequence[Film], split: SplitKind) -> None:
    for side, films in (("training", train), ("validation", val)):
        for label, name in enumerate(CLASS_NAMES):
            if not any(film.file.label == label for film in films):
                by_patient = split is SplitKind.PATIENT
                needed = (
                    "usable images of several patients" if by_patient else "several usable ones"
                )
                raise DataError(
                    f"{root}: no {name} image is left for {side} after the {split.value} split; "
                    f"each class needs {needed}. Add images, or give --data another folder"
                )


def _subset(array_file: Path, films: Sequence[Film]) -> Subset:
    return Subset(
        array_file=array_file,
        rows=np.array([film.row for film in films], dtype=np.int64),
        labels=np.array([film.file.label for film in films], dtype=np.int8),
        paths=tuple(film.file.relative for film in films),
        patients=tuple(film.name.patient for film in films),
        subtypes=tuple(film.name.subtype for film in films),
    )


def _damage(arrays: Sequence[ArrayFile]) -> list[str]:
    return [
        f"the cached {array.path.name} was damaged ({array.damaged}) and has been rebuilt"
        for array in arrays
        if array.damaged
    ]
