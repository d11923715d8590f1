"""Records the run that the tests of reports are made with: `python -m tests.reporting.record`.

A tiny real search on the demo, two minutes; only its records are kept, no image and no model.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = Path(__file__).parent / "run"
RECORDS = (
    "config.json",
    "dataset.json",
    "journal.jsonl",
    "evaluation.json",
    "predictions.csv",
    "predictions_baseline.csv",
    "exports.json",
    "manifest.json",
)


def record() -> None:
    """Run the search and replace the records."""
    with tempfile.TemporaryDirectory() as folder:
        options = "--tuner hyperband --data demo --image-size 32 --max-epochs 3 --min-epochs 1"
        options += " --iterations 1 --top 2 --refit-epochs 2 --refit-seeds 2 --no-live"
        more = f"--name recorded --results-dir {folder}"
        command = [sys.executable, "-m", "search.run", *options.split(), *more.split()]
        subprocess.run(command, check=True)
        shutil.rmtree(RUN, ignore_errors=True)
        RUN.mkdir()
        for name in RECORDS:
            text = (Path(folder) / "recorded" / name).read_text()
            root = json.loads((Path(folder) / "recorded" / "dataset.json").read_text())["source"]
            # Folders of the machine that recorded it.
            text = text.replace(str(Path(root["root"]).parents[2]), "/home/me/cache")
            text = text.replace(f'"host": "{socket.gethostname()}"', '"host": "my-computer"')
            (RUN / name).write_text(text.replace(folder, "results"))


if __name__ == "__main__":
    record()
