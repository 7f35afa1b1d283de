"""The phantom: plausible CT numbers, the promised tumours, and files that are whole or absent."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from scipy import ndimage

from lits_helpers import phantom
from lits_helpers.files import DataError
from lits_helpers.phantom import PHANTOM_SEED, PLAN, ensure_phantom, phantom_volume, write_phantom
from lits_helpers.settings import load_settings
from lits_helpers.windows import three_channels


def tumour_areas(patient):
    """Pixels of a 512x512 slice that tumours fill, per slice."""
    size = patient.labels.shape[1]
    return (patient.labels == 2).sum(axis=(1, 2)) * (512 / size) ** 2


@pytest.fixture(scope="module")
def patient():
    return phantom_volume(7, tumours=("medium", "small"))


@pytest.fixture(scope="module")
def tiny_set():
    """The patients that ensure_phantom writes, at a quarter of their size."""
    return [phantom_volume(1000 * PHANTOM_SEED + n, size=128, tumours=kinds) for n, kinds in enumerate(PLAN)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom", patients=2, size=128, seed=3)


@pytest.fixture
def small_settings(tmp_path, monkeypatch):
    """Settings that ask for the phantom, and a stand-in that writes its description only."""
    monkeypatch.delenv("LITS_DATA_ROOT", raising=False)
    asked = []

    def describe_only(root, **choices):
        asked.append(root)
        root.mkdir(parents=True, exist_ok=True)
        (root / phantom.DESCRIPTION).write_text(json.dumps(phantom._described(**choices)))

    monkeypatch.setattr(phantom, "write_phantom", describe_only)
    return load_settings(profile="tiny", output_root=tmp_path), asked


def test_the_same_seed_gives_the_same_patient():
    first, second = (phantom_volume(5, size=64) for _ in range(2))
    assert np.array_equal(first.hounsfield, second.hounsfield)
    assert np.array_equal(first.labels, second.labels)
    assert first.spacing == second.spacing


def test_another_seed_gives_another_patient():
    first, second = phantom_volume(5, size=64), phantom_volume(6, size=64)
    assert first.spacing != second.spacing
    assert first.labels.shape != second.labels.shape or (first.labels != second.labels).any()


def test_another_size_shows_the_same_anatomy_with_pixels_of_another_size():
    coarse, fine = (phantom_volume(5, size=size, tumours=("medium",)) for size in (64, 128))
    assert coarse.spacing[0] == fine.spacing[0]
    assert coarse.spacing[1] == pytest.approx(2 * fine.spacing[1])
    volumes = [(p.labels > 0).sum() * np.prod(p.spacing) for p in (coarse, fine)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.05)


def test_an_odd_size_works():
    assert phantom_volume(5, size=65).labels.shape[1:] == (65, 65)


def test_types_and_labels_are_those_of_lits(patient):
    assert patient.hounsfield.dtype == np.int16
    assert patient.labels.dtype == np.uint8
    assert set(np.unique(patient.labels)) == {0, 1, 2}


def test_every_tumour_is_surrounded_by_liver_or_lies_at_its_surface(tiny_set):
    for patient in tiny_set:
        lesions, number = ndimage.label(patient.labels == 2, np.ones((3, 3, 3)))
        for lesion in range(1, number + 1):
            around = ndimage.binary_dilation(lesions == lesion, np.ones((3, 3, 3)))
            assert (patient.labels[around] == 1).any()


def test_a_patient_without_tumours_can_be_asked_for():
    assert phantom_volume(5, size=64, tumours=()).labels.max() == 1


def test_liver_air_and_bone_have_plausible_hounsfield_units(patient):
    assert 60 <= patient.hounsfield[patient.labels == 1].mean() <= 140
    assert -1010 <= np.median(patient.hounsfield[:, 20:40, 240:270]) <= -985
    assert (patient.hounsfield > 200).mean() > 0.005
    assert (patient.hounsfield[:, 0, 0] == -1024).all()


def test_the_liver_lies_on_the_viewers_left(tiny_set):
    for patient in tiny_set:
        columns = np.nonzero(patient.labels)[2]
        assert columns.mean() < 64


def test_the_liver_tapers_towards_the_feet_and_slices_at_both_ends_are_empty(tiny_set):
    for patient in tiny_set:
        areas = (patient.labels > 0).sum(axis=(1, 2))
        assert areas[0] == areas[-1] == 0
        covered = areas[areas > 0]
        assert covered[0] < 0.4 * covered.max()


def test_noise_correlates_between_neighbouring_pixels(patient):
    middle = len(patient.labels) // 2
    liver = ndimage.binary_erosion(patient.labels[middle] == 1, iterations=20)
    image = patient.hounsfield[middle].astype(float)
    detail = image - ndimage.gaussian_filter(image, 8)
    both = liver[:, 1:] & liver[:, :-1]
    assert np.corrcoef(detail[:, 1:][both], detail[:, :-1][both])[0, 1] > 0.3
    assert 6 < detail[liver].std() < 25


def test_patients_differ_in_spacing_within_the_range_of_scanners(tiny_set):
    between_slices, rows, columns = np.array([p.spacing for p in tiny_set]).T
    assert len(set(rows)) == len(tiny_set)
    assert np.array_equal(rows, columns)
    assert 0.6 <= rows.min() / 4 and rows.max() / 4 <= 0.9
    assert 5 <= between_slices.min() and between_slices.max() <= 8.001


def test_the_plan_holds_patients_without_tumour(tiny_set):
    free = [not (p.labels == 2).any() for p in tiny_set]
    assert sum(free) == sum(kinds == () for kinds in PLAN) >= 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_small_tumour_stays_below_what_the_reports_coding_can_tell(seed):
    areas = tumour_areas(phantom_volume(seed, size=256, tumours=("small",)))
    assert 0 < areas.max() < 263
    assert ("small",) in PLAN


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_large_tumour_fills_over_3000_pixels_of_a_slice(seed):
    areas = tumour_areas(phantom_volume(seed, size=128, tumours=("large",)))
    assert areas.max() > 3000
    assert any("large" in kinds for kinds in PLAN)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_edge_tumour_touches_the_background(seed):
    labels = phantom_volume(seed, size=128, tumours=("edge",)).labels
    beside = ndimage.binary_dilation(labels == 2, ndimage.generate_binary_structure(3, 1))
    assert (labels[beside] == 0).any()
    assert any("edge" in kinds for kinds in PLAN)


@pytest.mark.parametrize(("kind", "sign"), [("bright", 1), ("medium", -1), ("faint", -1)])
def test_a_tumour_differs_from_the_liver_in_the_direction_of_its_kind(kind, sign):
    patient = phantom_volume(4, size=256, tumours=(kind,))
    inside = ndimage.binary_erosion(patient.labels == 2, np.ones((1, 5, 5)))
    difference = patient.hounsfield[inside].mean() - np.median(patient.hounsfield[patient.labels == 1])
    assert sign * difference > 12


def test_a_third_to_a_half_of_the_liver_slices_hold_tumour(tiny_set):
    liver = sum((p.labels > 0).any(axis=(1, 2)).sum() for p in tiny_set)
    tumour = sum((p.labels == 2).any(axis=(1, 2)).sum() for p in tiny_set)
    assert 0.3 < tumour / liver < 0.5


def test_an_unknown_kind_of_tumour_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="huge.*bright"):
        phantom_volume(5, tumours=("huge",))
    with pytest.raises(ValueError, match="got 8"):
        phantom_volume(5, size=8)


def test_a_rescan_holds_the_same_tumours_and_liver_elsewhere_in_the_picture():
    first, second = (phantom_volume(8, size=128, tumours=("large", "medium"), rescan=k) for k in (0, 1))
    assert first.spacing == pytest.approx(second.spacing)
    for label in (1, 2):
        sizes = [(patient.labels == label).sum() for patient in (first, second)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    middles = [np.argwhere(patient.labels > 0).mean(axis=0) for patient in (first, second)]
    moved = np.abs(middles[1] - middles[0])
    millimetres = first.spacing[1]
    assert 3 < moved[1] * millimetres < 11 and 3 < moved[2] * millimetres < 11
    assert 0.1 < moved[0] < 2


def test_a_rescan_has_noise_and_a_calibration_of_its_own():
    first, second, third = (phantom_volume(8, size=128, tumours=(), rescan=k) for k in (0, 1, 2))
    livers = [np.median(patient.hounsfield[patient.labels == 1]) for patient in (first, second, third)]
    assert len(set(livers)) > 1 and np.ptp(livers) <= 13
    corner = (slice(None), slice(1, 6), slice(56, 72))  # air above the body
    noise = [patient.hounsfield[corner][:12].astype(float).ravel() for patient in (first, second, third)]
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.1


def test_rescans_follow_the_first_scans_and_leave_their_files_as_they_are(tmp_path):
    def files(root):
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    plain, more = (
        files(write_phantom(tmp_path / name, patients=2, size=64, rescans=rescans))
        for name, rescans in (("plain", ()), ("more", (1,)))
    )
    description = Path(phantom.DESCRIPTION)
    assert b"rescans" not in plain[description]
    assert json.loads(more.pop(description))["rescans"] == [1]
    del plain[description]
    assert {path: content for path, content in more.items() if path in plain} == plain
    added = {path.name for path in more.keys() - plain.keys()}
    assert added and all("-2." in name or "-2_" in name for name in added)


def test_a_rescan_of_nobody_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"patients \[2\]: they go from 0 to 1"):
        write_phantom(tmp_path / "phantom", patients=2, size=64, rescans=(2,))


def test_file_names_are_the_reports(written):
    files = sorted(path.name for path in (written / "images" / "train_images").iterdir())
    masks = sorted(path.name for path in (written / "masks" / "train_masks").iterdir())
    slices = [nibabel.load(written / "volumes" / f"volume-{n}.nii.gz").shape[2] for n in (0, 1)]
    expected = [f"volume-{n}_slice_{s}" for n in (0, 1) for s in range(slices[n])]
    assert files == sorted(f"{stem}.jpg" for stem in expected)
    assert masks == sorted(f"{stem}_mask.jpg" for stem in expected)


def test_nifti_files_hold_the_volume_and_its_spacing(written):
    patient = phantom_volume(3000, size=128, tumours=PLAN[0])
    for name, array in (("volume", patient.hounsfield), ("segmentation", patient.labels)):
        stored = nibabel.load(written / "volumes" / f"{name}-0.nii.gz")
        assert np.array_equal(np.asarray(stored.dataobj).transpose(2, 1, 0), array)
        assert stored.header.get_zooms() == pytest.approx(patient.spacing[::-1])
        assert nibabel.aff2axcodes(stored.affine) == ("L", "P", "S")


def test_masks_are_the_labels_in_the_reports_coding(written):
    labels = phantom_volume(3000, size=128, tumours=PLAN[0]).labels
    for number, plane in enumerate(labels):
        path = written / "masks" / "train_masks" / f"volume-0_slice_{number}_mask.jpg"
        stored = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        assert np.abs(stored.astype(int) - three_channels(plane)).mean() < 2


def test_the_description_says_synthetic_and_records_seed_and_version(written):
    text = (written / phantom.DESCRIPTION).read_text()
    assert "Synthetic" in text
    assert '"seed": 3' in text
    assert f'"version": {phantom.PHANTOM_VERSION}' in text


def test_an_error_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise DataError("the disk broke")

    monkeypatch.setattr(phantom, "write_slice_files", fails)
    with pytest.raises(DataError, match="the disk broke"):
        write_phantom(tmp_path / "phantom", patients=1, size=64)
    assert list(tmp_path.iterdir()) == []


def test_an_older_phantom_is_replaced_as_a_whole(tmp_path):
    root = tmp_path / "phantom"
    write_phantom(root, patients=1, size=64, seed=1)
    (root / "left_over").touch()
    write_phantom(root, patients=1, size=64, seed=2)
    assert not (root / "left_over").exists()
    assert list(tmp_path.iterdir()) == [root]


def test_whoever_finishes_second_keeps_what_is_there(tmp_path):
    root = tmp_path / "phantom"
    write_phantom(root, patients=1, size=64)
    (root / "of_the_first").touch()
    write_phantom(root, patients=1, size=64)
    assert (root / "of_the_first").exists()
    assert list(tmp_path.iterdir()) == [root]


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DataError, match="no phantom"):
        write_phantom(tmp_path, patients=1, size=64)
    assert (tmp_path / "thesis.txt").exists()


def test_ensure_phantom_writes_once(small_settings):
    settings, asked = small_settings
    assert ensure_phantom(settings) == ensure_phantom(settings) == settings.data_root
    assert asked == [settings.data_root]


def test_ensure_phantom_rewrites_one_of_another_version(small_settings, monkeypatch):
    settings, asked = small_settings
    ensure_phantom(settings)
    monkeypatch.setattr(phantom, "PHANTOM_VERSION", phantom.PHANTOM_VERSION + 1)
    ensure_phantom(settings)
    assert len(asked) == 2


@pytest.mark.parametrize("source", ["folder", "kaggle"])
def test_ensure_phantom_leaves_real_data_alone(small_settings, source):
    settings, asked = small_settings
    real = replace(settings, data_source=source)
    assert ensure_phantom(real) == real.data_root
    assert asked == []
    assert not real.data_root.exists()
