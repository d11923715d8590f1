"""What one model's behaviour is shown with: curves with their bands, and where it looked.

Records like those of `records`, between `scoring`, which computes them, and `reporting`, which
draws them; kept apart because no search needs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search.records import Estimate, Predictions


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve with its 95% limits at every point.

    Attributes:
        x: k abscissae, ascending.
        value: k ordinates.
        low: k lower limits.
        high: k upper limits.
    """

    x: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """The images whose probability lies in one interval.

    Attributes:
        low: Its lower end, inclusive.
        high: Its upper end, exclusive but for 1.
        count: Number of images.
        probability: Their mean probability of PNEUMONIA, NaN without images.
        share: Share of them that is PNEUMONIA.
    """

    low: float
    high: float
    count: int
    probability: float
    share: Estimate


@dataclass(frozen=True, kw_only=True)
class PredictiveValues:
    """What a decision would mean among patients of whom another share is ill.

    Attributes:
        prevalence: Share of PNEUMONIA.
        positive: Share of those called PNEUMONIA who have it.
        negative: Share of those called NORMAL who are.
    """

    prevalence: float
    positive: Estimate
    negative: Estimate


@dataclass(frozen=True, kw_only=True)
class ScoreCurves:
    """One model's probabilities on one split as curves.

    Attributes:
        predictions: The probabilities.
        threshold: The stored threshold.
        roc: Sensitivity by 1 − specificity.
        precision_recall: Precision by sensitivity.
        calibration: Bins of the probability, ascending.
        predictive_values: At the stored threshold, by prevalence, ascending.
    """

    predictions: Predictions
    threshold: float
    roc: Band
    precision_recall: Band
    calibration: tuple[CalibrationBin, ...]
    predictive_values: tuple[PredictiveValues, ...]


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Where in one image a network found the reason for its decision.

    Attributes:
        path: The image, relative to the data folder.
        label: 0 or 1.
        probability: Of PNEUMONIA.
        called: 0 or 1, the decision at the stored threshold.
        image: `uint8` (S, S), gray.
        heat: `float32` (S, S) in [0, 1].
    """

    path: str
    label: int
    probability: float
    called: int
    image: np.ndarray
    heat: np.ndarray
