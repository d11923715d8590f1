"""Makes the perturbed validation images: fixed, seeded alterations, called views.

They ask whether a model still sees the disease when an image was framed or exposed otherwise than
its neighbours in the same folder, which plain validation cannot ask. A view depends on the seed
and the image's path alone: every trial, every run and every order of files gets the same.

Parameters are drawn apart from being applied, so that tests can look at them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from search.config import RunConfig
from search.data.cache import (
    ArrayFile,
    Progress,
    adopt_array,
    array_path,
    in_threads,
    locked,
    new_array,
    read_array,
    silent,
)
from search.errors import ConfigurationError
from search.records import PerturbedViews, Subset

VIEWS_VERSION = 1
"""Part of the cache key; raise it when the same settings would give other pixels."""

VIEWS_SEED = 8
"""Seed of the views of every run: whatever a run's own seed, an image has the same views."""

KINDS = ("crop", "shift", "zoom_out", "tone")
"""All kinds of view; see `ViewSettings` for what each stands for."""

STRENGTHS = {
    "crop_area": (0.05, 1), "shift": (0, 0.5), "zoom_out": (0, 0.5), "gamma": (0.1, 10),
    "contrast": (0.1, 10),
}  # fmt: skip
"""The least and the most that a strength may be."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """Which views are made, how strong, and how many of each image.

    The strengths were set from how images vary between examinations, not by scoring on a test.

    Attributes:
        kinds: The kinds in use, a subset of `KINDS`.
        views_per_image: How many different kinds each image gets; 2 of 4 costs as much as
            evaluating the clean set twice.
        crop_area: Smallest and largest share of the area that is kept. Collimation: how far the
            beam is narrowed to the chest differs between radiographers and with the child's size.
        shift: Largest displacement in each direction, as a share of the side; what enters is
            black. Positioning: a child is seldom centred, and infants move.
        zoom_out: Largest share of the side that becomes black margin, in all. Distance and
            detector size: a small child fills less of a fixed plate.
        gamma: Smallest and largest exponent of the tone curve, drawn on a log scale. Exposure and
            the scanner's look-up table differ between machines.
        contrast: Smallest and largest factor about the image's mean. Tube voltage, scatter and
            display windowing flatten or steepen an image.
    """

    kinds: tuple[str, ...] = KINDS
    views_per_image: int = 2
    crop_area: tuple[float, float] = (0.5, 0.9)
    shift: float = 0.12
    zoom_out: float = 0.15
    gamma: tuple[float, float] = (0.7, 1.4)
    contrast: tuple[float, float] = (0.75, 1.25)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigurationError: Names the setting, the value and what is allowed.
        """
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ConfigurationError(
                f"--views {','.join(self.kinds)}: choose different ones of {', '.join(KINDS)}"
            )
        if not 1 <= self.views_per_image <= len(self.kinds):
            raise ConfigurationError(
                f"--views-per-image {self.views_per_image}: must be between 1 and the number of "
                f"--views, {len(self.kinds)}"
            )
        for name, (least, most) in STRENGTHS.items():
            value = getattr(self, name)
            ends = value if isinstance(value, tuple) else (value,)
            if not least <= ends[0] <= ends[-1] <= most:
                raise ConfigurationError(
                    f"--view-strength {name}={':'.join(map(str, ends))}: must be "
                    f"{'LOW:HIGH ' * (len(ends) > 1)}between {least:g} and {most:g}"
                )


def view_settings(config: RunConfig) -> ViewSettings:
    """Return the perturbed images that a run asks for.

    Raises:
        ConfigurationError: A kind or strength is unknown or out of range.
    """
    strengths: dict[str, Any] = dict(config.view_strength)
    for name, value in strengths.items():
        if name not in STRENGTHS:
            raise ConfigurationError(
                f"--view-strength {name}: no such strength; choose of {', '.join(STRENGTHS)}"
            )
        ranged = isinstance(getattr(ViewSettings, name), tuple)
        if ranged != isinstance(value, tuple) or (ranged and len(value) != 2):
            wanted = "LOW:HIGH" if ranged else "one number"
            raise ConfigurationError(f"--view-strength {name}={value}: needs {wanted}")
    return ViewSettings(
        kinds=config.views,
        views_per_image=min(config.views_per_image, len(config.views)),
        **strengths,
    )


def make_views(
    val: Subset,
    *,
    settings: ViewSettings,
    seed: int,
    cache_dir: Path,
    progress: Progress = silent,
) -> tuple[PerturbedViews, ArrayFile]:
    """Make the perturbed copies of a validation set, or find them in the cache.

    Also returns what became of the cache's file. Raises StorageError where it cannot be written.
    """
    pixels = val.open_array()
    assigned = assign_kinds(val.paths, val.labels.tolist(), settings=settings, seed=seed)
    jobs = [(position, kind) for position, kinds in enumerate(assigned) for kind in kinds]
    shape = (len(jobs), *pixels.shape[1:])
    recipe = json.dumps([VIEWS_VERSION, seed, asdict(settings), val.array_file.stem, val.paths])
    path = array_path(cache_dir, "views", recipe, pixels.shape[1])

    with locked(path.with_suffix(".lock")):
        found = read_array(path, shape)
        if isinstance(found, str):
            with new_array(path, shape) as array:

                def work(row: int) -> None:
                    position, kind = jobs[row]
                    drawn = draw_view(kind, val.paths[position], settings=settings, seed=seed)
                    array[row] = apply_view(pixels[val.rows[position]], **drawn)

                in_threads(
                    work, range(len(jobs)), "Making the perturbed validation images", progress
                )
                found = adopt_array(array, path, damaged=found)
    source = np.array([position for position, _ in jobs], dtype=np.int64)
    views = PerturbedViews(
        array_file=found.path,
        names=settings.kinds,
        view=np.array([settings.kinds.index(kind) for _, kind in jobs], dtype=np.int8),
        source=source,
        labels=val.labels[source].astype(np.int8),
    )
    return views, found


def assign_kinds(
    paths: Sequence[str], labels: Sequence[int], *, settings: ViewSettings, seed: int
) -> list[tuple[str, ...]]:
    """Choose each image's kinds of view: `views_per_image`, in the order of the settings.

    Within each class every kind is used equally often, give or take one: images take, in the
    order of a hash of seed and path, the kinds used least so far.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        by_class[label].append(position)
    assigned: list[tuple[str, ...]] = [()] * len(paths)
    for positions in by_class.values():
        used: Counter[str] = Counter()
        for position in sorted(positions, key=lambda p: (_digest(seed, paths[p]), paths[p])):
            ranked = sorted(
                settings.kinds,
                key=lambda kind: (used[kind], _digest(seed, paths[position], kind)),
            )
            taken = set(ranked[: settings.views_per_image])
            used.update(taken)
            assigned[position] = tuple(kind for kind in settings.kinds if kind in taken)
    return assigned


def draw_view(kind: str, path: str, *, settings: ViewSettings, seed: int) -> dict[str, Any]:
    """Draw the parameters of one view, for `apply_view`, from the seed and the image's path."""
    rng = np.random.default_rng(int.from_bytes(_digest(seed, path, kind), "big"))
    if kind == "tone":
        gamma = math.exp(rng.uniform(*np.log(settings.gamma)))
        return {"gamma": gamma, "contrast": float(rng.uniform(*settings.contrast))}
    side = 1.0
    if kind == "crop":
        side = math.sqrt(rng.uniform(*settings.crop_area))
        left, top = rng.uniform(0, 1 - side, 2).tolist()
    elif kind == "shift":
        left, top = rng.uniform(-settings.shift, settings.shift, 2).tolist()
    else:
        # A margin of m leaves 1 − m of the side to the image; seen from it, 1 / (1 − m).
        side = 1 / (1 - rng.uniform(0, settings.zoom_out))
        left, top = (-rng.uniform(0, side - 1, 2)).tolist()
    return {"box": (left, top, left + side, top + side)}


def apply_view(
    image: np.ndarray, *, box: Box = WHOLE, gamma: float = 1.0, contrast: float = 1.0
) -> np.ndarray:
    """Apply one view.

    Args:
        image: `uint8` (S, S, C).
        box: The part that fills the view, in shares of the side; outside 0–1 is black.
        gamma: Exponent of the tone curve; 1 leaves it.
        contrast: Factor about the mean; 1 leaves it.

    Returns:
        The same type and shape.
    """
    size = image.shape[0]
    altered = np.asarray(image)
    if gamma != 1 or contrast != 1:
        levels = 255 * (np.arange(256) / 255) ** gamma
        mean = float(levels[altered].mean())
        levels = np.clip(mean + contrast * (levels - mean), 0, 255)
        altered = np.rint(levels).astype(np.uint8)[altered]
    if box != WHOLE:
        left, top, right, bottom = (size * edge for edge in box)
        # A black border wide enough for what the box takes from outside the image.
        border = math.ceil(max(-left, -top, right - size, bottom - size, 0))
        inside = (left + border, top + border, right + border, bottom + border)
        bands = [np.pad(altered[:, :, channel], border) for channel in range(altered.shape[2])]
        altered = np.stack([_enlarged(band, size, inside) for band in bands], axis=-1)
    return altered


def _enlarged(pixels: np.ndarray, size: int, box: Box) -> np.ndarray:
    """Return a part of `uint8` (H, W), `box` in pixels, as `uint8` (size, size)."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def _digest(seed: int, *parts: str) -> bytes:
    text = "\0".join((str(seed), *parts))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
