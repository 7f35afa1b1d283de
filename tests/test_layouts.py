import nibabel
import numpy as np
import pandas as pd
from phantom_layouts import write_series
import pytest

from lits_helpers import layouts
from lits_helpers.files import DataError
from lits_helpers.layouts import choose, find_layouts, what_is_here
from lits_helpers.pictures import write_image
from lits_helpers.volumes import write_nifti


def touch(root, *names):
    """Empty files below a folder: enough where names alone count."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def nifti(root, *names, slices=3):
    """Small volumes below a folder."""
    for name in names:
        write_nifti(root / name, np.zeros((slices, 5, 4), np.uint8), (2.0, 1.0, 1.0))


def scan(folder, *, patient=0, modality="CT", description=""):
    write_series(
        folder, np.zeros((4, 5, 3), np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]), modality=modality,
        description=description, patient=patient, file_name=f"{modality}_{{}}.dcm",
    )  # fmt: skip


def relative(paths, root):
    return [path.removeprefix(f"{root}/") for path in paths]


# Tables ---------------------------------------------------------------------------------------


def test_volumes_and_segmentations_of_all_folders_are_one_table_sorted_by_number(tmp_path):
    nifti(tmp_path, "part1/volume-10.nii", "part2/volume-9.nii.gz", "masks/segmentation-9.nii", "segmentation-10.nii")
    [layout] = find_layouts(tmp_path)
    assert (layout.name, layout.kind, layout.folder, layout.problems) == ("lits-nifti", "volumes", tmp_path, [])
    assert layout.cases.columns.tolist() == [
        "volume", "image_path", "image_series", "mask_path", "mask_series", "slices",
    ]  # fmt: skip
    assert layout.cases.volume.tolist() == [9, 10]
    assert relative(layout.cases.image_path, tmp_path) == ["part2/volume-9.nii.gz", "part1/volume-10.nii"]
    assert relative(layout.cases.mask_path, tmp_path) == ["masks/segmentation-9.nii", "segmentation-10.nii"]
    assert layout.cases.slices.tolist() == [3, 3]
    assert set(layout.cases.image_series) == set(layout.cases.mask_series) == {""}


def test_slices_are_sorted_by_number_and_lits_png_has_two_masks_each(tmp_path):
    for number in (10, 9):
        touch(tmp_path, f"volume-3_{number}.png", f"segmentation-3_livermask_{number}.png")
        touch(tmp_path, f"segmentation-3_lesionmask_{number}.png")
    [layout] = find_layouts(tmp_path)
    assert (layout.name, layout.kind, layout.problems) == ("lits-png", "slices", [])
    assert layout.cases.columns.tolist() == ["volume", "slice", "image_path", "mask_path", "tumour_mask_path"]
    assert list(zip(layout.cases.volume, layout.cases.slice, strict=True)) == [(3, 9), (3, 10)]
    last = relative(layout.cases.iloc[1][["image_path", "mask_path", "tumour_mask_path"]], tmp_path)
    assert last == ["volume-3_10.png", "segmentation-3_livermask_10.png", "segmentation-3_lesionmask_10.png"]


def test_test_volumes_follow_the_131_for_training_and_are_no_problem(tmp_path):
    nifti(tmp_path, "volume-0.nii", "segmentation-0.nii", "test/test-volume-0.nii")
    [layout] = find_layouts(tmp_path)
    assert layout.cases.volume.tolist() == [0, 131]
    assert layout.cases.mask_path.iloc[1] == "" and layout.problems == []


def test_paths_are_absolute_where_the_root_was_relative(tmp_path, monkeypatch):
    nifti(tmp_path, "data/volume-0.nii", "data/segmentation-0.nii")
    monkeypatch.chdir(tmp_path)
    [layout] = find_layouts("data")
    assert layout.cases.image_path[0] == str(tmp_path / "data" / "volume-0.nii")


def test_slices_are_counted_along_the_body_whatever_the_stored_order(tmp_path):
    sagittal = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # head is the second axis
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 6, 5), np.uint8), sagittal), tmp_path / "volume-0.nii")
    [layout] = find_layouts(tmp_path)
    assert layout.cases.slices.tolist() == [6]


@pytest.mark.parametrize(
    ("folders", "numbers"),
    [
        (["patient-7", "patient-12"], [7, 12]),  # by number, not by text
        (["a/p7/CT_1", "a/p12/CT_1"], [7, 12]),  # the innermost numbers are alike
        (["mueller", "meier"], [0, 1]),  # no numbers: in the order of folders, meier first
        (["1.2.840.11", "1.2.840.12"], [0, 1]),  # UIDs are no numbers
    ],
)
def test_dicom_cases_are_numbered_by_what_tells_their_folders_apart(tmp_path, folders, numbers):
    for patient, folder in enumerate(folders):
        scan(tmp_path / folder, patient=patient)
    [layout] = find_layouts(tmp_path)
    assert layout.cases.volume.tolist() == numbers
    if numbers == [7, 12]:
        assert relative(layout.cases.image_path, tmp_path) == folders


def test_a_dicom_mask_stands_with_its_series_beside_the_scan(tmp_path):
    scan(tmp_path / "p3")
    scan(tmp_path / "p3", modality="OT", description="labels")
    [layout] = find_layouts(tmp_path)
    [case] = layout.cases.itertuples()
    assert (case.volume, case.slices, case.image_path, case.mask_path) == (3, 3, *[str(tmp_path / "p3")] * 2)
    assert case.image_series != case.mask_series != ""
    assert layout.folder == tmp_path / "p3" and layout.problems == []


def test_a_patient_of_3d_ircadb_without_its_number_is_counted(tmp_path):
    for patient, folder in enumerate(("mueller", "meier")):
        scan(tmp_path / folder / "PATIENT_DICOM", patient=patient)
    scan(tmp_path / "mueller" / "MASKS_DICOM" / "liver", modality="OT")
    [layout] = find_layouts(tmp_path)
    assert layout.cases.volume.tolist() == [0, 1]
    assert relative(layout.cases.mask_path[1:], tmp_path) == ["mueller/MASKS_DICOM"]
    assert layout.problems == [f"{tmp_path}/meier/PATIENT_DICOM: no mask"]


# Problems -------------------------------------------------------------------------------------


def test_a_missing_mask_and_a_missing_image_are_named(tmp_path):
    nifti(tmp_path, "volume-0.nii", "segmentation-0.nii", "volume-1.nii", "segmentation-2.nii")
    [layout] = find_layouts(tmp_path)
    assert layout.problems == [
        f"{tmp_path}/volume-1.nii: no mask",
        f"{tmp_path}/segmentation-2.nii: no image",
    ]
    assert layout.cases.mask_path.tolist() == [f"{tmp_path}/segmentation-0.nii", ""]


def test_images_without_any_mask_are_one_problem_not_thousands(tmp_path):
    touch(tmp_path, *(f"volume-0_slice_{number}.png" for number in range(30)))
    [layout] = find_layouts(tmp_path)
    assert len(layout.cases) == 30 and (layout.cases.mask_path == "").all()
    [problem] = layout.problems
    assert "30 images" in problem and "prediction" in problem


def test_of_lits_png_either_mask_may_be_missed(tmp_path):
    for number in range(2):
        touch(tmp_path, f"volume-3_{number}.png", f"segmentation-3_livermask_{number}.png")
    touch(tmp_path, "segmentation-3_lesionmask_0.png")
    [layout] = find_layouts(tmp_path)
    assert layout.problems == [f"{tmp_path}/volume-3_1.png: no tumour mask"]


def test_of_a_doubled_file_the_first_by_name_is_kept(tmp_path):
    nifti(tmp_path, "pt2/volume-0.nii", "pt1/volume-0.nii", "pt1/segmentation-0.nii", "pt1/segmentation-0.nii.gz")
    [layout] = find_layouts(tmp_path)
    assert relative(layout.cases.image_path, tmp_path) == ["pt1/volume-0.nii"]
    assert layout.problems == [
        f"{tmp_path}/pt1/segmentation-0.nii.gz: the same volume as {tmp_path}/pt1/segmentation-0.nii",
        f"{tmp_path}/pt2/volume-0.nii: the same volume as {tmp_path}/pt1/volume-0.nii",
    ]


def truncate_header(path):
    path.write_bytes(path.read_bytes()[:40])


def make_four_dimensional(path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 3, 2), np.uint8), np.eye(4)), path)


def change_shape(path):
    nifti(path.parent, path.name, slices=4)


@pytest.mark.parametrize("damage", [truncate_header, make_four_dimensional, change_shape])
@pytest.mark.parametrize("name", ["volume-1.nii", "segmentation-1.nii.gz"])
def test_a_bad_header_is_named_and_leaves_out_its_volume_alone(tmp_path, damage, name):
    nifti(tmp_path, "volume-0.nii", "segmentation-0.nii", "volume-1.nii", "segmentation-1.nii.gz", "volume-2.nii")
    damage(tmp_path / name)
    [layout] = find_layouts(tmp_path)
    assert layout.cases.volume.tolist() == [0, 2]
    assert [name in problem for problem in layout.problems] == [True, False]  # the second: volume-2 has no mask
    assert layout.left_out == layout.problems[:1]


def test_a_link_that_leads_nowhere_is_a_problem_of_the_layout_round_it(tmp_path):
    touch(tmp_path, "a/volume-0_slice_0.png", "a/volume-0_slice_0_mask.png")
    nifti(tmp_path, "b/volume-0.nii", "b/segmentation-0.nii")
    (tmp_path / "a" / "volume-0_slice_1.csv").symlink_to(tmp_path / "gone")
    of_volumes, of_slices = find_layouts(tmp_path)
    assert of_volumes.problems == []
    assert of_slices.problems == [f"{tmp_path}/a/volume-0_slice_1.csv: a link that leads nowhere"]


def test_a_link_in_a_circle_outside_every_layout_is_a_problem_of_each(tmp_path):
    nifti(tmp_path, "b/volume-0.nii", "b/segmentation-0.nii")
    (tmp_path / "c").symlink_to(tmp_path)
    [layout] = find_layouts(tmp_path)
    assert len(layout.cases) == 1
    assert layout.problems == [f"{tmp_path}/c: a link in a circle, back to {tmp_path}: not followed"]


# Several layouts ------------------------------------------------------------------------------


def pair(folder, *numbers):
    """Names of slices with masks."""
    return [f"{folder}/volume-{n}_slice_0{end}.png" for n in numbers for end in ("", "_mask")]


def test_two_layouts_below_one_root_are_both_listed(tmp_path):
    touch(tmp_path, *pair("slices", 0, 1))
    nifti(tmp_path, "raw/volume-0.nii", "raw/segmentation-0.nii")
    assert [(one.name, one.folder.name) for one in find_layouts(tmp_path)] == [
        ("lits-nifti", "raw"), ("report-slices", "slices"),
    ]  # fmt: skip


def test_two_copies_are_two_layouts_without_problems(tmp_path):
    touch(tmp_path, *pair("first/a", 0, 1), *pair("second", 0, 1, 2))
    first, second = find_layouts(tmp_path)
    assert (first.folder, second.folder) == (tmp_path / "first" / "a", tmp_path / "second")
    assert (len(first.cases), len(second.cases)) == (2, 3)
    assert first.problems == second.problems == []


def test_copies_of_dicom_are_told_apart_too(tmp_path):
    for copy in ("first", "second"):
        scan(tmp_path / copy)
        scan(tmp_path / copy, modality="OT", description="labels")
    assert [one.folder.name for one in find_layouts(tmp_path)] == ["first", "second"]


def test_a_copy_below_the_folder_of_the_other_is_a_copy(tmp_path):
    touch(tmp_path, *pair(".", 0, 1), *pair("backup", 0, 1))
    assert [one.folder for one in find_layouts(tmp_path)] == [tmp_path, tmp_path / "backup"]


def test_images_and_masks_in_folders_of_their_own_are_one_copy_beside_another(tmp_path):
    touch(tmp_path, "images/volume-0_slice_0.png", "masks/volume-0_slice_0_mask.png", *pair("copy", 0))
    assert [one.folder for one in find_layouts(tmp_path)] == [tmp_path, tmp_path / "copy"]
    assert all(one.problems == [] for one in find_layouts(tmp_path))


def test_parts_with_other_numbers_are_one_layout_and_a_single_double_is_a_problem(tmp_path):
    touch(tmp_path, *pair("train", 0, 1), *pair("test", 2, 0))
    [layout] = find_layouts(tmp_path)
    assert layout.cases.volume.tolist() == [0, 1, 2]
    assert len(layout.problems) == 2 and all("the same slice as" in problem for problem in layout.problems)


def test_a_copy_of_one_part_alone_is_a_copy(tmp_path):
    touch(tmp_path, *pair("a", 0, 1), *pair("b", 2, 3), *pair("c", 2, 3))
    assert [one.cases.volume.tolist() for one in find_layouts(tmp_path)] == [[0, 1, 2, 3], [2, 3]]


def test_paired_slices_numbered_anew_in_train_and_test_are_two_layouts(tmp_path):
    for part in ("train", "test"):
        touch(tmp_path, *(f"{part}/{kind}/{n}.png" for kind in ("images", "masks") for n in range(3)))
    assert [one.folder.name for one in find_layouts(tmp_path)] == ["test", "train"]


# Choosing -------------------------------------------------------------------------------------


def three_layouts(root):
    touch(root, *pair("first", 0), *pair("second", 0))
    nifti(root, "raw/volume-0.nii", "raw/segmentation-0.nii")
    return find_layouts(root)


def test_the_only_layout_needs_no_name(tmp_path):
    [layout] = find = three_layouts(tmp_path)[:1]
    assert choose(find) is choose(find, "lits-nifti") is layout


def test_a_name_or_the_end_of_a_folder_chooses(tmp_path):
    found = three_layouts(tmp_path)
    assert choose(found, "lits-nifti") is found[0]
    assert choose(found, "second") is choose(found, str(tmp_path / "second")) is found[2]


@pytest.mark.parametrize("name", [None, "report-slices", "econd", "dicom"])
def test_an_open_choice_lists_all_and_names_the_setting(tmp_path, name):
    found = three_layouts(tmp_path)
    with pytest.raises(DataError, match="LITS_LAYOUT") as error:
        choose(found, name)
    assert all(str(layout.folder) in str(error.value) and layout.name in str(error.value) for layout in found)


# What is here ---------------------------------------------------------------------------------


def test_the_table_says_what_is_where_and_how_much(tmp_path):
    nifti(tmp_path, "raw/volume-0.nii", "raw/segmentation-0.nii", "raw/volume-1.nii")
    for number in range(3):
        for name in pair("slices", number):
            write_image(tmp_path / name, np.eye(8, dtype=np.uint8))
    table = what_is_here(find_layouts(tmp_path), tmp_path)
    assert table.columns.tolist() == ["layout", "folder", "volumes", "slices", "coding", "problems"]
    assert table.drop(columns="coding").values.tolist() == [
        ["lits-nifti", "raw", 2, 6, 1], ["report-slices", "slices", 3, 3, 0],
    ]  # fmt: skip


def test_the_coding_of_slices_is_that_of_their_masks(slice_folder):
    assert what_is_here(find_layouts(slice_folder), slice_folder).coding[0] == "report-jpg"


def two_level_slices(root):
    for number in range(3):
        for name in pair("slices", number):
            write_image(root / name, 255 * np.eye(8, dtype=np.uint8))


def test_masks_of_two_levels_are_ambiguous_until_the_user_says_what_they_mean(tmp_path):
    two_level_slices(tmp_path)
    assert what_is_here(find_layouts(tmp_path), tmp_path).coding[0].startswith("ambiguous: ")
    assert what_is_here(find_layouts(tmp_path), tmp_path, mask_meaning="tumour").coding[0] == "0/255"


def test_masks_that_cannot_be_read_are_named_in_the_table(tmp_path):
    two_level_slices(tmp_path)
    bad = tmp_path / pair("slices", 1)[1]
    bad.write_bytes(b"")
    coding = what_is_here(find_layouts(tmp_path), tmp_path).coding[0]
    assert coding.startswith("unreadable: ") and bad.name in coding


def test_lits_png_has_its_masks_in_two_files(tmp_path):
    touch(tmp_path, "volume-3_0.png", "segmentation-3_livermask_0.png", "segmentation-3_lesionmask_0.png")
    assert what_is_here(find_layouts(tmp_path), tmp_path).coding[0] == "two files"


def test_the_coding_of_volumes_is_checked_on_reading(tmp_path):
    scan(tmp_path)
    scan(tmp_path, modality="OT", description="labels")
    assert what_is_here(find_layouts(tmp_path), tmp_path).coding[0] == "labels (checked on reading)"


def test_without_masks_there_is_no_coding(tmp_path):
    scan(tmp_path)
    assert what_is_here(find_layouts(tmp_path), tmp_path).coding[0] == "no masks"


def test_an_empty_root_is_told_what_trees_are_expected(tmp_path):
    touch(tmp_path, "a/liver.nii.gz", "a/figure.png")
    with pytest.raises(DataError) as error:
        find_layouts(tmp_path)
    text = str(error.value)
    assert str(tmp_path) in text and "1 NIfTI files and 1 pictures" in text
    assert all(name in text for name in layouts.LAYOUTS)


def test_a_missing_root_is_named_with_the_variable(tmp_path):
    with pytest.raises(DataError, match="nowhere.*LITS_DATA_ROOT"):
        find_layouts(tmp_path / "nowhere")


@pytest.mark.realdata
def test_the_real_slices_are_found_whole(real_slices):
    [layout] = [one for one in find_layouts(real_slices) if one.name == "report-slices"]
    assert (len(layout.cases), layout.cases.volume.nunique(), layout.problems) == (1168, 20, [])
    assert isinstance(what_is_here([layout], real_slices), pd.DataFrame)
