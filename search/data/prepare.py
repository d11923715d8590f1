"""From a folder of images to what a search may see: scan, split, decode, perturb, report.

The test is decoded into an array of its own and handed out sealed: nothing that trains holds it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.config import Channels, RunConfig, SplitKind
from search.data import report as reporting
from search.data.cache import ArrayFile, Progress, default_cache_dir, locked, silent
from search.data.listing import (
    FROM_THE_FILES,
    FoundFile,
    Labelling,
    Listing,
    labelling,
    list_images,
    list_labelled,
)
from search.data.report import UsableImage
from search.data.scan import Scan, file_hashes, folder_key, scan_files
from search.data.sources import Source, find_source
from search.data.split import (
    NOTEBOOK_SEED,
    SplitRows,
    merge_patients,
    notebook_split,
    patient_split,
)
from search.data.views import VIEWS_SEED, ViewSettings, make_views, view_settings
from search.errors import DataError
from search.records import (
    SYNTHETIC_NOTICE,
    CacheReport,
    Dataset,
    DatasetReport,
    DatasetSource,
    LeftOut,
    Rejected,
    Split,
    Subset,
    ViewsReport,
    to_json,
)

__all__ = [
    "Labelled",
    "SealedTest",
    "cache_of",
    "default_cache_dir",
    "labelled_folder",
    "prepare",
    "prepare_run",
    "source_of",
    "with_validation_trained",
]

MOST_REJECTED = 0.5
"""With a larger share of unusable files the folder is not what the user thinks it is."""

TEST_FRACTION = 0.2
"""Share of the images that become the test where the layout has none."""

TEST_SEED = 8
"""Seed of that test: the same whatever a run's own seed, so that runs can be compared."""

FEWEST_TO_RANK = 20
"""Images of each class that a validation folder needs; with 20 and 20 an AUC of 0.9 still has a
standard error of 0.05."""


@dataclass(frozen=True)
class SealedTest:
    """The test images, not to be looked at before the recipe is frozen.

    Attributes:
        folder: Where they lie.
        classes: Names of the negative and the positive class.
        subset: The images; use `open`.
    """

    folder: Path
    classes: tuple[str, str]
    subset: Subset | None

    def open(self) -> Subset:
        """Return the test images.

        Raises:
            DataError: There is no test folder, or a class is missing in it.
        """
        if self.subset is None:
            raise DataError(
                f"{self.folder}: no test images; looked for test/{self.classes[0]} and "
                f"test/{self.classes[1]}. Put them there to have the model scored"
            )
        for label, name in enumerate(self.classes):
            if label not in self.subset.labels:
                raise DataError(
                    f"{self.folder}: no usable {name} images; a test needs both classes"
                )
        return self.subset


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A set to be scored.

    Attributes:
        subset: Its images.
        rejected: Image files that cannot be used.
        left_out: Other files that are not used.
        notes: What was done that a reader might not expect, a sentence each.
    """

    subset: Subset
    rejected: tuple[Rejected, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def prepare(
    source: Source,
    *,
    split: SplitKind,
    val_fraction: float,
    image_size: int,
    seed: int,
    cache_dir: Path,
    views: ViewSettings,
    channels: int = 1,
    said: Labelling = FROM_THE_FILES,
    progress: Progress = silent,
) -> tuple[Dataset, SealedTest]:
    """Scan, split and decode a source.

    Args:
        source: Where the images are.
        split: How train + val are divided.
        val_fraction: Share of the images to validate on.
        image_size: Side S in pixels.
        seed: Seed of the patient split. The perturbed images do not depend on it, see `VIEWS_SEED`.
        cache_dir: Where decoded images are kept.
        views: Which perturbed images are made.
        channels: 1 for gray, 3 for real colour.
        said: What the user says of classes and patients.
        progress: Told of every stage.

    Raises:
        DataError: No images, a class missing, or most files unusable.
        ConfigurationError: An option does not fit the files.
        StorageError: The cache cannot be written.
    """
    listing = list_images(source.root, said, place=source.place)
    lock = cache_dir / "scan" / f"{folder_key(source.root)}.lock"
    with locked(lock, progress):
        known_files, sealed_files, notes = _set_test_aside(listing, cache_dir, progress)

        def scan(files: Sequence[FoundFile], label: str, bits: int) -> Scan:
            return scan_files(
                source.root,
                files,
                image_size=image_size,
                channels=channels,
                bits=bits,
                cache_dir=cache_dir,
                label=label,
                progress=progress,
            )

        known = scan(known_files, "train", 0)
        sealed = scan(sealed_files, "test", known.bits) if sealed_files else None
    _check_usable(source.root, known)
    classes = listing.classes
    images = reporting.usable_images(known)
    test_images = [] if sealed is None else reporting.usable_images(sealed)
    rows = _split(known, images, split=split, val_fraction=val_fraction, seed=seed)
    train_images = [images[position] for position in rows.train]
    val_images = [images[position] for position in rows.val]
    _check_sides(source.root, train_images, val_images, classes, split)

    train = _subset(known.array.path, train_images)
    val = _subset(known.array.path, val_images)
    progress("Making the perturbed validation images", 0, 0)
    perturbed, views_file = make_views(val, settings=views, seed=VIEWS_SEED, cache_dir=cache_dir)
    scans = [known] if sealed is None else [known, sealed]
    arrays = [*(scan.array for scan in scans), views_file]
    everything = [*images, *test_images]
    sides = {Split.TRAIN: train_images, Split.VALIDATION: val_images, Split.TEST: test_images}
    weights = reporting.class_weights(train.labels.tolist())
    unknown = sum(not image.file.patient for image in everything)
    report = DatasetReport(
        source=DatasetSource(
            kind=source.kind.value,
            root=source.root.resolve().as_posix(),
            origin=source.origin,
            synthetic=source.synthetic,
            notice=SYNTHETIC_NOTICE if source.synthetic else "",
        ),
        fingerprint=reporting.fingerprint(everything, with_table=bool(said.table)),
        classes=classes,
        split=split.value,
        val_fraction=val_fraction,
        seed=NOTEBOOK_SEED if split is SplitKind.NOTEBOOK else seed,
        image_size=image_size,
        channels=channels,
        depth=known.bits or (sealed.bits if sealed else 0),
        counts={side.value: reporting.counts(group, classes) for side, group in sides.items()},
        patients={side.value: reporting.patients(group, classes) for side, group in sides.items()},
        patients_known=2 * unknown < len(everything),
        unmatched_names=unknown,
        sizes=reporting.sizes(everything, classes),
        modes=reporting.modes(everything),
        colour=tuple(image.file.relative for image in everything if image.record.colour),
        turned=sum(image.record.turned for image in everything),
        rejected=reporting.rejected(scans),
        left_out=(*source.left_out, *listing.left_out),
        duplicates=reporting.duplicates(
            everything,
            {image.file.relative: side for side, group in sides.items() for image in group},
        ),
        leakage=reporting.leakage(train_images, val_images, test_images),
        class_weights={classes[label]: weight for label, weight in weights.items()},
        prevalence=sum(image.file.label for image in images) / len(images),
        views=ViewsReport(names=perturbed.names, settings=to_json(views), count=len(perturbed)),
        cache=CacheReport(
            dir=cache_dir.resolve().as_posix(),
            files=tuple(array.path.name for array in arrays),
            bytes=sum(array.path.stat().st_size for array in arrays),
            reused=all(array.reused for array in arrays),
        ),
        notes=(*notes, *_folded(listing, split), *_depth(scans), *_damage(arrays)),
    )
    dataset = Dataset(
        image_size=image_size,
        channels=channels,
        classes=classes,
        train=train,
        val=val,
        views=perturbed,
        class_weights=weights,
        prevalence=report.prevalence,
        fingerprint=report.fingerprint,
        synthetic=source.synthetic,
        report=reporting.with_alarms(report),
    )
    test = None if sealed is None or not test_images else _subset(sealed.array.path, test_images)
    return dataset, SealedTest(folder=source.root, classes=classes, subset=test)


def cache_of(config: RunConfig) -> Path:
    """Return where the decoded images of a run are kept."""
    return Path(config.cache_dir) if config.cache_dir else default_cache_dir()


def source_of(config: RunConfig, *, progress: Progress = silent) -> Source:
    """Find the images of a run, see `find_source`."""
    return find_source(
        config.data,
        cache_dir=cache_of(config),
        seed=config.seed,
        table=config.table,
        progress=progress,
    )


def prepare_run(
    config: RunConfig, source: Source, *, progress: Progress = silent
) -> tuple[Dataset, SealedTest]:
    """As `prepare`, with the options of a run."""
    return prepare(
        source,
        split=config.split,
        val_fraction=config.val_fraction,
        image_size=config.image_size,
        seed=config.seed,
        cache_dir=cache_of(config),
        views=view_settings(config),
        channels=3 if config.channels is Channels.RGB else 1,
        said=labelling(config),
        progress=progress,
    )


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
    folder: Path,
    *,
    classes: tuple[str, str],
    image_size: int,
    cache_dir: Path,
    channels: int = 1,
    bits: int = 0,
    progress: Progress = silent,
) -> Labelled:
    """Decode a folder to be scored: its `test/`, or the classes it holds directly.

    Args:
        folder: Where the images are.
        classes: Names of the negative and the positive class, as the model knows them.
        image_size: Side S in pixels.
        cache_dir: Where decoded images are kept.
        channels: 1 for gray, 3 for real colour.
        bits: In use of images of 9 to 16 bits that do not tell, as in training; 0 if unknown.
        progress: Told of every stage.

    Raises:
        DataError: Neither is there, a class is missing, or most files are unusable.
        StorageError: The cache cannot be written.
    """
    listing = list_labelled(folder, classes)
    with locked(cache_dir / "scan" / f"{folder_key(folder)}.lock", progress):
        scan = scan_files(
            folder,
            listing.files,
            image_size=image_size,
            channels=channels,
            bits=bits,
            cache_dir=cache_dir,
            label="test",
            progress=progress,
        )
    _check_usable(folder, scan)
    subset = _subset(scan.array.path, reporting.usable_images(scan))
    return Labelled(
        subset=SealedTest(folder=folder, classes=classes, subset=subset).open(),
        rejected=reporting.rejected([scan]),
        left_out=listing.left_out,
        notes=() if bits else tuple(_depth([scan])),
    )


def _set_test_aside(
    listing: Listing, cache_dir: Path, progress: Progress
) -> tuple[Sequence[FoundFile], Sequence[FoundFile], list[str]]:
    """Return the files to train and validate on, those of the test, and what to say of it.

    Where no folder or table says which is which, a share of the patients becomes the test. Their
    files are hashed first, so that a file that is there twice does not end up on both sides.
    """
    files = listing.of("")
    if not files:
        return listing.of("train", "val"), listing.of("test"), []
    contents = file_hashes(
        listing.root, files, cache_dir=cache_dir, labels=("train", "test"), progress=progress
    )
    patients = [file.patient or f"file:{file.relative}" for file in files]
    # What cannot be read is identical to nothing.
    known = [content or file.relative for content, file in zip(contents, files, strict=True)]
    rows = patient_split(
        merge_patients(patients, known),
        [file.label for file in files],
        val_fraction=TEST_FRACTION,
        seed=TEST_SEED,
    )
    test = [files[position] for position in rows.val]
    by = "patient" if any(file.patient for file in files) else "image"
    note = (
        f"there is no train/ and no test/: {len(test):,} of {len(files):,} images were set aside "
        f"as the test, by {by}"
    )
    return [files[position] for position in rows.train], test, [note]


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
    scan: Scan, images: Sequence[UsableImage], *, split: SplitKind, val_fraction: float, seed: int
) -> SplitRows:
    if split is SplitKind.FOLDERS:
        folders = [image.file.folder for image in images]
        return SplitRows(
            train=tuple(i for i, folder in enumerate(folders) if folder != "val"),
            val=tuple(i for i, folder in enumerate(folders) if folder == "val"),
        )
    if split is SplitKind.PATIENT:
        return patient_split(
            merge_patients(
                [image.patient for image in images], [image.record.sha256 for image in images]
            ),
            [image.file.label for image in images],
            val_fraction=val_fraction,
            seed=seed,
        )
    # Rejected files take part in the shuffle, so that one bad file does not move all others.
    rows = notebook_split(len(scan.files), val_fraction)
    position = {image.row: index for index, image in enumerate(images)}
    return SplitRows(
        train=tuple(position[row] for row in rows.train if row in position),
        val=tuple(position[row] for row in rows.val if row in position),
    )


def _check_sides(
    root: Path,
    train: Sequence[UsableImage],
    val: Sequence[UsableImage],
    classes: tuple[str, str],
    split: SplitKind,
) -> None:
    counted = reporting.counts(val, classes)
    if split is SplitKind.FOLDERS and min(counted.values()) < FEWEST_TO_RANK:
        has = " and ".join(f"{count} {name}" for name, count in counted.items())
        raise DataError(
            f"{root}: --split folders: val/ has {has} images, too few to rank configurations; at "
            f"least {FEWEST_TO_RANK} of each class are needed. --split patient joins it with "
            "train/ and splits them again"
        )
    for side, images in (("training", train), ("validation", val)):
        for name, count in reporting.counts(images, classes).items():
            if not count:
                by_patient = split is SplitKind.PATIENT
                needed = (
                    "usable images of several patients" if by_patient else "several usable ones"
                )
                raise DataError(
                    f"{root}: no {name} image is left for {side} after the {split.value} split; "
                    f"each class needs {needed}. Add images, or give --data another folder"
                )


def _subset(array_file: Path, images: Sequence[UsableImage]) -> Subset:
    return Subset(
        array_file=array_file,
        rows=np.array([image.row for image in images], dtype=np.int64),
        labels=np.array([image.file.label for image in images], dtype=np.int8),
        paths=tuple(image.file.relative for image in images),
        patients=tuple(image.patient for image in images),
        subtypes=tuple(image.file.subtype for image in images),
    )


def _folded(listing: Listing, split: SplitKind) -> list[str]:
    """Say what becomes of a validation folder."""
    counted = Counter(file.label for file in listing.of("val"))
    if not counted or split is SplitKind.FOLDERS:
        return []
    has = " and ".join(f"{counted[label]:,} {name}" for label, name in enumerate(listing.classes))
    return [
        f"val/ ({has}) is joined with train/ and both are split; --split folders keeps it for "
        "validation"
    ]


def _depth(scans: Sequence[Scan]) -> list[str]:
    """Say what was decided for images that do not tell how many bits they use."""
    count = sum(record.brightest > 0 for scan in scans for record in scan.records)
    if not count:
        return []
    bits = next(scan.bits for scan in scans if scan.bits)
    return [
        f"{count:,} images have 16 bits a pixel and do not tell how many are in use: taken as "
        f"{bits}, by the brightest pixels of all of them"
    ]


def _damage(arrays: Sequence[ArrayFile]) -> list[str]:
    return [
        f"the cached {array.path.name} was damaged ({array.damaged}) and has been rebuilt"
        for array in arrays
        if array.damaged
    ]
