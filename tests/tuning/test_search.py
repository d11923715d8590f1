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


def make(dataset, known: Begun | None = KNOWN, *, after=0.0, since=None, **options) -> Search:
    defaults = {"max_epochs": 3, "max_parameters": 0, "workers": 0, "objective": "robust_loss"}
    return Search(
        RunConfig(**{**defaults, **options}),
        dataset,
        hypermodel=lambda epochs, _: Model(epochs),
        known=known,
        after=lambda pace, workers: after * pace.epoch,
        since=since,
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
    assert all(record.status is TrialStatus.COMPLETED for record in whole)
    assert outcome(search(tuner=kind, max_trials=30, **SMALL)) == outcome(whole)
    # That its rung closed is told again.
    closed = [e for e in search.directory.events() if e["event"] == EventKind.RUNG_CLOSED]
    assert [len(event["ranked"]) for event in closed] == [3, 8]


def test_more_iterations_than_a_small_space_fills_train_the_rest_of_it(search, tiny_dataset):
    first = search(iterations=1, **SMALL)
    more = make(tiny_dataset, begun(search.directory.events()), iterations=4, **SMALL).schedule
    assert "the 3 that the brackets before leave out" in more.notes[0]
    whole = search(iterations=4, **SMALL)
    assert outcome(whole[: len(first)]) == outcome(first)
    assert len({record.configuration for record in whole}) == 8
    rest = whole[len(first) :]
    assert [(r.rung, r.epochs, r.iteration) for r in rest] == [(0, 3, 1)] * 3
    assert outcome(search(iterations=4, **SMALL)) == outcome(whole)
    # Begun at once it needs no halving.
    assert make(tiny_dataset, iterations=4, **SMALL).schedule.epochs == 8 * 3


@pytest.mark.parametrize(
    ("once", "twice"),
    [({"budget": "11epochs"}, {"budget": "22epochs"}), ({"iterations": 1}, {"iterations": 2})],
)
def test_more_of_the_same_brackets_go_on_where_the_search_ended(search, tiny_dataset, once, twice):
    first, whole = search(**once), search(**twice)
    assert outcome(whole[: len(first)]) == outcome(first)
    assert len(whole) == 2 * len(first)
    check_replay(search.directory.root, make(tiny_dataset, **twice).schedule)


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
        return make(
            tiny_dataset,
            None,
            max_epochs=27,
            budget="10m",
            after=after,
            since=time.monotonic() - since,
        ).plan_record(trainings=4)

    alone, beside, late = planned(0.0), planned(400.0), planned(400.0, since=100.0)
    assert alone.estimated_seconds > 400
    assert beside.estimated_seconds <= 200
    assert late.estimated_seconds <= 100
    assert "--budget 10m: 8 min of it" in " ".join(late.notes)
    with pytest.raises(ConfigurationError, match=r"--budget 10m: about 1. min go to .*--refit-"):
        planned(600.0)


@pytest.mark.parametrize(("limit", "said"), [(100, True), (10**6, False), (0, False)])
def test_the_limit_of_parameters_is_for_trials_and_a_baseline_over_it_is_told(
    tiny_dataset, limit, said
):
    made = make(tiny_dataset, None, max_parameters=limit)
    assert made.search_setting.max_parameters == limit
    assert made.refit_setting().max_parameters == 0
    assert made.pace.epoch > 0
    assert any("trial 0" in n and "baseline" in n for n in made.limit_notes()) == said


def test_what_is_too_large_is_drawn_again_and_no_trial_of_it_fails(tiny_dataset, search):
    four = stage.parameters(TinyHyperModel(), {**make(tiny_dataset).defaults, "filters": 4})
    found = search(max_parameters=four, search=("filters", "learning_rate"))
    assert {record.values["filters"] for record in found} <= {2, 4}
    assert all(record.status is TrialStatus.COMPLETED for record in found)


def test_where_nothing_fits_it_is_said_before_anything_is_trained(search):
    with pytest.raises(ConfigurationError, match="--max-parameters 10"):
        search(max_parameters=10, search=("filters",))
    assert not any(e["event"] == EventKind.TRIAL_CREATED for e in search.directory.events())


def test_an_earlier_runs_best_is_the_prior_and_is_tried_first(tiny_dataset, tmp_path):
    def earlier(values):
        run.write_json("best_hyperparameters.json", {"trial_id": "x", "values": values})
        return make(tiny_dataset, prior="earlier", results_dir=str(tmp_path))

    run = RunDirectory(tmp_path / "earlier")
    run.create()
    made = make(tiny_dataset)
    assert {name: belief.value for name, belief in made.prior.items()} == made.defaults
    assert made.queue == [made.defaults]
    values = {**made.defaults, "filters": 8}
    assert earlier(values).queue[1] == values
    with pytest.raises(ConfigurationError, match="another space"):
        earlier({"depth": 3})
    with pytest.raises(ConfigurationError, match=r"nowhere: .*no such file.*search has ended"):
        make(tiny_dataset, prior="nowhere", results_dir=str(tmp_path))


def test_a_partial_entry_of_the_queue_is_completed_with_what_is_fixed(tiny_dataset):
    made = make(tiny_dataset, fix={"filters": "8"}, enqueue=({"batch_size": 16}, {"filters": 2}))
    baseline, centre, partial, full = made.queue
    assert centre["filters"] == 8
    assert baseline["filters"] == 4
    assert (partial["filters"], partial["batch_size"]) == (8, 16)
    assert full["filters"] == 2


@pytest.mark.parametrize("ended", [False, True])
def test_workers_are_started_until_a_search_has_ended_however_many_trials_failed(
    tiny_dataset, search, monkeypatch, ended
):
    asked, journal, made = [], search.directory, make(tiny_dataset, workers=3)

    def open_executor(setting, workers, **_):
        asked.append(workers)
        return InProcessExecutor(setting, should_stop=lambda: False)

    monkeypatch.setattr(stage, "open_executor", open_executor)
    journal.append(EventKind.PLAN, **to_json(made.schedule.plan(1.0, 0.0)))
    for _ in range(made.schedule.trials):  # replacements count among them
        journal.append(EventKind.TRIAL_ENDED, status=TrialStatus.FAILED)
    if ended:
        journal.append(EventKind.SEARCH_ENDED)
    with made.executor(journal, lambda: False):
        assert asked == [0 if ended else 3]
