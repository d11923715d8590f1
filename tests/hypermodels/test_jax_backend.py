"""The JAX backend, in a process of its own because Keras chooses its backend once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import keras, numpy as np
from hypermodels import Configuration, DocumentedCNN
from search.tuning.model import reseed

assert keras.backend.backend() == "jax"
model = DocumentedCNN(image_size=32, seed=1).build_configuration(
    Configuration(
        base_filters=1, dense_units=(4,), dense_dropout=(0.1,),
        crop_min_area=0.4, tone_jitter=0.2, flip=True, rotation=10.0, noise=0.04,
        weight_decay=1e-3,
    )
)
x = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 1), dtype=np.uint8)
y = np.arange(8) % 2
weights = model.get_weights()
reset = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: reseed(model, seed=1, epoch=1))
losses = []
for _ in range(2):
    model.set_weights(weights)
    model.optimizer.learning_rate = 0.0
    history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[reset])
    losses.append(history.history["loss"][0])
assert model.jit_compile
assert losses[0] == losses[1], losses
"""


def test_model_with_every_augmentation_trains_compiled_and_repeatably_on_jax():
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    subprocess.run(command, env=environment, timeout=300, check=True)
