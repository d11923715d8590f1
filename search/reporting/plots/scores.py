"""Charts of the test: ROC curves and calibration of winner and baseline; pure."""

from __future__ import annotations

from collections.abc import Mapping

from search.records import Comparison, Predictions
from search.reporting.format import metric
from search.reporting.plots.style import Chart, Panel, Series
from search.reporting.sentences import value
from search.scoring.curves import GRID, calibration_bins, roc_band

DIAGONAL = Series("", (0.0, 1.0), (0.0, 1.0), kind="diagonal", colour="dim")


def roc(predictions: Mapping[str, Predictions], comparison: Comparison, seed: int) -> Chart | None:
    """Return both roles' ROC curves with their bands, and where each network decides."""
    series = []
    for role, said in predictions.items():
        band = roc_band(said, seed=seed)
        if band is None:
            continue
        network = (comparison.winner if role == "winner" else comparison.baseline).exported
        curve = Series(
            f"{role}, AUC {metric(value(network, 'auc').value)}",
            tuple(GRID.tolist()),
            band.value,
            low=band.low,
            high=band.high,
            colour=role,
            dashed=role == "baseline",
        )
        x, y = 1 - value(network, "specificity").value, value(network, "recall").value
        label = f"{role} at its threshold {metric(network.threshold.value)}"
        series += [curve, Series("", (x,), (y,), kind="points", colour=role, labels=(label,))]
    if not series:
        return None
    note = "Dots: each network's decision threshold. Bands: 95%, bootstrap over patients."
    return _square("roc", "ROC", note, "1 − specificity", "sensitivity", series)


def calibration(predictions: Mapping[str, Predictions], positive: str) -> Chart:
    """Return the reliability diagrams: observed share by predicted probability."""
    series = []
    for role, said in predictions.items():
        bins = calibration_bins(said)
        shares = [share for *_, share in bins]
        points = Series(
            role,
            tuple(at for _, at, _ in bins),
            tuple(share.value for share in shares),
            low=tuple(share.low for share in shares),
            high=tuple(share.high for share in shares),
            labels=tuple(f"{role}, {count} images at {metric(at)}" for count, at, _ in bins),
            kind="points",
            colour=role,
        )
        series.append(points)
    note = "On the diagonal, a probability means what it says. Bars: 95%, Wilson."
    y = f"observed share of {positive}"
    return _square("calibration", "Calibration", note, "predicted probability", y, series)


def _square(name: str, title: str, note: str, x: str, y: str, series: list[Series]) -> Chart:
    """Return a chart of shares against shares, with its diagonal."""
    panel = Panel(x, y, (DIAGONAL, *series), unit=True)
    return Chart(name, title, note, (panel,), height=400)
