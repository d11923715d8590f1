"""The shapes that reports give to values."""

from search.reporting.format import differing


def test_what_the_baselines_initialization_implies_is_no_difference():
    baseline = {"initializer": "keras", "flip": False}
    values = {
        **{"initializer": "scaled", "base_filters": 16, "activation": "silu", "batch_norm": True},
        "flip": False,
    }
    assert differing(values, baseline) == {"initializer": "scaled", "activation": "silu"}
    assert differing({"activation": "relu"}, {"head": "x"}) == {"activation": "relu"}
