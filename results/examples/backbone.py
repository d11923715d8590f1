"""A HyperModel of one's own: a `keras.applications` backbone under a head of one unit.

    BACKBONE_WEIGHTS=mobilenet_v3_small_notop.weights.h5 \
        python -m search.run --tuner hyperband --hypermodel results/examples/backbone.py:Backbone

`BACKBONE_WEIGHTS` is a file that `keras.applications.MobileNetV3Small(include_top=False)` can load,
e.g. what `save_weights` wrote of it with `weights="imagenet"` on a machine with internet access.
Without it the backbone begins with random weights and is always trained. Gray images are repeated
to three channels; `--channels rgb` keeps colour.
"""

from __future__ import annotations

import os
from typing import Any

import keras
import keras_tuner as kt
from keras import layers


class Backbone(kt.HyperModel):
    """MobileNetV3Small, whole or only its head trained.

    Args:
        image_size: Side of the images in pixels, at least 32.
        colour: Whether images have three channels.
        weights: File of the backbone's weights; by default the one that `BACKBONE_WEIGHTS` names.
    """

    def __init__(self, image_size: int, colour: bool = False, weights: str | None = None) -> None:
        super().__init__()
        self.image_size = image_size
        self.colour = colour
        # Read here and not in `build`: it then travels to workers with the HyperModel.
        self.weights = weights or os.environ.get("BACKBONE_WEIGHTS") or None

    def build(self, hp: kt.HyperParameters) -> Any:
        """Return the compiled model of one configuration."""
        backbone = keras.applications.MobileNetV3Small(
            input_shape=(self.image_size, self.image_size, 3),
            include_top=False,
            weights=self.weights,
            pooling="avg",
        )
        # A frozen backbone is of use only where it has learned something elsewhere.
        backbone.trainable = hp.Boolean("fine_tune", default=True) if self.weights else True

        shape = (self.image_size, self.image_size, 3 if self.colour else 1)
        inputs = keras.Input(shape, dtype="uint8")
        # The backbone takes pixels from 0 to 255; this makes numbers with a fraction of them.
        x = layers.Rescaling(1.0)(inputs)
        if not self.colour:
            x = layers.Concatenate()([x, x, x])
        x = backbone(x)
        x = layers.Dropout(hp.Choice("dropout", [0.0, 0.2, 0.4], default=0.2))(x)
        # Probabilities in float32, whatever --precision says.
        outputs = layers.Dense(1, activation="sigmoid", dtype="float32")(x)
        model = keras.Model(inputs, outputs)

        hp.Choice("batch_size", [16, 32, 64], default=32)  # the search makes batches of that size
        model.compile(
            optimizer=keras.optimizers.AdamW(
                hp.Float("learning_rate", 1e-5, 1e-2, sampling="log", default=1e-3),
                weight_decay=hp.Choice("weight_decay", [0.0, 1e-4, 1e-2], default=1e-4),
            ),
            loss="binary_crossentropy",
            metrics=["accuracy"],
        )
        return model
