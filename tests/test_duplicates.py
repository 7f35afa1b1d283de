"""Scans of one patient are found by their looks, and other patients are not."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lits_helpers import duplicates as module
from lits_helpers.duplicates import find_duplicates, matched_pictures
from lits_helpers.files import DataError
from lits_helpers.phantom import write_phantom
from lits_helpers.pictures import read_image, write_image

PATIENTS, RESCANS = 5, (1, 3)
TRUE_PAIRS = [(1, 5), (3, 6)]  # the re-scans lie under the next free numbers
MARGIN = 0.03  # between the threshold and any pair of these few volumes


def image_table(root):
    """What the audit needs of the slice table, by the files' names."""
    paths = sorted((root / "images" / "train_images").iterdir())
    numbers = [[int(word) for word in re.findall(r"\d+", path.name)] for path in paths]
    return pd.DataFrame({
        "image_path": [str(path) for path in paths],
        "volume": [volume for volume, _ in numbers], "slice": [number for _, number in numbers],
    }).sort_values(["volume", "slice"], ignore_index=True)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """The image table of five patients, two of them scanned twice."""
    root = tmp_path_factory.mktemp("data") / "phantom"
    return image_table(write_phantom(root, patients=PATIENTS, size=64, seed=4, rescans=RESCANS))


@pytest.fixture(scope="module")
def duplicates(phantom):
    return find_duplicates(phantom)


@pytest.fixture
def few(phantom, tmp_path):
    """Copies of two patients' slices, free to be changed."""
    table = phantom[phantom.volume.isin([0, 2])].reset_index(drop=True)
    copies = [shutil.copy(path, tmp_path) for path in table.image_path]
    return table.assign(image_path=copies)


def margins(found, true_pairs):
    """Lowest similarity of the true pairs, highest of all others."""
    pairs = list(zip(found.volumes.volume_a, found.volumes.volume_b, strict=True))
    true = np.array([pair in true_pairs for pair in pairs])
    return found.volumes.similarity[true].min(), found.volumes.similarity[~true].max()


# --- volumes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "seed", "quality"), [(64, 4, 100), (65, 17, 100), (128, 8, 80)])
def test_rescans_are_found_without_being_told_and_no_other_patients(tmp_path, size, seed, quality):
    root = write_phantom(
        tmp_path / "phantom", patients=PATIENTS, size=size, seed=seed, rescans=RESCANS, jpeg_quality=quality
    )
    found = find_duplicates(image_table(root))
    assert sorted(found.patients) == TRUE_PAIRS
    lowest, highest = margins(found, TRUE_PAIRS)
    print(f"true {lowest:.2f}, false {highest:.2f}")
    assert highest + MARGIN < module.SAME_PATIENT < lowest - MARGIN


def test_the_order_of_the_rows_does_not_matter(phantom, duplicates):
    shuffled = find_duplicates(phantom.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(shuffled.volumes, duplicates.volumes)


def test_three_scans_of_one_patient_are_three_pairs(tmp_path):
    root = write_phantom(tmp_path / "phantom", patients=3, size=64, seed=6, rescans=(0, 0))
    assert sorted(find_duplicates(image_table(root)).patients) == [(0, 3), (0, 4), (3, 4)]


def test_a_scan_numbered_from_the_other_end_is_found(phantom):
    table = phantom[phantom.volume.isin([1, 2, 5])]
    turned = table.slice.where(table.volume != 5, 100 - table.slice)
    assert find_duplicates(table.assign(slice=turned)).patients == [(1, 5)]


def test_a_table_of_one_volume_holds_no_pair(phantom):
    found = find_duplicates(phantom[phantom.volume == 0])
    assert found.patients == [] and found.volumes.empty and found.slices.empty and found.files.empty


def test_volumes_of_blank_slices_are_not_one_patient(tmp_path):
    rows = []
    for volume in range(3):
        for number in range(6):
            path = tmp_path / f"volume-{volume}_slice_{number}.png"
            write_image(path, np.full((64, 64, 3), 40 * volume, np.uint8))
            rows.append((str(path), volume, number))
    found = find_duplicates(pd.DataFrame(rows, columns=["image_path", "volume", "slice"]))
    assert found.patients == [] and found.slices.empty
    assert len(found.files) == 18


def test_a_run_needs_its_slices_in_one_order():
    straight = [(1, 11, 0.9), (2, 12, 0.8), (3, 13, 0.7), (4, 11, 0.95)]
    assert module._ordered_run(straight, 3) == 0.7
    assert module._ordered_run([(a, -b, value) for a, b, value in straight], 3) == 0.7
    assert module._ordered_run([(1, 12, 0.9), (2, 11, 0.9), (3, 13, 0.9), (4, 10, 0.9)], 4) == -1
    assert module._ordered_run([(1, 5, 0.9), (2, 5, 0.9), (3, 5, 0.9)], 2) == -1


def test_correlation_is_one_where_the_shift_is_undone():
    picture = np.random.default_rng(0).normal(0, 1, (20, 20)).astype(np.float32)
    moved = np.zeros_like(picture)
    moved[3:, :-2] = picture[:-3, 2:]  # 3 down, 2 to the left
    assert module._correlation(moved, picture, 3, -2) == pytest.approx(1, abs=1e-3)
    assert abs(module._correlation(moved, picture, -3, 2)) < 0.3


# --- slices and files -------------------------------------------------------------------------


def test_matched_slices_of_a_rescan_keep_one_distance(phantom, duplicates):
    for a, b in TRUE_PAIRS:
        of_pair = duplicates.slices.query("volume_a == @a and volume_b == @b")
        assert len(of_pair) >= 10
        assert np.ptp(of_pair.slice_b - of_pair.slice_a) <= 1


def test_neighbours_within_a_volume_are_not_reported(duplicates):
    assert (duplicates.slices.volume_a < duplicates.slices.volume_b).all()


def test_one_slice_shown_again_in_another_volume_is_a_near_duplicate(few):
    source = few[few.volume == 0].image_path.iloc[12]
    image = np.roll(read_image(source), (2, -3), (0, 1))
    target = few.index[few.volume == 2][5]
    write_image(Path(few.image_path[target]), image, jpeg_quality=90)
    found = find_duplicates(few)
    assert found.patients == []
    best = found.slices.iloc[0]
    assert (best.volume_a, best.slice_a, best.volume_b, best.slice_b) == (0, 12, 2, 5)
    assert found.files.empty


def test_files_of_identical_bytes_are_found_within_a_volume_too(few):
    shutil.copy(few.image_path[3], few.image_path[9])
    files = find_duplicates(few).files
    assert files.slice.tolist() == [3, 9] and files.volume.tolist() == [0, 0]
    assert files.group.nunique() == 1


def test_bad_images_are_named_in_one_report(few):
    for row in (1, 4):
        with open(few.image_path[row], "r+b") as file:
            file.truncate(300)
    with pytest.raises(DataError, match="2 problem"):
        find_duplicates(few)


def test_an_empty_table_is_refused(phantom):
    with pytest.raises(DataError, match="nothing to audit"):
        find_duplicates(phantom[:0])


def test_matched_pictures_lie_on_each_other(duplicates):
    first, moved, title = matched_pictures(duplicates.slices[:1])[0]
    row = duplicates.slices.iloc[0]
    unmoved = read_image(row.image_path_b, grey=True)
    centre = (slice(12, -12), slice(12, -12))

    def difference(second):
        return np.abs(first[centre].astype(int) - second[centre]).mean()

    assert first.shape == moved.shape
    assert difference(moved) < 0.7 * difference(unmoved)
    assert f"slice {row.slice_b}" in title


# --- real slices ------------------------------------------------------------------------------


@pytest.mark.realdata
def test_no_two_real_volumes_are_taken_for_one_patient(real_slices):
    found = find_duplicates(image_table(real_slices))
    assert found.patients == [] and found.slices.empty and found.files.empty
    assert found.volumes.similarity.max() < 0.5


@pytest.mark.realdata
@pytest.mark.parametrize("volume", [18, 42, 48])
def test_every_second_slice_of_a_real_volume_shifted_and_noisy_is_found(real_slices, tmp_path, volume):
    table = image_table(real_slices)
    table = table[table.volume.isin([0, 14, 22, 23, 34, 36, volume])].reset_index(drop=True)
    random = np.random.default_rng(volume)
    for row in table.index[table.volume == volume][1::2]:
        move = np.float32([[1, 0, 11.3], [0, 1, -17.6]])
        image = cv2.warpAffine(read_image(table.image_path[row]), move, (512, 512))
        image = np.clip(image + random.normal(0, 14, (512, 512, 1)), 0, 255).astype(np.uint8)
        path = tmp_path / f"volume-1000_slice_{table.slice[row]}.jpg"
        write_image(path, image, jpeg_quality=85)
        table.loc[row, ["image_path", "volume"]] = str(path), 1000
    found = find_duplicates(table)
    assert found.patients == [(volume, 1000)]
    lowest, highest = margins(found, found.patients)
    print(f"true {lowest:.2f}, false {highest:.2f}")
    assert lowest > 0.78 and highest < 0.5
