"""A finished run, made once for all tests of the reports."""

import json

import fake_runs as fake
import pytest

from search.reporting.documents import write_reports
from search.reporting.figures import new_figure, save
from search.reporting.insights import forest
from search.reporting.insights.insight import Insight, Section
from search.reporting.insights.material import Material
from search.reporting.plots import draw_all, pictures
from search.reporting.stored import read_run
from search.reporting.trials import refit_histories
from search.run_directory import RunDirectory


@pytest.fixture(scope="session", autouse=True)
def small_forests():
    """A tenth of the resamples: the same insights, wider intervals, in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "RESAMPLES", 10)
        patch.setattr(forest, "DEALS", 10)
        yield


@pytest.fixture(scope="session")
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
    run.write_json("exports.json", fake.EXPORTS)
    run.write_json("ablation/ablation.json", fake.ablation())
    rows = ["path,patient,label,probability,split"]
    for i, (label, p) in enumerate(zip(*fake.predictions(1.2), strict=True)):
        rows.append(f"test/{i}.jpeg,{i},{label},{p},{'test' if i % 3 else 'val'}")
    (run.root / "predictions.csv").write_text("\n".join(rows) + "\n")
    for name in ("best_hyperparameters.json", "history.csv", "trials.csv", "model.keras"):
        (run.root / name).write_text("{}")
    stored = read_run(run)
    material = Material(
        objective="robust_loss",
        records=stored.records,
        histories=refit_histories(stored.refit),
        predictions={"documented": fake.predictions(0.8), "winner": fake.predictions(1.2)},
        evaluation=evaluation,
    )
    plots = pictures(draw_all(run.root, material, synthetic=True))
    heatmaps = Insight(
        name="heatmaps",
        section=Section.FAILURES,
        title="What the network looked at",
        reading="One image.",
        caption="Grad-CAM.",
        columns=("file", "probability"),
        rows=((f"{fake.NASTY}.jpeg", 0.5),),
        draw=lambda: new_figure(1, 1),
        local=True,
    )
    save(heatmaps, run.root, place=99, synthetic=True)
    write_reports(
        run.root,
        config=stored.config,
        dataset=stored.dataset,
        plan=stored.plan,
        records=stored.records,
        evaluation=evaluation,
        plots=plots,
        manifest_like={"device": "CPU", "host": "this-computer", "seconds": {"search": 300.0}},
    )
    run.write_manifest({"device": "CPU", "host": "this-computer", "seconds": {"search": 300.0}})
    return run
