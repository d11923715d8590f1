"""Orders, summaries and CSV files of trials."""

import csv
import io
import math

import fake_runs as fake
import pytest
from rich.console import Console
from search.reporting.trials import (
    finalists,
    history_csv,
    ordered,
    refit_histories,
    refit_rows,
    trials_csv,
)
from search.reporting.wording import (
    clock,
    compact,
    described,
    differing,
    duration,
    metric,
    signed,
    size,
    sparkline,
    thousands,
)

from search.records import TrialStatus
from search.reporting import tables


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def printed(renderable, width=80):
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text()


RECORDS = [
    fake.trial("0000", epochs=1, score=0.5),
    fake.trial("0001", epochs=3, score=0.4),
    fake.trial("0002", epochs=3, score=0.3),
    fake.failed("0003"),
    fake.trial("0004", status=TrialStatus.RUNNING, score=None, epochs=2, target_epochs=9),
]


def test_trials_are_ordered_best_first_at_equal_budget_running_then_failed_last():
    ids = [r.trial_id for r in ordered(RECORDS, "min")]
    assert ids == ["0002", "0001", "0000", "0004", "0003"]
    assert [r.trial_id for r in ordered(RECORDS, "max")][:3] == ["0001", "0002", "0000"]


def test_equal_scores_are_ordered_by_fewer_parameters():
    large, small = fake.trial("0001", parameters=9), fake.trial("0002", parameters=5)
    assert ordered([large, small], "min") == [small, large]


def test_finalists_have_one_trial_a_configuration_the_furthest():
    first = fake.trial("0001", configuration=7, epochs=1, score=0.1)
    second = fake.trial("0005", configuration=7, epochs=3, score=0.2, parent="0001")
    assert finalists([first, second, fake.trial("0002", epochs=1)], "min") == [
        second,
        fake.trial("0002", epochs=1),
    ]


def test_only_hyperparameters_that_differ_are_listed():
    values = {**fake.DOCUMENTED, "head": "global_average", "flip": True, "dense_layers": 1}
    del values["tone_jitter"]
    different = differing(values, fake.DOCUMENTED)
    assert different == {"head": "global_average", "dense_layers": 1, "flip": True}
    assert compact(different) == "head=global_average  dense_layers=1  flip=on"
    assert compact({"learning_rate": 0.00123456}, short=True) == "lr=0.00123"


def test_the_documented_configuration_is_named_so():
    assert described(fake.trial("0000"), fake.DOCUMENTED) == "documented configuration"
    assert described(fake.trial("0009"), fake.DOCUMENTED) == "as documented"


def test_the_shortlist_keeps_the_documented_configuration_and_counts_the_rest():
    records = [fake.trial(f"{i:04d}", score=1.0 - i / 100) for i in range(30)]
    shown, hidden = tables.shortlist(records, direction="min", limit=15)
    assert len(shown) == 15
    assert hidden == 15
    assert shown[-1].configuration == 0
    assert shown[0].trial_id == "0029"


def test_the_table_fits_80_columns_and_names_reasons_of_failures():
    records = [*RECORDS, fake.failed("0006", message=fake.NASTY)]
    text = printed(tables.trials_table(records, objective="robust_loss", direction="min", width=80))
    assert max(map(len, text.splitlines())) <= 80
    assert "failed 0003: out_of_memory: no memory" in text
    assert "[bold]b[/bold]" in text
    assert "documented configuration" in text
    assert "2/9" in text


def test_a_wide_table_has_the_hyperparameters_as_a_column():
    other = fake.trial("0001", values={**fake.DOCUMENTED, "flip": True})
    text = printed(
        tables.trials_table(
            [fake.trial("0000"), other], objective="robust_loss", direction="min", width=150
        ),
        width=150,
    )
    assert next(line for line in text.splitlines() if "0001" in line).rstrip().endswith("flip=on")


def test_a_run_without_trials_says_so():
    text = printed(tables.trials_table([], objective="val_auc", direction="max"))
    assert "no trials yet" in text


def test_trials_csv_has_a_row_a_trial_and_every_metric_and_hyperparameter():
    records = [
        fake.trial("0000", metrics={"loss": 0.1, "val_auc": math.nan}),
        fake.failed("0001", message='two\nlines, "quoted"', values={"flip": True, "extra": 1}),
        fake.trial("0002", parent="0000", initial_epoch=1, epochs=3, notes=("half batch", "b")),
    ]
    rows = rows_of(trials_csv(records))
    assert [row["trial_id"] for row in rows] == ["0000", "0001", "0002"]
    assert list(rows[0])[:14] == [
        "trial_id",
        "configuration",
        "iteration",
        "bracket",
        "rung",
        "parent",
        "status",
        "initial_epoch",
        "epochs",
        "seconds",
        "score",
        "parameters",
        "failure",
        "notes",
    ]
    assert rows[0]["loss"] == "0.1"
    assert rows[0]["val_auc"] == ""
    assert {f"hp_{name}" for name in fake.DOCUMENTED} | {"hp_extra"} <= set(rows[0])
    assert rows[0]["hp_extra"] == ""
    assert rows[1]["failure"] == 'out_of_memory: two lines, "quoted"'
    assert rows[1]["score"] == ""
    assert rows[2]["notes"] == "half batch; b"
    assert rows[2]["parent"] == "0000"


def test_history_csv_has_a_row_an_epoch_and_the_later_training_wins():
    def event(epoch, loss):
        return {
            "event": "refit_epoch",
            "role": "winner",
            "seed": 0,
            "epoch": epoch,
            "metrics": {"val_loss": loss},
            "seconds": 2.0,
        }

    events = [event(1, 0.9), event(2, 0.8), {"event": "stage"}, event(1, 0.7), event(2, None)]
    rows = refit_rows(events)
    assert (rows[0]["epoch"], rows[0]["val_loss"]) == (1, 0.7)
    assert len(rows) == 2
    written = rows_of(history_csv(rows))
    assert list(written[0]) == ["role", "seed", "epoch", "seconds", "val_loss"]
    assert written[1]["val_loss"] == ""
    assert list(refit_histories(rows)) == ["winner, seed 0"]


@pytest.mark.parametrize(
    ("trained_as", "names"),
    [
        ("finalist_2", ["documented", "finalist_1", "winner"]),
        ("documented", ["documented", "finalist_1", "finalist_2"]),
        (None, ["documented", "finalist_1", "finalist_2"]),
    ],
)
def test_the_finalist_that_won_is_called_the_winner_once_that_is_known(trained_as, names):
    events = [
        {
            **{"event": "refit_epoch", "role": role, "seed": 0, "epoch": 1},
            **{"metrics": {"val_loss": 0.5}, "seconds": 2.0},
        }
        for role in ("documented", "finalist_1", "finalist_2")
    ]
    found = refit_rows(events, evaluation={"retraining": {"trained_as": trained_as}})
    assert [row["role"] for row in found] == names


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (thousands(950), "950"),
        (thousands(57_601), "57.6k"),
        (thousands(999_600), "1.00M"),
        (thousands(1_325_409), "1.33M"),
        (thousands(None), "–"),
        (duration(0.84), "0.8 s"),
        (duration(42), "42 s"),
        (duration(185), "3 min 05 s"),
        (duration(7800), "2 h 10 min"),
        (duration(3600 * 50), "2 d 2 h"),
        (duration(None), "–"),
        (clock(3725), "1:02:05"),
        (clock(None), "–:––:––"),
        (metric(0.91234), "0.912"),
        (metric(0.00012), "0.00012"),
        (metric(float("nan")), "–"),
        (signed(-0.0312), "−0.031"),
        (size(53_000_000), "53.0 MB"),
        (size(12), "12 bytes"),
        (sparkline([1, 2, math.nan, 3]), "▁▅ █"),
        (sparkline([2, 2]), "▄▄"),
        (sparkline([]), ""),
    ],
)
def test_numbers_are_written_for_people(written, expected):
    assert written == expected
