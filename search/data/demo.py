"""Writes the built-in demo: phantom radiographs in the Kaggle layout, made once into the cache.

It mirrors what makes the real set hard. In train, framing goes with the class: healthy children
were filmed from further away, with the diaphragm higher in the image. In test it does not: all are
framed as the ill are in train. A network that takes the easy way reads the framing, looks
excellent in plain validation and calls healthy test children ill. The disease itself is visible in
every image, so that random crops in training, which hide the framing, teach it. The numbers say
nothing about X-rays.

A phantom is drawn in the body's own coordinates: x is -1 … 1 from the right to the left edge of the
rib cage, y is 0 at the apex of the lungs and 1 at the level of the diaphragm. Framing maps pixels
to these coordinates. Shapes add density, then a tone curve and noise make an image of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from search.data.cache import Progress, in_threads, locked, silent
from search.records import SYNTHETIC_NOTICE
from search.run_directory import atomic

Grid = np.ndarray
"""`float32` (H, W)."""

GENERATOR_VERSION = 5
"""Part of the folder's name; raise it when the same seed would give other images."""

IMAGES = {
    "train": {"NORMAL": 260, "PNEUMONIA": 440},
    "val": {"NORMAL": 8, "PNEUMONIA": 8},
    "test": {"NORMAL": 48, "PNEUMONIA": 72},
}
"""Number of images by folder and class."""

FIRST_PATIENT = {"train": 100, "val": 1900, "test": 1}
"""Patients are numbered from here, so that no child is in two folders."""


@dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """One image of the demo, not yet drawn."""

    relative: str  # its path
    patient: int  # seed part of its child
    index: int  # number of the image among the child's
    subtype: str  # "bacteria", "virus" or "" for a healthy child
    distant: bool  # whether it takes in more of the body, as the healthy ones in train do


def write_demo(*, cache_dir: Path, seed: int, progress: Progress = silent) -> Path:
    """Write the demo, or find the one written before.

    Returns:
        The folder that directly holds `train/`.

    Raises:
        StorageError: The cache cannot be written.
    """
    root = cache_dir / "demo" / f"v{GENERATOR_VERSION}-seed{seed}" / "chest_xray"
    images = plan_images(seed)
    with locked(root.parent.with_suffix(".lock"), progress):
        if all((root / planned.relative).is_file() for planned in images):
            return root
        with atomic(root, option="--cache-dir") as temporary:

            def draw(planned: PlannedImage) -> None:
                draw_planned(planned, seed).save(temporary / planned.relative, quality=92)

            for folder in {(temporary / planned.relative).parent for planned in images}:
                folder.mkdir(parents=True)
            (temporary / "README.txt").write_text(
                f"{SYNTHETIC_NOTICE}\nMade by python -m search.run, seed {seed}. Safe to delete.\n",
                encoding="utf-8",
            )
            in_threads(draw, images, "Drawing the synthetic demo", progress)
    return root


def plan_images(seed: int) -> list[PlannedImage]:
    """Return all images of the demo: who, what and how framed."""
    images = []
    for folder_number, (folder, classes) in enumerate(IMAGES.items()):
        for label, (class_name, count) in enumerate(classes.items()):
            rng = np.random.default_rng([seed, folder_number, label])
            number, done = FIRST_PATIENT[folder], 0
            while done < count:
                # bacteria N and virus N are different children, as in the real names.
                subtype = ("bacteria" if rng.random() < 0.6 else "virus") if label else ""
                group = min(int(rng.choice([1, 1, 1, 2, 3])), count - done)
                for index in range(group):
                    name = (
                        f"person{number}_{subtype}_{done + index + 1}"
                        if subtype
                        else f"{'NORMAL2-' * (number % 2)}IM-{number:04d}-{index + 1:04d}"
                    )
                    images.append(
                        PlannedImage(
                            relative=f"{folder}/{class_name}/{name}.jpeg",
                            patient=number + 10_000 * label + 100_000 * (subtype == "virus"),
                            index=index,
                            subtype=subtype,
                            distant=label == 0 and folder != "test",
                        )
                    )
                done += group
                number += 1
    return images


# The phantom.


def draw_planned(planned: PlannedImage, seed: int) -> Image.Image:
    """Draw one image of the demo."""
    # The same in all images of one child: sizes of heart and chest, number and tilt of the ribs,
    # the spine's displacement, the height of the diaphragm's dome, and the disease.
    child = np.random.default_rng([seed, planned.patient])
    heart_scale, ribs = child.normal(1, 0.08), child.uniform(7.5, 9.5)
    tilt, lean = child.uniform(0.15, 0.35), child.normal(0, 0.02)
    dome, wall = child.uniform(0.1, 0.2), child.uniform(0.08, 0.2)
    opacities = _draw_opacities(child, planned.subtype)

    rng = np.random.default_rng([seed, planned.patient, planned.index + 1])
    x, y = _draw_framing(rng, distant=planned.distant)
    height, width = x.shape
    x -= np.float32(lean) * y
    side = np.abs(x)
    body = _inside(_body_edge(y, wall) - side, 0.02)
    floor = 1 - dome * np.cos(np.clip(side - 0.5, -0.6, 0.6) * 2.6) + 0.1 * side**2
    lung = _lungs(x, side, y) * _inside(floor - y, 0.015)
    heart = _heart(x, y, heart_scale)
    disease = _disease(x, y, opacities) * _texture(rng, width, height)
    air = lung * (1 - 0.85 * heart) * (1 - np.clip(disease, 0, 0.95))

    density = 0.52 * body
    density += 0.1 * body * _inside(y - floor, 0.02)
    density -= 0.36 * air
    density += 0.1 * _ribs(side, y, ribs, tilt) * body
    density += 0.16 * _spine(x, y) * body
    density += 0.12 * _clavicles(side, y) * body
    # The lungs' own vessels, denser towards the hilum.
    density += 0.05 * air * _texture(rng, width, height) * np.exp(-((side / 0.45) ** 2))
    density = np.clip(density + rng.normal(0.04, 0.02), 0, 1) ** np.exp(rng.normal(0, 0.12))
    density = density * rng.uniform(0.9, 1.15)
    density += rng.normal(0, 0.012, density.shape).astype(np.float32)
    image = Image.fromarray(np.rint(np.clip(density, 0, 1) * 255).astype(np.uint8))
    ImageDraw.Draw(image).text((4, height - 14), "PHANTOM", fill=200)
    return image


def _draw_opacities(rng: np.random.Generator, subtype: str) -> list[tuple[float, ...]]:
    """Draw a disease: a lobe of each lung ("bacteria"), diffuse patches ("virus"), or none ("").

    An opacity is its centre x and y, half its width and height, how dense it is at the centre, 0–1,
    and how steep its edge: 6 for a lobe, 2 for a haze.
    """
    if subtype == "bacteria":
        return [
            (
                float(side * rng.uniform(0.42, 0.58)),
                float(rng.choice([0.3, 0.62, 0.72]) + rng.normal(0, 0.05)),
                rng.uniform(0.28, 0.4),
                rng.uniform(0.18, 0.28),
                rng.uniform(0.47, 0.7),
                6.0,
            )
            for side in (-1.0, 1.0)
        ]
    patches = int(rng.integers(8, 13)) if subtype == "virus" else 0
    return [
        (
            (-1.0 if patch % 2 else 1.0) * rng.uniform(0.25, 0.72),
            rng.uniform(0.2, 0.9),
            rng.uniform(0.12, 0.22),
            rng.uniform(0.08, 0.16),
            rng.uniform(0.29, 0.47),
            2.0,
        )
        for patch in range(patches)
    ]


def _draw_framing(rng: np.random.Generator, *, distant: bool) -> tuple[Grid, Grid]:
    """Draw how an image was centred and how much of the body it takes in; return its x and y.

    The two kinds differ by a quarter in scale, which crops down to a quarter of the area hide.
    """
    # In shares of the image's sides: the lungs' height, from their apex to the diaphragm; the
    # apex's distance from the top; half the rib cage's width; the midline's distance from the left.
    span = rng.normal(0.57 if distant else 0.71, 0.012)
    half_width = 0.6 * (span * rng.normal(1, 0.02))
    apex, centre = 0.47 - 0.5 * span + rng.normal(0, 0.015), rng.normal(0.5, 0.04)
    angle = np.deg2rad(rng.normal(0, 2.5))
    width, height = (int(side * rng.uniform(0.9, 1.1)) for side in (256, 220))
    column = (np.arange(width, dtype=np.float32) + 0.5) / width - centre
    row = (np.arange(height, dtype=np.float32) + 0.5) / height - apex
    across, down = np.meshgrid(column, row)
    x = (across * np.cos(angle) + down * np.sin(angle)) / half_width
    y = (down * np.cos(angle) - across * np.sin(angle)) / span
    return x.astype(np.float32), y.astype(np.float32)


def _inside(distance: Grid, softness: float) -> Grid:
    """Return 1 where `distance` is positive, 0 where negative, smooth over `softness`."""
    return 0.5 * (1 + np.tanh(np.clip(distance / softness, -10, 10)))


def _body_edge(y: Grid, wall: float) -> Grid:
    """Return half the body's width at each height: neck, shoulders and arms, trunk."""
    trunk = 1 + wall + 0.04 * np.cos(3 * y)
    shoulder = 0.7 * np.exp(-(((y + 0.02) / 0.16) ** 2))
    neck = 0.35 + 0.0 * y
    return np.where(y < -0.14, np.maximum(neck, shoulder + 0.3), trunk + shoulder)


def _lungs(x: Grid, side: Grid, y: Grid) -> Grid:
    # The left lung (x > 0) leaves room for the heart.
    middle = 0.5 + 0.03 * (x > 0)
    half = 0.37 * np.clip(1 - np.clip(0.55 - y, 0, 1) ** 2 * 2.2, 0, 1)
    return _inside(half - np.abs(side - middle + 0.08 * (y - 0.5)), 0.03) * _inside(y, 0.03)


def _heart(x: Grid, y: Grid, scale: float) -> Grid:
    across, down = x - 0.16, y - 0.72
    along = (across + 0.6 * down) / (0.42 * scale)
    over = (down - 0.35 * across) / (0.26 * scale)
    shadow = _inside(1 - np.sqrt(along**2 + over**2), 0.08)
    vessels = _inside(0.17 - np.abs(x), 0.04) * _inside(y - 0.1, 0.05)
    return np.maximum(shadow, 0.8 * vessels)


def _ribs(side: Grid, y: Grid, ribs: float, tilt: float) -> Grid:
    phase = (y + tilt * (1 - side) ** 2 - 0.45 * tilt * side) * ribs
    lines = np.exp(-((np.sin(np.pi * phase) / 0.3) ** 2))
    cage = _inside(1 - side, 0.02) * _inside(y + 0.02, 0.03) * _inside(1.12 - y, 0.05)
    wall = np.exp(-(((side - 0.97) / 0.05) ** 2))
    return lines * cage * (0.6 + 0.8 * side + wall)


def _spine(x: Grid, y: Grid) -> Grid:
    vertebra = 0.8 + 0.2 * np.cos(2 * np.pi * y * 11)
    return np.exp(-((x / 0.11) ** 4)) * vertebra


def _clavicles(side: Grid, y: Grid) -> Grid:
    line = y - 0.1 + 0.16 * side
    return np.exp(-((line / 0.025) ** 2)) * _inside(side - 0.1, 0.03) * _inside(1.15 - side, 0.05)


def _disease(x: Grid, y: Grid, opacities: list[tuple[float, ...]]) -> Grid:
    total = np.zeros_like(x)
    for across, down, width, height, density, edge in opacities:
        radius = np.sqrt(((x - across) / width) ** 2 + ((y - down) / height) ** 2)
        total = np.maximum(total, density * (1 / (1 + radius**edge)))
    return total


def _texture(rng: np.random.Generator, width: int, height: int) -> Grid:
    """Return smooth noise about 1: coarse values, bilinearly enlarged."""
    coarse = rng.normal(1, 0.25, (18, 16)).astype(np.float32)
    rows = np.linspace(0, coarse.shape[0] - 1.001, height)
    columns = np.linspace(0, coarse.shape[1] - 1.001, width)
    top, left = rows.astype(int), columns.astype(int)
    down = (rows - top).astype(np.float32)[:, None]
    right = (columns - left).astype(np.float32)[None, :]
    upper = coarse[top] * (1 - down) + coarse[top + 1] * down
    texture: Grid = upper[:, left] * (1 - right) + upper[:, left + 1] * right
    return texture
