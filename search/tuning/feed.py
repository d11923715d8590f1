"""Batches for Keras from a memory-mapped array, in an order that depends on seed and epoch only.

The `uint8` rows are gathered a batch at a time; nothing is held in float. The last, partial batch
is kept. Because the order is a function of (seed, epoch), a trial that is paused and continued, or
killed and resumed, sees the same batches as one trained in one go.
"""

from __future__ import annotations

import math
import time

import keras
import numpy as np

from search.records import Subset


class TrainingFeed(keras.utils.PyDataset):
    """Shuffled, class-weighted training batches.

    Yields (images `uint8` (b, S, S, 1), labels `float32` (b, 1), weights `float32` (b,)).

    Attributes:
        epoch: The epoch to serve, 1 for the first; set it before the epoch begins.
        seconds: Time spent gathering batches so far.
    """

    def __init__(
        self, subset: Subset, *, class_weights: dict[int, float], batch_size: int, seed: int
    ) -> None:
        """Open the array; reads nothing yet."""
        super().__init__(workers=1, use_multiprocessing=False)
        self._array = subset.open_array()
        self._rows = subset.rows
        self._labels = subset.labels.astype(np.float32)[:, None]
        table = np.array([class_weights[0], class_weights[1]], np.float32)
        self._weights = table[subset.labels.astype(np.int64)]
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self.seconds = 0.0
        self._order = np.arange(0)
        self.epoch = 1

    @property
    def epoch(self) -> int:
        """Return the epoch being served."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))

    @property
    def num_batches(self) -> int:
        """Return the batches of an epoch, the partial one included."""
        return math.ceil(len(self._rows) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return batch `index` of the current epoch."""
        begin = time.perf_counter()
        start = index * self._batch_size
        chosen = self._order[start : start + self._batch_size]
        batch = self._array[self._rows[chosen]], self._labels[chosen], self._weights[chosen]
        self.seconds += time.perf_counter() - begin
        return batch
