import numpy as np
from PIL import Image

from search.records import SYNTHETIC_NOTICE, Predictions, Split, Threshold

SIZE = 32
THRESHOLD = Threshold(
    value=0.4,
    rule="sensitivity=0.95",
    chosen_on="perturbed validation images (n = 8)",
    reached=0.97,
)
ABOUT = {"run": "tiny", "notice": SYNTHETIC_NOTICE, "classes": ("NORMAL", "PNEUMONIA")}
MANIFEST = {
    "name": "tiny", "finished": "2026-01-01T00:00:00+00:00", "synthetic": True, "versions": {},
    "device": "CPU", "host": "here", "seed": 8, "seconds": {}, "costs": {}, "fingerprint": "tiny",
}  # fmt: skip


class Said:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.infos, self.warnings, self.events = [], [], []
        self.info, self.warn, self.listen = (
            self.infos.append, self.warnings.append, self.events.append
        )  # fmt: skip

    def progress(self, text, done, total):
        pass


def make_network(seed=0, size=SIZE):
    """A tiny network whose answers differ clearly from image to image."""
    import keras

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="he_normal")(x)
    model = keras.Model(inputs, outputs, name="tiny")
    model.compile("adam", "binary_crossentropy")
    return model


def exported(network, path, *, size=SIZE, temperature=1.0, **about):
    """Export a network with the metadata of these tests."""
    from search.scoring.export import export_model
    from search.scoring.formats import ModelMetadata

    metadata = ModelMetadata(image_size=size, threshold=THRESHOLD, **about)
    return export_model(network, path, metadata=metadata, temperature=temperature)


def smooth_image(rng, height, width, channels=None):
    """A picture with structure at every scale, since noise alone averages out when reduced."""
    shape = (7, 9) if channels is None else (7, 9, channels)
    small = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64)
    return np.clip(large + rng.integers(-20, 21, large.shape), 0, 255).astype(np.uint8)


def make_predictions(labels, probabilities, patients=None, subtypes=None, split=Split.TEST):
    n = len(labels)
    return Predictions(
        split=split,
        paths=tuple(f"test/{i}.jpeg" for i in range(n)),
        patients=tuple(patients or (f"p{i}" for i in range(n))),
        subtypes=tuple(subtypes or ("" for _ in range(n))),
        labels=np.asarray(labels, dtype=np.int8),
        probabilities=np.asarray(probabilities, dtype=np.float64),
    )
