"""The whole job on a tiny demo, and every way of starting it wrongly."""

import contextlib
import csv
import inspect
import json
import os
import shlex
import shutil
from pathlib import Path

import keras
import pytest

import search
from search.ablate import main as ablate
from search.config import RunConfig
from search.errors import ConfigurationError, StopRequestedError
from search.evaluate import main as evaluate
from search.predict import main as predict
from search.records import SYNTHETIC_NOTICE
from search.report import main as report
from search.reporting.console import Console
from search.run import main, prepare
from search.run_directory import RunDirectory, file_sha256
from search.scoring.loading import load_model
from search.tuning.trial import COSTS

CONTRACT = {
    *("config.json", "dataset.json", "journal.jsonl", "trials.csv", "best_hyperparameters.json"),
    *("history.csv", "evaluation.json", "predictions.csv", "model.keras", "report.html"),
    *("report.md", "manifest.json"),
}

LENGTHS = (
    "--max-epochs 3 --min-epochs 1 --iterations 1 --refit-epochs 2 --refit-seeds 1 --workers 0"
)


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        *("--data", "demo", "--no-live", "--name", "tiny", "--image-size", "32"),
        *("--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache")),
        *LENGTHS.split(),
        *("--search", "crop_min_area,learning_rate,batch_size", *more),
    ]


def events(root: Path, *kinds: str) -> list[dict]:
    return [each for each in RunDirectory(root).events() if each["event"] in kinds]


def table(path: Path) -> list[dict[str, str]]:
    with open(path) as handle:
        return list(csv.DictReader(handle))


def flat(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which the tiny run has finished."""
    made = tmp_path_factory.mktemp("job")
    assert main(arguments(made)) == 0
    return made


@pytest.fixture
def root(folder) -> Path:
    return folder / "results" / "tiny"


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """A copy of the finished run, to be changed."""
    shutil.copytree(folder / "results", tmp_path / "results")
    return tmp_path / "results" / "tiny"


@pytest.fixture
def resume(folder, copied):
    """Return a function that goes on with the copy."""
    place = ("--resume", "--results-dir", str(copied.parent))
    return lambda *options: main(arguments(folder, *options, *place))


def test_a_run_writes_every_file_of_the_contract(root):
    written = {path.name for path in root.iterdir()}
    assert written >= CONTRACT
    assert len(list((root / "plots").glob("*.png"))) >= 4
    manifest = json.loads((root / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        assert file_sha256(root / name) == facts["sha256"], name
    assert set(manifest["files"]) >= CONTRACT - {"manifest.json"}
    assert {"versions", "device", "seed", "seconds"} <= set(manifest)
    assert {"data", "plan", "search", "retrain", "score"} <= set(manifest["seconds"])


def test_what_trials_cost_reaches_the_manifest(root):
    costs = json.loads((root / "manifest.json").read_text())["costs"]
    told = [event["costs"] for event in events(root, "trial_ended")]
    assert set(costs) == {*COSTS, "oracle"}
    assert all(seconds > 0 for seconds in costs.values())
    for part in COSTS:
        assert costs[part] == pytest.approx(sum(each[part] for each in told), abs=1e-3)


def test_training_is_few_calls_below_the_command(folder, tmp_path, monkeypatch):
    calls: list[str] = []

    def fit(*_, **__):
        calls.extend(frame.function for frame in inspect.stack())
        raise StopRequestedError

    monkeypatch.setattr(keras.Model, "fit", fit)
    assert main(arguments(folder, "--results-dir", str(tmp_path), "--budget", "5epochs")) == 130
    # Besides, `python -m search.run` has a frame for the module and one for `cli.execute`.
    assert len(calls[: calls.index("main") + 1]) <= 8, calls


def test_trial_0_is_the_documented_configuration(root):
    rows = table(root / "trials.csv")
    assert len(rows) == 6
    first = next(row for row in rows if row["configuration"] == "0")
    assert (first["hp_dense_units_1"], first["hp_crop_min_area"]) == ("512", "1.0")


def test_the_verdict_scores_winner_and_baseline_alike(root):
    evaluation = json.loads((root / "evaluation.json").read_text())
    for role in ("winner", "baseline"):
        (test,) = evaluation[role]["test"]
        assert {"accuracy", "precision", "recall", "specificity", "f1"} <= set(test["at_half"])
        assert {"auc", "loss"} <= set(test["ranking"])
        for estimate in (test["at_half"]["accuracy"], test["ranking"]["auc"]):
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert "perturbed validation images" in test["threshold"]["chosen_on"]
    assert evaluation["test_evaluations"] in (1, 2)


def test_the_test_is_opened_once_and_after_all_choices(root):
    choices = events(root, "trial_ended", "refit_ended", "test_scored")
    kinds = [event["event"] for event in choices]
    assert kinds.index("test_scored") == len(kinds) - 1


def test_demo_numbers_are_stamped_everywhere(root, capsys):
    for name in ("report.md", "report.html", "model_card.md"):
        assert SYNTHETIC_NOTICE in (root / name).read_text(), name
    for name in ("evaluation.json", "manifest.json"):
        assert json.loads((root / name).read_text())["synthetic"] is True, name
    capsys.readouterr()
    assert report([str(root)]) == 0
    said = capsys.readouterr().out
    assert SYNTHETIC_NOTICE in said
    assert "accuracy" in said


def test_predictions_hold_every_validation_and_test_image(root):
    rows = table(root / "predictions.csv")
    counts = json.loads((root / "dataset.json").read_text())["counts"]
    for split in ("val", "test"):
        mine = [row for row in rows if row["split"] == split]
        assert len(mine) == sum(counts[split].values()) > 0
        assert all(0 <= float(row["probability"]) <= 1 for row in mine)


def test_the_exported_model_predicts_and_is_evaluated(folder, root, capsys):
    data = json.loads((root / "dataset.json").read_text())["source"]["root"]
    image = next(Path(data, "test", "PNEUMONIA").glob("*.jpeg"))
    capsys.readouterr()
    assert predict([str(root), str(image), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    rows = {row["path"]: float(row["probability"]) for row in table(root / "predictions.csv")}
    expected = rows[image.relative_to(data).as_posix()]
    assert entry["probability"] == pytest.approx(expected, abs=1e-3)
    scores = folder / "scores.json"
    assert evaluate([str(root), "--data", data, "--json", str(scores)]) == 0
    found = json.loads(scores.read_text())
    assert "auc" in found["ranking"]
    assert (found["role"], found["seed"]) == ("winner", 0)


def test_a_name_that_is_taken_is_an_error_that_says_what_to_do(folder, capsys):
    assert main(arguments(folder)) == 2
    said = capsys.readouterr().out
    assert "--resume" in said
    assert "--overwrite" in said


@pytest.mark.parametrize("options", [(), ("--resume", "--seed", "9"), ("--overwrite",)])
def test_the_command_given_twice_says_who_has_the_run(folder, root, capsys, options):
    with RunDirectory(root).lock():
        assert main(arguments(folder, *options)) == 2
    said = flat(capsys)
    assert f"in use by process {os.getpid()}" in said
    assert "--overwrite" not in said


def test_resuming_a_finished_run_trains_nothing_and_changes_no_result(folder, root):
    before = json.loads((root / "evaluation.json").read_text())
    epochs = events(root, "epoch")
    assert main(arguments(folder, "--resume")) == 0
    assert events(root, "epoch") == epochs
    # The same networks are evaluated on the same images once more, which is counted.
    after = json.loads((root / "evaluation.json").read_text())
    assert after.pop("times_evaluated") == before.pop("times_evaluated") + 1
    assert after == before


def test_resuming_with_options_that_change_the_search_is_refused_with_a_diff(folder, capsys):
    assert main(arguments(folder, "--resume", "--seed", "9")) == 2
    assert "seed: 8 → 9" in flat(capsys)


@pytest.mark.parametrize(
    ("file", "old", "new", "options", "said"),
    [
        ("journal.jsonl", '"batch_size"', '"batch_sizes"', ("--iterations", "2"), "cannot be"),
        ("journal.jsonl", "", "", ("--budget", "5epochs"), "budget: '' → '5epochs'"),
        ("journal.jsonl", '"backend": "', '"backend": "not-', (), "KERAS_BACKEND=not-"),
        ("dataset.json", '"fingerprint": "', '"fingerprint": "0', (), "images changed"),
    ],
    ids=["another space", "another budget", "another backend", "other images"],
)
def test_a_resume_that_does_not_fit_leaves_the_run_as_it_was(
    copied, resume, capsys, file, old, new, options, said
):
    text = (copied / file).read_text()
    assert old in text
    (copied / file).write_text(text.replace(old, new) if old else text)
    before = {path: path.read_bytes() for path in copied.glob("*.json*")}
    assert resume(*options) == 2
    assert said in flat(capsys)
    assert {path: path.read_bytes() for path in copied.glob("*.json*")} == before


def test_a_documented_network_over_the_limit_is_planned_with_and_told(folder, capsys):
    options = ("--plan", "--name", "planned", "--max-parameters", "100000")
    assert main(arguments(folder, *options)) == 0
    assert "more than --max-parameters 100,000: as trial 0 it fails" in flat(capsys)


def test_a_run_goes_on_where_its_images_have_moved_to(folder, copied, resume, tmp_path):
    (demo,) = (folder / "cache").glob("demo/*-seed8/chest_xray")
    moved = shutil.copytree(demo, tmp_path / "films")
    assert resume("--preset", "demo", "--data", str(moved)) == 0
    assert str(moved) in (copied / "config.json").read_text()


def test_the_plan_is_printed_and_nothing_written(folder, capsys):
    assert main(arguments(folder, "--plan", "--name", "planned")) == 0
    assert "5 configurations" in capsys.readouterr().out
    assert not (folder / "results" / "planned").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "/no/such/folder"), "/no/such/folder"),
        (("--image-size", "7"), "--image-size 7"),
        (("--fix", "flop=1"), "flop"),
        (("--enqueue", "/no/such.json"), "/no/such.json"),
        (("--views", "crop,magic"), "magic"),
        (("--view-strength", "loudness=0.5"), "loudness"),
        (("--view-strength", "shift=3"), "shift"),
        (("--view-strength", "crop_area=0.5"), "crop_area"),
        (("--resume", "--overwrite"), "give one of them"),
        (("--resume", "--name", "never"), "never: no such run"),
    ],
)
def test_a_wrong_option_is_one_clear_message_and_exit_code_2(folder, capsys, options, said):
    name = () if "--name" in options else ("--name", "wrong")
    assert main(arguments(folder, *name, *options)) == 2
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
    assert "Traceback" not in printed.out + printed.err
    # The name stays free for the corrected command.
    left = folder / "results" / "wrong"
    assert not left.exists() or [entry.name for entry in left.iterdir()] == [".lock"]


def test_a_folder_with_strangers_is_not_written_to(folder, tmp_path, capsys):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.doc").write_text("precious")
    options = arguments(folder, "--results-dir", str(tmp_path), "--overwrite")
    assert main(options) == 2
    assert (tmp_path / "tiny" / "thesis.doc").read_text() == "precious"
    assert "holds files but no run" in flat(capsys)


@pytest.mark.parametrize("by_folder", [True, False])
def test_a_run_that_was_killed_before_it_wrote_anything_begins(tmp_path, by_folder):
    (tmp_path / "dead").mkdir()
    name = str(tmp_path / "dead") if by_folder else "dead"
    given = {"data": "demo", "results_dir": str(tmp_path)}
    config, _ = prepare(given, Console(quiet=True), resume=name)
    assert (config.name, config.results_dir, config.preset) == ("dead", str(tmp_path), "demo")


def test_a_begun_run_keeps_its_options_when_it_is_given_the_demo(tmp_path):
    begun = RunDirectory(tmp_path / "begun")
    begun.create()
    begun.write_json("config.json", RunConfig(name="begun", data="films"))
    given = {"data": "demo", "results_dir": str(tmp_path)}
    config, _ = prepare(given, Console(quiet=True), resume="begun")
    assert (config.preset, config.max_epochs) == ("", RunConfig().max_epochs)


@pytest.mark.slow
def test_resumed_with_options_of_the_retraining_only_that_is_done_again(copied, resume):
    before = events(copied, "epoch")
    options = "--refit-seeds 2 --ensemble --refit-patience 1 --refit-on train+val"
    assert resume(*options.split(), "--refit-image-size", "48") == 0
    assert events(copied, "epoch") == before
    evaluation = json.loads((copied / "evaluation.json").read_text())
    winner, baseline = evaluation["winner"], evaluation["baseline"]
    assert evaluation["retraining"]["ensemble"] == 2
    assert len(winner["test"]) == len(baseline["test"]) == 2
    assert evaluation["test_evaluations"] == 5
    (ensemble,) = winner["ensemble_test"]
    assert "without validation images" in ensemble["threshold"]["chosen_on"]
    loaded = load_model(copied / "model.keras")
    assert loaded.metadata.image_size == 48
    assert loaded.model.count_params() == winner["parameters"]
    rows = [row for row in table(copied / "predictions.csv") if row["split"] == "test"]
    assert len(rows) == ensemble["count"]


@pytest.mark.slow
def test_an_ablation_of_the_run_is_written_and_not_done_twice(copied, capsys):
    options = "--repeats 2 --from baseline --factors flip --no-live --workers 0"
    assert ablate([str(copied), *options.split()]) == 0
    assert "Do horizontal flips help?" in capsys.readouterr().out
    written = (copied / "ablation" / "ablation.json").read_text()
    ablation = json.loads(written)
    (effect,) = ablation["effects"]
    assert (effect["change"]["factor"], effect["change"]["after"]) == ("flip", "on")
    assert set(effect["scores"]) == {"0", "1"}
    assert ablation["test_evaluations"] == 4
    assert ablation["synthetic"] is True
    told = RunDirectory(copied / "ablation").events()
    # The run's own network is used again; every epoch is journaled once.
    (own,) = (
        event["folder"] for event in events(copied / "ablation", "refit_started")
        if (event["role"], event["seed"]) == ("baseline", 0)
    )  # fmt: skip
    assert own in [event["folder"] for event in events(copied, "refit_ended")]
    assert ablate([str(copied), *options.split()]) == 0
    assert (copied / "ablation" / "ablation.json").read_text() == written
    assert RunDirectory(copied / "ablation").events() == told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nowhere",), "no such run"),
        (("{run}", "--repeats", "0"), "--repeats 0"),
        (("{run}", "--factors", "magic"), "magic"),
        (("{run}", "--workers", "-1"), "--workers -1"),
    ],
)
def test_a_wrong_ablation_is_one_clear_message_and_exit_code_2(root, capsys, options, said):
    assert ablate([text.format(run=root) for text in options]) == 2
    printed = capsys.readouterr().out
    assert said in printed
    assert "Traceback" not in printed


def test_an_unfinished_run_is_not_ablated(copied, capsys):
    (copied / "manifest.json").unlink()
    assert ablate([str(copied)]) == 2
    assert "--resume" in capsys.readouterr().out


def test_a_finished_run_is_loaded_in_python(folder, root):
    result = search.load("tiny", results_dir=folder / "results")
    assert result.path == root
    assert len(result.trials) == len(table(root / "trials.csv"))
    assert result.best == result.evaluation.winner.values
    assert result._repr_html_().count("<tr>") == 5
    assert "synthetic" in result._repr_html_()
    assert str(root) in repr(result)
    assert result.plot("roc") == root / "plots" / "roc.png"
    image = next((folder / "cache").rglob("*.jpeg"))
    (answer,) = result.predict([image])
    assert 0 < answer.probability < 1
    with pytest.raises(ConfigurationError, match="did you mean roc"):
        result.plot("rok")


def test_the_hint_of_a_stopped_run_can_be_pasted_and_goes_on(folder, tmp_path, monkeypatch, capsys):
    results = tmp_path / "my results"
    monkeypatch.setattr("search.cli.interruptible", lambda _: contextlib.nullcontext(lambda: True))
    assert main(arguments(folder, "--results-dir", str(results))) == 130
    hint = shlex.split(flat(capsys).partition("Go on with: ")[2])
    assert hint[:4] == ["python", "-m", "search.run", "--resume"]
    assert main([*hint[3:], "--no-live"]) == 130
    assert len(events(results / "tiny", "epoch")) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_epoch": 3}, "max_epoch: there is no such option; did you mean max_epochs"),
        ({"tuner": "hyperbnd"}, "did you mean hyperband"),
        ({"image_size": 7}, "--image-size 7: must be between"),
        ({"workers": "many"}, "must be a whole number"),
    ],
)
def test_a_wrong_option_in_python_is_one_error(options, said):
    with pytest.raises(ConfigurationError, match=said):
        search.tune("demo", quiet=True, **options)
