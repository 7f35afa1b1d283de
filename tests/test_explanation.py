import keras
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from lits_helpers import explanation
from lits_helpers.files import DataError
from lits_helpers.model import unet

KERNEL = np.array([1, -2, 3], np.float32)


def one_convolution(activation="sigmoid", kernel=KERNEL, bias=0.0, size=(4, 6)):
    """A network of one 1x1 convolution, whose gradient is its kernel."""
    kernel = np.asarray(kernel, np.float32).reshape(1, 1, 3, -1)
    inputs = keras.Input((*size, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(kernel.shape[-1], 1, activation=activation)(inputs))
    model.set_weights([kernel, np.full(kernel.shape[-1], bias, np.float32)])
    return model


def region(*pixels, size=(4, 6)):
    mask = np.zeros(size, bool)
    for pixel in pixels:
        mask[pixel] = True
    return mask


GREY = np.full((4, 6, 3), 0.5, np.float32)


# Gradients ------------------------------------------------------------------------------------


def test_the_gradient_of_a_convolution_is_its_kernel_within_the_region_and_0_outside():
    found = explanation.input_gradient(one_convolution(), GREY, region((1, 2), (3, 5)))
    assert found.shape == (4, 6, 3) and found.dtype == np.float32
    assert found[1, 2].tolist() == found[3, 5].tolist() == [1, -2, 3]
    assert np.count_nonzero(found) == 6


def test_saliency_is_the_largest_size_over_channels():
    found = explanation.saliency(one_convolution(kernel=[1, -4, 3]), GREY, region((0, 0)))
    assert found[0, 0] == 4 and found.sum() == 4 and found.shape == (4, 6)


def test_a_network_that_is_sure_still_has_a_gradient():
    model = one_convolution(bias=200)
    assert model(GREY[None]).numpy().min() == 1  # the sigmoid's own gradient is 0
    assert explanation.input_gradient(model, GREY, region((1, 1)))[1, 1].tolist() == [1, -2, 3]


def test_of_a_softmax_the_score_of_the_last_class_is_taken():
    kernel = np.stack([[9, 9, 9], [0, 1, 0], KERNEL], axis=-1)
    model = one_convolution("softmax", kernel)
    assert explanation.input_gradient(model, GREY, region((1, 1)))[1, 1].tolist() == [1, -2, 3]


@pytest.mark.parametrize("last", [keras.layers.Softmax(), keras.layers.Activation("softmax", dtype="float32")])
def test_an_activation_may_be_a_layer_of_its_own(last):
    linear = one_convolution("linear", np.stack([[0, 1, 0], KERNEL], axis=-1))
    model = keras.Model(linear.inputs, last(linear.output))
    assert explanation.input_gradient(model, GREY, region((1, 1)))[1, 1].tolist() == [1, -2, 3]


def test_bytes_are_explained_on_the_scale_from_0_to_1():
    found = explanation.input_gradient(one_convolution(), np.full((4, 6, 3), 128, np.uint8), region((1, 1)))
    assert found[1, 1].tolist() == [1, -2, 3]


def test_explaining_changes_neither_weights_nor_answers():
    model = one_convolution()
    before = model(GREY[None]).numpy()
    explanation.saliency(model, GREY, region((1, 1)))
    assert model(GREY[None]).numpy().tolist() == before.tolist() and model.layers[-1].activation.__name__ == "sigmoid"


def hinge():
    """0 up to a value of 0.5 of the first channel, then its slope is 1."""
    inputs = keras.Input((4, 6, 3))
    x = keras.layers.Conv2D(1, 1, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))
    kernel = np.array([1, 0, 0], np.float32).reshape(1, 1, 3, 1)
    model.set_weights([kernel, np.array([-0.5], np.float32), np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)])
    return model


def test_smoothgrad_averages_the_slopes_on_both_sides_of_a_hinge():
    image = GREY.copy()
    image[0, 0] = 0, 0.5, 1  # noise is a share of the range, 1
    assert not explanation.input_gradient(hinge(), image, region((2, 2))).any()
    found = explanation.input_gradient(hinge(), image, region((2, 2)), noise=0.1, samples=100)
    assert found[2, 2, 0] == pytest.approx(0.5, abs=0.15)  # half of 100 throws, within three standard deviations
    # The first channel is 5 deviations below the hinge here, so no noise brings it there.
    assert not explanation.input_gradient(hinge(), image, region((0, 0)), noise=0.1, samples=50).any()


def test_smoothgrad_of_a_linear_network_is_the_gradient():
    image = np.random.default_rng(0).random((4, 6, 3))
    found = explanation.input_gradient(one_convolution(), image, region((1, 1)), noise=0.2, samples=12)
    assert found[1, 1] == pytest.approx(KERNEL, rel=1e-6)


def test_smoothgrad_of_equal_seeds_is_the_same():
    image = GREY.copy()
    image[0, 0] = 0, 0.5, 1
    options = dict(noise=0.1, samples=7)
    everywhere = np.ones((4, 6), bool)
    first, again, other = (explanation.saliency(hinge(), image, everywhere, seed=seed, **options) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_an_empty_region_or_one_of_another_size_is_refused():
    with pytest.raises(DataError, match="region is empty"):
        explanation.saliency(one_convolution(), GREY, region())
    with pytest.raises(ValueError, match=r"\(3, 6\).*\(4, 6\)"):
        explanation.saliency(one_convolution(), GREY, np.ones((3, 6), bool))


def test_a_full_region_is_explained_in_every_pixel():
    found = explanation.input_gradient(one_convolution(), GREY, np.ones((4, 6), bool))
    assert (found == KERNEL).all()


def test_a_network_without_sigmoid_and_pictures_of_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="no sigmoid or softmax"):
        explanation.saliency(one_convolution("linear"), GREY, region((1, 1)))
    with pytest.raises(ValueError, match="int64"):
        explanation.saliency(one_convolution(), np.ones((4, 6, 3), int), region((1, 1)))
    with pytest.raises(ValueError, match="one input"):
        explanation.saliency(object(), GREY, region((1, 1)))


# Grad-CAM -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_features():
    """Its features are the first two channels of the image; the first speaks for tumour, the second against."""
    inputs = keras.Input((4, 6, 3))
    features = keras.layers.Conv2D(2, 1, use_bias=False, name="features")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, use_bias=False, activation="sigmoid")(features))
    chosen = np.array([[1, 0], [0, 1], [0, 0]], np.float32).reshape(1, 1, 3, 2)
    model.set_weights([chosen, np.array([2, -1], np.float32).reshape(1, 1, 2, 1)])
    return model


def test_grad_cam_weighs_features_by_their_mean_gradient(two_features):
    image = np.zeros((4, 6, 3), np.float32)
    image[0, 0], image[1, 1], image[2, 2] = (1, 0, 0), (1, 1, 0), (0, 1, 0)
    found = explanation.grad_cam(two_features, image, region((3, 3), (3, 4)), layer="features")
    # Weights 2 * 2 / 24 and -1 * 2 / 24: 2 at (0, 0), 1 at (1, 1), -1 cut to 0 at (2, 2), in units of 2 / 24.
    assert found[0, 0] == pytest.approx(1) and found[1, 1] == pytest.approx(0.5) and found.sum() == pytest.approx(1.5)
    assert found.dtype == np.float32 and found.shape == (4, 6)


def test_grad_cam_is_0_where_nothing_speaks_for_the_region(two_features):
    image = np.zeros((4, 6, 3), np.float32)
    image[..., 1] = 1
    assert not explanation.grad_cam(two_features, image, region((0, 0)), layer="features").any()


def test_grad_cam_of_a_coarse_layer_has_the_size_of_the_image():
    model = unet((16, 24, 3), filters=2, depth=2)
    image = np.random.default_rng(0).random((16, 24, 3))
    mask = region((3, 4), (3, 5), size=(16, 24))
    assert explanation.grad_cam(model, image, mask).shape == (16, 24)


def test_stages_of_the_unet_are_the_outputs_of_its_blocks_and_the_bottleneck_is_the_coarsest():
    model = unet((16, 24, 3), filters=2, depth=2)
    shapes = [model.get_layer(name).output.shape[1:] for name in explanation.stages(model)]
    assert shapes == [(16, 24, 2), (8, 12, 4), (4, 6, 8), (8, 12, 4), (16, 24, 2)]
    assert all(isinstance(model.get_layer(name), keras.layers.Activation) for name in explanation.stages(model))
    assert explanation.bottleneck(model) == explanation.stages(model)[2]


# Sanity ---------------------------------------------------------------------------------------


def test_randomisation_goes_from_the_answer_to_the_image_and_spares_the_network_itself():
    model = unet((8, 8, 3), filters=2, depth=1)
    weights = [weight.copy() for weight in model.get_weights()]
    kernels = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose)]
    changed = []
    for name, network in explanation.cascading_randomisation(model):
        same = {
            layer.name: all((a == b).all() for a, b in zip(layer.get_weights()[:1], model.get_layer(layer.name).get_weights()[:1]))
            for layer in network.layers if layer.name in kernels
        }
        changed.append([layer for layer in kernels if not same[layer]])
        assert name == kernels[-len(changed)]
    assert changed == [kernels[-number:] for number in range(1, len(kernels) + 1)]
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))


def test_normalisation_forgets_too():
    model = unet((8, 8, 3), filters=2, depth=1)
    model.set_weights([np.full_like(weight, 7) for weight in model.get_weights()])
    *_, (_, network) = explanation.cascading_randomisation(model)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            assert (gamma == 1).all() and (variance == 1).all() and not beta.any() and not mean.any()


def test_equal_seeds_randomise_equally():
    model = one_convolution()
    first, again, other = (next(explanation.cascading_randomisation(model, seed=s))[1].get_weights()[0] for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_similarity_of_a_map_with_itself_is_1_at_any_scale():
    one = np.random.default_rng(0).random((20, 31))
    assert explanation.map_similarity(one, 5 * one) == pytest.approx((1, 1))


def test_rank_correlation_of_a_reversed_order_is_minus_1():
    one = np.arange(12.0).reshape(3, 4)
    assert explanation.map_similarity(one, 11 - one).spearman == pytest.approx(-1)


def test_a_constant_map_has_no_rank_correlation():
    found = explanation.map_similarity(np.zeros((3, 4)), np.arange(12.0).reshape(3, 4))
    assert np.isnan(found.spearman) and np.isfinite(found.ssim)


def test_structural_similarity_is_that_of_scikit_image_away_from_the_border():
    first, second = np.random.default_rng(0).random((2, 40, 33))
    first, second = first / first.max(), second / second.max()
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)
    _, theirs = structural_similarity(first, second, full=True, **options)
    inner = np.zeros(first.shape, bool)
    inner[6:-6, 6:-6] = True
    assert explanation.map_similarity(first, second, inside=inner).ssim == pytest.approx(theirs[inner].mean(), abs=1e-6)


def test_only_pixels_inside_are_compared():
    first, second = np.zeros((2, 4, 6))
    first[0, :3], second[0, :3] = (1, 2, 3), (3, 2, 1)
    inside = first > 0
    assert explanation.map_similarity(first, second).spearman > 0.9  # both dark elsewhere
    assert explanation.map_similarity(first, second, inside=inside).spearman == pytest.approx(-1)


def test_a_map_that_ignores_the_network_survives_randomisation():
    edges = np.random.default_rng(0).random((4, 6))
    table, maps = explanation.randomisation_check(one_convolution(), lambda model: edges)
    assert table.spearman.tolist() == pytest.approx([1, 1]) and table.ssim.tolist() == pytest.approx([1, 1])
    assert maps.shape == (2, 4, 6) and maps.dtype == np.float32


def test_a_map_of_the_weights_does_not():
    model = one_convolution(size=(1, 3))
    table, maps = explanation.randomisation_check(model, lambda network: network.get_weights()[0].reshape(1, 3) ** 2)
    assert table.randomised.tolist() == [0, 1] and table.layer.tolist() == ["", model.layers[-1].name]
    assert maps[0].tolist() == [[1, 4, 9]] and table.ssim[1] < 0.99
