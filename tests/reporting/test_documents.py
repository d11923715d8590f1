"""Reports, tables and the model card, as files of a run."""

import csv
import dataclasses
import io
import json
import re

import pytest

from search import report
from search.records import Failure, FailureKind, TrialStatus
from search.reporting import documents
from search.reporting.contents import read
from search.reporting.documents import card, claim_rows, escaped, markdown, page, trials_csv

NASTY = 'a [b]c[/b] <script>alert("x")</script> | & 影 /home/somebody/secret/file'


def with_failure(made):
    """The run with a failed trial whose message holds markup and a folder."""
    failure = Failure(kind=FailureKind.ERROR, message=NASTY)
    record = dataclasses.replace(
        made.trials[0], trial_id="0099-001", configuration=99, parent=None,
        status=TrialStatus.FAILED, score=None, failure=failure,
    )  # fmt: skip
    made.state.trials[record.trial_id] = record
    return dataclasses.replace(made)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_everything_is_written_once_and_says_the_same(run):
    files = {path.name for path in documents.write(run)}
    assert {"trials.csv", "history.csv", "report.html", "report.md", "model_card.md"} <= files
    html, text = ((run.root / name).read_text() for name in ("report.html", "report.md"))
    made = read(run)
    for one in documents.sentences.headlines(made.comparison):
        number = documents.format.metric(one.winner)
        assert number in html
        assert number in text


def test_the_page_fetches_nothing_and_runs_only_its_own_scripts(made):
    html = page(made)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src-attr")[0]
    assert "unsafe-eval" not in policy
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)="(?!data:|#)', own)
    assert len(html) < 8_000_000


def test_texts_from_outside_are_shown_and_not_run(made):
    html = page(with_failure(made))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert r"\<script\>" in escaped(NASTY)
    assert r"\|" in escaped(NASTY)


def test_what_is_passed_on_names_no_folder_and_shows_no_image(made):
    assert "/home/somebody/secret" in page(with_failure(made))
    shared = page(made, local=False)
    for place in ("/home/somebody", "/home/me", str(made.directory.root), made.manifest.host):
        assert place not in shared
    assert "<img" not in re.sub(r"<script>.*?</script>", "", shared, flags=re.DOTALL)
    # Checksums hold slashes, and are no folders: without them the browser drops the style.
    checksums = [re.findall(r"'sha256-[^']+", text) for text in (shared, page(made))]
    assert checksums[0] == checksums[1]
    assert any("/" in one for one in checksums[0])
    assert "/home" not in markdown(made)
    assert "/home" not in card(made)


def test_an_unfinished_run_says_what_is_missing(run):
    for name in ("evaluation.json", "exports.json", "manifest.json"):
        (run.root / name).unlink()
    documents.write(run)
    assert "unfinished" in (run.root / "report.html").read_text()
    assert "evaluation.json" in (run.root / "report.md").read_text()
    assert not (run.root / "model_card.md").exists()


def test_trials_csv_has_a_column_for_each_hyperparameter(made):
    found = rows(trials_csv(made.trials))
    assert len(found) == len(made.trials)
    names = {name for record in made.trials for name in record.values}
    assert {f"hp_{name}" for name in names} <= found[0].keys()
    assert float(found[0]["score"]) == made.trials[0].score


def test_history_names_the_winner(run):
    documents.write(run)
    found = rows((run.root / "history.csv").read_text())
    assert {row["role"] for row in found} >= {"winner", "baseline"}
    keys = [(row["role"], row["seed"], row["epoch"]) for row in found]
    assert len(keys) == len(set(keys))


def test_the_card_of_the_demo_keeps_its_metrics_from_leaderboards(made):
    text = card(made)
    assert "synthetic-demo" in text
    assert "model-index" not in text
    real = dataclasses.replace(
        made,
        dataset=dataclasses.replace(
            made.dataset, source=dataclasses.replace(made.dataset.source, kind="kaggle")
        ),
    )
    line = next(x for x in card(real).splitlines() if x.startswith("model-index"))
    (model,) = json.loads(line.removeprefix("model-index: "))
    metrics = {one["type"]: one["value"] for one in model["results"][0]["metrics"]}
    auc = made.comparison.winner.exported.ranking["auc"].value
    assert metrics["roc_auc"] == pytest.approx(auc, abs=1e-4)


def test_a_card_can_be_made_before_the_manifest(made):
    assert "## Environment" in card(made)
    assert "## Environment" not in card(dataclasses.replace(made, manifest=None))


def test_the_checklist_has_44_items():
    head, *items = claim_rows()
    assert head[0] == "item"
    assert [row[0] for row in items] == [str(n) for n in range(1, 45)]


def test_the_command_prints_and_names_the_page(run, capsys):
    documents.write(run)
    assert report.main([str(run.root), "--html"]) == 0
    text = capsys.readouterr().out
    assert "report.html" in text
    assert "accuracy" in text


def test_the_command_rebuilds_and_corrects_the_checksums(run):
    documents.write(run)
    (run.root / "report.html").write_text("gone")
    assert report.main([str(run.root), "--rebuild"]) == 0
    entry = read(run).manifest.files["report.html"]
    assert entry.bytes == (run.root / "report.html").stat().st_size


def test_the_command_shares(run, tmp_path):
    assert report.main([str(run.root), "--share", str(tmp_path / "out.html")]) == 0
    assert "<title>recorded" in (tmp_path / "out.html").read_text()


@pytest.mark.parametrize(
    "name", ["config.json", "dataset.json", "evaluation.json", "journal.jsonl"]
)
@pytest.mark.parametrize("content", [b"[]\n", b"{3}\n", b"\xff\xfe\n"])
def test_a_damaged_record_is_one_error(run, capsys, name, content):
    (run.root / name).write_bytes(content)
    assert report.main([str(run.root)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert name in said
    assert said.count("\n") == 1


def test_no_such_run_is_an_error(tmp_path, capsys):
    assert report.main([str(tmp_path / "none")]) == 2
    assert "no such run" in capsys.readouterr().err
