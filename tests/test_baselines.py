"""Images of a few values, whose best threshold can be found by hand."""

import numpy as np
import pytest

from lits_helpers.baselines import contrast_to_liver, dark_liver, everything, learnt_threshold, nothing
from lits_helpers.files import DataError

LIVER = np.array([[[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]], bool)
TUMOUR = np.zeros_like(LIVER)
TUMOUR[0, 0, 0:3] = True
# Tumour 40, 50, 60; liver 60, 90, 100, 100, 100; fat of -80 beside it, darker than all of both.
IMAGE = np.array([[[40, 50, 60, 60, -80], [90, 100, 100, 100, -80], [-80, -80, -80, -80, -80]]], np.int16)


def test_nothing_and_everything_are_what_they_say():
    assert nothing(LIVER).dtype == bool and not nothing(LIVER).any()
    assert np.array_equal(everything(LIVER), LIVER) and not np.shares_memory(everything(LIVER), LIVER)
    assert not everything(np.zeros_like(LIVER)).any() and everything(np.ones_like(LIVER)).all()


def test_the_threshold_itself_is_predicted_and_nothing_outside_the_liver():
    expected = np.zeros_like(LIVER)
    expected[0, 0, 0:2] = True
    assert np.array_equal(dark_liver(IMAGE, LIVER, 50), expected)
    assert not dark_liver(IMAGE, LIVER, 39).any()
    assert np.array_equal(dark_liver(IMAGE, LIVER, 1000), LIVER)


def test_the_threshold_with_the_best_pooled_dice_is_learnt():
    learnt = learnt_threshold([(IMAGE, LIVER, TUMOUR)])
    # At 40: 2*1/(1+3); at 50: 2*2/(2+3) = 0.8; at 60: 2*3/(4+3) = 6/7; at 90: 6/8.
    assert (learnt.threshold, learnt.cases) == (60, 1)
    assert learnt.dice_pooled == pytest.approx(6 / 7)


def test_cases_are_pooled_and_one_without_tumour_counts():
    healthy = (np.full_like(IMAGE, 55), LIVER, np.zeros_like(LIVER))
    learnt = learnt_threshold(iter([(IMAGE, LIVER, TUMOUR), healthy]))
    # Eight more voxels at 55: at 50 still 0.8, at 60 only 6/(12+3).
    assert (learnt.threshold, learnt.cases) == (50, 2)
    assert learnt.dice_pooled == pytest.approx(0.8)


def test_of_equally_good_thresholds_the_lowest_is_taken():
    """Between 60 and 90 no value occurs, so all of 60 to 89 predict the same."""
    assert learnt_threshold([(IMAGE, LIVER, TUMOUR)]).threshold == 60


def test_levels_of_the_green_channel_work_too():
    levels = np.clip((IMAGE + 40.0) * 255 / 200, 0, 255).astype(np.uint8)
    learnt = learnt_threshold([(levels, LIVER, TUMOUR)])
    assert learnt.threshold == 127  # (60 + 40) * 255 / 200, truncated
    assert learnt.dice_pooled == pytest.approx(6 / 7)


def test_one_tumour_voxel_and_a_liver_that_is_all_tumour():
    single = np.zeros_like(LIVER)
    single[0, 0, 0] = True
    learnt = learnt_threshold([(IMAGE, LIVER, single)])
    assert (learnt.threshold, learnt.dice_pooled) == (40, 1)
    whole = learnt_threshold([(IMAGE, LIVER, LIVER)])
    assert (whole.threshold, whole.dice_pooled) == (100, 1)


def test_tumour_outside_the_given_liver_counts_as_missed():
    outside = TUMOUR.copy()
    outside[0, 2, 0:3] = True
    learnt = learnt_threshold([(IMAGE, LIVER, outside)])
    assert (learnt.threshold, learnt.dice_pooled) == (60, pytest.approx(6 / 10))


@pytest.mark.parametrize("cases", [[], [(IMAGE, LIVER, np.zeros_like(LIVER))], [(IMAGE, np.zeros_like(LIVER), TUMOUR)]])
def test_without_tumour_or_liver_nothing_is_learnt(cases):
    with pytest.raises(DataError, match="training patients with tumours"):
        learnt_threshold(cases)


def test_three_channels_floats_and_too_large_values_are_refused():
    with pytest.raises(DataError, match="one channel"):
        dark_liver(np.stack([IMAGE] * 3, axis=-1), LIVER, 50)
    with pytest.raises(ValueError, match="got float64"):
        learnt_threshold([(IMAGE / 1.0, LIVER, TUMOUR)])
    with pytest.raises(ValueError, match="16 bits"):
        learnt_threshold([(IMAGE.astype(np.int32) + 40_000, LIVER, TUMOUR)])


def test_contrast_is_the_distance_to_the_median_of_the_own_liver():
    """Two patients with the same tumours, one of whom took up 50 HU more."""
    liver = np.zeros((3, 40, 40), bool)
    liver[1:, 5:35, 5:35] = True
    dim = np.full(liver.shape, -100, np.int16)
    dim[liver] = 60
    dim[1, 10:20, 10:20] = 25
    bright = np.where(liver, dim + 50, dim).astype(np.int16)
    contrast = contrast_to_liver(dim, liver)
    assert contrast.dtype == np.int16 and not contrast[0].any()
    assert (contrast[1, 15, 15], contrast[1, 30, 30], contrast[2, 15, 15]) == (-35, 0, 0)
    inner = (slice(1, 3), slice(8, 32), slice(8, 32))  # the rim mixes with what lies outside
    assert np.array_equal(contrast_to_liver(bright, liver)[inner], contrast[inner])


def test_contrast_leaves_out_single_pixels_and_works_on_levels():
    liver = np.ones((1, 15, 17), bool)
    levels = np.full(liver.shape, 200, np.uint8)
    levels[0, 7, 7] = 0
    assert not contrast_to_liver(levels, liver).any()
    assert not contrast_to_liver(levels, ~liver).any()
