"""The reporter for a person, live and plain."""

import io
import re

import fake_runs as fake
import pytest
from rich.console import Console as RichConsole

from search.records import SYNTHETIC_NOTICE
from search.reporting.console import Console
from search.reporting.live import live_view
from search.reporting.progress import RunProgress

DATED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def plain(**options):
    out = io.StringIO()
    return Console(live=False, file=out, **options), out


def state(events):
    progress = RunProgress()
    for event in events:
        progress.apply(event)
    return progress


def first(count, **options):
    run = fake.FakeRun(**options)
    events = []
    for event in run.events():
        events.append(event)
        if len(events) == count:
            break
    return events


def screen(progress, width=80, now=1.79e9 + 100):
    console = RichConsole(width=width, file=io.StringIO(), record=True, force_terminal=True)
    console.print(live_view(progress, now=now, data="4,185 films"))
    return console.export_text()


def test_a_file_gets_plain_lines_even_when_colour_is_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not Console(file=io.StringIO()).live


def test_a_terminal_gets_the_live_view_unless_it_is_dumb(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    assert Console(file=Terminal()).live
    assert not Console(file=Terminal(), quiet=True).live
    monkeypatch.setenv("TERM", "dumb")
    assert not Console(file=Terminal()).live


def test_a_plain_run_has_dated_lines_for_trials_rungs_and_the_retraining():
    console, out = plain()
    for event in fake.FakeRun().events():
        console.listen(event)
    lines = out.getvalue().splitlines()
    assert all(DATED.match(line) for line in lines)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "trial 0000 bracket 2 rung 0, epochs 0 → 1: documented configuration" in text
    assert "trial 0000 completed: robust_loss 0." in text
    assert "trial 0005 failed: error: a [bold]b[/bold] <script>" in text
    assert "bracket 2 rung 0 closed: best" in text
    assert "3 go on" in text
    assert "search ended: " in text
    assert "retrained winner, seed 0: epoch 6 kept" in text
    assert "test set opened: winner, seed 0: accuracy 0.912, AUC 0.972" in text


def test_epoch_lines_are_at_least_five_seconds_apart():
    console, out = plain()
    for event in fake.FakeRun().events():
        console.listen(event)
    epochs = [line for line in out.getvalue().splitlines() if re.search(r"epoch \d+/\d+:", line)]
    # Epochs take two seconds here, so at most every third has a line.
    assert 5 < len(epochs) < 81 / 3 + 6


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": "epoch"},
        {"event": "epoch", "trial_id": "nobody", "epoch": 1, "metrics": {}, "seconds": 1},
        {"event": "something_new", "time": "yesterday"},
        {"event": "rung_closed", "iteration": 0, "bracket": 0, "rung": 0, "time": 1.0},
        {"event": "trial_created", "trial_id": None},
        {"event": "refit_epoch", "role": "winner", "seed": 0, "epoch": None, "metrics": None},
        {"event": "plan", "brackets": "?", "epochs": None},
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_no_event_raises(event, live):
    console = Console(live=live, file=io.StringIO())
    for known in first(20):
        console.listen(known)
    console.listen(event)
    console.close()


def test_the_live_view_fits_the_screen_at_any_moment():
    for width in (80, 60, 120):
        progress = RunProgress()
        for i, event in enumerate(fake.FakeRun(max_epochs=81).events()):
            progress.apply(event)
            if i % 60 == 0:
                lines = screen(progress, width).splitlines()
                assert max(map(len, lines)) <= width
                assert len(lines) <= 24


def test_the_live_view_shows_progress_brackets_running_trials_the_best_and_failures():
    text = screen(state(first(120, max_epochs=27)))
    assert "robust_loss ↓" in text
    assert "4,185 films" in text
    assert re.search(r"\d+/\d+ epochs · 2\.\d s each", text)
    assert "bracket 3" in text
    assert "/27 @1" in text
    assert "documented configuration" in text
    assert "failed 0005 error:" in text
    assert "<script>" in text


def test_a_running_trial_has_a_sparkline_with_its_parents_epochs():
    events = first(10**6, max_epochs=9)
    last = max(i for i, e in enumerate(events) if e["event"] == "epoch" and e["epoch"] == 8)
    progress = state(events[: last + 1])
    (running,) = progress.running
    assert len(progress.scores(running)) == 8
    assert re.search(r"epoch 9/9 [▁▂▃▄▅▆▇█ ]{8}", screen(progress))


def test_the_live_view_of_a_retraining_counts_epochs():
    events = list(fake.FakeRun().events())
    text = screen(state(events[:-1]))
    assert "retrain winner, seed 0" in text
    assert "epoch 6/6" in text
    assert "done" in text


def test_a_live_console_draws_and_leaves_a_clean_screen():
    out = io.StringIO()
    console = Console(live=True, file=out)
    console.show_plan(fake.FakeRun().plan)
    with console.stage("Search"):
        for event in fake.FakeRun().events():
            console.listen(event)
        console.warn("look out")
    text = out.getvalue()
    assert "best so far" in text
    assert "look out" in text
    assert "Search: done in" in text
    assert text.endswith("\n")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    console = Console(live=True, file=out)
    console.show_trials([fake.trial("0000")], objective="val_auc", direction="max")
    console.error("bad")
    assert not re.search(r"\x1b\[[\d;]*3\dm", out.getvalue())


def test_the_time_left_follows_the_measured_pace():
    progress = state(first(200, max_epochs=27))
    assert progress.seconds_per_epoch == pytest.approx(2.1, abs=0.5)
    expected = progress.epochs_left * progress.seconds_per_epoch
    assert progress.seconds_left() == pytest.approx(expected)
    assert progress.seconds_left(progress.last + 1) == pytest.approx(expected - 1)
    assert progress.epochs_done + progress.epochs_left == pytest.approx(357, abs=6)


def test_before_the_first_epoch_the_plan_gives_the_time_left():
    progress = state(first(2, max_epochs=27))
    assert progress.seconds_left() == 357 * 2.0


def test_time_between_a_kill_and_the_resumption_is_not_counted():
    events = first(60)
    progress = state(events)
    before = progress.seconds_per_epoch
    later = events[-1]["time"] + 90_000
    progress.apply({"event": "run_started", "time": later, "device": {"name": "GPU"}})
    progress.apply({**events[-1], "time": later + 5})
    assert progress.seconds_per_epoch == pytest.approx(before, rel=0.2)
    assert progress.elapsed(later + 7) == 7
    assert progress.device == "GPU"


def test_quiet_prints_only_notices_warnings_errors_and_the_verdict():
    console, out = plain(quiet=True)
    with console.stage("Search"):
        console.info("hidden")
        console.progress("Decoding", 1, 2)
        console.show_data(fake.dataset())
        for event in fake.FakeRun().events():
            console.listen(event)
    console.show_trials([fake.trial()], objective="val_auc", direction="max")
    assert out.getvalue() == ""
    console.warn("seen")
    console.show_verdict(fake.evaluation())
    assert "seen" in out.getvalue()
    assert "better than the documented" in out.getvalue()


def test_the_notice_is_repeated_with_the_verdict():
    console, out = plain()
    console.notice(SYNTHETIC_NOTICE)
    console.show_verdict(fake.evaluation(synthetic=True))
    assert out.getvalue().count(SYNTHETIC_NOTICE) == 3


def test_plain_progress_is_sparse_and_ends_with_everything(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("search.reporting.console.time.monotonic", lambda: next(clock) * 0.05)
    console, out = plain()
    for done in range(1, 1001):
        console.progress("Decoding images", done, 1000)
    lines = out.getvalue().splitlines()
    assert 5 <= len(lines) <= 12
    assert lines[-1].endswith("Decoding images: 1,000 of 1,000 (100%)")


def test_progress_of_unknown_length_is_announced_once():
    console, out = plain()
    for _ in range(3):
        console.progress("Making the stressed views", 0, 0)
    assert out.getvalue().count("Making the stressed views") == 1


def test_live_progress_shows_a_bar():
    out = io.StringIO()
    console = Console(live=True, file=out)
    for done in range(0, 11):
        console.progress("Decoding [images]", done, 10)
    console.close()
    assert "Decoding [images]" in out.getvalue()
    assert "10/10" in out.getvalue()


def test_markup_in_texts_is_printed_as_it_is():
    console, out = plain()
    console.info(fake.NASTY)
    console.notice(fake.NASTY)
    assert out.getvalue().count("[bold]b[/bold]") == 2


def test_an_encoding_without_block_characters_is_no_error():
    raw = io.BytesIO()
    console = Console(live=False, file=io.TextIOWrapper(raw, encoding="ascii"))
    console.show_plan(fake.FakeRun().plan)
    console.info("27 × 1 → 9")
    console._rich.file.flush()
    assert b"27 ? 1 ? 9" in raw.getvalue()


@pytest.mark.parametrize("live", [False, True])
def test_a_reader_who_left_does_not_end_the_run(live):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console = Console(live=live, file=Broken())
    console.show_plan(fake.FakeRun().plan)
    for event in first(20):
        console.listen(event)
    console.error("nobody reads this")
    console.close()


def test_a_summary_of_another_version_costs_only_that_summary():
    console, out = plain()
    console.show_plan({"brackets": [{"rungs": [{"count": "many"}]}], "epochs": {}})
    console.show_data({"counts": {"train": 3}, "class_weights": {"9": "x"}})
    console.info("on")
    assert out.getvalue().rstrip().endswith("on")


def test_replayed_events_are_known_but_not_printed():
    console, out = plain()
    events = list(fake.FakeRun().search())
    console.replay(events[:30])
    assert out.getvalue() == ""
    console.listen(events[30])
    assert console.progress_state.strange == 0
