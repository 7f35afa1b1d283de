"""Small masks whose components, holes and distances can be counted by hand."""

import numpy as np
import pytest
from scipy import ndimage

from lits_helpers.distances import bounding_box
from lits_helpers.files import DataError
from lits_helpers.postprocessing import (
    PostProcessing, clean, filled, hysteresis, inside, largest_component, tumour_steps, without_small,
)

SHAPE = (5, 9, 11)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)


def drawn(*parts):
    """A mask of SHAPE, True in each of the index expressions."""
    mask = EMPTY.copy()
    for part in parts:
        mask[part] = True
    return mask


ONE = drawn(np.s_[2, 4, 5])
BIG = np.s_[0:2, 0:3, 0:4]  # 24 voxels
SMALL = np.s_[3, 6:8, 7:9]  # 4 voxels


@pytest.mark.parametrize(
    "step",
    [
        largest_component, filled, without_small, lambda mask: filled(mask, within="volume"),
        lambda mask: inside(mask, FULL), lambda mask: inside(mask, FULL, (3, 1, 1), margin_mm=2),
        lambda mask: without_small(mask, (5, 1, 1), minimum_mm3=5),
    ],
)
@pytest.mark.parametrize("mask", [EMPTY, FULL, ONE], ids=["empty", "full", "one voxel"])
def test_a_step_leaves_empty_full_and_single_voxel_masks_alone_and_its_input_too(step, mask):
    given = mask.copy()
    result = step(given)
    assert result.dtype == bool and np.array_equal(result, mask)
    assert np.array_equal(given, mask) and not np.shares_memory(result, given)


# Components -----------------------------------------------------------------------------------


def test_only_the_largest_component_is_kept():
    assert np.array_equal(largest_component(drawn(BIG, SMALL, np.s_[2, 4, 5])), drawn(BIG, np.s_[2, 4, 5]) & ~ONE)


def test_voxels_that_touch_at_a_corner_are_one_component():
    diagonal = drawn(np.s_[0, 0, 0], np.s_[1, 1, 1], np.s_[2, 2, 2])
    assert np.array_equal(largest_component(diagonal | drawn(np.s_[4, 5, 5:7])), diagonal)


def test_of_two_equal_components_the_first_is_kept():
    assert np.array_equal(largest_component(drawn(np.s_[0, 0, 0], np.s_[4, 4, 4])), drawn(np.s_[0, 0, 0]))


def test_a_component_of_exactly_the_limit_stays_and_a_smaller_one_goes():
    mask, spacing = drawn(BIG, SMALL), (2.5, 0.8, 0.8)  # 1.6 mm3 a voxel: 38.4 and 6.4 mm3
    assert np.array_equal(without_small(mask, spacing, minimum_mm3=6.4), mask)
    assert np.array_equal(without_small(mask, spacing, minimum_mm3=6.5), drawn(BIG))
    assert not without_small(mask, spacing, minimum_mm3=38.5).any()


def test_three_voxels_are_as_large_as_their_volume_whatever_floats_make_of_it():
    mask = drawn(np.s_[0, 0, 0:3])
    assert 2.1 / 0.7 > 3
    assert np.array_equal(without_small(mask, (0.7, 1, 1), minimum_mm3=2.1), mask)


def test_nothing_of_an_empty_mask_is_too_small():
    assert not without_small(EMPTY, minimum_voxels=2).any()


def test_both_limits_hold():
    mask = drawn(BIG, SMALL)
    assert np.array_equal(without_small(mask, minimum_voxels=5), drawn(BIG))
    assert np.array_equal(without_small(mask, (1, 1, 1), minimum_mm3=2, minimum_voxels=5), drawn(BIG))
    assert not without_small(mask, (1, 1, 1), minimum_mm3=25, minimum_voxels=5).any()


def test_a_size_in_mm_is_refused_where_the_spacing_is_not_known():
    with pytest.raises(DataError, match="50 mm3 needs the spacing.*minimum_voxels"):
        without_small(FULL, minimum_mm3=50)
    with pytest.raises(DataError, match="2 mm needs the spacing.*margin_mm at 0"):
        inside(FULL, FULL, margin_mm=2)


@pytest.mark.parametrize("spacing", [(1, 0, 1), (1, 1), (np.nan, 1, 1)])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(DataError, match="3 positive numbers"):
        without_small(FULL, spacing, minimum_mm3=50)


# Liver ----------------------------------------------------------------------------------------


def test_a_tumour_is_cut_at_the_border_of_the_liver():
    assert np.array_equal(inside(drawn(np.s_[1, 1, 0:8]), drawn(np.s_[:, :, 5:])), drawn(np.s_[1, 1, 5:8]))


@pytest.mark.parametrize(("margin", "columns", "slices"), [(1.9, 5, 2), (2.0, 4, 2), (3.0, 4, 1), (6.0, 2, 0)])
def test_the_margin_is_measured_in_mm_along_each_axis(margin, columns, slices):
    liver, spacing = drawn(np.s_[2:, :, 5:]), (3.0, 1.0, 2.0)
    across = inside(drawn(np.s_[2, 4, :]), liver, spacing, margin_mm=margin)
    along = inside(drawn(np.s_[:, 4, 7]), liver, spacing, margin_mm=margin)
    assert np.flatnonzero(across[2, 4])[0] == columns
    assert np.flatnonzero(along[:, 4, 7])[0] == slices


def test_the_margin_agrees_with_distances_over_the_whole_volume():
    random = np.random.default_rng(3)
    spacing = (2.5, 0.7, 0.9)
    for _ in range(20):
        tumour, liver = random.random(SHAPE) > 0.9, random.random(SHAPE) > 0.97
        away = np.full(SHAPE, np.inf)
        for place in np.argwhere(liver):
            steps = (np.indices(SHAPE).T - place) * spacing
            away = np.minimum(away, np.linalg.norm(steps, axis=-1).T)
        assert np.array_equal(inside(tumour, liver, spacing, margin_mm=2.0), tumour & (away <= 2.0))


def test_without_a_liver_nothing_is_inside_it():
    assert not inside(FULL, EMPTY).any()
    assert not inside(FULL, EMPTY, (1, 1, 1), margin_mm=5).any()


def test_a_liver_of_another_volume_is_refused():
    with pytest.raises(DataError, match=r"liver has shape \(5, 9, 11\), the mask \(4, 9, 11\)"):
        inside(FULL[:4], FULL)


# Holes ----------------------------------------------------------------------------------------

RING = drawn(np.s_[2, 2:5, 2:5]) & ~drawn(np.s_[2, 3, 3])
SHELL = drawn(np.s_[1:4, 2:5, 2:5]) & ~drawn(np.s_[2, 3, 3])


def test_a_ring_is_filled_within_its_slice_but_is_open_in_the_volume():
    assert np.array_equal(filled(RING), drawn(np.s_[2, 2:5, 2:5]))
    assert np.array_equal(filled(RING, within="volume"), RING)


def test_a_shell_is_filled_in_the_volume():
    assert np.array_equal(filled(SHELL, within="volume"), drawn(np.s_[1:4, 2:5, 2:5]))


def test_a_gap_at_a_corner_does_not_open_a_hole():
    assert np.array_equal(filled(RING & ~drawn(np.s_[2, 2, 2])), drawn(np.s_[2, 2:5, 2:5]) & ~drawn(np.s_[2, 2, 2]))


def test_a_gap_at_an_edge_does_not_open_a_shell():
    assert filled(SHELL & ~drawn(np.s_[1, 2, 3]), within="volume")[2, 3, 3]
    assert not filled(SHELL & ~drawn(np.s_[1, 3, 3]), within="volume")[2, 3, 3]


def test_the_border_of_the_volume_closes_no_hole():
    half_ring = drawn(np.s_[2, 0:2, 2:5]) & ~drawn(np.s_[2, 0, 3])
    assert np.array_equal(filled(half_ring), half_ring)
    assert np.array_equal(filled(half_ring, within="volume"), half_ring)


def test_nothing_is_filled_where_nothing_is_to_be_and_another_word_is_refused():
    assert np.array_equal(filled(RING, within="none"), RING)
    with pytest.raises(ValueError, match="got 'slice'"):
        filled(RING, within="slice")


# Hysteresis -----------------------------------------------------------------------------------


def test_a_faint_component_stays_only_where_it_is_somewhere_sure():
    probability = np.zeros(SHAPE, np.float32)
    probability[0, 0, 0:4] = [0.4, 0.9, 0.4, 0.2]
    probability[4, 8, 5:8] = 0.45
    expected = drawn(np.s_[0, 0, 0:3])
    assert np.array_equal(hysteresis(probability, low=0.3, high=0.5), expected)


def test_values_on_the_limits_are_below_them():
    probability = np.zeros(SHAPE)
    probability[0, 0, 0:2] = [0.5, 0.25]
    assert not hysteresis(probability, low=0.25, high=0.5).any()
    assert np.array_equal(hysteresis(probability, low=0.25, high=0.25), drawn(np.s_[0, 0, 0]))


def test_hysteresis_of_no_and_of_full_probability_is_empty_and_full():
    assert not hysteresis(np.zeros(SHAPE), low=0.3, high=0.5).any()
    assert hysteresis(np.ones(SHAPE), low=0.3, high=0.5).all()


def test_a_low_limit_above_the_high_one_is_refused():
    with pytest.raises(ValueError, match=r"low \(0.5\)"):
        hysteresis(np.zeros(SHAPE), low=0.5, high=0.3)


# All steps ------------------------------------------------------------------------------------


def labelled(liver, tumour):
    labels = liver.astype(np.uint8)
    labels[tumour] = 2
    return labels


def test_a_predicted_liver_loses_its_islands_and_the_tumours_on_them():
    liver, island = drawn(np.s_[1:4, 2:8, 2:7]), drawn(np.s_[2, 4, 9:11])
    tumour, stray = drawn(np.s_[2, 3:5, 3:5]), drawn(np.s_[2, 4, 10])
    cleaned = clean(labelled(liver | island, tumour | stray), (1, 1, 1))
    assert np.array_equal(cleaned, labelled(liver, tumour)) and cleaned.dtype == np.uint8


def test_the_hole_of_a_predicted_liver_becomes_liver():
    assert np.array_equal(clean(labelled(SHELL, EMPTY)), labelled(drawn(np.s_[1:4, 2:5, 2:5]), EMPTY))


def test_where_no_liver_is_predicted_tumours_are_not_cut():
    tumours = labelled(EMPTY, drawn(BIG, SMALL))
    assert np.array_equal(clean(tumours), tumours)


def test_a_given_liver_cuts_tumours_and_is_not_added_to_the_labels():
    cleaned = clean(labelled(EMPTY, drawn(BIG, SMALL)), liver=drawn(np.s_[:, :, 2:5]))
    assert np.array_equal(cleaned, labelled(EMPTY, drawn(np.s_[0:2, 0:3, 2:4])))


def test_what_the_liver_leaves_of_a_component_is_measured_after_the_cut():
    options = PostProcessing(minimum_voxels=7)
    tumour = labelled(EMPTY, drawn(BIG))
    assert not clean(tumour, liver=drawn(np.s_[:, :, 3:]), options=options).any()  # 6 voxels are left
    assert clean(tumour, liver=drawn(np.s_[:, :, 2:]), options=options).sum() == 2 * 12


def test_a_ring_counts_with_its_hole_when_it_is_measured():
    ring = labelled(EMPTY, RING)  # 8 voxels, 9 with the hole
    assert np.count_nonzero(clean(ring, options=PostProcessing(minimum_voxels=9))) == 9
    assert not clean(ring, options=PostProcessing(minimum_voxels=9, fill_tumour="none")).any()


@pytest.mark.parametrize("labels", [labelled(EMPTY, EMPTY), labelled(FULL, EMPTY), labelled(EMPTY, FULL), labelled(EMPTY, ONE)])
def test_labels_that_need_no_cleaning_stay(labels):
    assert np.array_equal(clean(labels, (5, 0.7, 0.7)), labels)


def test_the_default_options_need_no_spacing_and_those_in_mm_do():
    assert clean(labelled(EMPTY, ONE)).any()
    with pytest.raises(DataError, match="minimum_voxels"):
        clean(labelled(EMPTY, ONE), options=PostProcessing(minimum_mm3=10))


def test_steps_are_named_with_their_sizes_and_left_out_when_switched_off():
    options = PostProcessing(liver_margin_mm=2, minimum_mm3=65, minimum_voxels=3)
    assert [name for name, _ in tumour_steps((1, 1, 1), liver=FULL, options=options)] == [
        "holes filled (slices)", "inside the liver (margin 2 mm)", "components under 65 mm3 or 3 voxels removed",
    ]
    assert tumour_steps(None, liver=None, options=PostProcessing(fill_tumour="none")) == []


def test_the_box_of_a_mask_is_the_one_scipy_finds():
    random = np.random.default_rng(0)
    for share in (0.5, 0.98, 0.995):
        mask = random.random(SHAPE) > share
        assert bounding_box(mask) == ndimage.find_objects(mask.astype(int))[0]
