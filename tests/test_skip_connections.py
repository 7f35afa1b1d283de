import keras
import numpy as np
import pytest

from lits_helpers import skip_connections
from lits_helpers.files import DataError
from lits_helpers.model import unet


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return unet((32, 32, 3), filters=2, depth=2)


PICTURE = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)


def answer(network, picture=PICTURE):
    return network(picture[None], training=False).numpy()[0]


def test_the_unet_has_a_skip_a_level_that_carries_the_second_convolution(model):
    found = skip_connections.skips(model)
    assert [(skip.rows, skip.columns, skip.channels) for skip in found] == [(32, 32, 2), (16, 16, 4)]
    for skip in found:
        assert isinstance(model.get_layer(skip.joint), keras.layers.Concatenate)
        assert isinstance(model.get_layer(skip.source), keras.layers.Conv2D)
        assert skip.position == 1


def test_a_sum_over_a_lower_resolution_is_a_skip_and_a_residual_blocks_shortcut_is_none():
    inputs = keras.Input((8, 12, 3))
    first = keras.layers.Conv2D(4, 1, name="first")(inputs)
    block = keras.layers.Add()([first, keras.layers.Conv2D(4, 1)(first)])
    below = keras.layers.UpSampling2D()(keras.layers.MaxPooling2D()(block))
    joined = keras.layers.Add(name="joined")([block, below])
    joined = keras.layers.Concatenate()([joined, keras.layers.Conv2D(4, 1)(joined)])
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(joined))
    [skip] = skip_connections.skips(model)
    assert (skip.joint, skip.position, skip.rows, skip.columns) == ("joined", 0, 8, 12)


def test_feature_maps_are_what_the_layers_give(model):
    first = model.layers[1]
    coarse, fine = skip_connections.feature_maps(model, PICTURE, [skip_connections.skips(model)[1].source, first.name])
    assert coarse.shape == (16, 16, 4) and fine.dtype == np.float32
    assert fine == pytest.approx(first(PICTURE[None]).numpy()[0], abs=1e-5)


@pytest.mark.parametrize("which", [[0], [1], [0, 1], []])
def test_a_skip_that_carries_0_is_one_whose_channels_the_next_kernel_ignores(model, which):
    removed = [skip_connections.skips(model)[place] for place in which]
    ignoring = keras.models.clone_model(model)
    ignoring.set_weights(model.get_weights())
    for skip in removed:
        layers = [layer.name for layer in model.layers]
        after = ignoring.layers[layers.index(skip.joint) + 1]
        kernel, bias = after.get_weights()
        kernel[:, :, -skip.channels:] = 0  # the skip is the second input of the joint
        after.set_weights([kernel, bias])
    found = answer(skip_connections.without_skips(model, removed))
    assert found == pytest.approx(answer(ignoring), abs=1e-6)
    assert (found != pytest.approx(answer(model), abs=1e-6)) == bool(which)


def test_the_mean_keeps_how_much_and_loses_where():
    inputs = keras.Input((2, 2, 1))
    below = keras.layers.UpSampling2D()(keras.layers.MaxPooling2D()(inputs))
    joined = keras.layers.Concatenate()([below, inputs])
    outputs = keras.layers.Conv2D(1, 1, use_bias=False)(joined)
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array([0, 1], np.float32).reshape(1, 1, 2, 1)])  # it hands on the skip
    picture = np.array([[1, 2], [3, 6]], np.float32)[..., None]
    assert answer(model, picture)[..., 0].tolist() == [[1, 2], [3, 6]]
    skips = skip_connections.skips(model)
    assert answer(skip_connections.without_skips(model, skips, fill="mean"), picture)[..., 0].tolist() == [[3, 3], [3, 3]]
    assert not answer(skip_connections.without_skips(model, skips), picture).any()


def test_another_filling_is_refused(model):
    with pytest.raises(ValueError, match="'noise'"):
        skip_connections.without_skips(model, [], fill="noise")


@pytest.fixture(scope="module")
def skip_says_all():
    """Of two classes the second is tumour where the green channel, handed on by the skip, is dark in the liver."""
    inputs = keras.Input((32, 32, 3))
    below = keras.layers.UpSampling2D()(keras.layers.MaxPooling2D()(inputs))
    joined = keras.layers.Concatenate()([below, inputs])
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="softmax")(joined))
    kernel = np.zeros((1, 1, 6, 2), np.float32)
    kernel[0, 0, 4, 1] = 100
    model.set_weights([kernel, np.array([0, -50], np.float32)])
    return model


def test_ablation_scores_the_whole_network_first_and_what_a_skip_is_worth(table, cache, skip_says_all):
    found = skip_connections.skip_ablation(skip_says_all, cache, table).set_index("step")
    assert found.index.tolist() == ["all skips", "without 32 x 32", "without any"]
    # Brighter than a half: the liver, of which a part is the tumour. Without the skip: nothing.
    assert 0 < found.dice_pooled["all skips"] < 1 and found.dice_pooled["without any"] == 0
    assert found.dice_pooled_change["without 32 x 32"] == pytest.approx(-found.dice_pooled["all skips"])
    assert found.lesions_found.tolist()[1:] == [0, 0] and found.cases.tolist() == [3, 3, 3]


def test_a_network_without_skips_has_no_ablation(table, cache):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs))
    assert skip_connections.skips(model) == []
    with pytest.raises(DataError, match="no skip connection"):
        skip_connections.skip_ablation(model, cache, table)
