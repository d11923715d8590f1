"""Which images stand for how a model decides."""

import numpy as np
from search.scoring.exemplars import PER_GROUP, chosen_images
from tiny import make_predictions


def test_the_most_confident_misses_and_evenly_spread_hits_are_shown():
    said = np.concatenate([np.linspace(0.0, 0.4, 10), np.linspace(0.6, 1.0, 10)])
    labels = np.array([1] * 6 + [0] * 4 + [0] * 6 + [1] * 4)
    chosen = chosen_images(make_predictions(labels, said), threshold=0.5)
    missed, alarms = chosen[:PER_GROUP], chosen[PER_GROUP : 2 * PER_GROUP]
    assert missed.tolist() == [0, 1, 2, 3]
    assert alarms.tolist() == [15, 14, 13, 12]
    assert len(set(chosen.tolist())) == len(chosen) == 4 * PER_GROUP
    assert chosen[2 * PER_GROUP :].tolist() == [16, 17, 18, 19, 6, 7, 8, 9]


def test_hits_are_spread_from_the_least_to_the_most_confident():
    chosen = chosen_images(make_predictions([1] * 10, np.linspace(0.5, 0.95, 10)), threshold=0.5)
    assert chosen.tolist() == [0, 3, 6, 9]


def test_a_group_without_images_is_left_out():
    assert chosen_images(make_predictions([], []), threshold=0.5).tolist() == []
    assert chosen_images(make_predictions([1, 0], [0.9, 0.1]), threshold=0.5).tolist() == [0, 1]
