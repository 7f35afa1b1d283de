"""The liver's region, on slices whose pixels are counted by hand."""

import numpy as np
import pytest

from lits_helpers.regions import Region, liver_crops, liver_region, neighbours, put_back, through
from lits_helpers.windows import GREEN, three_channels

WHOLE = Region(row=0.5, column=0.5, half=0.5, level=128)
UPPER_RIGHT = Region(row=0.25, column=0.75, half=0.25, level=128)


def at(matrix, row, column):
    """Where in the slice the middle of a crop's pixel lies: row, column."""
    x, y = matrix @ (column, row, 1)
    return y, x


@pytest.mark.parametrize(
    ("region", "shape", "first", "last"),
    [
        # 8 pixels in 4: the middle of the first crop pixel lies between slice pixels 0 and 1.
        (WHOLE, (8, 8), (0.5, 0.5), (6.5, 6.5)),
        # Not square: 2 x 4 pixels in one.
        (WHOLE, (8, 16), (0.5, 1.5), (6.5, 13.5)),
        # A quarter of the slice at its own resolution: rows 0 to 3, columns 4 to 7.
        (UPPER_RIGHT, (8, 8), (0, 4), (3, 7)),
        # Odd: 5/4 and 7/4 pixels a crop pixel; the first middle half of that after the edge at -0.5.
        (WHOLE, (5, 7), (0.125, 0.375), (3.875, 5.625)),
        # Beyond the upper edge: rows from -0.25 * 8, 12 in 4.
        (Region(0.5, 0.5, 0.75, 0), (8, 8), (-1, -1), (8, 8)),
    ],
)
def test_the_corners_of_a_crop_of_4_lie_where_they_do_by_hand(region, shape, first, last):
    matrix = region.map(4, shape)
    assert at(matrix, 0, 0) == pytest.approx(first)
    assert at(matrix, 3, 3) == pytest.approx(last)


def test_a_region_is_about_the_shadow_of_all_slices_with_a_margin():
    liver = np.zeros((3, 10, 20), bool)
    liver[0, 2:4, 4:12] = liver[1, 3:6, 6:12] = True  # rows 2 to 5 of 10, columns 4 to 11 of 20
    green = np.full(liver.shape, 9, np.uint8)
    green[liver] = 150
    green[0, 2, 4] = 255  # one pixel does not move a median
    region, kept = liver_region(liver, green)
    assert (region.row, region.column) == pytest.approx((0.4, 0.4))
    assert region.half == pytest.approx(0.4 / 2 * 1.2)  # 0.4 long both ways, and a tenth of it on each side
    assert region.level == 150 and (kept == liver).all()


def test_the_longer_side_counts():
    liver = np.zeros((1, 10, 10), bool)
    liver[0, 4, 1:9] = True
    region, _ = liver_region(liver, np.zeros(liver.shape, np.uint8))
    assert (region.row, region.column, region.half) == pytest.approx((0.45, 0.5, 0.48))


def test_a_second_smaller_part_is_an_error_and_counts_for_nothing():
    liver, green = np.zeros((2, 12, 12), bool), np.full((2, 12, 12), 100, np.uint8)
    liver[:, 1:5, 1:5] = True
    alone, kept_alone = liver_region(liver, green)
    spleen = np.zeros_like(liver)
    spleen[:, 8:11, 8:11] = True
    green[spleen] = 250
    region, kept = liver_region(liver | spleen, green)
    assert region == alone and (kept == liver).all() and (kept_alone == liver).all()


def test_an_empty_liver_has_no_region():
    region, kept = liver_region(np.zeros((2, 5, 5), bool), np.zeros((2, 5, 5), np.uint8))
    assert region is None and kept.shape == (2, 5, 5) and not kept.any()


def test_a_liver_of_everything_or_of_one_voxel_has_one():
    full, _ = liver_region(np.ones((2, 5, 7), bool), np.full((2, 5, 7), 77, np.uint8))
    assert (full.row, full.column, full.half, full.level) == pytest.approx((0.5, 0.5, 0.6, 77))
    voxel = np.zeros((1, 8, 16), bool)
    voxel[0, 3, 7] = True
    one, _ = liver_region(voxel, np.full(voxel.shape, 7, np.uint8))
    # An eighth of the rows is the longer side.
    assert (one.row, one.column, one.half) == pytest.approx((3.5 / 8, 7.5 / 16, 0.075))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([5], [[0, 0, 0]]),
        ([1, 2, 3], [[0, 0, 1], [0, 1, 2], [1, 2, 2]]),
        ([0, 4, 9, 10], [[0, 0, 1], [0, 1, 1], [2, 2, 3], [2, 3, 3]]),  # 4 apart are neighbours, 5 are not
    ],
)
def test_neighbours_stop_at_the_ends_and_at_gaps(numbers, expected):
    assert neighbours(numbers).tolist() == expected


def test_crops_hold_the_slice_before_itself_and_after_with_the_liver_in_the_middle():
    region = Region(0.5, 0.5, 0.5, level=100)
    green = [np.full((4, 4), value, np.uint8) for value in (0, 100, 110, 250)]
    crops = liver_crops(green, [1, 2, 3, 9], region, 4, wanted=[1, 3])
    # Each 28 brighter, and no further than 255.
    assert crops.dtype == np.uint8 and crops.shape == (2, 4, 4, 3)
    assert (crops[0] == (28, 128, 138)).all()
    assert (crops[1] == 255).all()  # alone behind its gap
    assert liver_crops(green, [1, 2, 3, 9], region, 4, wanted=[]).shape == (0, 4, 4, 3)


def test_a_crop_shows_the_region_and_repeats_the_edge_beyond_it():
    green = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (crop,) = liver_crops([green], [0], UPPER_RIGHT, 4, wanted=[0])
    assert (crop[..., 1] == green[:4, 4:]).all()
    beyond = through(green, Region(0, 0.5, 0.5, 128).map(8, (8, 8)), 8)
    assert (beyond[:4] == green[0]).all() and (beyond[4:] == green[:4]).all()


def test_labels_stay_labels():
    labels = np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 2
    seen = through(labels, Region(0.5, 0.5, 0.4, 0).map(16, (9, 9)), 16, nearest=True)
    assert set(np.unique(seen)) == {0, 2}
    # 7.2 of 9 pixels in 16: 5 pixels are 11.1 of 16 crop pixels wide.
    assert abs(np.sqrt((seen == 2).sum()) - 11.1) <= 1


@pytest.mark.parametrize("shape", [(32, 32), (24, 40), (23, 41)])
@pytest.mark.parametrize("size", [16, 64])
def test_there_and_back_everything_is_where_it_was(shape, size):
    region = Region(row=0.4, column=0.55, half=0.3, level=128)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    picture = 10 + 3 * rows + 2 * columns  # linear, so that interpolation changes nothing
    matrix = region.map(size, shape)
    back = put_back(through(picture, matrix, size), matrix, shape)
    inside, outside = (
        (np.abs((rows + 0.5) / shape[0] - 0.4) < 0.3 + by / shape[0] + 0.6 * grows / size)
        & (np.abs((columns + 0.5) / shape[1] - 0.55) < 0.3 + by / shape[1] + 0.6 * grows / size)
        for by, grows in ((-1, -1), (1, 1))
    )
    assert back.dtype == np.float32 and inside.sum() > 50
    assert np.abs(back - picture)[inside].max() < 0.5  # OpenCV takes 1/32 of a pixel for exact
    assert (back[~outside] == 0).all()


def test_the_green_channel_is_the_one_that_tells_the_levels_of_livers_apart():
    levels = three_channels(np.array([[-40, 60, 160]], np.int16))[0, :, GREEN]
    assert levels.tolist() == pytest.approx([0, 127.5, 255], abs=1)
