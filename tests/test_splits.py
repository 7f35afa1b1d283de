import os

import numpy as np
import pandas as pd
import pytest

from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.splits import check_patient_split, save_split, split_patients, split_slices


def tumour_table(slices, per_volume=20):
    """A slice table with nothing in it but tumour slices."""
    number = np.arange(slices)
    return pd.DataFrame({"volume": number // per_volume, "slice": number % per_volume, "diagnosis": 2})


def test_the_reports_split_is_pandas_shuffle_cut_as_in_its_code():
    table = tumour_table(2631)
    shuffled = table.sample(frac=1, random_state=32)
    split = split_slices(table)
    assert split[split.split == "train"].index.tolist() == shuffled.index[:2000].tolist()
    assert split[split.split == "validation"].index.tolist() == shuffled.index[2000:2431].tolist()
    assert split[split.split == "test"].index.tolist() == shuffled.index[2431:].tolist()


def test_a_smaller_set_is_split_in_the_reports_proportion():
    counts = split_slices(tumour_table(263)).split.value_counts()
    assert counts.to_dict() == {"train": 200, "validation": 43, "test": 20}


def test_the_reports_split_takes_tumour_slices_only_and_leaks():
    table = pd.concat([tumour_table(40), tumour_table(40).assign(diagnosis=1)], ignore_index=True)
    split = split_slices(table)
    assert (split.diagnosis == 2).all() and len(split) == 40
    with pytest.raises(DataError, match=r"volumes \[0, 1\] lie on more than one side"):
        check_patient_split(split)


def patient_table(with_tumour, without):
    volumes = np.repeat(np.arange(with_tumour + without), 4)
    diagnosis = np.where(volumes < with_tumour, 2, 1)
    return pd.DataFrame({"volume": volumes, "slice": np.arange(len(volumes)), "diagnosis": diagnosis})


@pytest.mark.parametrize("seed", range(5))
def test_no_volume_lies_on_two_sides_and_no_slice_is_lost(seed):
    table = patient_table(10, 10)
    split = split_patients(table, seed=seed)
    assert (split.groupby("volume").split.nunique() == 1).all()
    pd.testing.assert_frame_equal(split.drop(columns="split"), table)
    sides = split.groupby("split").volume.nunique()
    assert sides.to_dict() == {"train": 12, "validation": 4, "test": 4}


def test_patients_without_tumour_are_spread_over_all_sides():
    split = split_patients(patient_table(10, 5))
    assert split[split.diagnosis == 1].groupby("split").volume.nunique().to_dict() == {
        "train": 3, "validation": 1, "test": 1,
    }


def test_seeds_give_different_patients():
    table = patient_table(20, 0)
    assert (split_patients(table, seed=1).split != split_patients(table, seed=2).split).any()
    assert (split_patients(table, seed=1).split == split_patients(table, seed=1).split).all()


@pytest.mark.parametrize("split", [split_slices, split_patients])
def test_too_little_data_for_three_sides_is_an_error(split):
    with pytest.raises(DataError, match="nothing for validation, test"):
        split(tumour_table(2, per_volume=2))


def test_a_folder_without_tumours_has_no_split_of_the_report():
    with pytest.raises(DataError, match="nothing for train, validation, test"):
        split_slices(tumour_table(40).assign(diagnosis=1))


def test_only_the_volumes_on_two_sides_are_named():
    table = pd.DataFrame({"volume": [3, 3, 5, 5, 7], "split": ["train", "train", "train", "test", "test"]})
    with pytest.raises(DataError, match=r"volumes \[5\] lie"):
        check_patient_split(table)


@pytest.mark.parametrize("seed", range(5))
def test_volumes_of_one_patient_stay_on_one_side(seed):
    table = patient_table(12, 0)
    table["patient"] = table.volume % 6  # each patient twice
    split = split_patients(table, seed=seed)
    assert (split.groupby("patient").split.nunique() == 1).all()
    assert split.groupby("split").patient.nunique().to_dict() == {"train": 4, "validation": 1, "test": 1}


def test_a_patient_has_a_tumour_where_one_of_the_scans_shows_it():
    table = patient_table(3, 3)
    table["patient"] = table.volume % 3  # each has a scan with a tumour and one without
    assert split_patients(table).groupby("split").patient.nunique().to_dict() == {
        "train": 1, "validation": 1, "test": 1,
    }


def test_volumes_of_one_patient_on_two_sides_are_named():
    table = pd.DataFrame({"volume": [3, 4, 5], "patient": [3, 3, 5], "split": ["train", "test", "test"]})
    with pytest.raises(DataError, match=r"volumes \[3, 4\] lie"):
        check_patient_split(table)
    assert check_patient_split(table.drop(columns="patient")) is not None


@pytest.mark.parametrize("with_tumour", [1, 2])
def test_too_few_patients_with_tumour_for_three_sides_are_said_to_be_in_train(with_tumour):
    with pytest.warns(UserWarning, match=rf"^{with_tumour} patient\(s\) with a tumour are too few"):
        split = split_patients(patient_table(with_tumour, 5))
    assert set(split.split[split.diagnosis == 2]) == {"train"}


@pytest.mark.parametrize("with_tumour", [0, 3])
def test_no_tumour_or_enough_of_them_needs_no_warning(with_tumour, recwarn):
    split_patients(patient_table(with_tumour, 5))
    assert not recwarn.list


def test_a_saved_split_reads_back(slice_folder, tmp_path):
    split = split_patients(build_index(slice_folder, tmp_path / "out"))
    path = save_split(split, tmp_path / "splits" / "patients.csv")
    read = pd.read_csv(path)
    assert read.split.tolist() == split.split.tolist()
    assert read.image_path[0] == os.path.basename(split.image_path[0])


@pytest.mark.realdata
def test_real_patients_are_split_whole(real_slices, tmp_path):
    split = split_patients(build_index(real_slices, tmp_path))
    assert split.groupby("split").volume.nunique().to_dict() == {"train": 12, "validation": 4, "test": 4}
