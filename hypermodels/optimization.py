"""Learning rate and optimizer of a configuration. Knows steps and variables, not data or models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

FINAL_RATE = 0.01
"""The cosine schedule starts its warm-up and ends its decay at this share of the highest rate."""


def cosine_schedule(
    peak: float, *, epochs: int, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns a short linear warm-up followed by a half cosine.

    Loshchilov & Hutter, "SGDR", ICLR 2017, without restarts; warm-up as in Goyal et al., "Accurate,
    Large Minibatch SGD", 2017, over a tenth of all steps and at most one epoch. The warm-up starts,
    and the decay ends, at `FINAL_RATE` × `peak`.

    Args:
        peak: The highest learning rate.
        epochs: Horizon; afterwards the rate stays at its final value.
        steps_per_epoch: Training steps of an epoch.

    Returns:
        A function of the optimizer's step count, which a checkpoint of the optimizer restores.
    """
    steps = epochs * steps_per_epoch
    warmup_steps = min(steps_per_epoch, steps // 10)
    if warmup_steps == 0:
        return keras.optimizers.schedules.CosineDecay(peak, steps, alpha=FINAL_RATE)
    return keras.optimizers.schedules.CosineDecay(
        peak * FINAL_RATE,
        steps - warmup_steps,
        alpha=FINAL_RATE,
        warmup_target=peak,
        warmup_steps=warmup_steps,
    )


def adam(learning_rate: Any, *, weight_decay: float, variables: Iterable[Any]) -> Any:
    """Returns Adam (Kingma & Ba, ICLR 2015), or AdamW (Loshchilov & Hutter, ICLR 2019).

    Biases and the scale and offset of batch normalization do not decay: pulling them to zero
    restricts the function without simplifying it. Keras does not save that exclusion: an optimizer
    from `keras.models.load_model` decays everything, so training is to be continued by building
    the model again and loading weights.

    Args:
        learning_rate: A number or a `LearningRateSchedule`.
        weight_decay: Share of a weight lost per step and unit of learning rate; 0 for plain Adam.
        variables: The model's trainable variables.

    Returns:
        A `keras.optimizers.Optimizer`, not built yet.
    """
    if weight_decay == 0:
        return keras.optimizers.Adam(learning_rate)
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in variables if v.name in ("bias", "gamma", "beta")]
    )
    return optimizer


class _Warming:
    """Mixed into an optimizer's class: a decay of the average that grows with its steps."""

    iterations: Any
    highest_momentum: float

    @property
    def ema_momentum(self) -> Any:
        """Return the decay of the present step."""
        done = keras.ops.cast(self.iterations, "float32")
        return keras.ops.minimum(self.highest_momentum, (1.0 + done) / (10.0 + done))


def keep_average(optimizer: Any, decay: float) -> None:
    """Makes an optimizer keep an exponential moving average of the weights beside them.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control
    Optim. 30, 1992, with the exponential weights of Keras' optimizers, which do the work: the
    average is among their variables, so a checkpoint holds it. A decay of 0.999 remembers a
    thousand steps; a short training would be an average of its own beginning, so the decay of step
    t is min(decay, (1 + t) / (10 + t)), TensorFlow's formula (`tf.train.ExponentialMovingAverage`,
    num_updates): at first the average follows the weights.

    Args:
        optimizer: A Keras optimizer, not built yet.
        decay: Share of the average that a step keeps, in the long run.

    Raises:
        ValueError: The optimizer is built already, so that its variables are fixed.
    """
    if optimizer.built:
        raise ValueError("the optimizer is built already: ask for an average of weights before")
    optimizer.use_ema = True
    optimizer.ema_overwrite_frequency = None
    optimizer.highest_momentum = decay
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (_Warming, kind), {})
