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
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from search.config import RunConfig
from search.data.cache import (
    ArrayFile,
    adopt_array,
    array_folder,
    cache_errors,
    locked,
    read_array,
    reserved_array,
)
from search.errors import ConfigurationError
from search.records import PerturbedViews, Subset

VIEWS_VERSION = 1
"""Part of the cache key; raise it when the same settings would give other pixels."""

VIEWS_SEED = 8
"""Seed of the views of every run: whatever a run's own seed, an image has the same views."""

KINDS = ("crop", "shift", "zoom_out", "tone")
"""All kinds of view; see `ViewSettings` for what each stands for."""


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
        low, high = self.crop_area
        if not 0.05 <= low <= high <= 1:
            raise ConfigurationError(
                f"--view-strength crop_area={low}:{high}: must be LOW:HIGH between 0.05 and 1"
            )
        for name, share in (("shift", self.shift), ("zoom_out", self.zoom_out)):
            if not 0 <= share <= 0.5:
                raise ConfigurationError(
                    f"--view-strength {name}={share}: must be between 0 and 0.5"
                )
        for name, (low, high) in (("gamma", self.gamma), ("contrast", self.contrast)):
            if not 0.1 <= low <= high <= 10:
                raise ConfigurationError(
                    f"--view-strength {name}={low}:{high}: must be LOW:HIGH between 0.1 and 10"
                )


def view_settings(config: RunConfig) -> ViewSettings:
    """Return the perturbed images that a run asks for.

    Raises:
        ConfigurationError: A kind or strength is unknown or out of range.
    """
    strengths: dict[str, Any] = dict(config.view_strength)
    known = {f.name: f.default for f in fields(ViewSettings)}
    del known["kinds"], known["views_per_image"]
    for name, value in strengths.items():
        if name not in known:
            raise ConfigurationError(
                f"--view-strength {name}: no such strength; choose of {', '.join(known)}"
            )
        wanted = "LOW:HIGH" if isinstance(known[name], tuple) else "one number"
        if isinstance(value, tuple) != isinstance(known[name], tuple) or (
            isinstance(value, tuple) and len(value) != 2
        ):
            raise ConfigurationError(f"--view-strength {name}={value}: needs {wanted}")
    return ViewSettings(
        kinds=config.views,
        views_per_image=min(config.views_per_image, len(config.views)),
        **strengths,
    )


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """One view, drawn but not applied."""

    # left, top, right, bottom of the part that fills the view, as shares of the side; outside 0–1
    # is black
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    gamma: float = 1.0  # exponent of the tone curve; 1 leaves it
    contrast: float = 1.0  # factor about the mean; 1 leaves it


def make_views(
    val: Subset, *, settings: ViewSettings, seed: int, cache_dir: Path
) -> tuple[PerturbedViews, ArrayFile]:
    """Make the perturbed copies of a validation set, or find them in the cache.

    Also returns what became of the cache's file. Raises StorageError where it cannot be written.
    """
    pixels = val.open_array()
    assigned = assign_kinds(val.paths, val.labels.tolist(), settings=settings, seed=seed)
    jobs = [(position, kind) for position, kinds in enumerate(assigned) for kind in kinds]
    shape = (len(jobs), *pixels.shape[1:])
    recipe = json.dumps([VIEWS_VERSION, seed, asdict(settings), val.array_file.stem, val.paths])
    name = f"views-{hashlib.sha256(recipe.encode()).hexdigest()[:24]}-{pixels.shape[1]}.npy"
    path = array_folder(cache_dir) / name

    with locked(path.with_suffix(".lock")):
        found = read_array(path, shape)
        if isinstance(found, str):
            with reserved_array(path, shape) as (temporary, array), cache_errors(path):

                def work(row: int) -> None:
                    position, kind = jobs[row]
                    drawn = draw_view(kind, val.paths[position], settings=settings, seed=seed)
                    array[row] = apply_view(pixels[val.rows[position]], drawn)

                with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
                    for _ in pool.map(work, range(len(jobs))):
                        pass
                found = adopt_array(temporary, path, array, damaged=found)
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


def draw_view(kind: str, path: str, *, settings: ViewSettings, seed: int) -> ViewParameters:
    """Draw the parameters of one view from the seed and the image's path."""
    rng = np.random.default_rng(int.from_bytes(_digest(seed, path, kind), "big"))
    if kind == "crop":
        side = math.sqrt(rng.uniform(*settings.crop_area))
        left, top = rng.uniform(0, 1 - side, 2).tolist()
        return ViewParameters(box=(left, top, left + side, top + side))
    if kind == "shift":
        right, down = rng.uniform(-settings.shift, settings.shift, 2).tolist()
        return ViewParameters(box=(right, down, 1 + right, 1 + down))
    if kind == "zoom_out":
        # A margin of m leaves 1 − m of the side to the image; seen from it, 1 / (1 − m).
        side = 1 / (1 - rng.uniform(0, settings.zoom_out))
        left, top = (-rng.uniform(0, side - 1, 2)).tolist()
        return ViewParameters(box=(left, top, left + side, top + side))
    gamma = math.exp(rng.uniform(*np.log(settings.gamma)))
    return ViewParameters(gamma=gamma, contrast=float(rng.uniform(*settings.contrast)))


def apply_view(image: np.ndarray, view: ViewParameters) -> np.ndarray:
    """Apply one view to an image, `uint8` (S, S, C); returns the same type and shape."""
    size = image.shape[0]
    altered = np.asarray(image)
    if view.gamma != 1 or view.contrast != 1:
        levels = 255 * (np.arange(256) / 255) ** view.gamma
        mean = float(levels[altered].mean())
        levels = np.clip(mean + view.contrast * (levels - mean), 0, 255)
        altered = np.rint(levels).astype(np.uint8)[altered]
    if view.box != (0.0, 0.0, 1.0, 1.0):
        left, top, right, bottom = (size * edge for edge in view.box)
        # A black border wide enough for what the box takes from outside the image.
        border = math.ceil(max(-left, -top, right - size, bottom - size, 0))
        box = (left + border, top + border, right + border, bottom + border)
        altered = np.stack(
            [
                _enlarged(np.pad(altered[:, :, channel], border), size, box)
                for channel in range(altered.shape[2])
            ],
            axis=-1,
        )
    return altered


def _enlarged(pixels: np.ndarray, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return a part of `uint8` (H, W), `box` in pixels, as `uint8` (size, size)."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def _digest(seed: int, *parts: str) -> bytes:
    text = "\0".join((str(seed), *parts))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
