from dataclasses import replace
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pandas as pd
from phantom_layouts import WRITERS, write_layout
import pytest

from lits_helpers import index
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.masks import read_labels
from lits_helpers.phantom import phantom_volume
from lits_helpers.pictures import write_image
from lits_helpers.settings import load_settings


def image_of(root, volume, number, ending="jpg"):
    return root / "images" / "train_images" / f"volume-{volume}_slice_{number}.{ending}"


def mask_of(root, volume, number, ending="jpg"):
    return root / "masks" / "train_masks" / f"volume-{volume}_slice_{number}_mask.{ending}"


def test_pairs_are_found_and_sorted_by_number_not_by_text(slice_folder, tmp_path):
    for number in (10, 9):
        image = image_of(slice_folder, 0, 3).read_bytes()
        image_of(slice_folder, 0, number).write_bytes(image)
        mask_of(slice_folder, 0, number).write_bytes(mask_of(slice_folder, 0, 3).read_bytes())
    table = build_index(slice_folder, tmp_path / "out")
    assert table[table.volume == 0].slice.tolist() == [0, 1, 2, 3, 9, 10]
    assert len(table) == 18
    assert all(Path(path).is_file() for path in [*table.image_path, *table.mask_path])


def test_pairs_may_lie_in_any_folders_and_masks_be_png(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "c").mkdir(parents=True)
    write_image(tmp_path / "a" / "volume-1_slice_2.png", np.zeros((8, 8, 3), np.uint8))
    mask = np.eye(8, dtype=np.uint8)
    mask[0, 7] = 2
    cv2.imwrite(str(tmp_path / "b" / "c" / "volume-1_slice_2_mask.png"), mask)
    table = build_index(tmp_path, tmp_path / "out")
    assert (table.volume[0], table.slice[0], table.coding[0]) == (1, 2, "labels")
    assert table.liver_pixels[0] == 8 and table.small_tumours_known[0]


def test_jpeg_images_may_have_png_label_masks_beside_others_in_jpeg(slice_folder, tmp_path):
    mask_of(slice_folder, 1, 2).unlink()
    labels = np.zeros((64, 64), np.uint8)
    labels[10:20, 10:30], labels[12, 12:15] = 1, 2
    cv2.imwrite(str(mask_of(slice_folder, 1, 2, "png")), labels)
    table = build_index(slice_folder, tmp_path / "out")
    assert table.coding.value_counts().to_dict() == {"report-jpg": 15, "labels": 1}
    row = table[table.coding == "labels"].iloc[0]
    assert (row.volume, row.slice, row.diagnosis) == (1, 2, 2)
    assert (row.liver_pixels, row.tumour_pixels) == (10 * 20 - 3, 3)


def test_paths_are_absolute_where_the_root_was_relative(slice_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in ("made", "from the cache"):
        table = build_index(Path("slices"), Path("out"))
        assert table.image_path[0] == str(image_of(slice_folder, 0, 0))
        assert table.mask_path[0] == str(mask_of(slice_folder, 0, 0))


def test_hidden_files_are_none_of_the_data(slice_folder, tmp_path):
    # As a stopped write_image leaves one, and as macOS puts one beside every file of an archive.
    for name in (".writing-17-volume-0_slice_0.jpg", "._volume-0_slice_0.jpg"):
        (slice_folder / "images" / "train_images" / name).touch()
    assert len(build_index(slice_folder, tmp_path / "out")) == 16


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        build_index(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        build_index(tmp_path / "empty", tmp_path / "out")


def test_images_without_any_mask_are_for_prediction_only(slice_folder, tmp_path):
    for path in slice_folder.rglob("*_mask.jpg"):
        path.unlink()
    with pytest.raises(DataError, match="its 16 slices serve for prediction only"):
        build_index(slice_folder, tmp_path / "out")


def test_the_table_counts_what_was_drawn(slice_folder, tmp_path):
    table = build_index(slice_folder, tmp_path / "out")
    assert table.diagnosis.value_counts().to_dict() == {0: 4, 1: 6, 2: 6}
    assert (table.diagnosis[table.slice == 0] == 0).all()
    assert (table.height == 64).all() and (table.width == 64).all()
    # Discs of radius 8 in 20, drawn as in conftest.py, read back from JPEG at full quality.
    rows, columns = np.ogrid[:64, :64]
    tumour = np.hypot(rows - 32, columns - 28) < 8
    liver = (np.hypot(rows - 32, columns - 26) < 20) & ~tumour
    first = table[(table.volume == 0) & (table.slice == 2)].iloc[0]
    assert abs(first.tumour_pixels - tumour.sum()) <= 2
    assert abs(first.liver_pixels - liver.sum()) <= 4


def test_counts_stand_beside_the_reports(slice_folder, tmp_path):
    counts = index.count_diagnoses(build_index(slice_folder, tmp_path / "out"))
    assert counts.decoded.tolist() == [4, 6, 6]
    assert counts.report.tolist() == [19_777, 6_948, 2_631]
    # At 64x64 the report's checksum for empty cannot hold, so it calls empty slices liver.
    assert counts.report_rule.tolist() == [0, 10, 6]


PROBLEMS = {
    "unpaired image": lambda root: mask_of(root, 0, 1).unlink(),
    "unpaired mask": lambda root: image_of(root, 0, 1).unlink(),
    "cut mask": lambda root: mask_of(root, 0, 1).write_bytes(mask_of(root, 0, 1).read_bytes()[:200]),
    "empty image": lambda root: image_of(root, 0, 1).write_bytes(b""),
    "other size": lambda root: write_image(image_of(root, 0, 1), np.zeros((32, 64, 3), np.uint8)),
    "unknown coding": lambda root: write_image(mask_of(root, 0, 1), np.full((64, 64), 200, np.uint8)),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_problem_stops_with_the_file_or_is_left_out_with_a_warning(slice_folder, tmp_path, kind):
    PROBLEMS[kind](slice_folder)
    with pytest.raises(DataError, match="volume-0_slice_1.*\n.*skip_problems"):
        build_index(slice_folder, tmp_path / "out")
    with pytest.warns(UserWarning, match="volume-0_slice_1"):
        table = build_index(slice_folder, tmp_path / "out", skip_problems=True)
    assert len(table) == 15
    assert ((table.volume == 0) & (table.slice == 1)).sum() == 0


def test_skipping_once_does_not_silence_the_next_strict_call(slice_folder, tmp_path):
    PROBLEMS["cut mask"](slice_folder)
    with pytest.warns(UserWarning):
        build_index(slice_folder, tmp_path / "out", skip_problems=True)
    with pytest.raises(DataError, match="volume-0_slice_1_mask"):
        build_index(slice_folder, tmp_path / "out")


def test_doubled_slices_and_odd_names_are_reported_together(slice_folder, tmp_path):
    (slice_folder / "copy").mkdir()
    (slice_folder / "copy" / "volume-2_slice_2.jpg").write_bytes(image_of(slice_folder, 2, 2).read_bytes())
    (slice_folder / "images" / "train_images" / "volume_x.png").touch()
    (slice_folder / "unrelated").mkdir()
    (slice_folder / "unrelated" / "logo.png").touch()
    PROBLEMS["unpaired mask"](slice_folder)
    with pytest.raises(DataError) as caught:
        build_index(slice_folder, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith("3 problem(s)")
    assert "volume-2_slice_2.jpg: the same slice as" in message
    assert "volume_x.png: name is not like" in message and "logo.png" not in message
    assert "volume-0_slice_1_mask.jpg: no image" in message


def test_problems_of_every_kind_come_in_one_report(slice_folder, tmp_path):
    mask_of(slice_folder, 0, 1).unlink()
    image_of(slice_folder, 0, 2).unlink()
    mask_of(slice_folder, 1, 1).write_bytes(mask_of(slice_folder, 1, 1).read_bytes()[:200])
    image_of(slice_folder, 1, 2).write_bytes(b"")
    write_image(image_of(slice_folder, 2, 1), np.zeros((32, 64, 3), np.uint8))
    write_image(mask_of(slice_folder, 2, 2), np.full((64, 64), 200, np.uint8))
    image_of(slice_folder, 3, 1).with_name("volume-3_slice_one.jpg").touch()
    write_image(mask_of(slice_folder, 3, 2, "png"), np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError) as caught:
        build_index(slice_folder, tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert lines[0] == "8 problem(s) found:" and "skip_problems" in lines[-1]
    named = [
        ("volume-0_slice_1.jpg", "no mask"), ("volume-0_slice_2_mask.jpg", "no image"),
        ("volume-1_slice_1_mask.jpg", "cut short"), ("volume-1_slice_2.jpg", "empty"),
        ("volume-2_slice_1.jpg", "32x64 pixels, its mask has 64x64"),
        ("volume-2_slice_2_mask.jpg", "unknown mask coding"),
        ("volume-3_slice_one.jpg", "name is not like"), ("volume-3_slice_2_mask.png", "the same slice"),
    ]
    for name, words in named:
        assert any(name in line and words in line for line in lines), name
    with pytest.warns(UserWarning, match="8 problem"):
        assert len(build_index(slice_folder, tmp_path / "out", skip_problems=True)) == 10


def test_a_link_that_leads_nowhere_is_reported_by_its_name(slice_folder, tmp_path):
    image_of(slice_folder, 0, 1).unlink()
    image_of(slice_folder, 0, 1).symlink_to(tmp_path / "not fetched")
    with pytest.raises(DataError, match="volume-0_slice_1.jpg"):
        build_index(slice_folder, tmp_path / "out")


def test_a_file_that_can_be_read_again_is_a_problem_no_longer(slice_folder, tmp_path, monkeypatch):
    def refused(path, **options):
        raise DataError(f"{path}: cannot be read (Permission denied)")

    with monkeypatch.context() as denied, pytest.raises(DataError, match="Permission denied"):
        denied.setattr(index, "read_image", refused)
        build_index(slice_folder, tmp_path / "out")
    table = build_index(slice_folder, tmp_path / "out")
    assert table.diagnosis.value_counts().to_dict() == {0: 4, 1: 6, 2: 6}
    pd.testing.assert_frame_equal(table, build_index(slice_folder, tmp_path / "another"))


def test_a_folder_of_bad_files_alone_is_an_error_even_when_skipping(tmp_path):
    (tmp_path / "volume-0_slice_0.jpg").write_bytes(b"")
    (tmp_path / "volume-0_slice_0_mask.jpg").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(DataError, match="not one usable pair"):
        build_index(tmp_path, tmp_path / "out", skip_problems=True)


def test_the_second_call_reads_no_mask(slice_folder, tmp_path, monkeypatch):
    first = build_index(slice_folder, tmp_path / "out")
    monkeypatch.setattr(index, "classify", None)
    pd.testing.assert_frame_equal(build_index(slice_folder, tmp_path / "out"), first)


def test_a_changed_file_is_read_again(slice_folder, tmp_path):
    build_index(slice_folder, tmp_path / "out")
    mask_of(slice_folder, 0, 2).write_bytes(mask_of(slice_folder, 0, 0).read_bytes())
    table = build_index(slice_folder, tmp_path / "out")
    assert table.diagnosis.value_counts().to_dict() == {0: 5, 1: 6, 2: 5}


def test_an_added_slice_is_in_the_next_table(slice_folder, tmp_path):
    build_index(slice_folder, tmp_path / "out")
    for of_slice in (image_of, mask_of):
        of_slice(slice_folder, 9, 0).write_bytes(of_slice(slice_folder, 0, 2).read_bytes())
    table = build_index(slice_folder, tmp_path / "out")
    assert (len(table), table.volume.iloc[-1], table.diagnosis.iloc[-1]) == (17, 9, 2)


def test_a_moved_data_root_is_read_again_and_its_paths_are_the_new_ones(slice_folder, tmp_path):
    build_index(slice_folder, tmp_path / "out")
    moved = slice_folder.rename(tmp_path / "moved")
    table = build_index(moved, tmp_path / "out")
    assert table.image_path.str.startswith(str(moved)).all()


def test_the_data_root_is_only_read(slice_folder, tmp_path):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in slice_folder.rglob("*")}

    before = state()
    build_index(slice_folder, tmp_path / "out")
    assert state() == before


# Any layout -----------------------------------------------------------------------------------

LAYOUTS_WITH_MASKS = [name for name in WRITERS if name != "dicom-scans"]


@pytest.fixture(scope="module")
def patients():
    """Two synthetic patients of 64x64, one without tumour."""
    return {0: phantom_volume(10, size=64, tumours=()), 3: phantom_volume(2, size=64, tumours=("large", "medium"))}


def truth_of(patients, size=64):
    """Diagnosis and tumour pixels of each slice, in the order of the slice table."""
    planes = [plane for number in sorted(patients) for plane in patients[number].labels]
    if size != 64:
        planes = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_NEAREST_EXACT) for plane in planes]
    return [int(plane.max()) for plane in planes], [int((plane == 2).sum()) for plane in planes]


@pytest.mark.parametrize("name", LAYOUTS_WITH_MASKS)
def test_every_layout_gives_the_table_of_its_patients(patients, tmp_path, name):
    write_layout(tmp_path / "data", name, patients)
    table = build_index(tmp_path / "data", tmp_path / "out")
    diagnosis, tumour_pixels = truth_of(patients, 256 if name == "lits-png" else 64)
    assert table.volume.unique().tolist() == [0, 3]
    # Of small slices the report's JPEG masks tell less (see masks); all others tell everything.
    right = np.mean(table.diagnosis.to_numpy() == diagnosis)
    assert right == 1 if name != "report-slices" else right > 0.9
    if name not in ("report-slices", "lits-png"):
        assert table.tumour_pixels.tolist() == tumour_pixels
    assert not any((tmp_path / "data").rglob("*.csv")) or name == "lits-png"


@pytest.mark.parametrize("name", ["lits-nifti", "dicom", "3d-ircadb"])
def test_the_spacing_of_volumes_is_in_the_table(patients, tmp_path, name):
    write_layout(tmp_path / "data", name, patients)
    table = build_index(tmp_path / "data", tmp_path / "out")
    for number, patient in patients.items():
        of_volume = table.loc[table.volume == number, ["slice_mm", "row_mm", "column_mm"]].drop_duplicates()
        assert of_volume.to_numpy() == pytest.approx(np.array([patient.spacing]), rel=1e-4)


def test_slices_take_the_spacing_of_a_volume_beside_them_that_is_as_long(patients, tmp_path):
    write_layout(tmp_path / "data" / "slices", "paired-slices", patients)
    alone = build_index(tmp_path / "data", tmp_path / "out")
    assert alone[["slice_mm", "row_mm", "column_mm"]].isna().all(axis=None)
    shorter = replace(patients[3], hounsfield=patients[3].hounsfield[1:], labels=patients[3].labels[1:])
    write_layout(tmp_path / "data" / "volumes", "lits-nifti", patients | {3: shorter})
    table = build_index(tmp_path / "data", tmp_path / "out", layout="paired-slices")
    assert table.slice_mm[table.volume == 0].iloc[0] == pytest.approx(patients[0].spacing[0], rel=1e-4)
    assert table.slice_mm[table.volume == 3].isna().all()


def test_slices_of_another_size_than_the_volume_beside_them_get_no_spacing(patients, tmp_path):
    write_layout(tmp_path / "data" / "slices", "paired-slices", patients)
    for path in (tmp_path / "data" / "slices").rglob("*.png"):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), picture[: len(picture) // 2])
    write_layout(tmp_path / "data" / "volumes", "lits-nifti", patients)
    table = build_index(tmp_path / "data", tmp_path / "out", layout="paired-slices")
    assert table[["slice_mm", "row_mm", "column_mm"]].isna().all(axis=None)


def test_an_identity_affine_gives_no_spacing(patients, tmp_path):
    write_layout(tmp_path / "data", "lits-nifti", patients)
    for path in (tmp_path / "data").rglob("*-3.nii*"):
        stored = np.asarray(nibabel.load(path).dataobj).copy()  # a copy: the file is mapped, and written anew
        nibabel.save(nibabel.Nifti1Image(stored, np.diag([-1.0, -1, 1, 1])), path)
    with pytest.warns(UserWarning, match="volume 3: identity affine"):
        table = build_index(tmp_path / "data", tmp_path / "out")
    assert table.groupby("volume").row_mm.first().isna().tolist() == [False, True]


@pytest.mark.parametrize("coding", ["labels", "0/127/255", "0/128/255", "colours"])
def test_every_coding_that_tells_all_gives_the_very_labels(patients, tmp_path, coding):
    write_layout(tmp_path / "data", "paired-slices", patients, coding=coding)
    table = build_index(tmp_path / "data", tmp_path / "out")
    assert (table.diagnosis.tolist(), table.tumour_pixels.tolist()) == truth_of(patients)
    planes = [plane for number in sorted(patients) for plane in patients[number].labels]
    assert all((read_labels(path) == plane).all() for path, plane in zip(table.mask_path, planes, strict=True))
    assert table.coding.unique().tolist() == [coding] and table.small_tumours_known.all()


@pytest.mark.parametrize("coding", ["0/1", "0/255"])
def test_two_levels_are_refused_until_their_meaning_is_told(patients, tmp_path, coding):
    write_layout(tmp_path / "data", "paired-slices", patients, coding=coding)
    with pytest.raises(DataError, match="LITS_MASK_MEANING"):
        build_index(tmp_path / "data", tmp_path / "out")
    table = build_index(tmp_path / "data", tmp_path / "out", mask_meaning="liver")
    diagnosis, _ = truth_of(patients)
    assert table.diagnosis.tolist() == np.minimum(diagnosis, 1).tolist()
    assert not table.small_tumours_known.any()
    table = build_index(tmp_path / "data", tmp_path / "out", mask_meaning="tumour")
    assert set(table.diagnosis) == {0, 2}


def test_volumes_of_healthy_livers_need_no_word_about_their_masks(patients, tmp_path):
    write_layout(tmp_path / "data", "3d-ircadb", {0: patients[0]})
    assert set(build_index(tmp_path / "data", tmp_path / "out").diagnosis) == {0, 1}


def test_masks_that_are_all_empty_are_not_ambiguous(tmp_path):
    write_image(tmp_path / "data" / "volume-1_slice_2.png", np.zeros((8, 8, 3), np.uint8))
    write_image(tmp_path / "data" / "volume-1_slice_2_mask.png", np.zeros((8, 8), np.uint8))
    assert build_index(tmp_path / "data", tmp_path / "out").diagnosis.tolist() == [0]


def test_labels_are_written_once_and_the_data_is_only_read(patients, tmp_path, monkeypatch):
    write_layout(tmp_path / "data", "lits-png", patients)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    first = build_index(tmp_path / "data", tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before
    monkeypatch.setattr(index, "_write_labels", None)
    pd.testing.assert_frame_equal(build_index(tmp_path / "data", tmp_path / "out"), first)


def test_a_liver_whose_tumour_mask_is_missing_does_not_pass_for_healthy(patients, tmp_path):
    write_layout(tmp_path / "data", "lits-png", patients)
    next((tmp_path / "data").rglob("segmentation-3_lesionmask_9.png")).unlink()
    with pytest.raises(DataError, match="volume-3_9.png: no tumour mask"):
        build_index(tmp_path / "data", tmp_path / "out")
    with pytest.warns(UserWarning, match="volume-3_9.png"):
        table = build_index(tmp_path / "data", tmp_path / "out", skip_problems=True)
    assert 9 not in table.slice[table.volume == 3].tolist()


@pytest.mark.parametrize("skip_problems", [False, True])
def test_where_no_liver_mask_can_be_read_each_is_named_and_no_table_kept(tmp_path, skip_problems):
    for number in (0, 1):
        for name in (f"volume-0_{number}.png", f"segmentation-0_lesionmask_{number}.png"):
            write_image(tmp_path / "data" / name, np.zeros((8, 8), np.uint8))
        (tmp_path / "data" / f"segmentation-0_livermask_{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="(?s)livermask_0.png.*livermask_1.png.*No mask could be read: mend these"):
        build_index(tmp_path / "data", tmp_path / "out", skip_problems=skip_problems)
    assert not (tmp_path / "out" / "index").exists()


def test_a_mask_of_another_coding_is_named_and_may_be_left_out(patients, tmp_path):
    write_layout(tmp_path / "data", "paired-slices", patients, coding="0/127/255")
    odd = sorted((tmp_path / "data").rglob("*masks*/*.png"))[5]
    cv2.imwrite(str(odd), np.full((64, 64), 200, np.uint8))
    with pytest.raises(DataError, match=odd.name):
        build_index(tmp_path / "data", tmp_path / "out")
    with pytest.warns(UserWarning, match=odd.name):
        table = build_index(tmp_path / "data", tmp_path / "out", skip_problems=True)
    assert len(table) == len(truth_of(patients)[0]) - 1


def test_two_layouts_are_both_listed_and_the_user_chooses(patients, tmp_path):
    write_layout(tmp_path / "data" / "volumes", "decathlon", patients)
    write_layout(tmp_path / "data" / "slices", "report-slices", patients)
    with pytest.raises(DataError, match="(?s)decathlon.*report-slices.*LITS_LAYOUT"):
        build_index(tmp_path / "data", tmp_path / "out")
    settings = load_settings(data_root=tmp_path / "data", output_root=tmp_path / "out", layout="decathlon")
    assert index.load_slices(settings).diagnosis.tolist() == truth_of(patients)[0]


def test_one_broken_volume_does_not_stop_the_other(patients, tmp_path):
    write_layout(tmp_path / "data", "lits-nifti", patients)
    broken = next((tmp_path / "data").rglob("volume-0.nii*"))
    broken.write_bytes(broken.read_bytes()[:-3000])
    with pytest.raises(DataError, match="volume-0.nii: cut short"):
        build_index(tmp_path / "data", tmp_path / "out")
    with pytest.warns(UserWarning, match="volume-0.nii"):
        table = build_index(tmp_path / "data", tmp_path / "out", skip_problems=True)
    assert table.volume.unique().tolist() == [3]


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "images/other.jpg"])
def test_a_path_in_the_stored_table_that_is_not_below_the_root_is_refused(slice_folder, tmp_path, path):
    build_index(slice_folder, tmp_path / "out")
    [stored] = (tmp_path / "out" / "index").glob("*.csv")
    rows = pd.read_csv(stored, keep_default_na=False)
    rows.loc[3, "mask_path"] = path
    rows.to_csv(stored, index=False)
    with pytest.raises(DataError, match=f"{stored.name}: names {path}.*delete this file"):
        build_index(slice_folder, tmp_path / "out")


def test_threads_and_a_cluster_give_the_same_table(slice_folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        ours = build_index(slice_folder, tmp_path / "cluster", executor=client.get_executor())
    pd.testing.assert_frame_equal(ours, build_index(slice_folder, tmp_path / "threads"))


def test_a_circle_of_links_is_named_and_never_followed(slice_folder, tmp_path):
    (slice_folder / "images" / "again").symlink_to(slice_folder)
    with pytest.raises(DataError, match="again: a link in a circle"):
        build_index(slice_folder, tmp_path / "out")
    with pytest.warns(UserWarning, match="circle"):
        assert len(build_index(slice_folder, tmp_path / "out", skip_problems=True)) == 16


def test_slices_are_loaded_from_the_settings_root(slice_folder, tmp_path):
    settings = load_settings(data_root=slice_folder, output_root=tmp_path / "out")
    assert len(index.load_slices(settings)) == 16


@pytest.mark.realdata
def test_real_slices_are_counted(real_slices, tmp_path):
    table = build_index(real_slices, tmp_path)
    assert table.diagnosis.value_counts().to_dict() == {0: 88, 1: 777, 2: 303}
    assert table.volume.nunique() == 20 and (table.coding == "labels").all()
