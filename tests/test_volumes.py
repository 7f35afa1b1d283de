import gzip
import itertools
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK

from lits_helpers import volumes
from lits_helpers.files import DataError
from lits_helpers.phantom import phantom_volume
from lits_helpers.volumes import (
    Geometry, Volume, check_pair, read_geometry, read_label_volume, read_volume,
    write_labels, write_nifti,
)

ARRAY = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
SPACING = (5.0, 0.7, 0.8)
# All 48 ways to store a volume along the patient's axes.
ORIENTATIONS = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]


def stored_as(orientation, array=ARRAY, spacing=SPACING):
    """An array on screen as nibabel stores it in another orientation."""
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([-spacing[2], -spacing[1], spacing[0], 1]))
    way = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(orientation)
    )
    return image.as_reoriented(way)


def saved(path, data, affine=np.diag([-0.8, -0.7, 5, 1]), **header):
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_slope_inter(header.get("slope"), header.get("inter"))
    nibabel.save(image, path)
    return path


# Geometry -------------------------------------------------------------------------------------


def test_a_nifti_volume_keeps_values_spacing_and_directions(tmp_path):
    write_nifti(tmp_path / "volume-0.nii.gz", ARRAY, SPACING)
    read = nibabel.load(tmp_path / "volume-0.nii.gz")
    assert read.shape == (4, 3, 2)  # columns, rows, slices
    assert read.header.get_zooms() == pytest.approx((0.8, 0.7, 5.0))
    # Columns run to the patient's left, rows to the back (posterior), slices to the head (superior).
    assert nibabel.aff2axcodes(read.affine) == ("L", "P", "S")
    assert np.asarray(read.dataobj)[3, 1, 1] == ARRAY[1, 1, 3]
    assert read.get_data_dtype() == np.int16


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_read_to_the_same_screen(tmp_path, orientation):
    nibabel.save(stored_as(orientation), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.geometry.orientation == orientation
    assert (volume.hounsfield == ARRAY).all()
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.geometry.screen_shape == ARRAY.shape


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_go_back_voxel_by_voxel_with_the_affine_of_the_ct(tmp_path, orientation):
    nibabel.save(stored_as(orientation), tmp_path / "ct.nii")
    image = nibabel.load(tmp_path / "ct.nii")
    labels = (ARRAY % 3).astype(np.uint8)
    write_labels(tmp_path / "labels.nii.gz", labels, read_geometry(tmp_path / "ct.nii"))
    written = nibabel.load(tmp_path / "labels.nii.gz")
    assert written.shape == image.shape
    assert (written.affine == image.affine).all()
    assert (np.asarray(written.dataobj) == np.asarray(image.dataobj) % 3).all()


def test_an_oblique_affine_comes_back_exactly_and_an_independent_reader_agrees(tmp_path):
    turn = SimpleITK.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.3)
    picture = SimpleITK.GetImageFromArray(np.random.default_rng(0).integers(-900, 900, (5, 7, 6), np.int16))
    picture.SetSpacing((0.8, 0.7, 3))
    picture.SetOrigin((-100, 50, 7))
    picture.SetDirection(turn.GetMatrix())
    SimpleITK.WriteImage(picture, tmp_path / "ct.nii.gz")
    volume = read_volume(tmp_path / "ct.nii.gz")
    write_labels(tmp_path / "labels.nii.gz", (volume.hounsfield > 0).astype(np.uint8), volume.geometry)
    labels = SimpleITK.ReadImage(tmp_path / "labels.nii.gz")
    assert labels.GetSize() == picture.GetSize()
    for ours, theirs in ((labels.GetSpacing(), picture.GetSpacing()), (labels.GetOrigin(), picture.GetOrigin()),
                         (labels.GetDirection(), picture.GetDirection())):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert (SimpleITK.GetArrayFromImage(labels) == (SimpleITK.GetArrayFromImage(picture) > 0)).all()


def test_the_codes_and_units_of_the_header_are_kept_and_its_texts_are_not(tmp_path):
    image = nibabel.Nifti1Image(ARRAY, np.diag([2.0, 2, 3, 1]))
    image.set_sform(image.affine, code=4)
    image.set_qform(image.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = "somebody's name"
    nibabel.save(image, tmp_path / "ct.nii")
    write_labels(tmp_path / "l.nii", np.zeros((4, 3, 2), np.uint8), read_geometry(tmp_path / "ct.nii"))
    header = nibabel.load(tmp_path / "l.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 1)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert header["descrip"] == b""
    assert header.get_data_dtype() == np.uint8


def test_a_nifti_2_file_gets_labels_of_its_kind(tmp_path):
    nibabel.save(nibabel.Nifti2Image(ARRAY, np.diag([2.0, 2, 3, 1])), tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    write_labels(tmp_path / "l.nii", np.zeros_like(volume.hounsfield, np.uint8), volume.geometry)
    assert isinstance(nibabel.load(tmp_path / "l.nii"), nibabel.Nifti2Image)


@pytest.mark.parametrize(
    ("affine", "says_nothing"),
    [(np.eye(4), True), (np.diag([-1.0, -1, 1, 1]), True), (np.diag([1, 1, 1.5, 1]), False)],
)
def test_an_identity_affine_is_noticed(affine, says_nothing):
    assert Geometry((2, 2, 2), affine).is_identity is says_nothing


# Values ---------------------------------------------------------------------------------------


def test_slope_and_intercept_give_hounsfield_units(tmp_path):
    saved(tmp_path / "a.nii", np.array([[[0, 1000, 1024]]], np.uint16), slope=2.0, inter=-1024.0)
    assert read_volume(tmp_path / "a.nii").hounsfield.ravel().tolist() == [-1024, 976, 1024]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2"])
def test_every_type_of_voxel_becomes_whole_hounsfield_units(tmp_path, dtype):
    saved(tmp_path / "a.nii.gz", np.array([[[0, 40, 255]]]).astype(dtype))
    hounsfield = read_volume(tmp_path / "a.nii.gz").hounsfield
    assert hounsfield.ravel().tolist() == [0, 40, 255] and hounsfield.dtype == np.int16


def test_fractions_are_rounded_and_what_16_bits_cannot_hold_is_cut(tmp_path):
    saved(tmp_path / "a.nii", np.array([[[-1e6, 39.6, 1e30]]]))
    assert read_volume(tmp_path / "a.nii").hounsfield.ravel().tolist() == [-32768, 40, 32767]


def test_a_volume_of_many_slabs_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("lits_helpers.volumes._SLAB_VOXELS", 13)  # one slice at a time, with a rest
    nibabel.save(stored_as("PSL", spacing=(1, 2, 3)), tmp_path / "a.nii.gz")
    assert (read_volume(tmp_path / "a.nii.gz").hounsfield == ARRAY).all()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_reading_holds_two_bytes_a_voxel_whatever_the_file_holds(tmp_path, monkeypatch, name):
    monkeypatch.setattr("lits_helpers.volumes._SLAB_VOXELS", 2**14)
    shape = (64, 64, 300)
    saved(tmp_path / name, np.zeros(shape))  # 8 bytes a voxel
    read_volume(tmp_path / name)  # once before, for what is imported on the way
    tracemalloc.start()
    volume = read_volume(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.hounsfield.nbytes == 2 * np.prod(shape)
    assert peak < volume.hounsfield.nbytes + 2**20 + 6 * 8 * 2**14  # a buffer, and some copies of a slab


def test_one_volume_in_a_fourth_dimension_is_taken(tmp_path):
    saved(tmp_path / "a.nii", ARRAY[..., None])
    assert read_volume(tmp_path / "a.nii").hounsfield.shape == (4, 3, 2)


# Bad files ------------------------------------------------------------------------------------


def damaged(folder, kind):
    """A NIfTI file that cannot be used."""
    path = folder / ("volume-7.nii" if kind.endswith("nii") else "volume-7.nii.gz")
    noise = np.random.default_rng(1).integers(-900, 900, (16, 16, 8), np.int16)
    if kind == "4D":
        saved(path, np.zeros((4, 4, 4, 2), np.int16))
    elif kind == "NaN":
        saved(path, np.array([[[0, np.nan]]]))
    elif kind == "infinite":
        saved(path, np.array([[[0, -np.inf]]]))
    elif kind == "colour":
        saved(path, np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    elif kind == "flat affine":
        saved(path, noise)
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[280:328] = bytes(48)  # srow_x, srow_y, srow_z
        path.write_bytes(gzip.compress(content))
    elif kind != "missing":
        saved(path, noise)
    if kind.startswith("cut"):
        path.write_bytes(path.read_bytes()[:-200])
    elif kind.startswith("header cut"):
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no volume")
    elif kind == "bits flipped":
        content = bytearray(path.read_bytes())
        content[1500] ^= 255
        path.write_bytes(content)
    elif kind == "check sum":
        content = bytearray(path.read_bytes())
        content[-8] ^= 255
        path.write_bytes(content)
    return path


BAD = ("missing", "empty", "text", "cut gz", "cut nii", "header cut gz", "header cut nii", "bits flipped",
       "check sum", "4D", "NaN", "infinite", "colour", "flat affine")


@pytest.mark.parametrize("kind", BAD)
def test_a_volume_that_cannot_be_used_is_named(tmp_path, kind):
    with pytest.raises(DataError, match="volume-7.nii"):
        read_volume(damaged(tmp_path, kind))


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut gz", "bits flipped", "check sum", "4D", "NaN"])
def test_labels_that_cannot_be_used_are_named(tmp_path, kind):
    with pytest.raises(DataError, match="volume-7.nii"):
        read_label_volume(damaged(tmp_path, kind), Geometry((16, 16, 8), np.eye(4)))


def test_a_volume_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.nii", np.zeros((4, 3, 2), np.int16))
    monkeypatch.setattr(volumes, "usable_memory", lambda: 2 * 4 * 3 * 2)  # two bytes a voxel
    assert read_volume(path).hounsfield.size == 24
    monkeypatch.setattr(volumes, "usable_memory", lambda: 2 * 4 * 3 * 2 - 1)
    with pytest.raises(DataError, match="a.nii: .* GB of memory are needed"):
        read_volume(path)


def test_dicom_masks_beside_a_nifti_ct_are_refused(tmp_path):
    with pytest.raises(DataError, match="DICOM masks belong to a DICOM series"):
        read_label_volume(tmp_path, Geometry((4, 3, 2), np.eye(4)))


def test_another_format_is_refused_with_its_name(tmp_path):
    nibabel.save(nibabel.MGHImage(ARRAY.astype(np.float32), np.eye(4)), tmp_path / "a.mgz")
    with pytest.raises(DataError, match="a.mgz: MGHImage"):
        read_volume(tmp_path / "a.mgz")


# Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, 255, -1, 0.5])
def test_a_label_that_is_none_is_named_with_its_file(tmp_path, value):
    data = np.zeros((4, 3, 2))
    data[1, 1, 1] = value
    saved(tmp_path / "segmentation-3.nii", data)
    with pytest.raises(DataError, match=rf"segmentation-3.nii: holds label {value}"):
        read_label_volume(tmp_path / "segmentation-3.nii", Geometry((4, 3, 2), np.eye(4)))


def test_labels_of_another_shape_are_refused_with_both(tmp_path):
    saved(tmp_path / "segmentation-3.nii", np.zeros((4, 3, 5), np.uint8))
    with pytest.raises(DataError, match=r"segmentation-3.nii: shape \(4, 3, 5\), its CT has \(4, 3, 2\)"):
        read_label_volume(tmp_path / "segmentation-3.nii", Geometry((4, 3, 2), np.diag([2.0, 2, 2, 1])))


def test_labels_stored_in_another_orientation_come_to_the_same_voxels(tmp_path):
    labels = (ARRAY % 3).astype(np.uint8)
    nibabel.save(stored_as("PIR", labels), tmp_path / "labels.nii")
    assert (read_label_volume(tmp_path / "labels.nii", Geometry((4, 3, 2), np.diag([-1.0, -2, 3, 1]))) == labels).all()


@pytest.mark.parametrize("of", ["labels", "CT"])
def test_beside_an_identity_affine_labels_go_by_the_order_of_voxels(tmp_path, of):
    known, unknown = np.diag([-0.8, -0.7, 5, 1]), np.eye(4)
    stored = (np.arange(24).reshape(4, 3, 2) % 3).astype(np.uint8)
    saved(tmp_path / "labels.nii", stored, unknown if of == "labels" else known)
    geometry = Geometry((4, 3, 2), known if of == "labels" else unknown)
    assert (geometry.to_stored(read_label_volume(tmp_path / "labels.nii", geometry)) == stored).all()


def scan(liver_hu, liver_columns, affine=np.diag([-0.8, -0.8, 5, 1])):
    """A volume of 8x20x20 and its labels, the liver between two columns."""
    labels = np.zeros((8, 20, 20), np.uint8)
    labels[2:6, 5:15, slice(*liver_columns)] = 1
    hounsfield = np.where(labels, liver_hu, -80).astype(np.int16)
    return Volume(hounsfield, Geometry((20, 20, 8), affine)), labels


def test_labels_on_a_liver_pass_without_a_word():
    assert check_pair(*scan(100, (2, 9)), "a.nii") == []


def test_no_label_at_all_passes():
    volume, labels = scan(100, (2, 9))
    assert check_pair(volume, labels * 0, "a.nii") == []


@pytest.mark.parametrize("hu", [-700, 900])
def test_labels_on_gas_or_bone_are_another_volumes(hu):
    with pytest.raises(DataError, match="segmentation-1.nii: 100%"):
        check_pair(*scan(hu, (2, 9)), "segmentation-1.nii")


def test_a_fifth_of_strange_voxels_still_passes():
    volume, labels = scan(100, (2, 12))
    volume.hounsfield[:, :, 2:4][labels[:, :, 2:4] > 0] = 900
    assert check_pair(volume, labels, "a.nii") == []
    volume.hounsfield[3, 7, 6] = 900
    with pytest.raises(DataError, match="a.nii: 20%"):
        check_pair(volume, labels, "a.nii")


def test_a_liver_on_the_left_and_an_identity_affine_are_told():
    assert ["left" in text for text in check_pair(*scan(100, (12, 18)), "a.nii")] == [True]
    [text] = check_pair(*scan(100, (2, 9), np.eye(4)), "a.nii")
    assert "identity affine" in text


@pytest.mark.parametrize(("row", "warns"), [(18, False), (1, True)])
def test_a_spine_in_front_is_told(row, warns):
    volume, labels = scan(100, (2, 9))
    volume.hounsfield[:] = np.where(labels, 100, 20)
    volume.hounsfield[:, row, 8:12] = 700
    assert ["bone lies in front" in text for text in check_pair(volume, labels, "a.nii")] == [True] * warns


@pytest.mark.parametrize("seed", range(3))
def test_a_phantom_and_its_pairs_pass_upright_and_are_told_upside_down(seed):
    patient = phantom_volume(seed, size=64)
    geometry = Geometry(patient.labels.shape[::-1], np.diag([-1.0, -1, 5, 1]))
    assert check_pair(Volume(patient.hounsfield, geometry), patient.labels, "a.nii") == []
    turned = Volume(patient.hounsfield[:, ::-1, ::-1], geometry)
    assert len(check_pair(turned, patient.labels[:, ::-1, ::-1], "a.nii")) == 2


# Real data ------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_a_real_ct_is_read_as_an_independent_reader_reads_it(real_volume, tmp_path):
    volume = read_volume(real_volume)
    picture = SimpleITK.DICOMOrient(SimpleITK.ReadImage(real_volume), "LPS")
    assert (volume.hounsfield == SimpleITK.GetArrayFromImage(picture)).all()
    assert volume.spacing == pytest.approx(picture.GetSpacing()[::-1])
    write_labels(tmp_path / "l.nii.gz", (volume.hounsfield > 150).astype(np.uint8), volume.geometry)
    labels = SimpleITK.ReadImage(tmp_path / "l.nii.gz")
    ct = SimpleITK.ReadImage(real_volume)
    assert (labels.GetSize(), labels.GetDirection()) == (ct.GetSize(), ct.GetDirection())
    assert labels.GetOrigin() == ct.GetOrigin() and labels.GetSpacing() == ct.GetSpacing()
    assert (SimpleITK.GetArrayFromImage(labels) == (SimpleITK.GetArrayFromImage(ct) > 150)).all()
