"""Draws a labelled sheet of training images, and below them what augmentation makes of them.

Takes the augmentation as a function, so it knows neither Keras nor hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from search.errors import ConfigurationError
from search.records import CLASS_NAMES, Dataset

COLUMNS = 8
"""Images across: half of each class."""

DRAWS = 4
"""Rows of augmented images."""

TILE = 180
"""Side of an image on the sheet, in pixels."""

MARGIN, LINE = 8, 16
INK, PAPER, ACCENT = 30, 250, 110

Augment = Callable[[np.ndarray], np.ndarray]
"""`float32` (n, S, S, 1) in 0–1 to the same, a new draw at every call."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What is drawn, computed before it is.

    Attributes:
        captions: Two lines for each image: class, and patient.
        images: `uint8` (n, S, S), the training images.
        augmented: `uint8` (draws, n, S, S), empty where nothing is augmented.
        title: What the augmentation is.
    """

    captions: tuple[tuple[str, str], ...]
    images: np.ndarray
    augmented: np.ndarray
    title: str


def make_sheet(dataset: Dataset, augment: Augment | None, *, title: str, seed: int) -> Sheet:
    """Choose images, as many of each class, and augment them."""
    labels = dataset.train.labels
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(len(CLASS_NAMES)):
        positions = np.flatnonzero(labels == label)
        count = min(COLUMNS // len(CLASS_NAMES), len(positions))
        chosen += rng.choice(positions, count, replace=False).tolist()
    images = dataset.train.open_array()[dataset.train.rows[chosen]]
    drawn = []
    if augment is not None:
        scaled = images.astype(np.float32) / 255
        for _ in range(DRAWS):
            drawn.append(np.rint(np.clip(augment(scaled), 0, 1) * 255).astype(np.uint8)[..., 0])
    return Sheet(
        captions=tuple(
            (CLASS_NAMES[labels[position]], dataset.train.patients[position]) for position in chosen
        ),
        images=images[..., 0],
        augmented=np.array(drawn, dtype=np.uint8).reshape(-1, *images.shape[:3]),
        title=title,
    )


def draw_sheet(sheet: Sheet, notice: str = "") -> Image.Image:
    """Draw a sheet, with a notice stamped over it where there is one."""
    columns, rows = len(sheet.images), len(sheet.augmented)
    step = TILE + MARGIN
    heads = 3 * LINE + MARGIN
    height = heads + step + (2 * LINE + rows * step if rows else LINE) + (LINE if notice else 0)
    page = Image.new("L", (MARGIN + columns * step, height), PAPER)
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    pen.text((MARGIN, MARGIN // 2), "Training images as decoded", fill=INK, font=font)
    for column, (image, caption) in enumerate(zip(sheet.images, sheet.captions, strict=True)):
        left = MARGIN + column * step
        for line, text in enumerate(caption, start=1):
            pen.text(
                (left, line * LINE + MARGIN // 2),
                text[-24:],
                fill=(INK, ACCENT)[line - 1],
                font=font,
            )
        page.paste(_tile(image), (left, heads))
    top = heads + step
    pen.text((MARGIN, top), sheet.title, fill=INK, font=font)
    top += 2 * LINE - MARGIN
    for row, images in enumerate(sheet.augmented):
        for column, image in enumerate(images):
            page.paste(_tile(image), (MARGIN + column * step, top + row * step))
    if notice:
        pen.text((MARGIN, height - LINE - MARGIN // 2), notice.upper(), fill=INK, font=font)
    return page


def save_sheet(page: Image.Image, path: Path) -> None:
    """Write a sheet as PNG.

    Raises:
        ConfigurationError: The place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path, format="PNG")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"--show {path}: cannot be written ({reason}); choose another place"
        ) from error


def _tile(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BILINEAR)
