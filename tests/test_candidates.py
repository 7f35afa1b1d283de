"""Small candidates whose shape, place, intensity and texture can be worked out by hand."""

import sys
import warnings

import numpy as np
import pytest

from lits_helpers.candidates import CandidateCase, candidate_features, candidate_table, label_candidates
from lits_helpers.files import DataError

SHAPE = (5, 11, 13)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
GREY = np.full(SHAPE, 100, np.uint8)
CUBE = np.cbrt(np.pi / 6)  # sphericity of a cube


def drawn(*parts):
    """A mask of SHAPE, True in each of the index expressions."""
    mask = EMPTY.copy()
    for part in parts:
        mask[part] = True
    return mask


def described(tumour, *, image=GREY, liver=FULL, **options):
    """The one candidate of a mask."""
    table = candidate_features(image, tumour, liver, **options)
    assert len(table) == 1
    return table.iloc[0]


# Candidates ------------------------------------------------------------------------------------


def test_each_component_is_a_row_numbered_in_array_order_and_corners_connect():
    table = candidate_features(GREY, drawn(np.s_[0, 0, 0], np.s_[1, 1, 1], np.s_[3, 5, 2:7]), FULL)
    assert table.candidate.tolist() == [1, 2]
    assert table.voxels.tolist() == [2, 5]
    assert table.slices.tolist() == [2, 1]


@pytest.mark.parametrize("liver", [EMPTY, FULL], ids=["no liver", "liver"])
def test_an_empty_mask_has_no_candidates_but_the_same_columns(liver):
    table = candidate_features(GREY, EMPTY, liver)
    assert table.empty
    assert table.columns.tolist() == candidate_features(GREY, FULL, FULL).columns.tolist()


def test_a_full_mask_is_one_candidate_that_leaves_no_liver_to_compare_with():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = described(FULL)
    assert (found.voxels, found.extent, found.liver_share) == (5 * 11 * 13, 1, 1)
    assert np.isnan(found.grey_contrast) and np.isnan(found.grey_z_score)


# Shape -----------------------------------------------------------------------------------------


def test_a_box_of_two_by_four_by_eight_voxels_has_axes_of_these_ratios():
    found = described(drawn(np.s_[1:3, 2:6, 3:11]))
    assert found.elongation == pytest.approx(4 / 8)
    assert found.flatness == pytest.approx(2 / 8)
    assert found.extent == 1 and found.voxels == 64 and found.slices == 2
    surface = 2 * (2 * 4 + 2 * 8 + 4 * 8)
    assert found.sphericity == pytest.approx(np.cbrt(36 * np.pi * 64**2) / surface)
    assert np.isnan(found.volume_ml)


def test_the_same_box_is_a_cube_where_its_voxels_are_as_much_longer():
    found = described(drawn(np.s_[1:3, 2:6, 3:11]), spacing=(4, 2, 1))
    assert found.elongation == pytest.approx(1) and found.flatness == pytest.approx(1)
    assert found.sphericity == pytest.approx(CUBE)
    assert found.volume_ml == pytest.approx(0.8**3)


def test_one_voxel_is_a_cube():
    found = described(drawn(np.s_[2, 4, 5]))
    assert found.elongation == pytest.approx(1) and found.sphericity == pytest.approx(CUBE)
    assert (found.voxels, found.slices, found.extent, found.grey_deviation) == (1, 1, 1, 0)


def test_three_of_four_pixels_fill_three_quarters_of_their_box():
    assert described(drawn(np.s_[0, 0:2, 0], np.s_[0, 1, 1])).extent == 0.75


# Place -----------------------------------------------------------------------------------------

SQUARE = drawn(np.s_[:, 2:9, 2:9])


def test_the_middle_of_a_square_of_seven_is_four_pixels_from_the_outside():
    found = described(drawn(np.s_[2, 5, 5]), liver=SQUARE)
    assert (found.liver_share, found.border_mean_pixels, found.border_least_pixels) == (1, 4, 4)


def test_half_of_a_candidate_across_the_border_is_in_the_liver():
    found = described(drawn(np.s_[2, 5, 1:3]), liver=SQUARE)
    assert (found.liver_share, found.border_mean_pixels, found.border_least_pixels) == (0.5, 0.5, 0)


def test_beyond_the_edge_of_the_picture_is_outside_the_liver():
    assert described(drawn(np.s_[2, 5, 0])).border_mean_pixels == 1


# Intensity -------------------------------------------------------------------------------------


def row_image(values):
    """An image of one row, its candidate mask (the first three pixels) and its liver."""
    image = np.array(values, np.uint8)[None, None]
    tumour = np.arange(image.shape[2])[None, None] < 3
    return image, tumour, np.ones_like(tumour)


def test_intensity_is_compared_with_the_liver_near_by_and_with_all_of_it():
    image, tumour, liver = row_image([10, 20, 30] + [100] * 10 + [50] * 10)
    found = described(tumour, image=image, liver=liver)
    assert found.grey_mean == 20 and found.grey_median == 20
    assert found.grey_deviation == pytest.approx(np.sqrt(200 / 3))
    assert (found.grey_low, found.grey_high) == pytest.approx((12, 28))
    assert found.grey_contrast == 20 - 100  # the ten pixels of 50 are further away than ten
    assert found.grey_z_score == pytest.approx((20 - 75) / 25)


def test_another_candidate_is_no_liver_to_compare_with():
    image, tumour, liver = row_image([10, 20, 30] + [100] * 3 + [0] * 9)
    tumour[..., 6:] = True
    table = candidate_features(image, tumour, liver)
    assert table.grey_contrast.tolist() == [20 - 100, 0 - 100]


def test_the_whole_liver_stands_in_where_none_is_near():
    image, tumour, liver = row_image([10, 20, 30] + [100] * 10 + [50] * 10)
    liver[..., :13] = False
    assert described(tumour, image=image, liver=liver).grey_contrast == 20 - 50


def test_an_even_liver_has_no_deviation_to_measure_by():
    image, tumour, liver = row_image([10, 20, 30] + [100] * 10)
    assert np.isnan(described(tumour, image=image, liver=liver).grey_z_score)


def test_channels_are_described_one_by_one_and_named():
    image = np.stack([GREY, GREY + 20, GREY + 40], axis=-1)
    found = described(drawn(np.s_[2, 4, 5:7]), image=image)
    assert (found.red_mean, found.green_mean, found.blue_mean) == (100, 120, 140)


def test_hounsfield_units_below_zero_are_kept():
    assert described(drawn(np.s_[2, 4, 5]), image=np.full(SHAPE, -30, np.int16)).hounsfield_mean == -30


def test_probabilities_are_those_inside_the_candidate():
    probability = np.zeros(SHAPE, np.float32)
    probability[2, 4, 5:7] = 0.5, 1.0
    found = described(drawn(np.s_[2, 4, 5:7]), probability=probability)
    assert (found.probability_mean, found.probability_max) == (0.75, 1.0)
    assert np.isnan(described(drawn(np.s_[2, 4, 5:7])).probability_max)


# Texture ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype"), [([0, 0, 16, 16], np.uint8), ([-40, -40, -27, -27], np.int16)], ids=["grey", "HU"]
)
def test_texture_is_that_of_pairs_inside_the_candidate(values, dtype):
    image = np.full(SHAPE, 120, dtype)  # bright outside: of no matter
    image[2, 4, 5:9] = values
    found = described(drawn(np.s_[2, 4, 5:9]), image=image)
    # Both ways, the levels a a b b are the pairs aa aa ab ba bb bb.
    assert found.texture_contrast == pytest.approx(2 / 6)
    assert found.texture_homogeneity == pytest.approx((4 + 2 / 2) / 6)
    assert found.texture_energy == pytest.approx(np.sqrt(4 + 1 + 1 + 4) / 6)
    assert found.texture_correlation == pytest.approx((2 / 6 - 1 / 4) / (1 / 4))


def test_pairs_lie_within_a_slice():
    image = GREY.copy()
    image[1] = 200
    assert described(drawn(np.s_[0:2, 4, 5:7]), image=image).texture_contrast == 0


def test_one_voxel_has_no_texture():
    assert np.isnan(described(drawn(np.s_[2, 4, 5])).texture_contrast)


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(DataError, match=r"lits-helpers\[survey\]"):
        candidate_features(GREY, FULL, FULL)


# Refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "tumour", "options", "message"),
    [
        (GREY, FULL.astype(int), {}, "labels == 2"),
        (GREY[0], FULL[0], {}, "bool volumes"),
        (GREY[1:], FULL, {}, "the image has shape"),
        (GREY / 255, FULL, {}, "whole numbers"),
        (np.stack([GREY, GREY], -1), FULL, {}, "one or three channels"),
        (GREY, FULL, {"probability": np.zeros((1, 2, 3))}, "the probability has shape"),
        (GREY, FULL, {"spacing": (1, 0, 1)}, "3 positive numbers"),
    ],
)
def test_what_cannot_be_described_is_refused(image, tumour, options, message):
    with pytest.raises(DataError, match=message):
        candidate_features(image, tumour, FULL, **options)


# Labels and tables -----------------------------------------------------------------------------

THREE = drawn(np.s_[0, 0, 0:4], np.s_[2, 5, 0:2], np.s_[4, 9, 9])


def test_a_candidate_is_true_if_one_voxel_of_it_is_tumour():
    truth = drawn(np.s_[0, 0, 3:6], np.s_[2, 5, 1])  # one of four voxels, and one of two
    table = label_candidates(THREE, truth)
    assert table.candidate.tolist() == [1, 2, 3] and table.true.tolist() == [True, True, False]


def test_every_candidate_is_false_where_there_is_no_tumour_and_true_where_all_is():
    assert label_candidates(THREE, EMPTY).true.tolist() == [False] * 3
    assert label_candidates(THREE, FULL).true.tolist() == [True] * 3
    assert label_candidates(EMPTY, FULL).empty


def test_a_table_holds_the_candidates_of_all_cases_with_their_labels():
    cases = [
        CandidateCase(7, GREY, EMPTY, FULL, FULL), CandidateCase(8, GREY, THREE, FULL, drawn(np.s_[0, 0, 3])),
        CandidateCase(9, GREY, FULL, FULL, FULL),
    ]  # fmt: skip
    table = candidate_table(iter(cases))
    assert table.volume.tolist() == [8, 8, 8, 9]
    assert table.candidate.tolist() == [1, 2, 3, 1]
    assert table.true.tolist() == [True, False, False, True]
    assert table.voxels.tolist() == [4, 2, 1, 5 * 11 * 13]


def test_without_truth_there_are_no_labels_and_without_cases_no_table():
    assert "true" not in candidate_table([CandidateCase(1, GREY, THREE, FULL)])
    with pytest.raises(DataError, match="no cases"):
        candidate_table([])
