"""Hyperparameter search for medical-image CNNs, from a terminal or from Python.

    import search

    result = search.tune("chest_xray", tuner="hyperband", preset="quick")
    result.best            # hyperparameter values
    result.predict(["a.png"])

Options have the command line's names, see `python -m search.run --help`. Importing this module is
light: Keras is loaded when a search starts or a model is used.
"""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.records import Comparison
    from search.scoring.formats import LoadedModel
    from search.scoring.predict import FilePrediction

__all__ = ["Result", "load", "tune"]


def tune(
    data: str | Path = "auto",
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Result:
    """Search, retrain, score and export: what `python -m search.run` does.

    Args:
        data: A folder, a `.zip` file, "kaggle", "demo" or "auto".
        resume: A run to go on with, by its name or folder; its options hold where none is given.
        overwrite: Replace the run of that name.
        quiet: Show only warnings and the verdict.
        **options: The command line's options, with underscores: `max_epochs=9`, `fix={"flip": 0}`.

    Returns:
        The finished run. A run that was interrupted is gone on with by `resume`.

    Raises:
        SearchError: An option is wrong, or the images, the folder or the search; with the remedy.
    """
    from search import cli, run
    from search.errors import ConfigurationError
    from search.reporting.console import Console

    given = cli.options_from_python(options)
    if resume is not None and overwrite:
        raise ConfigurationError("resume and overwrite: give one of them")
    if resume is None or data != "auto":
        given["data"] = str(data)
    console = Console(quiet=quiet)
    try:
        with cli.interruptible(console) as should_stop:
            name = None if resume is None else str(resume)
            config, source = run.prepare(given, console, resume=name)
            from search import workflow  # imports Keras, which `prepare` loads quietly

            directory = workflow.run(
                config,
                source,
                console,
                should_stop=should_stop,
                resume=resume is not None,
                overwrite=overwrite,
            )
    finally:
        console.close()
    return Result(directory.root)


def load(run: str | Path, *, results_dir: str | Path = "results") -> Result:
    """Return a finished run, by its folder or its name below `results_dir`.

    Raises:
        RunDirectoryError: There is no such run, or it is not finished.
    """
    from search.errors import RunDirectoryError
    from search.run_directory import locate

    directory = locate(str(run), Path(results_dir))
    if not directory.complete:
        raise RunDirectoryError(
            f"{directory.root}: is not finished; go on with search.tune(resume={str(run)!r})"
        )
    return Result(directory.root)


class Result:
    """A finished run. In a notebook it shows its verdict.

    Attributes:
        path: The run directory; `report.html` in it is the whole report.
    """

    def __init__(self, path: Path) -> None:
        """Refer to a run directory; read what is asked for when it is."""
        self.path = path

    @cached_property
    def trials(self) -> Any:
        """The trials: a pandas DataFrame where pandas is installed, else a list of rows."""
        try:
            import pandas
        except ImportError:
            with open(self.path / "trials.csv", encoding="utf-8", newline="") as handle:
                return list(csv.DictReader(handle))
        return pandas.read_csv(self.path / "trials.csv", dtype={"trial_id": str, "parent": str})

    @cached_property
    def evaluation(self) -> Comparison:
        """The winner beside the baseline, the content of `evaluation.json`."""
        from search.records import Comparison
        from search.run_directory import RunDirectory

        return RunDirectory(self.path).read(Comparison, "evaluation.json")

    @property
    def best(self) -> dict[str, Any]:
        """The winner's hyperparameter values."""
        return self.evaluation.winner.values

    @property
    def model(self) -> Any:
        """The winner as a `keras.Model`: pixels from 0 to 255 in, probabilities out."""
        return self._loaded.model

    @cached_property
    def _loaded(self) -> LoadedModel:
        from search import backend
        from search.scoring.predict import find_model

        backend.load()
        # Only now: it imports Keras, which `backend` loads quietly.
        from search.scoring.loading import load_model

        return load_model(find_model(self.path))

    def predict(self, images: Sequence[str | Path]) -> list[FilePrediction]:
        """Return probability and class for each image; folders and globs give several.

        Args:
            images: Files, folders or globs.
        """
        from search.data.listing import find_images
        from search.scoring.predict import predict_files

        return list(predict_files(self._loaded, find_images([str(image) for image in images])))

    def plot(self, name: str) -> Any:
        """Return one of the run's plots, as an image in a notebook and as its path elsewhere.

        Args:
            name: Of a file in `plots/`, e.g. "roc".

        Raises:
            ConfigurationError: There is no such plot; names those there are.
        """
        from search.config import unknown

        path = self.path / "plots" / f"{name}.png"
        if not path.is_file():
            raise unknown("plot", name, sorted(one.stem for one in path.parent.glob("*.png")))
        try:
            from IPython import get_ipython
            from IPython.display import Image
        except ImportError:
            return path
        return Image(filename=str(path)) if get_ipython() is not None else path

    def _verdict(self) -> str:
        from search.reporting.sentences import verdict

        return verdict(self.evaluation)

    def __repr__(self) -> str:
        return f"{self.path.as_posix()}: {self._verdict()}"

    def _repr_html_(self) -> str:
        from search.records import SYNTHETIC_NOTICE
        from search.reporting.sentences import headlines

        def number(value: float) -> str:
            return f"{value:.3f}" if math.isfinite(value) else "–"

        rows = [
            (
                one.name,
                number(one.baseline),
                number(one.winner),
                f"{one.difference.value:+.3f}",
                f"{number(one.difference.low)} to {number(one.difference.high)}",
            )
            for one in headlines(self.evaluation)
        ]
        notice = SYNTHETIC_NOTICE if self.evaluation.synthetic else ""
        return (
            f"<p><b>{html.escape(self._verdict())}</b></p><p>{html.escape(notice)}</p>"
            f"<table>{_row(('', 'baseline', 'winner', 'difference', '95% interval'), 'th')}"
            f"{''.join(_row(row) for row in rows)}</table>"
        )


def _row(cells: Iterable[str], tag: str = "td") -> str:
    inside = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inside}</tr>"
