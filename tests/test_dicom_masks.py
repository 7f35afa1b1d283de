"""Labels in DICOM: read from what pydicom wrote by hand, written and parsed by plain pydicom."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from phantom_layouts import write_series
import pydicom
import pytest
from highdicom.color import CIELabColor

from lits_helpers.dicom import find_series
from lits_helpers.dicom_masks import read_ircadb_masks, read_mask_series, write_segmentation
from lits_helpers.drawing import LIVER_COLOUR, TUMOUR_COLOUR
from lits_helpers.files import DataError

SHAPE = (7, 5, 6)  # 35 pixels a frame: no whole number of bytes
AFFINE = np.array([[-0.7, 0, 0, 120.0], [0, -0.8, 0, 95.5], [0, 0, 2.5, -310.25], [0, 0, 0, 1]])
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage, which pydicom 3.0 does not name


@pytest.fixture
def ct(tmp_path) -> Path:
    write_series(tmp_path / "ct", np.random.default_rng(3).integers(-1024, 3000, SHAPE), AFFINE)
    return tmp_path / "ct"


@pytest.fixture
def labels() -> np.ndarray:
    """A liver in slices 1 to 4 with a tumour in slices 2 and 3; nothing symmetric."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:6, 1:4, 1:5] = 1
    labels[2:4, 2, 2:4] = 2
    labels[5, 3, 4] = 0
    return labels


def write_organ(folder: Path, inside: np.ndarray, **changes) -> None:
    """3D-IRCADb's 0/255 images of one organ; ``changes`` to every header, None removes an attribute."""
    write_series(folder, inside * np.uint8(255), AFFINE, modality="OT", description=folder.name, file_name="image_{}")
    if changes:
        for path in folder.iterdir():
            rewrite(path, **changes)


def rewrite(path: Path, **changes) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


# 3D-IRCADb ------------------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path, labels) -> Path:
    """MASKS_DICOM whose liver covers its two tumours."""
    write_organ(tmp_path / "MASKS_DICOM" / "liver", labels > 0)
    first, second = labels == 2, labels == 2
    first[:, :, 3], second[:, :, 2] = False, False
    write_organ(tmp_path / "MASKS_DICOM" / "livertumor01", first)
    write_organ(tmp_path / "MASKS_DICOM" / "livertumor02", second)
    return tmp_path / "MASKS_DICOM"


def test_all_tumours_of_3d_ircadb_lie_over_its_liver(ct, masks, labels):
    read = read_ircadb_masks(masks, ct)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("name", ["LiverTumor", "livertumors", "LIVERTUMOUR_2", "tumor"])
def test_tumour_folders_are_known_by_all_their_names(ct, masks, labels, name):
    shutil.rmtree(masks / "livertumor01")
    (masks / "livertumor02").rename(masks / name)
    labels[:, :, 2][labels[:, :, 2] == 2] = 1
    np.testing.assert_array_equal(read_ircadb_masks(masks, ct), labels)


def test_other_organs_and_cysts_are_ignored(ct, masks, labels):
    for name in ("livercyst", "liverkyst", "leftsurretumor", "portalvein", "bone"):
        write_organ(masks / name, np.ones(SHAPE, bool))
    np.testing.assert_array_equal(read_ircadb_masks(masks, ct), labels)


def test_folders_repeated_by_unpacking_are_entered(ct, masks, labels):
    (masks / "liver").rename(masks.parent / "kept")
    (masks / "liver").mkdir()
    (masks.parent / "kept").rename(masks / "liver" / "liver")
    outer = masks.parent / "unpacked" / "MASKS_DICOM"
    outer.mkdir(parents=True)
    masks.rename(outer / "MASKS_DICOM")
    np.testing.assert_array_equal(read_ircadb_masks(outer, ct), labels)


def test_a_patient_without_tumour_folders_has_no_tumour(ct, masks, labels):
    for number in ("01", "02"):
        shutil.rmtree(masks / f"livertumor{number}")
    np.testing.assert_array_equal(read_ircadb_masks(masks, ct), labels > 0)


def test_a_rescaling_copied_from_the_ct_does_not_matter(ct, masks, labels):
    for path in masks.glob("*/*"):
        rewrite(path, RescaleIntercept="-1024")
    np.testing.assert_array_equal(read_ircadb_masks(masks, ct), labels)


def shuffled_names(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    for index, path in enumerate(paths):
        path.rename(folder / f"new_{(index * 5 + 3) % len(paths)}")


def test_slices_are_matched_by_position_first(ct, masks, labels):
    for folder in masks.iterdir():
        shuffled_names(folder)
        for number, path in enumerate(sorted(folder.iterdir())):
            rewrite(path, InstanceNumber=number)
    np.testing.assert_array_equal(read_ircadb_masks(masks, ct), labels)


def test_slices_without_positions_are_matched_by_instance_number(ct, masks, labels):
    for folder in masks.iterdir():
        shuffled_names(folder)
        for path in folder.iterdir():
            rewrite(path, ImagePositionPatient=None)
    np.testing.assert_array_equal(read_ircadb_masks(masks, ct), labels)


def test_slices_without_either_are_matched_by_the_number_in_the_file_name(tmp_path, ct, masks, labels):
    """The CT runs from the head, so that its file numbers are not its order."""
    for path in masks.glob("*/*"):
        rewrite(path, ImagePositionPatient=None, InstanceNumber=None)
        path.rename(path.with_name(f"mask_{5 - int(path.name.removeprefix('image_')):03d}.dcm"))
    for path in list(ct.iterdir()):
        path.rename(path.with_name(f"ct{5 - int(path.stem.removeprefix('slice_'))}"))
    np.testing.assert_array_equal(read_ircadb_masks(masks, ct), labels)


def test_masks_that_nothing_ties_to_the_ct_are_refused(ct, masks):
    for number, path in enumerate(sorted(masks.glob("liver/*"))):
        rewrite(path, ImagePositionPatient=None, InstanceNumber=None)
        path.rename(path.with_name("abcdef"[number]))
    with pytest.raises(DataError, match="neither positions, instance numbers nor numbers in their names"):
        read_ircadb_masks(masks, ct)


def test_file_numbers_that_the_ct_has_twice_tie_nothing_to_it(ct, masks):
    for path in masks.glob("*/*"):
        rewrite(path, ImagePositionPatient=None, InstanceNumber=None)
    (ct / "slice_0004.dcm").rename(ct / "other_3.dcm")
    with pytest.raises(DataError, match="neither positions, instance numbers nor numbers in their names"):
        read_ircadb_masks(masks, ct)


def test_numbers_that_the_ct_lacks_are_named(ct, masks):
    for index in range(6):
        rewrite(masks / "liver" / f"image_{index}", ImagePositionPatient=None, InstanceNumber=index)
    with pytest.raises(DataError, match="image_0: no CT slice has its instance number"):
        read_ircadb_masks(masks, ct)


def test_a_missing_mask_is_refused(ct, masks):
    (masks / "livertumor01" / "image_5").unlink()
    with pytest.raises(DataError, match="livertumor01 has 5 masks for 6 CT slices"):
        read_ircadb_masks(masks, ct)


def test_two_masks_for_one_slice_are_refused(ct, masks):
    (masks / "liver" / "image_5").unlink()
    shutil.copy(masks / "liver" / "image_4", masks / "liver" / "image_5")
    with pytest.raises(DataError, match="two masks for one CT slice in .*liver"):
        read_ircadb_masks(masks, ct)


def test_masks_of_another_place_are_refused(ct, masks):
    rewrite(masks / "liver" / "image_5", ImagePositionPatient=[-120, -95.5, 500])
    with pytest.raises(DataError, match=r"image_5 lies at \[-120.0, -95.5, 500.0\] mm, where its CT has no slice"):
        read_ircadb_masks(masks, ct)


def test_masks_of_another_size_are_refused(ct, masks):
    write_organ(masks / "liver", np.zeros((8, 5, 6), bool))
    with pytest.raises(DataError, match="image_0 has 8 x 5 pixels, its CT 7 x 5"):
        read_ircadb_masks(masks, ct)


def test_masks_of_another_spacing_or_orientation_are_refused(ct, masks):
    rewrite(masks / "liver" / "image_2", PixelSpacing=[0.8, 0.6])
    with pytest.raises(DataError, match=r"image_2 has the PixelSpacing \[0.8, 0.6\], its CT \[0.8, 0.7\]"):
        read_ircadb_masks(masks, ct)
    rewrite(masks / "liver" / "image_2", PixelSpacing=[0.8, 0.7], ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
    with pytest.raises(DataError, match="image_2 has the ImageOrientationPatient"):
        read_ircadb_masks(masks, ct)


def test_a_patient_without_a_liver_is_refused(ct, masks):
    shutil.rmtree(masks / "liver")
    with pytest.raises(DataError, match="no folder 'liver' in .*MASKS_DICOM, only livertumor01, livertumor02"):
        read_ircadb_masks(masks, ct)


def test_a_missing_masks_folder_is_refused(ct, tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read_ircadb_masks(tmp_path / "nowhere", ct)


# Label series ---------------------------------------------------------------------------------


def test_a_label_series_is_found_beside_its_ct(ct, labels):
    write_series(ct, labels, AFFINE, modality="OT", description="labels", file_name="label_{}")
    np.testing.assert_array_equal(read_mask_series(ct, ct), labels)


def test_slices_without_a_label_image_are_background(tmp_path, ct, labels):
    """Cut to slices 1 to 3, of which the last two hold the tumour."""
    write_series(tmp_path / "labels", labels[:, :, 1:4], AFFINE @ translation(1), modality="OT")
    labels[:, :, 4:] = 0
    np.testing.assert_array_equal(read_mask_series(tmp_path / "labels", ct), labels)


def translation(slices: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[2, 3] = slices
    return matrix


def test_labels_are_in_the_order_of_the_ct_not_of_their_files(tmp_path, ct, labels):
    backwards = AFFINE @ translation(5) @ np.diag([1, 1, -1, 1])
    write_series(tmp_path / "labels", labels[:, :, ::-1], backwards, modality="OT")
    np.testing.assert_array_equal(read_mask_series(tmp_path / "labels", ct), labels)


@pytest.mark.parametrize(("added", "intercept"), [(0, -1024), (1024, -1024), (3, -3)], ids=["copied", "meant", "small"])
def test_labels_are_known_rescaled_or_as_stored(tmp_path, ct, labels, added, intercept):
    write_series(tmp_path / "labels", labels + np.uint16(added), AFFINE, modality="OT")
    for path in (tmp_path / "labels").iterdir():
        rewrite(path, RescaleIntercept=str(intercept))
    np.testing.assert_array_equal(read_mask_series(tmp_path / "labels", ct), labels)


def test_other_values_than_labels_are_named(tmp_path, ct, labels):
    write_series(tmp_path / "labels", labels * np.uint8(127), AFFINE, modality="OT")
    with pytest.raises(DataError, match="slice_0001.dcm holds the values 0, 127, not labels 0, 1, 2"):
        read_mask_series(tmp_path / "labels", ct)


def test_of_several_mask_series_one_must_be_chosen(ct, labels):
    for name in ("expert", "student"):
        write_series(ct, labels, AFFINE, modality="OT", description=name, file_name=name + "_{}")
    with pytest.raises(DataError, match=r"2 series of masks in (?s:.*)'expert', 6 slices(?s:.*)'student', 6 slices"):
        read_mask_series(ct, ct / ".." / "ct")


def test_the_chosen_mask_series_is_read(tmp_path, ct, labels):
    write_series(tmp_path / "masks", labels, AFFINE, modality="OT", description="expert", file_name="a_{}")
    write_series(tmp_path / "masks", labels * 0, AFFINE, modality="OT", description="student", file_name="b_{}")
    expert, student = find_series(tmp_path / "masks")
    np.testing.assert_array_equal(read_mask_series(tmp_path / "masks", ct, uid=expert.uid), labels)
    assert not read_mask_series(student, ct).any()
    with pytest.raises(DataError, match="0 series of masks"):
        read_mask_series(tmp_path / "masks", ct, uid="9.9")


def test_a_folder_with_the_ct_alone_has_no_masks(ct):
    with pytest.raises(DataError, match="0 series of masks in .*ct: give the folder of the masks"):
        read_mask_series(ct, ct)


def test_a_label_image_without_position_is_refused(tmp_path, ct, labels):
    write_series(tmp_path / "labels", labels, AFFINE, modality="OT")
    rewrite(tmp_path / "labels" / "slice_0003.dcm", ImagePositionPatient=None)
    with pytest.raises(DataError, match="slice_0003.dcm has no ImagePositionPatient"):
        read_mask_series(tmp_path / "labels", ct)


def test_two_label_images_for_one_slice_are_refused(tmp_path, ct, labels):
    write_series(tmp_path / "labels", labels, AFFINE, modality="OT")
    shutil.copy(tmp_path / "labels" / "slice_0003.dcm", tmp_path / "labels" / "slice_0009.dcm")
    with pytest.raises(DataError, match="slice_000[39].dcm is the second mask for slice 3"):
        read_mask_series(tmp_path / "labels", ct)


@pytest.mark.parametrize("moved", [(0, 0, 1.0), (0.5, 0, 0)], ids=["between slices", "sideways"])
def test_labels_off_the_grid_of_the_ct_are_refused(tmp_path, ct, labels, moved):
    affine = AFFINE.copy()
    affine[:3, 3] += moved
    write_series(tmp_path / "labels", labels, affine, modality="OT")
    with pytest.raises(DataError, match="where its CT has no slice"):
        read_mask_series(tmp_path / "labels", ct)


# Segmentation objects -------------------------------------------------------------------------


def frames_by_hand(path: Path) -> dict[tuple[str, float], tuple[np.ndarray, str]]:
    """(segment label, height in mm) -> bool pixels (rows, columns) and the image they refer to.

    The bits of PixelData run on from frame to frame, the first pixel in the lowest bit (PS3.5, 8.1.1).
    """
    dataset = pydicom.dcmread(path)
    names = {segment.SegmentNumber: segment.SegmentLabel for segment in dataset.SegmentSequence}
    bits = [byte >> bit & 1 for byte in dataset.PixelData for bit in range(8)]
    pixels = dataset.Rows * dataset.Columns
    frames = {}
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        name = names[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert list(position[:2]) == [-120, -95.5]
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        picture = np.array(bits[number * pixels : (number + 1) * pixels], bool).reshape(dataset.Rows, dataset.Columns)
        frames[name, float(position[2])] = picture, source
    return frames


def test_each_frame_of_a_written_segmentation_lies_on_its_ct_slice(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    frames = frames_by_hand(tmp_path / "seg.dcm")
    slices = {float(image.ImagePositionPatient[2]): image.SOPInstanceUID for image in map(pydicom.dcmread, ct.iterdir())}
    expected = {("Liver", -310.25 + 2.5 * k): labels[:, :, k].T == 1 for k in (1, 2, 3, 4)}
    expected |= {("Liver tumour", -310.25 + 2.5 * k): labels[:, :, k].T == 2 for k in (2, 3)}
    assert frames.keys() == expected.keys()
    for key, (picture, source) in frames.items():
        np.testing.assert_array_equal(picture, expected[key])
        assert source == slices[key[1]]


def test_a_written_segmentation_belongs_to_the_study_of_its_ct(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    written, source = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(ct / "slice_0000.dcm")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert written[keyword].value == source[keyword].value
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert (written.Modality, written.SegmentationType) == ("SEG", "BINARY")


def test_a_written_segmentation_has_the_patient_of_its_ct_only_if_asked_to(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    write_segmentation(tmp_path / "kept.dcm", labels, ct, keep_patient=True)
    written, kept = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(tmp_path / "kept.dcm")
    assert (written.PatientName, written.PatientID, written.StudyID) == ("", "", "")
    assert (kept.PatientName, kept.PatientID, kept.StudyID) == ("Synthetic^Phantom", "phantom-0", "1")


def test_segments_are_coded_and_say_which_program_made_them(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    liver, tumour = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    for segment, code in ((liver, "10200004"), (tumour, "108369006")):  # SNOMED CT: liver, neoplasm
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("SCT", code)
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", "lits_helpers")


def test_viewers_are_told_the_mask_colours_of_the_figures(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    segments = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    for segment, colour in zip(segments, (LIVER_COLOUR, TUMOUR_COLOUR), strict=True):
        red_green_blue = CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
        assert np.abs(np.subtract(red_green_blue, [int(colour[i : i + 2], 16) for i in (1, 3, 5)])).max() <= 1


@pytest.mark.parametrize("present", [(1,), (2,), (1, 2)])
def test_only_segments_with_voxels_are_written_and_all_voxels_come_back(tmp_path, ct, labels, present):
    labels[~np.isin(labels, present)] = 0
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    assert len(pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence) == len(present)
    np.testing.assert_array_equal(read_mask_series(tmp_path / "seg.dcm", ct), labels)


def test_a_single_voxel_comes_back(tmp_path, ct):
    labels = np.zeros(SHAPE, np.uint8)
    labels[6, 0, 5] = 2
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    np.testing.assert_array_equal(read_mask_series(tmp_path, find_series(ct)[0]), labels)


def test_full_labels_come_back(tmp_path, ct):
    write_segmentation(tmp_path / "seg.dcm", np.ones(SHAPE, np.int64), ct)
    assert (read_mask_series(tmp_path / "seg.dcm", ct) == 1).all()


def test_an_oblique_ct_gets_its_labels_back(tmp_path, labels):
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turn = np.array([[cosine, -sine, 0], [sine * cosine, cosine * cosine, -sine], [sine * sine, sine * cosine, cosine]])
    affine = AFFINE.copy()
    affine[:3, :3] = turn @ AFFINE[:3, :3]
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16), affine)
    write_segmentation(tmp_path / "seg.dcm", labels, tmp_path / "ct")
    np.testing.assert_array_equal(read_mask_series(tmp_path / "seg.dcm", tmp_path / "ct"), labels)


def test_a_segmentation_is_preferred_to_label_images_and_found_beside_its_ct(ct, labels):
    write_series(ct, labels * 0, AFFINE, modality="OT", description="labels", file_name="label_{}")
    write_segmentation(ct / "seg.dcm", labels, ct)
    np.testing.assert_array_equal(read_mask_series(ct, ct), labels)


def test_an_empty_prediction_is_no_segmentation(tmp_path, ct):
    with pytest.raises(DataError, match="seg.dcm: no liver and no tumour was predicted.*write the prediction as NIfTI"):
        write_segmentation(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), ct)
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(("change", "said"), [(lambda x: x[:, :, 1:], "do not fit a CT"), (lambda x: x * 2, r"got \[2, 4\]")])
def test_labels_that_do_not_fit_are_refused(tmp_path, ct, labels, change, said):
    with pytest.raises(ValueError, match=said):
        write_segmentation(tmp_path / "seg.dcm", change(labels), ct)


def test_a_ct_without_frame_of_reference_cannot_be_referred_to(tmp_path, ct, labels):
    for path in ct.iterdir():
        rewrite(path, FrameOfReferenceUID=None)
    with pytest.raises(DataError, match="no segmentation can refer to the CT of .*slice_0000.dcm"):
        write_segmentation(tmp_path / "seg.dcm", labels, ct)


def test_without_highdicom_the_extra_is_named(tmp_path, ct, labels, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.setitem(sys.modules, "highdicom.seg", None)
    with pytest.raises(DataError, match=r"highdicom: pip install 'lits-helpers\[dicom\]'"):
        write_segmentation(tmp_path / "seg.dcm", labels, ct)


def to_label_map(path: Path, labels: np.ndarray) -> None:
    """Rewrite a segmentation as LABELMAP: one frame a slice whose pixels are segment numbers (PS3.3, C.8.20.2)."""
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = LABEL_MAP
    dataset.SegmentationType = "LABELMAP"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    frames = {float(f.PlanePositionSequence[0].ImagePositionPatient[2]): f for f in dataset.PerFrameFunctionalGroupsSequence}
    heights = sorted(frames, reverse=True)
    dataset.PerFrameFunctionalGroupsSequence = [frames[height] for height in heights]
    dataset.NumberOfFrames = len(heights)
    pictures = b"".join(labels[:, :, round((height + 310.25) / 2.5)].T.tobytes() for height in heights)
    dataset.PixelData = pictures + b"\0" * (len(pictures) % 2)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.SegmentIdentificationSequence
    dataset.save_as(path)


def test_a_label_map_is_read_by_its_segment_numbers(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    to_label_map(tmp_path / "seg.dcm", labels)
    np.testing.assert_array_equal(read_mask_series(tmp_path / "seg.dcm", ct), labels)


@pytest.mark.parametrize(
    ("label", "meaning", "code", "expected"),
    [
        ("Segment_1", "Mass", "4147007", 2),
        ("LIVER LESION 3", "Tissue", "85756007", 2),
        ("hepatocellular carcinoma", "Tissue", "85756007", 2),
        ("Segment_1", "Foie", "10200004", 1),  # French for liver: the code counts
        ("Segment_1", "Leber", "T-62000", 1),
        ("liver", "Tissue", "85756007", 1),
    ],
)
def test_segments_are_known_by_name_or_code(tmp_path, ct, labels, label, meaning, code, expected):
    write_segmentation(tmp_path / "seg.dcm", labels == 1, ct)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    dataset.SegmentSequence[0].SegmentLabel = label
    kind = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    kind.CodeMeaning, kind.CodeValue = meaning, code
    dataset.save_as(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_mask_series(tmp_path / "seg.dcm", ct), (labels == 1) * expected)


def test_a_tumour_wins_over_a_liver_that_covers_it(tmp_path, ct, labels):
    """Two objects of one series: the whole liver, and the tumour."""
    for name, part in (("b", labels > 0), ("a", (labels == 2) * 2)):
        write_segmentation(tmp_path / "seg" / f"{name}.dcm", part, ct)
        rewrite(tmp_path / "seg" / f"{name}.dcm", SeriesInstanceUID="1.2.3")
    np.testing.assert_array_equal(read_mask_series(tmp_path / "seg", ct), labels)


def test_segments_of_other_organs_are_ignored(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    rename_segment(tmp_path / "seg.dcm", 1, "Liver vein", "Vein")
    labels[labels == 1] = 0
    np.testing.assert_array_equal(read_mask_series(tmp_path / "seg.dcm", ct), labels)


def rename_segment(path: Path, number: int, label: str, meaning: str) -> None:
    dataset = pydicom.dcmread(path)
    segment = dataset.SegmentSequence[number - 1]
    segment.SegmentLabel = label
    segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = meaning
    segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "1"
    dataset.save_as(path)


def test_a_segmentation_of_neither_names_its_segments(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels > 0, ct)
    rename_segment(tmp_path / "seg.dcm", 1, "Spleen", "Spleen")
    with pytest.raises(DataError, match=r"seg.dcm has no segment named or coded .*\(its segments: Spleen\)"):
        read_mask_series(tmp_path / "seg.dcm", ct)


def test_a_fractional_segmentation_is_refused(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    rewrite(tmp_path / "seg.dcm", SegmentationType="FRACTIONAL")
    with pytest.raises(DataError, match="seg.dcm is a segmentation of type FRACTIONAL"):
        read_mask_series(tmp_path / "seg.dcm", ct)


def test_a_frame_of_no_segment_is_refused(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    del dataset.PerFrameFunctionalGroupsSequence[2].SegmentIdentificationSequence
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(DataError, match="frame 2 of .*seg.dcm does not say which segment it is"):
        read_mask_series(tmp_path / "seg.dcm", ct)


def test_contours_are_refused_with_the_way_out(tmp_path, ct):
    path = shutil.copy(ct / "slice_0000.dcm", tmp_path / "rtstruct.dcm")
    rewrite(path, SOPClassUID=pydicom.uid.RTStructureSetStorage, Modality="RTSTRUCT", Rows=None, Columns=None, PixelData=None)
    with pytest.raises(DataError, match="rtstruct.dcm is no image but RT Structure Set Storage: convert it"):
        read_mask_series(path, ct)


def test_a_segmentation_of_another_ct_is_refused(tmp_path, ct, labels):
    affine = AFFINE.copy()
    affine[2, 3] += 100
    write_series(tmp_path / "other", np.zeros(SHAPE, np.int16), affine)
    write_segmentation(tmp_path / "seg.dcm", labels, tmp_path / "other")
    with pytest.raises(DataError, match="frame 0 of .*seg.dcm lies at .* where its CT has no slice"):
        read_mask_series(tmp_path / "seg.dcm", ct)


def test_a_segmentation_cut_within_its_pixels_is_named(tmp_path, ct, labels):
    write_segmentation(tmp_path / "seg.dcm", labels, ct)
    (tmp_path / "seg.dcm").write_bytes((tmp_path / "seg.dcm").read_bytes()[:-8])
    with pytest.raises(DataError, match="seg.dcm has damaged or truncated pixels"):
        read_mask_series(tmp_path / "seg.dcm", ct)
