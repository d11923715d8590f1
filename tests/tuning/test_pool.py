"""Workers: the same results as in one process, and every way of losing a worker."""

import dataclasses
import multiprocessing.process
import os
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from search.errors import DataError, StopRequestedError, StorageError, WorkerError
from search.records import EpochRecord, FailureKind, TrialSpec
from search.tuning import pool as pools
from search.tuning.devices import Gpu, worker_environments
from search.tuning.executors import Pace, TrialStarted, WorkerLost
from search.tuning.model import Setting
from search.tuning.pool import Pool, PoolLimits, Worker, WorkerPool, _ProcessWorker
from search.tuning.trial import train_trial
from search.tuning.worker import Measure, Ready, SharedPipe
from tests.tuning.fakes import fake_result, spec
from tests.tuning.faulty import FaultyHyperModel, HungryHyperModel, UnloadableHyperModel
from tests.tuning.killable import alive


@pytest.fixture
def setting(setting, tmp_path) -> Setting:
    return dataclasses.replace(setting, hypermodel=FaultyHyperModel(tmp_path))


def pool_of(
    setting, folder, workers=2, *, should_stop=lambda: False, **limits
) -> closing[WorkerPool]:
    pool = WorkerPool(
        setting,
        environments=worker_environments(workers),
        log_dir=folder / "logs",
        should_stop=should_stop,
        limits=PoolLimits(**limits),
    )
    return closing(pool)


def finish(pool: WorkerPool, trials: Iterable[TrialSpec]) -> tuple[dict, list]:
    """Train trials; return their results by name, and what was told meanwhile."""
    messages: list = []
    submitted = [pool.submit(trial) for trial in trials]
    results = [pool.wait(messages.append) for _ in submitted]
    return {result.trial_id: result for result in results}, messages


def of(kind: type, messages: list) -> list:
    return [message for message in messages if isinstance(message, kind)]


def test_a_pool_gives_what_one_process_gives_and_survives_a_kill(setting, tmp_path):
    several = {"a": {"filters": 2}, "b": {"filters": 6}, "c": {"filters": 8}}
    alone = {
        name: train_trial(spec(tmp_path / "alone", name, epochs=3, **values), setting)
        for name, values in several.items()
    }
    # Its worker is killed after two epochs, the first of which has been reported.
    several["b"]["fault"] = "die-once"
    with pool_of(setting, tmp_path) as pool:
        assert pool.free == 2
        trials = [spec(tmp_path, name, epochs=3, **values) for name, values in several.items()]
        results, messages = finish(pool, trials)
        assert pool.free == 2
    for name, result in results.items():
        assert result.failure is None
        assert [e.epoch for e in result.epochs] == [1, 2, 3]
        for mine, theirs in zip(result.epochs, alone[name].epochs, strict=True):
            assert mine.metrics == pytest.approx(theirs.metrics, abs=1e-5)
    (lost,) = of(WorkerLost, messages)
    assert (lost.trial_id, lost.retry) == ("b", True)
    assert lost.reason == "killed by SIGKILL, perhaps because memory ran out"
    assert sorted(m.trial_id for m in of(TrialStarted, messages)) == ["a", "b", "b", "c"]
    heard = {(m.trial_id, m.epoch) for m in of(EpochRecord, messages)}
    assert heard == {(name, epoch) for name in "abc" for epoch in (1, 2, 3)}
    assert not any(alive(worker.pid) for worker in pool._workers)


def test_a_trial_that_kills_every_worker_fails_and_the_others_go_on(setting, tmp_path):
    with pool_of(setting, tmp_path, 1, retries=1) as pool:
        trials = [spec(tmp_path, "bad", fault="die"), spec(tmp_path, "good")]
        results, messages = finish(pool, trials)
    assert results["good"].failure is None
    assert results["bad"].failure.kind is FailureKind.WORKER_LOST
    assert "2 times" in results["bad"].failure.message
    assert [lost.retry for lost in of(WorkerLost, messages)] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"stall_timeout": 25.0}, "hung"),
        ({"trial_timeout": 25.0}, "trial timeout of 25 s"),
    ],
)
def test_a_hanging_worker_is_replaced(setting, tmp_path, limits, reason):
    with pool_of(setting, tmp_path, 1, **limits) as pool:
        results, messages = finish(pool, [spec(tmp_path, "a", epochs=3, fault="hang-once")])
    assert results["a"].failure is None
    (lost,) = of(WorkerLost, messages)
    assert reason in lost.reason


def test_a_worker_that_hangs_while_it_loads_or_measures_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "STARTING_SECONDS", 0.0)
    worker = _ProcessWorker(0, environment={}, log_file=tmp_path / "log", setting=b"")
    worker.last_sign -= 100
    given_up = "neither loaded nor measured within 100 s"
    assert given_up in worker.overdue(PoolLimits(stall_timeout=99))
    assert worker.overdue(PoolLimits(stall_timeout=101)) == ""
    assert worker.overdue(PoolLimits(stall_timeout=0)) == ""
    worker.ready = True
    assert worker.overdue(PoolLimits(stall_timeout=99)) == ""
    worker.kill()


class Unkillable:
    """A process that waits for the kernel."""

    def is_alive(self):
        return True

    def kill(self):
        pass

    def join(self, timeout):
        assert timeout is not None


def test_a_worker_that_cannot_be_killed_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "KILLED_SECONDS", 0.0)
    worker = _ProcessWorker(0, environment={}, log_file=tmp_path / "log", setting=b"")
    process, worker.process = worker.process, Unkillable()
    children = multiprocessing.process._children
    # This fails where the library keeps those that it joins at exit elsewhere.
    assert process in children
    children.add(worker.process)
    worker.kill()
    assert worker.process not in children
    assert "left behind" in (tmp_path / "log").read_text()
    process.kill()
    process.join()


@pytest.mark.slow
def test_out_of_memory_in_a_worker_is_retried_at_half_the_batch(setting, tmp_path):
    hungry = dataclasses.replace(setting, hypermodel=HungryHyperModel(8))
    with pool_of(hungry, tmp_path, 1) as pool:
        results, _ = finish(pool, [spec(tmp_path, "a", batch_size=16)])
    assert results["a"].failure is None
    assert results["a"].notes == ("out of memory at batch size 16; retried at 8",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "trials"),
    [({"trials_per_worker": 2}, [2, 1]), ({"worker_memory_mb": 100}, [1, 1])],
)
def test_a_worker_is_replaced_after_some_trials_or_when_it_holds_much_memory(
    setting, tmp_path, limits, trials
):
    with pool_of(setting, tmp_path, 1, **limits) as pool:
        names = "abc"[: sum(trials)]
        _, messages = finish(pool, (spec(tmp_path, name, epochs=1) for name in names))
    assert list(Counter(m.pid for m in of(TrialStarted, messages)).values()) == trials


def test_workers_that_cannot_start_end_the_search_with_the_remedy(setting, tmp_path):
    broken = dataclasses.replace(setting, hypermodel=UnloadableHyperModel())
    with pool_of(broken, tmp_path, 1, start_failures=1) as pool:
        pool.submit(spec(tmp_path, "a"))
        with pytest.raises(WorkerError, match=r"this worker is broken.*--workers 0"):
            pool.wait(lambda message: None)
    assert "this worker is broken" in (tmp_path / "logs" / "worker-0.log").read_text()


@pytest.mark.slow
def test_stopping_keeps_every_finished_epoch(setting, tmp_path):
    messages = []
    with pool_of(setting, tmp_path, should_stop=lambda: bool(of(EpochRecord, messages))) as pool:
        for name in "ab":
            pool.submit(spec(tmp_path, name, epochs=500, fault="slow"))
        with pytest.raises(StopRequestedError):
            pool.wait(messages.append)
    assert {m.trial_id for m in of(EpochRecord, messages)} == {"a", "b"}


class Scripted(Worker):
    """Answers at once, or after being listened to so often; dies when asked to measure."""

    def __init__(self, number: int, log: list, *, loads: int = 0, dies: bool = False) -> None:
        super().__init__(number, log_file=Path("nowhere"))
        self.log, self.loads, self.dies = log, loads, dies
        self.outbox: deque = deque()
        self.dead = False

    end_reason = "killed"

    @property
    def alive(self):
        return not self.dead

    def send(self, task):
        self.log.append((self.number, type(task).__name__))
        if isinstance(task, Measure):
            self.dead = self.dies
            self.outbox.append(Pace(epoch=4.0 + 2 * self.number, trial=2.0))
        elif task is not None:
            self.outbox.append(fake_result(task, value=lambda spec, epoch: 0.5))

    def messages(self):
        self.loads -= 1
        if not self.ready and self.loads < 0:
            yield Ready(device="fake")
        while self.outbox and not self.dead:
            yield self.outbox.popleft()

    def kill(self, deadline=None):
        self.dead = True

    stop = end = kill


class ScriptedPool(Pool):
    """A pool of them; the first of each number is as given, its successor answers at once."""

    def __init__(self, *first: dict, dataset=None, **limits) -> None:
        self.log: list = []
        self.first = dict(enumerate(first))
        super().__init__(
            len(first),
            dataset=dataset,
            description="scripted",
            should_stop=lambda: False,
            limits=PoolLimits(**limits),
        )

    def _start(self, number):
        self.log.append((number, "started"))
        return Scripted(number, self.log, **self.first.pop(number, {}))

    def _await_messages(self):
        pass


def test_the_pace_is_that_of_all_workers_together_when_all_have_loaded():
    pool = ScriptedPool({}, {"loads": 5}, {"loads": 2})
    assert pool.pace({}, seed=1) == Pace(epoch=2.0, trial=pytest.approx(2 / 3))
    assert [what for _, what in pool.log] == ["started"] * 3 + ["Measure"] * 3


def test_a_worker_lost_while_it_measures_holds_nothing_up_and_its_successor_trains(tmp_path):
    pool = ScriptedPool({}, {"dies": True})
    assert pool.pace({}, seed=1).epoch == 2.0
    results, _ = finish(pool, [spec(tmp_path, name) for name in "abcdefghij"])
    assert all(result.failure is None for result in results.values())
    mine = [what for number, what in pool.log if number == 1]
    assert mine[:4] == ["started", "Measure", "started", "TrialSpec"]


def test_workers_that_never_measure_end_the_search():
    with pytest.raises(WorkerError, match="1 workers in a row"):
        ScriptedPool({"dies": True}, start_failures=1).pace({}, seed=1)


def test_time_in_which_everything_was_suspended_does_not_count_as_hung(
    tiny_dataset, tmp_path, monkeypatch
):
    now = [1000.0]
    monkeypatch.setattr(pools.time, "monotonic", lambda: now[0])
    pool = ScriptedPool({}, dataset=tiny_dataset, stall_timeout=600.0, trial_timeout=900.0)
    pool._listen(lambda message: None)
    (worker,) = pool._workers
    worker.spec, worker.begun = spec(tmp_path, "a"), now[0]
    for _ in range(3):
        now[0] += 8 * 3600  # Ctrl-Z over night
        pool._listen(lambda message: None)
    assert pool._workers == [worker]
    for _ in range(100):  # listened to all the time: it is hung
        now[0] += 7
        pool._listen(lambda message: None)
    assert pool._workers != [worker]


def test_images_cut_short_under_a_worker_end_the_search_and_fail_no_trial(setting, tmp_path):
    with pool_of(setting, tmp_path, 1) as pool:
        pool.submit(spec(tmp_path, "a", epochs=500))
        os.truncate(setting.dataset.train.array_file, 200)
        with pytest.raises(DataError, match="--resume"):
            pool.wait(lambda message: None)


def test_a_log_that_cannot_be_made_is_a_storage_error(setting, tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pool_of(setting, tmp_path, 1) as pool, pytest.raises(StorageError, match="--resume"):
        pool.wait(lambda message: None)


@pytest.mark.parametrize("seen", [[], ["gpu:0"]])
def test_a_gpu_that_the_backend_cannot_use_is_none(monkeypatch, seen):
    monkeypatch.setattr(pools.backend, "gpus", lambda: seen)
    monkeypatch.setattr(pools, "find_gpus", lambda: (Gpu(index="0", memory_mb=1),))
    assert len(pools.usable_gpus()) == len(seen)


class Narrow:
    """A pipe that breaks when two send at once, as a connection does."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.taken = False

    def send(self, message):
        assert not self.taken
        self.taken = True
        time.sleep(0.001)
        self.sent.append(message)
        self.taken = False

    recv = poll = None


def test_threads_of_a_worker_send_one_after_another():
    narrow = Narrow()
    pipe = SharedPipe(narrow)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(pipe.send, range(40)))
    assert sorted(narrow.sent) == list(range(40))
