"""The arithmetic of the benchmarks: what they say of what was measured."""

import argparse
import importlib
import json
import tarfile
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def search(tool="ours", **fields):
    """Return a search of two trials, 30 s of training in 60 s."""
    costs = {"build": 1.0, "compile": 2.0, "train": 15.0, "validate": 3.0, "checkpoint": 1.0}
    trials = [{"rate": rate, "epochs": 2, "seconds": 24.0, "costs": costs} for rate in (0.1, 0.2)]
    return {
        **{"tool": tool, "workers": 1, "wall": 60.0, "epochs": 4, "trials": trials},
        **{"train_images": 100, "steps_per_epoch": {"0.1": 10, "0.2": 5}, "complete": True},
        **fields,
    }


def test_every_second_of_a_search_is_counted_once(benchmark):
    found = benchmark("rates").rates(search())
    assert found.train + sum(found.lost.values()) == pytest.approx(60 / 2)
    assert found.lost["idle"] == pytest.approx((60 - 48) / 2)
    assert found.lost["other"] == pytest.approx(2.0)
    assert found.epochs_per_second == pytest.approx(4 / 60)
    assert found.trials_per_hour == pytest.approx(120)
    assert found.images_per_second == pytest.approx(400 / 60)


def test_the_share_of_pure_steps_weighs_configurations_by_their_steps(benchmark):
    # 2 epochs × 10 steps × 1 s + 2 × 5 × 0.5 s; the one that was not timed counts as the median.
    rates = benchmark("rates")
    assert rates.rates(search(), {"0.1": 1.0, "0.2": 0.5}).share == pytest.approx(25 / 60)
    assert rates.bare_seconds(search(), {"0.1": 1.0}) == pytest.approx(20 + 10)


def test_a_search_cut_short_counts_every_epoch_and_claims_no_trials_an_hour(benchmark):
    rates = benchmark("rates")
    steps = {"0.1": 1.0, "0.2": 0.5}
    cut = search(complete=False, epochs=5, unfinished=[{"rate": 0.1, "epochs": 1}])
    found = rates.rates(cut, steps)
    assert found.trials_per_hour is None
    # Another 10 steps of 1 s.
    assert found.share == pytest.approx(35 / 60)
    assert found.epochs_per_second == pytest.approx(5 / 60)
    # Measured before unfinished trials were noted.
    assert rates.rates(search(complete=False), steps).share is None


def test_overhead_is_what_is_neither_fit_nor_its_validation(benchmark):
    rates = benchmark("rates")
    found = rates.overhead(search())
    assert found.of_fit == pytest.approx(60 / (2 * (15 + 3 + 2)) - 1)
    assert found.strict == pytest.approx(60 / (2 * (15 + 3)) - 1)
    assert found.per_trial == pytest.approx(10.0)
    assert found.step == pytest.approx(1000 * 30 / (30 - 2))
    # The same schedule again gives the same, longer trials less.
    assert rates.projected(search(), trials=2, epochs=4) == pytest.approx(found.of_fit)
    assert rates.projected(search(), trials=2, epochs=40) < found.of_fit / 5


def test_best_so_far_never_rises_and_does_not_take_nan(benchmark):
    report = benchmark("tuners_report")
    losses = [0.5, float("nan"), 0.7, 0.3]
    job = {"rows": [["a", n, loss] for n, loss in enumerate(losses)]}
    assert report.best_so_far(job) == [0.5, 0.5, 0.5, 0.3]
    assert report.best_at(job, 3) == 0.5
    assert report.best_at(job, 99) == 0.3


def test_the_paired_interval_counts_every_draw_of_the_seeds(benchmark):
    difference = benchmark("tuners_report").paired_difference
    ours, theirs = {1: 0.2, 2: 0.4, 3: 0.3}, {1: 0.3, 2: 0.5, 3: 0.4}
    assert difference(ours, theirs) == pytest.approx((-0.1, -0.1, -0.1))
    mean, low, high = difference({1: 0.0, 2: 1.0}, {1: 0.0, 2: 0.0})
    assert (mean, low, high) == pytest.approx((0.5, 0.0, 1.0))
    assert difference({1: float("inf")}, {1: 0.0}) is None


def test_a_ledger_repeats_what_broke_what_changed_and_nothing_else(benchmark, tmp_path):
    fresh = benchmark("fresh")
    file = tmp_path / "jobs.jsonl"
    lines = [{"name": "good", "size": 1, "answer": 2}, {"name": "broken", "size": 1, "error": "x"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"name": "cut')
    ledger = fresh.Ledger(file, "script.py")
    assert ledger.finished({"name": "good", "size": 1})
    assert not ledger.finished({"name": "good", "size": 2})
    assert not ledger.finished({"name": "broken", "size": 1})
    assert not ledger.finished({"name": "cut", "size": 1})
    ledger.done["short"] = {"name": "short", "limit": 60, "complete": False}
    assert ledger.finished({"name": "short", "limit": 60})
    assert not ledger.finished({"name": "short", "limit": 90})


def test_a_ledger_never_gives_one_cards_numbers_for_anothers(benchmark, tmp_path, monkeypatch):
    workers, fresh = benchmark("workers"), benchmark("fresh")
    options = argparse.Namespace(
        **{"sizes": [96], "workers": [1, 8], "data": "x", "images": 0, "max_epochs": 9},
        **{"factor": 3, "iterations": 1, "whole_space": False, "limit": 100},
    )
    ledger = fresh.Ledger(tmp_path / "jobs.jsonl", "script.py")
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
        monkeypatch.setattr(workers, "card", lambda name=name: name)
        jobs = workers.jobs(options)
        assert [job["tool"] for job in jobs] == ["plain", "ours", "bare", "ours"]
        assert {job["card"] for job in jobs} == {name}
        assert not any(ledger.finished(job) for job in jobs)
        for job in jobs[:1]:
            ledger._keep({**job, "complete": True})
        kept = ledger.run(jobs, tell=str, ends=time.monotonic())
        assert [job["card"] for job in kept] == [name]
    # Nor where a field tells them apart that the name does not.
    ledger.done["same"] = {"name": "same", "card": "NVIDIA H100 80GB HBM3"}
    other = [{"name": "same", "card": "NVIDIA H200"}]
    assert ledger.run(other, tell=str, ends=time.monotonic()) == []


def test_a_report_names_the_card(benchmark, tmp_path, monkeypatch):
    workers = benchmark("workers")
    monkeypatch.setattr(workers, "draw", lambda *_: None)
    options = argparse.Namespace(sizes=[96], max_epochs=9, factor=3, iterations=1, out=tmp_path)
    job = search(
        **{"name": "a", "image_size": 96, "card": "NVIDIA H200", "device": "gpu:0 (jax)"},
        **{"versions": {}, "start": 1.0, "planned_trials": 2, "planned_epochs": 4},
        **{"complete": False},
    )
    text = workers.report([job], options)
    assert "gpu:0 (jax) (NVIDIA H200)" in (tmp_path / "README.md").read_text()
    assert [cell.strip() for cell in text.splitlines()[4].split("|")[4:7:2]] == ["–", "–"]


def test_a_job_runs_in_a_process_of_its_own_and_its_end_is_an_answer(benchmark, tmp_path):
    fresh = benchmark("fresh")
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "import os, fresh\n"
        "def work(job):\n"
        "    if job['n'] < 0: raise ValueError('below zero')\n"
        "    return {'square': job['n'] ** 2, 'pid': os.getpid(), 'extra': os.environ['EXTRA']}\n"
        "sys.exit(fresh.answer(sys.argv[2], work))\n"
    )
    ledger = fresh.Ledger(tmp_path / "jobs.jsonl", str(script), variables=lambda j: {"EXTRA": "e"})
    jobs = [{"name": str(n), "n": n} for n in (3, -1)]
    good, bad = ledger.run(jobs, tell=lambda job: str(job["square"]))
    assert (good["square"], good["extra"]) == (9, "e")
    assert "below zero" in bad["error"]
    again = fresh.Ledger(tmp_path / "jobs.jsonl", str(script), variables=lambda j: {"EXTRA": "f"})
    kept, _ = again.run(jobs, tell=lambda job: str(job["square"]))
    assert kept["extra"] == "e"
    late = [{"name": "late", "n": 1}]
    assert again.run(late, tell=str, ends=time.monotonic() + 1) == []


NO_FILM = (
    "session.jsonl",
    "standard/journal.jsonl",
    "standard/evaluation.json",
    "standard/report.md",
    "standard/plots/roc.png",
    "standard/logs/worker-0.log",
    "workers-96/workers.png",
    "workers-96/README.md",
)
FILM_OR_WEIGHTS = (
    "standard/report.html",
    "standard/shared.html",
    "standard/plots/local/gradcam.png",
    "standard/plots/local/worst_misses.json",
    "standard/gradcam.png",
    "standard/film.jpeg",
    "standard/model.keras",
    "standard/model.onnx",
    "standard/tuner/trial_1/trial.json",
    "standard/refit/winner-0/epochs.jsonl",
    "cache/views.npy",
)


def test_weights_and_pictures_of_films_do_not_leave_the_machine(benchmark, tmp_path):
    session = benchmark("gpu_session")
    results, out = tmp_path / "place" / "results", tmp_path / "out"
    out.mkdir()
    for name in NO_FILM + FILM_OR_WEIGHTS:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("x")
    options = argparse.Namespace(place=tmp_path / "place", out=out, minutes=1)
    session.Session(options).pack()
    with tarfile.open(out / "results.tgz") as tar:
        assert sorted(tar.getnames()) == sorted(NO_FILM)
    assert not session.travels(Path("standard/huge.csv"), 10**9)


def test_three_calls_of_ten_minutes_answer_the_most_useful_first(benchmark, tmp_path):
    session = benchmark("gpu_session")
    options = argparse.Namespace(place=tmp_path, workers="8", tiny=False)
    found = session.stages(options, 540)
    assert [stage.name for stage in found] == [
        *("standard", "workers-180", "workers-96", "tests", "more-180", "more-96")
    ]
    assert "--resume" not in found[0].command
    assert found[0].command[found[0].command.index("--workers") + 1] == "8"
    # Two further calls: each has the four searches of a size, loading included.
    assert 4 * (session.SEARCH_SECONDS + 25) <= session.WORKERS_SECONDS


def test_a_stage_that_is_finished_is_not_done_again(benchmark, tmp_path):
    session = benchmark("gpu_session")
    options = argparse.Namespace(place=tmp_path, workers="8", tiny=False, out=tmp_path, minutes=9)
    (tmp_path / "results" / "standard").mkdir(parents=True)
    (tmp_path / "results" / "standard" / "manifest.json").write_text("{}")
    session.Session(options).do(session.stages(options, 540)[0])
    assert json.loads((tmp_path / "session.jsonl").read_text())["skipped"] == "finished"
