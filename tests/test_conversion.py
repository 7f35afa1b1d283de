import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from lits_helpers import conversion
from lits_helpers.conversion import convert_volumes, read_case, slice_paths, write_slice_files
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.masks import read_labels
from lits_helpers.parallel import run_jobs
from lits_helpers.pictures import read_image
from lits_helpers.volumes import write_nifti
from lits_helpers.windows import three_channels


def test_slice_files_have_the_reports_names(tmp_path):
    hounsfield = np.full((2, 32, 32), 50, np.int16)
    write_slice_files(tmp_path, 17, hounsfield, np.zeros((2, 32, 32), np.uint8))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")) == [
        "images/train_images/volume-17_slice_0.jpg",
        "images/train_images/volume-17_slice_1.jpg",
        "masks/train_masks/volume-17_slice_0_mask.jpg",
        "masks/train_masks/volume-17_slice_1_mask.jpg",
    ]
    assert slice_paths(tmp_path, 17, 1, ".jpg", ".png")[1].name == "volume-17_slice_1_mask.png"


def test_slices_and_labels_must_be_as_many(tmp_path):
    with pytest.raises(ValueError, match="shorter|longer"):
        write_slice_files(tmp_path, 0, np.zeros((2, 8, 8), np.int16), np.zeros((1, 8, 8), np.uint8))


# Conversion -----------------------------------------------------------------------------------

SHAPE = (3, 40, 48)


def liver_and_noise(number):
    """HU and labels of a small volume: a liver on the viewer's left, a tumour of one pixel in it."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:, 10:30, 5:20] = 1
    labels[2, 20, 10] = 2
    noise = np.random.default_rng(number).normal(0, 9, SHAPE)
    return (np.choose(labels, (-90, 100, 50)) + noise).astype(np.int16), labels


@pytest.fixture
def cases(tmp_path):
    """Three volumes, numbered 4, 5, 6, the last without labels."""
    rows = []
    for number in (4, 5, 6):
        hounsfield, labels = liver_and_noise(number)
        paths = [tmp_path / "lits" / f"{name}-{number}.nii.gz" for name in ("volume", "segmentation")]
        write_nifti(paths[0], hounsfield, (5, 0.8, 0.8))
        if number < 6:
            write_nifti(paths[1], labels, (5, 0.8, 0.8))
        rows.append({
            "volume": number, "image_path": str(paths[0]), "image_series": "",
            "mask_path": str(paths[1]) if number < 6 else "", "mask_series": "",
        })
    return pd.DataFrame(rows)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, request):
    """Run the jobs one after the other here, but for the test that asks for processes."""
    if request.node.name != "test_processes_and_this_process_write_the_same_files":
        def one_by_one(function, jobs, **options):
            return [function(*job) for job in jobs]
        monkeypatch.setattr(conversion, "run_jobs", one_by_one)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.*g"))}


def test_each_slice_is_the_coded_hounsfield_units_and_the_very_labels(cases, tmp_path):
    convert_volumes(cases, tmp_path / "slices")
    hounsfield, labels = liver_and_noise(5)
    for number in range(3):
        image_path, mask_path = slice_paths(tmp_path / "slices", 5, number, ".png")
        assert (read_image(image_path) == three_channels(hounsfield[number])).all()
        assert (read_labels(mask_path) == labels[number]).all()


def test_the_index_reads_what_was_converted_with_tumours_of_one_pixel(cases, tmp_path):
    convert_volumes(cases[:2], tmp_path / "slices")
    table = build_index(tmp_path / "slices", tmp_path / "out")
    assert table.diagnosis.tolist() == [0, 1, 2] * 2
    assert table.tumour_pixels.tolist() == [0, 0, 1] * 2


def test_the_table_says_what_each_volume_is(cases, tmp_path):
    table = convert_volumes(cases, tmp_path / "slices")
    assert table.volume.tolist() == [4, 5, 6]
    assert (table.slices.tolist(), table.height.tolist(), table.width.tolist()) == ([3] * 3, [40] * 3, [48] * 3)
    assert table.spacing_mm[0] == pytest.approx((5, 0.8, 0.8))
    assert (table.orientation[0], table.spacing_known[0]) == ("LPS", True)


def test_a_volume_without_labels_gives_images_alone(cases, tmp_path):
    convert_volumes(cases[2:], tmp_path / "slices")
    assert len(list((tmp_path / "slices").rglob("*.png"))) == 3


def test_images_may_be_jpeg_and_masks_never_are(cases, tmp_path):
    convert_volumes(cases[:1], tmp_path / "slices", ending=".jpg", jpeg_quality=95)
    names = {path.suffix for path in (tmp_path / "slices" / "images").rglob("*.*g")}
    assert names == {".jpg"}
    assert {path.suffix for path in (tmp_path / "slices" / "masks").rglob("*.*g")} == {".png"}
    with pytest.raises(ValueError, match="gif"):
        convert_volumes(cases, tmp_path / "slices", ending=".gif")


def test_slices_count_from_the_feet_however_the_volume_is_stored(cases, tmp_path):
    stored = nibabel.load(cases.image_path[0])
    upside_down = nibabel.orientations.axcodes2ornt("RAI")
    way = nibabel.orientations.ornt_transform(nibabel.io_orientation(stored.affine), upside_down)
    nibabel.save(stored.as_reoriented(way), tmp_path / "turned.nii")
    convert_volumes(cases[2:].assign(image_path=str(tmp_path / "turned.nii")), tmp_path / "turned")
    convert_volumes(cases[:1].assign(volume=6, mask_path=""), tmp_path / "straight")
    assert contents(tmp_path / "turned") == contents(tmp_path / "straight")


def test_processes_and_this_process_write_the_same_files(cases, tmp_path, monkeypatch):
    convert_volumes(cases, tmp_path / "processes")
    monkeypatch.setattr(conversion, "run_jobs", lambda function, jobs, **_: [function(*job) for job in jobs])
    convert_volumes(cases, tmp_path / "here")
    assert contents(tmp_path / "processes") == contents(tmp_path / "here")


def test_a_dask_cluster_converts_too(cases, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(conversion, "run_jobs", run_jobs)
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        table = convert_volumes(cases, tmp_path / "slices", executor=client.get_executor())
    assert table.volume.tolist() == [4, 5, 6]
    assert len(contents(tmp_path / "slices")) == 15


# Going on -------------------------------------------------------------------------------------


def test_what_is_converted_is_not_converted_again(cases, tmp_path, monkeypatch):
    first = convert_volumes(cases, tmp_path / "slices")
    monkeypatch.setattr(conversion, "read_case", None)
    again = convert_volumes(cases, tmp_path / "slices")
    assert again.spacing_mm.map(tuple).tolist() == first.spacing_mm.map(tuple).tolist()
    assert again.slices.tolist() == [3, 3, 3]


def converted(monkeypatch):
    """The volumes that are read from now on."""
    seen = []

    def reading(case):
        seen.append(case["volume"])
        return read_case(case)

    monkeypatch.setattr(conversion, "read_case", reading)
    return seen


def test_a_stopped_conversion_goes_on_with_the_volume_it_was_at(cases, tmp_path, monkeypatch):
    convert_volumes(cases, tmp_path / "whole")
    write_image, written = conversion.write_image, []

    def interrupted(path, image, **options):
        written.append(path)
        if len(written) == 9:  # in the middle of the second volume
            raise KeyboardInterrupt
        write_image(path, image, **options)

    monkeypatch.setattr(conversion, "write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_volumes(cases, tmp_path / "slices")
    monkeypatch.setattr(conversion, "write_image", write_image)
    seen = converted(monkeypatch)
    convert_volumes(cases, tmp_path / "slices")
    assert seen == [5, 6]
    assert contents(tmp_path / "slices") == contents(tmp_path / "whole")


def test_a_volume_whose_file_changed_is_converted_again(cases, tmp_path, monkeypatch):
    convert_volumes(cases, tmp_path / "slices")
    write_nifti(cases.image_path[1], liver_and_noise(99)[0], (5, 0.8, 0.8))
    seen = converted(monkeypatch)
    convert_volumes(cases, tmp_path / "slices")
    assert seen == [5]


def test_a_shorter_volume_leaves_no_slice_of_the_longer_one_it_replaced(cases, tmp_path):
    convert_volumes(cases[:1], tmp_path / "slices")
    for path in (cases.image_path[0], cases.mask_path[0]):
        stored = nibabel.load(path)
        nibabel.save(stored.slicer[..., :2], path)
    convert_volumes(cases[:1], tmp_path / "slices")
    convert_volumes(cases[:1], tmp_path / "once")
    assert contents(tmp_path / "slices") == contents(tmp_path / "once")
    assert len(contents(tmp_path / "slices")) == 4
    convert_volumes(cases[:1].assign(mask_path=""), tmp_path / "slices", ending=".jpg")
    assert sorted(Path(name).name for name in contents(tmp_path / "slices")) == [
        "volume-4_slice_0.jpg", "volume-4_slice_1.jpg"
    ]


def test_a_volume_put_back_after_half_a_conversion_of_another_is_converted_whole(cases, tmp_path, monkeypatch):
    image = Path(cases.image_path[0])
    convert_volumes(cases[:1], tmp_path / "slices")
    expected = contents(tmp_path / "slices")
    image.rename(tmp_path / "kept.nii.gz")
    write_nifti(image, liver_and_noise(99)[0], (5, 0.8, 0.8))
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_remove_others", lambda *given: 1 / 0)  # after all slices, before the record
        with pytest.raises(ZeroDivisionError):
            convert_volumes(cases[:1], tmp_path / "slices")
    (tmp_path / "kept.nii.gz").rename(image)
    convert_volumes(cases[:1], tmp_path / "slices")
    assert contents(tmp_path / "slices") == expected


def test_a_slice_that_was_deleted_comes_back(cases, tmp_path, monkeypatch):
    convert_volumes(cases, tmp_path / "slices")
    lost = slice_paths(tmp_path / "slices", 4, 1, ".png")[1]
    lost.unlink()
    seen = converted(monkeypatch)
    convert_volumes(cases, tmp_path / "slices")
    assert seen == [4] and lost.exists()


# Bad input ------------------------------------------------------------------------------------


def broken(cases, kind):
    """Make the middle volume unusable; what its message says."""
    image, labels = cases.image_path[1], cases.mask_path[1]
    if kind == "cut":
        content = open(image, "rb").read()
        open(image, "wb").write(content[: len(content) // 2])
        return "volume-5.nii.gz: damaged"
    if kind == "missing":
        os.remove(image)
        return "volume-5.nii.gz"
    if kind == "label 3":
        write_nifti(labels, np.full(SHAPE, 3, np.uint8), (5, 0.8, 0.8))
        return "segmentation-5.nii.gz: holds label 3"
    if kind == "shape":
        write_nifti(labels, np.zeros((4, 40, 48), np.uint8), (5, 0.8, 0.8))
        return "segmentation-5.nii.gz: shape"
    if kind == "pair":
        write_nifti(image, np.full(SHAPE, -800, np.int16), (5, 0.8, 0.8))
        return "segmentation-5.nii.gz: 100%"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), image)
    return "volume-5.nii.gz: 4D"


@pytest.mark.parametrize("kind", ["cut", "missing", "label 3", "shape", "pair", "4D"])
def test_one_broken_volume_is_named_and_does_not_stop_the_others(cases, tmp_path, kind):
    message = broken(cases, kind)
    with pytest.raises(DataError, match=f"1 problem.*\n.*volume 5: .*{message}"):
        convert_volumes(cases, tmp_path / "slices")
    with pytest.warns(UserWarning, match=message):
        table = convert_volumes(cases, tmp_path / "slices", skip_problems=True)
    assert table.volume.tolist() == [4, 6]
    assert len(list((tmp_path / "slices" / "images").rglob("*.png"))) == 6


def test_nothing_is_written_where_the_disk_has_too_little_room(cases, tmp_path, monkeypatch):
    usage = conversion.require_free_space.__globals__["shutil"].disk_usage("/")
    needed = int(3 * 3 * 40 * 48 * 1.6)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=needed - 1))
    with pytest.raises(DataError, match="are needed below"):
        convert_volumes(cases, tmp_path / "slices")
    assert not (tmp_path / "slices").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=needed))
    assert len(convert_volumes(cases, tmp_path / "slices")) == 3


def test_inputs_are_left_as_they_are(cases, tmp_path):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "lits").iterdir()}
    convert_volumes(cases, tmp_path / "slices")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "lits").iterdir()} == before


def test_an_identity_affine_is_kept_in_the_record(cases, tmp_path):
    nibabel.save(nibabel.Nifti1Image(liver_and_noise(4)[0].transpose(2, 1, 0), np.eye(4)), cases.image_path[0])
    saved = nibabel.load(cases.mask_path[0])
    nibabel.save(nibabel.Nifti1Image(np.asarray(saved.dataobj), np.eye(4)), cases.mask_path[0])
    with pytest.warns(UserWarning, match="volume 4: identity affine"):
        table = convert_volumes(cases[:1], tmp_path / "slices")
    assert not table.spacing_known[0]
    with pytest.warns(UserWarning, match="volume 4: identity affine"):  # from its record
        convert_volumes(cases[:1], tmp_path / "slices")
    record = json.loads((tmp_path / "slices" / "volumes" / "volume-4.json").read_text())
    assert record["spacing_known"] is False
