"""The journal: durable events, read back as trials; what is damaged is named, never guessed."""

import json
import math

import pytest

from search import journal
from search.errors import RunDirectoryError
from search.journal import EventKind, trial_records
from search.records import FailureKind, TrialStatus
from search.run_directory import RunDirectory

CREATED = {
    **{"trial_id": "0000", "configuration": 0, "iteration": 0, "bracket": 2, "rung": 0},
    **{"parent": None, "values": {"flip": True}, "initial_epoch": 0, "target_epochs": 2},
}
EPOCH = {"trial_id": "0000", "epoch": 1, "metrics": {"val_loss": 0.5}, "seconds": 2.0}
ENDED = {
    **{"trial_id": "0000", "status": "completed", "score": 0.5, "epochs": 1, "parameters": 7},
    **{"seconds": 2.5, "failure": None, "notes": ["a note"]},
}


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


def write(run, *lines):
    """Write events (kind, fields) and raw lines."""
    with open(run.journal_file, "ab") as handle:
        for line in lines:
            if not isinstance(line, bytes):
                kind, fields = line
                line = json.dumps({"event": kind, "time": 0.0, **fields}).encode()
            handle.write(line + b"\n")


@pytest.mark.parametrize(
    "cut", ['{"event": "stage", "na', '{"event": "stage", "n": {}', "x" * 99_999]
)
def test_a_line_cut_by_a_kill_swallows_neither_itself_nor_the_next(run, cut):
    run.append(EventKind.STAGE, name="a", seconds=0)
    with open(run.journal_file, "a") as handle:
        handle.write(cut)
    assert [event["name"] for event in run.events()] == ["a"]
    run.append(EventKind.STAGE, name="b", seconds=0)
    assert [event["name"] for event in run.events()] == ["a", "b"]


def test_trials_are_read_back_as_they_were_with_the_later_of_two_epochs(run):
    first = {**EPOCH, "metrics": {"val_loss": 0.25}}
    write(
        run, ("trial_created", CREATED), ("epoch", first), ("epoch", EPOCH), ("trial_ended", ENDED)
    )
    (trial,) = run.trials()
    assert trial.status is TrialStatus.COMPLETED
    assert [epoch.metrics for epoch in trial.history] == [trial.metrics] == [{"val_loss": 0.5}]
    assert (trial.epochs, trial.parameters, trial.notes) == (1, 7, ("a note",))


def test_a_failure_and_a_metric_that_is_no_number_survive(run):
    failure = {"kind": "diverged", "message": "NaN", "traceback": ""}
    ended = {**ENDED, "status": "failed", "score": None, "failure": failure}
    epoch = {**EPOCH, "metrics": {"val_loss": None}}
    write(run, ("trial_created", CREATED), ("epoch", epoch), ("trial_ended", ended))
    (trial,) = run.trials()
    assert math.isnan(trial.metrics["val_loss"])
    assert trial.failure is not None
    assert trial.failure.kind is FailureKind.DIVERGED


DAMAGE = {
    "not JSON": (b'{"event": "stage", nonsense}', "line 2: damaged"),
    "not UTF-8": (b'{"event": "\xff"}', "line 2: damaged"),
    "a list": (b"[1, 2]", "line 2: holds no event"),
    "a number": (b"12", "line 2: holds no event"),
    "an empty line": (b"", "line 2: damaged"),
    "no kind": (b'{"time": 1}', "line 2: holds no event"),
    "a kind that is no text": (b'{"event": 3}', "line 2: holds no event"),
    "of a newer version": (b'{"event": "teleported"}', "'teleported' is not known to this version"),
    "a lost line": (("epoch", {**EPOCH, "trial_id": "0009"}), "line 2: no line before it creates"),
    "out of order": (("trial_ended", {"trial_id": "0001"}), "line 2: no line before it creates"),
    "twice": (("trial_created", CREATED), "line 2: trial 0000 is created a second time"),
    "a missing field": (("epoch", {"trial_id": "0000"}), "line 2: epoch is missing"),
    "text for a number": (("epoch", {**EPOCH, "epoch": "1"}), "epoch: must be a whole number"),
    "a wrong status": (("trial_ended", {**ENDED, "status": "won"}), "status: must be one of"),
    "metrics in a list": (("epoch", {**EPOCH, "metrics": [1]}), "metrics: must be an object"),
    "half a failure": (("trial_ended", {**ENDED, "failure": {}}), "failure: kind is missing"),
}


@pytest.mark.parametrize(("line", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_line_is_named_with_its_number_and_nothing_is_changed(run, line, message):
    write(run, ("trial_created", CREATED), line, ("stage", {"name": "data", "seconds": 1.0}))
    before = run.journal_file.read_bytes()
    with pytest.raises(RunDirectoryError) as raised:
        trial_records(journal.read(run.journal_file), where=str(run.journal_file))
    assert message in str(raised.value)
    assert str(run.journal_file) in str(raised.value)
    assert run.journal_file.read_bytes() == before
