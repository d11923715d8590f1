"""The arithmetic of the benchmarks: what they say of what was measured."""

import importlib
import json
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


def test_weights_and_pictures_of_films_do_not_leave_the_machine(benchmark):
    travels = benchmark("gpu_session").travels
    assert travels(Path("standard/journal.jsonl"), 10_000)
    assert travels(Path("workers-96/workers.png"), 10_000)
    assert not travels(Path("standard/model.keras"), 10_000)
    assert not travels(Path("standard/tuner/run/trial_1/trial.json"), 100)
    assert not travels(Path("standard/plots/local/gradcam.png"), 100)
    assert not travels(Path("standard/huge.csv"), 10**9)
