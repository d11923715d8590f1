"""`--tracker`: what a run sends, read back from a real store of MLflow and from W&B's own files."""

import json
import threading
import time

import pytest

from search.config import RunConfig
from search.errors import ConfigurationError
from search.journal import EventKind
from search.reporting import tracking
from search.reporting.format import training
from search.reporting.tracking import Tracker, require_tracker
from search.run import main

WAKE = {"event": EventKind.STAGE}


def follow(run, tracker="mlflow", warn=pytest.fail):
    """Follow a run as one process of it does, from its first event to its end."""
    one = Tracker(RunConfig(tracker=tracker), run, warn)
    one.listen(WAKE)
    one.close()


def in_two_processes(run, tracker):
    """Follow the first half of a run, interrupted, then all of it and once more."""
    lines = run.journal_file.read_bytes().splitlines(keepends=True)
    manifest = (run.root / "manifest.json").read_bytes()
    (run.root / "manifest.json").unlink()
    run.journal_file.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:9])
    follow(run, tracker)
    time.sleep(1.1)  # W&B names its folders by the second: two in one would be the same
    run.journal_file.write_bytes(b"".join(lines))
    (run.root / "manifest.json").write_bytes(manifest)
    (run.root / "report.html").write_text("shows images")
    (run.root / "report.md").write_text("shows none")
    follow(run, tracker)
    follow(run, tracker)


def epochs(run):
    """Return the epochs of every run that a tracker should have, in the journal's words."""
    found = {}
    for event in run.events():
        name = f"trial {event.get('trial_id')}"
        if "role" in event:
            name = training(event["role"], event["seed"])
        if event["event"] in (EventKind.TRIAL_CREATED, EventKind.REFIT_STARTED):
            found[name] = []
        elif event["event"] in (EventKind.EPOCH, EventKind.REFIT_EPOCH):
            found[name].append(event)
    return found


@pytest.mark.slow
def test_mlflow_reads_back_every_epoch_once_and_the_files(run, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    in_two_processes(run, "mlflow")

    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("xray-search").experiment_id
    runs = {found.info.run_name: found for found in client.search_runs([experiment])}
    assert len(client.search_runs([experiment])) == len(runs)
    search = runs.pop("recorded")
    wanted = epochs(run)
    assert set(runs) == set(wanted)
    for name, found in runs.items():
        history = client.get_metric_history(found.info.run_id, "val_loss")
        # W&B would drop a second value of a step; MLflow keeps all that it is sent.
        assert [(one.step, one.value) for one in history] == [
            (event["epoch"], event["metrics"]["val_loss"]) for event in wanted[name]
        ]
        assert float(found.data.params["learning_rate"]) > 0
        assert found.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert found.info.status == "FINISHED"
    assert search.info.status == "FINISHED"
    assert search.data.params["tuner"] == "hyperband"
    assert not {"data", "cache_dir"} & set(search.data.params)
    evaluation = run.read_json("evaluation.json")
    assert search.data.metrics["test/auc winner"] == pytest.approx(
        evaluation["winner"]["test"][0]["ranking"]["auc"]["value"]
    )
    sent = {file.path for file in client.list_artifacts(search.info.run_id)}
    assert sent == {"evaluation.json", "report.md"}


@pytest.mark.slow
def test_wandb_offline_has_a_folder_for_every_run(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    in_two_processes(run, "wandb")
    state = json.loads((run.logs_dir / "wandb.json").read_text())["runs"]
    wanted = epochs(run)
    assert set(state) == {"", *wanted}
    for name, events in wanted.items():
        files = list(tmp_path.glob(f"wandb/offline-run-*-{state[name]}/*.wandb"))
        logged = b"".join(file.read_bytes() for file in files)
        # Metrics are stored as JSON texts; the last digits are the float's own.
        for event in events:
            assert logged.count(repr(event["seconds"]).encode()) >= 1
        assert b"/home/me" not in logged


class Noted:
    """A service that notes what it is told, or is away."""

    told: list = []  # noqa: RUF012 (of the whole class, emptied before each test)

    def __init__(self, group):
        pass

    def begin(self, name, values, *, above, known):
        self.told.append(("begin", name, known))
        return name or "search"

    def log(self, run, metrics, *, step, time):
        self.told.append(("log", run, step))

    def send(self, run, root, files):
        self.told.append(("send", run, len(files)))

    def end(self, run, *, ok):
        self.told.append(("end", run, ok))


class Away(Noted):
    def begin(self, name, values, *, above, known):
        raise ConnectionError("nobody answers\nat example.org")


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(Noted, "told", [])
    monkeypatch.setitem(tracking.SERVICES, "mlflow", Noted)
    return Noted.told


def test_a_resumed_run_sends_nothing_twice(run, told):
    in_two_processes(run, "mlflow")
    logged = [one for one in told if one[0] == "log" and one[1].startswith("trial")]
    trials = [event for event in run.events() if event["event"] == EventKind.TRIAL_CREATED]
    spans = [range(event["initial_epoch"] + 1, event["target_epochs"] + 1) for event in trials]
    # Every epoch, and the score at the end.
    assert len(logged) == sum(map(len, spans)) + len(trials)
    begun = [name for kind, name, known in told if kind == "begin" and not known]
    assert len(begun) == len(set(begun))
    assert told[-1] == ("end", "recorded", True)


def test_a_tracker_that_is_away_warns_once_and_ends_nothing(run, told, monkeypatch):
    monkeypatch.setitem(tracking.SERVICES, "mlflow", Away)
    said = []
    follow(run, warn=said.append)
    assert len(said) == 1
    assert "--tracker mlflow: nobody answers at example.org; the run goes on" in said[0]
    # What it missed is sent by the next process.
    monkeypatch.setitem(tracking.SERVICES, "mlflow", Noted)
    follow(run)
    assert ("send", "recorded", 1) in told


def test_a_slow_tracker_holds_up_no_epoch(run, told, monkeypatch):
    answered = threading.Event()

    class Slow(Noted):
        def begin(self, name, values, *, above, known):
            answered.wait(30)
            return super().begin(name, values, above=above, known=known)

    monkeypatch.setitem(tracking.SERVICES, "mlflow", Slow)
    tracker = Tracker(RunConfig(tracker="mlflow"), run, pytest.fail)
    for _ in run.events():
        tracker.listen(WAKE)
    assert not told
    answered.set()
    tracker.close()
    assert told[-1] == ("end", "recorded", True)


def test_an_unknown_tracker_and_one_not_installed_are_refused(monkeypatch, capsys):
    assert main(["--tracker", "mlfow", "--data", "demo"]) == 2
    assert "did you mean mlflow?" in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'xray-search\[wandb\]'"):
        require_tracker("wandb")
