import keras
import numpy as np
import pytest

from lits_helpers import repeated_predictions
from lits_helpers.files import DataError


def test_flips_tell_how_far_the_answers_differ():
    inputs = keras.Input((4, 6, 1))
    outputs = keras.layers.Conv2D(1, (1, 3), padding="same", use_bias=False)(inputs)
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)])  # moves the picture right by a pixel
    images = np.zeros((3, 4, 6, 1), np.float32)
    images[1, 2, 3] = 1
    found = repeated_predictions.flip_uncertainty(model, images, batch_size=2)
    # As it is and up-down the bright pixel lands on the right, the other two times on the left.
    expected = np.zeros((3, 4, 6))
    expected[1, 2, [2, 4]] = 0.5
    assert found.mean.tolist() == expected.tolist() and found.mean.dtype == np.float32
    assert found.entropy.tolist() == (2 * expected).tolist() and found.variance.tolist() == (expected / 2).tolist()
    assert found.mutual_information.tolist() == (2 * expected).tolist()


def test_flips_of_a_network_that_sees_single_pixels_agree_and_bytes_are_scaled():
    inputs = keras.Input((5, 3, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, use_bias=False)(inputs))
    model.set_weights([np.array([0, 1], np.float32).reshape(1, 1, 1, 2)])
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 3, 1), dtype=np.uint8)
    found = repeated_predictions.flip_uncertainty(model, images)
    assert found.mean == pytest.approx(images[..., 0] / 255, abs=1e-6) and found.variance.max() < 1e-12


def network(*more):
    """A feature of 1 everywhere, normalised to (1 - 0) / 1, then what is given, then the answer 0.8 of it."""
    inputs = keras.Input((4, 6, 1))
    x = keras.layers.Conv2D(1, 1, name="feature")(inputs)
    x = keras.layers.BatchNormalization(epsilon=0, name="normalised")(x)
    for layer in more:
        x = layer(x)
    outputs = keras.layers.Conv2D(1, 1, use_bias=False, name="answer")(x)
    model = keras.Model(inputs, outputs)
    model.get_layer("feature").set_weights([np.zeros((1, 1, 1, 1)), np.ones(1)])
    model.get_layer("answer").set_weights([np.full((1, 1, 1, 1), 0.4)])
    return model


IMAGES = np.zeros((1, 4, 6, 1), np.float32)


def answers(model, passes=40):
    return {round(float(value), 4) for _ in range(passes) for value in np.unique(model.predict_on_batch(IMAGES))}


def test_injected_dropout_drops_whole_maps_in_prediction():
    model = repeated_predictions.with_dropout(network(), after=["normalised"], rate=0.5)
    assert answers(model) == {0, 0.8}  # dropped, or doubled to keep the mean; never both in one map
    assert all(len(np.unique(model.predict_on_batch(IMAGES))) == 1 for _ in range(5))


def test_the_network_itself_stays_as_it_is():
    model = network(keras.layers.Dropout(0.5))
    repeated_predictions.with_dropout(model, after=["feature"])
    assert answers(model, passes=3) == {0.4}


def test_a_networks_own_dropout_is_woken_and_normalisation_is_not():
    model = repeated_predictions.with_dropout(network(keras.layers.SpatialDropout2D(0.5)))
    # In training, normalisation would make 0 of a constant map, and the answer 0 throughout.
    assert answers(model) == {0, 0.8}


def test_passes_of_equal_seeds_are_the_same():
    def passes(seed):
        model = repeated_predictions.with_dropout(network(), after=["normalised"], rate=0.5, seed=seed)
        return [float(model.predict_on_batch(IMAGES)[0, 0, 0, 0]) for _ in range(20)]

    assert passes(1) == passes(1) != passes(2)


def test_dropout_uncertainty_has_mean_and_variance_of_its_passes():
    model = repeated_predictions.with_dropout(network(), after=["normalised"], rate=0.5)
    found = repeated_predictions.dropout_uncertainty(model, IMAGES, samples=60)
    # 0 or 0.8, each half of the time: mean 0.4, variance 0.16.
    assert found.mean.shape == (1, 4, 6) and found.mean[0, 0, 0] == pytest.approx(0.4, abs=0.16)
    assert found.variance == pytest.approx(found.mean * (0.8 - found.mean), abs=1e-6)


def test_without_dropout_there_is_nothing_to_sample_and_the_error_says_what_to_do():
    with pytest.raises(DataError, match="has no dropout.*injected"):
        repeated_predictions.with_dropout(network())
    with pytest.raises(ValueError, match="nowhere"):
        repeated_predictions.with_dropout(network(), after=["nowhere"])
