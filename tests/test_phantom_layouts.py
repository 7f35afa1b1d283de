import cv2
import numpy as np
import pandas as pd
from phantom_layouts import WRITERS, write_layout
import pydicom
import pytest

from lits_helpers.conversion import read_case
from lits_helpers.layouts import find_layouts, what_is_here
from lits_helpers.masks import CODINGS
from lits_helpers.phantom import phantom_volume

# What find_layouts calls each tree, and whether it has masks.
FOUND = {
    "lits-nifti": ("lits-nifti", True), "kaggle": ("lits-nifti", True), "decathlon": ("decathlon", True),
    "dicom": ("dicom", True), "dicom-beside": ("dicom", True), "dicom-scans": ("dicom", False),
    "3d-ircadb": ("3d-ircadb", True), "report-slices": ("report-slices", True),
    "lits-png": ("lits-png", True), "paired-slices": ("paired-slices", True),
}  # fmt: skip


@pytest.fixture(scope="module")
def patients():
    return {10: phantom_volume(10, size=64, tumours=()), 2: phantom_volume(2, size=64, tumours=("large", "small"))}


@pytest.fixture(scope="module")
def trees(patients, tmp_path_factory):
    """Every tree, written once."""
    return {name: write_layout(tmp_path_factory.mktemp(name), name, patients) for name in WRITERS}


def test_every_writer_is_tested():
    assert set(WRITERS) == set(FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_what_is_written_is_found_again_with_nothing_missing(trees, patients, name):
    [layout] = find_layouts(trees[name])
    known, masked = FOUND[name]
    assert layout.name == known
    cases = layout.cases
    if layout.kind == "volumes":
        assert cases.volume.tolist() == [2, 10]
        assert cases.slices.tolist() == [len(patients[2].labels), len(patients[10].labels)]
    else:
        expected = [(n, s) for n in (2, 10) for s in range(len(patients[n].labels))]
        assert list(zip(cases.volume, cases.slice, strict=True)) == expected
    assert (cases.mask_path != "").all() == masked
    assert len(layout.problems) == (not masked)


@pytest.mark.parametrize("name", ["lits-nifti", "kaggle", "decathlon", "dicom", "dicom-beside", "3d-ircadb"])
def test_each_volume_is_read_back_as_its_patient(trees, patients, name):
    [layout] = find_layouts(trees[name])
    for case in layout.cases.to_dict("records"):
        volume, labels, _ = read_case(case)
        assert np.array_equal(volume.hounsfield, patients[case["volume"]].hounsfield)
        assert np.array_equal(labels, patients[case["volume"]].labels)
        assert volume.spacing == pytest.approx(patients[case["volume"]].spacing)


def test_kaggle_comes_in_two_parts_with_one_folder_of_segmentations(trees):
    files = sorted(str(path.relative_to(trees["kaggle"])) for path in trees["kaggle"].rglob("*.nii"))
    assert files == [
        "liver-tumor-segmentation-part-2/volume_pt2/volume-10.nii",
        "liver-tumor-segmentation/segmentations/segmentation-10.nii",
        "liver-tumor-segmentation/segmentations/segmentation-2.nii",
        "liver-tumor-segmentation/volume_pt1/volume-2.nii",
    ]


def test_dicom_masks_are_the_labels_at_the_slices_of_their_ct(trees, patients):
    [layout] = find_layouts(trees["dicom"])
    case = layout.cases.iloc[0]
    assert case.image_path == case.mask_path and case.image_series != case.mask_series
    read = [pydicom.dcmread(path) for path in (trees["dicom"] / "patient-2").iterdir()]
    stacks = {}
    for series in (case.image_series, case.mask_series):
        own = [one for one in read if one.SeriesInstanceUID == series]
        stacks[series] = sorted(own, key=lambda one: one.ImagePositionPatient[2])
    heights = [[one.ImagePositionPatient[2] for one in stack] for stack in stacks.values()]
    assert heights[0] == heights[1]
    labels = np.stack([one.pixel_array for one in stacks[case.mask_series]])
    assert np.array_equal(labels, patients[2].labels)


def test_3d_ircadb_has_a_folder_for_each_tumour_and_organs_that_are_no_business_of_ours(trees):
    organs = {n: {p.name for p in (trees["3d-ircadb"] / f"3Dircadb1.{n}" / "MASKS_DICOM").iterdir()} for n in (2, 10)}
    assert organs[10] == {"bone", "liver"}
    assert {"bone", "liver", "livertumor01", "livertumor02"} <= organs[2]


def test_lits_png_is_256_pixels_wide_with_zeros_and_ones(trees, patients):
    folder = trees["lits-png"] / "dataset_6"
    number = int((patients[2].labels == 2).sum(axis=(1, 2)).argmax())
    liver, lesion = (
        cv2.imread(str(folder / f"segmentation-2_{what}_{number}.png"), cv2.IMREAD_UNCHANGED)
        for what in ("livermask", "lesionmask")
    )
    labels = patients[2].labels[number].repeat(4, axis=0).repeat(4, axis=1)  # nearest, from 64 to 256
    assert np.array_equal(liver, labels > 0) and np.array_equal(lesion, labels == 2)
    image = cv2.imread(str(folder / f"volume-2_{number}.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (256, 256) and image.max() > 200


def test_the_table_of_lits_png_is_as_wrong_as_the_published_one(tmp_path, patients):
    # Of 258 slices, two more than the table can count.
    tall = type(patients[2])(
        np.zeros((258, 32, 32), np.int16), np.eye(32, dtype=np.uint8)[None].repeat(258, 0), (1.0, 1.0, 1.0)
    )
    write_layout(tmp_path, "lits-png", {0: tall})
    table = pd.read_csv(tmp_path / "lits_df.csv")
    assert table.instance_number.tolist() == [*range(256), 0, 1]
    assert table.liver_mask_empty.all() and not table.tumor_mask_empty.any()


@pytest.mark.parametrize("coding", CODINGS)
def test_paired_slices_come_in_every_coding(tmp_path, patients, coding):
    write_layout(tmp_path, "paired-slices", {2: patients[2]}, coding=coding)
    meaning = {"0/1": "liver", "0/255": "liver", "0/1 tumour": "tumour", "0/255 tumour": "tumour"}.get(coding, "")
    table = what_is_here(find_layouts(tmp_path), tmp_path, mask_meaning=meaning)
    assert table.coding.tolist() == [coding.removesuffix(" tumour")]
