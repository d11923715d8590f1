"""Batches: complete, shuffled by (seed, epoch), weighted."""

import numpy as np
import pytest

from search.tuning.feed import TrainingFeed


@pytest.fixture
def feed(tiny_dataset) -> TrainingFeed:
    return TrainingFeed(tiny_dataset.train, class_weights={0: 3.0, 1: 0.5}, batch_size=8, seed=1)


def epoch(feed: TrainingFeed, number: int) -> list:
    feed.epoch = number
    return [feed[index] for index in range(feed.num_batches)]


def test_every_image_is_served_once_with_the_partial_batch_kept(feed, tiny_dataset):
    batches = epoch(feed, 1)
    images = np.concatenate([batch[0] for batch in batches])
    assert [len(batch[0]) for batch in batches] == [8, 8, 8, 8, 4]
    assert images.dtype == np.uint8
    expected = tiny_dataset.train.open_array()[tiny_dataset.train.rows]
    key = lambda array: sorted(image.tobytes() for image in array)  # noqa: E731
    assert key(images) == key(expected)


def test_labels_and_weights_follow_the_images(feed):
    for images, labels, weights in epoch(feed, 3):
        bright = (
            images[:, :, 16:].mean(axis=(1, 2, 3)) > images[:, :, :16].mean(axis=(1, 2, 3)) + 50
        )
        np.testing.assert_array_equal(labels[:, 0] == 1, bright)
        np.testing.assert_array_equal(weights, np.where(labels[:, 0] == 1, 0.5, 3.0))


def test_the_order_depends_on_seed_and_epoch_only(feed, tiny_dataset):
    other = TrainingFeed(tiny_dataset.train, class_weights={0: 1, 1: 1}, batch_size=8, seed=1)
    epoch(other, 1)
    np.testing.assert_array_equal(epoch(feed, 4)[0][0], epoch(other, 4)[0][0])
    assert not np.array_equal(epoch(feed, 4)[0][0], epoch(feed, 5)[0][0])
