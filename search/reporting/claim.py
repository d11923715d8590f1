"""CLAIM 2024, item by item: what a report of this software answers, and what it leaves open; pure.

The checklist: Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in
Medical Imaging (CLAIM): 2024 Update. Radiol Artif Intell 2024;6(4):e240300,
doi:10.1148/ryai.240300. Items are named here in few words of our own; the numbers are CLAIM's.
`python -m search.reporting.claim > search/reporting/CLAIM.md` writes the table beside this module.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

CITATION = (
    "Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical "
    "Imaging (CLAIM): 2024 Update. Radiol Artif Intell 2024;6(4):e240300. "
    "doi:10.1148/ryai.240300"
)
DOCUMENT = "/search/reporting/CLAIM.md"
"""The table's place in the repository, as GitHub links to it from anywhere in it."""


class Answer(StrEnum):
    """How far a report answers an item."""

    YES = "answered"
    """The report says it, from the run's own records."""
    PARTLY = "partly"
    """Some of it; the remark says what is open."""
    NO = "not answered"
    """Somebody else must: the data set's publishers, or whoever writes the paper."""
    NOT_APPLICABLE = "not applicable"
    """There is nothing of the kind."""


@dataclass(frozen=True)
class Item:
    """An item of the checklist.

    Attributes:
        number: CLAIM's.
        about: What it asks for.
        answer: How far a report of a finished run answers it.
        where: Anchors of the report's sections.
        remark: What is said there, or open.
    """

    number: int
    about: str
    answer: Answer
    where: tuple[str, ...]
    remark: str


SECTIONS = {
    "use": "Purpose and intended use",
    "verdict": "Verdict",
    "data": "Data",
    "method": "Method",
    "plan": "Plan",
    "trials-section": "Trials",
    "test": "On the test set",
    "failures": "Where it fails",
    "questions": "The notebook's five questions",
    "search": "What the search found",
    "course": "How the run went",
    "exports": "Exports",
    "limitations": "Limitations",
    "environment": "Environment and options",
    "claim": "CLAIM 2024",
}
"""Anchor and heading of the report's sections."""

YES, PARTLY, NO = Answer.YES, Answer.PARTLY, Answer.NO

ITEMS = (
    Item(1, "AI method named in the title", YES, ("use",), "the line under the title"),
    Item(2, "summary of design, methods, results", YES, ("verdict", "method"), "verdict first"),
    Item(
        3,
        "background, intended use and role",
        PARTLY,
        ("use",),
        "use and non-use are stated; the clinical background is the author's to write",
    ),
    Item(4, "aims and hypotheses", YES, ("use",), "one question, asked before the test is opened"),
    Item(5, "prospective or retrospective", YES, ("data",), "retrospective, of public films"),
    Item(6, "study goal", YES, ("use",), "a comparison with a documented configuration"),
    Item(7, "data sources", YES, ("data",), "folder, fingerprint of its content, publisher"),
    Item(
        8,
        "inclusion and exclusion criteria",
        PARTLY,
        ("data",),
        "files left out here, with reasons; how the hospital chose patients was not published",
    ),
    Item(9, "pre-processing", YES, ("method",), "inside the exported model as well"),
    Item(10, "selection of data subsets", YES, ("data",), "every usable file is used"),
    Item(11, "de-identification", NO, (), "done by the publishers, who do not describe it"),
    Item(
        12, "missing data", YES, ("data",), "unusable files are listed and left out; none imputed"
    ),
    Item(
        13,
        "image acquisition protocol",
        NO,
        (),
        "not published with the films; pixel sizes are in dataset.json",
    ),
    Item(
        14,
        "how the reference standard was obtained",
        PARTLY,
        ("data",),
        "folder names; the publishers' account is quoted, no definition of pneumonia is known",
    ),
    Item(15, "why this reference standard", NO, (), "the data set has no other"),
    Item(
        16,
        "who annotated",
        PARTLY,
        ("data",),
        "number of readers as published; their experience is not known",
    ),
    Item(17, "annotation of the test set", PARTLY, ("data",), "a third reader, as published"),
    Item(18, "variability between and within readers", NO, (), "not published"),
    Item(19, "how partitions were made", YES, ("data", "method"), "rule, share and seed"),
    Item(20, "level at which they are disjoint", YES, ("data", "method"), "patients; counted"),
    Item(
        21,
        "intended sample size",
        PARTLY,
        ("data", "verdict"),
        "the data set's size, no power analysis; intervals show what it suffices for",
    ),
    Item(
        22,
        "model in detail",
        YES,
        ("method", "verdict"),
        "every hyperparameter and the parameter count; code and model.keras hold the layers",
    ),
    Item(23, "software and versions", YES, ("environment",), "with device and seeds"),
    Item(24, "initialization", YES, ("method",), "random, from seeds; nothing pretrained"),
    Item(
        25,
        "training",
        YES,
        ("method", "plan", "trials-section", "course"),
        "every trial with its hyperparameters, augmentation among them, and its curves",
    ),
    Item(26, "selection of the final model", YES, ("method", "trials-section"), "on validation"),
    Item(27, "ensembling", YES, ("method",), "whether there is any, and of how many networks"),
    Item(28, "metrics", YES, ("verdict", "test"), "at 0.5 and at the stored threshold"),
    Item(
        29,
        "significance and uncertainty",
        YES,
        ("method", "verdict"),
        "bootstrap over patients, paired difference, McNemar's test, spread over seeds",
    ),
    Item(
        30,
        "robustness or sensitivity analysis",
        PARTLY,
        ("method", "test", "questions"),
        "stressed views of validation films, bacterial and viral apart, one factor at a time if "
        "search.ablate was run; no other devices or hospitals",
    ),
    Item(
        31,
        "explainability",
        PARTLY,
        ("failures", "search"),
        "Grad-CAM (local report only) and importance of hyperparameters; neither was validated",
    ),
    Item(32, "evaluation on internal data", YES, ("trials-section", "course"), "validation"),
    Item(
        33,
        "testing on external data",
        NO,
        ("limitations",),
        "none was done; python -m search.evaluate RUN --data DIR does it for a folder you have",
    ),
    Item(34, "trial registration", Answer.NOT_APPLICABLE, (), "no clinical trial"),
    Item(
        35,
        "patients and films included and excluded",
        YES,
        ("data",),
        "as a table and a list; a flow diagram is not drawn",
    ),
    Item(
        36,
        "demographics and clinical characteristics",
        PARTLY,
        ("data",),
        "class and patients by partition; age and sex of patients are not published",
    ),
    Item(37, "performance with uncertainty", YES, ("verdict", "test"), "also by seed"),
    Item(
        38,
        "diagnostic performance and its precision",
        YES,
        ("verdict", "test"),
        "sensitivity, specificity, predictive values at several prevalences; reader agreement "
        "cannot be set beside them",
    ),
    Item(
        39,
        "failure analysis",
        YES,
        ("failures",),
        "the most confident mistakes by name, by kind, and in the local report as pictures",
    ),
    Item(40, "limitations", YES, ("limitations",), "of the data, of the method, of this run"),
    Item(41, "implications for practice", YES, ("use",), "none for practice: research only"),
    Item(
        42,
        "full protocol",
        PARTLY,
        ("plan", "environment"),
        "options, plan and journal are kept; nothing was registered beforehand",
    ),
    Item(
        43,
        "availability of software, model and data",
        PARTLY,
        ("use", "exports"),
        "software MIT, data CC BY 4.0, the model lies in the run directory; publishing it is up to "
        "whoever made it",
    ),
    Item(44, "funding", NO, (), "the author's to say"),
)
"""All 44, in order."""


def summary() -> str:
    """Return how many items are answered how far, in words."""
    counts = Counter(item.answer for item in ITEMS)
    said = ", ".join(f"{counts[answer]} {answer.value}" for answer in Answer)
    return f"Of {len(ITEMS)} items: {said}."


def document() -> str:
    """Return the content of `CLAIM.md`."""
    lines = [
        "# CLAIM 2024",
        "",
        f"Where the report of a finished run answers the items of {CITATION}",
        "",
        "Sections are those of `report.html`. It is about the report as it is written, of the data "
        "set this software is made for; an author still has to write the paper. "
        "`python -m search.reporting.claim` prints this page.",
        "",
        summary(),
        "",
        "| item | asks for | answer | section of the report | remark |",
        "|---:|---|---|---|---|",
    ]
    for item in ITEMS:
        where = ", ".join(SECTIONS[anchor] for anchor in item.where) or "–"
        lines.append(
            f"| {item.number} | {item.about} | {item.answer.value} | {where} | {item.remark} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
