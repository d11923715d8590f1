"""What a pool does with its workers, without any process."""

from collections import deque

from search.tuning.pooling import Pool, PoolLimits, Worker
from search.tuning.timing import Pace
from search.tuning.worker import Go, Measure, Prepared, Ready
from tests.tuning.fakes import fake_result
from tests.tuning.test_trial import spec


class Scripted(Worker):
    """Answers at once, or after being listened to so often; dies when told to."""

    def __init__(self, number: int, log: list, *, loads: int = 0, compiles: int = 0) -> None:
        super().__init__(number, place="nowhere")
        self.log = log
        self.loads, self.compiles = loads, compiles
        self.outbox: deque = deque()
        self.dead = False

    @property
    def alive(self):
        return not self.dead

    @property
    def end_reason(self):
        return "killed"

    def send(self, task):
        self.log.append((self.number, type(task).__name__))
        if isinstance(task, Go):
            self.outbox.append(Pace(epoch=1.0 + self.number, trial=1.0))
        elif not isinstance(task, Measure) and task is not None:
            self.outbox.append(fake_result(task, value=lambda spec, epoch: 0.5))

    def messages(self):
        if not self.ready:
            self.loads -= 1
            if self.loads < 0:
                yield Ready(device="fake")
        elif self.measuring and not self.prepared:
            self.compiles -= 1
            if self.compiles < 0:
                self.log.append((self.number, "compiled"))
                yield Prepared()
        while self.outbox:
            yield self.outbox.popleft()

    def dismiss(self):
        self.dead = True

    def end(self, deadline):
        self.dead = True

    def kill(self):
        self.dead = True


class ScriptedPool(Pool):
    """A pool of them; the first of each number is as given, its successor answers at once."""

    def __init__(self, *first: dict, **limits) -> None:
        self.log: list = []
        self.first = dict(enumerate(first))
        super().__init__(len(first), should_stop=lambda: False, limits=PoolLimits(**limits))

    def _start(self, number):
        self.log.append((number, "started"))
        return Scripted(number, self.log, **self.first.pop(number, {}))

    def _await_news(self):
        pass


def test_no_worker_measures_before_all_have_compiled():
    pool = ScriptedPool({"compiles": 0}, {"compiles": 5}, {"compiles": 2})
    assert pool.pace({}, seed=1).epoch == 2.0
    compiled = [place for place, (_, what) in enumerate(pool.log) if what == "compiled"]
    went = [place for place, (_, what) in enumerate(pool.log) if what == "Go"]
    assert len(compiled) == len(went) == 3
    assert max(compiled) < min(went)


NEVER = 10**9


def lose_the_one_that_never_compiles(pool):
    """Let it die as soon as it is asked to measure."""

    def look():
        for worker in pool._crew:
            worker.dead = worker.measuring and worker.compiles > NEVER / 2
        return False

    pool._should_stop = look


def test_a_worker_lost_while_it_compiles_holds_nobody_up():
    pool = ScriptedPool({}, {"compiles": NEVER})
    lose_the_one_that_never_compiles(pool)
    pool.first[1] = {"loads": NEVER}
    assert pool.pace({}, seed=1).epoch == 1.0
    assert not pool._crew[1].ready


def test_a_successor_measures_at_once_and_gets_no_trial_before_it_is_done(tmp_path):
    pool = ScriptedPool({}, {"compiles": NEVER})
    lose_the_one_that_never_compiles(pool)
    pool.first[1] = {"loads": 3, "compiles": 2}
    pool.pace({}, seed=1)
    for name in "abcdefghij":
        pool.submit(spec(tmp_path, name))
    for _ in "abcdefghij":
        assert pool.wait(lambda message: None).failure is None
    mine = [what for number, what in pool.log if number == 1]
    assert mine[:6] == ["started", "Measure", "started", "Measure", "compiled", "Go"]
    assert mine[6] == "TrialSpec"


def test_every_worker_can_be_measured_twice():
    pool = ScriptedPool({}, {})
    first, second = pool.pace({}, seed=1), pool.pace({}, seed=1, precision="mixed_bfloat16")
    assert first == second
    assert [what for _, what in pool.log].count("Go") == 4
