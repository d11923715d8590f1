"""A user's own HyperModel: found, checked, and searched like the documented one."""

import textwrap

import keras_tuner as kt
import pytest

from search.config import RunConfig
from search.errors import ConfigurationError
from search.tuning import space as spaces
from search.tuning.hypermodel import factory
from search.tuning.search import Search

MODULE = """
import keras
import keras_tuner as kt

def network(hp, size=32, units=1, activation="sigmoid", compiled=True, channels=1, dtype="uint8"):
    inputs = keras.Input((size, size, channels), dtype=dtype)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(hp.Choice("filters", [2, 4]), 3)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))
    if compiled:
        model.compile("adam", "binary_crossentropy")
    return model

def build(hp):
    return network(hp)

class Mine(kt.HyperModel):
    def __init__(self, image_size, epochs):
        super().__init__()
        self.image_size, self.epochs = image_size, epochs

    def build(self, hp):
        return network(hp, self.image_size)

instance = Mine(32, 1)

def two(hp): return network(hp, units=2)
def linear(hp):
    model = network(hp, activation="linear")
    model.layers[-1].bias.assign([7.0])
    return model
def loose(hp): return network(hp, compiled=False)
def colour(hp): return network(hp, channels=3)
def wrapped(hp): return network(hp, dtype="int8")
def nothing(hp): network(hp)
def outputs(hp):
    model = network(hp)
    both = keras.Model(model.inputs, [model.output, model.output])
    both.compile("adam", "binary_crossentropy")
    return both
def decided(hp):
    model = network(hp)
    hard = keras.Model(model.inputs, keras.ops.cast(model.output > 0.5, "int32"))
    hard.compile("adam", "binary_crossentropy")
    return hard
def broken(hp): raise RuntimeError("no such backbone")
number = 3
"""


@pytest.fixture
def file(tmp_path, request):
    path = tmp_path / f"own_{abs(hash(request.node.name))}.py"
    path.write_text(textwrap.dedent(MODULE))
    return path


def made(file, name, dataset, **options):
    config = RunConfig(hypermodel=f"{file}:{name}", image_size=32, **options)
    return factory(config, dataset)(7, 40)


@pytest.mark.parametrize("name", ["build", "Mine", "instance"])
def test_a_function_a_class_and_an_instance_are_searched(file, name, tiny_dataset):
    hypermodel = made(file, name, tiny_dataset)
    assert isinstance(hypermodel, kt.HyperModel)
    assert spaces.defaults(spaces.declared(hypermodel)) == {"filters": 2}
    # A class gets what its constructor names.
    assert getattr(hypermodel, "epochs", None) == {"Mine": 7, "instance": 1}.get(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two", r"gives \(4, 2\) for 4 images"),
        ("linear", "must be probabilities"),
        ("loose", "not compiled"),
        ("colour", "does not take uint8 images"),
        ("wrapped", "is int8, which cannot hold"),
        ("nothing", "returns a NoneType"),
        ("outputs", "gives 2 outputs for 4 images"),
        ("decided", "gives int32 numbers"),
        ("broken", r"RuntimeError: no such backbone \(.*\.py, line \d+\)"),
        ("number", "is a int"),
        ("missing", "has no missing; it has"),
    ],
)
def test_what_breaks_the_protocol_is_refused_with_the_reason(file, name, said, tiny_dataset):
    with pytest.raises(ConfigurationError, match=said):
        made(file, name, tiny_dataset)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere.py:build", "no file nowhere.py"),
        ("no_such_package:build", "ModuleNotFoundError"),
        ("build", "write package.module:Class"),
    ],
)
def test_a_place_that_is_none_is_named(named, said, tiny_dataset):
    with pytest.raises(ConfigurationError, match=said):
        factory(RunConfig(hypermodel=named), tiny_dataset)


def test_a_network_of_one_size_is_refused_before_a_retraining_with_another(file, tiny_dataset):
    config = RunConfig(hypermodel=f"{file}:build", image_size=32, refit_image_size=48)
    with pytest.raises(ConfigurationError, match=r"does not take uint8 images of shape \(4, 48"):
        Search(config, tiny_dataset)
