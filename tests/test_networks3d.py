"""Networks on volumes: shapes, parameters counted by hand, and gradients that reach every weight."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lits_helpers.networks3d import fractal_residual_classifier, unet3d


@pytest.fixture(scope="module")
def small_unet():
    keras.utils.set_random_seed(0)
    return unet3d((4, 8, 12, 2), filters=2, depth=2)


@pytest.fixture(scope="module")
def small_classifier():
    keras.utils.set_random_seed(0)
    return fractal_residual_classifier((3, 7, 5, 2), filters=2, fractal_columns=2, blocks=2)


def convolution(before, after, size=3):
    """Weights without bias, and the scale and offset of each channel."""
    return size**3 * before * after + 2 * after


def without_effect(model, inputs, loss):
    """Paths of the weights on which the loss does not depend."""
    with tf.GradientTape() as tape:
        value = loss(model(inputs))
    gradients = tape.gradient(value, model.trainable_weights)
    return [
        weight.path
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]


def test_a_volume_gets_a_probability_for_each_voxel(small_unet):
    found = small_unet(np.random.default_rng(0).random((2, 4, 8, 12, 2))).numpy()
    assert found.shape == (2, 4, 8, 12, 1) and found.dtype == np.float32
    assert 0 < found.min() < found.max() < 1


def test_the_parameters_of_the_unet_are_those_counted_by_hand(small_unet):
    down = convolution(2, 2) + convolution(2, 2) + convolution(2, 4) + convolution(4, 4)
    lowest = convolution(4, 8) + convolution(8, 8)
    up = (8 * 8 * 4 + 4) + convolution(8, 4) + convolution(4, 4) + (8 * 4 * 2 + 2) + convolution(4, 2) + convolution(2, 2)
    assert small_unet.count_params() == down + lowest + up + (2 + 1)


def test_the_sizes_that_the_docstrings_state():
    assert unet3d().count_params() == 351_241
    assert fractal_residual_classifier().count_params() == 74_091


def test_gradients_reach_every_weight_of_the_unet(small_unet):
    volume = np.random.default_rng(0).random((1, 4, 8, 12, 2)).astype(np.float32)
    weights = np.random.default_rng(1).random((1, 4, 8, 12, 1)).astype(np.float32)
    assert without_effect(small_unet, volume, lambda found: tf.reduce_sum(found * weights)) == []


def test_an_untrained_unet_starts_near_its_prior():
    network = unet3d((2, 2, 2, 1), filters=2, depth=1, prior=0.02)
    assert network.get_weights()[-1] == pytest.approx(-3.8918, abs=1e-3)  # log(0.02 / 0.98)


def test_a_patch_gets_its_answer_and_one_from_each_earlier_block(small_classifier):
    found = small_classifier(np.random.default_rng(0).random((5, 3, 7, 5, 2)))
    found = {name: answer.numpy() for name, answer in found.items()}
    assert {name: answer.shape for name, answer in found.items()} == {"auxiliary_1": (5, 1), "candidate": (5, 1)}
    assert all(0 < answer.min() and answer.max() < 1 for answer in found.values())


def test_the_parameters_of_the_classifier_are_those_counted_by_hand(small_classifier):
    # Two columns: two convolutions in a row, and one beside them.
    first = convolution(2, 2) + convolution(2, 2) + convolution(2, 2) + (2 * 2 + 2) + (2 * 2 + 1)
    second = convolution(2, 4) + convolution(4, 4) + convolution(2, 4) + (2 * 4 + 4) + (2 * 4 + 1)
    averages = 2 * (3 * 2 + 3 * 4)  # mean and variance of each channel, in batch normalisation
    assert small_classifier.count_params() == first + second + averages


@pytest.mark.parametrize(("columns", "convolutions"), [(1, 1), (2, 3), (3, 7)])
def test_a_fractal_of_c_columns_has_2_to_the_c_less_1_convolutions(columns, convolutions):
    model = fractal_residual_classifier((2, 4, 4, 1), filters=1, fractal_columns=columns, blocks=1)
    kernels = [layer.kernel_size for layer in model.layers if isinstance(layer, keras.layers.Conv3D)]
    assert kernels.count((3, 3, 3)) == convolutions and kernels.count((1, 1, 1)) == 1


def test_gradients_of_the_last_answer_reach_every_weight_but_those_of_the_auxiliary_one(small_classifier):
    patches = np.random.default_rng(0).random((4, 3, 7, 5, 2)).astype(np.float32)
    unmoved = without_effect(small_classifier, patches, lambda found: tf.reduce_sum(found["candidate"]))
    assert unmoved == ["auxiliary_1/kernel", "auxiliary_1/bias"]


def test_an_auxiliary_answer_teaches_its_own_block_alone(small_classifier):
    patches = np.random.default_rng(0).random((4, 3, 7, 5, 2)).astype(np.float32)
    unmoved = without_effect(small_classifier, patches, lambda found: tf.reduce_sum(found["auxiliary_1"]))
    # Of the second block: three convolutions of three weights, the shortcut's two, and the last answer's.
    assert len(unmoved) == 3 * 3 + 2 + 2


def test_the_shortcut_carries_a_patch_past_the_fractal():
    model = fractal_residual_classifier((2, 4, 4, 1), filters=1, fractal_columns=2, blocks=1)
    for weight in model.weights:  # silence all but the shortcut and the answer
        weight.assign(np.zeros(weight.shape))
    shortcut = next(layer for layer in model.layers if getattr(layer, "kernel_size", 0) == (1, 1, 1))
    shortcut.set_weights([np.ones((1, 1, 1, 1, 1)), np.zeros(1)])
    model.get_layer("candidate").set_weights([np.array([[1.0], [2.0]]), np.zeros(1)])
    patch = np.zeros((1, 2, 4, 4, 1))
    patch[0, 0] = 0.5
    answer = model(patch)["candidate"].numpy()
    assert answer == pytest.approx(0.77730, abs=1e-5)  # the mean is 0.25, the greatest 0.5: 1 / (1 + exp(-1.25))


@pytest.mark.parametrize("name", ["small_unet", "small_classifier"])
def test_a_saved_network_loads_without_running_code_and_answers_the_same(name, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    inputs = np.random.default_rng(0).random((1, *model.input_shape[1:]))
    before, after = (keras.tree.flatten(each(inputs)) for each in (model, loaded))
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((5, 8, 8, 1), {"depth": 1}, "5 slices cannot be halved 1 times: use 4 or 6, or a smaller depth"),
        ((8, 8, 12, 1), {"depth": 3}, "12 columns cannot be halved 3 times: use 8 or 16"),
        ((8, 8, 1), {}, "must be \\(slices, rows, columns, channels\\)"),
        ((8, 8, 8, 0), {}, "channels must be a whole number of at least 1, got 0"),
        ((8, 8, 8, 1), {"filters": 1.5}, "filters must be a whole number of at least 1, got 1.5"),
        ((8, 8, 8, 1), {"prior": 1}, "prior is a probability"),
    ],
)
def test_what_no_unet_can_be_built_from_is_refused_with_the_next_step(size, options, message):
    with pytest.raises(ValueError, match=message):
        unet3d(size, **options)


@pytest.mark.parametrize("options", [{"blocks": 0}, {"fractal_columns": 0}, {"filters": -1}])
def test_a_classifier_without_blocks_columns_or_filters_is_refused(options):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        fractal_residual_classifier((2, 4, 4, 1), **options)
