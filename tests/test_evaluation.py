import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lits_helpers import evaluation
from lits_helpers.settings import load_settings


@pytest.fixture
def spaced(table):
    """The table of four volumes of 64x64, with spacing."""
    return table.assign(slice_mm=5.0, row_mm=1.0, column_mm=1.0)


@pytest.fixture
def right(cache):
    """Probabilities that are 1 in the tumour, at the network's 32x32."""
    return (cache.labels == 2).astype(np.float32)


def test_right_predictions_score_high_in_every_way(spaced, right):
    found = evaluation.evaluate(spaced, right, threshold=0.5)
    assert found.cases.volume.tolist() == [0, 1, 2, 3]
    assert (found.cases.tumour_dice[:3] > 0.93).all() and np.isnan(found.cases.tumour_dice[3])
    assert found.lesions.kind.tolist() == ["found"] * 3 and found.lesions.volume.tolist() == [0, 1, 2]
    assert (found.cases.recall_any[:3] == 1).all() and found.cases.clean_share.tolist() == [1] * 4
    assert len(found.slices) == 16


def test_a_lesion_that_is_missed_and_one_that_is_invented_are_named(spaced, right):
    wrong = right.copy()
    wrong[(spaced.volume == 1).to_numpy()] = 0
    wrong[13, 2:5, 2:5] = 1  # volume 3, slice 1: a corner outside the liver
    found = evaluation.evaluate(spaced, wrong, threshold=0.5)
    named = found.lesions.set_index("volume").kind.to_dict()
    assert named == {0: "found", 1: "missed", 2: "found", 3: "false positive"}
    assert found.cases.false_positive_ml[3] > 0 and found.cases.clean_share[3] == 0.75


def test_a_lesion_is_named_with_the_slice_of_the_table(spaced, right):
    sparse = spaced.assign(slice=spaced.slice * 2 + 10)  # 10, 12, 14, 16
    found = evaluation.evaluate(sparse, right, threshold=0.5)
    assert found.lesions.slice.isin([14, 16]).all()


def test_slices_in_any_order_give_the_same_scores(spaced, right):
    mixed = spaced.sample(frac=1, random_state=3)
    found = evaluation.evaluate(mixed, right[mixed.index], threshold=0.5)
    assert found.cases.tumour_dice[:3].tolist() == evaluation.evaluate(spaced, right, threshold=0.5).cases.tumour_dice[:3].tolist()


def test_volumes_of_one_patient_count_once_in_the_interval(spaced, right):
    by_patient = spaced.assign(patient=spaced.volume.replace({1: 0}))
    summary = evaluation.case_summary(evaluation.evaluate(by_patient, right, threshold=0.5).cases)
    assert summary.cases[0] == 3 and summary.patients[0] == 2


def test_pooled_scores_are_sums_divided_with_an_interval_over_patients():
    cases = pd.DataFrame({
        "volume": [1, 2], "tumour_shared_voxels": [10, 0], "tumour_truth_voxels": [20, 10],
        "tumour_predicted_voxels": [20, 10], "lesions": [3, 1], "predicted_lesions": [2, 2],
        "lesions_found_any": [3, 0], "predicted_right_any": [1, 0], "lesions_found_half": [1, 0], "predicted_right_half": [1, 0],
    })
    pooled = evaluation.pooled_summary(cases).set_index("score")
    assert pooled.value.round(4).tolist() == [0.3333, 0.75, 0.25, 0.25, 0.25]  # 20/60, 3/4, 1/4, 1/4, 1/4
    dice = pooled.loc["tumour Dice, voxels pooled"]
    assert (dice.low, dice.high, dice.patients) == (0, 0.5, 2)


def test_a_page_holds_scores_pictures_and_what_it_was_made_from(spaced, right, tmp_path, slice_folder):
    settings = load_settings(data_root=slice_folder, output_root=tmp_path / "out")
    found = evaluation.evaluate(spaced, right, threshold=0.5)
    before = plt.get_fignums()
    path = evaluation.write_report(tmp_path / "out" / "r.html", settings, spaced, right, found, tested="all slices")
    page = path.read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == ["Scores", "Cases", "Lesions", "Where it fails", "Tumour burden", "What this may be set beside", "What this was made from"]
    assert page.count("<img") == 4  # Dice, found lesions, burden, the card
    assert "16 slices of 4 volumes" in page and "<dt>threshold</dt><dd>0.5</dd>" in page
    assert plt.get_fignums() == before


@pytest.mark.parametrize(("split", "leaks"), [("by patient", False), ("by slice", True)])
def test_the_card_knows_how_patients_were_split(spaced, right, tmp_path, slice_folder, split, leaks):
    settings = load_settings(data_root=slice_folder, output_root=tmp_path / "out")
    found = evaluation.evaluate(spaced, right, threshold=0.5)
    words = "all slices, slice split or not"  # the caption decides nothing
    path = evaluation.write_report(tmp_path / "r.html", settings, spaced, right, found, tested=words, split=split)
    assert ("split: by patient, not by slice (leaks)" in path.read_text(encoding="utf-8")) == leaks


def test_a_page_of_predictions_that_are_empty_is_written_too(spaced, right, tmp_path, slice_folder):
    settings = load_settings(data_root=slice_folder, output_root=tmp_path / "out")
    nothing = right * 0
    found = evaluation.evaluate(spaced, nothing)
    path = evaluation.write_report(tmp_path / "r.html", settings, spaced, nothing, found, tested="all slices")
    assert "missed" in path.read_text(encoding="utf-8")
