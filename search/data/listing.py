"""Lists the labelled image files of a folder, with the patient of each; decodes none of them.

Layouts: `{train,val,test}/CLASS/…`, `CLASS/…` directly, or whatever a table of files says. The
names of the two classes are those of the folders. Inside a class, images may lie in folders of
their own, as patients' folders do. Beside the layout nothing is looked into, so that a duplicate
such as `chest_xray/chest_xray` is never counted twice; but what is left out is listed.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from search.config import RunConfig
from search.data.decode import is_image, readable
from search.data.naming import read_name
from search.data.table import SPLITS, Row, match_files, read_table
from search.errors import ConfigurationError, DataError
from search.records import LeftOut

IMAGE_SUFFIXES = frozenset((
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jp2",
    ".j2k", ".dcm", ".dicom",
))  # fmt: skip
"""A file whose name ends in one of these is an image, or is rejected with a reason; another one is
an image if its content says so."""

JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""Left behind by operating systems; passed over, as is every name that begins with a dot."""

NEGATIVE = frozenset({"normal", "negative", "healthy", "benign", "control", "0"})
"""Names of a class, lower case, that say that there is no finding."""

NESTINGS = (
    "chest_xray", "chest_xray/chest_xray", "chest_xray/data", "data", "data/chest_xray",
    "CellData/chest_xray", "chest_xray/CellData/chest_xray", "ZhangLabData/CellData/chest_xray",
)  # fmt: skip
"""Where `train/` has been met below the folder that people point at; the first one wins."""

PATIENT_FOLDERS = 5
"""So many folders inside the classes are those of patients; fewer are groups of images."""


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image file: where it lies, what is said of it and, once it was scanned, what it holds."""

    relative: str  # path relative to the data folder, posix
    folder: str  # "train", "val" or "test"; "" where the layout does not say
    class_name: str = ""
    group: str = ""  # its folder inside the folder of its class
    label: int = 0  # 0 negative or 1 positive
    patient: str = ""  # identifier, unique over all ways to tell it, or "" if unknown
    subtype: str = ""  # "bacteria", "virus" or ""

    row: int = 0  # in the array of its scan
    sha256: str = ""  # of its content, "" if it cannot be read
    width: int = 0  # of the original, in pixels; 0 if rejected
    height: int = 0
    mode: str = ""  # this and the next three as in `decode.Decoded`
    colour: bool = False
    turned: bool = False
    brightest: int = 0
    reason: str = ""  # why it cannot be used, "" if it is used

    @property
    def known_as(self) -> str:
        """Return its patient; one of its own where that is unknown."""
        return self.patient or f"file:{self.relative}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The image files of a data folder, in the order of the notebook's sorted glob."""

    classes: tuple[str, str]  # names of the negative and the positive class
    # train, then val, then test; the negative class first; by name within
    files: tuple[ImageFile, ...]
    left_out: tuple[LeftOut, ...]  # what lies there and is not used

    def of(self, *folders: str) -> tuple[ImageFile, ...]:
        """Return the files of these folders."""
        return tuple(file for file in self.files if file.folder in folders)


def list_images(root: Path, config: RunConfig, *, place: str = "") -> Listing:
    """List a data folder.

    Args:
        root: The folder that directly holds `train/`, or the classes.
        config: Says of classes, patients and labels what the files are not to tell.
        place: What errors name: the archive where the folder was extracted from one.

    Raises:
        DataError: There are not two classes with images in train and val together, or a folder or
            the table cannot be used; names the place, what was found and the remedy.
        ConfigurationError: An option does not fit the files.
    """
    left = LeftOutFiles()
    table = Path(config.table)
    rows = read_table(table) if config.table else {}
    if any(row["label"] for row in rows.values()):
        images = _everything(root, left)
    else:
        images = _by_folder(root, left)
    if config.table:
        images = _joined(images, match_files(table, rows, [i.relative for i in images], root), left)
    place = place or str(root)
    classes = _choose(images, place, config)
    images = _of_classes(images, classes, left)
    for name in classes:
        if not any(_same(i.class_name, name) and i.folder != "test" for i in images):
            raise DataError(f"{place}: no {name} images to train on; they are all in the test")
    files = _with_patients(images, classes, config.patients)
    return Listing(classes=classes, files=files, left_out=left.rows())


def list_labelled(folder: Path, classes: tuple[str, str]) -> Listing:
    """List one set to be scored: a folder's `test/`, or the classes it holds directly.

    Args:
        folder: Where to look.
        classes: Names of the negative and the positive class, as the model knows them.

    Raises:
        DataError: Neither is there, or a class has no images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    for candidate in (folder, *nested_folders(folder)):
        inside = [f for f in subfolders(candidate) if SPLITS.get(f.name.casefold()) == "test"]
        left = LeftOutFiles()
        images = [
            image
            for place in inside or [candidate]
            for image in _classes_in(folder, place, "test" if inside else "", left)
        ]
        images = _of_classes(images, classes, left)
        if images:
            break
    else:
        raise DataError(
            f"{folder}: no images; looked for test/{classes[0]} and test/{classes[1]}, and for "
            f"{classes[0]} and {classes[1]} directly in it"
        )
    for name in classes:
        if not any(_same(image.class_name, name) for image in images):
            raise DataError(
                f"{folder}: no {name} images; looked for test/{name} and for {name}. Scoring "
                "needs both classes"
            )
    files = _with_patients(images, classes)
    return Listing(classes=classes, files=files, left_out=left.rows())


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name, without what operating systems leave behind."""
    return [Path(entry.path) for entry in _entries(folder) if _is_folder(entry)]


def nested_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders below that known layouts have."""
    for nesting in NESTINGS:
        found: list[Path] = [folder]
        for part in nesting.split("/"):
            found = [f for p in found for f in subfolders(p) if _same(f.name, part)][:1]
        yield from found


def find_root(folder: Path) -> Path | None:
    """Return the folder that directly holds `train/` or else the classes, or None.

    Looks in the folder, in those of known layouts below it, and one level deeper.

    Raises:
        DataError: Several folders one level deeper hold a `train/`.
    """
    for candidate in (folder, *nested_folders(folder)):
        if _holds_train(candidate):
            return candidate
    deeper = [inside for inside in subfolders(folder) if _holds_train(inside)]
    if len(deeper) > 1:
        names = ", ".join(inside.name for inside in deeper)
        raise DataError(f"{folder}: {names} each hold a train/; give --data one of them")
    if deeper:
        return deeper[0]
    inside = subfolders(folder)
    while len(inside) == 1:
        folder, inside = inside[0], subfolders(inside[0])
    if len(inside) < 2 or any(place.name.casefold() in SPLITS for place in inside):
        return None
    return folder


def is_junk(name: str) -> bool:
    """Return whether a file or folder was left behind by an operating system."""
    return name.startswith(".") or name.casefold() in JUNK


def _holds_train(folder: Path) -> bool:
    return any(SPLITS.get(inside.name.casefold()) == "train" for inside in subfolders(folder))


class LeftOutFiles:
    """Counts files that are not used, by place and reason."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str, str], list[str]] = defaultdict(list)

    def add(
        self, relative: str, reason: str, *, place: str | None = None, other_class: str = ""
    ) -> None:
        """Count a file under a place, its folder unless told."""
        place = PurePosixPath(relative).parent.as_posix() if place is None else place
        self._files[place, reason, other_class].append(relative)

    def rows(self) -> tuple[LeftOut, ...]:
        """Return a row for every place and reason; a file that is alone is named itself."""
        return tuple(
            LeftOut(
                path=files[0] if len(files) == 1 else place,
                files=len(files),
                reason=reason,
                other_class=other_class,
            )
            for (place, reason, other_class), files in sorted(self._files.items())
        )


def _by_folder(root: Path, left: LeftOutFiles) -> list[ImageFile]:
    """Return the images of a folder with `train/`, or of one that holds the classes."""
    if not _holds_train(root):
        return _classes_in(root, root, "", left)
    images = []
    beside = "beside train/, in no split"
    for entry in _entries(root):
        place = Path(entry.path)
        if not _is_folder(entry):
            if may_be_image(place):
                left.add(entry.name, beside)
        elif split := SPLITS.get(entry.name.casefold()):
            images += _classes_in(root, place, split, left)
        else:
            for relative, _ in _walk(root, place):
                left.add(relative, beside, place=entry.name)
    return images


def _classes_in(root: Path, place: Path, split: str, left: LeftOutFiles) -> list[ImageFile]:
    """Return the images of every class in a folder."""
    images = []
    for entry in _entries(place):
        if _is_folder(entry):
            for relative in _images(root, Path(entry.path), left):
                parts = PurePosixPath(relative).relative_to(_relative(root, entry)).parts
                group = parts[0] if len(parts) > 1 else ""
                images.append(
                    ImageFile(relative=relative, folder=split, class_name=entry.name, group=group)
                )
        elif may_be_image(Path(entry.path)):
            left.add(_relative(root, entry), "in no class's folder")
    return images


def _everything(root: Path, left: LeftOutFiles) -> list[ImageFile]:
    """Return all images below a folder, for a table to label."""
    return [
        ImageFile(relative=relative, folder=SPLITS.get(relative.split("/")[0].casefold(), ""))
        for relative in _images(root, root, left)
    ]


def _images(root: Path, folder: Path, left: LeftOutFiles) -> Iterator[str]:
    """Yield every image in a folder and below, by name, and count the other files."""
    for relative, reason in _walk(root, folder):
        if reason:
            left.add(relative, reason)
        else:
            yield relative


def _walk(root: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every file in a folder and below, by name, with the reason why it is no image or ""."""
    for entry in _entries(folder):
        relative = _relative(root, entry)
        shown = os.fsencode(relative).decode(errors="backslashreplace")
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(entry.path))
        elif _is_folder(entry):
            yield relative, "a link to a folder; links are not followed"
        elif shown != relative:
            # It could not be hashed, printed or written to JSON.
            yield shown, "the name is not UTF-8; rename the file"
        elif may_be_image(Path(entry.path)):
            yield relative, ""
        else:
            yield relative, "not an image"


def may_be_image(path: Path) -> bool:
    """Return whether a file has an image's name or content."""
    return path.suffix.lower() in IMAGE_SUFFIXES or is_image(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not is_junk(e.name)), key=lambda e: e.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{folder}: cannot be listed ({reason}); check its permissions") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle
        return False


def _relative(root: Path, entry: os.DirEntry[str]) -> str:
    return Path(entry.path).relative_to(root).as_posix()


def _same(first: str, second: str) -> bool:
    return first.casefold() == second.casefold()


def _choose(images: Sequence[ImageFile], place: str, config: RunConfig) -> tuple[str, str]:
    """Return the names of the negative and the positive class."""
    names: dict[str, str] = {}
    for image in images:  # the spelling of the training images wins
        names.setdefault(image.class_name.casefold(), image.class_name)
    found = sorted(names.values())
    if config.classes:
        missing = [name for name in config.classes if name.casefold() not in names]
        if missing:
            raise ConfigurationError(
                f"--classes {','.join(config.classes)}: {place} has no images of {missing[0]}; "
                f"it has {_counted(images)}"
            )
        found = [names[name.casefold()] for name in config.classes]
    if len(found) != 2:
        raise DataError(_not_two(images, place, found))
    first, second = found
    if config.positive:
        findings = [name for name in found if _same(name, config.positive)]
        if not findings:
            raise ConfigurationError(
                f"--positive {config.positive}: no such class; choose {first} or {second}"
            )
    else:
        findings = [name for name in found if name.casefold() not in NEGATIVE]
    return (second, first) if findings == [first] else (first, second)


def _not_two(images: Sequence[ImageFile], place: str, names: Sequence[str]) -> str:
    if not names:
        return f"{place}: no images; looked for train/CLASS/ and CLASS/ with two classes"
    if len(names) == 1:
        return (
            f"{place}: one class only, {_counted(images)}; two are needed. Put the images of the "
            "other one beside it, or give --data another folder"
        )
    splits = sorted({image.folder for image in images}, key=("train", "val", "test", "").index)
    by_split = "; ".join(
        f"{split}/ has {_counted([image for image in images if image.folder == split])}"
        if split
        else f"it has {_counted(images)}"
        for split in splits
    )
    return (
        f"{place}: {len(names)} classes, {', '.join(names)} ({by_split}), and two are needed. Name "
        "a class alike in every split; or take two with --classes A,B and leave out the others"
    )


def _counted(images: Sequence[ImageFile]) -> str:
    counts = Counter(image.class_name for image in images)
    return ", ".join(f"{name} ({count:,} images)" for name, count in sorted(counts.items()))


def _of_classes(
    images: Sequence[ImageFile], classes: tuple[str, str], left: LeftOutFiles
) -> list[ImageFile]:
    """Return the images of two classes, and count the others as left out."""
    kept = []
    for image in images:
        name, parts = image.class_name, PurePosixPath(image.relative).parts
        if any(_same(name, of) for of in classes):
            kept.append(image)
        else:
            place = "/".join(parts[: len(parts) - 1 - bool(image.group)])
            reason = f"{name} is none of the two classes"
            left.add(image.relative, reason, place=place, other_class=name)
    return kept


def _joined(
    images: Sequence[ImageFile], said: Mapping[str, Row], left: LeftOutFiles
) -> list[ImageFile]:
    """Return the images that a table lists, with what it says of them."""
    joined = []
    for image in images:
        if row := said.get(image.relative):
            name = row["label"] or image.class_name
            split = SPLITS.get(row["split"].casefold(), image.folder)
            joined.append(replace(image, class_name=name, patient=row["patient"], folder=split))
        else:
            left.add(image.relative, "not in the table")
    return joined


def _with_patients(
    images: Sequence[ImageFile], classes: tuple[str, str], patients: str = ""
) -> tuple[ImageFile, ...]:
    """Return the files in order, each with its patient.

    The patient is what the table says; else what the regular expression finds; else the folder
    inside the class, where there are enough of them to be patients; else what the name tells.
    """
    told = any(image.patient for image in images)
    by_group = len({image.group for image in images} - {""}) >= PATIENT_FOLDERS
    files = []
    for image in images:
        patient, subtype = read_name(image.relative)
        if told:
            patient = image.patient
        elif patients:
            name = PurePosixPath(image.relative).name
            match = re.search(patients, name) or re.search(patients, image.relative)
            patient = (match and match[1]) or ""
        elif by_group and image.group:
            patient = f"folder:{image.group}"
        label = int(_same(image.class_name, classes[1]))
        files.append(replace(image, label=label, patient=patient, subtype=subtype))
    if patients and not any(file.patient for file in files):
        raise ConfigurationError(
            f"--patients {patients}: matches none of {len(files):,} files, such as "
            f"{files[0].relative}"
        )
    order = ("train", "val", "test", "")
    files.sort(key=lambda f: (order.index(f.folder), f.label, PurePosixPath(f.relative).parts))
    return tuple(files)


# What a command is given.


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Expand files, folders and globs to files, in the order given, each once.

    A folder stands for the images in it and below; links to folders are not followed there, nor by
    `**`, so that folders which hold each other end. What matches nothing, a folder without images
    and one that cannot be listed stay in the list, so that they get a row which says so.

    Args:
        arguments: As typed.

    Raises:
        DataError: Nothing but folders without images, or an empty name, which Python would take
            for the working directory.
    """
    found: dict[Path, None] = {}
    empty: list[Path] = []
    for argument in arguments:
        if not argument:
            raise DataError("IMAGE '': an empty name; give a file, a folder or a glob")
        path = Path(argument)
        # A name may hold brackets; only what is not there as it is typed can be a pattern.
        for match in [path] if _exists(path) else _matches(path) or [path]:
            inside = _images_below(match) if _exists(match) and match.is_dir() else [match]
            if not inside:
                empty.append(match)
            found |= dict.fromkeys(inside or [match])
    if empty and len(found) == len(set(empty)):
        raise DataError(f"{empty[0]}: no images in this folder or below it; give another one")
    return list(found)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, for one
        return False


def _matches(pattern: Path) -> list[Path]:
    """Return what a pattern matches; hidden names are matched only where the pattern has a dot."""
    start = Path(pattern.anchor)
    parts = pattern.relative_to(start).parts
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    try:
        matches = sorted(start.glob("/".join(parts)))
        # `glob` passes over what it may not list, in silence.
        above = {m for n in range(1, len(parts)) for m in start.glob("/".join(parts[:n]))}
        matches += sorted(path for path in above if path.is_dir() and not readable(path))
    except (OSError, ValueError):
        return []
    return [m for m in matches if hidden or not any(is_junk(part) for part in m.parts)]


def _images_below(folder: Path) -> list[Path]:
    try:
        entries = _entries(folder)
    except DataError:
        return [folder]
    found = []
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            found += _images_below(path)
        elif not _is_folder(entry) and may_be_image(path):
            found.append(path)
    return found
