"""What a model of this software is for, where its images came from, and what limits it; pure.

The data set's story is that of its publishers (Kermany et al., Cell 172, 2018, and the descriptions
on Mendeley Data and Kaggle); whether a folder holds these films, a report cannot know, and says so.
"""

from __future__ import annotations

from typing import Any

from search.config import SplitKind
from search.records import TrialStatus
from search.reporting.content import RunContent
from search.reporting.facts import class_counts, mapping
from search.reporting.verdict import chosen, scorings
from search.reporting.wording import is_number, metric, plural

WHAT_IT_IS = (
    "A convolutional neural network (deep learning) that tells pneumonia from normal in chest "
    "radiographs of children; its hyperparameters were searched. For research, not for diagnosis."
)

AIM = (
    "The question: does a search of the hyperparameters, judged on validation films that are "
    "framed and exposed differently, find a network that is better on the test films than the "
    "documented configuration, retrained in the same way?"
)

INTENDED_USE = (
    "For research and teaching: to study how the choice of hyperparameters, augmentation and "
    "validation decides what a small network makes of films it was not trained on.",
    "Not for diagnosis, triage or any other use on patients. No clinical study was done, no "
    "regulator has seen it, and no part of a care pathway was considered.",
)

OUT_OF_SCOPE = (
    "Adults, newborns, lateral films, CT, films of other hospitals or devices: never tested.",
    "Diseases other than pneumonia: a film that shows one is called NORMAL or PNEUMONIA all the "
    "same.",
    "Telling bacterial from viral pneumonia: the network does not.",
)

CITATION = (
    "Kermany DS, Goldbaum M, Cai W, et al. Identifying medical diagnoses and treatable diseases by "
    "image-based deep learning. Cell 2018;172:1122–1131. Data: Mendeley Data, doi:10.17632/"
    "rscbjbr9sj, CC BY 4.0."
)


def synthetic(content: RunContent) -> bool:
    """Return whether the images are the built-in demo's."""
    return bool(content.notice)


def provenance(content: RunContent) -> list[str]:
    """Return where the images came from and who labelled them, a sentence or two each."""
    if synthetic(content):
        return [
            "The images are drawn by this software: shapes that resemble chest radiographs in "
            "format only. There are no patients, no hospital and no disease."
        ]
    kind = mapping(content.dataset.get("source")).get("kind")
    known = "" if kind == "kaggle" else "If the folder holds the films this software is made for: "
    return [
        f"{known}“Chest X-Ray Images (Pneumonia)”, collected retrospectively from children of one "
        "to five years at one hospital, the Guangzhou Women and Children's Medical Center, in "
        "routine care; anterior–posterior films, published de-identified under CC BY 4.0 (Kermany "
        "et al., 2018).",
        "The label is the folder a film lies in. By its publishers' account two physicians graded "
        "each film after unreadable ones were removed, and a third checked the evaluation films; "
        "agreement between readers, and confirmation by culture or follow-up, were not published.",
    ]


def limitations(content: RunContent) -> list[str]:
    """Return what a reader must keep in mind, the gravest first, a sentence or two each."""
    found: list[str] = []
    if synthetic(content):
        found.append(f"{content.notice[:1].upper()}{content.notice[1:]}.")
    found += _evaluation_limits(content)
    found += _data_limits(content)
    failed = sum(r.status is TrialStatus.FAILED for r in content.records)
    if failed:
        found.append(
            f"{failed} of {plural(len(content.records), 'trial')} failed and took no part in the "
            "choice; the reasons are under Trials."
        )
    return found


def _evaluation_limits(content: RunContent) -> list[str]:
    evaluation, found = content.evaluation, []
    if not evaluation:
        return ["The run is unfinished: nothing was scored on the test set."]
    tests = scorings(mapping(evaluation.get("winner")))
    if not tests:
        found.append(
            "There was no test set: every score is of validation films, which also chose the "
            "winner, and is too good."
        )
    seeds = len(tests) or len(scorings(mapping(evaluation.get("winner")), "validation"))
    if seeds == 1:
        found.append(
            "One seed: another initialization would give other numbers, by points. "
            "--refit-seeds 3 or more measures by how many."
        )
    if not synthetic(content):
        found.append(
            "No external test: the test films are of the same hospital as the training films. "
            "Elsewhere, expect less."
        )
    exported = chosen(mapping(evaluation.get("winner")))
    threshold = mapping(exported.get("threshold"))
    reached = mapping(mapping(exported.get("at_threshold")).get("recall"))
    if is_number(threshold.get("reached")) and is_number(reached.get("value")):
        found.append(
            f"The threshold was set on stressed validation by the rule {threshold.get('rule')}, "
            f"reached there at {metric(threshold['reached'])}; on the test set the "
            f"sensitivity is {metric(reached['value'])}. A rule kept on one set of films is not a "
            "promise on another."
        )
    shares = [row for row in class_counts(content.dataset) if row[0] == "test"]
    if shares:
        found.append(
            f"The test set has {shares[0][2]} ill and {shares[0][1]} healthy children's films, "
            "far more ill ones than a clinic sees: precision and accuracy depend on that, "
            "sensitivity and specificity less. Predictive values at other shares are given apart."
        )
    found.append(
        "The intervals speak of which patients came to the test, not of another hospital, another "
        "device, another training or wrong labels."
    )
    return found


def _data_limits(content: RunContent) -> list[str]:
    config, found = content.config, []
    if content.dataset.get("split") == SplitKind.NOTEBOOK.value:
        sharing = mapping(content.dataset.get("leakage")).get(
            "val_images_sharing_a_patient_with_train"
        )
        found.append(
            f"Validation shares patients with training ({sharing} films), as in the notebook: "
            "validation scores are too good, and what they chose may be wrong."
        )
    if not synthetic(content):
        found += [
            "Two classes only, one to five years of age, one hospital. Age, sex, device, severity "
            "and co-morbidity are not published with the films, so no subgroup but bacterial and "
            "viral pneumonia can be looked at, and fairness cannot.",
            "Patients are known by file names alone; a child with two names would be counted "
            "twice.",
            "That test films are framed differently from training films was learned from test "
            "pixels by those who measured the data set; the strengths of the stressed views were "
            "not chosen on them. Other work on these same test films has been published widely.",
            "Films are squashed to a square; the shape of the original film differs between the "
            "classes in this data set, and a network may use it.",
        ]
    size = config.get("image_size")
    if is_number(size) and size < 128:
        found.append(f"At {size} × {size} pixels small findings are not visible.")
    return found


def data_name(content: RunContent) -> dict[str, Any]:
    """Return "type" and "name" of the data set, for a model card's metadata."""
    if synthetic(content):
        return {"type": "synthetic-demo", "name": "xray-search synthetic demo"}
    return {"type": "chest-xray-pneumonia", "name": "Chest X-Ray Images (Pneumonia)"}
