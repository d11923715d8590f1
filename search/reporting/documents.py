"""Writes what a run leaves behind for people: tables, charts, reports and the model card."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from search.data import report as data_report
from search.records import Manifest, TrialRecord
from search.reporting import contents as gathered
from search.reporting import format, sentences, tables
from search.reporting.contents import RunContents
from search.reporting.plots import course, failures, hyperparameters, style
from search.run_directory import RunDirectory, write_text

if TYPE_CHECKING:
    from search.scoring.gradcam import Heatmap  # loads Keras

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
TRIAL_COLUMNS = (
    "trial_id", "configuration", "iteration", "bracket", "rung", "parent", "status",
    "initial_epoch", "epochs", "seconds", "score", "parameters", "failure", "notes",
)  # fmt: skip
"""The first columns of `trials.csv`; metrics and `hp_…` columns follow."""


def write(
    directory: RunDirectory, heatmaps: Sequence[Heatmap] = (), about: Manifest | None = None
) -> list[Path]:
    """Write everything that is made from a run's records.

    Args:
        directory: A run, finished or not.
        heatmaps: What the winner looked at, for the local report; () keeps those of before.
        about: What the manifest is going to say, which is written last.

    Returns:
        The files: `trials.csv`, `history.csv`, `plots/`, the reports, of a scored run the card.

    Raises:
        RunDirectoryError: A record is damaged.
        StorageError: The disk is full or read-only.
    """
    root = directory.root
    contents = gathered.read(directory)
    if about is not None:
        contents = dataclasses.replace(contents, manifest=about, missing=())
    if heatmaps:
        failures.keep_pictures(root, heatmaps)
    texts = {"trials.csv": trials_csv(contents.trials)}
    if rows := gathered.history_rows(contents.retrainings):
        texts["history.csv"] = as_csv(rows)
    texts |= {"report.html": page(contents), "report.md": markdown(contents)}
    if contents.comparison is not None:
        texts["model_card.md"] = card(contents)
    return [*draw(contents), *(write_text(root / name, text) for name, text in texts.items())]


def draw(contents: RunContents) -> list[Path]:
    """Draw every chart into `plots/`; those of an earlier pass that are no more are removed."""
    folder = contents.directory.plots_dir
    charts = dict(contents.charts)
    if contents.parallel is not None:
        charts["parallel"] = hyperparameters.parallel_chart(contents.parallel)
    for name, chart in charts.items():
        style.draw(chart, folder / f"{name}.png", synthetic=bool(contents.notice))
    for path in folder.glob("*.png"):
        if path.stem not in charts:
            path.unlink()
    return [folder / f"{name}.png" for name in charts]


def page(contents: RunContents, *, local: bool = True) -> str:
    """Return the report as one HTML document that opens offline.

    One that is not local has no images of the data and no names of folders.
    """
    data = {
        "charts": {name: style.page_data(chart) for name, chart in contents.charts.items()},
        "parallel": contents.parallel,
        "curves": course.curves(contents.state.trials, contents.config.objective),
    }
    files = ("plotly-basic.min.js", "page.js", "page.css")
    *scripts, styles = (Markup((TEMPLATES / name).read_text("utf-8")) for name in files)
    table = trials_csv(contents.trials)
    shown = table if local else contents.without_folders(table)
    return _template("page.html.j2", contents, html=True, local=local).render(
        scripts=scripts,
        styles=styles,
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        trials_csv=base64.b64encode(shown.encode()).decode(),
        trial_columns=list(dict.fromkeys(name for r in contents.trials for name in r.values)),
        pictures=failures.read_pictures(contents.directory) if local else (),
        claim=claim_rows(),
    )


def markdown(contents: RunContents) -> str:
    """Return the short report as Markdown; like the card, to be passed on."""
    return _template("report.md.j2", contents).render()


def card(contents: RunContents) -> str:
    """Return the model card of a run that was scored, in Hugging Face's form."""
    return _template("model_card.md.j2", contents).render()


def _template(
    name: str, contents: RunContents, *, html: bool = False, local: bool = False
) -> jinja2.Template:
    """Return a template that knows the run; what is passed on loses the names of folders."""

    def shown(value: Any) -> Any:
        if value is None:
            return ""
        if local or not isinstance(value, str) or isinstance(value, Markup):
            return value
        return contents.without_folders(value)

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=html,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
    )
    made.filters |= {
        "md": escaped,
        "metric": format.metric,
        "sha256": digest,
        "items": items,
        "pairs": lambda text: [item.partition(": ")[::2] for item in items(text)],
    }
    about = {
        "run": contents,
        "comparison": contents.comparison,
        "dataset": contents.dataset,
        "charts": contents.charts,
        "baseline": format.baseline_values(contents.trials),
        "local": local,
        "f": format,
        "say": sentences,
        "tables": tables,
        "rows_of": gathered,
        "data_report": data_report,
    }
    return made.get_template(name, globals=about)


def escaped(text: object) -> str:
    """Escape what Markdown and HTML would take for markup, in a cell of a table too."""
    plain = format.one_line(text, 500)
    for sign in "\\`*_[]<>|#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def digest(text: str) -> Markup:
    """Return the SHA-256 of a script or style as a content security policy has it."""
    checksum = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Markup(f"sha256-{checksum}")  # which may hold what looks like a folder


def items(text: str) -> list[str]:
    """Return the items of a Markdown list, each on one line; of Markup as Markup."""
    joined = type(text)(" ").join
    return [joined(item.split()) for item in ("\n" + text).split("\n- ")[1:]]


def claim_rows() -> list[list[str]]:
    """Return the rows of the table in `CLAIM.md`, cells as text."""
    lines = (HERE / "CLAIM.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines
            if line.startswith("|")]  # fmt: skip
    return [row for row in rows if not row[0].startswith("-")]


def trials_csv(records: Sequence[TrialRecord]) -> str:
    """Write one row per trial, in the order given, with every metric and hyperparameter.

    A metric of the last epoch has its own name as the column, a hyperparameter `hp_<name>`;
    inactive ones are empty.
    """
    rows = [
        {
            **{name: getattr(record, name) for name in TRIAL_COLUMNS},
            "status": record.status.value,
            "seconds": round(record.seconds, 3),
            "failure": format.reason(record),
            "notes": "; ".join(record.notes),
            **record.metrics,
            **{f"hp_{name}": value for name, value in record.values.items()},
        }
        for record in records
    ]
    return as_csv(rows, first=TRIAL_COLUMNS)


def as_csv(rows: Iterable[dict[str, Any]], *, first: Sequence[str] = ()) -> str:
    """Write rows under all their columns; what is missing or not finite is left empty."""
    rows = list(rows)
    columns = dict.fromkeys([*first, *(name for row in rows for name in row)])
    text = io.StringIO()
    ordered = sorted(columns, key=lambda name: name.startswith("hp_"))
    writer = csv.DictWriter(text, ordered, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        written = {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)}
        writer.writerow(written)
    return text.getvalue()
