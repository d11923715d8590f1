"""Charts of the test: ROC curves and calibration of winner and baseline; pure."""

from __future__ import annotations

from collections.abc import Mapping

from search.records import Comparison, Predictions
from search.reporting.format import metric
from search.reporting.plots.style import Chart, Panel, Series
from search.reporting.sentences import value
from search.scoring.curves import GRID, calibration_bins, roc_band

DIAGONAL = Series(name="", x=(0.0, 1.0), y=(0.0, 1.0), kind="diagonal", colour="dim")


def roc(predictions: Mapping[str, Predictions], comparison: Comparison, seed: int) -> Chart | None:
    """Return the ROC curves with their bands, and where each network decides.

    Args:
        predictions: By role.
        comparison: Of the two roles.
        seed: Of the bands' resampling.
    """
    series = []
    for role, said in predictions.items():
        band = roc_band(said, seed=seed)
        if band is None:
            continue
        network = (comparison.winner if role == "winner" else comparison.baseline).exported
        series.append(
            Series(
                name=f"{role}, AUC {metric(value(network, 'auc').value)}",
                x=tuple(GRID.tolist()),
                y=band.value,
                low=band.low,
                high=band.high,
                colour=role,
                dashed=role == "baseline",
            )
        )
        series.append(
            Series(
                name="",
                x=(1 - value(network, "specificity").value,),
                y=(value(network, "recall").value,),
                kind="points",
                colour=role,
                labels=(f"{role} at its threshold {metric(network.threshold.value)}",),
            )
        )
    if not series:
        return None
    note = "Dots: each network's decision threshold. Bands: 95%, bootstrap over patients."
    return _square("roc", "ROC", note, "1 − specificity", "sensitivity", series)


def calibration(predictions: Mapping[str, Predictions], positive: str) -> Chart:
    """Return the reliability diagrams: observed share by predicted probability."""
    series = []
    for role, said in predictions.items():
        counts, probabilities, shares = zip(*calibration_bins(said), strict=True)
        series.append(
            Series(
                name=role,
                x=probabilities,
                y=tuple(share.value for share in shares),
                low=tuple(share.low for share in shares),
                high=tuple(share.high for share in shares),
                labels=tuple(
                    f"{role}, {count} images at {metric(probability)}"
                    for count, probability in zip(counts, probabilities, strict=True)
                ),
                kind="points",
                colour=role,
            )
        )
    note = "On the diagonal, a probability means what it says. Bars: 95%, Wilson."
    y = f"observed share of {positive}"
    return _square("calibration", "Calibration", note, "predicted probability", y, series)


def _square(name: str, title: str, note: str, x: str, y: str, series: list[Series]) -> Chart:
    """Return a chart of shares against shares, with its diagonal."""
    panel = Panel(x=x, y=y, series=(DIAGONAL, *series), unit=True)
    return Chart(name=name, title=title, note=note, panels=(panel,), height=400)
