"""A configuration's network and batches, as trials and measurements have them.

Here a configuration becomes a model whose weights and whose every epoch depend on seeds alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

from search.records import Dataset, Values
from search.tuning.feed import TrainingFeed

BATCH_SIZE = 32
"""Images in a training batch where it is no hyperparameter; Keras' default."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all trials of a search have in common; picklable."""

    dataset: Dataset  # Training and validation images
    # A `kt.HyperModel` whose `build` gives a compiled model that takes raw gray `uint8` (n, S, S,
    # 1) and returns probabilities (n, 1)
    hypermodel: kt.HyperModel
    objective: str  # Name of the metric that decides
    prevalence: float  # Prior of the positive class for the log losses
    # False where the validation images are trained on as well, so that nothing is left to validate
    # with: epochs have the metrics of training only, and the last is kept
    validated: bool = True
    max_parameters: int = 0  # A trial whose model has more fails, 0 for no limit


class ModelTooLargeError(Exception):
    """The model has more parameters than the search allows."""


def build_model(
    setting: Setting,
    values: dict[str, Any],
    seed: int,
    *,
    precision: str = "float32",
    max_parameters: int = 0,
) -> Any:
    """Build the compiled model of a configuration, initialized from a seed.

    Args:
        setting: Data and HyperModel.
        values: Hyperparameter values.
        seed: Seed of the initial weights.
        precision: Keras dtype policy of the layers that do not state their own.
        max_parameters: Largest model allowed, 0 for no limit.

    Raises:
        ModelTooLargeError: It has more parameters; its optimizer was not built.
    """
    keras.utils.set_random_seed(seed)
    hyperparameters = kt.HyperParameters()
    hyperparameters.values = dict(values)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = setting.hypermodel.build(hyperparameters)
    finally:
        keras.config.set_dtype_policy(before)
    count = int(model.count_params())
    if max_parameters and count > max_parameters:
        raise ModelTooLargeError(
            f"the model has {count:,} parameters, more than --max-parameters {max_parameters:,}"
        )
    # Created now rather than while the first step is traced, which TensorFlow would trace twice.
    model.optimizer.build(model.trainable_variables)
    return model


def training_feed(setting: Setting, values: Values, seed: int) -> TrainingFeed:
    """Return the training batches of a configuration."""
    return TrainingFeed(
        setting.dataset.train,
        class_weights=setting.dataset.class_weights,
        batch_size=int(values.get("batch_size", BATCH_SIZE)),
        seed=seed,
    )


def reseed(model: Any, *, seed: int, epoch: int) -> None:
    """Set the state of every random layer from (seed, epoch)."""
    generators = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    drawn = np.random.default_rng([seed, epoch, 1])
    for variable in generators:
        variable.assign(drawn.integers(0, 2**31 - 1, size=tuple(variable.shape)).astype("uint32"))


@contextlib.contextmanager
def averaged(model: Any) -> Iterator[None]:
    """Give the model its averaged weights for the block, then put the trained ones back.

    Does nothing for a model whose optimizer keeps no average.
    """
    optimizer = model.optimizer
    if not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    # Keras has no public way to the averages: `finalize_variable_values` overwrites the weights.
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


def release_memory() -> None:
    """Forget Keras' global state of the last model, so that memory stays flat over trials."""
    keras.utils.clear_session(free_memory=False)
    gc.collect()
    # glibc keeps freed blocks; over many trials of different sizes that adds up.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
