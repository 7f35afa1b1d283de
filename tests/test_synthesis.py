import numpy as np
import pytest

from lits_helpers.augmentation import Augmentation
from lits_helpers.masks import LIVER, TUMOUR
from lits_helpers.synthesis import DISTRACTOR_LEVELS, implant_distractor, implant_lesions


def picture(size=96):
    """An even liver, 40 pixels wide, in an even body."""
    image = np.full((size, size, 3), 60, np.uint8)
    labels = np.zeros((size, size), np.uint8)
    image[28:68, 28:68], labels[28:68, 28:68] = 128, LIVER
    return image, labels


@pytest.mark.parametrize("seed", range(8))
def test_lesions_lie_in_the_liver_and_change_nothing_far_from_it(seed):
    image, labels = picture()
    implant_lesions(image, labels, np.random.default_rng(seed))
    untouched, before = picture()
    assert (labels == TUMOUR).any()
    assert (before[labels == TUMOUR] == LIVER).all()
    far = np.ones(labels.shape, bool)
    far[18:78, 18:78] = False  # soft borders reach a few pixels out
    assert np.array_equal(image[far], untouched[far])


def test_lesions_are_mostly_darker_than_the_liver_in_the_middle_slice_most():
    darker, less = [], []
    for seed in range(40):
        image, labels = picture()
        implant_lesions(image, labels, np.random.default_rng(seed))
        levels = image[labels == TUMOUR].astype(float).mean(axis=0)
        darker.append(levels[1] < 128)
        less.append(abs(levels[0] - 128) <= abs(levels[1] - 128) + 1)
    assert np.mean(darker) > 0.75
    assert all(less)


def test_a_slice_with_hardly_any_liver_stays_as_it_is():
    image, labels = np.full((50, 50, 3), 128, np.uint8), np.zeros((50, 50), np.uint8)
    labels[:4, :6] = LIVER  # 24 of 2,500 pixels
    implant_lesions(image, labels, np.random.default_rng(0))
    assert (image == 128).all()
    assert (labels == TUMOUR).sum() == 0


def test_the_same_seed_draws_the_same_lesions():
    (first, first_labels), (second, second_labels) = picture(), picture()
    implant_lesions(first, first_labels, np.random.default_rng(3))
    implant_lesions(second, second_labels, np.random.default_rng(3))
    assert np.array_equal(first, second)
    assert np.array_equal(first_labels, second_labels)


@pytest.mark.parametrize("seed", range(8))
def test_a_distractor_lies_across_the_livers_edge_and_is_dark_and_no_liver(seed):
    image, labels = picture()
    implant_distractor(image, labels, np.random.default_rng(seed))
    untouched, before = picture()
    taken = (before == LIVER) & (labels == 0)
    assert taken.any() and (labels == LIVER).any() and not (labels == TUMOUR).any()
    edge = before.copy().astype(bool)
    edge[29:67, 29:67] = False
    assert (taken & edge).any()
    changed = (image != untouched).any(axis=2)
    assert (changed & (before == 0)).any()  # outside the liver as well
    assert image[taken].max() <= 128 and image[taken].min() <= DISTRACTOR_LEVELS[1] + 1
    assert np.array_equal(labels[~changed], before[~changed])


def test_a_distractor_is_as_noisy_as_the_liver():
    noise = np.random.default_rng(5).normal(0, 5, (192, 192, 3))
    found = []
    for seed in range(30):
        image, labels = picture(192)
        image[:] = (image + noise).round()
        before = labels.copy()
        implant_distractor(image, labels, np.random.default_rng(seed))
        taken = (before == LIVER) & (labels == 0)
        body = taken & np.roll(taken, 3, 0) & np.roll(taken, -3, 0) & np.roll(taken, 3, 1) & np.roll(taken, -3, 1)
        if body.sum() > 30 and image[body].mean() > 15:  # else clipped at 0
            found.append(image[body].std())
    assert len(found) > 5 and np.median(found) == pytest.approx(5, abs=1)


def test_a_distractor_never_covers_a_tumour():
    for seed in range(20):
        image, labels = picture()
        labels[28:68, 28:68] = TUMOUR
        implant_distractor(image, labels, np.random.default_rng(seed))
        assert (labels == TUMOUR).sum() == 1600 and np.array_equal(image, picture()[0])


def test_without_a_liver_there_is_no_distractor():
    image, labels = np.full((50, 50, 3), 128, np.uint8), np.zeros((50, 50), np.uint8)
    implant_distractor(image, labels, np.random.default_rng(0))
    assert (image == 128).all()


@pytest.mark.parametrize("name", ["lesions", "distractors"])
def test_a_probability_above_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be from 0 to 1, got 1.5"):
        Augmentation(**{name: 1.5})
