"""The search stage of a run: what it trains with, and how far it may be changed when resumed."""

import time

import pytest

from search.config import RunConfig, TunerKind
from search.errors import ConfigurationError, RunDirectoryError
from search.journal import EventKind
from search.records import TrialRecord, TrialStatus, to_json
from search.run_directory import RunDirectory
from search.tuning import search as stage
from search.tuning import space as spaces
from search.tuning.executors import InProcessExecutor, Pace
from search.tuning.resume import Begun, begun
from search.tuning.search import Search
from tests.tuning.fakes import FakeExecutor, TinyHyperModel
from tests.tuning.replay import check_replay, outcome

KNOWN = Begun(pace=Pace(epoch=1.0, trial=0.0), precision="float32", brackets=())


class Model(TinyHyperModel):
    """Knows how many epochs its learning-rate schedule spans."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs


def make(dataset, known: Begun | None = KNOWN, **options) -> Search:
    options = {"max_epochs": 3, "max_parameters": 0, "workers": 0, **options}
    options.setdefault("objective", "robust_loss")
    return Search(
        RunConfig(**options), dataset, hypermodel=lambda epochs, _: Model(epochs), known=known
    )


@pytest.fixture
def search(tiny_dataset, tmp_path):
    """Return a function that searches as a process of one run would, with fake trials."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()

    def run(**options) -> list[TrialRecord]:
        searching = make(tiny_dataset, begun(directory.events()) or KNOWN, **options)
        searching.refuse_other(directory)
        directory.write_json("config.json", searching.config)
        directory.append(EventKind.PLAN, **to_json(searching.schedule.plan(1.0, 0.0)))
        return searching.loop(directory, FakeExecutor(workers=2), lambda event: None).search()

    run.directory = directory
    return run


SMALL = {"search": ("filters", "batch_size")}
"""Leaves 8 configurations."""


@pytest.mark.parametrize("kind", [TunerKind.RANDOM, TunerKind.BAYESIAN, TunerKind.GRID])
def test_a_longer_search_of_a_small_space_goes_on_to_its_end(search, kind):
    first = search(tuner=kind, max_trials=3, **SMALL)
    assert len(first) == 3
    whole = search(tuner=kind, max_trials=30, **SMALL)
    assert outcome(whole[:3]) == outcome(first)
    assert len({spaces.key(record.values) for record in whole}) == len(whole) == 8
    assert outcome(search(tuner=kind, max_trials=30, **SMALL)) == outcome(whole)


def test_more_iterations_than_a_small_space_fills_train_the_rest_of_it(search):
    first = search(iterations=1, **SMALL)
    whole = search(iterations=4, **SMALL)
    assert outcome(whole[: len(first)]) == outcome(first)
    assert len({record.configuration for record in whole}) == 8
    rest = whole[len(first) :]
    assert [(r.rung, r.epochs, r.iteration) for r in rest] == [(0, 3, 1)] * 3
    assert outcome(search(iterations=4, **SMALL)) == outcome(whole)


def test_a_larger_budget_is_accepted_where_it_repeats_the_brackets(search, tiny_dataset):
    first = search(budget="11epochs")
    whole = search(budget="22epochs")
    assert outcome(whole[: len(first)]) == outcome(first)
    assert len(whole) == 2 * len(first)
    schedule = make(tiny_dataset, budget="22epochs").schedule
    check_replay(search.directory.root, schedule)


@pytest.mark.parametrize(("before", "after"), [("5epochs", "11epochs"), ("22epochs", "11epochs")])
def test_a_budget_whose_brackets_are_others_is_refused_and_the_run_stays_as_it_was(
    search, before, after
):
    first = search(budget=before)
    written = (search.directory.root / "config.json").read_bytes()
    with pytest.raises(RunDirectoryError, match=f"budget: '{before}' → '{after}'"):
        search(budget=after)
    assert (search.directory.root / "config.json").read_bytes() == written
    assert outcome(search(budget=before)) == outcome(first)


def test_a_journal_with_other_values_is_refused_before_anything_is_written(search):
    search(**SMALL)
    journal = search.directory.journal_file
    journal.write_text(journal.read_text().replace('"batch_size": 16', '"batch_size": 8'))
    before = journal.read_bytes()
    with pytest.raises(RunDirectoryError, match="not reproduced"):
        search(iterations=2, **SMALL)
    assert journal.read_bytes() == before
    assert search.directory.read_json("config.json")["iterations"] == 1


@pytest.mark.parametrize("budget", ["", "5epochs", "100epochs"])
def test_schedules_of_the_learning_rate_span_the_epochs_that_the_budget_leaves(
    tiny_dataset, budget
):
    made = make(tiny_dataset, None, max_epochs=27, budget=budget)
    planned = made.schedule.max_epochs
    assert made.search_setting.hypermodel.epochs == planned
    assert (planned < 27) == bool(budget)
    assert made.refit_setting().hypermodel.epochs == made.config.refit_epochs


def test_a_budget_in_time_settles_that_span_when_the_pace_is_known(
    tiny_dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(InProcessExecutor, "pace", lambda *_, **__: KNOWN.pace)
    made = make(tiny_dataset, None, max_epochs=27, budget="100s", workers=0)
    directory = RunDirectory(tmp_path)
    with made.executor(directory, lambda: False) as executor:
        planned = made.schedule.max_epochs
        assert planned < 27
        assert executor._setting.hypermodel.epochs == planned
        directory.append(EventKind.PLAN, **to_json(made.plan_record(trainings=2)))
    # A resumed run knows the pace from its beginning, and what was spent before.
    resumed = make(tiny_dataset, begun(directory.events()), max_epochs=27, budget="100s")
    assert resumed.schedule == made.schedule


def test_a_budget_in_time_leaves_what_the_rest_of_the_run_needs(tiny_dataset, monkeypatch):
    monkeypatch.setattr(stage, "measure_pace", lambda *_, **__: Pace(epoch=1.0, trial=2.0))

    def planned(after: float, since: float = 0.0):
        return Search(
            RunConfig(max_epochs=27, max_parameters=0, budget="10m", objective="robust_loss"),
            tiny_dataset,
            hypermodel=lambda epochs, _: Model(epochs),
            after=lambda pace, workers: after * pace.epoch,
            since=time.monotonic() - since,
        ).plan_record(trainings=4)

    alone, beside, late = planned(0.0), planned(400.0), planned(400.0, since=100.0)
    assert alone.estimated_seconds > 400
    assert beside.estimated_seconds <= 200
    assert late.estimated_seconds <= 100
    assert "--budget 10m: 8 min of it" in " ".join(late.notes)
    with pytest.raises(ConfigurationError, match=r"--budget 10m: about 1. min go to .*--refit-"):
        planned(600.0)


def test_the_limit_of_parameters_is_for_trials_and_not_for_control_and_winner(tiny_dataset):
    made = make(tiny_dataset, None, max_parameters=100)
    assert made.search_setting.max_parameters == 100
    assert made.refit_setting().max_parameters == 0
    assert made.pace.epoch > 0


@pytest.mark.parametrize(("limit", "said"), [(100, True), (10**6, False), (0, False)])
def test_a_baseline_over_the_limit_is_told(tiny_dataset, limit, said):
    notes = make(tiny_dataset, max_parameters=limit).limit_notes()
    assert any("trial 0" in note and "baseline" in note for note in notes) == said


def test_what_is_too_large_is_drawn_again_and_no_trial_of_it_fails(tiny_dataset, search):
    four = stage.parameters(TinyHyperModel(), {**make(tiny_dataset).defaults, "filters": 4})
    found = search(max_parameters=four, search=("filters", "learning_rate"))
    assert {record.values["filters"] for record in found} <= {2, 4}
    assert all(record.status is TrialStatus.COMPLETED for record in found)


def test_where_nothing_fits_it_is_said_before_anything_is_trained(search):
    with pytest.raises(ConfigurationError, match="--max-parameters 10"):
        search(max_parameters=10, search=("filters", "learning_rate"))
    assert not any(e["event"] == EventKind.TRIAL_CREATED for e in search.directory.events())


def test_without_a_belief_of_the_model_its_defaults_are_the_prior(tiny_dataset):
    made = make(tiny_dataset)
    assert {name: belief.value for name, belief in made.prior.items()} == made.defaults
    assert made.queue == [made.defaults]


def test_an_earlier_runs_best_is_the_prior_and_is_tried_first(tiny_dataset, tmp_path):
    run = RunDirectory(tmp_path / "earlier")
    run.create()
    values = {**make(tiny_dataset).defaults, "filters": 8}
    run.write_json("best_hyperparameters.json", {"trial_id": "x", "values": values})
    made = make(tiny_dataset, prior="earlier", results_dir=str(tmp_path))
    assert made.queue[1] == values
    with pytest.raises(
        ConfigurationError, match=r"--prior nowhere: .*no such file.*search has ended"
    ):
        make(tiny_dataset, prior="nowhere", results_dir=str(tmp_path))
    run.write_json("best_hyperparameters.json", {"trial_id": "x", "values": {"depth": 3}})
    with pytest.raises(ConfigurationError, match="another space"):
        make(tiny_dataset, prior="earlier", results_dir=str(tmp_path))


def test_a_partial_entry_of_the_queue_is_completed_with_what_is_fixed(tiny_dataset):
    made = make(tiny_dataset, fix={"filters": "8"}, enqueue=({"batch_size": 16}, {"filters": 2}))
    baseline, centre, partial, full = made.queue
    assert centre["filters"] == 8
    assert baseline["filters"] == 4
    assert (partial["filters"], partial["batch_size"]) == (8, 16)
    assert full["filters"] == 2


@pytest.mark.parametrize("ended", [False, True])
def test_workers_are_started_until_a_search_has_ended_however_many_trials_failed(
    tiny_dataset, tmp_path, monkeypatch, ended
):
    asked = []

    def open_executor(setting, workers, **_):
        asked.append(workers)
        return InProcessExecutor(setting, should_stop=lambda: False)

    monkeypatch.setattr(stage, "open_executor", open_executor)
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    made = make(tiny_dataset, workers=3)
    schedule = made.schedule
    directory.append(EventKind.PLAN, **to_json(schedule.plan(1.0, 0.0)))
    for _ in range(schedule.trials):  # replacements count among them
        directory.append(EventKind.TRIAL_ENDED, status=TrialStatus.FAILED)
    if ended:
        directory.append(EventKind.SEARCH_ENDED)
    with made.executor(directory, lambda: False):
        assert asked == [0 if ended else 3]
