"""What insights are computed from: records of a run, whoever gathered them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from search.records import TrialRecord
from search.reporting.curves import Predicted
from search.reporting.insights import forest
from search.reporting.trials import Row
from search.scoring.curves import Heatmap, ScoreCurves


@dataclass(frozen=True, kw_only=True)
class Material:
    """A run's records; what is empty gives no insight.

    Attributes:
        objective: The metric that ranked the trials.
        records: The trials.
        events: The journal, oldest first.
        histories: Rows of the retraining by candidate, see `trials.refit_histories`.
        evaluation: The content of `evaluation.json`.
        predictions: Labels and probabilities of the scored split, by candidate ("winner",
            "documented").
        curves: Curves of the same by candidate, the documented configuration first.
        heatmaps: Images with what the winner looked at.
    """

    objective: str
    records: Sequence[TrialRecord] = ()
    events: Sequence[dict[str, Any]] = ()
    histories: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    predictions: Mapping[str, Predicted] = field(default_factory=dict)
    curves: Mapping[str, ScoreCurves] = field(default_factory=dict)
    heatmaps: Sequence[Heatmap] = ()

    @property
    def split(self) -> str:
        """Return the images that were scored, in words."""
        return "validation" if self.evaluation.get("split") == "val" else "the test set"

    @cached_property
    def effects(self) -> forest.Effects | None:
        """Return what a forest over the trials says; computed once, in seconds."""
        return forest.effects(self.records, objective=self.objective)
