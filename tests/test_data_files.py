import os
import sys
from pathlib import Path

import numpy as np
from phantom_layouts import write_series
import pydicom
import pytest

from lits_helpers import data_files
from lits_helpers.data_files import recognised, walk


def touch(root, *names):
    """Empty files below a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found_below(root):
    """(layout, role, key, path below the root) of all that is recognised."""
    folders, _ = walk(str(root))
    return {
        (one.layout, one.role, one.key, Path(one.path).relative_to(root).as_posix())
        for one in recognised(str(root), folders)
    }


def write_dicom(folder, *, modality="CT", description="", patient=0, file_name="slice_{:04d}.dcm"):
    write_series(
        folder, np.zeros((4, 5, 3), np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]),
        modality=modality, description=description, patient=patient, file_name=file_name,
    )  # fmt: skip


# Walking --------------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_left_out(tmp_path):
    touch(tmp_path, "a/b.png", "a/.writing-3-b.png", "a/._b.png", ".Trash/c.png")
    folders, astray = walk(str(tmp_path))
    assert folders == {str(tmp_path): [], str(tmp_path / "a"): ["b.png"]}
    assert astray == []


def test_a_link_in_a_circle_is_reported_and_not_followed(tmp_path):
    touch(tmp_path, "a/b/c.png")
    (tmp_path / "a" / "b" / "again").symlink_to(tmp_path)
    folders, astray = walk(str(tmp_path))
    assert [names for names in folders.values() if names] == [["c.png"]]
    [(path, text)] = astray
    assert path == str(tmp_path / "a" / "b" / "again") and "circle" in text


def test_a_folder_that_a_link_repeats_is_searched_once_under_its_own_name(tmp_path):
    touch(tmp_path, "real/c.png")
    (tmp_path / "also").symlink_to(tmp_path / "real")
    folders, astray = walk(str(tmp_path))
    assert folders[str(tmp_path / "real")] == ["c.png"] and len(folders) == 2
    [(path, text)] = astray
    assert path == str(tmp_path / "also") and str(tmp_path / "real") in text


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    touch(tmp_path, "elsewhere/c.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "data").symlink_to(tmp_path / "elsewhere")
    folders, astray = walk(str(tmp_path / "root"))
    assert folders[str(tmp_path / "root" / "data")] == ["c.png"]
    assert astray == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
def test_what_is_no_file_is_reported_and_left_out(tmp_path):
    os.mkfifo(tmp_path / "volume-0_slice_0.png")
    (tmp_path / "volume-0_slice_1.png").symlink_to("/dev/null")
    (tmp_path / "volume-0_slice_2.png").touch()
    folders, astray = walk(str(tmp_path))
    assert folders == {str(tmp_path): ["volume-0_slice_2.png"]}
    assert [path[-5:] for path, text in astray if "neither a file nor a folder" in text] == ["0.png", "1.png"]


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are Unicode here")
def test_names_that_are_no_utf_8_are_reported_in_letters_that_are(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/\xe4")
    (tmp_path / "volume-0_slice_0.png").touch()
    os.rename(tmp_path / "volume-0_slice_0.png", os.fsencode(tmp_path) + b"/volume-\xff_slice_0.png")
    folders, astray = walk(str(tmp_path))
    assert folders == {str(tmp_path): []}
    assert sorted(astray) == [
        (rf"{tmp_path}/\xe4", "its name is not UTF-8: rename it"),
        (rf"{tmp_path}/volume-\xff_slice_0.png", "its name is not UTF-8: rename it"),
    ]


def test_links_that_lead_nowhere_or_to_themselves_are_reported(tmp_path):
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    _, astray = walk(str(tmp_path))
    assert sorted(os.path.basename(path) for path, _ in astray) == ["lost.png", "self"]
    assert all("nowhere" in text for _, text in astray)


def test_a_closed_folder_is_reported_and_the_others_are_searched(tmp_path, monkeypatch):
    touch(tmp_path, "closed/a.png", "open/b.png")
    scandir = os.scandir

    def refuses(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    folders, astray = walk(str(tmp_path))
    assert folders[str(tmp_path / "open")] == ["b.png"]
    assert astray == [(str(tmp_path / "closed"), "cannot be searched (Permission denied)")]


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout", "role", "key"),
    [
        ("volume-7.nii", "lits-nifti", "image", (7,)),
        ("Volume-07.NII.GZ", "lits-nifti", "image", (7,)),
        ("segmentation-7.nii.gz", "lits-nifti", "mask", (7,)),
        ("test-volume-7.nii", "lits-nifti", "test image", (138,)),
        ("imagesTr/liver_7.nii.gz", "decathlon", "image", (7,)),
        ("imagesTs/liver_140.nii.gz", "decathlon", "test image", (140,)),
        ("labelsTr/liver_7.nii.gz", "decathlon", "mask", (7,)),
        ("volume-3_slice_12.jpg", "report-slices", "image", (3, 12)),
        ("volume-3_slice_12_mask.PNG", "report-slices", "mask", (3, 12)),
        ("volume-3_12.png", "lits-png", "image", (3, 12)),
        ("segmentation-3_livermask_12.png", "lits-png", "mask", (3, 12)),
        ("segmentation-3_lesionmask_12.png", "lits-png", "tumour mask", (3, 12)),
    ],
)
def test_a_name_tells_layout_role_and_numbers(tmp_path, name, layout, role, key):
    touch(tmp_path, f"a/{name}")
    assert found_below(tmp_path) == {(layout, role, key, f"a/{name}")}


def test_files_of_other_projects_are_left_out(tmp_path):
    touch(tmp_path, "thesis.txt", "liver_3.nii.gz", "images/logo.png", "imagesTr/spleen_3.nii.gz", "README")
    assert found_below(tmp_path) == set()


def test_a_wrong_name_among_right_ones_is_a_problem(tmp_path):
    touch(tmp_path, "volume-0.nii", "volume-1 (copy).nii", "notes.txt", "figure.png")
    touch(tmp_path, "slices/volume-0_slice_1.png", "slices/volume-0_slice_x.png", "slices/table.csv")
    problems = {(layout, path) for layout, role, _, path in found_below(tmp_path) if role == "problem"}
    assert problems == {("lits-nifti", "volume-1 (copy).nii"), ("report-slices", "slices/volume-0_slice_x.png")}


# Paired slices --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("train_images", "train_masks"), ("images", "masks"), ("Image", "Mask"), ("img", "label"),
        ("images/train_images", "masks/train_masks"), ("train/images", "train/masks"),
        ("imgs", "segmentations"), ("liver-image", "liver-labels"),
    ],
)  # fmt: skip
def test_folders_that_differ_by_image_and_mask_alone_belong_together(tmp_path, images, masks):
    touch(tmp_path, f"{images}/3_12.jpg", f"{masks}/3_12.png")
    assert found_below(tmp_path) == {
        ("paired-slices", "image", (3, 12), f"{images}/3_12.jpg"),
        ("paired-slices", "mask", (3, 12), f"{masks}/3_12.png"),
    }


def test_other_differences_do_not_pair(tmp_path):
    touch(tmp_path, "train/images/3_12.png", "test/masks/3_12.png", "imagery/1_1.png", "masked/1_1.png")
    assert found_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("name", "key"),
    [("ct-3_slice-012.png", (3, 12)), ("volume-3_slice_12.png", (3, 12)), ("0012.png", (0, 12))],
)
def test_two_numbers_are_volume_and_slice_and_one_is_the_slice(tmp_path, name, key):
    touch(tmp_path, f"images/{name}", f"masks/{name}")
    assert {(role, found) for _, role, found, _ in found_below(tmp_path)} == {("image", key), ("mask", key)}


@pytest.mark.parametrize(("around", "key"), [("patient-3", (3, 17)), ("2017/patient-3", (0, 17)), ("all", (0, 17))])
def test_the_only_number_round_a_slice_is_its_volume(tmp_path, around, key):
    touch(tmp_path, f"{around}/images/17.png", f"{around}/masks/17.png")
    assert {found for _, _, found, _ in found_below(tmp_path)} == {key}


@pytest.mark.parametrize("name", ["liver.png", "2017_3_12.png"])
def test_a_name_without_a_number_or_with_three_is_a_problem(tmp_path, name):
    touch(tmp_path, f"images/{name}", f"masks/{name}")
    assert {role for _, role, _, _ in found_below(tmp_path)} == {"problem"}


def test_masks_with_the_reports_names_stay_the_reports(tmp_path):
    touch(tmp_path, "images/train_images/volume-3_slice_12.jpg", "masks/train_masks/volume-3_slice_12_mask.jpg")
    assert {layout for layout, *_ in found_below(tmp_path)} == {"report-slices"}


# DICOM ----------------------------------------------------------------------------------------


def test_dicom_is_found_by_ending_or_by_its_mark(tmp_path):
    write_dicom(tmp_path / "a")
    write_dicom(tmp_path / "b", patient=1, file_name="IM{}")
    touch(tmp_path, "c/README", "d/notes.txt")
    assert {(role, path) for _, role, _, path in found_below(tmp_path)} == {("image", "a"), ("image", "b")}


def test_a_dicomdir_alone_is_no_data(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert found_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("place", "series"),
    [
        ("ct", {"modality": "OT", "description": "labels"}),
        ("ct", {"modality": "CT", "description": "liver mask"}),
        ("masks", {"modality": "OT"}),
        ("seg", {"modality": "CT", "patient": 1}),
        ("ct", {"modality": "SEG", "description": "result"}),
    ],
)
def test_a_mask_series_is_told_by_kind_description_or_folder_and_goes_with_its_ct(tmp_path, place, series):
    write_dicom(tmp_path / "p1" / "ct", description="abdomen")
    write_dicom(tmp_path / "p1" / place, **series, file_name="m{}.dcm")
    write_dicom(tmp_path / "p2", patient=2)
    [(image, _)] = [(key, path) for _, role, key, path in found_below(tmp_path) if path == "p1/ct" and role == "image"]
    assert [(key, path) for _, role, key, path in found_below(tmp_path) if role == "mask"] == [(image, f"p1/{place}")]


def test_in_trees_of_scans_and_masks_the_same_place_is_the_same_patient(tmp_path):
    for patient in (7, 8):
        write_dicom(tmp_path / "CT" / str(patient), patient=patient)
        write_dicom(tmp_path / "masks" / str(patient), patient=patient, modality="OT")
    by_role = {role: {} for role in ("image", "mask")}
    for _, role, key, path in found_below(tmp_path):
        by_role[role][key] = Path(path).name
    assert by_role["image"] == by_role["mask"] and len(by_role["image"]) == 2


def test_a_mask_as_near_to_two_scans_is_a_problem(tmp_path):
    for patient in (7, 8):
        write_dicom(tmp_path / "CT" / str(patient), patient=patient)
    write_dicom(tmp_path / "masks", modality="OT")
    [(text, path)] = [(key, path) for _, role, key, path in found_below(tmp_path) if role == "problem"]
    assert path == "masks" and "2 CT series are as near" in text


def test_two_mask_series_of_one_ct_are_a_problem_of_which_none_is_used(tmp_path):
    write_dicom(tmp_path / "ct", description="abdomen")
    for number, kind in enumerate(("liver", "tumour")):
        write_dicom(tmp_path / "ct", modality="SEG", description=kind, file_name=f"{kind}_{{}}.dcm", patient=number)
    uids = {pydicom.dcmread(tmp_path / "ct" / f"{kind}_0.dcm").SeriesInstanceUID for kind in ("liver", "tumour")}
    found = {role: (key, path) for _, role, key, path in found_below(tmp_path)}
    assert found.keys() == {"image", "problem"}
    text, path = found["problem"]
    assert path == "ct" and "2 mask series of one CT" in text and all(uid in text for uid in uids)
    assert text.endswith("keep the one that holds liver and tumours")


def test_the_mask_of_each_copy_of_a_ct_stays_its_own(tmp_path):
    for copy in ("a", "b"):
        write_dicom(tmp_path / copy / "ct", description="abdomen")
        write_dicom(tmp_path / copy / "masks", modality="OT")
    assert sorted(path for _, role, _, path in found_below(tmp_path) if role == "mask") == ["a/masks", "b/masks"]


def test_a_series_that_is_neither_ct_nor_mask_is_a_problem(tmp_path):
    write_dicom(tmp_path, modality="MR", description="T1")
    [(_, role, text, _)] = found_below(tmp_path)
    assert role == "problem" and "MR" in text


def rewrite(folder, **attributes):
    """Change attributes of all DICOM files in a folder; None removes one."""
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for name, value in attributes.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(path)


def test_a_localizer_is_no_scan(tmp_path):
    write_dicom(tmp_path / "ct")
    write_dicom(tmp_path / "scout", patient=1)
    rewrite(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert {(role, path) for _, role, _, path in found_below(tmp_path)} == {("image", "ct")}


def test_series_without_a_uid_are_told_apart_by_their_folders(tmp_path):
    for folder in ("a", "b"):
        write_dicom(tmp_path / folder)
        rewrite(tmp_path / folder, SeriesInstanceUID=None)
    assert len({key for _, _, key, _ in found_below(tmp_path)}) == 2


def test_one_damaged_folder_is_a_problem_beside_the_others(tmp_path):
    write_dicom(tmp_path / "good")
    write_dicom(tmp_path / "bad", patient=1)
    damaged = tmp_path / "bad" / "slice_0001.dcm"
    damaged.write_bytes(damaged.read_bytes()[:300])
    found = {path: (role, key) for _, role, key, path in found_below(tmp_path)}
    assert found["good"][0] == "image"
    assert found["bad"][0] == "problem" and "slice_0001.dcm" in found["bad"][1]


def test_headers_are_read_once_a_folder(tmp_path, monkeypatch):
    write_dicom(tmp_path / "a")
    write_dicom(tmp_path / "b", patient=1)
    asked = []
    find_series = data_files.dicom.find_series
    monkeypatch.setattr(data_files.dicom, "find_series", lambda folder: asked.append(folder) or find_series(folder))
    found_below(tmp_path)
    assert sorted(map(os.path.basename, asked)) == ["a", "b"]


# 3D-IRCADb ------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["PATIENT_DICOM", "PATIENT_DICOM/PATIENT_DICOM"])
@pytest.mark.parametrize("liver", ["MASKS_DICOM/liver", "MASKS_DICOM/MASKS_DICOM/liver", "MASKS_DICOM/liver/liver"])
def test_a_patient_of_3d_ircadb_is_found_however_it_was_unpacked(tmp_path, image, liver):
    write_dicom(tmp_path / "zip" / "3Dircadb1.17" / image, file_name="image_{}")
    write_dicom(tmp_path / "zip" / "3Dircadb1.17" / liver, modality="OT", file_name="image_{}")
    masks = liver.split("/liver")[0]
    assert found_below(tmp_path) == {
        ("3d-ircadb", "image", (17,), f"zip/3Dircadb1.17/{image}"),
        ("3d-ircadb", "mask", (17,), f"zip/3Dircadb1.17/{masks}"),
    }


def test_only_the_ct_of_a_patient_folder_is_its_image(tmp_path):
    folder = tmp_path / "3Dircadb1.1" / "PATIENT_DICOM"
    write_dicom(folder, file_name="image_{}")
    write_dicom(folder, modality="OT", file_name="other_{}")
    folders, _ = walk(str(tmp_path))
    [image] = recognised(str(tmp_path), folders)
    assert pydicom.dcmread(folder / "image_0").SeriesInstanceUID == image.series


def test_other_organs_and_labelled_pictures_of_3d_ircadb_are_left_out(tmp_path):
    for folder in ("MASKS_DICOM/bone", "MASKS_DICOM/livertumor01", "LABELLED_DICOM"):
        write_dicom(tmp_path / "3Dircadb1.1" / folder, modality="OT", file_name="image_{}")
    assert found_below(tmp_path) == set()
