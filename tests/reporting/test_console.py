"""The reporter for a person, live and plain."""

import io
import re

import fake_runs as fake
import pytest

from search.records import SYNTHETIC_NOTICE
from search.reporting.console import Console

DATED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def plain(**options):
    out = io.StringIO()
    return Console(live=False, file=out, **options), out


def first(count, **options):
    run = fake.FakeRun(**options)
    events = []
    for event in run.events():
        events.append(event)
        if len(events) == count:
            break
    return events


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
    assert "retrained winner, seed 0: epoch 6 kept, robust_loss 0.250, 12 s" in text
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


def test_a_live_console_draws_and_leaves_a_clean_screen():
    out = io.StringIO()
    console = Console(live=True, file=out)
    console.show_plan(fake.FakeRun().plan)
    with console.stage("Search"):
        for event in fake.FakeRun().events():
            console.listen(event)
        console.warn("look out")
    text = out.getvalue()
    assert "done + training / planned" in text
    assert "search 0%" in text
    assert "retrained winner, seed 0: epoch 6 kept" in text
    assert "look out" in text
    assert "Search: done in" in text
    assert text.endswith("\n")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")
    assert text.count("\x1b[?2026h") == text.count("\x1b[?2026l") > 0


def left_on_screen(written):
    """Return what a terminal shows in the end: the view goes up and erases itself."""
    lines, at = [""], 0
    for piece in re.split(r"(\n|\r|\x1b\[[\d;?]*[A-Za-z])", written):
        if piece == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif piece == "\x1b[1A":
            at -= 1
        elif piece == "\x1b[2K":
            lines[at] = ""
        elif piece and piece[0] not in "\x1b\r":
            lines[at] += piece
    return "\n".join(lines)


def test_what_is_lost_or_fails_in_the_retraining_stays_on_the_screen():
    out = io.StringIO()
    console = Console(live=True, file=out)
    run = fake.FakeRun()
    for event in run.search():
        console.listen(event)
    told = {"role": "winner", "seed": 0, "time": run.time, "epochs": 6}
    lost = {"trial_id": "winner-0", "worker": 1, "pid": 77, "reason": "hung", "retry": True}
    failure = {"kind": "error", "message": "no memory left", "traceback": ""}
    console.listen({"event": "refit_started", **told, "values": {}, "worker": 1})
    console.listen({"event": "worker_lost", "time": run.time, **lost})
    console.listen({"event": "refit_ended", **told, "kept_epoch": 0, "failure": failure})
    console.close()
    text = left_on_screen(out.getvalue())
    assert text.count("lost worker 1 (process 77): hung; trial winner-0 goes on elsewhere") == 1
    assert text.count("retraining winner, seed 0 failed: no memory left") == 1
    assert "epochs ·" not in text, "the view itself is still there"


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    console = Console(live=True, file=out)
    console.show_trials([fake.trial("0000")], objective="val_auc", direction="max")
    console.error("bad")
    assert not re.search(r"\x1b\[[\d;]*3\dm", out.getvalue())


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


def test_a_bar_of_unknown_length_that_stays_on_the_screen_is_full():
    out = io.StringIO()
    console = Console(live=True, file=out)
    console.progress("Checking", 0, 0)
    console.close()
    last = [line for line in out.getvalue().splitlines() if "Checking" in line][-1]
    assert "-:--:--" not in last
    assert "0:00:00" in last


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
