"""The arithmetic of the studies: what they say of what was measured."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).parents[1] / "results" / "studies"


def load(study: str, script: str):
    """Import a script as it imports its neighbours."""
    sys.path.insert(0, str(STUDIES / study))
    try:
        spec = importlib.util.spec_from_file_location(
            f"{study}_{script}", STUDIES / study / f"{script}.py"
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(STUDIES / study))
    return module


def search(**fields):
    """Return a search of two trials, 30 s of training in 60 s."""
    costs = {"build": 1.0, "compile": 2.0, "train": 15.0, "validate": 3.0, "checkpoint": 1.0}
    trials = [{"rate": rate, "epochs": 2, "seconds": 24.0, "costs": costs} for rate in (0.1, 0.2)]
    return {
        **{"tool": "ours", "workers": 1, "wall": 60.0, "epochs": 4, "trials": trials},
        **{"train_images": 100, "steps_per_epoch": {"0.1": 10, "0.2": 5}, "complete": True},
        **fields,
    }


def test_every_second_of_a_search_is_counted_once():
    found = load("speed", "rates").rates(search())
    assert found.train + sum(found.lost.values()) == pytest.approx(60 / 2)
    assert found.lost["idle"] == pytest.approx((60 - 48) / 2)
    assert found.epochs_per_second == pytest.approx(4 / 60)


def test_overhead_is_what_is_neither_fit_nor_its_validation():
    found = load("speed", "rates").overhead(search())
    assert found.of_fit == pytest.approx(60 / (2 * (15 + 3 + 2)) - 1)
    assert found.per_trial == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("direction", "expected"), [("max", [1, 1, 3, 3]), ("min", [-1, -1, -1, -1])]
)
def test_best_so_far_never_falls_and_does_not_take_nan(direction, expected):
    rows = [["a", n, value] for n, value in enumerate([1.0, float("nan"), 3.0])]
    job = {"rows": rows, "direction": direction, "budget": 4}
    np.testing.assert_array_equal(load("tuners", "study").best_so_far(job), expected)


def test_a_bias_that_views_share_is_fitted_away():
    labels = np.array([0, 0, 1, 1])
    views = np.array([0.6, 0.7, 0.95, 0.97])
    loss, (_, moved) = load("objective", "study").fit_bias(views, views, labels)
    assert loss < 0.3
    assert (moved[:2] < 0.5).all()
    assert (moved[2:] > 0.5).all()
