"""`python -m search.predict RUN_OR_MODEL IMAGE…`: a trained model's answer for image files.

Files are decoded by the function that decoded the training images, so that the answer here is the
one that was scored. Rows are written as they come, and a bad file costs its own row only. Keras is
imported once the arguments are known to make sense.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from search import cli
from search.data.dicom import bits_used
from search.data.listing import find_images
from search.errors import ConfigurationError
from search.scoring.formats import LoadedModel
from search.scoring.loading import load_model
from search.scoring.predict import (
    NOT_FOR_DIAGNOSIS,
    FilePrediction,
    find_model,
    predict_files,
    row_writer,
    unchecked_note,
)

PIPE_CLOSED = 1
SOME_FAILED = 2
SHOWN_BAD = 10

COLUMNS = ("file", "probability", "verdict", "error", "threshold", "notice")
"""Keys of a row, which can be understood without the others."""


@cli.plain
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 for a user error or when a file could not be predicted; 130 after Ctrl-C; 1 when
        the reader of the rows has enough of them, as `head` does.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _predict(arguments)
    except BrokenPipeError:
        # Python would try to write the rest once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m search.predict",
        description=f"Predict image files with a trained model. {NOT_FOR_DIAGNOSIS}",
        epilog="Exit code 2 if any file could not be predicted; the others still are.",
    )
    cli.add_model(parser)
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="files, folders or globs; DICOM with pydicom"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array, not a table")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write rows to FILE.csv or FILE.json as they come"
    )
    cli.add_results_dir(parser)
    return parser


def _predict(arguments: argparse.Namespace) -> int:
    out = arguments.out
    if out and out.suffix.lower() not in (".csv", ".json"):
        raise ConfigurationError(f"--out {out}: the name must end in .csv or .json")
    model_file = find_model(
        arguments.model, results_dir=arguments.results_dir, form=arguments.format
    )
    files = find_images(arguments.images)
    loaded = load_model(model_file)
    stderr = Console(stderr=True)
    if note := unchecked_note(model_file):
        stderr.print(Text(note))
    kept: list[FilePrediction] = []
    bad: list[FilePrediction] = []
    verdicts: Counter[str] = Counter()
    brightest = 0
    with ExitStack() as stack:
        targets = [path for path, wanted in ((out, out), (None, arguments.json)) if wanted]
        writers = [stack.enter_context(row_writer(path, COLUMNS)) for path in targets]
        answers = track(
            predict_files(loaded, files),
            description="Predicting",
            total=len(files),
            console=stderr,
            transient=True,
            # Rows and a moving bar on one terminal would write over each other.
            disable=not stderr.is_terminal or (arguments.json and sys.stdout.isatty()),
        )
        for answer in answers:
            brightest = max(brightest, answer.brightest)
            if answer.error:
                bad.append(answer)
            else:
                verdicts[str(answer.verdict)] += 1
            for write in writers:
                write(_as_row(loaded, answer))
            if not writers:
                kept.append(answer)
    if brightest and not loaded.metadata.depth:
        stderr.print(
            Text(
                "note: 16-bit pixels whose depth the file does not tell: taken as "
                f"{bits_used(brightest)} bits"
            )
        )
    console = Console(stderr=arguments.json)
    if not writers:
        _print_table(console, loaded, kept)
    if out:
        counts = [f"{count} {name}" for name, count in sorted(verdicts.items())]
        counts += [f"{len(bad)} without an answer"] if bad else []
        console.print(Text(f"{out}: {', '.join(counts)}, at {loaded.metadata.threshold.value:.3f}"))
        for answer in bad[:SHOWN_BAD]:
            console.print(Text(f"  {_printable(answer.file)}: {answer.error}", style="red"))
        if len(bad) > SHOWN_BAD:
            console.print(Text(f"  … {len(bad) - SHOWN_BAD} more, in {out}"))
    console.print(_footer(loaded), highlight=False, markup=False)
    return SOME_FAILED if bad else 0


def _as_row(loaded: LoadedModel, answer: FilePrediction) -> dict[str, Any]:
    row = {
        **asdict(answer),
        "file": _printable(answer.file),
        "threshold": loaded.metadata.threshold.value,
        "notice": loaded.metadata.notice or None,
    }
    return {column: row[column] for column in COLUMNS}


def _print_table(console: Console, loaded: LoadedModel, answers: Sequence[FilePrediction]) -> None:
    table = Table(title=Text(str(loaded.path)), title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column(f"P({loaded.metadata.classes[1]})", justify="right")
    table.add_column(f"verdict at {loaded.metadata.threshold.value:.3f}", overflow="fold")
    for answer in answers:
        file = Text(_printable(answer.file))
        if answer.probability is None:
            table.add_row(file, "–", Text(f"error: {answer.error}", style="red"))
        else:
            table.add_row(file, f"{answer.probability:.4f}", Text(str(answer.verdict)))
    console.print(table)


def _footer(loaded: LoadedModel) -> str:
    about = loaded.metadata
    rule = f"Threshold by the rule {about.threshold.rule} on {about.threshold.chosen_on}."
    notice = f"NOTICE: trained on {about.notice}\n" if about.notice else ""
    return f"{notice}{rule} {NOT_FOR_DIAGNOSIS}"


def _printable(name: str) -> str:
    """Replace bytes of a file's name that are not text in any encoding."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(cli.execute(main))
