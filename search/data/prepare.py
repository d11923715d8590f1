"""From a folder of images to what a search may see: scan, split, decode, perturb, report.

The test is decoded into an array of its own and handed out sealed: nothing that trains holds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.config import Channels, RunConfig, SplitKind
from search.data.cache import Progress, cache_of, silent
from search.data.listing import ImageFile, Listing, list_images, list_labelled
from search.data.report import class_weights, counts, describe, left_out
from search.data.scan import Scan, file_hashes, scan_files, scan_lock
from search.data.split import merge_patients, notebook_split, patient_split
from search.data.views import VIEWS_SEED, make_views, view_settings
from search.errors import DataError
from search.records import Dataset, LeftOut, Source, Split, Subset, to_json

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
    """The test images, not to be looked at before the recipe is frozen."""

    folder: Path  # Where they lie
    classes: tuple[str, str]  # Names of the negative and the positive class
    subset: Subset | None  # The images; use `open`

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
    """A set to be scored."""

    subset: Subset  # its images
    rejected: tuple[LeftOut, ...]  # image files that cannot be used
    left_out: tuple[LeftOut, ...]  # other files that are not used


def prepare(
    config: RunConfig, source: Source, *, progress: Progress = silent
) -> tuple[Dataset, SealedTest]:
    """Scan, split and decode the images of a run.

    Args:
        config: The run's options.
        source: Where the images are.
        progress: Told of every stage.

    Raises:
        DataError: No images, a class missing, or most files unusable.
        ConfigurationError: An option does not fit the files.
        StorageError: The cache cannot be written.
    """
    root, cache_dir, settings = source.root, cache_of(config), view_settings(config)
    channels = 3 if config.channels is Channels.RGB else 1
    listing = list_images(root, config, place=source.archive)
    classes = listing.classes
    with scan_lock(root, cache_dir, progress):
        known_files, sealed_files, notes = _set_test_aside(root, listing, cache_dir, progress)

        def scan(files: Sequence[ImageFile], label: str, bits: int) -> Scan:
            return scan_files(
                root,
                files,
                image_size=config.image_size,
                channels=channels,
                bits=bits,
                cache_dir=cache_dir,
                label=label,
                progress=progress,
            )

        known = scan(known_files, "train", 0)
        scans = [known, *([scan(sealed_files, "test", known.bits)] if sealed_files else [])]
    _check_usable(root, known)
    train_images, val_images = _split(config, known)
    test_images = [image for sealed in scans[1:] for image in sealed.images]
    _check_sides(root, config.split, train_images, val_images, classes)

    train, val = (_subset(known, images) for images in (train_images, val_images))
    views, views_file = make_views(
        val, settings=settings, seed=VIEWS_SEED, cache_dir=cache_dir, progress=progress
    )
    report = describe(
        config,
        dataclasses.replace(
            source, root=root.resolve(), left_out=(*source.left_out, *listing.left_out)
        ),
        classes,
        scans,
        {Split.TRAIN: train_images, Split.VALIDATION: val_images, Split.TEST: test_images},
        channels=channels,
        views=to_json(settings),
        view_count=len(views),
        arrays=[*(scan.array for scan in scans), views_file],
        notes=[*notes, *_joined(listing, config.split)],
    )
    dataset = Dataset(
        image_size=config.image_size,
        channels=channels,
        classes=classes,
        train=train,
        val=val,
        views=views,
        class_weights=class_weights(train.labels.tolist()),
        prevalence=report.prevalence,
        fingerprint=report.fingerprint,
        synthetic=source.synthetic,
        report=report,
    )
    test = _subset(scans[-1], test_images) if test_images else None
    return dataset, SealedTest(folder=root, classes=classes, subset=test)


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
    weights = class_weights(joined.labels.tolist())
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
    with scan_lock(folder, cache_dir, progress):
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
    return Labelled(
        subset=SealedTest(folder, classes, _subset(scan, scan.images)).open(),
        rejected=left_out(scan.rejected),
        left_out=listing.left_out,
    )


def _set_test_aside(
    root: Path, listing: Listing, cache_dir: Path, progress: Progress
) -> tuple[Sequence[ImageFile], Sequence[ImageFile], list[str]]:
    """Return the files to train and validate on, those of the test, and what to say of it.

    Where no folder or table says which is which, a share of the patients becomes the test. Their
    files are hashed first, so that a file that is there twice does not end up on both sides.
    """
    files = listing.of("")
    if not files:
        return listing.of("train", "val"), listing.of("test"), []
    contents = file_hashes(
        root, files, cache_dir=cache_dir, labels=("train", "test"), progress=progress
    )
    # What cannot be read is identical to nothing.
    contents = [content or file.relative for content, file in zip(contents, files, strict=True)]
    rows, test_rows = patient_split(
        merge_patients([file.known_as for file in files], contents),
        [file.label for file in files],
        val_fraction=TEST_FRACTION,
        seed=TEST_SEED,
    )
    by = "patient" if any(file.patient for file in files) else "image"
    note = (
        f"there is no train/ and no test/: {len(test_rows):,} of {len(files):,} images were set "
        f"aside as the test, by {by}"
    )
    return [files[row] for row in rows], [files[row] for row in test_rows], [note]


def _check_usable(root: Path, scan: Scan) -> None:
    bad = scan.rejected
    if len(bad) > MOST_REJECTED * len(scan.files):
        raise DataError(
            f"{root}: {len(bad)} of {len(scan.files)} files are unusable, e.g. {bad[0].relative}: "
            f"{bad[0].reason}. Check the download, or give --data another folder"
        )


def _split(config: RunConfig, scan: Scan) -> tuple[list[ImageFile], list[ImageFile]]:
    """Return the images to train and those to validate on."""
    images = scan.images
    if config.split is SplitKind.FOLDERS:
        val = [image for image in images if image.folder == "val"]
        return [image for image in images if image.folder != "val"], val
    if config.split is SplitKind.PATIENT:
        rows, val_rows = patient_split(
            merge_patients([image.known_as for image in images], [i.sha256 for i in images]),
            [image.label for image in images],
            val_fraction=config.val_fraction,
            seed=config.seed,
        )
        return [images[row] for row in rows], [images[row] for row in val_rows]
    # Rejected files take part in the shuffle, so that one bad file does not move all others.
    rows, val_rows = notebook_split(len(scan.files), config.val_fraction)
    train, val = (
        [scan.files[row] for row in side if not scan.files[row].reason] for side in (rows, val_rows)
    )
    return train, val


def _check_sides(
    root: Path,
    split: SplitKind,
    train: Sequence[ImageFile],
    val: Sequence[ImageFile],
    classes: tuple[str, str],
) -> None:
    counted = counts(val, classes)
    if split is SplitKind.FOLDERS and min(counted.values()) < FEWEST_TO_RANK:
        has = " and ".join(f"{count} {name}" for name, count in counted.items())
        raise DataError(
            f"{root}: --split folders: val/ has {has} images, too few to rank configurations; at "
            f"least {FEWEST_TO_RANK} of each class are needed. --split patient joins it with "
            "train/ and splits them again"
        )
    for side, images in (("training", train), ("validation", val)):
        for name, count in counts(images, classes).items():
            if not count:
                by_patient = split is SplitKind.PATIENT
                needed = (
                    "usable images of several patients" if by_patient else "several usable ones"
                )
                raise DataError(
                    f"{root}: no {name} image is left for {side} after the {split.value} split; "
                    f"each class needs {needed}. Add images, or give --data another folder"
                )


def _subset(scan: Scan, images: Sequence[ImageFile]) -> Subset:
    return Subset(
        array_file=scan.array.path,
        rows=np.array([image.row for image in images], dtype=np.int64),
        labels=np.array([image.label for image in images], dtype=np.int8),
        paths=tuple(image.relative for image in images),
        patients=tuple(image.known_as for image in images),
        subtypes=tuple(image.subtype for image in images),
    )


def _joined(listing: Listing, split: SplitKind) -> list[str]:
    """Say what becomes of a validation folder."""
    files = listing.of("val")
    if not files or split is SplitKind.FOLDERS:
        return []
    counted = counts(files, listing.classes)
    has = " and ".join(f"{count:,} {name}" for name, count in counted.items())
    return [
        f"val/ ({has}) is joined with train/ and both are split; --split folders keeps it for "
        "validation"
    ]
