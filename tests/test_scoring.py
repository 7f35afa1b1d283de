"""Scores of 3x3 masks worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from lits_helpers import scoring
from lits_helpers.files import DataError
from lits_helpers.scoring import dice, iou, slice_scores
from lits_helpers.uncertainty import bootstrap_interval, ratio_of_sums

EMPTY = np.zeros((3, 3), bool)
FULL = np.ones((3, 3), bool)
TRUTH = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]], bool)
SHIFTED = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]], bool)  # shares one of two pixels
ELSEWHERE = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 1]], bool)
ONE = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected_dice", "expected_iou"),
    [
        (TRUTH, SHIFTED, 2 / 4, 1 / 3),
        (TRUTH, TRUTH, 1, 1),
        (TRUTH, ELSEWHERE, 0, 0),
        (FULL, TRUTH, 4 / 11, 2 / 9),
        (ONE, ONE, 1, 1),
        (EMPTY, ONE, 0, 0),
        (ONE, EMPTY, 0, 0),
    ],
)
def test_dice_and_iou_are_those_counted_by_hand(truth, predicted, expected_dice, expected_iou):
    assert dice(truth, predicted) == pytest.approx(expected_dice)
    assert iou(truth, predicted) == pytest.approx(expected_iou)


def test_two_empty_masks_have_no_score():
    assert np.isnan(dice(EMPTY, EMPTY)) and np.isnan(iou(EMPTY, EMPTY))


def test_scores_do_not_depend_on_the_number_of_dimensions():
    truth, predicted = np.stack([TRUTH, FULL]), np.stack([SHIFTED, EMPTY])
    assert dice(truth, predicted) == pytest.approx(2 / (11 + 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_zeros_and_ones_are_scored_like_false_and_true(dtype):
    assert dice(FULL.astype(dtype), TRUTH.astype(dtype)) == pytest.approx(4 / 11)
    assert dice(FULL.astype(dtype), TRUTH) == pytest.approx(4 / 11)


def test_masks_of_different_shape_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"truth has shape \(3, 3\), predicted \(2, 3\)"):
        dice(TRUTH, TRUTH[:2])
    with pytest.raises(ValueError, match=r"truth has shape \(2, 3\), predicted \(3, 3\)"):
        dice(TRUTH[:2], TRUTH)


@pytest.mark.parametrize("value", [2, 255, 0.4, -1])
def test_a_mask_of_labels_grey_or_probabilities_is_refused(value):
    with pytest.raises(ValueError, match=f"truth must .* got {value}"):
        dice(ONE * value, TRUTH)


def scored(*rows):
    """Slice scores of (volume, slice, truth, predicted)."""
    table = pd.DataFrame([row[:2] for row in rows], columns=["volume", "slice"])
    return slice_scores(table, (row[2:] for row in rows))


# Patient 1: one slice half right, one all missed. Patient 2: no tumour, two false pixels.
# Patient 3: no tumour, left alone. Patient 4: found exactly.
PATIENTS = (
    (1, 0, TRUTH, SHIFTED), (1, 1, ONE, EMPTY),
    (2, 0, EMPTY, ELSEWHERE), (2, 1, EMPTY, EMPTY),
    (3, 0, EMPTY, EMPTY),
    (4, 0, FULL, FULL),
)


def test_a_slice_row_holds_its_counts():
    row = scored((7, 5, TRUTH, SHIFTED)).iloc[0]
    assert (row.volume, row.slice) == (7, 5)
    assert (row.truth_pixels, row.predicted_pixels, row.intersection) == (2, 2, 1)
    assert (row.pixels, row.correct_pixels) == (9, 7)
    assert row.dice == 0.5


def test_a_slice_that_comes_twice_is_refused():
    with pytest.raises(DataError, match="volume 1 slice 0"):
        scored((1, 0, TRUTH, TRUTH), (1, 0, TRUTH, TRUTH))


@pytest.mark.parametrize(("pairs", "came"), [(1, "only 1"), (3, "more")])
def test_more_or_fewer_masks_than_rows_are_refused(pairs, came):
    table = pd.DataFrame({"volume": [1, 1], "slice": [0, 1]})
    with pytest.raises(DataError, match=f"2 slices, but {came} pairs"):
        slice_scores(table, [(TRUTH, TRUTH)] * pairs)


def test_no_slices_at_all_are_refused():
    with pytest.raises(DataError, match="no slices"):
        slice_scores(pd.DataFrame({"volume": [], "slice": []}), [])


def test_a_pair_that_cannot_be_compared_is_named():
    with pytest.raises(DataError, match="volume 3 slice 9"):
        scored((3, 9, TRUTH, TRUTH[:2]))


def test_a_patients_slices_are_pooled_before_dividing():
    patients = scoring.patient_scores(scored(*PATIENTS)).set_index("volume")
    assert patients.dice[1] == pytest.approx(2 * 1 / (3 + 2))  # the mean of its slices is 0.25
    assert patients.iou[1] == pytest.approx(1 / 4)
    assert patients.dice[2] == 0
    assert patients.false_positive_pixels.tolist() == [2 - 1, 2, 0, 0]
    assert np.isnan(patients.dice[3])
    assert patients.dice[4] == 1
    assert patients.slices.tolist() == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("words", "value", "cases", "unit", "left_out"),
    [
        # Shared 1 + 9; truth 2 + 1 + 9, predicted 2 + 2 + 9.
        ("Dice, pooled", 2 * 10 / (12 + 13), 4, "pixel", 0),
        ("IoU, pooled", 10 / (12 + 13 - 10), 4, "pixel", 0),
        ("patients without tumour in truth left out", (0.4 + 1) / 2, 2, "patient", 2),
        ("truth alone empty = 0", (0.4 + 0 + 1) / 3, 3, "patient", 1),
        ("False-positive pixels", (2 + 0) / 2, 2, "patient", 2),
        ("per slice (mean; both-empty slices left out)", (0.5 + 0 + 0 + 1) / 4, 3, "slice", 2),
        ("LiTS convention", (0.5 + 0 + 0 + 1 + 1 + 1) / 6, 4, "slice", 0),
        ("called right", (1 + 0 + 0 + 1 + 1 + 1) / 6, 4, "slice", 0),
        ("Pixel accuracy", (7 + 8 + 7 + 9 + 9 + 9) / 54, 4, "pixel", 0),
    ],
)
def test_the_summary_gives_each_score_by_its_own_rule(words, value, cases, unit, left_out):
    summary = scoring.summary(scored(*PATIENTS), repeats=200)
    (row,) = summary[summary.metric.str.contains(words, regex=False)].itertuples()
    assert row.value == pytest.approx(value)
    assert (row.cases, row.unit, row.left_out) == (cases, unit, left_out)
    assert row.low <= row.value <= row.high


def test_pixel_accuracy_comes_last():
    assert scoring.summary(scored(*PATIENTS), repeats=10).metric.iloc[-1].startswith("Pixel accuracy")


def test_a_single_pixel_is_a_tumour_in_truth_and_in_a_prediction():
    slices = scored((1, 0, ONE, EMPTY), (2, 0, EMPTY, ONE), (3, 0, ONE, ONE), (4, 0, EMPTY, ONE))
    summary = scoring.summary(slices, repeats=10).set_index("metric")
    assert summary.value.filter(like="called right").tolist() == [1 / 4]
    assert summary.left_out.filter(like="without tumour in truth left out").tolist() == [2]
    detection = scoring.report_detection(slices)
    assert (detection.correct, detection.incorrect) == (1, 3)


def test_the_intervals_are_those_of_the_repeats_and_the_seed_that_were_asked_for():
    # Twice the shared pixels of each patient, and truth and prediction added.
    parts = np.array([[2, 5], [0, 2], [0, 0], [18, 18]])
    for repeats, seed in ((20, 0), (20, 1), (30, 1)):
        row = scoring.summary(scored(*PATIENTS), repeats=repeats, seed=seed).iloc[0]
        assert (row.low, row.high) == bootstrap_interval(parts, ratio_of_sums, repeats=repeats, seed=seed)


def test_patients_are_drawn_and_not_their_slices():
    # Two patients of 50 slices each, one all right and one all wrong: drawing slices would give
    # an interval of about 0.4 to 0.6, drawing patients gives 0 to 1.
    rows = [(volume, n, ONE, ONE if volume else EMPTY) for volume in (0, 1) for n in range(50)]
    summary = scoring.summary(scored(*rows), repeats=500)
    row = summary[summary.metric.str.contains("per slice (mean; both-empty", regex=False)].iloc[0]
    assert (row.low, row.value, row.high) == (0, 0.5, 1)


def test_a_patients_two_volumes_are_scored_apart_and_drawn_together():
    # Volumes 1 and 2 are one patient: with volume 4 there are two patients, 0.4 + 0 and 1.
    table = pd.DataFrame([row[:2] for row in PATIENTS], columns=["volume", "slice"])
    table["patient"] = table.volume.replace({2: 1})
    slices = slice_scores(table, (row[2:] for row in PATIENTS))
    assert scoring.patient_scores(slices).set_index("volume").patient.to_dict() == {1: 1, 2: 1, 3: 3, 4: 4}
    summary = scoring.summary(slices, repeats=500)
    assert not summary.metric.str.contains("per patient").any()
    row = summary[summary.metric.str.contains("both-empty volumes left out", regex=False)].iloc[0]
    assert row.value == pytest.approx((0.4 + 0 + 1) / 3)
    assert (row.cases, row.unit, row.left_out) == (2, "volume", 1)
    # Only the first patient drawn: two scores of 0.4 and 0; only the second: 1.
    assert (row.low, row.high) == (pytest.approx(0.2), 1)


def test_a_patient_column_that_joins_nothing_changes_no_number():
    slices = scored(*PATIENTS)
    pd.testing.assert_frame_equal(
        scoring.summary(slices, repeats=100), scoring.summary(slices.assign(patient=slices.volume), repeats=100)
    )


def test_the_reports_count_is_detection_by_slice():
    detection = scoring.report_detection(scored(*PATIENTS))
    assert (detection.correct, detection.incorrect) == (4, 2)
    assert detection.percentage == pytest.approx(400 / 6)
    table = detection.confusion
    assert table.loc["tumour", "tumour"] == 2 and table.loc["tumour", "no tumour"] == 1
    assert table.loc["no tumour", "tumour"] == 1 and table.loc["no tumour", "no tumour"] == 2
    assert (table.index.name, table.columns.name) == ("truth", "predicted")


def test_the_report_calls_a_prediction_in_the_wrong_place_all_correct():
    wrong = scored((1, 0, TRUTH, ELSEWHERE), (2, 0, ELSEWHERE, TRUTH))
    assert scoring.report_detection(wrong).percentage == 100
    assert scoring.patient_scores(wrong).dice.tolist() == [0, 0]


def test_a_kind_of_slice_that_does_not_occur_counts_zero():
    table = scoring.report_detection(scored((1, 0, TRUTH, TRUTH))).confusion
    assert table.to_numpy().tolist() == [[1, 0], [0, 0]]
