"""`--tensorboard`: the event files, read back as TensorBoard reads them."""

import json
import subprocess
import sys
import types

import pytest

from search.journal import EventKind
from search.reporting.tensorboard import TensorBoardLog

tensorboard = pytest.importorskip("tensorboard")
# TensorBoard's own way to do without TensorFlow, which takes many seconds to import.
sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))

SPACE = [
    {"name": "head", "values": ["flatten", "global_average"]},
    {"name": "dense_layers", "low": 1, "high": 3},
    {"name": "learning_rate", "low": 1e-4, "high": 3e-3},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, events):
    place = tmp_path_factory.mktemp("run") / "tensorboard"
    log = TensorBoardLog(place, space=SPACE, objective="robust_loss")
    for event in events:
        log.listen(event)
    return place


def accumulated(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(place.as_posix()).Reload()


def test_a_trials_scalars_are_its_epochs(folder, events):
    child = next(e for e in events if e["event"] == EventKind.TRIAL_CREATED and e["parent"])
    mine = [e for e in events if e["event"] == "epoch" and e["trial_id"] == child["trial_id"]]
    found = accumulated(folder / "trials" / child["trial_id"]).Scalars("robust_loss")
    assert [s.step for s in found] == [e["epoch"] for e in mine]
    assert [s.value for s in found] == pytest.approx([e["metrics"]["robust_loss"] for e in mine])


def test_every_trial_and_retraining_is_a_run_of_the_dashboard(folder, events):
    created = {e["trial_id"] for e in events if e["event"] == EventKind.TRIAL_CREATED}
    assert {path.name for path in (folder / "trials").iterdir()} == created
    retrained = {
        f"{e['role']}, seed {e['seed']}" for e in events if e["event"] == EventKind.REFIT_STARTED
    }
    assert retrained <= {path.name for path in (folder / "retraining").iterdir()}
    assert "_hparams_/experiment" in accumulated(folder).summary_metadata


def test_a_resumed_run_has_no_gap_and_nothing_twice(folder, events, tmp_path):
    stop = len(events) // 2
    log = TensorBoardLog(tmp_path / "log", space=SPACE, objective="robust_loss")
    for event in events[:stop]:
        log.listen(event)
    # A resumed process writes what was journaled before, too.
    log = TensorBoardLog(tmp_path / "log", space=SPACE, objective="robust_loss")
    for event in events:
        log.listen(event)
    for path in sorted((folder / "trials").iterdir()):
        again = accumulated(tmp_path / "log" / "trials" / path.name).Scalars("loss")
        assert [s.step for s in again] == [s.step for s in accumulated(path).Scalars("loss")]


def test_a_log_that_cannot_be_written_warns_once_and_ends_nothing(tmp_path, events):
    (tmp_path / "file").write_text("")
    said = []
    log = TensorBoardLog(tmp_path / "file" / "in", space=SPACE, objective="loss", warn=said.append)
    for event in events:
        log.listen(event)
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_no_tensorflow_is_loaded_for_it(tmp_path, events):
    code = (
        "import json, sys; from pathlib import Path;"
        "from search.reporting.tensorboard import TensorBoardLog as Log;"
        f"log = Log(Path({(tmp_path / 'log').as_posix()!r}), space={SPACE!r}, objective='loss');"
        "[log.listen(event) for event in json.load(sys.stdin)];"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(events),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
