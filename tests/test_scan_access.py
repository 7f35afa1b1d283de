import os
import shutil

import numpy as np
import pytest

from lits_helpers import scan_access
from lits_helpers.drawing import Marks
from lits_helpers.files import DataError
from lits_helpers.pictures import write_image
from lits_helpers.volumes import write_nifti

SPACING = (5.0, 1.0, 1.0)


@pytest.fixture
def root(tmp_path):
    """A root with one volume of 3 slices, tumour in the last, beside something secret."""
    root = tmp_path / "root"
    labels = np.zeros((3, 32, 40), np.uint8)
    labels[:, 10:30, 2:12] = 1
    labels[2, 12:16, 4:8] = 2
    write_nifti(root / "ct" / "volume-7.nii.gz", np.where(labels > 0, 100, 0).astype(np.int16), SPACING)
    write_nifti(root / "ct" / "segmentation-7.nii.gz", labels, SPACING)
    (tmp_path / "secret").mkdir()
    shutil.copy(root / "ct" / "volume-7.nii.gz", tmp_path / "secret" / "volume-8.nii.gz")
    return root


@pytest.mark.parametrize("chosen", ["../secret", "ct/../../secret/volume-8.nii.gz", "/etc/passwd", "../root-2", "../nothing"])
def test_what_lies_outside_is_refused_whether_or_not_it_is_there(root, chosen):
    with pytest.raises(DataError, match="is not below"):
        scan_access.inside(root, chosen)


def test_a_folder_whose_name_begins_like_the_roots_is_outside(root):
    (root.parent / "root-2").mkdir()
    with pytest.raises(DataError, match="is not below"):
        scan_access.inside(root, root.parent / "root-2")


def test_links_that_leave_are_refused_and_links_that_stay_are_not(root):
    (root / "out").symlink_to(root.parent / "secret")
    (root / "out.nii.gz").symlink_to(root.parent / "secret" / "volume-8.nii.gz")
    (root / "in.nii.gz").symlink_to(root / "ct" / "volume-7.nii.gz")
    for chosen in ("out", "out/volume-8.nii.gz", "out.nii.gz"):
        with pytest.raises(DataError, match="is not below"):
            scan_access.list_scans(root, chosen)
    assert scan_access.inside(root, "in.nii.gz") == (root / "ct" / "volume-7.nii.gz").resolve()


def test_a_root_that_is_itself_a_link_is_no_reason_to_refuse(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert list(scan_access.list_scans(tmp_path / "link", "ct/volume-7.nii.gz")) == ["volume-7.nii.gz"]


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_folder_with_a_link_to_outside_is_refused(root, is_folder):
    target = root.parent / "secret" / ("" if is_folder else "volume-8.nii.gz")
    (root / "ct" / "volume-8.nii.gz").symlink_to(target)
    with pytest.raises(DataError, match="link that leads outside"):
        scan_access.list_scans(root, "ct")


def test_a_link_changed_after_listing_is_refused_when_opened(root):
    open_scan = scan_access.list_scans(root, "ct")["lits-nifti: volume 7"]
    (root / "ct" / "volume-7.nii.gz").unlink()
    (root / "ct" / "volume-7.nii.gz").symlink_to(root.parent / "secret" / "volume-8.nii.gz")
    with pytest.raises(DataError, match="is not below"):
        open_scan()


@pytest.mark.parametrize("chosen", ["nothing.nii", "a\0b", "x" * 5000])
def test_paths_that_are_none_are_named(root, chosen):
    with pytest.raises(DataError):
        scan_access.inside(root, chosen)


def test_links_in_a_circle_are_named(root):
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(DataError):
        scan_access.inside(root, "a")


def test_suggestions_are_volumes_and_folders_and_follow_no_link(root):
    write_image(root / "slices" / "slice_1.png", np.zeros((8, 8), np.uint8))
    (root / "out").symlink_to(root.parent / "secret")
    assert scan_access.suggestions(root) == [os.path.join("ct", "volume-7.nii.gz"), "slices"]


def test_a_volume_with_its_ending_in_capitals_is_suggested_itself(root):
    shutil.move(root / "ct" / "volume-7.nii.gz", root / "ct" / "VOLUME-7.NII.GZ")
    assert scan_access.suggestions(root) == [os.path.join("ct", "VOLUME-7.NII.GZ")]


# Scans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen, name", [("ct/volume-7.nii.gz", "volume-7.nii.gz"), ("ct", "lits-nifti: volume 7"), (".", "lits-nifti: volume 7")])
def test_a_volume_comes_with_the_labels_beside_it(root, chosen, name):
    scan = scan_access.list_scans(root, chosen)[name]()
    assert scan.numbers == [0, 1, 2] and scan.source.shape == (3, 32, 40)
    assert [int((labels == 2).sum()) for labels in scan.truth] == [0, 0, 16]
    assert scan.picture(2).shape == (32, 40, 3) and scan.picture(2).dtype == np.uint8
    assert scan.marks == [Marks(1.0, 1.0, True)] * 3


def test_labels_of_the_decathlon_lie_in_the_folder_beside(root):
    for folder, source in (("imagesTr", "volume-7"), ("labelsTr", "segmentation-7")):
        (root / folder).mkdir()
        shutil.copy(root / "ct" / f"{source}.nii.gz", root / folder / "liver_7.nii.gz")
    scan = scan_access.list_scans(root, "imagesTr/liver_7.nii.gz")["liver_7.nii.gz"]()
    assert (scan.truth[2] == 2).sum() == 16


def test_a_volume_of_any_name_has_no_truth(root):
    (root / "ct" / "volume-7.nii.gz").rename(root / "patient.nii.gz")
    assert scan_access.list_scans(root, "patient.nii.gz")["patient.nii.gz"]().truth is None


def test_slices_are_grouped_by_volume_with_their_masks(slice_folder):
    scans = scan_access.list_scans(slice_folder.parent, "slices")
    assert list(scans) == [f"report-slices: volume {volume}" for volume in range(4)]
    scan = scans["report-slices: volume 1"]()
    assert scan.numbers == [0, 1, 2, 3] and scan.truth[3].max() == 2 and scan.picture(0).shape == (64, 64, 3)


def test_slices_with_masks_of_an_unknown_coding_are_shown_without_and_say_so(slice_folder):
    [mask] = slice_folder.rglob("*volume-1_slice_2_mask.*")
    write_image(mask, np.full((64, 64), 7, np.uint8))
    scan = scan_access.list_scans(slice_folder.parent, "slices")["report-slices: volume 1"]()
    assert scan.truth is None and len(scan.numbers) == 4
    [note] = scan.notes
    assert note.startswith("masks left out: ") and mask.name in note


@pytest.fixture
def two_files(tmp_path):
    """A root with two slices of lits-png: 12 pixels of liver, 2 of them tumour in the second."""
    root = tmp_path / "root"
    for number in (0, 1):
        liver, tumour = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
        liver[2:5, 1:5] = 1
        tumour[3, 2:4] = number
        write_image(root / "png" / f"volume-0_{number}.png", 100 * liver)
        write_image(root / "png" / f"segmentation-0_livermask_{number}.png", liver)
        write_image(root / "png" / f"segmentation-0_lesionmask_{number}.png", tumour)
    return root


def test_masks_in_two_files_are_one_reference(two_files):
    scan = scan_access.list_scans(two_files, "png")["lits-png: volume 0"]()
    assert [np.bincount(labels.ravel()).tolist() for labels in scan.truth] == [[52, 12], [52, 10, 2]]


def test_a_liver_whose_tumour_mask_is_missing_is_no_reference(two_files):
    (two_files / "png" / "segmentation-0_lesionmask_1.png").unlink()
    assert scan_access.list_scans(two_files, "png")["lits-png: volume 0"]().truth is None


def test_a_tumour_mask_that_became_a_link_to_outside_is_refused(two_files, tmp_path):
    open_scan = scan_access.list_scans(two_files, "png")["lits-png: volume 0"]
    mask = two_files / "png" / "segmentation-0_lesionmask_1.png"
    mask.rename(tmp_path / "secret.png")
    mask.symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="is not below"):
        open_scan()


def test_pictures_of_any_name_are_one_scan_in_the_order_of_their_numbers(root):
    for number in (10, 9, 1):
        write_image(root / "pictures" / f"picture{number}.png", np.full((8, 8), number, np.uint8))
    write_image(root / "pictures" / "picture1_mask.png", np.zeros((8, 8), np.uint8))
    [scan] = scan_access.list_scans(root, "pictures").values()
    scan = scan()
    assert [int(scan.picture(place).max()) for place in range(3)] == [1, 9, 10] and scan.truth is None
    assert not any(marks.is_radiological for marks in scan.marks)


def test_a_slice_alone_is_a_scan(root):
    write_image(root / "one.png", np.zeros((8, 8), np.uint8))
    assert scan_access.list_scans(root, "one.png")["one.png"]().numbers == [0]


def test_another_kind_of_file_and_an_empty_folder_are_named(root):
    (root / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="neither NIfTI"):
        scan_access.list_scans(root, "notes.txt")
    with pytest.raises(DataError, match="no CT in it"):
        scan_access.list_scans(root, "empty")


def test_a_volume_that_claims_to_be_huge_is_not_unpacked(root, monkeypatch):
    monkeypatch.setattr(scan_access, "MOST_VOXELS", 3 * 32 * 40 - 1)
    with pytest.raises(DataError, match="3,840 voxels, at most 3,839"):
        scan_access.list_scans(root, "ct/volume-7.nii.gz")["volume-7.nii.gz"]()


def test_a_picture_that_claims_to_be_huge_is_not_unpacked(root, monkeypatch):
    write_image(root / "one.png", np.zeros((8, 9), np.uint8))
    monkeypatch.setattr("lits_helpers.pictures.MOST_PIXELS", 71)
    with pytest.raises(DataError, match="8x9 pixels"):
        scan_access.list_scans(root, "one.png")["one.png"]()


# Upload ---------------------------------------------------------------------------------------


def test_an_upload_is_kept_under_a_harmless_name(tmp_path):
    kept = scan_access.keep_upload([{"name": "../..\\etc/.a b$(x).nii", "content": memoryview(b"123")}], tmp_path)
    assert kept.parent == tmp_path and [path.name for path in kept.iterdir()] == ["a_b__x_.nii"]
    assert (kept / "a_b__x_.nii").read_bytes() == b"123"


@pytest.mark.parametrize("sizes, fits", [([1_000_000], True), ([1_000_001], False), ([600_000, 600_000], False)])
def test_uploads_over_the_limit_are_refused_and_not_written(tmp_path, monkeypatch, sizes, fits):
    monkeypatch.setattr(scan_access, "UPLOAD_MEGABYTES", 1)
    files = [{"name": f"{number}.png", "content": bytes(size)} for number, size in enumerate(sizes)]
    if fits:
        assert [path.stat().st_size for path in scan_access.keep_upload(files, tmp_path).iterdir()] == sizes
    else:
        with pytest.raises(DataError, match="at most 1 can be uploaded"):
            scan_access.keep_upload(files, tmp_path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.zip", "a.nii.exe", "a.html", "a", ""])
def test_uploads_of_another_kind_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="DICOM is read from a folder"):
        scan_access.keep_upload([{"name": "a.png", "content": b"x"}, {"name": name, "content": b"x"}], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_only_looks_like_nifti_is_named_when_opened(tmp_path):
    kept = scan_access.keep_upload([{"name": "a.nii", "content": b"no volume"}], tmp_path)
    [open_scan] = scan_access.list_scans(tmp_path, kept.name).values()
    with pytest.raises(DataError, match="not a NIfTI file"):
        open_scan()
