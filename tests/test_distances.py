"""Surface distances of shapes whose distances are known, and MedPy's of shapes whose are not."""

import numpy as np
import pytest
from medpy.metric import binary
from scipy.ndimage import gaussian_filter

from lits_helpers.distances import bounding_box, surface, surface_distances
from lits_helpers.files import DataError

SPACING = (5.0, 0.7, 0.8)
EMPTY = np.zeros((4, 5, 6), bool)
FULL = np.ones((4, 5, 6), bool)
ONE = EMPTY.copy()
ONE[1, 2, 3] = True


def box(*ends, shape=(12, 12, 12)):
    """A mask that is True from the first to the last index of each axis, both included."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, last + 1) for first, last in ends)] = True
    return mask


def line(last, columns=8):
    """A slice of three rows whose middle one is True in its first columns."""
    return box((1, 1), (0, last), shape=(3, columns))


def blobs(shape, seed):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1)
    return noise > np.quantile(noise, 0.7)


def ball(centre, radius, spacing, shape):
    """The voxels whose centres lie within ``radius`` of ``centre``, both in mm."""
    axes = [np.arange(size) * step - middle for size, step, middle in zip(shape, spacing, centre, strict=True)]
    return sum(axis**2 for axis in np.ix_(*axes)) <= radius**2


@pytest.mark.parametrize(("axis", "expected"), [(0, 20.0), (1, 2.8), (2, 3.2)])
def test_parallel_plates_four_voxels_apart_are_four_spacings_apart(axis, expected):
    plate = np.zeros((12, 12, 12), bool)
    plate[(slice(None),) * axis + (3,)] = True
    distances = surface_distances(plate, np.roll(plate, 4, axis), SPACING)
    for value in (distances.assd, distances.rmsd, distances.msd, distances.hd95):
        assert value == pytest.approx(expected)


def test_concentric_boxes_are_farthest_from_each_other_at_their_corners():
    outer, inner = box((1, 10), (1, 10), (1, 10)), box((3, 8), (3, 8), (3, 8))
    distances = surface_distances(outer, inner, SPACING)
    # Two voxels on each axis: 10, 1.4 and 1.6 mm.
    assert distances.msd == pytest.approx(np.sqrt(100 + 1.96 + 2.56))
    assert distances.to_truth.min() == pytest.approx(1.4)
    assert len(distances.to_predicted) == 10**3 - 8**3 and len(distances.to_truth) == 6**3 - 4**3


def test_a_ring_around_one_pixel_has_the_distances_counted_by_hand():
    ring, pixel = box((0, 4), (0, 4), shape=(5, 5)), box((2, 2), (2, 2), shape=(5, 5))
    distances = surface_distances(ring, pixel, (2.0, 1.0))
    by_hand = 4 * [20**0.5] + 4 * [17**0.5] + 2 * [4.0] + 4 * [8**0.5] + 2 * [2.0]
    assert sorted(distances.to_predicted) == pytest.approx(sorted(by_hand))
    assert distances.to_truth == pytest.approx([2.0])
    assert distances.assd == pytest.approx((sum(by_hand) + 2) / 17)


def test_a_shifted_ball_is_its_shift_away_at_most():
    spacing, shape = (1.5, 0.7, 0.7), (40, 80, 80)
    truth = ball((30, 25, 28), 20, spacing, shape)
    distances = surface_distances(truth, np.roll(truth, 4, axis=2), spacing)
    assert distances.msd == pytest.approx(2.8)
    assert 0 < distances.assd < 2.8 / 2  # 1.4 mm between smooth balls; a staircase is a little nearer


def test_concentric_balls_are_the_difference_of_their_radii_apart():
    spacing, shape = (1.5, 0.7, 0.7), (40, 80, 80)
    large, small = (ball((30, 28, 28), radius, spacing, shape) for radius in (25, 17))
    distances = surface_distances(large, small, spacing)
    # 8 mm between smooth balls; a voxel is up to 1.5 mm high.
    assert distances.assd == pytest.approx(8, abs=0.5)
    assert distances.both.min() > 6.5 and distances.msd < 9.5


def test_a_line_and_one_twice_as_long_have_the_scores_worked_out_by_hand():
    distances = surface_distances(line(2), line(5), (3.0, 1.0))
    # To the prediction 0, 0, 0; to the truth 0, 0, 0, 1, 2, 3.
    assert distances.assd == pytest.approx(6 / 9)
    assert distances.rmsd == pytest.approx(np.sqrt(14 / 9))
    assert distances.msd == pytest.approx(3)
    assert distances.nsd(0) == pytest.approx(6 / 9)
    assert distances.nsd(1) == pytest.approx(7 / 9)
    assert distances.nsd(3) == 1


def test_hd95_is_the_larger_of_both_directions_not_one_percentile_of_both():
    distances = surface_distances(line(2), line(5), (3.0, 1.0))
    assert distances.hd95 == pytest.approx(2.75)  # between the 5th and 6th of 0, 0, 0, 1, 2, 3
    assert binary.hd95(line(5), line(2), (3.0, 1.0)) == pytest.approx(2.6)  # of nine distances


def test_swapping_truth_and_prediction_changes_no_symmetric_score():
    there, back = (surface_distances(a, b, SPACING) for a, b in ((FULL, ONE), (ONE, FULL)))
    for name in ("assd", "rmsd", "msd", "hd95"):
        assert getattr(there, name) == pytest.approx(getattr(back, name))
    assert there.nsd(2) == back.nsd(2)


def test_a_distance_of_exactly_the_tolerance_is_within_it():
    distances = surface_distances(line(0), np.roll(line(0), 3, axis=1), (0.8, 0.8))
    assert distances.msd > 2.4  # by rounding: 3 * 0.8 is 2.4000000000000004
    assert distances.nsd(2.4) == 1
    assert distances.nsd(2.39) == 0


@pytest.mark.parametrize("mask", [FULL, ONE, blobs((7, 9, 11), 0)], ids=["full", "one voxel", "blobs"])
def test_a_mask_is_no_distance_from_itself(mask):
    distances = surface_distances(mask, mask, SPACING)
    assert distances.msd == 0 and distances.nsd(0) == 1


@pytest.mark.parametrize(("truth", "predicted"), [(EMPTY, EMPTY), (EMPTY, ONE), (FULL, EMPTY)])
def test_an_empty_mask_is_at_no_distance(truth, predicted):
    distances = surface_distances(truth, predicted, SPACING)
    values = (distances.assd, distances.rmsd, distances.msd, distances.hd95, distances.nsd(2))
    assert np.isnan(values).all()


@pytest.mark.parametrize("neighbours", [6, 18, 26])
@pytest.mark.parametrize("spacing", [SPACING, (2.5, 0.7, 0.7), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("shape", [(7, 9, 11), (20, 31, 33), (1, 9, 9), (9, 1, 7), (9, 7, 1)], ids=str)
def test_distances_are_medpys(shape, spacing, neighbours):
    truth, predicted = blobs(shape, 1), blobs(shape, 2)
    distances = surface_distances(truth, predicted, spacing, neighbours=neighbours)
    options = {"voxelspacing": spacing, "connectivity": {6: 1, 18: 2, 26: 3}[neighbours]}
    assert distances.assd == pytest.approx(binary.assd(predicted, truth, **options))
    assert distances.msd == pytest.approx(binary.hd(predicted, truth, **options))
    assert distances.to_truth.mean() == pytest.approx(binary.asd(predicted, truth, **options))
    assert distances.to_predicted.mean() == pytest.approx(binary.asd(truth, predicted, **options))
    assert np.percentile(distances.both, 95) == pytest.approx(binary.hd95(predicted, truth, **options))


@pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.9, 0.6)])
def test_distances_in_a_slice_are_medpys(spacing):
    truth, predicted = blobs((31, 33), 3), blobs((31, 33), 4)
    distances = surface_distances(truth, predicted, spacing)
    assert distances.assd == pytest.approx(binary.assd(predicted, truth, spacing))
    assert distances.msd == pytest.approx(binary.hd(predicted, truth, spacing))


def test_empty_room_around_masks_changes_nothing():
    truth, predicted = blobs((7, 9, 11), 1), blobs((7, 9, 11), 2)
    with_room = [np.pad(mask, ((3, 0), (5, 9), (1, 4))) for mask in (truth, predicted)]
    assert surface_distances(*with_room, SPACING).assd == surface_distances(truth, predicted, SPACING).assd


@pytest.mark.parametrize(
    ("missing", "neighbours_that_see_it"),
    [((0, 1, 1), (6, 18, 26)), ((0, 0, 1), (18, 26)), ((0, 0, 0), (26,))],
    ids=["across a face", "across an edge", "across a corner"],
)
def test_a_surface_voxel_has_a_neighbour_outside(missing, neighbours_that_see_it):
    cube = np.ones((3, 3, 3), bool)
    cube[missing] = False
    on_surface = [count for count in (6, 18, 26) if surface(cube, neighbours=count)[1, 1, 1]]
    assert tuple(on_surface) == neighbours_that_see_it


def test_another_number_of_neighbours_is_refused():
    with pytest.raises(ValueError, match="neighbours is 6, 18 or 26, got 8"):
        surface(FULL, neighbours=8)


def test_the_border_of_a_volume_is_outside():
    assert np.count_nonzero(surface(FULL)) == 4 * 5 * 6 - 2 * 3 * 4


def test_the_box_of_masks_holds_both_and_is_empty_without_voxels():
    assert bounding_box(ONE, np.roll(ONE, -1, axis=0)) == (slice(0, 2), slice(2, 3), slice(3, 4))
    assert ONE[bounding_box(EMPTY, EMPTY)].size == 0


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, np.nan, 1)])
def test_a_spacing_that_cannot_be_is_refused(spacing):
    with pytest.raises(DataError, match="3 positive numbers"):
        surface_distances(ONE, FULL, spacing)


def test_labels_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="boolean"):
        surface_distances(ONE.astype(np.uint8), FULL, SPACING)
    with pytest.raises(ValueError, match=r"\(4, 5, 6\) and \(3, 5, 6\)"):
        surface_distances(ONE, FULL[:3], SPACING)
    with pytest.raises(ValueError, match="negative"):
        surface_distances(ONE, FULL, SPACING).nsd(-1)
