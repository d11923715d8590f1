"""The images a model gets wrong, the most confidently wrong first; by name, never as pictures."""

from __future__ import annotations

import numpy as np

from search.records import CLASS_NAMES
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.wording import plural

SHOWN = 25


def worst_misses(material: Material) -> list[Insight]:
    """Return the winner's misses at its stored threshold."""
    found = material.curves.get("winner")
    if found is None:
        return []
    said = found.predictions
    control = material.curves.get("documented")
    other = (
        dict(
            zip(
                control.predictions.paths,
                zip(
                    control.predictions.probabilities,
                    control.predictions.probabilities >= control.threshold,
                    strict=True,
                ),
                strict=True,
            )
        )
        if control
        else {}
    )
    labels = said.labels.astype(int)
    called = (said.probabilities >= found.threshold).astype(int)
    wrong = np.flatnonzero(called != labels)
    # How far the log odds are beyond the threshold's: 0.5 has no meaning where it is another.
    distance = np.abs(_log_odds(said.probabilities) - _log_odds(np.array([found.threshold])))
    order = wrong[np.argsort(-distance[wrong], kind="stable")]
    rows = []
    for i in order[:SHOWN]:
        probability, also = other.get(said.paths[i], (None, None))
        rows.append(
            (
                said.paths[i],
                said.patients[i],
                CLASS_NAMES[labels[i]],
                said.subtypes[i] or None,
                float(said.probabilities[i]),
                None if probability is None else float(probability),
                None if also is None else ("wrong" if int(also) != labels[i] else "right"),
            )
        )
    more = len(wrong) - len(rows)
    return [
        Insight(
            name="misses",
            section=Section.FAILURES,
            title=f"The worst misses on {material.split}",
            reading=_reading(labels, called, said.subtypes),
            caption=f"Judged at the stored threshold, {found.threshold:.3f}; the most confident "
            "mistakes first (by the log odds' distance from it)"
            + (f", {more} more in predictions.csv." if more > 0 else "."),
            columns=(
                "file",
                "patient",
                "truth",
                "kind",
                "probability of PNEUMONIA",
                "of the documented network",
                "its decision",
            ),
            rows=tuple(rows),
        )
    ]


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return np.log(clipped) - np.log1p(-clipped)


def _reading(labels: np.ndarray, called: np.ndarray, subtypes: tuple[str, ...]) -> str:
    wrong = called != labels
    if not wrong.any():
        return f"The winner misjudges none of {plural(len(labels), 'image')}."
    ill, healthy = int((wrong & (labels == 1)).sum()), int((wrong & (labels == 0)).sum())
    kinds = [
        f"{int((wrong & (np.array(subtypes) == kind)).sum())} {name}"
        for kind, name in (("bacteria", "bacterial"), ("virus", "viral"))
        if kind in subtypes
    ]
    detail = f" ({', '.join(kinds)})" if kinds and ill else ""
    return (
        f"The winner misjudges {int(wrong.sum())} of {plural(len(labels), 'image')}: {healthy} "
        f"healthy called ill, {ill} ill called healthy{detail}."
    )
