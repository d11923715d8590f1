"""The live view at any width, height and moment."""

import io
import re

import fake_runs as fake
import pytest
from rich.console import Console

from search.reporting.live import LiveView, allot, need
from search.reporting.progress import RunProgress


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def state(events):
    progress = RunProgress()
    for event in events:
        progress.apply(event)
    assert progress.strange == 0
    return progress


def first(count, run=None):
    events = []
    for event in (run or fake.FakeRun(max_epochs=27)).events():
        events.append(event)
        if len(events) == count:
            break
    return events


def until(run, enough):
    """Return the state of a run just after the first event that is enough."""
    progress = RunProgress()
    for event in run.events():
        progress.apply(event)
        if enough(event, progress):
            return progress
    raise AssertionError("never")


def screen(progress, width=80, height=None, **options):
    console = Console(width=width, file=io.StringIO(), record=True, force_terminal=True)
    now = options.pop("now", (progress.last or 0) + 7)
    console.print(
        LiveView(progress=progress, now=now, data="4,185 films", height=height, **options)
    )
    return console.export_text()


RUNS = {
    "one": lambda: fake.FakeRun(max_epochs=81),
    "two workers": lambda: fake.PooledRun(max_epochs=27, workers=2, losing=(5, 20, 30, 31)),
    "twelve workers": lambda: fake.PooledRun(max_epochs=81, workers=12, losing=range(9, 400, 9)),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("width", "height"), [(80, 23), (60, 23), (200, 60), (60, 14)])
def test_the_view_fits_the_screen_at_any_moment(run, width, height):
    progress = RunProgress()
    for i, event in enumerate(RUNS[run]().events()):
        progress.apply(event)
        if i % 97 == 0:
            lines = screen(progress, width, height).splitlines()
            assert max(map(len, lines)) <= width
            assert len(lines) <= height
    assert progress.strange == 0


def test_it_shows_progress_brackets_the_best_and_failures():
    text = screen(state(first(120)))
    assert "robust_loss ↓" in text
    assert "4,185 films" in text
    assert re.search(r"\d+/\d+ epochs · 2\.\d s each · 0:01:\d\d elapsed · 0:\d\d:\d\d left", text)
    assert re.search(r"search \d+%", text)
    assert re.search(r"^3 +25/27 +\d(\+1)?/9 +\d(\+1)?/3 +\d(\+1)?/1", text, re.MULTILINE)
    assert "documented configuration" in text
    assert "failed 0005 error:" in text
    assert "<script>" in text
    assert "[bold]b[/bold]" in text


def test_rungs_with_the_same_epochs_stand_under_each_other():
    lines = screen(state(first(3))).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("bracket"))
    assert lines[head].split()[:5] == ["bracket", "@1", "@3", "@9", "@27"]
    column = lines[head].index("@27")
    assert [line[column : column + 3] for line in lines[head + 1 : head + 5]] == [
        "0/1",
        "0/1",
        "0/2",
        "0/4",
    ]


def test_rounds_of_a_repeated_search_are_named_and_only_the_open_ones_shown():
    plan = fake.hyperband(max_epochs=27, factor=3, iterations=3).plan(2.0)
    progress = RunProgress()
    progress.apply({"event": "plan", "time": 1.0, **plan})
    text = screen(progress)
    assert "3, round 1" in text
    assert "0 of 12 brackets finished" in text
    assert text.count("round") == 5


def test_only_the_hyperparameters_that_differ_are_shown():
    progress = until(RUNS["two workers"](), lambda e, p: len(p.top) == 2)
    text = screen(progress, width=200)
    (other,) = [record for record in progress.top if record.configuration]
    row = next(line for line in text.splitlines() if line.startswith(other.trial_id))
    same = {name for name in fake.DOCUMENTED if other.values[name] == fake.DOCUMENTED[name]}
    assert same
    assert f"act={other.values['activation']}" in row or "activation" in same
    assert not any(f"{name}=" in row for name in same)


def test_every_worker_has_a_line_with_its_trial_and_the_curve_of_its_objective():
    progress = until(RUNS["two workers"](), lambda e, p: e.get("epoch") == 9)
    text = screen(progress)
    busy = [worker for worker in progress.workers.rows() if worker.trial_id]
    assert len(busy) == 2
    for worker in busy:
        record = progress.trials[worker.trial_id]
        number = min(record.epochs + 1, record.target_epochs)
        row = rf"^{worker.name} +{worker.trial_id}  {number}/{record.target_epochs} "
        assert re.search(row, text, re.MULTILINE)
    assert re.search(r"9/9 0:\d\d +[▁▂▃▄▅▆▇█]{9} ", text)
    assert "2 workers" in text


def test_one_worker_is_not_numbered():
    text = screen(until(fake.PooledRun(workers=1), lambda e, p: e["event"] == "epoch"))
    assert "worker" not in text
    assert re.search(r"^trial +epoch +robust_loss ↓ +differs", text, re.MULTILINE)


def test_the_time_in_the_epoch_ticks():
    progress = until(RUNS["two workers"](), lambda e, p: e["event"] == "trial_started")
    started = progress.last
    assert "1/1 0:00" in screen(progress, now=started + 0.5)
    assert "1/1 1:05" in screen(progress, now=started + 65)


def test_more_workers_than_lines_are_counted():
    progress = until(RUNS["twelve workers"](), lambda e, p: p.epochs_done == 40)
    text = screen(progress, height=60)
    rows = [line for line in text.splitlines() if re.match(r"\d+ +\d{4}-\d{3} ", line)]
    assert len(rows) == 8
    assert re.search(r"^\+4 +\d busy", text, re.MULTILINE)


def test_workers_that_wait_start_or_are_replaced_say_so():
    begun = until(RUNS["two workers"](), lambda e, p: e["event"] == "plan")
    assert screen(begun).count("starting") == 2
    lost = until(RUNS["two workers"](), lambda e, p: e["event"] == "worker_lost")
    assert "restarting" in screen(lost)
    idle = until(
        fake.PooledRun(max_epochs=3, workers=4),
        lambda e, p: len(p.running) == 1 and p.epochs_done > 9,
    )
    assert screen(idle).count("idle") == 3


def test_different_devices_are_named():
    progress = RunProgress()
    for event in first(8, RUNS["two workers"]()):
        if event["event"] == "trial_started":
            event = {**event, "device": f"gpu:{event['worker']}"}
        progress.apply(event)
    text = screen(progress, width=120)
    assert "0 gpu:0" in text
    assert "1 gpu:1" in text


def test_lost_workers_and_failed_trials_are_a_line_each_the_latest_ones_then_a_count():
    progress = until(RUNS["two workers"](), lambda e, p: len(p.workers.losses) == 4)
    text = screen(progress, width=100)
    assert text.count("killed by SIGKILL") == 3
    assert re.search(r"lost worker \d \(process \d+\): killed by SIGKILL; trial \S+ goes on", text)
    assert "4 workers lost in all" in text


def test_the_retraining_counts_epochs_of_all_candidates():
    events = list(fake.FakeRun().events())
    started = next(i for i, e in enumerate(events) if e["event"] == "refit_started")
    progress = state(events[: started + 4])
    text = screen(progress)
    assert re.search(r"retraining 50%", text)
    assert "3/6 epochs · 2.0 s each" in text
    assert re.search(r"documented, seed 0 +3/6 +█\S+ +0\.\d+ +0:00:06", text)
    done = screen(state(events[:-1]))
    assert re.search(r"winner, seed 0 +6/6 .* done", done)


def test_stages_without_epochs_say_what_is_done():
    assert "reading the data" in screen(RunProgress(), now=0.0)
    progress = state(first(1))
    assert "measuring and planning" in screen(progress)
    for name in ("retrain", "score", "report"):
        progress.apply({"event": "stage", "name": name, "seconds": 1.0, "time": progress.last})
    assert "finished" in screen(progress)


def test_the_run_is_named_and_its_end_noted_where_that_is_asked():
    text = screen(state(first(60)), name="first", note="stopped")
    assert text.startswith("first · hyperband")
    assert "epochs · stopped ·" in text


def test_a_narrow_line_loses_the_least_important_words():
    progress = until(RUNS["two workers"](), lambda e, p: p.epochs_done == 12)
    wide, narrow = (screen(progress, width).splitlines()[2] for width in (120, 60))
    assert "retraining" in wide
    assert "each" in wide
    assert "each" not in narrow
    assert "left" in narrow


def test_lines_are_given_up_in_turn_and_headings_last():
    needs = {
        "a": need(5, useful=4, least=2),
        "b": need(9, useful=6, least=2),
        "c": need(0, useful=1, least=1),
    }
    assert allot(needs, None) == ({"a": 6, "b": 10, "c": 0}, True)
    assert allot(needs, 18) == ({"a": 6, "b": 10, "c": 0}, True)
    assert allot(needs, 16) == ({"a": 6, "b": 10, "c": 0}, False)
    assert allot(needs, 14) == ({"a": 6, "b": 8, "c": 0}, False)
    assert allot(needs, 12) == ({"a": 5, "b": 7, "c": 0}, False)
    assert allot(needs, 1) == ({"a": 3, "b": 3, "c": 0}, False)
