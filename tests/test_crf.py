"""The CRF against its own definition: a sum over all pairs of pixels, written out."""

import numpy as np
import pytest

from lits_helpers.crf import crf
from lits_helpers.files import DataError


STRONG = {"near_pixels": 30, "weight": 3, "smooth_weight": 1}


def noisy_square(shape=(31, 42), seed=0):
    """A dark square of 60 HU in 100, and probabilities that lie three pixels beside it."""
    random = np.random.default_rng(seed)
    truth = np.zeros(shape, bool)
    truth[8:20, 10:28] = True
    image = np.where(truth, 60, 100) + random.normal(0, 8, shape)
    probability = np.where(np.roll(truth, 3, axis=1), 0.55, 0.1) + random.normal(0, 0.12, shape)
    return truth, image, np.clip(probability, 0, 1)


def over_all_pairs(probability, image, near, alike, weight, smooth, smooth_weight, iterations, threshold):
    """Mean-field inference as in equation 3 and algorithm 1 of the paper, for two labels."""
    rows, columns = np.indices(image.shape)

    def kernel(*features):
        features = np.stack([np.ravel(feature) for feature in features], axis=1)
        distances = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
        gaussian = np.exp(-distances / 2)
        voters = gaussian.sum(axis=1)
        return gaussian / np.sqrt(np.outer(voters, voters))

    appearance = kernel(rows / near, columns / near, image / alike)
    smoothness = kernel(rows / smooth, columns / smooth)
    clipped = np.clip(probability, 1e-5, 1 - 1e-5)
    # Shifted so that the threshold is even odds, and back in the end.
    even = threshold / (1 - threshold)
    unary = np.stack([np.ones(image.size), (clipped / (1 - clipped) / even).ravel()])
    labels = unary / unary.sum(axis=0)
    for _ in range(iterations):
        messages = weight * labels @ appearance + smooth_weight * labels @ smoothness
        other = messages[::-1]  # Potts: a label pays for the votes of the other
        labels = unary * np.exp(-other)
        labels /= labels.sum(axis=0)
    odds = labels[1] / labels[0] * even
    return (odds / (1 + odds)).reshape(image.shape)


@pytest.mark.parametrize(("near", "threshold"), [(3.0, 0.3), (12.0, 0.3), (12.0, 0.5), (30.0, 0.3)])
def test_it_agrees_with_the_sum_over_all_pairs(near, threshold):
    _, image, probability = noisy_square()
    refined = crf(probability, image, **(STRONG | {"near_pixels": near}), threshold=threshold)
    expected = over_all_pairs(probability, image, near, 15.0, 3.0, 2.0, 1.0, 5, threshold)
    assert np.abs(expected - probability).mean() > 0.03  # it does something here
    assert np.abs(refined - expected).mean() < 0.002
    assert np.abs(refined - expected).max() < 0.05


def test_each_vote_alone_agrees_too():
    _, image, probability = noisy_square(shape=(25, 33))
    for weights in ({"weight": 0.0, "smooth_weight": 2.0}, {"weight": 4.0, "smooth_weight": 0.0}):
        refined = crf(probability, image, near_pixels=8, **weights)
        expected = over_all_pairs(
            probability, image, 8, 15.0, weights["weight"], 2.0, weights["smooth_weight"], 5, 0.3
        )
        assert np.abs(refined - expected).mean() < 0.002


def test_a_displaced_mask_moves_to_the_edges_of_the_picture():
    truth, image, probability = noisy_square()
    wrong = np.count_nonzero((probability > 0.3) != truth)
    assert np.count_nonzero((crf(probability, image, **STRONG) > 0.3) != truth) < wrong / 2
    assert np.count_nonzero((crf(probability, image) > 0.3) != truth) < wrong


def test_without_votes_nothing_changes():
    _, image, probability = noisy_square()
    assert crf(probability, image, weight=0, smooth_weight=0) == pytest.approx(probability, abs=1e-6)
    assert crf(probability, image, iterations=0) == pytest.approx(probability, abs=2e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_picture_that_is_all_one_or_the_other_stays_so(value):
    refined = crf(np.full((9, 7), value), np.full((9, 7), 50, np.uint8))
    assert refined.dtype == np.float32 and refined == pytest.approx(np.full((9, 7), value), abs=1e-4)


def test_a_single_pixel_is_outvoted_by_its_like_and_not_by_others():
    probability = np.full((21, 21), 0.1)
    probability[10, 10] = 0.6
    same, other = np.full((21, 21), 100.0), np.full((21, 21), 100.0)
    other[10, 10] = 0.0
    assert crf(probability, same, weight=3, smooth_weight=0)[10, 10] < 0.3
    assert crf(probability, other, weight=3, smooth_weight=0)[10, 10] > 0.6


def test_the_threshold_votes_for_neither_side():
    even = np.full((8, 8), 0.3)
    assert crf(even, np.zeros((8, 8)), threshold=0.3) == pytest.approx(even, abs=1e-6)
    assert (crf(even, np.zeros((8, 8)), threshold=0.4) < 0.2).all()


def test_a_slice_of_one_pixel_is_no_special_case():
    assert crf(np.array([[0.6]]), np.array([[7]]))[0, 0] > 0.6


def test_levels_of_eight_bits_give_the_same_as_numbers():
    _, image, probability = noisy_square()
    levels = np.clip(image, 0, 255).astype(np.uint8)
    assert np.array_equal(crf(probability, levels), crf(probability, levels.astype(float)))


def test_other_shapes_and_values_are_refused():
    _, image, probability = noisy_square()
    with pytest.raises(DataError, match="one slice"):
        crf(probability[:-1], image)
    with pytest.raises(DataError, match="one slice"):
        crf(probability[None], image[None])
    with pytest.raises(DataError, match="not finite"):
        crf(probability, np.where(image > 100, np.nan, image))
    with pytest.raises(DataError, match=r"got .* to 2"):
        crf(probability * 0 + 2, image)
    with pytest.raises(ValueError, match="positive"):
        crf(probability, image, alike=0)
    with pytest.raises(ValueError, match="threshold"):
        crf(probability, image, threshold=1)
