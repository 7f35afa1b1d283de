import warnings

import numpy as np
import pandas as pd
import pytest

from lits_helpers import population
from lits_helpers.files import DataError
from lits_helpers.population import LabelledCase
from lits_helpers.pictures import write_image
from lits_helpers.volumes import write_nifti

SPACING = (5.0, 1.0, 2.0)  # a voxel of 10 mm3


def case(tumour, liver="all", *, spacing=SPACING, volume=0, numbers=None):
    """A case of some tumour voxels; the liver is everything unless told."""
    if isinstance(liver, str):
        liver = np.ones_like(tumour)
    numbers = np.arange(len(tumour)) if numbers is None else np.array(numbers)
    return LabelledCase(volume, tumour, liver, "none" if liver is None else "reference", spacing, numbers)


def empty(shape=(3, 5, 9)):
    return np.zeros(shape, bool)


# Places ---------------------------------------------------------------------------------------


def test_the_middle_of_a_column_has_half_of_its_voxels_before_it():
    shares = population.share_before(np.array([1, 1, 1]), np.array([0.0, 1.0, 2.0]))
    assert shares == pytest.approx([1 / 6, 1 / 2, 5 / 6])


def test_thirds_hold_equal_volumes_not_equal_lengths():
    # 8 of 10 voxels lie in the first column: its middle has 4 before it, the third column's 9.5.
    voxels = np.array([8, 1, 1, 0])
    shares = population.share_before(voxels, np.array([0.0, 2.0, 3.0, -5.0]))
    assert shares == pytest.approx([0.4, 0.95, 1, 0])
    assert population.third(shares, population.SIDES) == ["middle", "left", "left", "right"]


def test_without_a_liver_there_is_no_place():
    shares = population.share_before(np.zeros(3, int), np.array([1.0]))
    assert np.isnan(shares).all() and population.third(shares, population.SIDES) == [""]


@pytest.mark.parametrize(
    ("voxel", "side", "height"),
    [((0, 2, 0), "right", "lower"), ((1, 2, 4), "middle", "middle"), ((2, 2, 8), "left", "upper")],
)
def test_columns_run_from_right_to_left_and_slices_upwards(voxel, side, height):
    tumour = empty()
    tumour[voxel] = True
    _, lesions = population.survey_case(case(tumour))
    assert (lesions.side[0], lesions.height[0]) == (side, height)


def test_a_lesion_outside_the_liver_has_no_place_but_a_size():
    tumour, liver = empty(), empty()
    tumour[1, 1, 1] = liver[:, :, 5:] = True
    row, lesions = population.survey_case(case(tumour, liver))
    assert lesions.side[0] == lesions.height[0] == "" and lesions.in_liver[0] == 0
    assert lesions.size_voxels[0] == 1 and row["burden"] == pytest.approx(1 / 60)


def test_the_share_inside_the_liver_counts_the_lesions_own_voxels():
    tumour, liver = empty(), empty()
    tumour[1, 1, 3:7] = liver[:, :, 6:] = True  # one of four
    _, lesions = population.survey_case(case(tumour, liver))
    assert lesions.in_liver[0] == 0.25 and lesions.side[0] == "right"


# Cases ----------------------------------------------------------------------------------------


def test_burden_and_volumes_are_counted_by_hand():
    tumour = empty()
    tumour[0:2, 1:3, 1:4] = True  # 12 voxels, 6 a slice
    tumour[2, 4, 8] = True
    row, lesions = population.survey_case(case(tumour))
    assert row["burden"] == pytest.approx(13 / 135)
    assert row["tumour_ml"] == pytest.approx(0.13) and row["liver_ml"] == pytest.approx(1.35)
    assert row["lesions"] == 2 and lesions.size_voxels.tolist() == [12, 1]
    assert lesions.section_pixels.tolist() == [6, 1]
    assert row["largest_lesion_ml"] == pytest.approx(0.12) and row["largest_lesion_section_pixels"] == 6
    # A ball of 120 mm3 is 2 (3 * 120 / (4 pi)) ** (1/3) mm across.
    assert row["largest_lesion_diameter_mm"] == pytest.approx(2 * (90 / np.pi) ** (1 / 3))


def test_without_spacing_sizes_are_in_voxels_and_pixels_alone():
    tumour = empty()
    tumour[1, 1, 1:4] = True
    row, lesions = population.survey_case(case(tumour, spacing=None))
    assert not row["spacing_known"] and row["burden"] == pytest.approx(3 / 135)
    assert np.isnan([row["tumour_ml"], row["liver_ml"], row["largest_lesion_ml"]]).all()
    assert np.isnan(lesions.diameter_mm).all() and lesions.section_pixels[0] == 3


def test_without_a_liver_the_burden_is_undefined_and_volumes_are_not():
    tumour = empty()
    tumour[1, 1, 1] = True
    row, _ = population.survey_case(case(tumour, None))
    assert np.isnan(row["burden"]) and row["tumour_ml"] == pytest.approx(0.01) and row["liver_source"] == "none"


def test_a_healthy_liver_has_burden_0_and_no_lesion():
    row, lesions = population.survey_case(case(empty()))
    assert row["burden"] == 0 and row["lesions"] == 0 and lesions.empty
    assert np.isnan(row["largest_lesion_ml"]) and np.isnan(row["largest_lesion_section_pixels"])


def test_a_liver_that_is_all_tumour_has_burden_1_and_one_lesion_in_its_middle():
    row, lesions = population.survey_case(case(~empty()))
    assert row["burden"] == 1 and lesions[["side", "height"]].values.tolist() == [["middle", "middle"]]


def test_an_empty_liver_has_no_burden():
    assert np.isnan(population.survey_case(case(empty(), empty()))[0]["burden"])


def test_missing_slices_are_counted_and_lesions_named_by_the_slices_number():
    tumour = empty()
    tumour[2, 1, 1] = True
    row, lesions = population.survey_case(case(tumour, numbers=[10, 12, 16]))
    assert row["missing_slices"] == 4 and lesions.slice.tolist() == [16]


def test_a_survey_needs_cases_and_each_once():
    with pytest.raises(DataError, match="no cases"):
        population.survey([])
    with pytest.raises(DataError, match="volume 3 comes more than once"):
        population.survey([case(empty(), volume=3), case(empty(), volume=3)])


# Summary --------------------------------------------------------------------------------------


def two_lesions(volume):
    tumour = empty()
    tumour[0, 1, 0] = tumour[2, 1, 0] = True  # both in the right third, one low and one high
    return case(tumour, volume=volume)


def test_the_summary_says_what_entered():
    left = empty()
    left[1, 1, 8] = True
    found = population.survey([two_lesions(0), case(left, volume=1), case(empty(), None, volume=2)])
    rows = population.summarised(found).set_index("quantity")
    assert rows.value["cases with tumour, share"] == pytest.approx(2 / 3)
    burden = rows.loc["tumour burden, share of the liver (cases with a known liver)"]
    assert burden.value == pytest.approx((2 / 135 + 1 / 135) / 2) and burden.left_out == 1
    assert rows.value["lesions per case"] == 1
    assert rows.value["lesions in the right third, right to left, share"] == pytest.approx(2 / 3)
    assert rows.value["lesions in the left third, right to left, share"] == pytest.approx(1 / 3)
    assert rows.value["lesions in the middle third, low to high, share"] == pytest.approx(1 / 3)


def test_volumes_of_one_patient_are_one_patient_in_the_interval():
    found = population.survey([two_lesions(0), two_lesions(4), two_lesions(5)], patients={4: 0})
    assert found.cases.patient.tolist() == [0, 0, 5] and found.lesions.patient.tolist() == [0, 0, 0, 0, 5, 5]
    assert set(population.summarised(found).patients) == {2}


def test_a_survey_without_any_tumour_is_summarised_too():
    rows = population.summarised(population.survey([case(empty()), case(empty(), volume=1)])).set_index("quantity")
    assert rows.value["cases with tumour, share"] == 0
    assert np.isnan(rows.value["tumour, ml (cases with tumour and known spacing)"])


def test_tables_are_written_and_read_back(tmp_path):
    paths = population.write_tables(population.survey([two_lesions(7)]), tmp_path / "new")
    cases, lesions = map(pd.read_csv, paths)
    assert cases.volume.tolist() == [7] and lesions.side.tolist() == ["right", "right"]


# Files ----------------------------------------------------------------------------------------


def test_reference_labels_of_a_slice_table_are_whole_volumes(table):
    spaced = table.assign(slice_mm=5.0, row_mm=1.0, column_mm=1.0)
    found = population.survey(population.reference_cases(spaced.sample(frac=1, random_state=1))).cases
    assert found.volume.tolist() == [0, 1, 2, 3] and found.lesions.tolist() == [1, 1, 1, 0]
    assert found.tumour_voxels.tolist() == table.groupby("volume").tumour_pixels.sum().tolist()
    assert found.tumour_ml.tolist() == pytest.approx((found.tumour_voxels * 5 / 1000).tolist())


def test_slices_missing_in_between_take_the_spacing_away(table):
    spaced = table.assign(slice_mm=5.0, row_mm=1.0, column_mm=1.0)
    found = population.survey(population.reference_cases(spaced[spaced.slice != 2])).cases
    assert not found.spacing_known.any() and (found.missing_slices == 1).all()


def predicted(folder, table=None):
    return {one.volume: one for one in population.predicted_cases(folder, table)}


def nifti(folder, name, *, liver=False, shape=(4, 64, 64)):
    """A prediction: tumour 3x3 in slice 2, and a liver of 10x10 around it if asked for."""
    labels = np.zeros(shape, np.uint8)
    if liver:
        labels[2, 25:35, 25:35] = 1
    labels[2, 30:33, 30:33] = 2
    write_nifti(folder / f"{name}_prediction.nii.gz", labels, SPACING)


def test_a_prediction_with_a_liver_needs_no_reference(tmp_path):
    nifti(tmp_path, "volume-12", liver=True)
    found = predicted(tmp_path)[12]
    assert found.liver_source == "predicted" and found.spacing == SPACING
    assert found.liver.sum() == 100 and found.tumour.sum() == 9


def test_a_prediction_of_tumour_alone_takes_the_liver_of_the_reference(tmp_path, table):
    nifti(tmp_path, "volume-1")
    found = predicted(tmp_path, table)[1]
    assert found.liver_source == "reference"
    rows = table[table.volume == 1]
    assert found.liver.sum() == (rows.liver_pixels + rows.tumour_pixels).sum()


def test_a_prediction_of_tumour_alone_without_a_reference_has_no_liver(tmp_path, table):
    nifti(tmp_path, "volume-12")
    assert predicted(tmp_path)[12].liver is predicted(tmp_path, table)[12].liver is None


@pytest.mark.parametrize("shape", [(4, 64, 65), (5, 64, 64)])
def test_a_reference_of_another_size_is_refused(tmp_path, table, shape):
    nifti(tmp_path, "volume-1", shape=shape)
    with pytest.raises(DataError, match="volume 1: .*not of one scan"):
        predicted(tmp_path, table)


def test_names_without_numbers_are_counted_and_take_no_reference(tmp_path, table):
    nifti(tmp_path, "head"), nifti(tmp_path, "foot")
    with pytest.warns(UserWarning, match="counted from 0"):
        found = predicted(tmp_path, table)
    assert sorted(found) == [0, 1] and {one.liver_source for one in found.values()} == {"none"}


def test_an_identity_affine_is_no_spacing(tmp_path):
    labels = np.zeros((2, 3, 5), np.uint8)
    write_nifti(tmp_path / "volume-1_prediction.nii.gz", labels, (1.0, 1.0, 1.0))
    assert predicted(tmp_path)[1].spacing is None


def listed(folder, table):
    """Predictions of slice files: a tumour of 4x4 in each second slice."""
    rows = []
    for row in table.itertuples():
        mask = np.zeros((64, 64), np.uint8)
        mask[30:34, 30:34] = 255 * (row.slice % 2)
        name = f"masks/volume-{row.volume}_slice_{row.slice}_prediction.png"
        write_image(folder / name, mask)
        rows.append({"volume": row.volume, "slice": row.slice, "file": name})
    pd.DataFrame(rows).to_csv(folder / "predictions.csv", index=False)


def test_slice_masks_are_stacked_by_volume(tmp_path, table):
    listed(tmp_path / "predictions", table)
    found = predicted(tmp_path / "predictions", table.assign(slice_mm=5.0, row_mm=1.0, column_mm=1.0))
    assert sorted(found) == [0, 1, 2, 3] and found[2].spacing == (5, 1, 1)
    assert found[2].tumour.sum(axis=(1, 2)).tolist() == [0, 16, 0, 16]
    assert found[2].liver_source == "reference"
    assert predicted(tmp_path / "predictions")[2].spacing is None


def test_a_folder_without_predictions_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="write some with `predict`"):
        predicted(tmp_path)


def test_dicom_segmentations_are_left_out_aloud(tmp_path):
    nifti(tmp_path, "volume-1")
    (tmp_path / "volume-2_prediction.dcm").touch()
    with pytest.warns(UserWarning, match="1 DICOM segmentations are left out"):
        assert sorted(predicted(tmp_path)) == [1]


def test_a_half_written_file_is_no_prediction(tmp_path):
    nifti(tmp_path, "volume-1")
    nifti(tmp_path, ".writing-99-volume-2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(predicted(tmp_path)) == [1]
