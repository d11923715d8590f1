"""Which directory holds a run to go on with, and which commands are refused."""

import pytest

from search.config import RunConfig
from search.errors import RunDirectoryError
from search.journal import EventKind
from search.records import to_json
from search.run_directory import RunDirectory
from search.tuning.resume import begun, check_same_backend, claim, finished_brackets
from search.tuning.schedule import hyperband

CONFIG = RunConfig(name="run")
ONCE, TWICE = (hyperband(max_epochs=3, factor=3, iterations=n) for n in (1, 2))


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def started(run: RunDirectory, *, backend: str = "tensorflow") -> None:
    run.create()
    run.write_json("config.json", CONFIG)
    run.append(EventKind.RUN_STARTED, backend=backend)


def plan(run: RunDirectory, schedule=ONCE, **fields) -> None:
    run.append(EventKind.PLAN, **{**to_json(schedule.plan(2.0, 1.0)), **fields})


def test_a_run_is_gone_on_with_once_it_has_a_journal_and_until_then_has_any_options(run):
    assert not claim(run, CONFIG, resume=False, overwrite=False)
    run.write_json("config.json", CONFIG)
    assert not claim(run, RunConfig(name="run", seed=9), resume=True, overwrite=False)
    started(run)
    assert claim(run, CONFIG, resume=True, overwrite=False)
    assert not claim(run, CONFIG, resume=False, overwrite=True)


@pytest.mark.parametrize("left", [(), (".lock", ".4711.tmp.config.json"), (".probe-4711",)])
@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_kill_before_the_first_file_was_written_blocks_no_name(run, left, options):
    run.root.mkdir()
    for name in left:
        (run.root / name).touch()
    assert not claim(run, CONFIG, **{"resume": False, "overwrite": False, **options})


def test_a_finished_run_without_its_journal_is_not_cleared_by_a_resume(run):
    run.create()
    run.write_json("config.json", CONFIG)
    run.write_manifest({})
    with pytest.raises(RunDirectoryError, match=r"journal\.jsonl: is missing"):
        claim(run, CONFIG, resume=True, overwrite=False)


def test_what_is_not_a_runs_is_left_alone_and_what_is_not_there_cannot_be_resumed(run):
    with pytest.raises(RunDirectoryError, match="no run to resume"):
        claim(run, CONFIG, resume=True, overwrite=False)
    assert not run.root.exists()
    run.root.mkdir()
    (run.root / "thesis.doc").touch()
    with pytest.raises(RunDirectoryError, match="holds files but no run"):
        claim(run, CONFIG, resume=True, overwrite=False)
    assert [path.name for path in run.root.iterdir()] == ["thesis.doc"]


def test_another_backend_is_refused_but_between_search_and_retraining(run):
    started(run, backend="jax")
    check_same_backend(run, "tensorflow", search_ended=False)
    plan(run)
    run.append(EventKind.TRIAL_CREATED, trial_id="0000-001")
    check_same_backend(run, "jax", search_ended=False)
    with pytest.raises(RunDirectoryError, match="Resume with KERAS_BACKEND=jax"):
        check_same_backend(run, "tensorflow", search_ended=False)
    check_same_backend(run, "tensorflow", search_ended=True)
    started(run, backend="tensorflow")
    run.append(EventKind.REFIT_STARTED, role="finalist_1")
    with pytest.raises(RunDirectoryError, match="Resume with KERAS_BACKEND=tensorflow"):
        check_same_backend(run, "jax", search_ended=True)
    # More trials are of the search again.
    with pytest.raises(RunDirectoryError, match="Resume with KERAS_BACKEND=jax"):
        check_same_backend(run, "tensorflow", search_ended=False)


def test_the_first_pace_holds_and_the_latest_brackets(run):
    started(run)
    assert begun(run.events()) is None
    plan(run, precision="float32")
    assert begun(run.events()).brackets == ()
    run.append(EventKind.TRIAL_CREATED, trial_id="0000-001")
    run.append(EventKind.PLAN, **{**to_json(TWICE.plan(9.0, 9.0)), "precision": "mixed_bfloat16"})
    known = begun(run.events())
    assert (known.pace.epoch, known.pace.trial, known.precision) == (2.0, 1.0, "float32")
    assert known.brackets == TWICE.brackets


def test_a_search_is_finished_when_its_last_plan_ran_to_the_end(run):
    started(run)
    plan(run)
    assert finished_brackets(run.events()) is None
    run.append(EventKind.SEARCH_ENDED, trials=6)
    plan(run, TWICE)
    assert finished_brackets(run.events()) == ONCE.brackets
    run.append(EventKind.SEARCH_ENDED, trials=12)
    assert finished_brackets(run.events()) == TWICE.brackets
