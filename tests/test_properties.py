"""What holds for every input, not only for the examples of the other files: searched with Hypothesis.

The search draws no random numbers: a failure comes back in the next run, and prints the smallest input found for it.
"""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pandas as pd
from phantom_layouts import write_series
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from lits_helpers import masks, postprocessing
from lits_helpers.augmentation import Augmentation, IntensityChange, change_intensity, warp_pair
from lits_helpers.cases import case_scores
from lits_helpers.distances import surface, surface_distances
from lits_helpers.files import DataError
from lits_helpers.lesions import match_lesions
from lits_helpers.pictures import read_image, write_image
from lits_helpers.scoring import dice, iou, overlap, patient_scores, slice_scores, summary
from lits_helpers.splits import SPLITS, fold_patients, fold_split, split_patients, split_slices
from lits_helpers.volumes import Geometry, read_geometry, read_label_volume, read_volume, write_labels, write_nifti

# Every example of a test writes to the same folder anew, so that a fixture for all of them does.
settings.register_profile(
    "unit", derandomize=True, deadline=None, database=None, max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("unit")

seeds = st.integers(0, 2**32 - 1)

# Codings --------------------------------------------------------------------------------------

label_maps = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 2))
# What each coding can give back of background, liver and tumour.
GIVEN_BACK = {
    "labels": (0, 1, 2), "0/127/255": (0, 1, 2), "0/128/255": (0, 1, 2), "colours": (0, 1, 2),
    "0/1": (0, 1, 1), "0/255": (0, 1, 1), "0/1 tumour": (0, 0, 2), "0/255 tumour": (0, 0, 2),
}


@pytest.mark.parametrize("name", GIVEN_BACK)
@given(labels=label_maps)
def test_label_maps_come_back_from_lossless_files_as_far_as_the_coding_tells_labels_apart(name, labels, tmp_path):
    told = GIVEN_BACK[name]
    coding = masks.Coding(name, dict(zip(masks.CODINGS[name], told, strict=True)))
    write_image(tmp_path / "mask.png", masks.encode(labels, name))
    assert np.array_equal(masks.read_labels(tmp_path / "mask.png", coding), np.array(told)[labels])


@given(labels=label_maps)
def test_every_label_map_comes_back_from_a_lossless_file_in_the_reports_coding(labels, tmp_path):
    write_image(tmp_path / "mask.png", masks.encode(labels, "report-jpg"))
    decoded = masks.decode_file(read_image(tmp_path / "mask.png", grey=True), "mask.png")
    assert np.array_equal(decoded.labels, labels) and decoded.small_tumours_known


@given(
    rows=st.integers(30, 90), columns=st.integers(30, 90), liver=st.floats(0.02, 0.5), tumour=st.integers(1, 30),
    seed=seeds,
)
def test_a_tumour_gets_a_level_of_its_own_in_the_reports_coding_from_the_stated_size_on(
    rows, columns, liver, tumour, seed
):
    """A quarter or more of the slice stays background, as it does in every CT."""
    labels = np.zeros(rows * columns, np.uint8)
    labels[: int(liver * labels.size)] = 1
    labels[-tumour:] = 2
    labels = np.random.default_rng(seed).permutation(labels).reshape(rows, columns)
    grey = np.array([53, 83, 84]) if tumour < masks.smallest_coded_tumour(labels.size) else np.array([53, 68, 84])
    red, green, blue = masks.encode(labels, "report-jpg").astype(int).transpose(2, 0, 1)
    assert np.abs(0.299 * red + 0.587 * green + 0.114 * blue - grey[labels]).max() <= 0.5


@settings(max_examples=20)
@given(
    rows=st.integers(64, 160), columns=st.integers(64, 160), liver=st.integers(10, 30), tumour=st.floats(0.4, 0.9),
    quality=st.integers(75, 100),
)
def test_a_jpeg_in_the_reports_coding_shows_a_tumour_of_usual_size_and_invents_none(
    rows, columns, liver, tumour, quality, tmp_path
):
    """Discs from 10 pixels' radius on: what is smaller, JPEG may turn into a tumour."""
    row, column = np.ogrid[:rows, :columns]
    distance = np.hypot(row - rows / 2, column - columns / 2)
    alone = np.uint8(distance < liver)
    for labels, diagnosis in (
        (alone, masks.LIVER_ONLY),
        (np.where(distance < tumour * liver, np.uint8(2), alone), masks.LIVER_AND_TUMOUR),
    ):
        write_image(tmp_path / "mask.jpg", masks.encode(labels, "report-jpg"), jpeg_quality=quality)
        decoded = masks.decode_file(read_image(tmp_path / "mask.jpg", grey=True), "mask.jpg")
        assert masks.diagnose(decoded.labels) == diagnosis and not decoded.small_tumours_known


# Splits ---------------------------------------------------------------------------------------


@st.composite
def slice_tables(draw):
    """Up to 14 volumes of up to 4 slices, of as many patients or fewer, rows in any order."""
    volumes = draw(st.lists(st.integers(0, 200), min_size=1, max_size=14, unique=True))
    rows = [
        (volume, number, draw(st.integers(0, 2))) for volume in volumes for number in range(draw(st.integers(1, 4)))
    ]
    table = pd.DataFrame(draw(st.permutations(rows)), columns=["volume", "slice", "diagnosis"])
    if draw(st.booleans()):
        of_volume = {volume: draw(st.integers(0, 12)) for volume in volumes}
        table["patient"] = table.volume.map(of_volume)
    return table


def patient_of(table):
    return table["patient" if "patient" in table else "volume"]


def sides(table, column):
    """Which side each slice is on, whatever the order of the rows."""
    return table.set_index(["volume", "slice"])[column].sort_index()


@pytest.mark.filterwarnings("ignore:.*patient.s. with a tumour are too few")
@given(table=slice_tables(), seed=seeds)
def test_a_split_by_patient_puts_every_slice_on_one_side_and_no_patient_on_two(table, seed):
    try:
        split = split_patients(table, seed=seed)
    except DataError:
        with_tumour = table.groupby(patient_of(table)).diagnosis.max() == 2
        assert max(with_tumour.sum(), (~with_tumour).sum()) < 3, "three patients of a kind are enough"
        return
    assert split.drop(columns="split").equals(table)
    assert set(split.split) == set(SPLITS)
    assert (split.groupby(patient_of(split)).split.nunique() == 1).all()
    again = split_patients(table.sample(frac=1, random_state=seed), seed=seed)
    assert sides(again, "split").equals(sides(split, "split")), "it hangs on the order of the rows"


@pytest.mark.filterwarnings("ignore:.*patient.s. with a tumour are too few")
@given(table=slice_tables(), folds=st.integers(2, 5), seed=seeds)
def test_folds_test_every_patient_once_and_differ_by_one_patient_at_most(table, folds, seed):
    assume(patient_of(table).nunique() >= folds)
    folded = fold_patients(table, folds=folds, seed=seed)
    of_patient = folded.groupby(patient_of(folded))
    assert (of_patient.fold.nunique() == 1).all()
    fold, has_tumour = of_patient.fold.first(), of_patient.diagnosis.max() == 2
    for folds_of_kind in (fold, fold[has_tumour], fold[~has_tumour]):
        number = np.bincount(folds_of_kind, minlength=folds + 1)[1:]
        assert len(number) == folds and np.ptp(number) <= 1
    again = fold_patients(table.sample(frac=1, random_state=seed), folds=folds, seed=seed)
    assert sides(again, "fold").equals(sides(folded, "fold")), "they hang on the order of the rows"


@pytest.mark.filterwarnings("ignore:.*patient.s. with a tumour are too few")
@given(table=slice_tables(), folds=st.integers(2, 5), seed=seeds)
def test_a_fold_tests_its_own_patients_and_no_other_side_has_them(table, folds, seed):
    assume(patient_of(table).nunique() >= max(folds, 5))  # a fold leaves two to train and to validate
    folded = fold_patients(table, folds=folds, seed=seed)
    split = fold_split(folded, 1, seed=seed)
    assert ((split.split == "test") == (folded.fold == 1)).all()
    assert set(split.split) == set(SPLITS)
    assert (split.groupby(patient_of(split)).split.nunique() == 1).all()


@given(table=slice_tables(), seed=seeds)
def test_the_reports_split_takes_every_tumour_slice_once_and_no_other(table, seed):
    tumour = table[table.diagnosis == 2]
    assume(len(tumour) >= 3)
    split = split_slices(table, seed=seed)
    assert set(split.split) == set(SPLITS)
    assert split.drop(columns="split").sort_index().equals(tumour)
    assert split.equals(split_slices(table, seed=seed))


# Geometry -------------------------------------------------------------------------------------

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
shapes = st.tuples(*[st.integers(1, 6)] * 3)
spacings = st.tuples(*[st.floats(0.2, 9)] * 3)
places = st.tuples(*[st.floats(-500, 500)] * 3)
axes_of_rotation = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1)


def rotation(axis, degrees):
    """Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


@st.composite
def geometries(draw, orientation, *, most_degrees):
    """A file's grid: its stored axes run as ``orientation`` says, then all of it is turned."""
    order, signs = orientation
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[list(order)] * draw(spacings)
    affine[:3, :3] = rotation(draw(axes_of_rotation), draw(st.floats(0, most_degrees))) @ affine[:3, :3]
    affine[:3, 3] = draw(places)
    return Geometry(draw(shapes), affine)


def numbered(shape, dtype=np.int16):
    """An array in which every voxel has a value of its own."""
    return np.arange(math.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@settings(max_examples=8)
@given(data=st.data())
def test_every_orientation_however_oblique_goes_to_the_screen_and_back(orientation, data):
    geometry = data.draw(geometries(orientation, most_degrees=40))
    stored = numbered(geometry.shape)
    on_screen = geometry.to_screen(stored)
    assert on_screen.shape == geometry.screen_shape
    assert np.array_equal(geometry.to_stored(on_screen), stored)
    # From voxel to voxel on screen the patient is crossed upwards, backwards and to the left.
    indices = np.stack(np.unravel_index(on_screen, geometry.shape), axis=-1)
    world = indices @ geometry.affine[:3, :3].T
    for axis, (towards, sign) in enumerate(((2, 1), (1, -1), (0, -1))):
        steps = np.diff(world, axis=axis)
        assert (steps[..., towards] * sign > 0).all()
        assert np.allclose(np.linalg.norm(steps, axis=-1), geometry.spacing[axis])


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5], ids=str)
@settings(max_examples=5)
@given(data=st.data())
def test_labels_written_beside_a_ct_are_read_back_on_its_voxels(orientation, data, tmp_path):
    geometry = data.draw(geometries(orientation, most_degrees=180))
    labels = np.random.default_rng(data.draw(seeds)).integers(0, 3, geometry.screen_shape, np.uint8)
    for name in ("labels.nii", "labels.nii.gz"):
        write_labels(tmp_path / name, labels, geometry)
        assert np.array_equal(read_label_volume(tmp_path / name, geometry), labels)


def test_labels_of_a_ct_halfway_between_two_orientations_are_read_back_on_its_voxels(tmp_path):
    """A header holds 32-bit numbers: by their rounding the file falls to another orientation than its CT."""
    fallen = 0
    for order, signs in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = rotation((0, 0, 1), 45) @ np.diag(signs)[list(order)] * (0.7, 0.8, 2.5)
        geometry = Geometry((3, 4, 5), affine)
        labels = np.random.default_rng(0).integers(0, 3, geometry.screen_shape, np.uint8)
        write_labels(tmp_path / "labels.nii", labels, geometry)
        assert np.array_equal(read_label_volume(tmp_path / "labels.nii", geometry), labels)
        fallen += read_geometry(tmp_path / "labels.nii").orientation != geometry.orientation
    assert fallen > 0, "none of these is such a file"


@settings(max_examples=20)
@given(shape=shapes, spacing=spacings, seed=seeds)
def test_a_volume_written_as_nifti_is_read_back_with_its_spacing(shape, spacing, seed, tmp_path):
    hounsfield = np.random.default_rng(seed).integers(-1024, 3072, shape, np.int16)
    write_nifti(tmp_path / "volume.nii.gz", hounsfield, spacing)
    volume = read_volume(tmp_path / "volume.nii.gz")
    assert np.array_equal(volume.hounsfield, hounsfield)
    assert np.allclose(volume.spacing, spacing, rtol=1e-6)


@settings(max_examples=8)
@given(data=st.data(), orientation=st.sampled_from(ORIENTATIONS))
def test_a_volume_written_as_dicom_is_read_back_on_its_voxels(data, orientation, tmp_path_factory):
    geometry = data.draw(geometries(orientation, most_degrees=180))
    folder = tmp_path_factory.mktemp("series")
    stored = numbered(geometry.shape)
    write_series(folder, stored, geometry.affine)
    volume = read_volume(folder)
    # DICOM orders slices along the normal of their plane: a left-handed grid comes back with them reversed.
    back = volume.geometry.affine
    voxels = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    world = voxels @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    found = (world - back[:3, 3]) @ np.linalg.inv(back[:3, :3]).T
    assert np.abs(found - found.round()).max() < 0.01
    read = volume.geometry.to_stored(volume.hounsfield)
    assert np.array_equal(read[tuple(np.moveaxis(found.round().astype(int), -1, 0))], stored)


# Augmentation ---------------------------------------------------------------------------------

augmentations = st.builds(
    Augmentation, rotation=st.floats(0, 180), shift=st.floats(0, 0.5), shear=st.floats(0, 30), zoom=st.floats(0, 0.5),
    horizontal_flip=st.booleans(), vertical_flip=st.booleans(), elastic=st.sampled_from([0, 0.02, 0.1]),
)


@given(augmentation=augmentations, size=st.integers(2, 64), share=st.floats(0, 1), seed=seeds)
def test_a_mask_painted_into_the_picture_moves_with_the_mask(augmentation, size, share, seed):
    random = np.random.default_rng(seed)
    mask = (random.random((size, size)) < share).astype(np.uint8)
    picture = np.stack([mask * 255, 255 - mask * 255, np.zeros_like(mask)], axis=-1)
    moved, labels = warp_pair(
        picture, mask, augmentation.matrices(random, 1, size)[0], augmentation.displacement(random, size)
    )
    # Of four pixels the nearest weighs a quarter at least: 64 of 255. OpenCV rounds places to 1/32.
    assert (moved[labels == 1, 0] >= 56).all() and (moved[labels == 0, 1] >= 56).all()
    assert set(np.unique(labels)) <= set(np.unique(mask))


@given(size=st.integers(2, 64), scale=st.tuples(*[st.sampled_from([1, -1])] * 2), seed=seeds)
def test_a_flip_loses_no_pixel_of_picture_or_mask(size, scale, seed):
    random = np.random.default_rng(seed)
    picture, mask = random.integers(0, 256, (size, size, 3), np.uint8), random.integers(0, 3, (size, size), np.uint8)
    matrix = np.array([[scale[0], 0, (size - 1) * (scale[0] < 0)], [0, scale[1], (size - 1) * (scale[1] < 0)]], float)
    moved, labels = warp_pair(picture, mask, matrix)
    assert np.array_equal(moved, picture[:: scale[1], :: scale[0]])
    assert np.array_equal(labels, mask[:: scale[1], :: scale[0]])


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=seeds,
    change=st.builds(
        IntensityChange, blur=st.floats(0, 2), low_resolution=st.floats(1, 4), noise=st.floats(0, 0.5),
        brightness=st.floats(0, 2), contrast=st.floats(0, 2), gamma=st.floats(0.2, 5), seed=seeds,
    ),
)
def test_a_change_of_intensity_keeps_shape_and_type_and_treats_equal_channels_equally(shape, seed, change):
    grey = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    picture = np.stack([grey] * 3, axis=-1)
    changed = change_intensity(picture, change)
    assert (changed.shape, changed.dtype) == (picture.shape, np.uint8)
    assert np.array_equal(changed, changed[..., :1].repeat(3, axis=-1))
    assert np.array_equal(picture, np.stack([grey] * 3, axis=-1)), "the caller's own has changed"


# Scores ---------------------------------------------------------------------------------------

volume_shapes = array_shapes(min_dims=3, max_dims=3, max_side=6)
volume_masks = arrays(bool, volume_shapes)
label_volumes = arrays(np.uint8, volume_shapes, elements=st.integers(0, 2))
rooms = st.tuples(*[st.integers(0, 3)] * 3)


@st.composite
def mask_pairs(draw, max_side=6, elements=st.booleans(), dtype=bool, dimensions=3):
    """Truth and prediction of one shape."""
    shape = draw(array_shapes(min_dims=dimensions, max_dims=dimensions, max_side=max_side))
    return draw(arrays(dtype, shape, elements=elements)), draw(arrays(dtype, shape, elements=elements))


label_pairs = mask_pairs(elements=st.integers(0, 2), dtype=np.uint8)


@given(pair=mask_pairs())
def test_dice_and_iou_are_symmetric_and_follow_from_each_other(pair):
    truth, predicted = pair
    for score in (dice, iou):
        assert score(truth, predicted) == pytest.approx(score(predicted, truth), nan_ok=True)
    if not truth.any() and not predicted.any():
        assert np.isnan([dice(truth, predicted), iou(truth, predicted)]).all()
        return
    share = iou(truth, predicted)
    assert 0 <= share <= 1 and dice(truth, predicted) == pytest.approx(2 * share / (1 + share))
    assert (share == 1) == np.array_equal(truth, predicted)


@given(pair=mask_pairs(), place=st.integers(0, 215))
def test_one_more_right_voxel_lowers_no_overlap_and_no_lesions_recall_and_a_wrong_one_raises_no_overlap(pair, place):
    truth, predicted = pair
    place %= truth.size
    assume(not predicted.flat[place])
    more = predicted.copy()
    more.flat[place] = True
    before, after = (np.nan_to_num([dice(truth, mask), iou(truth, mask)]) for mask in (predicted, more))
    if truth.flat[place]:
        assert (after >= before).all()
        # At a higher overlap recall may fall: the voxel may join two predictions, and their lesions in one group.
        found, now = (match_lesions(truth, mask).counts() for mask in (predicted, more))
        assert now.found >= found.found and now.lesions == found.lesions
    else:
        assert (after <= before).all()


@given(mask=volume_masks, overlap=st.sampled_from([0, 0.5]), connectivity=st.sampled_from([6, 18, 26]))
def test_lesions_that_are_predicted_perfectly_are_all_found(mask, overlap, connectivity):
    counts = match_lesions(mask, mask.copy(), connectivity=connectivity).counts(overlap)
    assert counts.found == counts.lesions == counts.right == counts.predictions


@given(pair=mask_pairs(), connectivity=st.sampled_from([6, 18, 26]))
def test_recall_one_way_is_precision_the_other_way_where_one_voxel_is_enough(pair, connectivity):
    one, other = (match_lesions(*masks_, connectivity=connectivity).counts() for masks_ in (pair, pair[::-1]))
    assert (one.lesions, one.found) == (other.predictions, other.right)
    assert (one.predictions, one.right) == (other.lesions, other.found)


@given(pair=mask_pairs(), spacing=spacings, factor=st.floats(0.1, 10), neighbours=st.sampled_from([6, 18, 26]))
def test_distances_are_symmetric_ordered_and_grow_with_the_spacing(pair, spacing, factor, neighbours):
    truth, predicted = pair

    def measured(one, other, spacing, tolerance):
        found = surface_distances(one, other, spacing, neighbours=neighbours)
        return np.array([found.assd, found.rmsd, found.hd95, found.msd]), found.nsd(tolerance)

    (distances, near), there = measured(truth, predicted, spacing, 2.0), measured(predicted, truth, spacing, 2.0)
    larger, near_in_larger = measured(truth, predicted, [factor * step for step in spacing], 2.0 * factor)
    if not truth.any() or not predicted.any():
        assert np.isnan(distances).all() and np.isnan(larger).all() and np.isnan([near, near_in_larger]).all()
        return
    assert distances == pytest.approx(there[0]) and near == there[1]
    assert larger == pytest.approx(factor * distances)
    assert near_in_larger == pytest.approx(near, abs=1e-9)
    assd, rmsd, hd95, msd = distances
    assert 0 <= assd <= rmsd + 1e-9 and rmsd <= msd + 1e-9 and hd95 <= msd + 1e-9
    edges = [surface(mask, neighbours=neighbours) for mask in pair]
    assert (msd == 0) == np.array_equal(*edges)


@given(pair=mask_pairs(), spacing=spacings, order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_distances_do_not_hang_on_which_axis_is_which(pair, spacing, order, flips):
    """Slices and pixels take different ways through the code, square pixels another one."""
    directions = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turned = [mask.transpose(order)[directions] for mask in pair]
    one = surface_distances(*pair, spacing)
    other = surface_distances(*turned, [spacing[axis] for axis in order])
    square = surface_distances(*pair, (spacing[0], spacing[1], spacing[1]))
    upright = surface_distances(*(mask.transpose(1, 2, 0) for mask in pair), (spacing[1], spacing[1], spacing[0]))
    for found, expected in ((other, one), (upright, square)):
        for direction in ("to_predicted", "to_truth"):
            assert np.sort(getattr(found, direction)) == pytest.approx(np.sort(getattr(expected, direction)))


@pytest.mark.parametrize("convention", ["standard", "lits2017"])
@given(pair=label_pairs, spacing=spacings, before=rooms, after=rooms)
def test_scores_of_a_case_do_not_hang_on_where_in_the_volume_it_lies(convention, pair, spacing, before, after):
    room = [size + more for size, more in zip(before, after, strict=True)]
    here, there = (
        [np.pad(labels, [(start, total - start) for start, total in zip(starts, room, strict=True)]) for labels in pair]
        for starts in (before, room)
    )
    one, other = (case_scores(*labels, spacing, convention=convention) for labels in (here, there))
    assert one == pytest.approx(other, nan_ok=True)


@pytest.mark.parametrize("convention", ["standard", "lits2017"])
@given(labels=label_volumes, spacing=spacings)
def test_a_perfect_prediction_has_the_best_of_every_score_that_is_defined(convention, labels, spacing):
    scores = case_scores(labels, labels.copy(), spacing, convention=convention, predicts_liver=True)
    best = {
        "dice": 1, "iou": 1, "nsd": 1, "clean_share": 1,
        "voe": 0, "rvd": 0, "assd_mm": 0, "rmsd_mm": 0, "msd_mm": 0, "hd95_mm": 0,
        "recall_any": 1, "precision_any": 1, "f1_any": 1, "recall_half": 1, "precision_half": 1, "f1_half": 1,
    }
    for name, value in scores.items():
        for ending, expected in best.items():
            if name.endswith(ending):
                assert value == expected or np.isnan(value), name
    for organ, label in (("liver", 1), ("tumour", 2)):
        if (labels >= label).any():
            assert scores[f"{organ}_dice"] == 1
        else:
            assert np.isnan(scores[f"{organ}_dice"]) == (convention == "standard")
    assert scores["burden_truth"] == pytest.approx(scores["burden_predicted"], nan_ok=True)


@st.composite
def scored_slices(draw):
    """Slices of some patients with their masks, scored."""
    pairs = [draw(mask_pairs(max_side=4, dimensions=2)) for _ in range(draw(st.integers(1, 8)))]
    table = pd.DataFrame({"volume": [draw(st.integers(0, 3)) for _ in pairs], "slice": range(len(pairs))})
    return slice_scores(table, pairs)


@given(slices=scored_slices(), seed=seeds)
def test_the_order_of_slices_changes_no_score_and_no_interval(slices, seed):
    shuffled = slices.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(patient_scores(shuffled), patient_scores(slices))
    pd.testing.assert_frame_equal(summary(shuffled, repeats=50), summary(slices, repeats=50))


@given(slices=scored_slices())
def test_every_summed_up_score_lies_in_its_range_and_its_interval_round_it(slices):
    scores = summary(slices, repeats=50)
    shares = scores[~scores.metric.str.startswith("False-positive")]
    assert shares.value.dropna().between(0, 1).all()
    assert (scores.low.dropna() <= scores.high.dropna()).all()
    assert (scores.cases <= slices.volume.nunique()).all()


@settings(max_examples=10)
@given(
    pair=mask_pairs(max_side=8, dimensions=2), cuts=st.lists(st.integers(0, 8), max_size=3),
    confident=st.floats(0.31, 1),
)
def test_the_pooled_metrics_of_training_are_the_scorers_whatever_the_batches(pair, cuts, confident):
    from lits_helpers.metrics import PooledDice, PooledIoU

    truth, predicted = pair
    for metric, score in ((PooledDice(), dice), (PooledIoU(), iou)):
        for part in np.split(np.arange(len(truth)), sorted(cuts)):
            if part.size:
                metric.update_state(truth[part].astype(np.float32), np.float32(predicted[part] * confident))
        expected = score(truth, predicted)
        assert float(metric.result()) == pytest.approx(0 if np.isnan(expected) else expected, abs=1e-6)


@settings(max_examples=10)
@given(pair=mask_pairs(max_side=8, dimensions=2))
def test_the_reports_smoothed_scores_are_symmetric_and_lie_between_the_plain_ones_and_1(pair):
    from lits_helpers.metrics import dice_coef
    from lits_helpers.metrics import iou as smoothed_iou

    truth, predicted = (mask.astype(np.float32) for mask in pair)
    for smoothed, plain in ((dice_coef, dice), (smoothed_iou, iou)):
        value = float(smoothed(truth, predicted))
        assert value == pytest.approx(float(smoothed(predicted, truth)))
        assert np.nan_to_num(plain(*pair)) - 1e-6 <= value <= 1 + 1e-6


# Post-processing ------------------------------------------------------------------------------

STEPS = {
    "largest_component": postprocessing.largest_component,
    "filled in slices": lambda mask: postprocessing.filled(mask, within="slices"),
    "filled in the volume": lambda mask: postprocessing.filled(mask, within="volume"),
    "without_small": lambda mask: postprocessing.without_small(mask, (2, 1, 1), minimum_mm3=5),
}


@pytest.mark.parametrize("step", STEPS)
@given(mask=volume_masks)
def test_a_step_done_twice_is_a_step_done_once_and_leaves_its_input_alone(step, mask):
    before = mask.copy()
    once = STEPS[step](mask)
    assert np.array_equal(STEPS[step](once), once)
    assert np.array_equal(mask, before)
    assert (once >= mask if "filled" in step else once <= mask).all()


@given(mask=volume_masks)
def test_the_largest_component_is_one_and_no_other_is_larger(mask):
    kept = postprocessing.largest_component(mask)
    parts, number = ndimage.label(mask, np.ones((3, 3, 3)))
    assert ndimage.label(kept, np.ones((3, 3, 3)))[1] == min(number, 1)
    assert kept.sum() == max(np.bincount(parts.ravel())[1:], default=0)


@given(pair=mask_pairs(max_side=7), spacing=spacings, margins=st.tuples(st.floats(0, 20), st.floats(0, 20)))
def test_a_wider_margin_round_the_liver_loses_no_tumour(pair, spacing, margins):
    tumour, liver = pair
    narrow, wide = (postprocessing.inside(tumour, liver, spacing, margin_mm=margin) for margin in sorted(margins))
    assert (narrow <= wide).all() and (wide <= tumour).all() and (tumour & liver <= narrow).all()
    assert np.array_equal(postprocessing.inside(wide, liver, spacing, margin_mm=max(margins)), wide)


@given(
    probability=arrays(np.float32, volume_shapes, elements=st.floats(0, 1, width=32)),
    limits=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_hysteresis_lies_between_both_thresholds(probability, limits):
    low, high = sorted(limits)
    kept = postprocessing.hysteresis(probability, low=low, high=high)
    assert ((probability > high) <= kept).all() and (kept <= (probability > low)).all()


@given(
    labels=label_volumes, fill=st.sampled_from(postprocessing.FILLING), voxels=st.integers(0, 5)
)
def test_cleaned_labels_have_one_liver_and_no_tumour_outside_it_or_under_the_limit(labels, fill, voxels):
    options = postprocessing.PostProcessing(fill_tumour=fill, minimum_voxels=voxels)
    cleaned = postprocessing.clean(labels, options=options)
    assert cleaned.dtype == np.uint8 and cleaned.max() <= 2
    if (labels == 1).any():
        assert ndimage.label(cleaned > 0, np.ones((3, 3, 3)))[1] == 1
    parts, number = ndimage.label(cleaned == 2, np.ones((3, 3, 3)))
    assert not number or np.bincount(parts.ravel())[1:].min() >= voxels
