"""Images that the winner gets wrong: the list, and pictures that never leave the run directory."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from search.records import Predictions
from search.run_directory import RunDirectory, write_json, write_text
from search.scoring.calibration import logits

if TYPE_CHECKING:
    from search.scoring.gradcam import Heatmap  # loads Keras

PICTURES = "plots/local/images.json"
"""The file of a run with what shows images of its data."""
SIDE = 160


class Miss(NamedTuple):
    """An image that the winner misjudges at its threshold."""

    path: str  # relative to the data folder
    truth: int
    subtype: str  # "" if unknown
    probability: float  # of the positive class, by the winner
    baseline: float | None  # the same by the baseline, None if it was not asked


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as the local report shows it: a `Heatmap` as PNGs in base64."""

    path: str
    label: int
    called: int
    probability: float
    image: str
    heat: str  # the image under its heatmap


def misses(winner: Predictions, baseline: Predictions | None, *, threshold: float) -> list[Miss]:
    """Return the images that the winner misjudges, the most confident mistakes first."""
    labels, said = winner.labels.astype(int), winner.probabilities
    wrong = np.flatnonzero((said >= threshold).astype(int) != labels)
    # How far the log odds are beyond the threshold's: 0.5 has no meaning where it is another.
    distance = np.abs(logits(said) - logits(np.array([threshold])))
    other: dict[str, float] = {}
    if baseline is not None:
        other = dict(zip(baseline.paths, baseline.probabilities.tolist(), strict=True))
    return [
        Miss(
            path=winner.paths[i],
            truth=int(labels[i]),
            subtype=winner.subtypes[i],
            probability=float(said[i]),
            baseline=other.get(winner.paths[i]),
        )
        for i in wrong[np.argsort(-distance[wrong], kind="stable")]
    ]


def keep_pictures(root: Path, heatmaps: Sequence[Heatmap]) -> None:
    """Write the images and heatmaps into the run directory, for its local report."""
    # Images must not slip into a repository with the rest of a run directory.
    write_text((root / PICTURES).with_name(".gitignore"), "*\n")
    pictures = [
        Picture(**one._asdict() | {"image": _png(one.image), "heat": _png(one.image, one.heat)})
        for one in heatmaps
    ]
    write_json(root / PICTURES, pictures)


def read_pictures(run: RunDirectory) -> tuple[Picture, ...]:
    """Return the pictures of a run, () where there are none."""
    return run.read(tuple[Picture, ...], PICTURES) if (run.root / PICTURES).exists() else ()


def _png(image: np.ndarray, heat: np.ndarray | None = None) -> str:
    from matplotlib import colormaps
    from PIL import Image

    pixels = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    if heat is not None:
        colours = colormaps["inferno"](heat)[..., :3] * 255
        share = 0.55 * heat[..., None]
        pixels = pixels * (1 - share) + colours * share
    picture = Image.fromarray(pixels.astype(np.uint8)).resize((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
