"""The documented network as a KerasTuner hypermodel: its search space and its model.

The default of every hyperparameter rebuilds the documented network exactly. Knows Keras and
KerasTuner; knows nothing of data sets, oracles or run directories.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import keras_tuner as kt
import numpy as np
from keras import layers

from hypermodels.augmentation import augmentation_layers
from hypermodels.blocks import convolution_block, dense_block, head, stem
from hypermodels.configuration import (
    ACTIVATIONS,
    DOCUMENTED,
    HEADS,
    INITIALIZERS,
    MAX_DENSE_LAYERS,
    SCHEDULES,
    Configuration,
)
from hypermodels.optimization import adam, cosine_schedule, keep_average
from hypermodels.prior import PRIOR

_BLOCK_WIDTHS = (2, 4, 8, 16)
"""Channels of the four blocks, in units of `base_filters`."""

_MIN_IMAGE_SIZE = 2 ** (1 + len(_BLOCK_WIDTHS))
"""The stem and every block halve the image; one pixel must remain."""


class ModelTooLargeError(kt.errors.FailedTrialError, ValueError):
    """The model has more parameters than allowed.

    A `FailedTrialError`, so that a plain KerasTuner search marks the trial as failed and goes on
    instead of training the same configuration again.
    """


class DocumentedCNN(kt.HyperModel):
    """The documented chest X-ray network and the space of its variations.

    Raw pixels in, probability out: images are `uint8` arrays of shape (batch, image_size,
    image_size, 1) with values 0 – 255; the output is float32 (batch, 1), the probability of the
    positive class. Rescaling, augmentation and the repetition to `channels` channels are part of
    the model, so they run on the device and travel with a saved file. To load such a file,
    `hypermodels` must have been imported.

    Works with plain KerasTuner as well::

        tuner = kt.RandomSearch(DocumentedCNN(image_size=96), objective="val_loss", max_trials=10)
        tuner.search(x, y, validation_data=(x_val, y_val), epochs=10)

    The tuner trains by `fit` below, which refuses images that the model would misread. A model that
    is built and then trained by its own `fit` is not checked: it casts to `uint8`, so that numbers
    from 0 to 1 become black images.

    Args:
        image_size: Side of the square input, in pixels, at least 32.
        channels: Channels the gray image is repeated to, 1 or 3; the documented network has 3.
        colour: Take real colour, (batch, image_size, image_size, 3), instead of gray images.
        train_size: Number of training images; only the cosine schedule needs it.
        epochs: Horizon of the cosine schedule. It does not depend on how long a trial is trained,
            so a trial paused after a few epochs and continued later stays on one schedule.
        max_parameters: Largest model allowed; None for no limit.
        seed: Seed of augmentation and dropout, a different one derived for each layer; None for
            arbitrary ones. Initial weights follow `keras.utils.set_random_seed`.

    Raises:
        ValueError: When an argument is out of range.
    """

    def __init__(
        self,
        *,
        image_size: int = 180,
        channels: int = 3,
        colour: bool = False,
        train_size: int | None = None,
        epochs: int = 25,
        max_parameters: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(name="documented_cnn")
        if image_size < _MIN_IMAGE_SIZE:
            raise ValueError(
                f"image_size={image_size!r}: must be at least {_MIN_IMAGE_SIZE}, because "
                f"{1 + len(_BLOCK_WIDTHS)} poolings each halve the image"
            )
        if channels not in (1, 3):
            raise ValueError(f"channels={channels!r}: must be 1 or 3")
        for name, value in (
            ("train_size", train_size),
            ("epochs", epochs),
            ("max_parameters", max_parameters),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value!r}: must be at least 1")
        self.image_size = image_size
        self.channels = channels
        self.colour = colour
        self.train_size = train_size
        self.epochs = epochs
        self.max_parameters = max_parameters
        self.seed = seed

    @property
    def prior(self) -> dict[str, tuple[Any, float]]:
        """What is known of the space: value and spread by hyperparameter, see `prior.py`."""
        return dict(PRIOR)

    def declare(self, hp: kt.HyperParameters) -> Configuration:
        """Registers the search space in `hp` and returns the configuration of its values.

        Discrete values are `Choice`s, not `Float`s with a step: those of KerasTuner 1.4.8 never
        propose the last value of 0 – 0.5 and 0 – 0.7 (``0.7 // 0.1`` is 6), and propose
        0.30000000000000004 beside the default 0.3.

        Args:
            hp: Gets every hyperparameter it does not hold yet; values it holds are kept.

        Returns:
            The configuration; fractions are rounded to ten decimals.

        Raises:
            ValueError: When a value held by `hp` is out of range.
            TypeError: When a value held by `hp` has the wrong type.
        """
        default = DOCUMENTED
        convolutional: dict[str, Any] = {
            "separable": hp.Boolean("separable", default=default.separable),
            **self._declare_signal(hp),
            "conv_dropout": _fraction(hp, "conv_dropout", _grid(0, 5, 0.1), default.conv_dropout),
            "head": hp.Choice("head", list(HEADS)),
        }
        dense = self._declare_dense(hp)
        augmentation = {
            "crop_min_area": _fraction(
                hp, "crop_min_area", _grid(2, 25, 0.04), default.crop_min_area
            ),
            "tone_jitter": _fraction(hp, "tone_jitter", _grid(0, 4, 0.1), default.tone_jitter),
            "flip": hp.Boolean("flip", default=default.flip),
            "rotation": _fraction(hp, "rotation", _grid(0, 3, 5.0), default.rotation),
            "noise": _fraction(hp, "noise", _grid(0, 5, 0.02), default.noise),
        }
        optimization = {
            "learning_rate": hp.Float(
                "learning_rate", 1e-4, 3e-3, sampling="log", default=default.learning_rate
            ),
            "schedule": self._declare_schedule(hp),
            "weight_decay": _fraction(
                hp, "weight_decay", [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2], default.weight_decay
            ),
            "label_smoothing": _fraction(
                hp, "label_smoothing", _grid(0, 5, 0.02), default.label_smoothing
            ),
            "ema": _fraction(hp, "ema", [0.0, 0.99, 0.999], default.ema),
            "batch_size": hp.Choice("batch_size", [16, 32, 64], default=default.batch_size),
        }
        return Configuration(**convolutional, **dense, **augmentation, **optimization)

    def _declare_signal(self, hp: kt.HyperParameters) -> dict[str, Any]:
        """Declares what decides whether a signal passes through the network before training.

        With Keras' initialization it fades to nothing without batch normalization, with an
        activation that halves small values, and with many filters, so these are choices with the
        scaled one only. An ablation asks for dead networks all the same, by values of inactive
        hyperparameters.
        """
        initializer = hp.Choice("initializer", list(INITIALIZERS))
        with hp.conditional_scope("initializer", ["scaled"]):
            scaled = {
                "base_filters": hp.Choice(
                    "base_filters", [8, 16, 24, 32], default=DOCUMENTED.base_filters
                ),
                "activation": hp.Choice("activation", list(ACTIVATIONS)),
                "batch_norm": hp.Boolean("batch_norm", default=DOCUMENTED.batch_norm),
            }
        if initializer == "keras":
            asked = {name: hp.values.get(name, getattr(DOCUMENTED, name)) for name in scaled}
            return {"initializer": initializer, **asked}
        return {"initializer": initializer, **scaled}

    def _declare_schedule(self, hp: kt.HyperParameters) -> str:
        """Leaves the cosine schedule out of the space where `build` could not make it."""
        schedules = list(SCHEDULES) if self.train_size is not None else ["constant"]
        return str(hp.Choice("schedule", schedules))

    def _declare_dense(self, hp: kt.HyperParameters) -> dict[str, Any]:
        default = DOCUMENTED
        count = hp.Int("dense_layers", 1, MAX_DENSE_LAYERS, default=default.dense_layers)
        units: list[int] = []
        dropout: list[float] = []
        for i in range(1, MAX_DENSE_LAYERS + 1):
            # Widths and rates of layers that are not there are inactive: no report shows them.
            with hp.conditional_scope("dense_layers", list(range(i, MAX_DENSE_LAYERS + 1))):
                width = hp.Choice(
                    f"dense_units_{i}", [32, 64, 128, 256, 512], default=default.dense_units[i - 1]
                )
                rate = _fraction(
                    hp, f"dense_dropout_{i}", _grid(0, 7, 0.1), default.dense_dropout[i - 1]
                )
            if i <= count:
                units.append(width)
                dropout.append(rate)
        return {"dense_units": tuple(units), "dense_dropout": tuple(dropout)}

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """Builds and compiles the model of `hp`, registering the search space in it.

        Args:
            hp: The hyperparameters.

        Returns:
            A compiled model, as `build_configuration` makes it.

        Raises:
            ModelTooLargeError: When the model has more than `max_parameters` parameters.
            ValueError: When the schedule is cosine and `train_size` is unknown.
        """
        return self.build_configuration(self.declare(hp))

    def build_configuration(self, configuration: Configuration) -> keras.Model:
        """Builds and compiles the model of `configuration`.

        Args:
            configuration: The values.

        Returns:
            A compiled model: uint8 (batch, image_size, image_size, 1) to float32 (batch, 1). Loss:
            binary cross-entropy. Metrics: `accuracy`, `precision`, `recall`, `auc`.

        Raises:
            ModelTooLargeError: When the model has more than `max_parameters` parameters.
            ValueError: When the schedule is cosine and `train_size` is unknown.
        """
        # Before the network: a configuration that cannot be trained costs nothing.
        learning_rate = self._learning_rate(configuration)
        model = self._network(configuration)
        count = model.count_params()
        if self.max_parameters is not None and count > self.max_parameters:
            raise ModelTooLargeError(
                f"the model has {count:,} parameters, more than max_parameters="
                f"{self.max_parameters:,}; lower base_filters, dense_units or image_size, or use "
                f"head='global_average'"
            )
        optimizer = adam(
            learning_rate,
            weight_decay=configuration.weight_decay,
            variables=model.trainable_variables,
        )
        if configuration.ema:
            keep_average(optimizer, configuration.ema)
        model.compile(
            optimizer=optimizer,
            loss=keras.losses.BinaryCrossentropy(label_smoothing=configuration.label_smoothing),
            metrics=[
                keras.metrics.BinaryAccuracy(name="accuracy"),
                keras.metrics.Precision(name="precision"),
                keras.metrics.Recall(name="recall"),
                keras.metrics.AUC(name="auc"),
            ],
        )
        return model

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains `model`, with the batch size of `hp` when the data are arrays.

        With `ema`, what Keras validates, and what is left in the end, are the averaged weights.

        Args:
            hp: The hyperparameters `model` was built from.
            model: The model.
            *args: Passed to `model.fit`.
            **kwargs: Passed to `model.fit`. A `batch_size` among them wins over that of `hp`; a
                data set (`tf.data`, `PyDataset`, generator) keeps its own batches.

        Returns:
            What `model.fit` returns: a `keras.callbacks.History`.

        Raises:
            ValueError: Arrays, or a first batch of `tf.data`, of another shape or of numbers from 0
                to 1, which the model would take for black images.
        """
        x: Any = args[0] if args else kwargs.get("x")
        if hasattr(x, "__array__"):
            self._check_images(np.asarray(x))
        elif hasattr(x, "element_spec"):  # tf.data
            self._check_images(np.asarray(next(iter(x))[0]))
        # The third positional argument of `Model.fit` is the batch size.
        if len(args) < 3 and "batch_size" not in kwargs and hasattr(x, "__array__"):
            kwargs["batch_size"] = self.declare(hp).batch_size
        if "validation_data" in kwargs and model.optimizer.use_ema:
            swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
            kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), swap]
        return model.fit(*args, **kwargs)

    def _check_images(self, images: np.ndarray) -> None:
        size, channels = self.image_size, 3 if self.colour else 1
        if images.shape[1:] != (size, size, channels):
            raise ValueError(
                f"x of shape {images.shape}: must be (n, {size}, {size}, {channels}); set "
                "image_size, and colour=True for RGB images, or average their channels"
            )
        if images.dtype.kind == "f" and images.size and images.max() <= 1:
            raise ValueError(
                f"x from {images.min():g} to {images.max():g}: must be raw pixels from 0 to 255; "
                "multiply by 255"
            )

    def _network(self, configuration: Configuration) -> keras.Model:
        c = configuration
        shape = (self.image_size, self.image_size, 3 if self.colour else 1)
        inputs = keras.Input(shape, dtype="uint8", name="image")
        # float32 under every dtype policy: bfloat16 would keep only 8 bits of a pixel's position
        # between two gray values, and the images are the smallest tensors of the network.
        x = layers.Rescaling(1 / 255, dtype="float32", name="rescale")(inputs)
        for layer in augmentation_layers(
            flip=c.flip,
            rotation=c.rotation,
            crop_min_area=c.crop_min_area,
            tone_jitter=c.tone_jitter,
            noise=c.noise,
            seed=self.seed,
        ):
            x = layer(x)
        if self.channels > 1 and not self.colour:
            # After augmentation, which then works on one channel.
            x = layers.Concatenate(name="repeat_channels")([x] * self.channels)
        common: dict[str, Any] = {
            "activation": c.activation,
            "initializer": c.initializer,
            "seed": self.seed,
        }
        x = stem(x, filters=c.base_filters, **common)
        for i, width in enumerate(_BLOCK_WIDTHS, start=1):
            x = convolution_block(
                x,
                filters=width * c.base_filters,
                separable=c.separable,
                batch_norm=c.batch_norm,
                dropout=c.conv_dropout if i >= 3 else 0.0,
                name=f"block{i}",
                **common,
            )
        x = head(x, kind=c.head)
        for i, (units, rate) in enumerate(zip(c.dense_units, c.dense_dropout, strict=True), 1):
            x = dense_block(
                x,
                units=units,
                batch_norm=c.batch_norm,
                dropout=rate,
                name=f"dense{i}",
                **common,
            )
        # float32: a sigmoid in half precision saturates to exactly 0 or 1.
        outputs = layers.Dense(1, activation="sigmoid", dtype="float32", name="probability")(x)
        return keras.Model(inputs, outputs, name="documented_cnn")

    def _learning_rate(self, configuration: Configuration) -> Any:
        if configuration.schedule == "constant":
            return configuration.learning_rate
        if self.train_size is None:
            raise ValueError(
                "train_size=None: schedule='cosine' needs the number of training images to know "
                "its length; pass train_size to DocumentedCNN, or use schedule='constant'"
            )
        return cosine_schedule(
            configuration.learning_rate,
            epochs=self.epochs,
            steps_per_epoch=math.ceil(self.train_size / configuration.batch_size),
        )


def _grid(first: int, last: int, step: float) -> list[float]:
    """Returns first * step, …, last * step as the nearest short decimals."""
    return [round(i * step, 10) for i in range(first, last + 1)]


def _fraction(hp: kt.HyperParameters, name: str, values: list[float], default: float) -> Any:
    """Registers a choice of fractions and returns its value, None when it is inactive.

    Rounded because a caller may have put a `Float` with a step in the place of the choice.
    """
    value = hp.Choice(name, values, default=default)
    return value if value is None else round(value, 10)
