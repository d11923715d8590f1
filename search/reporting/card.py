"""Writes `model_card.md`: what the trained model is and is not for, in Hugging Face's form; pure.

The front matter is YAML, written as JSON values, which YAML contains. Metrics go into it for real
films only: a leaderboard must not rank the demo. The licence of the weights is for whoever
publishes them to choose, and is left out.
"""

from __future__ import annotations

import json
from typing import Any

from search.reporting import claim, facts, purpose
from search.reporting.comparison import METRICS, RANKING
from search.reporting.content import RunContent, about_rows
from search.reporting.facts import mapping
from search.reporting.markdown import bullets, calibration, escape, folded, table, verdict_rows
from search.reporting.method import method_rows
from search.reporting.verdict import COLUMNS, chosen, estimate
from search.reporting.wording import is_number, metric, setting, whole

TAGS = (
    "chest-x-ray",
    "pneumonia",
    "medical-imaging",
    "hyperparameter-search",
    "research-only",
    "not-for-diagnosis",
)
HUB_NAMES = {"auc": "roc_auc", "loss": "log_loss"}
"""What Hugging Face calls a metric, where it differs."""


def render_card(content: RunContent) -> str:
    """Return the model card of a run that has been scored; like the Markdown, to be passed on."""
    content = content.passed_on()
    parts = [
        front_matter(content),
        f"# {escape(content.name)}: pneumonia or normal in chest radiographs",
        f"> **{escape(content.notice)}**" if content.notice else "",
        escape(purpose.WHAT_IT_IS),
        *_details(content),
        "## Intended use",
        *(escape(text) for text in purpose.INTENDED_USE),
        "### Out of scope",
        bullets(purpose.OUT_OF_SCOPE),
        "## Training data",
        *(escape(text) for text in purpose.provenance(content)),
        table(
            ("split", "NORMAL", "PNEUMONIA", "images", "patients"),
            facts.class_counts(content.dataset),
        ),
        "## Training and selection",
        table(("what", "how"), method_rows(content)),
        *calibration(content),
        *_evaluation(content),
        "## Limitations, risks and bias",
        bullets(purpose.limitations(content)),
        *_usage(content),
        "## Environment",
        table(("what", "value"), about_rows(content)),
        f"Reporting follows [CLAIM 2024]({claim.DOCUMENT}). {escape(claim.summary())}",
        "## Citation",
        escape(purpose.CITATION) if not content.notice else "None: the images are synthetic.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(content: RunContent) -> str:
    """Return the YAML block that Hugging Face reads."""
    tags = [*TAGS, "synthetic-demo"] if content.notice else list(TAGS)
    fields: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": tags,
    }
    results = [] if content.notice else metrics(content)
    if results:
        fields["model-index"] = [
            {
                "name": content.name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Pneumonia or normal"},
                        "dataset": {**purpose.data_name(content), "split": "test"},
                        "metrics": results,
                    }
                ],
            }
        ]
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(("---", *lines, "---"))


def metrics(content: RunContent) -> list[dict[str, Any]]:
    """Return the exported model's test metrics as `model-index` has them, intervals in the name."""
    scored = chosen(mapping(content.evaluation.get("winner")))
    threshold = mapping(scored.get("threshold")).get("value")
    found = []
    for key, name in METRICS:
        value = estimate(scored, "at_threshold", key)
        if not is_number(value.get("value")):
            continue
        at = "" if key in RANKING else f" at threshold {metric(threshold)}"
        low, high = value.get("low"), value.get("high")
        known = is_number(low) and is_number(high)
        interval = f" (95% interval {metric(low)}–{metric(high)})" if known else ""
        found.append(
            {
                "type": HUB_NAMES.get(key, key),
                "name": f"{name}{at}{interval}",
                "value": round(value["value"], 4),
            }
        )
    return found


def _details(content: RunContent) -> list[str]:
    winner = mapping(content.evaluation.get("winner"))
    written = [str(r.get("path")) for r in content.exports if r.get("status") == "written"]
    rows = [
        ("network", "`hypermodels.DocumentedCNN`, a CNN trained from scratch"),
        ("parameters", whole(winner.get("parameters"))),
        ("input", "gray or RGB films of any size, 0–255; preprocessing is in the model"),
        ("output", "probability of PNEUMONIA, 0–1, and a stored threshold"),
        ("exports", ", ".join(written)),
    ]
    lines = "\n".join(f"- {name}: {text}" for name, text in rows if text)
    values = table(
        ("hyperparameter", "value"), [(n, setting(v)) for n, v in content.winner.items()]
    )
    return ["## Model", lines, folded("hyperparameters", values) if content.winner else ""]


def _evaluation(content: RunContent) -> list[str]:
    verdict = content.verdict
    if verdict is None or not chosen(mapping(content.evaluation.get("winner"))):
        return ["## Evaluation", "Not scored on a test set."]
    return [
        "## Evaluation",
        "On the test set, with 95% intervals by a bootstrap over patients.",
        table(("metric", *COLUMNS), verdict_rows(content)),
        escape(verdict.sentence),
        bullets(verdict.remarks),
    ]


def _usage(content: RunContent) -> list[str]:
    return [
        "## How to use it",
        "```bash\n"
        "python -m search.predict model.keras film.jpeg folder/ --json   # with this project\n"
        "```",
        "```python\n"
        "import keras\n"
        "import search.scoring.preprocessing  # the layer that takes raw films\n"
        "\n"
        'model = keras.saving.load_model("model.keras")  # safe mode\n'
        "probability = model.predict(film[None])  # film: (height, width, 1 or 3), 0–255\n"
        "```",
    ]
