from dataclasses import replace

import cv2
import numpy as np
import pytest

from lits_helpers.augmentation import Augmentation, affine_matrices, warp_pair

STILL = Augmentation(0, 0, 0, 0, horizontal_flip=False, vertical_flip=False)
STRONG = Augmentation(rotation=20, shift=0.1, shear=15, zoom=0.2, elastic=0.03)


def matrix(size=8, rotation=0.0, shear=0.0, shift=(0.0, 0.0), scale=(1.0, 1.0)):
    return affine_matrices(
        size, rotation=np.float64(rotation), shear=np.float64(shear),
        shift=np.array(shift), scale=np.array(scale),
    )


def mapped(of_matrix, x, y):
    """Where a pixel of the result looks in the source."""
    return tuple((of_matrix @ (x, y, 1)).round(6))


def test_no_change_maps_every_pixel_to_itself():
    assert matrix().tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("changes", "source_of_origin"),
    [
        ({"rotation": 90}, (7, 0)),  # about the centre at 3.5: corner to corner
        ({"rotation": 180}, (7, 7)),
        ({"shift": (0.25, 0)}, (2, 0)),  # a quarter of 8 columns
        ({"shift": (0, 0.5)}, (0, 4)),
        ({"scale": (-1, 1)}, (7, 0)),
        ({"scale": (1, -1)}, (0, 7)),
        ({"scale": (2, 2)}, (-3.5, -3.5)),  # shows twice as much
        ({"shear": 45}, (3.5 - 3.5 + 3.5 * 0.707107, 3.5 - 3.5 * 0.707107)),
    ],
)
def test_each_change_is_the_one_worked_out_by_hand(changes, source_of_origin):
    assert mapped(matrix(**changes), 0, 0) == pytest.approx(source_of_origin, abs=1e-5)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("scale", "mirrored"), [((-1, 1), np.s_[:, ::-1]), ((1, -1), np.s_[::-1])])
def test_a_flip_is_an_exact_mirror(size, scale, mirrored):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    labels = image[..., 0] % 3
    flipped, flipped_labels = warp_pair(image, labels, matrix(size, scale=scale))
    assert (flipped == image[mirrored]).all() and (flipped_labels == labels[mirrored]).all()


def test_outside_the_slice_its_nearest_pixel_is_repeated():
    image = np.repeat(np.arange(0, 80, 10, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)
    shifted, _ = warp_pair(image, image[..., 0] // 40, matrix(shift=(-0.25, 0)))
    assert shifted[0, :, 0].tolist() == [0, 0, 0, 10, 20, 30, 40, 50]


def tumour_in_liver(size):
    rows, columns = np.ogrid[:size, :size]
    distance = np.hypot(rows - 0.45 * size, columns - 0.55 * size) / size
    return np.where(distance < 0.12, 2, distance < 0.3).astype(np.uint8)


CHANGES = {
    "rotation": replace(STILL, rotation=30),
    "shift": replace(STILL, shift=0.2),
    "shear": replace(STILL, shear=20),
    "zoom": replace(STILL, zoom=0.3),
    "flips": replace(STILL, horizontal_flip=True, vertical_flip=True),
    "elastic": replace(STILL, elastic=0.03),
    "all": STRONG,
}


@pytest.mark.parametrize("size", [65, 128])
@pytest.mark.parametrize("kind", CHANGES)
def test_image_and_mask_stay_aligned(kind, size):
    augmentation, random = CHANGES[kind], np.random.default_rng(1)
    labels = tumour_in_liver(size)
    painted = np.repeat((labels == 2)[..., None], 3, axis=2).astype(np.uint8) * 255
    for drawn in augmentation.matrices(random, 10, size):
        image, mask = warp_pair(painted, labels, drawn, augmentation.displacement(random, size))
        in_image, in_mask = image[..., 0] > 127, mask == 2
        assert 2 * (in_image & in_mask).sum() / (in_image.sum() + in_mask.sum()) > 0.97


@pytest.mark.parametrize("elastic", [0, 0.03])
def test_labels_gain_no_value(elastic):
    augmentation, random = replace(STRONG, elastic=elastic), np.random.default_rng(2)
    image, labels = np.zeros((33, 33, 3), np.uint8), np.zeros((33, 33), np.uint8)
    labels[10:20, 14:21] = 2  # a mean with the background would be liver
    for drawn in augmentation.matrices(random, 20, 33):
        _, mask = warp_pair(image, labels, drawn, augmentation.displacement(random, 33))
        assert set(np.unique(mask)) == {0, 2}


def test_one_voxel_moves_with_its_pixel():
    labels = np.zeros((9, 9), np.uint8)
    labels[2, 3] = 2
    image = np.repeat(labels[..., None] * 100, 3, axis=2)
    # A mirror takes column 3 to 5; two ninths down take row 2 to 4.
    moved, mask = warp_pair(image, labels, matrix(9, scale=(-1, 1), shift=(0, -2 / 9)))
    assert np.argwhere(mask == 2).tolist() == np.argwhere(moved[..., 0] > 100).tolist() == [[4, 5]]


@pytest.mark.parametrize("size", [65, 128])
def test_picture_and_mask_have_one_centre_on_average(size):
    labels, random, offsets = tumour_in_liver(size), np.random.default_rng(8), []
    painted = np.repeat((labels == 2)[..., None], 3, axis=2).astype(np.uint8) * 255
    for drawn in STRONG.matrices(random, 100, size):
        image, mask = warp_pair(painted, labels, drawn, STRONG.displacement(random, size))
        in_image = np.average(np.indices((size, size)), axis=(1, 2), weights=image[..., 0])
        offsets.append(in_image - np.argwhere(mask == 2).mean(axis=0))
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.05  # a corner taken for a centre: 0.5


@pytest.mark.parametrize("label", [0, 2])
@pytest.mark.parametrize("size", [1, 33])
def test_an_empty_or_full_mask_stays_so(label, size):
    random = np.random.default_rng(9)
    labels = np.full((size, size), label, np.uint8)
    for drawn in STRONG.matrices(random, 5, size):
        image = np.full((size, size, 3), 7, np.uint8)
        image, mask = warp_pair(image, labels, drawn, STRONG.displacement(random, size))
        assert (mask == label).all() and (image == 7).all()


def test_drawn_changes_stay_within_their_ranges():
    random = np.random.default_rng(3)
    turned = replace(STILL, rotation=5).matrices(random, 500, 100)
    angles = np.rad2deg(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert 4.5 < np.abs(angles).max() <= 5
    moved = replace(STILL, shift=0.1).matrices(random, 500, 100)[:, :, 2]
    assert 9.5 < np.abs(moved).max() <= 10
    zoomed = replace(STILL, zoom=0.2).matrices(random, 500, 100)
    assert 0.8 <= zoomed[:, 0, 0].min() < 0.82 and 1.18 < zoomed[:, 1, 1].max() <= 1.2
    assert (zoomed[:, 0, 0] != zoomed[:, 1, 1]).all()  # width and height apart


def test_half_of_the_samples_are_flipped():
    flipped = replace(STILL, horizontal_flip=True).matrices(np.random.default_rng(4), 1000, 10)
    assert 450 < (flipped[:, 0, 0] < 0).sum() < 550
    assert (flipped[:, 1, 1] == 1).all()


def test_the_reports_rotation_moves_no_pixel_by_a_whole_one():
    corner = Augmentation(shift=0, zoom=0, horizontal_flip=False, vertical_flip=False).matrices(
        np.random.default_rng(0), 1000, 256
    ) @ (0, 0, 1)
    assert np.hypot(*corner.T).max() < 0.6


def test_equal_random_states_give_equal_changes():
    first, second = (STRONG.matrices(np.random.default_rng(7), 3, 64) for _ in range(2))
    assert (first == second).all()


def test_equal_random_states_give_equal_displacements():
    first, second = (STRONG.displacement(np.random.default_rng(7), 64) for _ in range(2))
    assert (first == second).all()


def test_elastic_displacement_is_smooth_and_of_the_asked_size():
    field = replace(STILL, elastic=0.02).displacement(np.random.default_rng(5), 256)
    assert field.shape == (256, 256, 2) and field.dtype == np.float32
    assert 1 < field.std() < 12  # 2 % of 256 is 5 pixels
    assert np.abs(np.diff(field, axis=0)).max() < 0.5
    assert STILL.displacement(np.random.default_rng(5), 256) is None


def test_a_displacement_is_in_pixels_across_and_down():
    image = np.zeros((8, 8, 3), np.uint8)
    image[5, 6] = 200
    across_2_down_1 = np.full((8, 8, 2), (2, 1), np.float32)
    moved, mask = warp_pair(image, image[..., 0] // 100, matrix(), across_2_down_1)
    # The result looks for its pixel there, so what was there comes here.
    assert np.argwhere(moved[..., 0]).tolist() == np.argwhere(mask).tolist() == [[4, 4]]


def test_an_affine_map_is_the_same_with_and_without_an_empty_displacement():
    image = cv2.GaussianBlur(np.random.default_rng(6).integers(0, 256, (64, 64, 3), np.uint8), (0, 0), 4)
    drawn = STRONG.matrices(np.random.default_rng(6), 1, 64)[0]
    plain, _ = warp_pair(image, image[..., 0] // 100, drawn)
    bent, _ = warp_pair(image, image[..., 0] // 100, drawn, np.zeros((64, 64, 2), np.float32))
    assert np.abs(plain.astype(int) - bent).max() <= 3
