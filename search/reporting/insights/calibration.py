"""Whether probabilities mean what they say: the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matplotlib.figure import Figure

from search.reporting.figures import (
    GRAY,
    MARKERS,
    house_style,
    legend_above,
    new_figure,
    role_colour,
)
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.insights.scores import exported
from search.reporting.verdict import estimate
from search.reporting.wording import metric
from search.scoring.curves import CalibrationBin


def reliability(material: Material) -> list[Insight]:
    """Return the share of ill children by probability."""
    data = {role: found.calibration for role, found in material.curves.items()}
    if not data:
        return []
    role = list(data)[-1]
    found = exported(material.evaluation, role)
    error = estimate(found, "ranking", "expected_calibration_error").get("value")
    held = [b for b in data[role] if b.count]
    gap = sum(b.count * (b.probability - b.share.value) for b in held) / sum(b.count for b in held)
    side = "too high" if gap > 0 else "too low"
    return [
        Insight(
            name="calibration",
            section=Section.TEST,
            title=f"Calibration on {material.split}",
            reading=f"The probabilities of the {role} are on average {abs(gap):.3f} {side}; they "
            f"are off by {metric(error)} in the mean over bins (expected calibration error).",
            caption="A point is a tenth of the scale, at the mean probability of its images; on "
            "the diagonal a probability means what it says. Lines are Wilson's 95% intervals, "
            "images taken as independent; below, how many images each bin holds. The share of ill "
            "children differs between the training files and these, which shifts all points.",
            columns=(
                "candidate",
                "bin",
                "images",
                "mean probability",
                "share ill",
                "low",
                "high",
            ),
            rows=tuple(
                (
                    name,
                    f"{b.low:.1f}–{b.high:.1f}",
                    b.count,
                    b.probability if b.count else None,
                    *(
                        (b.share.value, b.share.low, b.share.high)
                        if b.count
                        else (None, None, None)
                    ),
                )
                for name, bins in data.items()
                for b in bins
            ),
            draw=partial(draw_reliability, data),
        )
    ]


def draw_reliability(data: Mapping[str, tuple[CalibrationBin, ...]]) -> Figure:
    """Draw share against probability, and counts below."""
    figure = new_figure(6.2, 6.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":", label="perfectly calibrated")
    width = 0.08 / len(data)
    for i, (role, bins) in enumerate(data.items()):
        held = [b for b in bins if b.count]
        colour = role_colour(role)
        x = [b.probability for b in held]
        upper.vlines(
            x,
            [b.share.low for b in held],
            [b.share.high for b in held],
            color=colour,
            linewidth=1.8,
            alpha=0.5,
        )
        upper.plot(
            x,
            [b.share.value for b in held],
            MARKERS[i % len(MARKERS)],
            color=colour,
            markersize=7,
            markeredgecolor="white",
            label=role,
        )
        places = [(b.low + b.high) / 2 + width * (i - (len(data) - 1) / 2) for b in bins]
        lower.bar(places, [b.count for b in bins], width=width, color=colour, alpha=0.85)
    upper.set_ylabel("share that is PNEUMONIA")
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    lower.set_xlabel("probability of PNEUMONIA")
    lower.set_ylabel("images")
    for axes in (upper, lower):
        house_style(axes)
    legend_above(figure, upper)
    return figure
