"""DocumentedCNN: the documented network, its search space, and training through KerasTuner."""

from __future__ import annotations

import dataclasses
import pickle

import keras
import keras_tuner as kt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermodels import DOCUMENTED, Configuration, DocumentedCNN, ModelTooLargeError
from search.records import IMPLIED
from search.tuning import space as spaces

TINY = Configuration(
    base_filters=2,
    dense_units=(4,),
    dense_dropout=(0.1,),
    crop_min_area=0.4,
    tone_jitter=0.2,
    flip=True,
    rotation=10.0,
    noise=0.04,
    batch_size=4,
)


def tiny_data(size=32, count=8):
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 1), dtype=np.uint8)
    return pixels, (np.arange(count) % 2).astype("float32")


def network(**changes):
    """Returns the tiny network for images of 32 pixels, run eagerly: tracing takes far longer."""
    model = DocumentedCNN(image_size=32).build_configuration(dataclasses.replace(TINY, **changes))
    model.run_eagerly = True
    return model


def train_step(model):
    """Trains one step and returns the loss."""
    model.run_eagerly = True
    return model.train_on_batch(*tiny_data())[0]


def space(**values):
    """Returns the hyperparameters of the documented network, with some values changed."""
    hp = kt.HyperParameters()
    hp.values.update(values)
    DocumentedCNN().declare(hp)
    return hp


class RecordingModel:
    """Stands in for a Keras model: remembers how it was trained."""

    def fit(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs
        return "history"


class TinyBatches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tiny_data(count=4)


def test_default_hyperparameters_build_exactly_the_documented_network():
    assert DocumentedCNN().declare(kt.HyperParameters()) == DOCUMENTED
    model = DocumentedCNN().build(kt.HyperParameters())
    assert model.count_params() == 3_496_801
    assert model.input_shape == (None, 180, 180, 1)
    assert not [layer.name for layer in model.layers if layer.name.startswith("augment")]
    assert type(model.optimizer) is keras.optimizers.Adam


def test_predictions_are_float32_probabilities_without_augmentation_and_those_of_the_saved_model(
    tmp_path,
):
    model, (x, _) = network(), tiny_data()
    first = model.predict_on_batch(x)
    assert first.shape == (8, 1)
    assert first.dtype == np.float32
    assert np.all((first > 0) & (first < 1))
    np.testing.assert_array_equal(first, model.predict_on_batch(x))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.count_params() == model.count_params()
    assert loaded.get_layer("augment_crop").min_area == 0.4
    np.testing.assert_allclose(loaded.predict_on_batch(x), first, atol=1e-6)


def test_two_builds_with_the_same_seed_train_identically():
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        model = DocumentedCNN(image_size=32, seed=5).build_configuration(TINY)
        losses.append([train_step(model) for _ in range(2)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("head", "size", "width"),
    [
        ("flatten", 32, 32),
        ("flatten", 63, 32),
        ("flatten", 180, 25 * 32),
        ("flatten", 512, 256 * 32),
        ("global_average", 180, 32),
    ],
)
def test_head_is_as_wide_as_the_last_feature_map_or_its_channels(head, size, width):
    configuration = dataclasses.replace(TINY, head=head)
    model = DocumentedCNN(image_size=size).build_configuration(configuration)
    assert model.get_layer("head").output.shape == (None, width)


@pytest.mark.parametrize(
    ("options", "taken", "seen"), [({"channels": 1}, 1, 1), ({}, 1, 3), ({"colour": True}, 3, 3)]
)
def test_gray_is_repeated_to_the_channels_asked_for_and_colour_taken_as_it_is(options, taken, seen):
    model = DocumentedCNN(image_size=32, **options).build_configuration(TINY)
    assert model.input_shape == (None, 32, 32, taken)
    assert model.get_layer("stem_conv1").kernel.shape[2] == seen


def test_a_configuration_chooses_the_layers():
    full = {layer.name: type(layer) for layer in network(conv_dropout=0.2).layers}
    changes = {"batch_norm": False, "separable": False, "dense_dropout": (0.0,)}
    bare = {layer.name: type(layer) for layer in network(**changes, conv_dropout=0.0).layers}
    names = [f"block4_{part}" for part in ("conv1", "conv2", "norm", "pool", "dropout")]
    assert [name for name in full if name.startswith("block4")] == names
    assert full.keys() - bare.keys() == {
        *(f"block{number}_norm" for number in (1, 2, 3, 4)),
        *("block3_dropout", "block4_dropout", "dense1_norm", "dense1_dropout"),
    }
    assert full["block1_conv1"] is full["block4_conv2"] is keras.layers.SeparableConv2D
    assert bare["block1_conv1"] is bare["block4_conv2"] is keras.layers.Conv2D


def test_widths_of_missing_dense_layers_are_inactive():
    hp = space(dense_layers=1)
    assert DocumentedCNN().declare(hp).dense_units == (512,)
    assert hp.is_active("dense_units_1")
    for name in ("dense_units_2", "dense_dropout_2", "dense_units_3", "dense_dropout_3"):
        assert not hp.is_active(name)
        assert name not in hp.values


def test_every_documented_value_can_be_proposed():
    hp = space()
    for parameter in hp.space:
        if isinstance(parameter, kt.engine.hyperparameters.Choice):
            proposed = {parameter.prob_to_value(p) for p in np.linspace(0, 0.999, 200)}
            assert proposed == set(parameter.values)
            assert parameter.default in proposed


def test_only_a_network_that_is_alive_without_it_may_lack_batch_normalization():
    hp = space()
    for name in ("activation", "batch_norm"):
        (parameter,) = (p for p in hp.space if p.name == name)
        assert [c.name for c in parameter.conditions] == ["initializer"]
        assert parameter.conditions[0].values == ["scaled"]


def test_an_ablation_may_ask_for_the_dead_combination():
    asked = DocumentedCNN().declare(space(initializer="keras", batch_norm=False))
    assert asked == dataclasses.replace(DOCUMENTED, batch_norm=False)


def test_the_cosine_schedule_is_no_choice_where_its_length_is_unknown():
    (schedule,) = (p for p in space().space if p.name == "schedule")
    assert schedule.values == ["constant"]
    with pytest.raises(ValueError, match="train_size=None"):
        network(schedule="cosine")


def standard_deviations(model):
    """Returns those of every layer's output in inference, after one pass for the statistics."""
    x = np.random.default_rng(0).integers(0, 40, (16, 32, 32, 1))
    # Images of different brightness, with a bright half: what a network can see.
    x = x + np.linspace(0, 160, 16).astype(int)[:, None, None, None]
    x[::2, :, 16:] += 50
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if hasattr(layer, "rate"):
            layer.rate = 0.0
    model(x.astype("uint8"), training=True)
    return float(np.std(model.predict_on_batch(x.astype("uint8"))))


@pytest.mark.slow
def test_no_configuration_that_is_drawn_is_dead_before_training():
    hypermodel = DocumentedCNN(image_size=32, train_size=100)
    hp = spaces.declared(hypermodel)
    found = []
    for number in range(200):
        keras.backend.clear_session()
        keras.utils.set_random_seed(number)
        drawn = kt.HyperParameters()
        drawn.values = spaces.sample(hp, seed=f"alive/{number}")
        found.append(standard_deviations(hypermodel.build(drawn)))
    assert min(found) > 1e-4


def test_the_documented_network_without_batch_normalization_is_alive_if_scaled():
    keras.utils.set_random_seed(1)
    hypermodel, without = DocumentedCNN(image_size=32), {"batch_norm": False}
    scaled = dataclasses.replace(DOCUMENTED, **without, initializer="scaled")
    documented = dataclasses.replace(DOCUMENTED, **without)
    assert standard_deviations(hypermodel.build_configuration(scaled)) > 1e-2
    assert standard_deviations(hypermodel.build_configuration(documented)) < 1e-6


def test_the_prior_speaks_of_hyperparameters_of_the_space_only():
    hypermodel = DocumentedCNN(train_size=100)
    assert set(hypermodel.prior) <= {p.name for p in spaces.declared(hypermodel).space}
    assert not {"tone_jitter", "flip", "rotation", "noise"} & set(hypermodel.prior)


def test_values_with_rounding_errors_become_short_decimals():
    assert DocumentedCNN().declare(space(conv_dropout=0.1 + 0.2)).conv_dropout == 0.3


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.fixed_dictionaries({p.name: st.sampled_from(list(p.values)) for p in space().space}))
def test_every_configuration_of_the_space_builds_and_trains(values):
    keras.backend.clear_session()
    hp = space(**values)
    hp.ensure_active_values()
    hypermodel = DocumentedCNN(image_size=32, train_size=100)
    model = hypermodel.build(hp)
    assert np.isfinite(train_step(model))
    assert len(hypermodel.declare(hp).dense_units) == values["dense_layers"]


def test_model_over_the_limit_is_refused_with_count_and_limit():
    DocumentedCNN(max_parameters=3_496_801).build(kt.HyperParameters())
    limited = DocumentedCNN(max_parameters=3_496_800)
    with pytest.raises(ModelTooLargeError, match=r"3,496,801 .*max_parameters=3,496,800") as error:
        limited.build(kt.HyperParameters())
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, kt.errors.FailedTrialError)


def test_cosine_horizon_is_the_constructors_epochs():
    configuration = dataclasses.replace(TINY, schedule="cosine", batch_size=16)
    hypermodel = DocumentedCNN(image_size=32, train_size=100, epochs=20)
    schedule = hypermodel.build_configuration(configuration).optimizer._learning_rate
    assert schedule.warmup_steps == 7
    assert schedule.decay_steps == 19 * 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 31),
        ("channels", 2),
        ("train_size", 0),
        ("epochs", 0),
        ("max_parameters", -1),
    ],
)
def test_constructor_argument_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        DocumentedCNN(**{name: value})


def test_hypermodel_survives_pickling():
    copy = pickle.loads(pickle.dumps(DocumentedCNN(image_size=64, train_size=10, seed=3)))
    assert (copy.image_size, copy.train_size, copy.seed) == (64, 10, 3)
    assert copy.build.__self__ is copy


def test_fit_uses_the_batch_size_of_the_hyperparameters_unless_the_caller_gives_one():
    hp, model, (x, y) = space(batch_size=64), RecordingModel(), tiny_data()
    hypermodel = DocumentedCNN(image_size=32)
    assert hypermodel.fit(hp, model, x, y, epochs=2) == "history"
    assert model.args == (x, y)
    assert model.kwargs == {"epochs": 2, "batch_size": 64}
    hypermodel.fit(hp, model, x=x, y=y)
    assert model.kwargs["batch_size"] == 64
    hypermodel.fit(hp, model, x, y, batch_size=5)
    assert model.kwargs == {"batch_size": 5}
    hypermodel.fit(hp, model, x, y, 5)
    assert (model.args, model.kwargs) == ((x, y, 5), {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x / np.float32(255), "from 0 to 1: must be raw pixels"),
        (lambda x: np.repeat(x, 3, axis=-1), "colour=True for RGB"),
        (lambda x: x[:, :16], r"must be \(n, 32, 32, 1\)"),
    ],
    ids=["zero to one", "RGB", "another size"],
)
def test_images_that_the_model_would_take_for_others_are_refused(change, said):
    x, y = tiny_data()
    with pytest.raises(ValueError, match=said):
        DocumentedCNN(image_size=32).fit(space(), RecordingModel(), change(x), y)
    tensorflow = pytest.importorskip("tensorflow")
    batches = tensorflow.data.Dataset.from_tensor_slices((change(x), y)).batch(4)
    with pytest.raises(ValueError, match=said):
        DocumentedCNN(image_size=32).fit(space(), RecordingModel(), batches)


def test_fit_trains_on_a_dataset_with_its_own_batches_and_validates_averaged_weights():
    options = {"validation_data": tiny_data(), "epochs": 1, "verbose": 0}
    history = DocumentedCNN(image_size=32).fit(space(), network(ema=0.9), TinyBatches(), **options)
    assert np.isfinite(history.history["loss"] + history.history["val_loss"]).all()


def test_plain_keras_tuner_search_runs(tmp_path):
    hp = kt.HyperParameters()
    hp.Fixed("base_filters", 8)
    tuner = kt.RandomSearch(
        DocumentedCNN(image_size=32, train_size=8, epochs=1),
        objective=kt.Objective("val_auc", "max"),
        hyperparameters=hp,
        max_trials=1,
        directory=tmp_path,
        project_name="search",
        seed=1,
    )
    x, y = tiny_data()
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    (trial,) = tuner.oracle.get_best_trials(1)
    assert trial.status == "COMPLETED"
    assert 0 <= trial.score <= 1


def test_what_reports_take_for_implied_is_what_the_network_documents():
    assert {name: getattr(DOCUMENTED, name) for name in IMPLIED} == IMPLIED
    assert not set(IMPLIED) & set(spaces.defaults(space()))
