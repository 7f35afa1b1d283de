"""The U-Net is the report's graph: counted by hand, and inspected edge by edge."""

import keras
import numpy as np
import pytest

from lits_helpers.model import unet


@pytest.fixture(scope="module")
def report_unet():
    return unet()


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def source(tensor):
    """The layer that made a tensor."""
    return tensor._keras_history.operation


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def parameters_by_hand(channels, filters, depth):
    """(trainable, not trainable) from the layer sizes alone: weights plus one bias a filter."""

    def block(before, after):
        first = 3 * 3 * before * after + after
        second = 3 * 3 * after * after + after
        gamma_and_beta = 2 * after
        return first + second + gamma_and_beta

    widths = [filters * 2**level for level in range(depth + 1)]
    encoder = sum(block(a, b) for a, b in zip([channels, *widths], widths))
    decoder = sum(2 * 2 * 2 * w * w + w + block(2 * w, w) for w in widths[:-1])
    last = filters + 1
    # Running mean and variance: one of each per channel of every block, the deepest level once.
    running = 2 * (2 * sum(widths[:-1]) + widths[-1])
    return encoder + decoder + last, running


def test_default_parameter_counts_are_those_of_the_sums_by_hand(report_unet):
    trainable, running = parameters_by_hand(channels=3, filters=64, depth=4)
    assert count(report_unet.trainable_weights) == trainable == 31_037_633
    assert count(report_unet.non_trainable_weights) == running == 5_888


def test_layers_follow_each_other_as_in_the_report(report_unet):
    block = ["Conv2D", "Activation", "Conv2D", "BatchNormalization", "Activation"]
    up = ["Conv2DTranspose", "Concatenate", *block]
    expected = [
        "InputLayer",
        *block, "MaxPooling2D",
        *block, "MaxPooling2D",
        *block, "MaxPooling2D",
        *block, "MaxPooling2D",
        *block,
        *up, *up, *up, *up,
        "Conv2D",
    ]  # fmt: skip
    assert [type(layer).__name__ for layer in report_unet.layers] == expected


def test_convolutions_are_as_wide_as_the_report_says(report_unet):
    of_type = lambda kind: [layer.filters for layer in report_unet.layers if type(layer) is kind]
    assert of_type(keras.layers.Conv2D) == [
        64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024, 512, 512, 256, 256, 128, 128, 64, 64, 1
    ]  # fmt: skip
    assert of_type(keras.layers.Conv2DTranspose) == [512, 256, 128, 64]


def test_a_skip_is_the_second_convolution_before_normalisation(report_unet):
    joins = [layer for layer in report_unet.layers if isinstance(layer, keras.layers.Concatenate)]
    normalised = [
        source(layer.input)
        for layer in report_unet.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for join, second_convolution in zip(joins, reversed(normalised[:4]), strict=True):
        upsampled, skip = join.input
        assert isinstance(source(upsampled), keras.layers.Conv2DTranspose)
        assert source(skip) is second_convolution
        assert second_convolution.activation is keras.activations.linear


def test_what_is_pooled_is_the_block_after_normalisation_and_relu(report_unet):
    for pool in report_unet.layers:
        if isinstance(pool, keras.layers.MaxPooling2D):
            relu = source(pool.input)
            assert relu.activation is keras.activations.relu
            assert isinstance(source(relu.input), keras.layers.BatchNormalization)


def test_relu_stands_between_the_two_convolutions_of_a_block(report_unet):
    for normalisation in report_unet.layers:
        if isinstance(normalisation, keras.layers.BatchNormalization):
            relu = source(source(normalisation.input).input)
            assert relu.activation is keras.activations.relu
            assert isinstance(source(relu.input), keras.layers.Conv2D)


def test_the_model_is_named_and_gives_one_probability_a_pixel(report_unet):
    assert report_unet.name == "unet"
    assert report_unet.output_shape == (None, 256, 256, 1)
    assert report_unet.layers[-1].activation is keras.activations.sigmoid


def test_probabilities_are_float32_and_lie_between_0_and_1():
    slices = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    probabilities = unet((32, 32, 3), filters=2)(slices).numpy()
    assert probabilities.shape == (2, 32, 32, 1)
    assert probabilities.dtype == np.float32
    assert 0 < probabilities.min() < probabilities.max() < 1


def test_probabilities_stay_float32_under_mixed_precision(mixed_precision):
    model = unet((32, 32, 3), filters=2)
    assert model.layers[1].compute_dtype == "bfloat16"
    assert model.layers[-1].compute_dtype == "float32"
    assert model(np.zeros((1, 32, 32, 3))).dtype == "float32"


@pytest.mark.parametrize("channels, filters, depth", [(1, 8, 4), (3, 4, 2), (2, 3, 1)])
def test_width_depth_and_channels_can_be_chosen(channels, filters, depth):
    model = unet((32, 32, channels), filters=filters, depth=depth)
    expected = parameters_by_hand(channels, filters, depth)
    assert (count(model.trainable_weights), count(model.non_trainable_weights)) == expected
    assert sum(isinstance(x, keras.layers.MaxPooling2D) for x in model.layers) == depth


def test_rows_and_columns_may_differ():
    assert unet((48, 32, 1), filters=2).output_shape == (None, 48, 32, 1)


@pytest.mark.parametrize(
    "input_size, message",
    [
        ((250, 256, 3), "250 rows cannot be halved 4 times: use 240 or 256"),
        ((256, 300, 3), "300 columns cannot be halved 4 times: use 288 or 304"),
        ((8, 256, 3), "8 rows cannot be halved 4 times: use 16,"),
        ((0, 256, 3), "rows must be a whole number of at least 1, got 0"),
        ((256, 256.0, 3), "columns must be a whole number of at least 1, got 256.0"),
        ((256, 256, 0), "channels must be a whole number of at least 1, got 0"),
        ((256, 256), r"input_size must be \(rows, columns, channels\), got \(256, 256\)"),
    ],
)
def test_a_size_that_cannot_be_built_is_refused_with_the_next_step(input_size, message):
    with pytest.raises(ValueError, match=message):
        unet(input_size)


@pytest.mark.parametrize("option", ["filters", "depth"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_filters_and_depth_below_one_or_broken_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be a whole number of at least 1, got {value}"):
        unet((32, 32, 1), **{option: value})


@pytest.mark.parametrize("prior", [0, 1, -0.1, 2])
def test_a_prior_that_is_no_probability_is_refused(prior):
    with pytest.raises(ValueError, match=f"got {prior}"):
        unet((8, 8, 1), filters=1, depth=1, prior=prior)


def test_an_untrained_network_starts_near_its_prior():
    network = unet((16, 16, 1), filters=2, depth=1, prior=0.02)
    assert network.get_weights()[-1] == pytest.approx(-3.8918, abs=1e-3)  # log(0.02 / 0.98)
    assert network.predict_on_batch(np.zeros((1, 16, 16, 1))) == pytest.approx(0.02, abs=1e-3)
