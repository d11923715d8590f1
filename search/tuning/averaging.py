"""An exponential moving average of the weights, kept beside those that are trained.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control
Optim. 30, 1992, with exponential weights as in Keras' optimizers, which do the work: the average
is one of their variables, so a checkpoint holds it and a resumed trial goes on with it.

A decay of 0.999 remembers a thousand steps. A short training would be an average of its own
beginning, so the decay of step t is min(decay, (1 + t) / (10 + t)), TensorFlow's formula
(`tf.train.ExponentialMovingAverage`, num_updates): at first the average follows the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


class _Warming:
    """Mixed into an optimizer's class: a decay that grows with its steps."""

    iterations: Any
    _iterations: Any
    gradient_accumulation_steps: int | None
    highest_momentum: float

    @property
    def ema_momentum(self) -> Any:
        """Return the decay of the present step."""
        done = keras.ops.cast(self.iterations, "float32")
        decay = keras.ops.minimum(self.highest_momentum, (1.0 + done) / (10.0 + done))
        if parts := self.gradient_accumulation_steps:
            # Keras averages after every part; only the last of a batch has changed the weights.
            last = keras.ops.equal((self._iterations + 1) % parts, 0)
            decay = keras.ops.where(last, decay, 1.0)
        return decay


def begin_averaging(optimizer: Any, decay: float) -> None:
    """Make an optimizer keep an average of the weights.

    Args:
        optimizer: A Keras optimizer, not built yet.
        decay: Share of the average that a step keeps, in the long run.

    Raises:
        ValueError: The optimizer is built already, so that its variables are fixed.
    """
    if optimizer.built:
        raise ValueError("the optimizer is built already; an average of weights is asked too late")
    optimizer.use_ema = True
    optimizer.ema_overwrite_frequency = None
    optimizer.highest_momentum = decay
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (_Warming, kind), {})


@contextlib.contextmanager
def averaged(model: Any) -> Iterator[None]:
    """Give the model its averaged weights for the block, then put the trained ones back.

    Does nothing for a model whose optimizer keeps no average.

    Args:
        model: A compiled Keras model that has trained a step at least.
    """
    optimizer = model.optimizer
    if not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    averages = optimizer._model_variables_moving_average
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    try:
        for variable, average in zip(variables, averages, strict=True):
            # A copy: JAX frees the arrays it is given, and the average must outlive them.
            variable.assign(np.array(keras.ops.convert_to_numpy(average)))
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
