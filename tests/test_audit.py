"""Leaks across the sides of a split are named, and a patient's volumes are kept together."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lits_helpers import audit
from lits_helpers.audit import audit_split, load_patient_split, sites, with_patients
from lits_helpers.duplicates import _SLICE_COLUMNS, _VOLUME_COLUMNS, Duplicates
from lits_helpers.files import DataError
from lits_helpers.index import build_index
from lits_helpers.phantom import write_phantom
from lits_helpers.pictures import write_image
from lits_helpers.settings import load_settings
from lits_helpers.splits import save_split, split_patients, split_slices


def as_table(splits):
    """A slice table of two slices a volume, whose sides are given."""
    volumes = np.repeat(np.arange(len(splits)), 2)
    paths = [f"volume-{v}_slice_{s}.png" for v, s in zip(volumes, [0, 1] * len(splits))]
    return pd.DataFrame({
        "image_path": paths, "mask_path": paths, "volume": volumes, "slice": [0, 1] * len(splits),
        "diagnosis": 2, "split": np.repeat(splits, 2),
    })


def known(*pairs, slices=(), files=()):
    """Duplicates as if found."""
    rows = [(a, b, 0.9, True, 0.0, 0.0) for a, b in pairs]
    slice_rows = [(*row, 0.9, 0.0, 0.0, "a.png", "b.png") for row in slices]
    return Duplicates(
        pd.DataFrame(rows, columns=_VOLUME_COLUMNS).astype({"same_patient": bool}),
        pd.DataFrame(slice_rows, columns=_SLICE_COLUMNS),
        pd.DataFrame(files, columns=["volume", "slice", "image_path", "group"]),
    )


def test_patients_are_merged_through_any_chain_of_pairs():
    table = pd.DataFrame({"volume": [9, 2, 5, 7, 5, 1]})
    assert with_patients(table, [(7, 9), (2, 5), (5, 9)]).patient.tolist() == [2, 2, 2, 2, 2, 1]
    assert with_patients(table, []).patient.tolist() == [9, 2, 5, 7, 5, 1]
    assert "patient" not in table


def test_volumes_merged_through_one_that_is_not_in_the_table_stay_merged():
    table = pd.DataFrame({"volume": [3, 8]})
    assert with_patients(table, [(3, 5), (5, 8)]).patient.nunique() == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_patient_split_of_merged_volumes_is_clean(seed):
    table = as_table(["train"] * 10)
    pairs = [(0, 7), (3, 9), (7, 8)]
    unmerged = [audit_split(split_patients(table, seed=s), known(*pairs)).leaks for s in range(3)]
    assert any(unmerged)
    split = split_patients(with_patients(table, known(*pairs)), seed=seed)
    assert not audit_split(split, known(*pairs)).leaks


def test_a_random_slice_split_leaks():
    found = audit_split(split_slices(as_table(["train"] * 10)), known((0, 1)))
    assert found.leaks and len(found.volumes) > 2
    assert "The split leaks" in str(found)


def test_without_duplicates_at_hand_the_images_are_read(tmp_path):
    root = write_phantom(tmp_path / "phantom", patients=2, size=64, seed=4, rescans=(1,))
    table = build_index(root, tmp_path / "out", layout="report-slices")
    found = audit_split(table.assign(split=table.volume.map({0: "test", 1: "train", 2: "validation"})))
    assert found.duplicate_volumes[["volume_a", "volume_b"]].values.tolist() == [[1, 2]]
    assert (found.near_duplicate_slices.split_a == "train").all() and found.leaks


def test_only_duplicates_across_sides_leak():
    table = as_table(["train", "train", "test", "validation"])
    found = audit_split(table, known((0, 1), (1, 2)))
    assert found.volumes == []
    assert found.duplicate_volumes[["volume_a", "volume_b"]].values.tolist() == [[1, 2]]
    assert not audit_split(table, known((0, 1))).leaks
    assert not audit_split(table, known((0, 17))).leaks, "volume 17 is not in this table"


def test_near_duplicate_slices_across_sides_leak_without_a_pair_of_volumes():
    table = as_table(["train", "train", "test"])
    found = audit_split(table, known(slices=[(0, 0, 1, 1), (0, 1, 2, 0)]))
    assert found.near_duplicate_slices[["volume_b", "slice_b"]].values.tolist() == [[2, 0]]
    assert found.leaks


def test_identical_files_across_sides_leak_and_the_others_are_counted():
    table = as_table(["train", "train", "test"])
    files = [(0, 0, "x", 4), (1, 0, "y", 4), (1, 1, "z", 7), (2, 0, "w", 7)]
    found = audit_split(table, known(files=files))
    assert found.identical_files.image_path.tolist() == ["z", "w"]
    assert found.identical_anywhere == 4 and found.leaks


def test_sites_are_known_by_lits_numbers_only():
    found = sites(pd.Series([27, 28, 47, 48, 130]))
    assert (found == "3D-IRCADb, Strasbourg").tolist() == [False, True, True, False, False]
    assert set(found) == {"3D-IRCADb, Strasbourg", "unknown"}


def test_slices_are_counted_by_site_and_side():
    table = as_table(["train"] * 28 + ["train", "test", "validation"])
    counts = audit_split(table, known()).sites
    assert counts.loc["3D-IRCADb, Strasbourg"].to_dict() == {"train": 2, "test": 2, "validation": 2}
    assert list(counts) == ["train", "validation", "test"]
    assert counts.loc["unknown"].to_dict() == {"train": 56, "test": 0, "validation": 0}


def test_an_audit_names_the_volumes_and_says_what_sites_rest_on():
    words = str(audit_split(as_table(["train", "test"]), known((0, 1))))
    assert "1 pair of volumes of one patient across sides: 0 and 1 (0.90)" in words
    assert "no volumes on several sides" in words
    assert "LiTS's numbering" in words
    assert "The split is clean" in str(audit_split(as_table(["train", "test"]), known()))


def test_a_table_without_a_split_is_refused():
    with pytest.raises(DataError, match="split_patients first"):
        audit_split(as_table(["train"]).drop(columns="split"), known())


def test_the_audit_is_stored_with_its_split_and_not_with_the_next(tmp_path):
    table = as_table(["train", "test", "validation"])
    files = [(0, 0, "d/x", 1), (1, 0, "d/y", 1)]
    found = audit_split(table, known((0, 1), slices=[(0, 0, 1, 1)], files=files))
    path = save_split(table, tmp_path / "split.csv", audit=found)
    stored = json.loads((tmp_path / "split_audit.json").read_text())
    assert stored["leaks"] is True
    assert stored["duplicate_volumes"][0]["sides_b"] == ["test"]
    assert [row["image_path"] for row in stored["identical_files"]] == ["x", "y"]
    assert stored["slices_by_site"]["unknown"] == {"train": 2, "test": 2, "validation": 2}
    save_split(table, path)
    assert [file.name for file in tmp_path.iterdir()] == ["split.csv"]


@pytest.fixture
def rescanned(tmp_path):
    """Settings for six synthetic patients, two of whom were scanned twice, as volumes 6 and 7."""
    root = write_phantom(tmp_path / "twice", patients=6, size=96, rescans=(1, 4))
    return load_settings(data_root=root, output_root=tmp_path / "out", layout="report-slices")


def test_a_run_keeps_scans_of_one_patient_together_without_being_told(rescanned):
    with pytest.warns(UserWarning, match="1 and 6, 4 and 7|4 and 7, 1 and 6"):
        split = load_patient_split(rescanned)
    patient = split.groupby("volume").patient.first()
    assert (patient[6], patient[7], patient[0]) == (1, 4, 0)
    assert not audit_split(split).leaks


def test_patients_are_looked_for_once_until_an_image_changes(rescanned, monkeypatch):
    with pytest.warns(UserWarning):
        first = load_patient_split(rescanned)
    with monkeypatch.context() as unread, pytest.warns(UserWarning, match="4 and 7"):
        unread.setattr(audit, "find_duplicates", None)
        pd.testing.assert_frame_equal(load_patient_split(rescanned), first)
    for volume in (6, 7):  # noise looks like nobody
        for path in first.image_path[first.volume == volume]:
            write_image(Path(path), np.random.default_rng(volume).integers(0, 255, (96, 96, 3), np.uint8))
    assert load_patient_split(rescanned).patient.nunique() == 8
