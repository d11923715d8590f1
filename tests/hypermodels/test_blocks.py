"""Blocks: which layers they add, and how these are called."""

from __future__ import annotations

import keras
import pytest

from hypermodels.blocks import convolution_block, dense_block, head, stem


def layers_of(block, shape=(16, 16, 3), **options):
    inputs = keras.Input(shape)
    return keras.Model(inputs, block(inputs, **options)).layers[1:]


def convolution_layers(**changes):
    options = {"filters": 4, "separable": True, "activation": "relu", "batch_norm": True}
    return layers_of(convolution_block, name="block1", **{**options, **changes})


def test_stem_has_two_convolutions_and_halves_the_image():
    layers = layers_of(stem, filters=4, activation="gelu")
    assert [layer.name for layer in layers] == ["stem_conv1", "stem_conv2", "stem_pool"]
    assert layers[0].activation is keras.activations.gelu
    assert layers[-1].output.shape == (None, 8, 8, 4)


def test_convolution_block_normalizes_once_after_both_convolutions():
    names = [layer.name for layer in convolution_layers(dropout=0.2)]
    suffixes = ["conv1", "conv2", "norm", "pool", "dropout"]
    assert names == [f"block1_{suffix}" for suffix in suffixes]


def test_convolution_block_without_options_is_convolutions_and_pool():
    names = [layer.name for layer in convolution_layers(batch_norm=False)]
    assert names == ["block1_conv1", "block1_conv2", "block1_pool"]


@pytest.mark.parametrize(
    ("separable", "kind"), [(True, keras.layers.SeparableConv2D), (False, keras.layers.Conv2D)]
)
def test_separable_chooses_the_kind_of_convolution(separable, kind):
    first, second, *_ = convolution_layers(separable=separable)
    assert type(first) is kind
    assert type(second) is kind


def test_dense_block_adds_only_the_layers_asked_for():
    options = {"units": 4, "activation": "relu", "name": "dense1"}
    full = layers_of(dense_block, (8,), batch_norm=True, dropout=0.5, **options)
    bare = layers_of(dense_block, (8,), batch_norm=False, dropout=0.0, **options)
    assert [layer.name for layer in full] == ["dense1", "dense1_norm", "dense1_dropout"]
    assert [layer.name for layer in bare] == ["dense1"]


@pytest.mark.parametrize(("kind", "width"), [("flatten", 16 * 16 * 3), ("global_average", 3)])
def test_head_makes_one_vector_per_image(kind, width):
    assert head(keras.Input((16, 16, 3)), kind=kind).shape == (None, width)


def test_unknown_head_is_named():
    with pytest.raises(ValueError, match=r"'attention'.*flatten, global_average"):
        head(keras.Input((16, 16, 3)), kind="attention")
