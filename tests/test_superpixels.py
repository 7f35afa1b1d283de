"""Superpixels in the liver, their patches, and contours on a picture whose truth is known."""

import sys

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from lits_helpers.files import DataError
from lits_helpers.superpixels import candidates, painted, patches, refined, share_inside, superpixels

TOUCHING = np.ones((3, 3, 3), bool)


def liver_with_tumour(shape=(7, 41, 38)):
    """A picture with a bright ball, the liver, and a dark ball in it; nothing else is even."""
    slices, rows, columns = np.indices(shape)
    liver = 9 * (slices - 3) ** 2 + (rows - 20) ** 2 + (columns - 19) ** 2 < 15**2
    tumour = 9 * (slices - 3) ** 2 + (rows - 16) ** 2 + (columns - 21) ** 2 < 7**2
    random = np.random.default_rng(0)
    picture = np.where(liver, 0.7, random.random(shape)) + random.normal(0, 0.03, shape)
    picture[tumour] -= 0.35
    return np.clip(picture, 0, 1), liver, tumour


def test_superpixels_fill_the_liver_and_stay_inside():
    picture, liver, _ = liver_with_tumour()
    found = superpixels(picture, liver, voxels=30)
    assert found.dtype == np.int32
    assert np.array_equal(found > 0, liver)


def test_there_are_about_as_many_as_asked_for_and_their_numbers_have_no_gaps():
    picture, liver, _ = liver_with_tumour()
    numbers = np.unique(superpixels(picture, liver, voxels=40)[liver])
    assert np.array_equal(numbers, np.arange(1, len(numbers) + 1))
    assert liver.sum() / 40 / 1.5 < len(numbers) < liver.sum() / 40 * 1.5


def test_each_superpixel_is_in_one_piece():
    picture, liver, _ = liver_with_tumour()
    found = superpixels(picture, liver, voxels=25)
    assert all(ndimage.label(found == number, TOUCHING)[1] == 1 for number in range(1, found.max() + 1))


def test_superpixels_follow_the_edge_of_a_dark_tumour():
    picture, liver, tumour = liver_with_tumour()
    found = superpixels(picture, liver, voxels=30)
    share = share_inside(found[None], tumour)
    chosen = np.isin(found, 1 + np.flatnonzero(share >= 0.5))
    assert 2 * (chosen & tumour).sum() / (chosen.sum() + tumour.sum()) > 0.9


def test_what_lies_outside_the_liver_changes_nothing():
    picture, liver, _ = liver_with_tumour()
    other = np.where(liver, picture, 1 - picture)
    assert np.array_equal(superpixels(picture, liver, voxels=30), superpixels(other, liver, voxels=30))


def test_an_empty_liver_has_no_superpixels_and_no_candidates():
    picture, liver = np.zeros((3, 5, 4)), np.zeros((3, 5, 4), bool)
    assert not superpixels(picture, liver, voxels=4).any()
    labels, table = candidates(picture, liver, scales=(4, 16))
    assert labels.shape == (2, 3, 5, 4) and not labels.any() and table.empty
    assert not painted(labels, np.zeros(0)).any()
    assert share_inside(labels, liver).shape == (0,)
    assert patches(np.zeros((3, 5, 4, 1), np.uint8), labels, table, (2, 4, 4)).shape == (0, 2, 4, 4, 2)


def test_a_liver_that_fills_the_volume_and_is_even_is_cut_all_the_same():
    found = superpixels(np.full((4, 12, 12), 0.5), np.ones((4, 12, 12), bool), voxels=36)
    assert found.min() == 1 and found.max() > 8


def test_a_liver_of_one_voxel_is_one_candidate():
    picture, liver = np.full((3, 5, 4), 0.25), np.zeros((3, 5, 4), bool)
    liver[1, 3, 2] = True
    labels, table = candidates(picture, liver, scales=(20,))
    assert labels[0, 1, 3, 2] == labels.sum() == 1
    assert table.loc[1].to_dict() == {
        "scale": 20, "voxels": 1, "slice": 1, "row": 3, "column": 2, "mean": 0.25, "deviation": 0, "contrast": 0,
    }


def test_a_crumb_apart_from_the_liver_is_a_superpixel_of_its_own():
    picture, liver = np.full((5, 20, 20), 0.5), np.zeros((5, 20, 20), bool)
    liver[1:4, 2:12, 2:12] = True
    liver[4, 18, 18] = True
    found = superpixels(picture, liver, voxels=50)
    assert np.array_equal(found > 0, liver)
    assert (found == found[4, 18, 18]).sum() == 1


def two_halves():
    """A liver of 2 x 2 x 4 voxels cut by hand: left and right, and on a second scale as a whole."""
    labels = np.zeros((2, 2, 2, 4), np.int32)
    labels[0, :, :, :2], labels[0, :, :, 2:], labels[1] = 1, 2, 3
    return labels


def test_numbers_go_on_from_scale_to_scale_and_rows_say_what_is_there():
    picture, liver, _ = liver_with_tumour()
    labels, table = candidates(picture, liver, scales=(30, 120))
    assert np.array_equal(table.index, np.arange(1, labels.max() + 1))
    assert labels[0].max() + 1 == labels[1][liver].min()
    number = labels[1, 3, 20, 19]
    there, row = labels[1] == number, table.loc[number]
    assert (row.scale, row.voxels) == (120, there.sum())
    assert row["mean"] == pytest.approx(picture[there].mean())
    assert row.deviation == pytest.approx(picture[there].std())
    assert row.contrast == pytest.approx(picture[there].mean() - np.median(picture[liver]))
    assert np.array_equal(row[["slice", "row", "column"]], np.argwhere(there).mean(axis=0).round())


def test_a_tumour_in_half_of_one_half_is_a_half_and_a_quarter():
    tumour = np.zeros((2, 2, 4), bool)
    tumour[0, :, :2] = True
    assert share_inside(two_halves(), tumour) == pytest.approx([0.5, 0, 0.25])
    assert share_inside(two_halves(), np.zeros_like(tumour)) == pytest.approx([0, 0, 0])


def test_a_voxel_gets_the_mean_of_its_candidates():
    found = painted(two_halves(), np.array([1.0, 0.0, 0.5]))
    assert found.dtype == np.float32
    assert np.array_equal(found[0, 0], [0.75, 0.75, 0.25, 0.25])


def test_a_patch_shows_the_picture_round_its_candidate_and_which_voxels_are_meant():
    picture = np.arange(2 * 2 * 4, dtype=np.uint8).reshape(2, 2, 4, 1)
    table = pd.DataFrame({"scale": [20, 80], "slice": [0, 1], "row": [1, 1], "column": [2, 2]}, index=[2, 3])
    found = patches(picture, two_halves(), table, (1, 3, 3))
    assert found.shape == (2, 1, 3, 3, 2)
    # Rows 0, 1 and beyond the border 1 again; columns 1 to 3.
    assert np.array_equal(found[0, 0, ..., 0], [[1, 2, 3], [5, 6, 7], [5, 6, 7]])
    assert np.array_equal(found[0, 0, ..., 1], [[0, 255, 255], [0, 255, 255], [0, 0, 0]])
    assert np.array_equal(found[1, 0, ..., 0], [[9, 10, 11], [13, 14, 15], [13, 14, 15]])
    assert np.array_equal(found[1, 0, ..., 1], [[255, 255, 255], [255, 255, 255], [0, 0, 0]])


def disc(shape, radius, row=20, column=20):
    rows, columns = np.ogrid[: shape[1], : shape[2]]
    return np.broadcast_to(np.hypot(rows - row, columns - column) < radius, shape).copy()


@pytest.mark.parametrize("start", [6, 10], ids=["too small", "too large"])
def test_a_contour_gets_to_the_edge_of_a_dark_disc(start):
    shape = (3, 41, 43)
    truth, liver = disc(shape, 8), np.ones(shape, bool)
    picture = np.where(truth, 0.3, 0.7) + np.random.default_rng(0).normal(0, 0.05, shape)
    coarse = disc(shape, start)
    moved = refined(picture, coarse, liver, reach=3)
    assert (moved ^ truth).sum() < (coarse ^ truth).sum() / 4


def test_a_contour_moves_no_further_than_its_reach():
    shape = (3, 41, 43)
    picture = np.where(disc(shape, 9), 0.3, 0.7)
    moved = refined(picture, disc(shape, 5), np.ones(shape, bool), reach=2)
    assert moved.sum() > disc(shape, 5).sum()
    assert not (moved & ~ndimage.binary_dilation(disc(shape, 5), iterations=2)).any()


@pytest.mark.parametrize("radius", [2, 4])
def test_a_small_tumour_outlined_rightly_keeps_its_outline_however_often_it_is_asked(radius):
    shape = (4, 41, 43)
    truth = disc(shape, radius)
    truth[0] = False
    picture = np.where(truth, 0.3, 0.7)
    for _ in range(3):
        assert np.array_equal(refined(picture, truth, np.ones(shape, bool), reach=1), truth)


def test_the_core_of_a_mask_stays_whatever_the_picture_shows():
    shape = (9, 21, 21)
    block = np.zeros(shape, bool)
    block[1:8, 5:16, 5:16] = True
    picture = np.random.default_rng(0).random(shape)
    kept = refined(picture, block, np.ones(shape, bool), reach=2)
    assert kept[3:6, 7:14, 7:14].all()  # two voxels in from every face


def test_a_contour_stays_in_the_liver_though_the_dark_goes_on():
    shape = (3, 41, 43)
    liver = np.zeros(shape, bool)
    liver[:, :, :22] = True
    picture = np.where(disc(shape, 8) | ~liver, 0.3, 0.7)
    moved = refined(picture, disc(shape, 7), liver, reach=3)
    assert not (moved & ~liver).any()
    assert (moved & liver).sum() > (disc(shape, 7) & liver).sum()


def test_a_single_voxel_in_an_even_liver_is_not_lost():
    mask = np.zeros((3, 9, 9), bool)
    mask[1, 4, 4] = True
    moved = refined(np.full((3, 9, 9), 0.5), mask, np.ones((3, 9, 9), bool))
    assert moved[1, 4, 4]


@pytest.mark.parametrize("empty", ["mask", "liver"])
def test_no_mask_or_no_liver_gives_an_empty_result(empty):
    masks = {"mask": disc((2, 41, 43), 5), "liver": np.ones((2, 41, 43), bool)}
    masks[empty][:] = False
    moved = refined(np.zeros((2, 41, 43)), **masks)
    assert moved.dtype == bool and not moved.any()


def test_a_reach_of_nothing_only_cuts_to_the_liver():
    liver = np.zeros((2, 41, 43), bool)
    liver[:, :20] = True
    assert np.array_equal(refined(np.zeros(liver.shape), disc(liver.shape, 5), liver, reach=0), disc(liver.shape, 5) & liver)


def test_other_shapes_and_sizes_are_refused():
    picture, liver, _ = liver_with_tumour()
    with pytest.raises(DataError, match="give both of one volume"):
        superpixels(picture[:-1], liver, voxels=30)
    with pytest.raises(DataError, match="give both of one volume"):
        refined(picture, liver[:-1], liver)
    with pytest.raises(ValueError, match="got voxels=0"):
        superpixels(picture, liver, voxels=0)


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    picture, liver, _ = liver_with_tumour()
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(DataError, match=r"pip install 'lits-helpers\[survey\]'"):
        superpixels(picture, liver, voxels=30)
