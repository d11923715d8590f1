"""`python -m search.predict RUN_OR_MODEL IMAGE…`: a trained model's answer for image files.

Files are decoded by the function that decoded the training images, so that the answer here is the
one that was scored. Keras is imported once the arguments are known to make sense.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from search import backend
from search.data.cache import load_gray
from search.data.listing import IMAGE_SUFFIXES
from search.errors import SearchError
from search.journal import write_text
from search.scoring.predict import (
    NOT_FOR_DIAGNOSIS,
    FilePrediction,
    find_images,
    find_model,
    predict_files,
)

if TYPE_CHECKING:
    from search.scoring.export import LoadedModel

SOME_FAILED = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        0; 2 for a user error or when a file could not be predicted; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _predict(arguments)
    except SearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.predict",
        description=f"Predict image files with a trained model. {NOT_FOR_DIAGNOSIS}",
        epilog="Exit code 2 if any file could not be predicted; the others still are.",
    )
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL", help="a run directory, its name, or a .keras file"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or globs")
    parser.add_argument("--json", action="store_true", help="print a JSON array, not a table")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the rows to FILE too")
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where a run's bare name is looked up (%(default)s)",
    )
    return parser


def _predict(arguments: argparse.Namespace) -> int:
    model_file = find_model(Path(arguments.model), results_dir=arguments.results_dir)
    files = find_images(arguments.images, suffixes=IMAGE_SUFFIXES)
    backend.load()
    from search.scoring.export import load_model  # imports Keras, which takes seconds

    loaded = load_model(model_file)
    stderr = Console(stderr=True)
    answers = list(
        track(
            predict_files(loaded, files, decode=load_gray),
            description="Predicting",
            total=len(files),
            console=stderr,
            transient=True,
            disable=not stderr.is_terminal,
        )
    )
    if arguments.csv:
        write_text(arguments.csv, _as_csv(loaded, answers))
    if arguments.json:
        print(json.dumps([_as_row(loaded, answer) for answer in answers], indent=2))
        stderr.print(_footer(loaded), highlight=False, markup=False)
    else:
        _print_table(Console(), loaded, answers)
    return SOME_FAILED if any(answer.error for answer in answers) else 0


def _as_row(loaded: LoadedModel, answer: FilePrediction) -> dict[str, Any]:
    """Return a row that can be understood without the others."""
    return {**asdict(answer), "threshold": loaded.threshold.value, "notice": loaded.notice or None}


def _as_csv(loaded: LoadedModel, answers: Sequence[FilePrediction]) -> str:
    text = io.StringIO()
    rows = [_as_row(loaded, answer) for answer in answers]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "file": _printable(row["file"])})
    return text.getvalue()


def _print_table(console: Console, loaded: LoadedModel, answers: Sequence[FilePrediction]) -> None:
    table = Table(title=Text(str(loaded.path)), title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("P(PNEUMONIA)", justify="right")
    table.add_column(f"verdict at {loaded.threshold.value:.3f}", overflow="fold")
    for answer in answers:
        file = Text(_printable(answer.file))
        if answer.probability is None:
            table.add_row(file, "–", Text(f"error: {answer.error}", style="red"))
        else:
            table.add_row(file, f"{answer.probability:.4f}", Text(str(answer.verdict)))
    console.print(table)
    console.print(_footer(loaded), highlight=False, markup=False)


def _footer(loaded: LoadedModel) -> str:
    rule = f"Threshold by the rule {loaded.threshold.rule} on {loaded.threshold.chosen_on}."
    notice = f"NOTICE: trained on {loaded.notice}\n" if loaded.notice else ""
    return f"{notice}{rule} {NOT_FOR_DIAGNOSIS}"


def _printable(name: str) -> str:
    """Replace bytes of a file's name that are not text in any encoding."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
