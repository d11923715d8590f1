"""`python -m search.report` and the written reports."""

import base64
import dataclasses
import html.parser
import re
import shutil
import subprocess
import sys

import fake_runs as fake
import pytest

from search import report
from search.records import SYNTHETIC_NOTICE
from search.reporting.content import data_rows, option_rows, picture
from search.reporting.documents import write_reports
from search.reporting.stored import read_run
from search.run_directory import RunDirectory, file_sha256


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def complete(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "complete")
    return RunDirectory(tmp_path / "complete")


class Page(html.parser.HTMLParser):
    """Collects tags and text, and checks that every tag is closed."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_a_complete_run_is_printed_again(complete, capsys):
    assert report.main([complete.root.as_posix()]) == 0
    out = capsys.readouterr().out
    for heading in ("Data", "Plan", "Trials", "Verdict"):
        assert re.search(rf"^{heading} ─", out, re.MULTILINE)
    assert "unfinished" not in out
    assert out.count(SYNTHETIC_NOTICE) == 3
    assert "is better than the documented configuration" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_a_run_is_found_by_its_name_under_results(complete, capsys, monkeypatch):
    (complete.root.parent / "results").mkdir()
    complete.root.rename(complete.root.parent / "results" / "mine")
    monkeypatch.chdir(complete.root.parent)
    assert report.main(["mine"]) == 0


def test_a_run_is_found_by_its_name_elsewhere(complete, capsys):
    place = complete.root.parent.as_posix()
    assert report.main([complete.name, "--results-dir", place]) == 0
    assert "Verdict" in capsys.readouterr().out


def test_how_often_the_test_was_opened_is_read_from_the_journal_of_older_runs(complete):
    (opened,) = [
        line for line in complete.journal_file.read_text().splitlines() if "test_sco" in line
    ]
    with open(complete.journal_file, "a") as handle:
        handle.write(f"{opened}\n" * 2)
    assert "test_openings" not in complete.read_json("evaluation.json")
    assert read_run(complete).evaluation["test_openings"] == 3


def test_an_unfinished_run_says_what_is_missing_and_shows_what_there_is(complete, capsys):
    for name in ("manifest.json", "evaluation.json", "model.keras"):
        (complete.root / name).unlink()
    lines = complete.journal_file.read_text().splitlines(keepends=True)
    complete.journal_file.write_text("".join(lines[:60]) + lines[60][:20])
    assert report.main([complete.root.as_posix(), "--html"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "is unfinished:" in out
    assert "of 22 trials ended" in out
    assert "evaluation.json (the verdict)" in out
    assert "--resume" in out
    assert "documented configuration" in out
    assert "the test set has not been scored" in (complete.root / "report.html").read_text()


def test_a_run_that_only_began_is_shown(tmp_path, capsys):
    run = RunDirectory(tmp_path / "young")
    run.create()
    run.write_json("config.json", {"objective": "val_auc"})
    assert report.main([run.root.as_posix(), "--rebuild"]) == 0
    assert "0 trials ended" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_no_run_is_one_line_and_exit_code_2(tmp_path, capsys, kind):
    place = tmp_path / "nothing"
    if kind == "empty":
        place.mkdir()
    assert report.main([place.as_posix()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert place.as_posix() in captured.err
    assert "name a run directory" in captured.err


def test_damaged_files_are_named_and_the_rest_is_shown(complete, capsys):
    (complete.root / "dataset.json").write_text("{")
    assert report.main([complete.root.as_posix()]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "damaged (" in out
    assert "dataset.json: changed since the run ended" in out
    assert "is better than" in out


def test_what_was_made_from_the_records_is_made_again_with_its_checksum(complete, capsys):
    before = complete.read_json("manifest.json")["files"]
    (complete.root / "trials.csv").write_text("better numbers")
    (complete.root / "report.html").unlink()
    assert report.main([complete.root.as_posix()]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "trials.csv: changed since the run ended" in out
    assert "--rebuild makes them again" in out
    assert "no longer there: report.html" in out
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 0
    after = complete.read_json("manifest.json")["files"]
    for name in ("report.html", "model_card.md", "trials.csv", "plots/confusion.png"):
        assert after[name]["sha256"] == file_sha256(complete.root / name)
    assert after["model.keras"] == before["model.keras"]
    assert (complete.root / "trials.csv").read_text().startswith("trial_id,")
    assert (complete.root / "history.csv").read_text().startswith("role,")


def test_rebuilding_forgets_plots_that_are_no_longer_of_the_run(complete, capsys):
    for name in ("seeds.png", "seeds.json"):
        (complete.root / "plots" / name).write_text("{}")
    complete.write_manifest(complete.read_json("manifest.json"))
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 0
    assert not (complete.root / "plots" / "seeds.png").exists()
    assert "plots/seeds.png" not in complete.read_json("manifest.json")["files"]
    assert "no longer there" not in capsys.readouterr().out
    assert 'id="seeds"' not in (complete.root / "report.html").read_text()


def test_rebuilding_keeps_the_roc_of_a_control_whose_predictions_are_not_stored(complete):
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 0
    rows = picture(complete.root / "plots" / "roc.png").rows
    assert {row[0] for row in rows} == {"documented", "winner"}


@pytest.mark.parametrize("option", ["--rebuild", "--share=shared.html"])
def test_nothing_is_made_from_tampered_records(complete, capsys, option, monkeypatch):
    monkeypatch.chdir(complete.root.parent)
    evaluation = complete.read_json("evaluation.json")
    evaluation["winner"]["parameters"] = 1
    complete.write_json("evaluation.json", evaluation)
    before = {path: path.read_bytes() for path in complete.root.rglob("*") if path.is_file()}
    assert report.main([complete.root.as_posix(), option]) == 2
    captured = capsys.readouterr()
    assert "evaluation.json: changed since the run ended" in captured.err
    assert len(captured.err.splitlines()) == 1
    after = {path: path.read_bytes() for path in complete.root.rglob("*") if path.is_file()}
    after.pop(complete.root / ".lock", None)
    assert after == before
    assert not (complete.root.parent / "shared.html").exists()


def test_a_light_copy_without_its_journal_loses_nothing(complete, capsys):
    complete.journal_file.unlink()
    (complete.root / "model.keras").unlink()
    before = (complete.root / "trials.csv").read_bytes()
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 2
    assert "journal.jsonl: no such file" in capsys.readouterr().err
    assert (complete.root / "trials.csv").read_bytes() == before
    assert report.main([complete.root.as_posix()]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "no longer there: journal.jsonl, model.keras" in out
    assert "is better than" in out


def test_changed_weights_of_a_retraining_are_named_and_absent_ones_are_not(complete, capsys):
    files = [complete.refit_dir / f"documented-{seed}-a" / "best.weights.h5" for seed in (0, 1)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("trained")
    complete.write_manifest({})
    files[0].write_text("changed")
    files[1].unlink()
    assert report.main([complete.root.as_posix()]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "refit/documented-0-a/best.weights.h5: changed since the run ended" in out
    assert "search.ablate trains such a network again" in out
    assert "no longer there" not in out
    files[0].write_text("trained")
    assert report.main([complete.root.as_posix()]) == 0


def test_a_tampered_record_is_named_and_shown_with_exit_code_2(complete, capsys):
    (complete.root / "model.keras").write_text("tampered")
    assert report.main([complete.root.as_posix()]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "model.keras: changed since the run ended, by the checksums in manifest.json" in out
    assert "is better than" in out


def test_an_ablation_asked_again_does_not_make_a_run_look_changed(complete, capsys):
    before = {"bytes": 2, "sha256": "of the answers that an earlier version listed"}
    manifest = complete.read_json("manifest.json")
    files = {**manifest["files"], "ablation/ablation.json": before}
    complete.write_json("manifest.json", {**manifest, "files": files})
    complete.write_json("ablation/ablation.json", {"answers": []})
    assert report.main([complete.root.as_posix()]) == 0
    assert "changed since" not in capsys.readouterr().out


def test_a_run_of_another_version_is_shown_with_a_warning(complete, capsys):
    manifest = complete.read_json("manifest.json")
    complete.write_json("manifest.json", {**manifest, "versions": {"xray-search": "0.0.1"}})
    assert report.main([complete.root.as_posix()]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "made by xray-search 0.0.1 and read by" in out


def test_a_manifest_cannot_lead_out_of_the_run(complete, capsys):
    manifest = complete.read_json("manifest.json")
    stranger = complete.root.parent / "stranger.txt"
    stranger.write_text("x")
    entry = {"bytes": 1, "sha256": file_sha256(stranger)}
    files = {**manifest["files"], "../stranger.txt": entry}
    complete.write_json("manifest.json", {**manifest, "files": files})
    assert report.main([complete.root.as_posix()]) == 2
    assert "../stranger.txt: changed" in " ".join(capsys.readouterr().out.split())


def test_a_shared_report_shows_no_radiograph_and_does_not_name_the_computer(complete, tmp_path):
    place = tmp_path / "shared.html"
    assert report.main([complete.root.as_posix(), "--share", place.as_posix()]) == 0
    shared, mine = place.read_text(), (complete.root / "report.html").read_text()
    film = base64.b64encode((complete.root / "plots/local/heatmaps.png").read_bytes()).decode()
    assert film in mine
    assert film not in shared
    assert 'class="film"' not in shared
    assert "this-computer" in mine
    assert "this-computer" not in shared
    assert "/root/.cache" not in shared
    for name in ("report.md", "model_card.md"):
        text = (complete.root / name).read_text()
        assert "heatmaps" not in text
        assert "this-computer" not in text


@pytest.mark.parametrize(
    ("root", "origin", "data", "said"),
    [
        ("/home/jane/x", "--data /home/jane/x", "/home/jane/x", "x (--data x)"),
        ("/home/Jane Doe/x", "--data ../Jane Doe/x", "../Jane Doe/x", "x (--data x)"),
        ("/root/.cache/demo/x", "--data demo", "demo", "x (--data demo)"),
        ("/k/1/x", "an earlier Kaggle download, /k/1", "auto", "x (an earlier Kaggle download, 1)"),
        ("/k/x", "Kaggle data set paul/chest", "kaggle", "x (Kaggle data set paul/chest)"),
    ],
)
def test_what_is_passed_on_names_no_folders(complete, root, origin, data, said):
    content = report.content_of(read_run(complete))
    source = {"root": root, "origin": origin}
    content = dataclasses.replace(
        content,
        dataset={**content.dataset, "source": source},
        config={**content.config, "data": data, "address": "head-node:6379"},
    )
    assert dict(data_rows(content))["source"] == f"{root} ({origin})"
    shared = content.passed_on()
    assert dict(data_rows(shared))["source"] == said
    options = dict(option_rows(shared))
    assert options["--data"] == data.rpartition("/")[2]
    assert "--address" not in options


def test_rebuilding_a_run_in_use_is_refused(complete, capsys):
    with complete.lock():
        assert report.main([complete.root.as_posix(), "--rebuild"]) == 2
    assert "in use by" in capsys.readouterr().err


def test_damaged_predictions_are_one_line_and_exit_code_2(complete, capsys):
    (complete.root / "predictions.csv").write_text("path,label\nx,maybe\n")
    (complete.root / "manifest.json").unlink()
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 2
    assert "predictions.csv: damaged" in capsys.readouterr().err


def test_the_page_is_one_file_with_everything_escaped(made):
    text = (made.root / "report.html").read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert 'alert("x")' not in text
    assert "[bold]b[/bold] <script>" in "".join(page.words)
    for tag, attributes in page.tags:
        assert not attributes.get("src", "data:").startswith("http")
        assert "href" not in attributes or attributes["href"].startswith("#")
        assert tag != "link"
    pictures = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(pictures) == len(list((made.root / "plots").rglob("*.png")))
    assert all(src.startswith("data:image/png;base64,") for src in pictures)
    # The numbers of every picture, the hyperparameters, the options, the ablation's method and
    # CLAIM's items.
    assert [tag for tag, _ in page.tags].count("details") == len(pictures) + 4
    names = [a["id"] for _, a in page.tags if "id" in a]
    assert len(names) == len(set(names))
    assert {a["href"][1:] for tag, a in page.tags if tag == "a"} <= set(names)
    assert SYNTHETIC_NOTICE in "".join(page.words)
    assert "prefers-color-scheme: dark" in text


def test_the_page_has_every_trial_and_the_verdict_first(made):
    text = (made.root / "report.html").read_text()
    for record in read_run(made).records:
        assert f"<td>{record.trial_id}</td>" in text
    assert text.index("Verdict</h2>") < text.index("Data</h2>") < text.index("Trials</h2>")
    assert text.index("is better than") < text.index("Data</h2>")


def test_real_data_has_no_stamp(tmp_path):
    files = write_reports(
        tmp_path,
        config={"objective": "val_auc"},
        dataset=fake.dataset(),
        plan={},
        records=[],
        evaluation={},
        plots=[],
        manifest_like={},
    )
    assert [f.name for f in files] == ["report.md", "report.html"]
    for path in files:
        assert SYNTHETIC_NOTICE not in path.read_text()
    assert "Not made yet" in files[0].read_text()


def test_the_markdown_has_escaped_tables_and_pictures(made):
    text = (made.root / "report.md").read_text()
    assert f"> **{SYNTHETIC_NOTICE}**" in text
    assert "![ROC on the test set](plots/roc.png)" in text
    assert "local" not in text
    assert "(/search/reporting/CLAIM.md)" in text
    assert "<script>" not in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_the_command_starts_without_keras_or_matplotlib():
    code = (
        "import sys, search.report as r; r.parser();"
        "print([m for m in ('keras', 'tensorflow', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
