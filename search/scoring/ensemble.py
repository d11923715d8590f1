"""Several networks as one: the mean of their probabilities.

Knows Keras; nothing of training or files. The networks stay whole inside the model, one layer
each, so that `gradcam.networks` finds them.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from search.scoring.export import for_inference


def ensemble_of(members: Sequence[keras.Model]) -> keras.Model:
    """Return a model that gives the mean probability of several networks.

    Args:
        members: At least two; (batch, S, S, 1) gray 0–255 to (batch, 1) probability.

    Returns:
        A model of the same input and output, float32, with copies of the networks' weights and
        without their augmentation. Its parameter count is the sum of theirs.

    Raises:
        ValueError: Fewer than two networks, or their inputs differ.
    """
    shapes = {member.inputs[0].shape for member in members}
    if len(members) < 2 or len(shapes) != 1:
        raise ValueError(
            f"an ensemble of {len(members)} networks with inputs {sorted(map(str, shapes))}: "
            "needs at least two, all with the same input"
        )
    copies = [for_inference(member, name=f"member_{i}") for i, member in enumerate(members)]
    inputs = keras.Input(members[0].inputs[0].shape[1:], dtype="uint8", name="image")
    outputs = keras.layers.Average(dtype="float32", name="mean_probability")(
        [copy(inputs) for copy in copies]
    )
    return keras.Model(inputs, outputs, name="ensemble")
