"""Measures what an epoch of a configuration costs on this machine, for plans and budgets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from search.records import Values
from search.tuning.model import Setting, build_model, release_memory, training_feed
from search.tuning.validation import Validator

WARM_STEPS = 2
MEASURED_STEPS = 6
MEASURED_SECONDS = 3.0
"""Steps are timed for so long, and so many at the least: workers that share a machine must step at
the same time for long enough to get into each other's way."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a configuration costs on this machine.

    Attributes:
        epoch: Seconds of an epoch, validation included.
        trial: Seconds a trial takes besides its epochs: building and compiling.
    """

    epoch: float
    trial: float


def measure_pace(
    setting: Setting,
    values: Values,
    *,
    seed: int,
    precision: str = "float32",
    when_compiled: Callable[[], None] = lambda: None,
) -> Pace:
    """Time a few training steps and validation batches, and scale them to an epoch.

    Args:
        setting: Data and HyperModel.
        values: The configuration, usually the documented one.
        seed: Any seed.
        precision: Keras dtype policy.
        when_compiled: Called when everything is compiled; measuring begins when it returns.

    Returns:
        The pace of this configuration; larger or smaller ones differ in proportion.
    """
    start = time.perf_counter()
    model = build_model(setting, values, seed, precision=precision)
    feed = training_feed(setting, model, values, seed)
    validator = Validator(setting.dataset, prevalence=setting.prevalence)
    # The last batch may be a smaller one, which would be compiled in the middle.
    whole = max(1, feed.num_batches - 1)

    def step(index: int) -> None:
        images, labels, weights = feed[index % whole]
        model.train_on_batch(images, labels, sample_weight=weights)

    step(0)
    compiled = time.perf_counter() - start
    for index in range(1, WARM_STEPS):
        step(index)
    validator.seconds(model)
    when_compiled()
    begin, steps = time.perf_counter(), 0
    while steps < MEASURED_STEPS or time.perf_counter() - begin < MEASURED_SECONDS:
        step(steps)
        steps += 1
    # The mean: where workers take turns on a GPU, some steps are long and the others quick.
    each = (time.perf_counter() - begin) / steps
    validation = validator.seconds(model)
    release_memory()
    return Pace(epoch=each * feed.num_batches + validation, trial=compiled)
