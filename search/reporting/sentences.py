"""What reports say in words: the verdict, the method, the limits; pure.

Better or worse is said where every 95% interval lies on that side of 0, see `scoring.bootstrap`.
Names of classes come from the data. What is known of the chest X-ray data set alone is said only of
data with its class names.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from search.config import RunConfig, SplitKind
from search.records import (
    Comparison,
    DatasetReport,
    Estimate,
    Evaluation,
    PlanRecord,
    Scored,
    TrialRecord,
    TrialStatus,
    Values,
)
from search.reporting.format import (
    differing,
    interval,
    metric,
    metric_name,
    plural,
    signed,
    times,
    usable,
    whole,
)
from search.scoring.bootstrap import judge

HEADLINES = ("auc", "accuracy", "recall", "specificity")
"""Metrics of the tiles and of the end of a run."""

CHEST_X_RAYS = ("NORMAL", "PNEUMONIA")
"""Class names of the data set whose story is known."""

RESEARCH_ONLY = "For research and teaching. Not for diagnosis or any other use on patients."

CITATION = (
    "Kermany DS, Goldbaum M, Cai W, et al. Identifying medical diagnoses and treatable diseases by "
    "image-based deep learning. Cell 2018;172:1122–1131. Data: Mendeley Data, "
    "doi:10.17632/rscbjbr9sj, CC BY 4.0."
)


class Headline(NamedTuple):
    """One metric of both sides, at each network's stored threshold where that matters."""

    key: str
    name: str  # what people call it
    baseline: float  # the mean over its seeds
    winner: float
    difference: Estimate  # winner − baseline; of several intervals the widest
    outcome: str  # "better", "worse" or "undecided"


def headlines(comparison: Comparison) -> tuple[Headline, ...]:
    """Return the metrics that are shown first."""
    return tuple(_headline(comparison, key) for key in HEADLINES)


def _headline(comparison: Comparison, key: str) -> Headline:
    full = key if key in comparison.winner.exported.ranking else f"{key}_at_threshold"
    baseline, winner = mean(comparison.baseline, key), mean(comparison.winner, key)
    nothing = Estimate(value=winner - baseline, low=math.nan, high=math.nan)
    found = [comparison.difference[full]] if full in comparison.difference else []
    if full in comparison.mean_difference:
        over = comparison.mean_difference[full]
        found = [over.over_patients, over.over_seeds]
    widest = max(found, key=lambda one: one.high - one.low, default=nothing)
    difference = widest if usable(widest.low) else nothing
    outcome = judge(key, *found).value
    return Headline(key, metric_name(key), baseline, winner, difference, outcome)


def scored(side: Scored) -> tuple[Evaluation, ...]:
    """Return one evaluation a seed: on test, or on validation without a test set."""
    return side.test or side.validation


def mean(side: Scored, key: str) -> float:
    """Return a metric's mean over seeds, at the stored thresholds."""
    return statistics.fmean(value(evaluation, key).value for evaluation in scored(side))


def value(evaluation: Evaluation, key: str) -> Estimate:
    """Return a metric of one network, at its stored threshold where that matters."""
    return evaluation.ranking.get(key) or evaluation.at_threshold[key]


def verdict(comparison: Comparison) -> str:
    """Return the result in one sentence of at most 30 words."""
    if not changed(comparison):
        return (
            "The search found nothing better on validation than the baseline itself, which is "
            "therefore the winner."
        )
    auc, accuracy, recall, specificity = headlines(comparison)
    if not comparison.winner.test:
        return (
            f"There is no test set: on validation, which also chose it, the winner's AUC is "
            f"{metric(auc.winner)} (baseline {metric(auc.baseline)})."
        )
    where = f"On {plural(scored(comparison.winner)[0].count, 'test image')}"
    if accuracy.outcome == "undecided" and auc.outcome == "undecided":
        return f"{where} there is no significant difference in accuracy {_numbers(accuracy)}."
    if accuracy.outcome == "undecided":
        ranks = "ranks better" if auc.outcome == "better" else "ranks worse"
        return (
            f"{where} the winner {ranks} (AUC {_numbers(auc)[1:]}; accuracy does not differ "
            "significantly."
        )
    more = "more" if accuracy.outcome == "better" else "less"
    text = f"{where} the winner is {more} accurate {_numbers(accuracy)}"
    price = [one for one in (recall, specificity) if one.winner < one.baseline - 0.005]
    if auc.outcome == "worse" and more == "more":
        text += f" but ranks worse (AUC {_both(auc)})"
    elif price and more == "more":
        lowest = min(price, key=lambda one: one.winner - one.baseline)
        text += f" at lower {lowest.name} ({_both(lowest)})"
    return f"{text}."


def _numbers(one: Headline) -> str:
    ranges = interval(one.difference, sign=False).replace("-", "−")
    known = f", 95% interval {ranges}" if ranges else ""
    return f"({_both(one)}, difference {signed(one.difference.value)}{known})"


def _both(one: Headline) -> str:
    return f"{metric(one.winner)} against {metric(one.baseline)}"


def seeds_sentence(comparison: Comparison) -> str:
    """Say how many trainings are behind the numbers."""
    count = len(scored(comparison.winner))
    if count == 1:
        return "Trained with one seed: differences of a few points may be noise (--refit-seeds 3)."
    wide = "over seeds and over patients, the wider of the two"
    return f"Means of {count} seeds, retrained the same way; 95% intervals {wide}."


def remarks(comparison: Comparison) -> list[str]:
    """Return what belongs to the verdict: seeds, what changed, thresholds, McNemar's test."""
    winner, baseline = comparison.winner, comparison.baseline
    found = [seeds_sentence(comparison)]
    for title, side in (("winner", winner), ("baseline", baseline)):
        threshold = side.exported.threshold
        found.append(
            f"Decision threshold of the {title}: {metric(threshold.value)}, by the rule "
            f"{threshold.rule} on {threshold.chosen_on}, reached there at "
            f"{metric(threshold.reached)}."
        )
    test = comparison.mcnemar.get("at_half")
    if test is not None:
        p = "p < 0.001" if test.p_value < 0.001 else f"p = {test.p_value:.3f}"
        found.append(
            f"McNemar's test of the decisions at 0.5: {p} ({test.only_winner_right} images only "
            f"the winner gets right, {test.only_baseline_right} only the baseline)."
        )
    count = comparison.times_evaluated
    if winner.test:
        networks = plural(comparison.test_evaluations, "network")
        found.append(f"The test set was evaluated {times(count)}, on {networks}; it chose nothing.")
    return found


def changed(comparison: Comparison) -> Values:
    """Return what the winner changes of the baseline."""
    return differing(comparison.winner.values, comparison.baseline.values)


def method(
    config: RunConfig,
    dataset: DatasetReport,
    plan: PlanRecord | None,
    comparison: Comparison | None,
) -> list[tuple[str, str]]:
    """Return (what, how) of the method, in the order things are done."""
    kinds = ", ".join(name.replace("_", " ") for name in dataset.views["kinds"])
    side = f"{config.image_size} × {config.image_size}"
    if config.refit != config:
        side += f", for the retraining {config.refit.image_size} × {config.refit.image_size}"
    share = f"{dataset.val_fraction:.0%} of train + validation"
    partitions = {
        SplitKind.PATIENT.value: f"validation is {share}, drawn by patient, stratified by class"
        if dataset.patients_known
        else f"validation is {share}, drawn by image: the patients are unknown",
        SplitKind.NOTEBOOK.value: f"validation is {share}, drawn by file as the notebook did: "
        "patients may be on both sides",
    }
    planned = ""
    if plan is not None:
        configurations = plural(plan.configurations, "configuration")
        planned = f", {configurations} and {plural(plan.epochs, 'epoch')} planned"
    rows = [
        (
            "preprocessing",
            f"8-bit, resized to {side} with antialiasing, aspect ratio not kept; rescaling is part "
            "of the network, augmentation is active in training only",
        ),
        ("partitions", partitions.get(dataset.split, "validation is the data's own folder")),
        (
            "perturbed validation images",
            f"{whole(dataset.view_count)} fixed, seeded copies ({kinds}), scored every epoch",
        ),
        ("baseline", "the notebook's network, retrained the same way"),
        (
            "search",
            f"{config.tuner.value}{planned}; ranked by {config.objective} on validation at equal "
            "numbers of epochs; trial 0 is the baseline; networks are trained from scratch",
        ),
        (
            "retraining",
            f"the best {plural(config.top, 'configuration')} and the baseline, at most "
            f"{plural(config.refit_epochs, 'epoch')} and {plural(config.refit_seeds, 'seed')} "
            f"each, class weights in the loss; epoch and winner are chosen by {config.choice} on "
            "validation",
        ),
        ("threshold", f"by the rule {config.threshold_rule}, on perturbed validation images"),
        (
            "uncertainty",
            "95% intervals of a bootstrap over patients (1,000 resamples), paired for differences; "
            "over seeds by Student's t; McNemar's exact test",
        ),
    ]
    if comparison is not None:
        evaluated = f"evaluated {times(comparison.times_evaluated)}, after every choice was made"
        rows.append(("test set", evaluated if comparison.winner.test else "there is none"))
    return rows


def limits(
    dataset: DatasetReport, trials: tuple[TrialRecord, ...], comparison: Comparison | None
) -> list[str]:
    """Return what a reader must keep in mind, the gravest first."""
    negative, positive = dataset.classes
    found = list(dataset.alarms)
    if dataset.source.synthetic:
        found.insert(0, "The images are synthetic: no number here says anything about patients.")
    if comparison is None:
        found.append("The run is unfinished: nothing was evaluated on the test set.")
    elif not comparison.winner.test:
        found.append("There was no test set: validation also chose the winner, and is too good.")
    else:
        network = comparison.winner.exported
        recall = value(network, "recall").value
        found.append(
            f"The threshold reached {network.threshold.rule} at "
            f"{metric(network.threshold.reached)} on perturbed validation images and gives a "
            f"sensitivity of {metric(recall)} on the test set: it is not a promise on other images."
        )
        counts = dataset.counts.get("test", {})
        found.append(
            f"The test set has {counts.get(positive, 0):,} {positive} and "
            f"{counts.get(negative, 0):,} {negative} images; accuracy and precision depend on "
            "that share."
        )
    if not dataset.source.synthetic:
        found.append("No external test: expect less on images of other devices and places.")
    if not dataset.patients_known:
        found.append(
            "Patients are unknown: images of one patient may be in training and in test, and "
            "intervals, which take images as independent, may be too narrow."
        )
    if sharing := dataset.val_sharing_patients:
        found.append(f"{sharing:,} validation images share a patient with training images.")
    if is_chest_x_rays(dataset):
        found.append(
            "Children of one to five years at one hospital; age, sex and device are not published "
            "with the images. That test images are framed differently was learned from them."
        )
    failed = sum(record.status is TrialStatus.FAILED for record in trials)
    dead = sum(record.status is TrialStatus.LEARNED_NOTHING for record in trials)
    words = ((failed, "failed"), (dead, "learned nothing"))
    out = " and ".join(f"{count:,} {word}" for count, word in words if count)
    if out:
        found.append(f"Of {plural(len(trials), 'trial')}, {out}: they chose nothing.")
    found.append(
        "Intervals speak of which patients were drawn and of training seeds, not of images from "
        "elsewhere or of wrong labels."
    )
    return found


def is_chest_x_rays(dataset: DatasetReport) -> bool:
    """Return whether the data look like the chest X-ray data set."""
    return dataset.classes == CHEST_X_RAYS and not dataset.source.synthetic


def provenance(dataset: DatasetReport) -> str:
    """Say where the images came from, as far as it is known."""
    if dataset.source.synthetic:
        return (
            "The images are drawn by this software. There are no patients and no disease in them."
        )
    if not is_chest_x_rays(dataset):
        return "The labels are the folders' names; who gave them is not known to this software."
    known = "" if dataset.source.kind == "kaggle" else "If these are the images of that name: "
    return (
        f"{known}“Chest X-Ray Images (Pneumonia)”, from children of one to five years at the "
        "Guangzhou Women and Children's Medical Center, published de-identified under CC BY 4.0. "
        "Two physicians graded each image, a third checked the evaluation set."
    )
