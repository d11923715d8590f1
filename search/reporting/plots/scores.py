"""Charts of the test: ROC curves and calibration of winner and baseline; pure."""

from __future__ import annotations

from collections.abc import Mapping

from search.records import Comparison, Predictions
from search.reporting.format import metric
from search.reporting.plots.style import Chart, Panel, Series
from search.reporting.sentences import value
from search.scoring.curves import GRID, Band, calibration_bins

DIAGONAL = Series(name="", x=(0.0, 1.0), y=(0.0, 1.0), kind="diagonal", colour="dim")


def roc(bands: Mapping[str, Band], comparison: Comparison) -> Chart:
    """Return the ROC curves with their bands, and where each network decides."""
    series = [DIAGONAL]
    for role, band in bands.items():
        side = comparison.winner if role == "winner" else comparison.baseline
        network = side.exported
        auc = value(network, "auc")
        series.append(
            Series(
                name=f"{role}, AUC {metric(auc.value)}",
                x=tuple(GRID.tolist()),
                y=band.value,
                low=band.low,
                high=band.high,
                colour=role,
                dashed=role == "baseline",
            )
        )
        recall, specificity = value(network, "recall"), value(network, "specificity")
        label = f"{role} at its threshold {metric(network.threshold.value)}"
        series.append(
            Series(
                name="",
                x=(1 - specificity.value,),
                y=(recall.value,),
                kind="points",
                colour=role,
                labels=(label,),
            )
        )
    return Chart(
        name="roc",
        title="ROC",
        note="Dots: each network's decision threshold. Bands: 95%, bootstrap over patients.",
        panels=(
            Panel(x="1 − specificity", y="sensitivity", series=tuple(series), unit=True),
        ),
        height=400,
    )  # fmt: skip


def calibration(predictions: Mapping[str, Predictions], positive: str) -> Chart:
    """Return the reliability diagrams: observed share by predicted probability."""
    series = [DIAGONAL]
    for role, said in predictions.items():
        bins = calibration_bins(said)
        series.append(
            Series(
                name=role,
                x=tuple(probability for _, probability, _ in bins),
                y=tuple(share.value for _, _, share in bins),
                low=tuple(share.low for _, _, share in bins),
                high=tuple(share.high for _, _, share in bins),
                labels=tuple(
                    f"{role}, {count} images at {metric(probability)}"
                    for count, probability, _ in bins
                ),
                kind="points",
                colour=role,
            )
        )
    return Chart(
        name="calibration",
        title="Calibration",
        note="On the diagonal, a probability means what it says. Bars: 95%, Wilson.",
        panels=(
            Panel(
                x="predicted probability",
                y=f"observed share of {positive}",
                series=tuple(series),
                unit=True,
            ),
        ),
        height=400,
    )


def confusion_rows(comparison: Comparison) -> list[tuple[str, str, int, int]]:
    """Return (network, truth, called negative, called positive) at the stored thresholds."""
    negative, positive = comparison.classes
    rows = []
    for side in (comparison.baseline, comparison.winner):
        counts = side.exported.confusion_at_threshold
        rows.append((side.role, negative, counts["tn"], counts["fp"]))
        rows.append((side.role, positive, counts["fn"], counts["tp"]))
    return rows
