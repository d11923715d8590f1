"""The notebook of results/examples, executed as it is but for its options, on the small demo."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "results" / "examples" / "kaggle.ipynb"
PARAMETERS = """
DATA = "demo"
OPTIONS = {
    "name": "tiny",
    "image_size": 32,
    "max_epochs": 1,
    "iterations": 1,
    "refit_epochs": 1,
    "refit_seeds": 1,
    "top": 1,
    "workers": 0,
    "fix": {"separable": True, "base_filters": 8},
    "cache_dir": "cache",
}
"""

INTERRUPT = """
import os, signal, time

try:
    os.kill(os.getpid(), signal.SIGINT)  # what the button of a notebook does
    time.sleep(30)
    heard = "nothing"
except KeyboardInterrupt:
    heard = "the interrupt"
heard
"""


def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_committed_without_outputs():
    cells = [cell for cell in notebook().cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
def test_it_runs_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    tiny = notebook()
    (options,) = [c for c in tiny.cells if "parameters" in c.metadata.get("tags", ())]
    options.source = PARAMETERS
    tiny.cells.append(nbformat.v4.new_code_cell(INTERRUPT))
    NotebookClient(
        tiny, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = {
        cell.source: {
            kind: data for out in cell.outputs for kind, data in out.get("data", {}).items()
        }
        for cell in tiny.cells
        if cell.cell_type == "code"
    }

    def output(part: str) -> dict[str, str]:
        return next(data for source, data in shown.items() if part in source)

    assert "baseline" in output("search.tune(")["text/html"]
    assert "learning_rate" in output("result.best")["text/plain"]
    assert "image/png" in output("result.plot")
    assert output("result.predict")["text/plain"].count("FilePrediction") == 3
    assert output("signal.SIGINT")["text/plain"] == "'the interrupt'"
    assert "array" in output("load_model")["text/plain"]
