import os

import numpy as np
import pandas as pd
import pytest

from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.splits import (
    check_patient_split, fold_patients, fold_split, load_folds, one_watched, save_split, split_patients,
    split_slices, without_test,
)


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


# Folds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_each_patient_is_tested_by_one_fold_and_kinds_are_spread_alike(seed):
    table = patient_table(7, 5)
    folded = fold_patients(table, folds=3, seed=seed)
    pd.testing.assert_frame_equal(folded.drop(columns="fold"), table)
    assert (folded.groupby("volume").fold.nunique() == 1).all()
    # Seven with tumour dealt to 1, 2, 3, 1, 2, 3, 1; five without go on with 2, 3, 1, 2, 3.
    volumes = folded.groupby(["diagnosis", "fold"]).volume.nunique()
    assert volumes[2].to_dict() == {1: 3, 2: 2, 3: 2} and volumes[1].to_dict() == {1: 1, 2: 2, 3: 2}


def test_volumes_of_one_patient_are_tested_together():
    table = patient_table(12, 0)
    table["patient"] = table.volume % 6
    folded = fold_patients(table, folds=3)
    assert (folded.groupby("patient").fold.nunique() == 1).all()
    assert folded.groupby("fold").patient.nunique().to_dict() == {1: 2, 2: 2, 3: 2}


def test_folds_follow_from_their_seed():
    table = patient_table(20, 0)
    assert fold_patients(table, seed=1).fold.equals(fold_patients(table, seed=1).fold)
    assert not fold_patients(table, seed=1).fold.equals(fold_patients(table, seed=2).fold)


@pytest.mark.parametrize("folds", [0, 1, 5])
def test_folds_are_two_at_least_and_one_for_each_patient_at_most(folds):
    with pytest.raises(DataError, match=rf"4 patient\(s\) cannot make {folds} folds"):
        fold_patients(patient_table(4, 0), folds=folds)


def test_folds_that_test_no_tumour_are_warned_of():
    with pytest.warns(UserWarning, match=r"2 patient\(s\) with a tumour are too few for 3 folds"):
        fold_patients(patient_table(2, 4), folds=3)


def test_a_fold_is_tested_and_a_quarter_of_the_others_validates():
    folded = fold_patients(patient_table(10, 10), folds=5)
    tested = []
    for fold in range(1, 6):
        split = fold_split(folded, fold)
        pd.testing.assert_frame_equal(split.drop(columns="split"), folded)
        assert (split.split == "test").equals(folded.fold == fold)
        # 16 patients are left, 8 of each kind: 6 train and 2 validate.
        volumes = split.groupby(["diagnosis", "split"]).volume.nunique()
        for diagnosis in (1, 2):
            assert volumes[diagnosis].to_dict() == {"test": 2, "train": 6, "validation": 2}
        tested += split.volume[split.split == "test"].unique().tolist()
    assert sorted(tested) == list(range(20))


def test_a_folds_volumes_of_one_patient_stay_on_one_side():
    table = patient_table(16, 0)
    table["patient"] = table.volume // 2
    split = fold_split(fold_patients(table, folds=4), 2)
    assert (split.groupby("patient").split.nunique() == 1).all()
    assert split.groupby("split").patient.nunique().to_dict() == {"test": 2, "train": 4, "validation": 2}


def test_a_fold_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"no fold 0: choose from \[1, 2\]"):
        fold_split(fold_patients(patient_table(4, 0), folds=2), 0)
    with pytest.raises(DataError, match="fold_patients first"):
        fold_split(patient_table(4, 0), 1)


def test_a_patient_in_two_folds_is_refused():
    folded = patient_table(6, 0)
    folded["fold"] = folded.slice % 2 + 1
    with pytest.raises(DataError, match="more than one side.*make the split or the folds anew"):
        fold_split(folded, 1)


def test_the_only_tumour_that_is_left_trains():
    split = fold_split(patient_table(1, 2).assign(fold=[1] * 4 + [1] * 4 + [2] * 4), 2)
    assert split.groupby("volume").split.first().to_dict() == {0: "train", 1: "validation", 2: "test"}


def test_two_patients_leave_none_to_validate():
    with pytest.raises(DataError, match="nothing for validation"):
        fold_split(fold_patients(patient_table(2, 0), folds=2), 1)


@pytest.fixture
def stored(table, tmp_path):
    """Three stored folds of the small slice table: file and table."""
    path = tmp_path / "folds.csv"
    return path, load_folds(table, path, folds=3, seed=1)


def test_stored_folds_are_used_again_whatever_the_seed(table, stored):
    path, folded = stored
    before = path.read_bytes()
    shuffled = table.sample(frac=1, random_state=0)
    again = load_folds(shuffled, path, folds=3, seed=2)
    assert path.read_bytes() == before
    pd.testing.assert_frame_equal(again.sort_index(), folded)


def test_a_changed_table_is_refused_with_its_volumes(table, stored):
    path, _ = stored
    renamed = table.assign(volume=table.volume.replace({3: 8}))
    with pytest.raises(DataError, match=r"folds.csv: .*new volumes \[8\]; missing volumes \[3\]"):
        load_folds(renamed, path, folds=3)
    with pytest.raises(DataError, match=r"another table \(other slices in volumes \[0\]\)"):
        load_folds(table[1:], path, folds=3)


def test_stored_folds_that_tear_a_patient_found_later_are_refused(table, stored):
    path, folded = stored
    first, second = folded.drop_duplicates("fold").volume[:2]
    same = table.assign(patient=table.volume.replace({second: first}))
    with pytest.raises(DataError, match=rf"one patient in several folds, volumes \[{min(first, second)}, {max(first, second)}\]"):
        load_folds(same, path, folds=3)


def test_another_number_of_folds_or_a_damaged_file_is_refused(table, stored):
    path, _ = stored
    with pytest.raises(DataError, match="holds 3 folds, 2 are asked for"):
        load_folds(table, path, folds=2)
    for damaged in ("", "volume,slice\n1,1\n"):
        path.write_text(damaged)
        with pytest.raises(DataError, match="folds.csv: damaged, or of another version"):
            load_folds(table, path, folds=3)


@pytest.mark.realdata
def test_real_patients_are_split_whole(real_slices, tmp_path):
    split = split_patients(build_index(real_slices, tmp_path))
    assert split.groupby("split").volume.nunique().to_dict() == {"train": 12, "validation": 4, "test": 4}


def test_without_test_its_patients_train_and_validation_stays(table):
    split = split_patients(table)
    joined = without_test(split)
    assert joined.split.tolist() == split.split.replace({"test": "train"}).tolist()
    assert set(joined.split) == {"train", "validation"}
    assert (split.split == "test").any()  # the table given is left as it is
    check_patient_split(joined)


def test_one_validation_patient_with_a_tumour_is_watched_and_all_others_train(table):
    split = split_patients(table)
    watched = one_watched(split)
    kept = watched[watched.split == "validation"]
    assert kept.volume.nunique() == 1 and (kept.diagnosis == 2).any()
    assert set(split.split[split.volume == kept.volume.iloc[0]]) == {"validation"}
    assert len(kept) == (table.volume == kept.volume.iloc[0]).sum()
    assert set(watched.split[watched.volume != kept.volume.iloc[0]]) == {"train"}
    check_patient_split(watched)


def test_without_tumours_in_validation_any_of_its_patients_is_watched():
    split = pd.DataFrame({
        "volume": [1, 1, 2, 3, 4], "patient": [7, 7, 5, 8, 8], "diagnosis": [2, 1, 1, 2, 0],
        "split": ["train", "train", "validation", "test", "test"],
    })
    assert one_watched(split).split.tolist() == ["train", "train", "validation", "train", "train"]
