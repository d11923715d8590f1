"""How many workers: as asked, or what a measurement says."""

import pytest

from search.tuning import scaling
from search.tuning.devices import Gpu
from search.tuning.scaling import _choose, _most_workers, shared
from search.tuning.timing import Pace


class FakePool:
    def __init__(self, count):
        self.workers, self.closed = count, False

    def close(self):
        self.closed = True


class Machine:
    """Gives epochs a minute by number of workers, and remembers the pools."""

    def __init__(self, **rates):
        self.rates = {int(name[1:]): rate for name, rate in rates.items()}
        self.pools = []

    def measured(self, count):
        self.pools.append(FakePool(count))
        return self.pools[-1], Pace(epoch=60 / self.rates[count], trial=1.0)


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
    staffing = _choose(machine.measured, most=8, epochs=10_000, device="8 CPU cores")
    assert staffing.executor.workers == expected
    assert staffing.pace.epoch == pytest.approx(60 / machine.rates[expected])
    open_pools = [pool for pool in machine.pools if not pool.closed]
    assert open_pools == [staffing.executor]
    assert "of the epochs a minute on 8 CPU cores, 1 gave 2.00" in staffing.reason


def test_a_short_search_is_not_measured_for():
    machine = Machine(n1=60)
    staffing = _choose(machine.measured, most=8, epochs=69, device="2 CPU cores")
    assert (staffing.executor.workers, len(machine.pools)) == (1, 1)
    assert "too short" in staffing.reason


def test_a_failing_measurement_leaves_no_pool_behind():
    machine = Machine(n1=1)
    with pytest.raises(KeyError):
        _choose(machine.measured, most=8, epochs=10_000, device="8 CPU cores")
    assert machine.pools[0].closed


def test_memory_and_cores_limit_the_workers(monkeypatch):
    monkeypatch.setattr(scaling, "usable_cores", lambda: 12)
    monkeypatch.setattr(scaling, "available_memory_mb", lambda: 8000)
    assert _most_workers(()) == 5
    monkeypatch.setattr(scaling, "available_memory_mb", lambda: 500)
    assert _most_workers(()) == 1
    monkeypatch.setattr(scaling, "available_memory_mb", lambda: None)
    assert _most_workers((Gpu(index="0", memory_mb=10_000),)) == 2


def test_workers_share_the_cost_of_an_epoch():
    assert shared(Pace(epoch=8.0, trial=4.0), 4) == Pace(epoch=2.0, trial=1.0)
