"""The retraining stage: what is trained, journaled, chosen, and found again after a kill."""

import contextlib
import dataclasses
from collections import deque

import pytest

from search.config import RefitOn, RunConfig
from search.errors import StopRequestedError
from search.records import EpochRecord, Failure, FailureKind, TrialRecord, TrialResult, TrialStatus
from search.run_directory import RunDirectory
from search.scoring.retrain import Retraining, recipe
from search.tuning import checkpoint
from search.tuning.executors import TrialStarted

DOCUMENTED = {"schedule": "constant", "size": 1}
BETTER = {"schedule": "constant", "size": 2}


class FakeExecutor:
    """Trains nothing: the loss is smaller for larger sizes and best in the second epoch."""

    def __init__(self, workers=1, *, fail=(), stop_after=None):
        self.workers, self.fail, self.left = workers, fail, stop_after
        self.queue, self.specs = deque(), []

    @property
    def free(self):
        return self.workers - len(self.queue)

    def submit(self, spec):
        assert self.free > 0
        self.queue.append(spec)

    def wait(self, on_message):
        # The last submitted first: results come in another order than they were asked for.
        spec = self.queue.pop()
        self.specs.append(spec)
        on_message(TrialStarted(trial_id=spec.trial_id, worker=0, pid=1, device="fake"))
        epochs = []
        for number in range(1, spec.epochs + 1):
            if self.left == 0:
                raise StopRequestedError("as asked")
            self.left = None if self.left is None else self.left - 1
            loss = 1 / spec.values["size"] + 0.1 * abs(number - 2) + (spec.seed % 7) / 100
            metrics = {"loss": loss, "robust_loss": loss}
            epochs.append(
                EpochRecord(trial_id=spec.trial_id, epoch=number, metrics=metrics, seconds=0.0)
            )
            on_message(epochs[-1])
        spec.directory.mkdir(parents=True, exist_ok=True)
        (spec.directory / checkpoint.BEST).touch()
        failure = None
        if spec.trial_id in self.fail:
            failure = Failure(kind=FailureKind.ERROR, message="injected")
        return TrialResult(
            trial_id=spec.trial_id,
            epochs=tuple(epochs),
            parameters=10 * spec.values["size"],
            seconds=0.0,
            best_epoch=min(2, spec.epochs),
            failure=failure,
        )


def record(number, values):
    epoch = EpochRecord(
        trial_id=f"t{number}", epoch=1, metrics={"robust_loss": 1 / values["size"]}, seconds=0
    )
    return TrialRecord(
        trial_id=f"t{number}",
        configuration=number,
        status=TrialStatus.COMPLETED,
        values=values,
        epochs=1,
        target_epochs=1,
        history=(epoch,),
    )


RECORDS = [record(0, DOCUMENTED), record(1, BETTER)]

# The search was wrong about it: retrained, it is worse than the documented configuration.
WORSE = dataclasses.replace(
    record(1, {"schedule": "constant", "size": 0.5}), history=RECORDS[1].history
)


@pytest.fixture
def stage(tmp_path):
    """Return a function that retrains and gives candidates, the executor and the journal."""

    def retrain(records=RECORDS, *, executor=None, precision="float32", **options):
        fake = executor or FakeExecutor()
        asked = []

        @contextlib.contextmanager
        def crew(setting, *, trainings):
            asked.append((setting, trainings))
            yield fake

        directory = RunDirectory(tmp_path / "run")
        directory.create()
        config = RunConfig(**{"refit_epochs": 3, "refit_seeds": 2, **options})
        events = []
        candidates = Retraining(
            config,
            documented=DOCUMENTED,
            precision=precision,
            directory=directory,
            listener=events.append,
        ).retrain(records, crew, setting="train", final_setting="everything")
        return candidates, fake, directory, asked, config

    return retrain


def test_finalists_and_control_are_trained_and_validation_chooses(stage):
    candidates, _, directory, asked, _ = stage()
    assert [(c.role, c.seed, c.kept_epoch) for c in candidates] == [
        ("baseline", 0, 2),
        ("baseline", 1, 2),
        ("winner", 0, 2),
        ("winner", 1, 2),
    ]
    assert asked == [("train", 4)]
    assert directory.read_json("best_hyperparameters.json")["values"] == BETTER
    kinds = [event["event"] for event in directory.events()]
    assert kinds.count("refit_started") == kinds.count("refit_ended") == 4
    assert kinds.count("refit_epoch") == 12


def test_the_number_of_workers_changes_nothing(stage):
    one = stage(executor=FakeExecutor(1))[0]
    assert stage(executor=FakeExecutor(3))[0] == one


def test_what_is_finished_is_not_trained_by_workers_nor_journaled_again(stage):
    stage()
    _, _, directory, asked, _ = stage()
    assert asked == [("train", 0)]
    epochs = [
        (e["role"], e["seed"], e["epoch"])
        for e in directory.events()
        if e["event"] == "refit_epoch"
    ]
    assert len(epochs) == len(set(epochs)) == 12


def test_a_stopped_retraining_goes_on(stage):
    with pytest.raises(StopRequestedError):
        stage(executor=FakeExecutor(stop_after=5))
    _, _, directory, asked, _ = stage()
    assert asked == [("train", 3)]
    epochs = [e for e in directory.events() if e["event"] == "refit_epoch"]
    assert len(epochs) == 12


def test_another_training_under_the_same_name_is_journaled_anew(stage):
    stage()
    _, _, directory, asked, _ = stage(refit_patience=4)
    assert asked == [("train", 2)]
    winner = [
        e for e in directory.events() if e["event"] == "refit_epoch" and e["role"] == "finalist_1"
    ]
    assert len(winner) == 12


def test_options_are_the_finalists_and_the_control_stays_as_documented(stage):
    options = {"refit_patience": 4}
    _, fake, _, _, _ = stage(precision="mixed_bfloat16", **options)
    for spec in fake.specs:
        ours = spec.trial_id.startswith("finalist")
        assert spec.early_stopping == (4 if ours else 0)
        assert spec.precision == ("mixed_bfloat16" if ours else "float32")


def test_the_documented_configuration_as_the_best_is_trained_once_unless_options_differ(stage):
    candidates, fake, _, _, _ = stage(RECORDS[:1])
    assert {spec.trial_id for spec in fake.specs} == {"baseline-0", "baseline-1"}
    assert [c.role for c in candidates] == ["baseline"] * 2 + ["winner"] * 2
    _, fake, _, _, _ = stage(RECORDS[:1], refit_patience=4, precision="mixed_bfloat16")
    ours = [spec for spec in fake.specs if spec.trial_id.startswith("finalist")]
    assert len(ours) == 2
    assert {spec.precision for spec in ours} == {"float32"}


def test_an_ensemble_comes_last_and_its_size_is_stated(stage):
    candidates, _, _, _, config = stage(ensemble=True)
    combined = candidates[-1]
    assert (combined.role, combined.seed, combined.parameters) == ("winner", None, 40)
    assert [member.seed for member in combined.members] == [0, 1]
    said = recipe(config, candidates, precision="float32")
    assert said["ensemble"] == {"members": 2, "parameters": 40}
    assert "40 parameters" in said["notes"][0]


def test_on_train_and_validation_each_seed_is_trained_to_its_kept_epoch(stage):
    candidates, fake, directory, asked, config = stage(
        refit_on=RefitOn.TRAIN_AND_VALIDATION, ensemble=True
    )
    assert asked == [("train", 4), ("everything", 2)]
    final = [spec for spec in fake.specs if spec.trial_id.startswith("winner_train+val")]
    assert [spec.epochs for spec in final] == [2, 2]
    winners = [c for c in candidates if c.role == "winner" and not c.members]
    assert [c.final_weights.parent.name for c in winners] == [
        next(s.directory.name for s in final if s.trial_id == f"winner_train+val-{c.seed}")
        for c in winners
    ]
    assert all(c.final_weights is None for c in candidates if c.role == "baseline")
    assert candidates[-1].final_weights is not None
    said = recipe(config, candidates, precision="float32")
    assert said["trained_on"] == "train+val"
    assert "train alone" in said["notes"][0]
    roles = {e["role"] for e in directory.events() if "role" in e}
    assert roles == {"baseline", "finalist_1", "winner_train+val"}


def test_a_seed_that_fails_on_train_and_validation_is_left_out(stage):
    fake = FakeExecutor(fail={"winner_train+val-0"})
    candidates = stage(executor=fake, refit_on=RefitOn.TRAIN_AND_VALIDATION)[0]
    assert [c.seed for c in candidates if c.role == "winner"] == [1]


def test_with_several_finalists_the_mean_over_seeds_decides(stage):
    best = {"schedule": "constant", "size": 3}
    records = [*RECORDS, record(2, best)]
    records[2] = dataclasses.replace(records[2], history=RECORDS[0].history)
    candidates, _, directory, _, _ = stage(records, top=3)
    assert {c.values["size"] for c in candidates if c.role == "winner"} == {3}
    assert directory.read_json("best_hyperparameters.json")["trial_id"] == "t2"


def test_the_control_wins_where_no_finalist_is_better_though_the_search_thought_so(stage):
    candidates, fake, directory, _, config = stage([RECORDS[0], WORSE], ensemble=True)
    ours = [c for c in candidates if c.role == "winner" and not c.members]
    control = [c for c in candidates if c.role == "baseline"]
    assert [c.weights_file for c in ours] == [c.weights_file for c in control]
    assert candidates[-1].members == tuple(ours)
    assert directory.read_json("best_hyperparameters.json") == {
        "trial_id": "t0",
        "values": DOCUMENTED,
    }
    assert len(fake.specs) == 4
    assert recipe(config, candidates, precision="float32")["trained_as"] == "baseline"


def test_a_control_that_wins_is_trained_once_more_as_it_was_and_has_no_finalists_options(stage):
    options = {"refit_patience": 4}
    candidates, fake, _, _, config = stage(
        [RECORDS[0], WORSE],
        precision="mixed_bfloat16",
        refit_on=RefitOn.TRAIN_AND_VALIDATION,
        **options,
    )
    final = [spec for spec in fake.specs if spec.trial_id.startswith("winner_train+val")]
    assert [(s.values, s.precision) for s in final] == [(DOCUMENTED, "float32")] * 2
    said = recipe(config, candidates, precision="mixed_bfloat16")
    assert said["patience"] == 0
    assert said["precision"] == "float32"
    assert said["trained_on"] == "train+val"


def test_a_finalist_that_was_trained_under_another_name_is_not_trained_again(stage):
    _, _, directory, _, _ = stage()
    for folder in directory.refit_dir.glob("finalist_1-*"):
        folder.rename(folder.with_name(folder.name.replace("finalist_1", "winner")))
    journal = directory.journal_file.read_text().replace("finalist_1", "winner")
    directory.journal_file.write_text(journal)
    candidates, _, _, asked, _ = stage()
    assert asked == [("train", 0)]
    ours = [c for c in candidates if c.role == "winner"]
    assert {c.weights_file.parent.name.split("-")[0] for c in ours} == {"winner"}
