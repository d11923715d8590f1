"""Measures what an epoch of a configuration costs on this machine, for plans and budgets."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from search.records import Values
from search.tuning.trial import Setting, build_model, release_memory, training_feed
from search.tuning.validation import Validator

WARM_STEPS = 2
MEASURED_STEPS = 6


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
    setting: Setting, values: Values, *, seed: int, precision: str = "float32"
) -> Pace:
    """Time a few training steps and validation batches, and scale them to an epoch.

    Args:
        setting: Data and HyperModel.
        values: The configuration, usually the documented one.
        seed: Any seed.
        precision: Keras dtype policy.

    Returns:
        The pace of this configuration; larger or smaller ones differ in proportion.
    """
    start = time.perf_counter()
    model = build_model(setting, values, seed, precision=precision)
    feed = training_feed(setting, model, values, seed)
    steps = []
    for index in range(WARM_STEPS + MEASURED_STEPS):
        images, labels, weights = feed[index % feed.num_batches]
        begin = time.perf_counter()
        model.train_on_batch(images, labels, sample_weight=weights)
        steps.append(time.perf_counter() - begin)
        if index == 0:
            compiled = time.perf_counter() - start
    step = float(np.median(steps[WARM_STEPS:]))
    validator = Validator(setting.dataset, prevalence=setting.prevalence)
    validation = validator.seconds(model)
    release_memory()
    return Pace(epoch=step * feed.num_batches + validation, trial=compiled)
