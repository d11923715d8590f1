"""`python -m search.report` and the written reports."""

import html.parser
import json
import re
import shutil
import subprocess
import sys

import fake_runs as fake
import pytest

from search import report
from search.journal import RunDirectory, file_sha256
from search.records import SYNTHETIC_NOTICE
from search.reporting.content import picture
from search.reporting.documents import write_reports
from search.reporting.plots import draw_all
from search.reporting.stored import read_predictions, read_run
from search.reporting.trials import refit_histories


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A complete run, made once."""
    run = RunDirectory(tmp_path_factory.mktemp("results") / "complete")
    run.create()
    events = list(fake.FakeRun().events())
    run.journal_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    run.write_json("config.json", {"objective": "robust_loss", "tuner": "hyperband", "seed": 0})
    run.write_json("dataset.json", fake.dataset(synthetic=True))
    evaluation = fake.evaluation(synthetic=True)
    run.write_json("evaluation.json", evaluation)
    rows = ["path,patient,label,probability,split"]
    for i, (label, p) in enumerate(zip(*fake.predictions(1.2), strict=True)):
        rows.append(f"test/{i}.jpeg,{i},{label},{p},{'test' if i % 3 else 'val'}")
    (run.root / "predictions.csv").write_text("\n".join(rows) + "\n")
    for name in ("best_hyperparameters.json", "history.csv", "trials.csv", "model.keras"):
        (run.root / name).write_text("{}")
    stored = read_run(run)
    plots = draw_all(
        run.root,
        records=stored.records,
        refit_histories=refit_histories(stored.refit),
        predictions={"documented": fake.predictions(0.8), "winner": fake.predictions(1.2)},
        evaluation=evaluation,
        objective="robust_loss",
        synthetic=True,
    )
    write_reports(
        run.root,
        config=stored.config,
        dataset=stored.dataset,
        plan=stored.plan,
        records=stored.records,
        evaluation=evaluation,
        plots=plots,
        manifest_like={"device": "CPU", "stages": {"search": 300.0}},
    )
    run.write_manifest({"device": "CPU"})
    return run


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
    with complete.journal_file.open("a") as handle:
        handle.write('{"event": "epoch"}\n3\n')
    assert report.main([complete.root.as_posix()]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "damaged JSON" in out
    assert "1 events could not be read" in out
    assert "is better than" in out


def test_rebuilding_corrects_the_manifest_for_what_it_made_only(complete, capsys):
    (complete.root / "model.keras").write_text("tampered")
    before = complete.read_json("manifest.json")["files"]
    (complete.root / "report.html").unlink()
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 0
    after = complete.read_json("manifest.json")["files"]
    for name in ("report.html", "trials.csv", "plots/confusion.png"):
        assert after[name]["sha256"] == file_sha256(complete.root / name)
    assert after["model.keras"] == before["model.keras"]
    assert (complete.root / "trials.csv").read_text().startswith("trial_id,")
    assert (complete.root / "history.csv").read_text().startswith("role,")


def test_rebuilding_keeps_the_roc_of_a_control_whose_predictions_are_not_stored(complete):
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 0
    rows = picture(complete.root / "plots" / "roc.png").rows
    assert {row[0] for row in rows} == {"documented", "winner"}


def test_rebuilding_a_run_in_use_is_refused(complete, capsys):
    with complete.lock():
        assert report.main([complete.root.as_posix(), "--rebuild"]) == 2
    assert "in use by" in capsys.readouterr().err


def test_predictions_are_the_tests_alone(complete):
    found = read_predictions(complete.root / "predictions.csv")
    labels, probabilities = found["winner"]
    assert len(labels) == len(probabilities) == 331 - 111
    (complete.root / "predictions.csv").write_text("path,label\nx,maybe\n")
    assert report.main([complete.root.as_posix(), "--rebuild"]) == 2


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
    assert len(pictures) == 4
    assert all(src.startswith("data:image/png;base64,") for src in pictures)
    assert [tag for tag, _ in page.tags].count("details") == 5
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
