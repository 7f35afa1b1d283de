from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import ndimage

from lits_helpers.augmentation import (
    Augmentation, IntensityChange, affine_matrices, change_intensity, warp_pair,
)

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
        # A pixel off, the smaller tumour (radius 7.8) would have 1 - 2 * 7.8 / (pi * 7.8**2) = 0.92. OpenCV 4
        # works in steps of 1/32 pixel: after half a pixel both edges may count in the image, one in the mask.
        assert 2 * (in_image & in_mask).sum() / (in_image.sum() + in_mask.sum()) > 0.95


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


def slice_of(*columns):
    """A slice of 4 rows and the given grey levels, in three channels."""
    return np.broadcast_to(np.array(columns, np.uint8)[None, :, None], (4, len(columns), 3)).copy()


@pytest.mark.parametrize(
    ("change", "levels"),
    [
        ({"brightness": 1.5}, (150, 255)),  # 200 * 1.5 is clipped
        ({"brightness": 0.5}, (50, 100)),
        ({"contrast": 0.5}, (125, 175)),  # half as far from their mean of 150
        ({"contrast": 1.5}, (75, 225)),
        ({"brightness": 0.8, "contrast": 0.5}, (100, 140)),  # 80 and 160, about 120
        ({"gamma": 2}, (39, 157)),  # 100**2 / 255, 200**2 / 255
        ({"gamma": 0.5}, (160, 226)),  # (100 * 255)**0.5, (200 * 255)**0.5
    ],
)
def test_grey_levels_change_as_worked_out_by_hand(change, levels):
    changed = change_intensity(slice_of(100, 200), IntensityChange(**change))
    assert changed[0, :, 0].tolist() == list(levels) and (changed == slice_of(*levels)).all()


def test_contrast_is_about_each_channels_own_mean():
    image = np.stack([slice_of(100, 200)[..., 0], slice_of(0, 40)[..., 0], slice_of(7, 7)[..., 0]], axis=2)
    changed = change_intensity(image, IntensityChange(contrast=0.5))
    assert changed[0].T.tolist() == [[125, 175], [10, 30], [7, 7]]


def test_noise_has_the_asked_size_and_no_bias():
    image = np.full((256, 256, 3), 128, np.uint8)
    noise = change_intensity(image, IntensityChange(noise=0.04, seed=1)) - 128.0
    assert noise.std() == pytest.approx(0.04 * 255, rel=0.02)
    assert abs(noise.mean()) < 0.2
    assert (np.abs(noise) < 0.04 * 255).mean() == pytest.approx(0.683, abs=0.03)  # of a normal distribution
    assert (noise == noise[..., :1]).all()  # one CT behind the three channels
    assert abs(np.corrcoef(noise[:, 1:, 0].ravel(), noise[:, :-1, 0].ravel())[0, 1]) < 0.02


def test_noise_follows_from_its_seed():
    image = np.full((33, 33, 3), 128, np.uint8)
    first, again, other = (change_intensity(image, IntensityChange(noise=0.1, seed=s)) for s in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()


def test_noise_at_the_ends_of_the_range_is_clipped_not_wrapped():
    dark, bright = (np.full((64, 64, 3), level, np.uint8) for level in (0, 255))
    assert change_intensity(dark, IntensityChange(noise=0.1)).max() < 128
    assert change_intensity(bright, IntensityChange(noise=0.1)).min() > 128


@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_blur_is_scipys_gaussian(sigma):
    image = np.random.default_rng(0).integers(0, 256, (33, 40, 3), np.uint8)
    expected = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="mirror")
    assert np.abs(change_intensity(image, IntensityChange(blur=sigma)) - expected).max() < 3


def test_low_resolution_loses_the_finest_detail_and_keeps_the_rest_in_place():
    stripes = np.tile(slice_of(0, 200), (8, 16, 1))  # one pixel wide
    assert np.ptp(change_intensity(stripes, IntensityChange(low_resolution=2))) == 0
    ramp = np.tile(slice_of(*range(0, 128, 4)), (8, 1, 1))
    coarse = change_intensity(ramp, IntensityChange(low_resolution=2))
    assert np.abs(coarse[:, 2:-2].astype(int) - ramp[:, 2:-2]).max() <= 1


@pytest.mark.parametrize("size", [1, 33, 64])
def test_no_change_leaves_every_value(size):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    assert (change_intensity(image, IntensityChange(seed=3)) == image).all()


STRONGEST = IntensityChange(blur=1.5, low_resolution=2, noise=0.1, brightness=0.7, contrast=1.5, gamma=1.5)


@pytest.mark.parametrize("size", [1, 33, 64])
def test_a_slice_keeps_its_shape_and_the_callers_own_its_values(size):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    before = image.copy()
    changed = change_intensity(image, STRONGEST)
    assert changed.shape == image.shape and changed.dtype == np.uint8
    assert (image == before).all() and not (changed == image).all()


INTENSE = replace(
    STILL, brightness=0.3, contrast=0.4, gamma=0.5, noise=0.1, blur=1.5, low_resolution=2,
    intensity_probability=1,
)


def test_drawn_intensities_stay_within_their_ranges():
    drawn = INTENSE.intensities(np.random.default_rng(3), 1000)
    for name, lowest, highest in [
        ("brightness", 0.7, 1.3), ("contrast", 0.6, 1.4), ("gamma", 1 / 1.5, 1.5),
        ("noise", 0, 0.1), ("blur", 0, 1.5), ("low_resolution", 1, 2),
    ]:
        values = np.array([getattr(change, name) for change in drawn])
        reach = 0.02 * (highest - lowest)
        assert lowest <= values.min() < lowest + reach and highest - reach < values.max() <= highest
    gammas = np.array([change.gamma for change in drawn])
    assert 0.45 < (gammas > 1).mean() < 0.55
    assert len({change.seed for change in drawn}) == 1000


def test_each_intensity_befalls_its_share_of_slices_on_its_own():
    drawn = replace(INTENSE, intensity_probability=0.2).intensities(np.random.default_rng(4), 2000)
    blurred = np.array([change.blur > 0 for change in drawn])
    dimmed = np.array([change.brightness != 1 for change in drawn])
    assert 0.17 < blurred.mean() < 0.23 and 0.17 < dimmed.mean() < 0.23
    assert 0.025 < (blurred & dimmed).mean() < 0.055  # 0.2 * 0.2


def test_equal_random_states_give_equal_intensities():
    first, second = (INTENSE.intensities(np.random.default_rng(7), 3) for _ in range(2))
    assert first == second


def test_only_what_is_asked_for_changes():
    drawn = replace(STILL, noise=0.1, intensity_probability=1).intensities(np.random.default_rng(5), 50)
    assert {replace(change, noise=0, seed=0) for change in drawn} == {IntensityChange()}


def test_by_default_no_intensity_is_drawn():
    random = np.random.default_rng(6)
    assert Augmentation().intensities(random, 5) == []
    assert random.random() == np.random.default_rng(6).random()  # so the maps stay what they were


def test_the_geometric_augmentation_reads_as_before_so_that_its_run_folders_are_found():
    assert repr(Augmentation(elastic=0.02)) == (
        "Augmentation(rotation=0.1, shift=0.05, shear=0.05, zoom=0.05, horizontal_flip=True, "
        "vertical_flip=True, elastic=0.02)"
    )
    assert repr(Augmentation(noise=0.1)).endswith("elastic=0.0, noise=0.1)")
    assert eval(repr(INTENSE)) == INTENSE


@pytest.mark.parametrize(
    "wrong",
    [{"brightness": -0.1}, {"contrast": 1.2}, {"gamma": -1}, {"noise": -0.1}, {"blur": -1},
     {"low_resolution": 0.5}, {"intensity_probability": 2}],
)
def test_a_range_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="{} must be .* got {}".format(*list(wrong.items())[0])):
        Augmentation(**wrong)
