"""`model_card.md`, the method, the limitations and CLAIM's table: what they say, of which run."""

import dataclasses
import html
import json
import re
from pathlib import Path

import fake_runs as fake
import pytest
from search.reporting.card import front_matter, metrics, render_card
from search.reporting.content import export_rows, gather
from search.reporting.html import render_html
from search.reporting.markdown import render_markdown
from search.reporting.method import method_rows
from search.reporting.purpose import limitations, provenance

from search.config import RunConfig
from search.records import to_json
from search.reporting import claim


def content(synthetic=False, **changes):
    made = gather(
        Path("results/mine"),
        config=to_json(RunConfig(name="mine")),
        dataset=fake.dataset(synthetic=synthetic),
        plan=fake.FakeRun().plan,
        records=[fake.trial(), fake.failed("0001")],
        evaluation=fake.evaluation(synthetic=synthetic, seeds=3),
        plots=[],
        manifest_like={"versions": {"keras": "3.15"}, "host": "secret"},
    )
    return dataclasses.replace(made, **changes)


def fields(text):
    """Read the front matter as the YAML it is: names with JSON values."""
    block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1]
    return {
        name: json.loads(value)
        for name, value in (line.split(": ", 1) for line in block.splitlines())
    }


def test_the_card_says_what_it_is_not_for_and_gives_every_metric_with_its_interval():
    text = render_card(content())
    for heading in ("Intended use", "Out of scope", "Training data", "Limitations", "Evaluation"):
        assert re.search(rf"^##+ {heading}", text, re.MULTILINE)
    assert "not for diagnosis" in text
    assert "one to five years" in text
    assert "one hospital" in text
    assert "| AUC | 0.810 (0.780–0.840) |" in text
    assert "secret" not in text
    assert "](/search/reporting/CLAIM.md)" in text


def test_an_export_that_failed_is_not_offered():
    exports = (
        {"format": "keras", "path": "model.keras", "status": "written"},
        {"format": "onnx", "path": "model.onnx", "status": "failed", "reason": "no such operation"},
    )
    text = render_card(content(exports=exports))
    assert "- exports: model.keras\n" in text
    assert "model.onnx" not in text


def test_a_table_of_exports_names_the_file_that_is_kept_though_it_failed():
    failed = {"status": "failed", "reason": "differs"}
    exports = (
        {"format": "keras", "path": "model.keras", "bytes": 9, **failed},
        {"format": "onnx", "path": "model.onnx", "bytes": 0, **failed},
    )
    rows = export_rows(content(exports=exports))
    assert [(row[1], row[-1]) for row in rows] == [("model.keras", "differs"), ("–", "differs")]


def test_its_front_matter_is_yaml_that_the_hub_reads():
    yaml = pytest.importorskip("yaml")
    text = render_card(content())
    found = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])
    assert found == fields(text)


def test_its_metadata_holds_the_exported_seeds_numbers():
    found = fields(render_card(content()))
    assert found["library_name"] == "keras"
    assert "not-for-diagnosis" in found["tags"]
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test"
    by_type = {item["type"]: item for item in result["metrics"]}
    # Seed 2 is exported; see `fake_runs.scored`.
    assert by_type["accuracy"]["value"] == pytest.approx(0.904)
    assert "at threshold 0.312 (95% interval 0.874–0.934)" in by_type["accuracy"]["name"]
    assert by_type["roc_auc"]["value"] == pytest.approx(0.95)
    assert metrics(content())


def test_a_demo_has_no_metrics_for_leaderboards():
    made = content(synthetic=True)
    assert "model-index" not in fields(front_matter(made) + "\n")
    assert "synthetic-demo" in fields(front_matter(made) + "\n")["tags"]
    text = render_card(made)
    assert text.count("say nothing about X-rays") == 2
    assert "Guangzhou" not in text


def test_a_folder_is_not_taken_for_the_data_set_it_may_not_be():
    assert provenance(content())[0].startswith("If the folder holds")
    dataset = fake.dataset()
    dataset["source"]["kind"] = "kaggle"
    assert not provenance(content(dataset=dataset))[0].startswith("If")


def test_limitations_follow_the_run():
    usual = " ".join(limitations(content()))
    assert "One seed" not in usual
    assert "No external test" in usual
    assert "1 of 2 trials failed" in usual
    alone = content(evaluation=fake.evaluation(seeds=1))
    assert "One seed" in " ".join(limitations(alone))
    shared = content(dataset={**fake.dataset(), "split": "notebook"})
    assert "Validation shares patients" in " ".join(limitations(shared))
    assert "nothing was scored" in limitations(content(evaluation={}))[0]
    untested = fake.evaluation()
    for role in ("winner", "documented"):
        untested[role] |= {"validation": untested[role]["test"], "test": []}
    assert "no test set" in limitations(content(evaluation=untested))[0]


def test_the_method_names_the_settings_of_the_run():
    rows = dict(method_rows(content()))
    assert "180 × 180" in rows["preprocessing"]
    assert "drawn by patient" in rows["partitions"]
    assert "3 seeds" in rows["retraining"]
    assert "no ensemble" in rows["retraining"]
    config = {**content().config, "split": "notebook", "ema": 0.99, "ensemble": True}
    other = dict(method_rows(content(config=config)))
    assert "patients are on both sides" in other["partitions"]
    assert "decay 0.99" in other["retraining"]
    assert "an ensemble" in other["retraining"]
    assert rows["test"].startswith("opened after every choice was made; it")
    twice = {**fake.evaluation(), "test_openings": 2, "test_scorings": 6}
    told = dict(method_rows(content(evaluation=twice)))["test"]
    assert told.startswith("opened 2 times, after every choice was made, by 6 trained networks")
    assert method_rows(content(config={})) == []


def test_options_that_the_control_never_gets_are_said_to_be_of_the_winner_only():
    done = {"schedule": "cosine", "patience": 3, "ema": 0.99, "trained_on": "train"}
    made = content(evaluation={**fake.evaluation(seeds=3), "retraining": done})
    own = (
        "a cosine learning rate, a stop after 3 epochs without a better one, an exponential moving "
        "average of the weights (decay 0.99)"
    )
    for text in everywhere(made):
        assert f"of the winner only: {own} (so that the comparison mixes the recipe" in text
        assert f"The winner alone was retrained with {own}, so that the comparison mixes" in text
    for text in everywhere(content()):
        assert "of the winner only" not in text
        assert "winner alone was retrained" not in text
    # A schedule that the documented configuration has too is no difference.
    assert (
        "winner only" not in dict(method_rows(content(config=scheduled("constant"))))["retraining"]
    )
    assert "winner only" in dict(method_rows(content(config=scheduled("cosine"))))["retraining"]


def scheduled(name):
    return {**content().config, "refit_schedule": name}


def calibrated(note=""):
    """The content of `evaluation.json` of a run with `--calibrate temperature`."""
    before = {"loss": 0.31, "expected_calibration_error": 0.084, "brier": 0.05}
    after = before if note else {"loss": 0.27, "expected_calibration_error": 0.021, "brier": 0.04}
    fitted = {"images": 67, "val": {"before": before, "after": after}}
    return {
        **fake.evaluation(),
        "calibration": {
            "method": "temperature",
            "winner": {**fitted, "temperature": 1.0 if note else 1.62, "note": note},
            "documented": {**fitted, "temperature": 1.3, "note": ""},
        },
    }


def everywhere(made):
    """The texts of a run's page, Markdown and card."""
    marked = (render_markdown(made), render_card(made))
    return (html.unescape(render_html(made)), *(text.replace("\\_", "_") for text in marked))


def test_temperature_scaling_is_shown_with_what_it_did_on_validation():
    config = to_json(RunConfig(name="mine", calibrate="temperature"))
    for text in everywhere(content(config=config, evaluation=calibrated())):
        assert "fitted on the 67 clean validation films, T = 1.620, in the exported model" in text
        assert "Temperature scaling, on the clean validation films" in text
        cells = " ".join(re.sub(r"<[^>]+>|\|", " ", text).split())
        assert "winner 1.620 0.310 0.270 0.084 0.021" in cells
    for text in everywhere(content()):
        assert "the network's own, not recalibrated" in text
        assert "Temperature scaling, on" not in text


def test_temperature_scaling_that_was_refused_is_not_said_to_be_in_the_export():
    config = to_json(RunConfig(name="mine", calibrate="temperature"))
    refused = content(config=config, evaluation=calibrated(note="validation lacks a class"))
    for text in everywhere(refused):
        assert "could not be fitted (validation lacks a class)" in text
        assert "in the exported model too" not in text
        assert "1.000, not fitted" in text
    unscored = dict(method_rows(content(config=config, evaluation={})))
    assert unscored["probabilities"].endswith("was asked for")


def test_claim_has_its_44_items_and_the_document_is_the_tables():
    assert [item.number for item in claim.ITEMS] == list(range(1, 45))
    assert all(set(item.where) <= claim.SECTIONS.keys() for item in claim.ITEMS)
    assert all(item.where for item in claim.ITEMS if item.answer is claim.Answer.YES)
    place = Path(claim.__file__).with_name("CLAIM.md")
    assert place.read_text(encoding="utf-8") == claim.document()


def test_the_report_links_claims_items_to_the_sections_it_has():
    text = render_html(content(), local=False)
    anchors = set(re.findall(r'<section id="([^"]+)"', text))
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= anchors
    assert {"verdict", "data", "method", "limitations", "use", "claim"} <= anchors
    assert "On the test set (not in this report)" in text
    assert "secret" not in text


def test_no_message_of_a_failure_takes_a_folder_along():
    place = "/home/jane/films/results"
    told = f"cannot write {place}/mine/model.onnx (see ~/log.txt)"
    evaluation = calibrated(note=f"no images in {place}")
    made = content(
        config={**content().config, "calibrate": "temperature"},
        dataset={**fake.dataset(), "rejected": [{"path": "train/x.png", "reason": told}]},
        plan={**content().plan, "notes": [told]},
        records=(fake.failed("0001", told), fake.trial("0002", notes=(told,))),
        evaluation={**evaluation, "retraining": {"notes": [told], "ensemble": None}},
        exports=({"format": "onnx", "status": "failed", "reason": told},),
        ablation={**fake.ablation(), "notes": [told]},
    )
    assert html.unescape(render_html(made)).count(told) >= 6
    for text in (render_html(made, local=False), render_markdown(made), render_card(made)):
        assert "jane" not in text
        assert "~/" not in text
    for text in (render_html(made, local=False), render_markdown(made)):
        assert text.count("cannot write model.onnx (see log.txt)") >= 6


def test_the_five_questions_are_a_section_when_they_were_asked():
    assert 'id="questions"' not in render_html(content())
    asked = content(ablation=fake.ablation())
    markdown = render_markdown(asked).replace("\\_", "_")
    for text in (html.unescape(render_html(asked)), markdown):
        assert "The notebook's five questions" in text
        assert "Do flips help?" in text
        assert "Nobody can tell." in text
        assert "3 seeds and 12 epochs each" in text
        assert "robust_loss, validation" in text
        assert "log loss, test" in text
        assert "+0.012 (−0.020 to +0.040)" in text
        assert "−0.010 (patients −0.030 to +0.010)" in text
        assert "not trained: no memory" in text
        assert "opened 1 time more" in text
        assert "Never asked" not in text
        assert "damaged" not in text


def test_an_ablation_of_an_earlier_winner_is_not_shown_as_if_it_were_of_this_one():
    asked = fake.ablation()
    asked["bases"][1] = {"base": "winner", "values": {**fake.DOCUMENTED, "flip": True}}
    made = content(ablation=asked)
    for text in (html.unescape(render_html(made)), render_markdown(made).replace("\\_", "_")):
        assert "of an earlier winner of this run and is left out" in text
        assert "Nobody can tell." not in text
    del asked["bases"][1]
    assert "Nobody can tell." in render_html(content(ablation=asked))
