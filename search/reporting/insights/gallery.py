"""What the winner looked at: images under Grad-CAM heatmaps; never leaves the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from matplotlib.figure import Figure

from search.records import CLASS_NAMES
from search.reporting.figures import STAMP, finish, new_figure
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.scoring.curves import Heatmap

GROUPS = {
    (1, 0): "missed pneumonia",
    (0, 1): "false alarm",
    (1, 1): "pneumonia found",
    (0, 0): "healthy, called so",
}
"""(truth, decision) in the order of the figure."""

COLUMNS = 4
NAME_LENGTH = 26


def heatmaps(material: Material) -> list[Insight]:
    """Return misses and hits with what the network looked at."""
    if not material.heatmaps:
        return []
    groups = {
        title: [m for m in material.heatmaps if (m.label, m.called) == key][:COLUMNS]
        for key, title in GROUPS.items()
    }
    groups = {title: found for title, found in groups.items() if found}
    return [
        Insight(
            name="heatmaps",
            section=Section.FAILURES,
            title="What the network looked at (Grad-CAM)",
            reading=f"{len(material.heatmaps)} images of {material.split}: "
            + ", ".join(f"{len(found)} × {title}" for title, found in groups.items())
            + ". Heat outside the lungs, on borders or letters, is a warning.",
            caption="Grad-CAM (Selvaraju et al., ICCV 2017) of the last convolution, after batch "
            "normalization if it has one, for the decision that was taken: bright regions spoke "
            "for it, scaled to the brightest in each image. The misses shown are the most "
            "confident ones; the hits are spread evenly over the probabilities. “No heat”: nothing "
            "in that convolution speaks for the decision. A heatmap is coarse, and no proof of the "
            "reason. This picture holds radiographs: it stays in the run's own directory.",
            columns=("group", "file", "truth", "called", "probability of PNEUMONIA"),
            rows=tuple(
                (title, m.path, CLASS_NAMES[m.label], CLASS_NAMES[m.called], m.probability)
                for title, found in groups.items()
                for m in found
            ),
            draw=partial(draw_heatmaps, groups),
            local=True,
        )
    ]


def draw_heatmaps(groups: Mapping[str, Sequence[Heatmap]]) -> Figure:
    """Draw a row a group: every image beside itself under its heatmap."""
    figure = new_figure(12, 1.62 * len(groups) + 0.5)
    grid = figure.subplots(len(groups), 2 * COLUMNS, squeeze=False)
    for line, (title, found) in zip(grid, groups.items(), strict=True):
        for axes in line:
            axes.set_axis_off()
        for i, heatmap in enumerate(found):
            plain, covered = line[2 * i], line[2 * i + 1]
            for axes in (plain, covered):
                axes.imshow(heatmap.image, cmap="gray", vmin=0, vmax=255)
            covered.imshow(
                heatmap.heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * np.sqrt(heatmap.heat)
            )
            plain.set_title(_short(heatmap.path), fontsize=7, loc="left", pad=3)
            covered.set_title(f"{heatmap.probability:.3f}", fontsize=8, loc="right", pad=3)
            if not heatmap.heat.any():
                covered.set_title("no heat", fontsize=7, loc="left", pad=3, color=STAMP)
        line[0].text(
            -0.12,
            0.5,
            title,
            transform=line[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize=9,
            weight="bold",
        )
    finish(figure)
    return figure


def _short(path: str) -> str:
    name = PurePosixPath(path).stem
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
