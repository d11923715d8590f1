"""What a person sees on a terminal, in a log, in a notebook, and when nobody reads any more."""

import dataclasses
import io
import os
import subprocess
import sys
import time

import pytest
import rich.console

from search.records import SYNTHETIC_NOTICE, TrialStatus
from search.reporting import console as module
from search.reporting.console import Console, standing
from search.reporting.live import LiveView
from search.reporting.progress import RunProgress


def printed(act, *, columns=100, **options):
    """What a console prints while `act` uses it."""
    file = io.StringIO()
    os.environ["COLUMNS"] = str(columns)
    try:
        act(Console(live=False, file=file, **options))
    finally:
        del os.environ["COLUMNS"]
    return file.getvalue()


def screen(progress, *, width, height=None, **options):
    page = rich.console.Console(width=width, record=True, file=io.StringIO())
    page.print(LiveView(progress=progress, now=progress.last + 2, height=height, **options))
    return page.export_text().splitlines()


def halfway(events, share=0.5):
    progress = RunProgress("robust_loss")
    for event in events[: int(len(events) * share)]:
        progress.apply(event)
    return progress


def test_the_data_take_six_lines_and_the_plan_eight(made):
    quiet = dataclasses.replace(made.dataset, alarms=())
    assert printed(lambda c: c.show_data(quiet)).count("\n") <= 6
    assert printed(lambda c: c.show_plan(made.state.plan)).count("\n") <= 8


def test_the_end_of_a_run_takes_25_lines_at_100_columns(made):
    text = printed(lambda c: c.show_end(made.comparison, made.directory.root))
    assert text.count("\n") <= 25
    for word in ("accuracy", "AUC", "sensitivity", "specificity", "baseline", "winner"):
        assert word in text
    for command in ("search.predict", "search.evaluate", "search.report"):
        assert command in text


def test_the_end_has_one_column_where_the_winner_is_the_baseline(made):
    baseline = made.comparison.baseline
    same = dataclasses.replace(made.comparison, winner=dataclasses.replace(baseline, role="winner"))
    text = printed(lambda c: c.show_end(same, made.directory.root))
    assert "difference (95%" not in text


def test_log_lines_are_short_and_name_the_best_so_far(events):
    def play(console):
        console.follow("robust_loss")
        for event in events:
            console.listen(event)

    lines = printed(play).splitlines()
    assert max(map(len, lines)) < 120
    ended = [line for line in lines if " @" in line and "trial" in line]
    assert len(ended) >= 3
    assert all("best" in line for line in ended)


def test_a_notebooks_command_gets_a_line_in_ten_seconds(events, monkeypatch):
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert module.in_notebook()

    def play(console):
        for event in events:
            console.listen(event)

    few = [line for line in printed(play).splitlines() if "trial 0" in line]
    monkeypatch.delenv("JPY_PARENT_PID")
    many = [line for line in printed(play).splitlines() if "trial 0" in line]
    assert len(few) < len(many)
    first = min(event["time"] for event in events)
    assert len(few) <= (max(event["time"] for event in events) - first) / 10 + 1


def test_a_silent_stage_shows_that_it_lives(monkeypatch):
    monkeypatch.setattr(module, "SIGN_SECONDS", 0.2)
    monkeypatch.setattr(module, "MANY_DOTS", 2)

    def work(console):
        with console.stage("Plan"):
            time.sleep(0.9)

    text = printed(work)
    assert "Plan ..\n" in text  # and a new line for more of them
    assert text.splitlines()[-1].endswith("s")
    assert "Plan: done in" in text.splitlines()[-1]


def test_quiet_leaves_notices_warnings_and_the_end(made):
    def act(console):
        console.notice(SYNTHETIC_NOTICE)
        console.info("unimportant")
        console.show_plan(made.state.plan)
        console.warn("look")
        console.show_end(made.comparison, made.directory.root)

    text = printed(act, quiet=True)
    assert "unimportant" not in text
    assert "bracket" not in text
    assert "look" in text
    assert text.count(SYNTHETIC_NOTICE) == 2


def test_markup_in_texts_is_printed_as_it_is():
    assert "[bold]b[/bold]" in printed(lambda c: c.info("[bold]b[/bold]"))


class Full:
    encoding = "ascii"

    def __init__(self):
        self.tries = 0

    def write(self, text):
        self.tries += 1
        raise OSError(28, "No space left on device")

    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_full_disk_or_a_closed_pipe_ends_the_printing_only():
    file = Full()
    console = Console(live=False, file=file)
    console.info("é")
    console.info("more")
    assert file.tries == 1


@pytest.mark.parametrize("where", [">&-", "> /dev/full", "| head -c 1 > /dev/null"])
def test_a_command_survives_its_output(run, where):
    command = f"{sys.executable} -m search.report {run.root} {where}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 12)])
def test_the_live_view_fits_its_terminal(events, width, height):
    for share in (0.1, 0.3, 0.6, 0.8, 1.0):
        lines = screen(halfway(events, share), width=width, height=height - 1, data="269 images")
        assert len(lines) <= height - 1
        assert max(map(len, lines)) <= width


def test_the_live_view_lists_the_best_by_epochs_with_their_auc(events):
    text = "\n".join(screen(halfway(events, 0.55), width=120))
    assert "robust_loss" in text
    assert "val AUC" in text
    assert "baseline" in text


def test_trials_that_learned_nothing_are_counted_on_the_screen_and_marked_in_the_table(events):
    progress = halfway(events, 0.55)
    ended = next(t for t in progress.trials.values() if t.status is TrialStatus.COMPLETED)
    dead = dataclasses.replace(ended, status=TrialStatus.LEARNED_NOTHING)
    progress.trials[ended.trial_id] = dead
    assert any("1 trial learned nothing" in line for line in screen(progress, width=80, height=23))
    table = printed(lambda c: c.show_trials([dead], objective="robust_loss"))
    assert f"learned nothing: {dead.trial_id}" in table


@pytest.mark.parametrize("height", [9, 12, None])
def test_rows_are_given_up_before_sections(events, height):
    lines = screen(halfway(events, 0.55), width=100, height=height)
    for heading in ("done + training / planned", "epoch ", "val AUC"):
        assert any(heading in line for line in lines)
    assert ("" in lines) == (height is None)  # the gaps go first


def test_where_a_run_stands_is_one_line(events):
    assert "epochs" in standing(halfway(events, 0.3))
    assert standing(halfway(events, 1.0)) == "finished"


def test_an_event_that_no_one_expected_does_not_stop_the_console(made):
    console = Console(live=False, file=io.StringIO())
    console.listen({"event": "epoch", "time": 1.0, "trial_id": "nobody"})
    assert console.state.strange == 1
