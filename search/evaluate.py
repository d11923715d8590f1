"""`python -m search.evaluate RUN_OR_MODEL --data DIR`: score a trained model on labelled images.

The same decoding, metrics and intervals as at the end of a run. Keras is imported once the
arguments are known to make sense.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search import cli
from search.data.cache import default_cache_dir
from search.data.prepare import Labelled, labelled_folder
from search.errors import ConfigurationError
from search.records import Estimate, Evaluation, Split, to_json
from search.run_directory import write_json
from search.scoring.bootstrap import subtype_recall
from search.scoring.loading import load_model
from search.scoring.predict import NOT_FOR_DIAGNOSIS, find_model, unchecked_note
from search.scoring.predictions import evaluate, predict_subset

SOME_REJECTED = 2
SHOWN_REJECTED = 10

ROWS = (
    ("accuracy", "accuracy"),
    ("precision", "precision"),
    ("recall", "recall (sensitivity)"),
    ("specificity", "specificity"),
    ("f1", "F1"),
    ("auc", "AUC"),
    ("loss", "log loss"),
)
"""Key and name of the metrics in the table; the JSON file has all."""


@cli.plain
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 for a user error or when a file could not be scored; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    if arguments.seed < 0:
        raise ConfigurationError(f"--seed {arguments.seed}: must be at least 0")
    model_file = find_model(
        arguments.model, results_dir=arguments.results_dir, form=arguments.format
    )
    loaded = load_model(model_file)
    about = loaded.metadata
    found = labelled_folder(
        arguments.data,
        classes=about.classes,
        image_size=about.image_size,
        channels=about.channels,
        bits=about.depth,
        cache_dir=arguments.cache_dir or default_cache_dir(),
    )
    predictions = predict_subset(loaded.model, found.subset, Split.TEST)
    evaluation = evaluate(
        predictions,
        about.threshold,
        role=about.role,
        seed=about.seed,
        bootstrap_seed=arguments.seed,
    )
    subtypes = subtype_recall(predictions, about.threshold.value, seed=arguments.seed)
    if note := unchecked_note(model_file):
        print(note, file=sys.stderr)
    # First what takes no disk: the numbers are not lost where the file cannot be written.
    title = f"{model_file} on {arguments.data}"
    _print(Console(), title, evaluation, subtypes, found, about.notice)
    if arguments.json:
        labels = found.subset.labels
        content = {
            "model": model_file,
            "data": arguments.data,
            "notice": about.notice or None,
            "images": {name: int((labels == i).sum()) for i, name in enumerate(about.classes)},
            "patients": len(set(found.subset.patients)),
            **to_json(evaluation),
            "subtypes": subtypes,
            "rejected": found.rejected,
            "left_out": found.left_out,
        }
        write_json(arguments.json, content, option="--json")
    return SOME_REJECTED if found.rejected else 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m search.evaluate",
        description="Score a trained model on a folder of labelled images, with 95% intervals from "
        f"a bootstrap over patients. {NOT_FOR_DIAGNOSIS}",
        epilog="Exit code 2 if any file could not be scored; the others still are.",
    )
    cli.add_model(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="holds test/ with a folder for each class, or these folders directly",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE")
    parser.add_argument(
        "--seed", type=int, default=8, help="seed of the intervals' resampling (%(default)s)"
    )
    cli.add_results_dir(parser)
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=None,
        metavar="DIR",
        help="where decoded images are kept (the user's cache directory)",
    )
    return parser


def _print(
    console: Console,
    title: str,
    evaluation: Evaluation,
    subtypes: dict[str, Estimate],
    found: Labelled,
    notice: str,
) -> None:
    threshold = evaluation.threshold
    table = Table(title=Text(title), title_justify="left")
    table.add_column("metric")
    table.add_column("at 0.5", justify="right")
    table.add_column(f"at {threshold.value:.3f}", justify="right")
    for key, name in ROWS:
        if key in evaluation.ranking:
            table.add_row(name, _cell(evaluation.ranking[key]), "same")
        else:
            table.add_row(name, _cell(evaluation.at_half[key]), _cell(evaluation.at_threshold[key]))
    for kind, recall in subtypes.items():
        table.add_row(f"recall, {kind}", "", _cell(recall))
    console.print(table)
    lines = [
        f"{evaluation.count} images of {len(set(found.subset.patients))} patients; brackets are "
        "95% intervals from a bootstrap over patients.",
        f"Threshold by the rule {threshold.rule} on {threshold.chosen_on}.",
    ]
    if found.rejected:
        lines.append(f"Left out, {len(found.rejected)}:")
        lines += [f"  {file.path}: {file.reason}" for file in found.rejected[:SHOWN_REJECTED]]
        if len(found.rejected) > SHOWN_REJECTED:
            lines.append(f"  … {len(found.rejected) - SHOWN_REJECTED} more; --json lists all")
    lines += [f"Not used: {left.path}, {left.reason}" for left in found.left_out]
    if notice:
        lines.append(f"NOTICE: trained on {notice}")
    lines.append(NOT_FOR_DIAGNOSIS)
    for line in lines:
        console.print(Text(line))


def _cell(estimate: Estimate) -> Text:
    if math.isnan(estimate.value):
        return Text("–")
    return Text(f"{estimate.value:.3f} [{estimate.low:.3f}–{estimate.high:.3f}]")


if __name__ == "__main__":
    sys.exit(cli.execute(main))
