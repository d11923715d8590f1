"""How a run went about it, in sentences with the run's own settings; pure.

What a reader of a medical-imaging paper looks for under Methods, for a run that used this software
as it is. Settings that a run of another version did not keep are left out.
"""

from __future__ import annotations

from typing import Any

from search.config import SplitKind
from search.reporting import temperature
from search.reporting.content import RunContent
from search.reporting.facts import mapping
from search.reporting.verdict import MIXED, own_recipe, scorings
from search.reporting.wording import is_number, opened, plural, whole

Rows = list[tuple[str, str]]


def method_rows(content: RunContent) -> Rows:
    """Return (what, text) of the method, in the order things are done."""
    config = content.config
    if not config:
        return []
    rows = [
        ("preprocessing", _preprocessing(config)),
        ("partitions", _partitions(config)),
        ("stressed views", _views(content.dataset)),
        ("network", _network(config)),
        ("search", _search(content)),
        ("retraining", _retraining(content)),
        ("probabilities", temperature.sentence(config, content.evaluation)),
        ("threshold", f"by the rule {config['threshold_rule']}, on the stressed validation views")
        if config.get("threshold_rule")
        else ("threshold", ""),
        ("test", _test(content)),
        ("uncertainty", _uncertainty()),
    ]
    return [(what, text) for what, text in rows if text]


def _preprocessing(config: dict[str, Any]) -> str:
    size = config.get("image_size")
    shape = f"to {size} × {size} pixels " if is_number(size) else ""
    return (
        f"each film decoded to 8-bit gray and resized {shape}with antialiasing, its aspect ratio "
        "not kept; rescaling to 0–1 and augmentation are layers of the network, augmentation in "
        "training only"
    )


def _partitions(config: dict[str, Any]) -> str:
    share = config.get("val_fraction")
    part = f"{share:.0%} of train + val" if is_number(share) else "a part of train + val"
    if config.get("split") == SplitKind.NOTEBOOK.value:
        return (
            f"validation is {part}, drawn by file as the notebook did, so that patients are on "
            "both sides; the test set is the data set's own"
        )
    return (
        f"validation is {part}, drawn by patient and stratified by class: disjoint at the level of "
        "patients; the test set is the data set's own"
    )


def _views(dataset: dict[str, Any]) -> str:
    views = mapping(dataset.get("views"))
    settings = mapping(views.get("settings"))
    names = views.get("names")
    if not isinstance(names, list) or not names:
        return ""
    strengths = ", ".join(
        f"{name.replace('_', ' ')} {_range(value)}"
        for name, value in settings.items()
        if name not in ("kinds", "views_per_image")
    )
    return (
        f"{whole(views.get('count'))} fixed, seeded alterations of the validation films "
        f"({', '.join(str(n).replace('_', ' ') for n in names)}; {strengths}), scored every epoch"
    )


def _range(value: Any) -> str:
    if isinstance(value, list):
        return "–".join(f"{v:g}" for v in value)
    return f"{value:g}" if is_number(value) else str(value)


def _network(config: dict[str, Any]) -> str:
    limit = config.get("max_parameters")
    bound = f", at most {whole(limit)} parameters" if limit else ""
    return (
        "the documented CNN and variations of it (`hypermodels.DocumentedCNN`), trained from "
        f"scratch: Keras' initialization (Glorot uniform) from seeds, no pretrained weights{bound}"
    )


def _search(content: RunContent) -> str:
    config, plan = content.config, content.plan
    tuner = plan.get("tuner") or config.get("tuner")
    sizes = [
        plural(int(plan[key]), noun)
        for key, noun in (("configurations", "configuration"), ("epochs", "epoch"))
        if is_number(plan.get(key))
    ]
    planned = f", {' and '.join(sizes)} planned" if sizes else ""
    text = f"{tuner}{planned}; trials ranked by {content.objective} on validation"
    if content.objective == "robust_loss":
        text += " (log loss of the worst of the clean films and each kind of stressed view)"
    return text + ", averaged over the last epochs; trial 0 is the documented configuration"


def _retraining(content: RunContent) -> str:
    config = content.config
    seeds, top = config.get("refit_seeds"), config.get("top")
    if not is_number(seeds) or not is_number(top):
        return ""
    best = "the best configuration" if top == 1 else f"the best {whole(top)} configurations"
    text = (
        f"{best} and the documented one, each with {plural(int(seeds), 'seed')} and at most "
        f"{plural(int(config.get('refit_epochs') or 0), 'epoch')}, class weights in the loss; the "
        "epoch and, of all of them, the winner are chosen by "
        f"{config.get('choose_by') or config.get('objective')} on validation"
    )
    asked: dict[str, Any] = {
        "schedule": config.get("refit_schedule"),
        "patience": config.get("refit_patience"),
        "ema": config.get("ema"),
        "ensemble": {} if config.get("ensemble") else None,
        "trained_on": config.get("refit_on"),
    }
    done = {**asked, **mapping(content.evaluation.get("retraining"))}
    own = own_recipe(done, content.documented)
    if own:
        text += f"; of the winner only: {', '.join(own)} ({MIXED})"
    return text if done["ensemble"] is not None else f"{text}; no ensemble"


def _test(content: RunContent) -> str:
    if not content.evaluation:
        return "not opened"
    if not scorings(mapping(content.evaluation.get("winner"))):
        return "there is none: the scores are of validation, which chose, and are too good"
    count = content.evaluation.get("test_scorings")
    models = f", by {plural(int(count), 'trained network')}" if is_number(count) else ""
    often = opened(content.evaluation)
    when = f"{often}, after" if often else "opened after"
    return f"{when} every choice was made{models}; it chose nothing"


def _uncertainty() -> str:
    return (
        "95% percentile intervals of a bootstrap over patients (1,000 resamples); of the "
        "difference, paired; McNemar's exact test. With several seeds the difference of their "
        "means has an interval over seeds too, by Student's t. Better or worse is said where every "
        "interval lies on that side of 0"
    )
