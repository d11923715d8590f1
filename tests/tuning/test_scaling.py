"""How many workers: as asked, or what a measurement says."""

import pytest

from search.errors import WorkerError
from search.tuning import scaling
from search.tuning.devices import Gpu
from search.tuning.scaling import Wishes, _most_workers, choose, shared
from search.tuning.timing import Pace


class FakePool:
    def __init__(self, count):
        self.workers, self.closed = count, False

    def close(self):
        self.closed = True


class Machine:
    """Gives epochs a minute by number of workers, and remembers the pools."""

    def __init__(self, *, mixed: float = 1.0, start: float = 1.0, room: int = 99, **rates):
        self.rates = {int(name[1:]): rate for name, rate in rates.items()}
        self.mixed = mixed
        self.start, self.room = start, room
        self.pools = []

    def open_executor(self, count):
        self.pools.append(FakePool(count))
        return self.pools[-1]

    def pace_of(self, pool, precision):
        if pool.workers > self.room:
            raise WorkerError("3 workers in a row ended before their first trial")
        rate = self.rates[pool.workers] * (self.mixed if precision != "float32" else 1)
        return Pace(epoch=60 / rate, trial=self.start / max(1, pool.workers))

    def choose(self, *, first=1, **wishes):
        return choose(
            Wishes(**{"epochs": 10_000, **wishes}),
            open_executor=self.open_executor,
            pace_of=self.pace_of,
            most=8,
            first=first,
            device="8 CPU cores",
        )


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"n1": 2, "n2": 3, "n4": 5, "n8": 5.2}, 4),
        ({"n1": 2, "n2": 2.1}, 1),
        ({"n1": 2, "n2": 4, "n4": 8, "n8": 16}, 8),
    ],
)
def test_workers_are_doubled_while_that_pays(rates, expected):
    machine = Machine(**rates)
    staffing = machine.choose()
    assert staffing.executor.workers == expected
    assert staffing.pace.epoch == pytest.approx(60 / machine.rates[expected])
    assert [pool for pool in machine.pools if not pool.closed] == [staffing.executor]
    assert "of the epochs a minute on 8 CPU cores, 1 gave 2.00" in staffing.reason


def test_a_short_search_is_not_measured_for():
    machine = Machine(n1=60)
    staffing = machine.choose(epochs=69, precision="auto")
    assert (staffing.executor.workers, len(machine.pools)) == (1, 1)
    assert staffing.precision == "float32"
    assert "too short" in staffing.reason


def test_a_short_search_on_a_cpu_stays_with_the_workers_it_begins_with():
    machine = Machine(n2=60)
    staffing = machine.choose(epochs=69, first=2)
    assert (staffing.executor.workers, len(machine.pools)) == (2, 1)
    assert staffing.reason.startswith("2 workers: about")


@pytest.mark.parametrize(
    ("rates", "expected", "said"),
    [
        ({"n1": 2, "n2": 3, "n4": 3.1}, 2, "2 gave 3.00, 4 gave 3.10, 1 gave 2.00"),
        ({"n1": 2, "n2": 2.1, "n4": 2}, 1, "2 gave 2.10, 4 gave 2.00, 1 gave 2.00"),
        ({"n2": 2, "n4": 4, "n8": 4}, 4, "2 gave 2.00, 4 gave 4.00, 8 gave 4.00"),
    ],
)
def test_a_search_that_begins_with_two_takes_half_where_that_is_as_fast(rates, expected, said):
    machine = Machine(**rates)
    staffing = machine.choose(first=2)
    assert staffing.executor.workers == expected
    assert staffing.pace.epoch == pytest.approx(60 / machine.rates[expected])
    assert said in staffing.reason
    assert [pool for pool in machine.pools if not pool.closed] == [staffing.executor]


def test_starting_the_trials_counts_for_a_short_search():
    machine = Machine(n1=60, n2=60, n4=60, n8=60, start=7.0)
    assert "too short" in machine.choose(epochs=69, trials=58).reason
    assert "too short" not in machine.choose(epochs=69, trials=60).reason


def test_workers_that_only_start_trials_sooner_pay_where_trials_are_many():
    machine = Machine(n1=60, n2=60, n4=60, n8=60, start=8.0)
    assert machine.choose(epochs=1000, trials=1).executor.workers == 1
    staffing = machine.choose(epochs=1000, trials=1000)
    assert staffing.executor.workers == 8
    assert "1 gave 6.67, 2 gave 12.00" in staffing.reason


def test_where_more_workers_cannot_be_had_the_last_number_that_could_is_kept():
    machine = Machine(n1=1, n2=2, n4=4, room=4)
    staffing = machine.choose()
    assert staffing.executor.workers == 4
    assert staffing.pace.epoch == pytest.approx(15)
    assert [pool for pool in machine.pools if not pool.closed] == [staffing.executor]
    assert "4 gave 4.00, 8 could not be had: 3 workers in a row ended" in staffing.reason


def test_where_not_even_one_worker_can_be_had_the_search_ends():
    with pytest.raises(WorkerError):
        Machine(n1=1, room=0).choose()


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.4, "mixed_bfloat16"), (1.1, "float32"), (0.5, "float32")]
)
def test_mixed_precision_is_taken_where_it_pays(ratio, expected):
    staffing = Machine(n0=1, mixed=ratio).choose(workers=0, precision="auto")
    assert staffing.precision == expected
    assert f"{ratio:.2f} times as fast" in staffing.reason
    assert staffing.reason.startswith("this process, as asked")


def test_what_was_asked_for_is_not_measured():
    machine = Machine(n3=1, mixed=0.1)
    staffing = machine.choose(workers=3, precision="mixed_bfloat16")
    assert (staffing.executor.workers, staffing.precision) == (3, "mixed_bfloat16")
    assert len(machine.pools) == 1


def test_a_failing_measurement_leaves_no_pool_behind():
    machine = Machine(n1=1)
    with pytest.raises(KeyError):
        machine.choose()
    assert all(pool.closed for pool in machine.pools)


def test_memory_and_cores_limit_the_workers(monkeypatch):
    monkeypatch.setattr(scaling, "usable_cores", lambda: 12)
    monkeypatch.setattr(scaling, "available_memory_mb", lambda: 8000)
    assert _most_workers(()) == 3
    monkeypatch.setattr(scaling, "available_memory_mb", lambda: 500)
    assert _most_workers(()) == 1
    monkeypatch.setattr(scaling, "available_memory_mb", lambda: None)
    assert _most_workers((Gpu(index="0", memory_mb=10_000),)) == 2


@pytest.mark.parametrize("seen", [[], ["gpu:0"]])
def test_a_gpu_that_the_backend_cannot_use_is_none(monkeypatch, seen):
    monkeypatch.setattr(scaling.backend, "gpus", lambda: seen)
    monkeypatch.setattr(scaling, "find_gpus", lambda: (Gpu(index="0", memory_mb=1),))
    assert len(scaling.usable_gpus()) == len(seen)


def test_workers_share_the_cost_of_an_epoch():
    assert shared(Pace(epoch=8.0, trial=4.0), 4) == Pace(epoch=2.0, trial=1.0)
