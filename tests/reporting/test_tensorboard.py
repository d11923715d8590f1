"""`--tensorboard`: the event files, read back as TensorBoard reads them."""

import json
import sys
import types
from pathlib import Path

import fake_runs as fake
import pytest
from search.changes import differences

from search.config import RunConfig
from search.errors import ConfigurationError
from search.journal import EventKind
from search.records import TrialStatus, to_json
from search.reporting.tensorboard import TensorBoardLog, require_tensorboard
from search.run import explicit_options, parser

tensorboard = pytest.importorskip("tensorboard")
# TensorBoard's own way to do without TensorFlow, which takes many seconds to import.
sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))

SPACE = [
    {"name": "head", "values": ["flatten", "global_average"]},
    {"name": "flip", "values": [True, False]},
    {"name": "batch_size", "values": [16, 32, 64]},
    {"name": "dense_layers", "low": 1, "high": 3},
    {"name": "learning_rate", "low": 1e-4, "high": 3e-3},
]


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A search with two failing trials and its retraining, as written for TensorBoard."""
    folder = tmp_path_factory.mktemp("run") / "tensorboard"
    events = list(fake.FakeRun().events())
    log = TensorBoardLog(folder, space=SPACE, objective="robust_loss")
    log.replay(events)
    return folder, events


def accumulated(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(folder.as_posix()).Reload()


def dashboard(folder: Path):
    """Return what the HParams dashboard is sent: the experiment and its session groups."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
    from werkzeug.test import Client

    multiplexer = EventMultiplexer().AddRunsFromDirectory(folder.as_posix()).Reload()
    provider = MultiplexerDataProvider(multiplexer, folder.as_posix())
    plugin = HParamsPlugin(TBContext(data_provider=provider, multiplexer=multiplexer))
    served = plugin.get_plugin_apps()
    experiment = Client(served["/experiment"]).post("/", json={"experimentName": ""}).json
    asked = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE"],
        "colParams": [{"metric": info["name"]} for info in experiment["metricInfos"]],
        "startIndex": 0,
        "sliceSize": 100,
    }
    found = Client(served["/session_groups"]).post("/", json=asked).json
    return experiment, {group["name"]: group for group in found["sessionGroups"]}


def test_a_trials_scalars_are_its_epochs(played):
    folder, events = played
    trial = next(e for e in events if e["event"] == EventKind.RUNG_CLOSED)["promoted"][0]
    later = next(
        e["trial_id"]
        for e in events
        if e["event"] == EventKind.TRIAL_CREATED and e["parent"] == trial
    )
    epochs = [e for e in events if e["event"] == EventKind.EPOCH and e["trial_id"] == later]
    found = accumulated(folder / "trials" / later).Scalars("robust_loss")
    assert [s.step for s in found] == [e["epoch"] for e in epochs] == [2, 3]
    assert [s.value for s in found] == pytest.approx([e["metrics"]["robust_loss"] for e in epochs])
    assert [s.wall_time for s in found] == pytest.approx([e["time"] for e in epochs])


def test_the_dashboard_has_a_row_a_trial_with_its_values_and_score(played):
    folder, events = played
    experiment, rows = dashboard(folder)
    ranges = {info["name"]: info for info in experiment["hparamInfos"]}
    assert ranges.keys() == {item["name"] for item in SPACE}
    assert ranges["batch_size"]["domainDiscrete"] == [16, 32, 64]
    assert ranges["learning_rate"]["domainInterval"] == {"minValue": 1e-4, "maxValue": 3e-3}
    tags = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert {"score", "robust_loss", "test/auc"} <= tags
    created = {e["trial_id"]: e for e in events if e["event"] == EventKind.TRIAL_CREATED}
    ended = {e["trial_id"]: e for e in events if e["event"] == EventKind.TRIAL_ENDED}
    retrained = {f"retraining/{role}, seed 0" for role in ("documented", "winner")}
    assert rows.keys() == {f"trials/{trial_id}" for trial_id in created} | retrained
    for trial_id, event in created.items():
        row = rows[f"trials/{trial_id}"]
        for name in ("head", "flip", "learning_rate", "batch_size"):
            assert row["hparams"][name] == event["values"][name]
        failed = ended[trial_id]["status"] == TrialStatus.FAILED
        assert row["sessions"][0]["status"] == f"STATUS_{'FAILURE' if failed else 'SUCCESS'}"
        shown = row.get("metricValues", [])
        scores = [value["value"] for value in shown if value["name"]["tag"] == "score"]
        assert scores == pytest.approx([] if failed else [ended[trial_id]["score"]])


def test_the_retraining_ends_with_the_test(played):
    found = accumulated(played[0] / "retraining" / "winner, seed 0")
    assert [s.value for s in found.Scalars("test/auc")] == pytest.approx([0.972])
    assert len(found.Scalars("stress_auc")) == 6


def test_an_ensemble_is_named_as_one(tmp_path):
    scoring = {"role": "winner", "seed": None, "accuracy": 0.9, "auc": 0.95}
    event = {"event": EventKind.TEST_SCORED, "time": 1.0, "scorings": [scoring]}
    TensorBoardLog(tmp_path, space=SPACE, objective="robust_loss").listen(event)
    found = accumulated(tmp_path / "retraining" / "winner, ensemble")
    assert [s.value for s in found.Scalars("test/auc")] == pytest.approx([0.95])


def test_a_resumed_run_has_no_gap_and_nothing_twice(played, tmp_path):
    _, events = played
    folder = tmp_path / "tensorboard"
    for stop in (40, len(events) - 4):
        # A process that goes on announces a retraining again, and tells only its new epochs.
        began = [e for e in events[:stop] if e["event"] == EventKind.REFIT_STARTED]
        log = TensorBoardLog(folder, space=SPACE, objective="robust_loss")
        log.replay([*events[:stop], *began[-1:]])
        for event in events[stop:]:
            log.listen(event)
    names = sorted(p.relative_to(folder) for p in folder.rglob("*tfevents*"))
    assert names == sorted(p.relative_to(played[0]) for p in played[0].rglob("*tfevents*"))
    assert len(accumulated(folder / "retraining" / "winner, seed 0").Scalars("loss")) == 6


def test_a_log_that_cannot_be_written_warns_once_and_ends_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    log = TensorBoardLog(tmp_path / "file" / "in", space=SPACE, objective="loss", warn=said.append)
    for event in fake.FakeRun().events():
        log.listen(event)
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_without_the_package_the_option_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install .*tensorboard"):
        require_tensorboard()


def test_the_option_is_read_and_may_be_added_to_a_run_that_goes_on():
    given = explicit_options(parser().parse_args(["--tensorboard", "--name", "mine"]))
    config = RunConfig(**given)
    assert config.tensorboard
    assert differences(to_json(RunConfig(name="mine")), to_json(config)) == []


def test_no_tensorflow_is_loaded_for_it(tmp_path):
    import subprocess

    events = json.dumps(list(fake.FakeRun(max_epochs=3).events()))
    code = (
        "import json, sys; from pathlib import Path;"
        "from search.reporting.tensorboard import TensorBoardLog as Log;"
        f"log = Log(Path({(tmp_path / 'log').as_posix()!r}), space={SPACE!r}, objective='loss');"
        "log.replay(json.load(sys.stdin));"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=events, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    assert list((tmp_path / "log" / "trials").iterdir())
