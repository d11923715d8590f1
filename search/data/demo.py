"""Writes the built-in demo: phantom radiographs in the Kaggle layout, made once into the cache.

It mirrors what makes the real set hard. In train, framing goes with the class: healthy children
were filmed from further away, with the diaphragm higher in the picture. In test it does not: all
are framed as the ill are in train. A network that takes the easy way reads the framing, looks
excellent in plain validation and calls healthy test children ill. The disease itself is visible
in every film, so that random crops in training teach it. The numbers say nothing about X-rays.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from search.data.cache import Progress, cache_errors, locked, silent
from search.data.phantom import Framing, draw_anatomy, draw_film, draw_opacities
from search.records import SYNTHETIC_NOTICE

GENERATOR_VERSION = 2
"""Part of the folder's name; raise it when the same seed would give other films."""

FILMS = {
    "train": {"NORMAL": 112, "PNEUMONIA": 208},
    "val": {"NORMAL": 8, "PNEUMONIA": 8},
    "test": {"NORMAL": 48, "PNEUMONIA": 72},
}
"""Number of films by folder and class."""

DISTANT_NORMAL = 0.94
"""Share of the healthy films in train + val that take in more of the body."""

DISTANT = 0.08
"""The same share of all other films."""

FIRST_PATIENT = {"train": 100, "val": 1900, "test": 1}
"""Patients are numbered from here, so that no child is in two folders."""


@dataclass(frozen=True, kw_only=True)
class PlannedFilm:
    """One film of the demo, not yet drawn.

    Attributes:
        relative: Its path.
        patient: Seed part of its child.
        film: Number of the film among the child's.
        subtype: "bacteria", "virus" or "" for a healthy child.
        distant: Whether it takes in more of the body, as most healthy ones in train do.
    """

    relative: str
    patient: int
    film: int
    subtype: str
    distant: bool


def write_demo(*, cache_dir: Path, seed: int, progress: Progress = silent) -> Path:
    """Write the demo, or find the one written before.

    Returns:
        The folder that directly holds `train/`.

    Raises:
        StorageError: The cache cannot be written.
    """
    root = cache_dir / "demo" / f"v{GENERATOR_VERSION}-seed{seed}" / "chest_xray"
    with locked(root.parent.with_suffix(".lock"), progress):
        if not all((root / film.relative).is_file() for film in plan_films(seed)):
            shutil.rmtree(root, ignore_errors=True)  # what is left of a cache that was swept
            with cache_errors(root):
                root.parent.mkdir(parents=True, exist_ok=True)
                temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=".demo-"))
            try:
                with cache_errors(root):
                    _write(temporary, seed, progress)
                    os.replace(temporary, root)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return root


def plan_films(seed: int) -> list[PlannedFilm]:
    """Return all films of the demo: who, what and how framed."""
    films = []
    for folder_number, (folder, classes) in enumerate(FILMS.items()):
        for label, (class_name, count) in enumerate(classes.items()):
            rng = np.random.default_rng([seed, folder_number, label])
            distant = DISTANT_NORMAL if label == 0 and folder != "test" else DISTANT
            number, done = FIRST_PATIENT[folder], 0
            while done < count:
                # bacteria N and virus N are different children, as in the real names.
                subtype = ("bacteria" if rng.random() < 0.6 else "virus") if label else ""
                group = min(int(rng.choice([1, 1, 1, 2, 3])), count - done)
                for film in range(group):
                    name = _name(subtype, number, done + film, film)
                    films.append(
                        PlannedFilm(
                            relative=f"{folder}/{class_name}/{name}",
                            patient=number + 10_000 * label + 100_000 * (subtype == "virus"),
                            film=film,
                            subtype=subtype,
                            distant=bool(rng.random() < distant),
                        )
                    )
                done += group
                number += 1
    return films


def draw_planned(film: PlannedFilm, seed: int) -> Image.Image:
    """Draw one film of the demo."""
    patient_rng = np.random.default_rng([seed, film.patient])
    anatomy = draw_anatomy(patient_rng)
    opacities = draw_opacities(patient_rng, film.subtype)
    rng = np.random.default_rng([seed, film.patient, film.film + 1])
    framing = _draw_framing(rng, distant=film.distant)
    width, height = (int(side * rng.uniform(0.9, 1.1)) for side in (256, 220))
    pixels = draw_film(anatomy, framing, opacities, rng, width=width, height=height)
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).text((4, height - 14), "PHANTOM", fill=200)
    return image


def _draw_framing(rng: np.random.Generator, *, distant: bool) -> Framing:
    """Draw the framing of one film; the two kinds overlap a little, as the real ones do."""
    span = rng.normal(0.55, 0.05) if distant else rng.normal(0.73, 0.06)
    zoom = span * rng.normal(1, 0.05)
    return Framing(
        apex=float(np.clip(0.47 - 0.5 * span + rng.normal(0, 0.04), 0.0, 0.4)),
        span=float(np.clip(span, 0.4, 0.9)),
        half_width=float(np.clip(0.6 * zoom, 0.24, 0.52)),
        centre=float(rng.normal(0.5, 0.04)),
        rotation=float(rng.normal(0, 2.5)),
    )


def _name(subtype: str, number: int, serial: int, film: int) -> str:
    if subtype:
        return f"person{number}_{subtype}_{serial + 1}.jpeg"
    prefix = "NORMAL2-" if number % 2 else ""
    return f"{prefix}IM-{number:04d}-{film + 1:04d}.jpeg"


def _write(folder: Path, seed: int, progress: Progress) -> None:
    films = plan_films(seed)
    for parent in sorted({(folder / film.relative).parent for film in films}):
        parent.mkdir(parents=True)
    (folder / "README.txt").write_text(
        f"{SYNTHETIC_NOTICE}\nMade by python -m search.run, seed {seed}. Safe to delete.\n",
        encoding="utf-8",
    )

    def work(film: PlannedFilm) -> None:
        draw_planned(film, seed).save(folder / film.relative, quality=92)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for done, _ in enumerate(pool.map(work, films), start=1):
            if done % 20 == 0 or done == len(films):
                progress("Drawing the synthetic demo", done, len(films))
