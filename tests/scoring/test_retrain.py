"""The retraining stage: what is trained, journaled, chosen, and found again after a kill."""

import contextlib
import dataclasses
import math

import pytest
from fake_executor import OBJECTIVE, FakeExecutor

from search.config import RefitOn, RunConfig
from search.errors import SearchFailedError, StopRequestedError
from search.records import EpochRecord, TrialRecord, TrialStatus
from search.run_directory import RunDirectory
from search.scoring.retrain import retrain, trainings

DEFAULTS = {"size": 1}


def record(number, size, *, found=None, status=TrialStatus.COMPLETED):
    """Return a trial; the search found it as good as one of another size."""
    metrics = {OBJECTIVE: 1 / (found or size)}
    epoch = EpochRecord(trial_id=f"t{number}", epoch=1, metrics=metrics, seconds=0)
    return TrialRecord(
        trial_id=f"t{number}", configuration=number, status=status, values={"size": size},
        epochs=1, target_epochs=1, history=(epoch,),
    )  # fmt: skip


RECORDS = [record(0, 1), record(1, 2)]


@pytest.fixture
def stage(tmp_path):
    """Return a function that retrains; it gives the result, the executor and what was asked."""

    def run(records=RECORDS, *, executor=None, precision="float32", **options):
        fake = executor or FakeExecutor()
        asked = []

        @contextlib.contextmanager
        def open_executor(setting, *, trainings):
            asked.append((setting, trainings))
            yield fake

        directory = RunDirectory(tmp_path / "run")
        directory.create()
        fixed = {"objective": OBJECTIVE, "refit_epochs": 3, "refit_seeds": 2, "top": 1}
        found = retrain(
            RunConfig(**{**fixed, **options}), records, defaults=DEFAULTS, precision=precision,
            directory=directory, listener=lambda event: None, open_executor=open_executor,
            setting="train", final_setting="everything",
        )  # fmt: skip
        return found, fake, directory, asked

    return run


def trained(fake):
    return sorted(spec.trial_id for spec in fake.specs)


def epochs(directory):
    kind = "refit_epoch"
    return [(e["role"], e["seed"], e["epoch"]) for e in directory.events() if e["event"] == kind]


def test_finalists_race_over_seeds_and_the_baseline_gets_every_seed(stage):
    # The search was wrong about the second: it is the best when it is retrained.
    records = [record(0, 1), record(1, 3, found=9), record(2, 5, found=8), record(3, 2, found=7)]
    found, fake, directory, asked = stage(records, top=3, refit_seeds=3)
    assert trained(fake) == [
        "baseline-0", "baseline-1", "baseline-2",
        "finalist_1-0", "finalist_1-1", "finalist_1-2",
        "finalist_2-0", "finalist_2-1", "finalist_2-2",
        "finalist_3-0", "finalist_3-1",
    ]  # fmt: skip
    assert [count for _, count in asked] == [9, 2]
    assert [network.seed for network in found.winner] == [0, 1, 2]
    assert found.winner[0].recipe.values == {"size": 5}
    assert found.recipe.trained_as == "finalist_2"
    assert [(one.role, sorted(one.scores)) for one in found.finalists] == [
        ("finalist_2", [0, 1, 2]), ("finalist_1", [0, 1, 2]), ("finalist_3", [0, 1]),
        ("baseline", [0, 1, 2]),
    ]  # fmt: skip
    assert directory.read_json("best_hyperparameters.json")["trial_id"] == "t2"


@pytest.mark.parametrize(
    ("finalists", "seeds", "count"),
    [(3, 3, 11), (1, 3, 6), (3, 1, 4), (2, 2, 6), (2, 5, 12), (0, 2, 2)],
)
def test_the_number_of_trainings_is_known_before(finalists, seeds, count):
    assert trainings(RunConfig(refit_seeds=seeds), finalists=finalists) == count


def test_the_number_of_workers_changes_nothing(stage):
    assert stage(executor=FakeExecutor(3))[0] == stage(executor=FakeExecutor(1))[0]


def test_what_is_finished_is_not_trained_by_workers_nor_journaled_again(stage):
    found, _, directory, _ = stage()
    assert {network.kept_epoch for network in (*found.baseline, *found.winner)} == {2}
    kinds = [event["event"] for event in directory.events()]
    assert kinds.count("refit_started") == kinds.count("refit_ended") == 4
    *_, asked = stage()
    assert {count for _, count in asked} == {0}
    assert len(epochs(directory)) == len(set(epochs(directory))) == 12


def test_a_stopped_retraining_goes_on(stage):
    with pytest.raises(StopRequestedError):
        stage(executor=FakeExecutor(stop_after=5))
    _, _, directory, asked = stage()
    assert asked[0] == ("train", 3)
    assert len(epochs(directory)) == 12


def test_another_training_under_the_same_role_is_trained_and_journaled(stage):
    stage()
    _, _, directory, asked = stage(refit_patience=4)
    assert asked[0] == ("train", 2)
    assert [role for role, *_ in epochs(directory)].count("finalist_1") == 12


def test_the_same_training_under_another_role_is_found_again(stage):
    stage()
    _, fake, _, asked = stage([record(0, 1), record(1, 3), record(2, 2)], top=2)
    assert asked[0] == ("train", 2)  # the new finalist's seeds
    assert len({spec.directory.name for spec in fake.specs}) == len(fake.specs)


def test_options_are_the_finalists_and_the_baseline_stays_as_it_is(stage):
    _, fake, _, _ = stage(precision="mixed_bfloat16", refit_patience=4)
    for spec in fake.specs:
        finalist = spec.trial_id.startswith("finalist")
        assert spec.early_stopping == (4 if finalist else 0)
        assert spec.precision == ("mixed_bfloat16" if finalist else "float32")


def test_the_defaults_as_the_best_are_trained_once_unless_options_differ(stage):
    found, fake, _, _ = stage(RECORDS[:1])
    assert trained(fake) == ["baseline-0", "baseline-1"]
    assert found.winner == found.baseline
    _, fake, _, _ = stage(RECORDS[:1], refit_patience=4, precision="mixed_bfloat16")
    finalists = [spec for spec in fake.specs if spec.trial_id.startswith("finalist")]
    assert {spec.precision for spec in finalists} == {"float32"}


def test_what_learned_nothing_is_never_retrained_and_alone_leaves_the_baseline(stage):
    dead = record(1, 9, status=TrialStatus.LEARNED_NOTHING)
    found, fake, _, _ = stage([dataclasses.replace(RECORDS[0], values={"size": 2}), dead], top=3)
    assert {spec.values["size"] for spec in fake.specs} == {1, 2}
    found, fake, _, _ = stage([dead])
    assert found.winner == found.baseline


def test_a_finalist_that_learned_nothing_when_retrained_does_not_win(stage):
    found, _, _, _ = stage(executor=FakeExecutor(dead={"finalist_1-0"}))
    assert found.recipe.trained_as == "baseline"
    (finalist,) = (one for one in found.finalists if one.role == "finalist_1")
    assert math.isnan(finalist.scores[0])


def test_the_baseline_wins_where_no_finalist_is_better_though_the_search_thought_so(stage):
    found, fake, directory, _ = stage([RECORDS[0], record(1, 0.5, found=2)], ensemble=True)
    assert found.winner == found.baseline
    assert found.recipe.ensemble == 2
    best = {"trial_id": "t0", "values": DEFAULTS}
    assert directory.read_json("best_hyperparameters.json") == best
    assert len(fake.specs) == 4
    assert found.recipe.trained_as == "baseline"


def test_a_finalist_that_fails_is_out_of_the_race_and_named(stage):
    records = [*RECORDS, record(2, 3)]
    fake = FakeExecutor(fail={"finalist_1-0", "finalist_1-1"})
    found, _, _, _ = stage(records, top=2, executor=fake)
    assert found.recipe.trained_as == "finalist_2"
    (failed,) = (one for one in found.finalists if one.role == "finalist_1")
    assert (failed.failure, failed.scores) == ("injected", {})


@pytest.mark.parametrize("role", ["baseline", "finalist_1"])
def test_a_role_that_fails_with_every_seed_ends_the_run(stage, role):
    with pytest.raises(SearchFailedError, match=f"{role} configuration failed with every seed"):
        stage(executor=FakeExecutor(fail={f"{role}-0", f"{role}-1"}))


def test_on_train_and_validation_each_seed_is_trained_to_its_kept_epoch(stage):
    found, fake, directory, asked = stage(refit_on=RefitOn.TRAIN_AND_VALIDATION, ensemble=True)
    assert found.recipe.ensemble == 2
    assert any("40 parameters" in note for note in found.recipe.notes)
    assert asked[-1] == ("everything", 2)
    final = [spec for spec in fake.specs if spec.trial_id.startswith("winner_train+val")]
    assert [spec.epochs for spec in final] == [2, 2]
    assert {network.final_weights.parent for network in found.winner} == {
        spec.directory for spec in final
    }
    assert all(network.final_weights is None for network in found.baseline)
    assert found.recipe.trained_on == "train+val"
    assert any("train alone" in note for note in found.recipe.notes)
    roles = {e["role"] for e in directory.events() if "role" in e}
    assert roles == {"baseline", "finalist_1", "winner_train+val"}


def test_a_seed_that_fails_on_train_and_validation_is_left_out(stage):
    fake = FakeExecutor(fail={"winner_train+val-0"})
    found, *_ = stage(executor=fake, refit_on=RefitOn.TRAIN_AND_VALIDATION)
    assert [network.seed for network in found.winner] == [1]
