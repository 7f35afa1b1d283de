"""DICOM series read and written, checked by pydicom, SimpleITK and numbers worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
from phantom_layouts import write_series
import pydicom
import pytest
import SimpleITK
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from lits_helpers.dicom import find_series, read_series
from lits_helpers.files import DataError

AFFINE = np.array([[-0.7, 0, 0, 120.0], [0, -0.8, 0, 95.5], [0, 0, 2.5, -310.25], [0, 0, 0, 1]])
AXIAL = (1, 0, 0, 0, 1, 0)


def random_volume(shape: tuple[int, int, int] = (7, 5, 4)) -> np.ndarray:
    return np.random.default_rng(3).integers(-1024, 3000, shape, dtype=np.int16)


def write_slice(path: Path, pixels: np.ndarray | None = None, position=(0, 0, 0), **attributes) -> Path:
    """One CT image by pydicom alone; attributes given as None are left out."""
    pixels = np.zeros((3, 4), np.uint16) if pixels is None else pixels
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
    values = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": pydicom.uid.generate_uid(), "Modality": "CT",
        "SeriesInstanceUID": "1.2.3", "SeriesDescription": "abdomen", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": list(position), "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [0.8, 0.7],
        "SliceThickness": 2.5, "Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": int(pixels.dtype.kind == "i"), "RescaleSlope": 1, "RescaleIntercept": -1024,
        "PixelData": pixels.tobytes(),
    }  # fmt: skip
    for keyword, value in (values | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_stack(folder: Path, heights=(0, 2, 4, 6), **attributes) -> list[Path]:
    """Empty slices at these heights, named by their order in ``heights``."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_slice(folder / f"image_{index}", position=(0, 0, height), **{"InstanceNumber": index + 1} | attributes)
        for index, height in enumerate(heights)
    ]


# Reading --------------------------------------------------------------------------------------


def test_the_affine_of_an_axial_series_has_the_numbers_worked_out_by_hand(tmp_path):
    for index in range(3):
        write_slice(tmp_path / str(index), position=(-150, -120.5, 30 + 2 * index))
    stored, affine = read_series(tmp_path)
    assert stored.shape == (4, 3, 3)  # columns, rows, slices
    # Columns step 0.7 mm to the left and rows 0.8 mm to the back: both negative in NIfTI's world.
    np.testing.assert_array_equal(affine, [[-0.7, 0, 0, 150], [0, -0.8, 0, 120.5], [0, 0, 2, 30], [0, 0, 0, 1]])


def oblique(angle: float) -> tuple[float, ...]:
    """Rows and columns turned about two axes, to twelve digits."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return tuple(np.round([cosine, sine, 0, -sine * cosine, cosine * cosine, sine], 12))


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, (-1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), oblique(0.3)],
    ids=["axial", "prone", "from the head", "coronal", "sagittal", "oblique"],
)
def test_voxels_and_affine_are_those_of_the_nifti_that_simpleitk_makes(tmp_path, orientation):
    generator = np.random.default_rng(1)
    normal = np.cross(orientation[:3], orientation[3:])
    (tmp_path / "series").mkdir()
    for index, name in enumerate(generator.permutation(6)):  # names in no order of the slices
        write_slice(
            tmp_path / "series" / f"{name}.dcm", generator.integers(0, 4000, (5, 7), dtype=np.uint16),
            position=np.round([-90, 31.25, -400] + normal * 1.25 * index, 10), ImageOrientationPatient=list(orientation),
            RescaleSlope=0.5, RescaleIntercept=-1000, InstanceNumber=int(name) + 1,
        )  # fmt: skip
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    SimpleITK.WriteImage(reader.Execute(), str(tmp_path / "reference.nii"))
    reference = nibabel.load(tmp_path / "reference.nii")

    stored, affine = read_series(tmp_path / "series")
    np.testing.assert_array_equal(stored, np.rint(reference.get_fdata()))
    np.testing.assert_allclose(affine, reference.affine, atol=1e-5)


def test_slices_filed_from_the_head_down_are_stored_from_the_feet_up(tmp_path):
    for index, height in enumerate((6, 4, 2, 0)):
        write_slice(tmp_path / f"image_{index}", np.full((3, 4), 1024 + height, np.uint16), (0, 0, height), InstanceNumber=index)
    stored, affine = read_series(tmp_path)
    assert stored[0, 0].tolist() == [0, 2, 4, 6]
    assert affine[2, 2:].tolist() == [2, 0]


def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    pixels = np.full((3, 4), 100, np.uint16)
    write_slice(tmp_path / "a", pixels, (0, 0, 0), RescaleSlope=1, RescaleIntercept=-1024)
    write_slice(tmp_path / "b", pixels, (0, 0, 1), RescaleSlope=0.256, RescaleIntercept=7)
    assert read_series(tmp_path)[0][0, 0].tolist() == [-924, 33]  # 25.6 + 7 rounded


def test_signed_pixels_keep_their_sign(tmp_path):
    write_slice(tmp_path / "a", np.full((3, 4), -30, np.int16), RescaleIntercept=0)
    assert np.unique(read_series(tmp_path)[0]).tolist() == [-30]


def test_values_beyond_16_bits_are_clipped(tmp_path):
    pixels = np.array([[0, 60000]], np.uint16)
    write_slice(tmp_path / "a", pixels, RescaleSlope=2, RescaleIntercept=-50000)
    assert read_series(tmp_path)[0].ravel().tolist() == [-32768, 32767]


def test_an_image_without_rescaling_is_taken_as_stored(tmp_path):
    write_slice(tmp_path / "a", np.full((3, 4), 40, np.int16), RescaleSlope=None, RescaleIntercept=None)
    assert np.unique(read_series(tmp_path)[0]).tolist() == [40]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
def test_padding_of_a_ct_becomes_air(tmp_path, syntax):
    pixels = np.array([[-2000, -1000, 50]], np.int16)
    write_slice(tmp_path / "a", pixels, RescaleIntercept=0, PixelPaddingValue=-2000, syntax=syntax)
    assert read_series(tmp_path)[0].ravel().tolist() == [-1024, -1000, 50]


def test_padding_declared_with_the_other_sign_is_recognised(tmp_path):
    path = write_slice(tmp_path / "a", np.array([[-2000, 50]], np.int16), RescaleIntercept=0)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 63536)  # 65536 - 2000
    dataset.save_as(path)
    assert read_series(tmp_path)[0].ravel().tolist() == [-1024, 50]


def test_a_range_of_padding_becomes_air(tmp_path):
    pixels = np.array([[0, 7, 10, 11, 1100]], np.uint16)
    write_slice(tmp_path / "a", pixels, RescaleIntercept=-100, PixelPaddingValue=10, PixelPaddingRangeLimit=7)
    assert read_series(tmp_path)[0].ravel().tolist() == [-100, -1024, -1024, -89, 1000]


@pytest.mark.parametrize(("stated", "spacing"), [({"SpacingBetweenSlices": 3}, 3), ({}, 2.5)])
def test_a_single_slice_is_as_thick_as_it_says(tmp_path, stated, spacing):
    write_slice(tmp_path / "a", **stated)
    assert read_series(tmp_path)[1][2, 2] == spacing


def test_thickness_says_nothing_where_positions_do(tmp_path):
    write_stack(tmp_path, SliceThickness=5, SpacingBetweenSlices=5)
    assert read_series(tmp_path)[1][2, 2] == 2


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path):
    write_stack(tmp_path, heights=np.round(np.arange(9) * 0.75, 1).tolist())
    assert read_series(tmp_path)[1][2, 2] == pytest.approx(0.75)


# Finding --------------------------------------------------------------------------------------


def test_series_are_found_whatever_their_files_are_called(tmp_path):
    ct = write_stack(tmp_path)
    labels = write_slice(tmp_path / "other.ima", np.zeros((9, 8), np.uint16), Modality="OT", SeriesInstanceUID="1.2.4",
                         SeriesDescription="labels")  # fmt: skip
    one, other = find_series(tmp_path)
    assert (one.uid, one.modality, one.description, one.rows, one.columns) == ("1.2.3", "CT", "abdomen", 3, 4)
    assert one.paths == tuple(ct)
    assert (other.uid, other.modality, other.description, other.rows, other.columns) == ("1.2.4", "OT", "labels", 9, 8)
    assert other.paths == (labels,)


def test_paths_are_in_slice_order(tmp_path):
    a, b, c, d = write_stack(tmp_path, heights=(6, 0, 4, 2))
    assert find_series(tmp_path)[0].paths == (b, d, c, a)


def test_images_without_positions_are_in_the_order_of_their_instance_numbers(tmp_path):
    paths = [write_slice(tmp_path / str(n), ImagePositionPatient=None, InstanceNumber=12 - n) for n in range(3)]
    assert find_series(tmp_path)[0].paths == tuple(reversed(paths))


def test_what_is_no_dicom_image_is_left_out(tmp_path):
    for name in (".hidden", "DICOMDIR"):
        write_slice(tmp_path / name)
    (tmp_path / "notes.dcm").write_text("not DICOM")
    (tmp_path / "empty").touch()
    write_slice(tmp_path / "report", Modality="SR", Rows=None, Columns=None, PixelData=None)
    (tmp_path / "folder").mkdir()
    write_slice(tmp_path / "folder" / "a")
    assert find_series(tmp_path) == []


def test_a_series_can_be_given_instead_of_its_folder(tmp_path):
    write_stack(tmp_path)
    write_slice(tmp_path / "z", SeriesInstanceUID="1.2.4", position=(5, 0, 0))
    stored, affine = read_series(find_series(tmp_path)[1])
    assert stored.shape == (4, 3, 1)
    assert affine[0, 3] == -5


def test_the_only_ct_is_the_default_beside_labels_and_scouts(tmp_path):
    write_stack(tmp_path)
    write_slice(tmp_path / "labels", SeriesInstanceUID="1.2.4", Modality="OT")
    write_slice(tmp_path / "scout", SeriesInstanceUID="1.2.5", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert read_series(tmp_path)[0].shape == (4, 3, 4)


def test_of_several_ct_series_one_must_be_chosen(tmp_path):
    write_stack(tmp_path)
    write_slice(tmp_path / "z", SeriesInstanceUID="1.2.4", SeriesDescription="arterial")
    with pytest.raises(DataError, match=r"2 CT series in .*uid=(?s:.*)1\.2\.3: CT, 'abdomen', 4 slices(?s:.*)1\.2\.4: CT, 'arterial', 1 slices"):
        read_series(tmp_path)
    assert read_series(tmp_path, uid="1.2.4")[0].shape == (4, 3, 1)


def test_an_unknown_uid_is_answered_with_what_there_is(tmp_path):
    write_stack(tmp_path)
    with pytest.raises(DataError, match=r"no series 9\.9 in (?s:.*)1\.2\.3"):
        read_series(tmp_path, uid="9.9")


# Bad input ------------------------------------------------------------------------------------


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="no DICOM images in"):
        read_series(tmp_path)


def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="a is not a folder"):
        read_series(write_slice(tmp_path / "a"))


@pytest.mark.parametrize("heights", [(0, 2, 4, 8, 10), (0, 4, 6, 8), (0, 2, 6)], ids=["middle", "early", "of three"])
def test_a_missing_slice_is_named_with_its_neighbours(tmp_path, heights):
    write_stack(tmp_path, heights)
    [index] = np.flatnonzero(np.diff(heights) == 4)
    where = rf"1 slice\(s\) missing between slices {index} and {index + 1} of .*image_{index}, .*image_{index + 1}\)"
    with pytest.raises(DataError, match=where):
        read_series(tmp_path)


def test_uneven_spacing_is_refused(tmp_path):
    write_stack(tmp_path, heights=(0, 2, 4, 6.6, 8.6))
    with pytest.raises(DataError, match=r"uneven slice spacing between slices 2 and 3 .*: 2\.600 mm instead of 2\.000"):
        read_series(tmp_path)


def test_spacing_that_drifts_by_half_a_slice_is_refused(tmp_path):
    write_stack(tmp_path, heights=np.cumsum([0, *[2] * 8, *[2.3] * 8]).tolist())
    with pytest.raises(DataError, match="lie up to .* mm off"):
        read_series(tmp_path)


def test_two_slices_at_one_position_are_named(tmp_path):
    write_stack(tmp_path, heights=(0, 2, 2, 4))
    with pytest.raises(DataError, match=r"two slices at one position, 2\.00 mm .*image_1 and .*image_2"):
        read_series(tmp_path)


def test_an_instance_number_used_twice_is_named(tmp_path):
    write_stack(tmp_path)
    write_slice(tmp_path / "z", position=(0, 0, 8), InstanceNumber=2)
    with pytest.raises(DataError, match=r"instance number 2 twice: .*image_1 and .*z"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"pixels": np.zeros((5, 4), np.uint16)}, r"Rows is \[3.0\] in .*image_0 but \[5.0\] in .*z \(1 of 5"),
        ({"pixels": np.zeros((3, 6), np.uint16)}, "Columns is"),
        ({"PixelSpacing": [0.8, 0.75]}, "PixelSpacing is"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, "ImageOrientationPatient is"),
    ],
)
def test_a_mixed_series_names_the_attribute_and_the_odd_image(tmp_path, odd, said):
    write_stack(tmp_path)
    write_slice(tmp_path / "z", position=(0, 0, 8), **odd)
    with pytest.raises(DataError, match=f"mixed series: {said}"):
        read_series(tmp_path)


def test_a_localizer_within_the_series_is_named(tmp_path):
    write_stack(tmp_path)
    write_slice(tmp_path / "z", position=(0, 0, 8), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(DataError, match=r"1 of 5 images are localizers, .*z"):
        read_series(tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_an_image_without_its_place_is_named(tmp_path, keyword):
    write_stack(tmp_path)
    write_slice(tmp_path / "z", **{keyword: None})
    with pytest.raises(DataError, match=f"z has no usable {keyword}"):
        read_series(tmp_path)


def test_a_malformed_position_counts_as_none(tmp_path):
    path = write_slice(tmp_path / "a", position=(1.5, 2.5, 3.5))
    path.write_bytes(path.read_bytes().replace(b"1.5\\2.5\\3.5", b"1.5\\2.x\\3.5"))
    with pytest.raises(DataError, match="a has no usable ImagePositionPatient"):
        read_series(tmp_path)


def test_rows_along_columns_are_refused(tmp_path):
    write_slice(tmp_path / "a", ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
    with pytest.raises(DataError, match="not at right angles"):
        read_series(tmp_path)


def test_a_tilted_gantry_is_named(tmp_path):
    for index in range(4):
        write_slice(tmp_path / str(index), position=(0, 0.5 * index, 2 * index))
    with pytest.raises(DataError, match=r"shifted sideways by up to 1\.50 mm: the gantry was tilted"):
        read_series(tmp_path)


def test_a_single_slice_of_unknown_thickness_is_refused(tmp_path):
    write_slice(tmp_path / "a", SliceThickness=None)
    with pytest.raises(DataError, match="a is a single slice without SliceThickness"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    "odd", [{"SOPClassUID": EnhancedCTImageStorage}, {"NumberOfFrames": 2}, {"NumberOfFrames": [1, 2]}]
)
def test_an_enhanced_multiframe_image_is_refused_with_the_way_out(tmp_path, odd):
    write_slice(tmp_path / "a", **odd)
    with pytest.raises(DataError, match="a is an enhanced multi-frame image: convert it .*dcm2niix"):
        read_series(tmp_path)


def test_a_damaged_class_of_an_image_is_none(tmp_path):
    write_stack(tmp_path, SOPClassUID=["1.2", "840.10008"])  # a point that became a backslash
    stored, _ = read_series(tmp_path)
    assert stored.shape == (4, 3, 4)


def test_a_colour_picture_is_refused(tmp_path):
    write_slice(tmp_path / "a", SamplesPerPixel=3, PhotometricInterpretation="RGB")
    with pytest.raises(DataError, match="a is a colour picture"):
        read_series(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Stated by ``os.access`` alone, since permissions do not bind whoever runs tests as root."""
    write_stack(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "image_3")
    with pytest.raises(DataError, match="image_3 cannot be read"):
        read_series(tmp_path)


def test_a_file_cut_within_its_pixels_is_named(tmp_path):
    paths = write_stack(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-6])
    with pytest.raises(DataError, match="image_2 has damaged or truncated pixels"):
        read_series(tmp_path)


@pytest.mark.parametrize("kept", [140, 200, 300, 400])
def test_a_file_cut_within_its_header_is_named(tmp_path, kept):
    path = write_slice(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="a (is a damaged DICOM file|states no image size)"):
        read_series(tmp_path)


def test_a_file_without_pixels_is_named(tmp_path):
    write_stack(tmp_path)
    write_slice(tmp_path / "z", position=(0, 0, 8), PixelData=None)
    with pytest.raises(DataError, match="z has no pixels"):
        read_series(tmp_path)


def test_a_compression_that_nothing_decodes_is_named_with_the_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "is_available", property(lambda decoder: False))
    write_slice(tmp_path / "a", PixelData=encapsulate([b"\xff\xd8\xff\xd9"]), syntax=JPEGLosslessSV1)
    with pytest.raises(DataError, match="a is compressed as JPEG Lossless.*pip install pylibjpeg pylibjpeg-libjpeg"):
        read_series(tmp_path)


def test_a_compressed_series_reads_like_the_plain_one(tmp_path):
    pixels = np.random.default_rng(5).integers(0, 4000, (31, 17), dtype=np.uint16)
    path = write_slice(tmp_path / "a", pixels)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_series(tmp_path)[0][:, :, 0], pixels.T.astype(int) - 1024)


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    write_slice(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pip install 'lits-helpers\[dicom\]'"):
        read_series(tmp_path)


# Writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [np.eye(3), np.diag([-1, 1, 1]), [[0, 0, 1], [1, 0, 0], [0, 1, 0]]],
                         ids=["left to right", "right to left", "sagittal"])  # fmt: skip
def test_simpleitk_reads_the_written_voxels_where_the_affine_puts_them(tmp_path, turned):
    stored = random_volume()
    affine = AFFINE.copy()
    affine[:3, :3] = turned @ AFFINE[:3, :3]
    write_series(tmp_path, stored, affine)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    for voxel in np.ndindex(stored.shape):
        right, front, up = (affine @ [*voxel, 1])[:3]
        place = image.TransformPhysicalPointToIndex((-right, -front, up))
        assert image[place] == stored[voxel]


def test_a_written_series_reads_back_voxel_for_voxel_with_its_affine(tmp_path):
    stored = random_volume()
    kept = stored.copy()
    write_series(tmp_path, stored, AFFINE)
    read, affine = read_series(tmp_path)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, kept)
    np.testing.assert_array_equal(stored, kept)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-9)


def test_slices_written_against_the_normal_are_read_along_it_at_the_same_place(tmp_path):
    stored, affine = random_volume(), AFFINE @ np.diag([1, 1, -1, 1])
    write_series(tmp_path, stored, affine)
    read, read_affine = read_series(tmp_path)
    np.testing.assert_array_equal(read, stored[:, :, ::-1])
    np.testing.assert_allclose(read_affine @ [2, 1, 0, 1], affine @ [2, 1, 3, 1], atol=1e-9)


def test_a_ct_is_written_as_unsigned_pixels_that_rescale_to_hounsfield(tmp_path):
    write_series(tmp_path, np.full((2, 3, 1), -1000, np.int16), AFFINE, description="portal venous", patient=4)
    dataset = pydicom.dcmread(tmp_path / "slice_0000.dcm")
    assert dataset.SOPClassUID == CTImageStorage
    assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.PixelRepresentation) == (1, -1024, 0)
    assert dataset.pixel_array.tolist() == [[24, 24]] * 3
    assert (dataset.SeriesDescription, dataset.PatientID) == ("portal venous", "phantom-4")
    assert dataset.PatientName == "Synthetic^Phantom"


def test_the_same_call_writes_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_series(tmp_path / folder, random_volume(), AFFINE, description="x", patient=2)
    first, second = (sorted((tmp_path / folder).iterdir()) for folder in ("a", "b"))
    assert [path.name for path in first] == [f"slice_{index:04d}.dcm" for index in range(4)]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_series_of_a_patient_share_study_and_frame_and_nothing_else(tmp_path):
    write_series(tmp_path / "ct", random_volume(), AFFINE)
    write_series(tmp_path / "labels", random_volume() > 0, AFFINE, modality="OT", description="labels")
    write_series(tmp_path / "other", random_volume(), AFFINE, patient=1)
    ct, labels, other = (pydicom.dcmread(tmp_path / name / "slice_0001.dcm") for name in ("ct", "labels", "other"))
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert ct[keyword].value == labels[keyword].value != other[keyword].value
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
        assert len({ct[keyword].value, labels[keyword].value, other[keyword].value}) == 3


def test_labels_are_written_as_they_are_under_the_names_of_3d_ircadb(tmp_path):
    write_series(tmp_path, np.full((2, 3, 11), 255, np.uint8), AFFINE, modality="OT", file_name="image_{}")
    assert {path.name for path in tmp_path.iterdir()} == {f"image_{index}" for index in range(11)}
    dataset = pydicom.dcmread(tmp_path / "image_10")
    assert dataset.pixel_array.tolist() == [[255, 255]] * 3
    assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.Modality) == (1, 0, "OT")
