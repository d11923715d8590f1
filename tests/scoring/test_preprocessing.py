import functools
import io

import numpy as np
import pytest
from PIL import Image
from tiny import smooth_image

from search.data.decode import load_image

keras = pytest.importorskip("keras")

from search.scoring.preprocessing import raw_images  # noqa: E402

SIZE = 48

SHAPES = [
    (48, 48), (224, 224), (60, 60), (1100, 1400), (389, 501), (30, 40), (200, 20), (20, 200),
    (47, 49), (97, 101), (300, 400, 3), (400, 90, 3), (48, 48, 3), (90, 70, 4), (90, 70, 1),
]  # fmt: skip


def encoded(pixels, kind, **options):
    content = io.BytesIO()
    picture = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    Image.fromarray(picture).save(content, kind, **options)
    return content.getvalue()


@functools.cache
def model(size, channels=1):
    inputs = keras.Input((None, None, None))
    return keras.Model(inputs, raw_images(inputs, size, channels=channels))


def by_layer(pixels, size=SIZE):
    batch = pixels[np.newaxis] if pixels.ndim == 3 else pixels[np.newaxis, ..., np.newaxis]
    return keras.ops.convert_to_numpy(model(size)(batch))[0, ..., 0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("texture", ["noise", "smooth"])
def test_pixels_get_exactly_what_training_gives_their_lossless_file(shape, texture):
    rng = np.random.default_rng(sum(shape))
    if texture == "noise":
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        pixels = smooth_image(rng, *shape[:2], *(c for c in shape[2:] if c > 1)).reshape(shape)
    np.testing.assert_array_equal(
        by_layer(pixels), load_image(encoded(pixels, "PNG"), SIZE).pixels[..., 0]
    )


@pytest.mark.parametrize("size", [48, 96, 180])
@pytest.mark.parametrize("quality", [75, 92])
@pytest.mark.parametrize("colour", [False, True], ids=["gray", "colour"])
def test_pixels_of_a_large_jpeg_get_what_training_gives_the_file_to_a_gray_level(
    size, quality, colour
):
    # Training decodes at reduced scale, which rounds once where whole pixels are rounded one by
    # one. Measured: 1% of the pixels differ at 1/8, 6% at 1/4, 12% at 1/2, none by more than 1.
    film = smooth_image(np.random.default_rng(size), 1000, 1400, 3 if colour else None)
    film = (40 + film * 0.7).astype(np.uint8)  # a film's grays seldom reach the ends
    content = encoded(film, "JPEG", quality=quality)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    difference = np.abs(by_layer(pixels, size) - load_image(content, size).pixels[..., 0])
    assert difference.max() <= 1
    assert difference.mean() <= 0.15


def test_levels_outside_the_range_are_clipped():
    pixels = np.full((9, 9), 300.0)
    assert by_layer(pixels).max() == 255
    assert by_layer(-pixels).min() == 0


def test_sizes_and_channels_may_change_from_call_to_call_and_within_a_batch_nothing_mixes():
    whole = model(SIZE)
    assert whole.output_shape == (None, SIZE, SIZE, 1)
    rng = np.random.default_rng(4)
    for shape in [(50, 60, 1), (90, 33, 3), (120, 10, 1), (48, 48, 1)]:
        pixels = rng.integers(0, 256, (3, *shape), dtype=np.uint8)
        found = whole.predict_on_batch(pixels)
        np.testing.assert_array_equal(found[1, ..., 0], by_layer(pixels[1]))


@pytest.mark.parametrize("shape", [(48, 48, 3), (300, 400, 3), (97, 101), (40, 30)], ids=str)
def test_real_colour_is_kept_and_gray_has_three_equal_channels(shape):
    pixels = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    batch = pixels[np.newaxis] if pixels.ndim == 3 else pixels[np.newaxis, ..., np.newaxis]
    found = keras.ops.convert_to_numpy(model(SIZE, 3)(batch))[0]
    wanted = load_image(encoded(pixels, "PNG"), SIZE, channels=3).pixels
    np.testing.assert_array_equal(found, wanted)
