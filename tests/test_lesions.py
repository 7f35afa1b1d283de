"""Lesions on lines and small volumes, matched and counted by hand."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK

from lits_helpers.files import DataError
from lits_helpers.lesions import (
    LesionCounts, components, detected, froc, lesion_table, match_lesions, recall_by_size,
)


def line(text):
    """A volume of one slice and one row: ``#`` is a voxel of the mask."""
    return np.array([[[character == "#" for character in text]]])


EMPTY = line("............")
THREE = line("###.###.###.")
OVER_ALL = line("###########.")


def counted(truth, predicted, overlap=0):
    """Found of lesions, and right of predictions."""
    counts = match_lesions(truth, predicted).counts(overlap)
    return f"{counts.found}/{counts.lesions}", f"{counts.right}/{counts.predictions}"


@pytest.mark.parametrize("overlap", [0, 0.5])
def test_one_prediction_over_three_lesions_finds_three_and_is_one_right(overlap):
    assert counted(THREE, OVER_ALL, overlap) == ("3/3", "1/1")  # IoU 9/11


@pytest.mark.parametrize("overlap", [0, 0.5])
def test_one_lesion_in_three_parts_is_one_found_by_three_right(overlap):
    assert counted(OVER_ALL, THREE, overlap) == ("1/1", "3/3")


@pytest.mark.parametrize("overlap", [0, 0.5])
def test_a_truth_without_lesions_makes_every_prediction_false(overlap):
    assert counted(EMPTY, THREE, overlap) == ("0/0", "0/3")
    assert counted(THREE, EMPTY, overlap) == ("0/3", "0/0")
    assert counted(EMPTY, EMPTY, overlap) == ("0/0", "0/0")


def test_three_lesions_under_too_large_a_prediction_are_missed_not_less_than_missed():
    truth = line("#....#....#.")
    assert counted(truth, OVER_ALL) == ("3/3", "1/1")
    assert counted(truth, OVER_ALL, 0.5) == ("0/3", "0/1")  # IoU 3/11


def test_an_iou_of_exactly_the_overlap_does_not_exceed_it():
    truth, predicted = line("##.........."), line("####........")
    assert counted(truth, predicted, 0.5) == ("0/1", "0/1")
    assert counted(truth, predicted, 0.49) == ("1/1", "1/1")


def test_a_component_between_two_lesions_goes_to_the_one_it_shares_most_with():
    truth = line("####..######")
    predicted = line(".######.####")  # shares 3 with the first lesion and 1 with the second
    match = match_lesions(truth, predicted)
    assert match.truth.iou.tolist() == pytest.approx([3 / 7, 4 / 6])
    assert match.predicted.iou.tolist() == pytest.approx([3 / 7, 4 / 6])
    assert match.truth.touched.all() and match.predicted.touched.all()


def test_a_lesion_whose_component_goes_to_another_group_has_no_iou():
    """The second component is the best of the small lesion, but shares more with the large one."""
    truth = line("#######.##..")
    predicted = line("####.####...")  # shares 4 and 2 with the large lesion, 0 and 1 with the small one
    match = match_lesions(truth, predicted)
    # Large lesion with both components: 6 shared, of 7 and 8.
    assert match.truth.iou.tolist() == pytest.approx([6 / 9, 0])
    assert match.predicted.iou.tolist() == pytest.approx([6 / 9, 6 / 9])
    assert match.truth.touched.tolist() == [True, True]
    assert counted(truth, predicted, 0.5) == ("1/2", "2/2")


def test_hits_misses_and_false_alarms_are_told_apart():
    match = match_lesions(line("##..##......"), line("##........##"))
    assert match.truth.touched.tolist() == [True, False]
    assert match.predicted.touched.tolist() == [True, False]
    assert match.truth.iou.tolist() == [1, 0]


def test_a_full_volume_is_one_lesion_and_found_by_itself():
    full = np.ones((3, 5, 4), bool)
    assert counted(full, full, 0.5) == ("1/1", "1/1")


def test_a_group_comes_with_all_its_lesions_and_components_in_its_own_box():
    truth, predicted = (np.pad(mask, ((1, 2), (2, 1), (3, 3))) for mask in (THREE, OVER_ALL))
    [(of_truth, of_prediction)] = match_lesions(truth, predicted).groups(0.5)
    assert of_truth.tolist() == THREE[..., :11].tolist()
    assert of_prediction.tolist() == OVER_ALL[..., :11].tolist()


def test_groups_that_are_not_found_do_not_come():
    match = match_lesions(line("##..#......."), line("##..###....."))
    assert [truth.shape for truth, _ in match.groups(0.5)] == [(1, 1, 2)]
    assert [truth.shape for truth, _ in match.groups(0)] == [(1, 1, 2), (1, 1, 3)]
    assert list(match_lesions(EMPTY, THREE).groups()) == []


@pytest.mark.parametrize(
    ("second", "connectivities"), [((1, 1, 2), (6, 18, 26)), ((1, 2, 2), (18, 26)), ((2, 2, 2), (26,))]
)
def test_voxels_that_share_a_face_an_edge_or_a_corner_are_one_lesion_by_connectivity(second, connectivities):
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = mask[second] = True
    joined = tuple(count for count in (6, 18, 26) if components(mask, connectivity=count)[1] == 1)
    assert joined == connectivities


@pytest.mark.parametrize(("connectivity", "corners_too"), [(6, False), (26, True)])
@pytest.mark.parametrize("shape", [(7, 11, 13), (11, 13)], ids=str)
def test_components_are_as_many_as_simpleitks(shape, connectivity, corners_too):
    mask = np.random.default_rng(5).random(shape) < 0.2
    numbered = SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(mask.astype(np.uint8)), corners_too)
    assert components(mask, connectivity=connectivity)[1] == SimpleITK.GetArrayFromImage(numbered).max()


def test_a_table_of_lesions_holds_their_sizes_and_places():
    labels = np.zeros((4, 5, 6), np.int32)
    labels[0, 0, 0] = 1
    labels[1:3, 2:4, 3:6] = 2  # 12 voxels
    table = lesion_table(labels, 2, (5.0, 0.5, 0.5))
    assert table.lesion.tolist() == [1, 2]
    assert table.voxels.tolist() == [1, 12]
    assert table.volume_mm3.tolist() == [1.25, 15]
    # A ball of 15 mm3 has the radius (3 * 15 / 4 pi) ** (1 / 3).
    assert table.diameter_mm[1] == pytest.approx(2 * (3 * 15 / (4 * np.pi)) ** (1 / 3))
    assert table.loc[1, ["centre_slice", "centre_row", "centre_column"]].tolist() == [1.5, 2.5, 4]


def test_places_are_those_in_the_whole_volume():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 5, 6] = True
    row = match_lesions(mask, np.zeros_like(mask)).truth.iloc[0]
    assert row[["centre_slice", "centre_row", "centre_column"]].tolist() == [4, 5, 6]


def test_sizes_are_unknown_without_spacing_and_areas_in_a_slice():
    assert match_lesions(THREE, EMPTY).truth.volume_mm3.isna().all()
    in_slice = match_lesions(THREE[0], EMPTY[0], (2.0, 0.5)).truth
    assert in_slice.area_mm2.tolist() == [3, 3, 3]
    assert in_slice.diameter_mm[0] == pytest.approx(2 * np.sqrt(3 / np.pi))


def test_precision_recall_and_f1_are_those_of_the_counts():
    counts = LesionCounts(lesions=4, found=3, predictions=2, right=1)
    assert (counts.recall, counts.precision) == (0.75, 0.5)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert counts + LesionCounts(1, 0, 5, 1) == LesionCounts(5, 3, 7, 2)


def test_f1_is_undefined_only_with_neither_lesions_nor_predictions():
    assert np.isnan(LesionCounts(0, 0, 0, 0).f1)
    assert LesionCounts(2, 0, 0, 0).f1 == 0 and np.isnan(LesionCounts(2, 0, 0, 0).precision)
    assert LesionCounts(0, 0, 2, 0).f1 == 0 and np.isnan(LesionCounts(0, 0, 2, 0).recall)


def test_recall_by_size_puts_a_lesion_of_an_edge_into_the_upper_class():
    lesions = pd.DataFrame(
        {"diameter_mm": [3, 5, 9.9, 10, 50, np.nan], "touched": [False, True, True, False, True, True], "iou": 0.0}
    )
    table = recall_by_size(lesions)
    assert table["size"].tolist() == ["under 5 mm", "5 to 10 mm", "10 to 20 mm", "20 mm and more"]
    assert table.lesions.tolist() == [1, 2, 1, 1]
    assert table.recall.tolist() == [0, 1, 0, 1]
    assert recall_by_size(lesions, overlap=0.5).recall.tolist() == [0, 0, 0, 0]
    assert np.isnan(recall_by_size(lesions[:1]).recall[3])


def test_froc_counts_lesions_of_all_cases_and_false_positives_per_case():
    first = line("##..##......"), np.array([[[0.9, 0.9, 0, 0, 0.3, 0, 0, 0, 0.6, 0, 0, 0]]])
    second = EMPTY, np.array([[[0.7] + [0] * 10 + [0.2]]])
    curve = froc(iter([first, second]), [0.1, 0.5, 0.8, 0.9]).set_index("threshold")
    assert curve.recall.tolist() == [1, 0.5, 0.5, 0]
    assert curve.false_positives_per_case.tolist() == [(1 + 2) / 2, (1 + 1) / 2, 0, 0]
    assert (curve.cases == 2).all() and (curve.lesions == 2).all()


def test_froc_without_cases_is_refused():
    with pytest.raises(DataError, match="no cases"):
        froc([], [0.5])


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(ValueError, match="boolean"):
        match_lesions(THREE.astype(np.uint8), THREE)
    with pytest.raises(ValueError, match="one shape"):
        match_lesions(THREE, THREE[0])
    with pytest.raises(ValueError, match="26, got 8"):
        components(THREE, connectivity=8)
    with pytest.raises(ValueError, match="overlap"):
        detected(match_lesions(THREE, THREE).truth, 1)
