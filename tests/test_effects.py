"""Two or three small cases of which every count is known."""

import numpy as np
import pandas as pd
import pytest

from lits_helpers.effects import Prediction, stage_scores, step_scores, step_summary
from lits_helpers.files import DataError
from lits_helpers.postprocessing import PostProcessing

SHAPE = (3, 7, 9)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)


def drawn(*parts):
    mask = EMPTY.copy()
    for part in parts:
        mask[part] = True
    return mask


LARGE, TINY, FALSE = np.s_[0, 0:2, 0:4], np.s_[2, 5, 5:7], np.s_[2, 0, 8]  # 8, 2 and 1 voxels
SPACING = (5.0, 2.0, 2.0)  # 20 mm3 a voxel, 0.02 ml


def test_each_stage_is_counted():
    truth = drawn(LARGE, TINY)
    stages = {"before": drawn(LARGE, np.s_[2, 5, 6], FALSE), "after": drawn(np.s_[0, 0, 0:4])}
    scores = stage_scores(7, truth, stages, SPACING)
    before, after = scores.iloc[0], scores.iloc[1]
    assert scores.volume.tolist() == [7, 7] and scores.step.tolist() == ["before", "after"]
    assert (before.truth_voxels, before.predicted_voxels, before.intersection) == (10, 10, 9)
    assert before.dice == pytest.approx(18 / 20) and after.dice == pytest.approx(8 / 14)
    assert (before.false_positive_voxels, before.false_positive_ml) == (1, pytest.approx(0.02))
    assert (before.lesions, before.lesions_found, before.true_lesions_lost, before.false_components) == (2, 2, 0, 1)
    assert (after.lesions, after.lesions_found, after.true_lesions_lost, after.false_components) == (2, 1, 1, 0)
    assert scores.components.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("truth", "predicted", "dice", "false_voxels"),
    [(EMPTY, EMPTY, np.nan, 0), (EMPTY, drawn(FALSE), 0, 1), (drawn(FALSE), EMPTY, 0, 0), (FULL, FULL, 1, 0)],
    ids=["both empty", "truth empty", "prediction empty", "full"],
)
def test_empty_and_full_masks_follow_the_rule(truth, predicted, dice, false_voxels):
    row = stage_scores(1, truth, {"before": predicted}, SPACING).iloc[0]
    assert row.dice == pytest.approx(dice, nan_ok=True)
    assert row.false_positive_voxels == false_voxels


def test_without_spacing_there_are_voxels_and_no_ml():
    row = stage_scores(1, EMPTY, {"before": FULL}).iloc[0]
    assert row.false_positive_voxels == 3 * 7 * 9 and np.isnan(row.false_positive_ml)


def cases():
    """One with two lesions, one without any; each with one false voxel outside the liver."""
    liver = drawn(np.s_[:, :, 0:8])
    yield Prediction(1, drawn(LARGE, TINY), drawn(LARGE, TINY, FALSE), SPACING, liver)
    yield Prediction(2, EMPTY, drawn(FALSE), SPACING, liver)


def test_steps_add_up_in_their_order():
    scores = step_scores(cases(), options=PostProcessing(minimum_mm3=41))
    first = scores[scores.volume == 1]
    assert first.step.tolist() == [
        "before", "holes filled (slices)", "inside the liver (margin 0 mm)", "components under 41 mm3 removed",
    ]
    assert first.predicted_voxels.tolist() == [11, 11, 10, 8]
    assert first.true_lesions_lost.tolist() == [0, 0, 0, 1]
    assert scores[scores.volume == 2].dice.tolist() == pytest.approx([0, 0, np.nan, np.nan], nan_ok=True)


def test_each_step_works_on_what_the_one_before_left():
    """Two of eight voxels lie in the liver: too few to stay, though eight would have been enough."""
    case = Prediction(1, EMPTY, drawn(LARGE), None, drawn(np.s_[:, 0, 0:2]))
    scores = step_scores([case], options=PostProcessing(minimum_voxels=3))
    assert scores.predicted_voxels.tolist() == [8, 8, 2, 0]


def test_only_cases_without_tumour_can_be_clean():
    missed, alarmed = Prediction(1, drawn(LARGE), EMPTY), Prediction(2, EMPTY, drawn(FALSE))
    summary = step_summary(step_scores([missed, alarmed])).iloc[0]
    assert (summary.tumour_free_cases, summary.tumour_free_cases_clean) == (1, 0)
    assert (summary.cases, summary.dice_per_case) == (1, 0)


def test_the_summary_gives_both_dices_with_their_change_and_counts_what_was_lost():
    summary = step_summary(step_scores(cases(), options=PostProcessing(minimum_mm3=41))).set_index("step")
    before, inside, last = (summary.loc[name] for name in (summary.index[0], summary.index[2], summary.index[3]))
    assert (before.cases, before.tumour_free_cases) == (1, 1)
    assert before.dice_per_case == pytest.approx(20 / 21) and before.dice_pooled == pytest.approx(20 / 22)
    assert inside.dice_per_case_change == pytest.approx(1 / 21)
    assert inside.dice_pooled_change == pytest.approx(1 - 20 / 22)
    assert last.dice_per_case == pytest.approx(16 / 18) and last.true_lesions_lost == 1
    assert [before.false_positive_ml, inside.false_positive_ml] == pytest.approx([0.04, 0])
    assert [before.tumour_free_cases_clean, inside.tumour_free_cases_clean] == [0, 1]
    assert [before.false_components, inside.false_components] == [2, 0]


def test_recall_and_precision_are_of_all_cases_together():
    lesion, other, false = np.s_[0, 0, 0:4], np.s_[0, 6, 0:2], np.s_[2, 3, 3:6]
    scores = pd.concat([
        stage_scores(1, drawn(lesion, other), {"before": drawn(lesion, other, false), "after": drawn(lesion)}),
        stage_scores(2, drawn(lesion), {"before": drawn(lesion, false), "after": drawn(lesion)}),
        stage_scores(3, EMPTY, {"before": drawn(false), "after": EMPTY}),
    ])
    before, after = (row for _, row in step_summary(scores).iterrows())
    assert (before.recall, before.precision) == (1, 0.5)  # 3 of 3 lesions, 3 of 6 components
    assert (after.recall, after.precision) == (pytest.approx(2 / 3), 1)
    # Drawn alone, the first patient has recall 1/2, the second 1; the third has nothing to be right.
    assert (after.recall_low, after.recall_high) == (0.5, 1) and before.precision_low == 0
    assert before.dice_per_case == pytest.approx((12 / 15 + 8 / 11) / 2)  # 6 of 9 voxels, 4 of 7
    assert (after.components, after.false_components) == (2, 0)


def test_nothing_predicted_has_no_precision():
    after = step_summary(stage_scores(1, FULL, {"before": FULL, "after": EMPTY})).iloc[1]
    assert np.isnan(after.precision) and (after.recall, after.dice_per_case) == (0, 0)


def test_a_case_that_becomes_clean_does_not_leave_the_mean():
    """The tumour-free case has Dice 0 before and none after: a mean over what is there would jump."""
    summary = step_summary(step_scores(cases()))
    assert summary.cases.tolist() == [1, 1, 1]
    assert summary.dice_per_case.tolist() == pytest.approx([20 / 21, 20 / 21, 1])


def test_the_interval_of_a_change_comes_from_drawing_patients():
    """Two patients, of whom one gains: draws of two give a mean change of 0, half or all of it."""
    unchanged = Prediction(1, drawn(LARGE), drawn(LARGE), None, FULL)
    gaining = Prediction(2, drawn(LARGE), drawn(LARGE, FALSE), None, drawn(np.s_[:, :, 0:8]))
    last = step_summary(step_scores([unchanged, gaining])).iloc[-1]
    assert last.dice_per_case_change == pytest.approx(1 / 34)
    assert (last.dice_per_case_change_low, last.dice_per_case_change_high) == pytest.approx((0, 1 / 17))
    assert (last.dice_pooled_change_low, last.dice_pooled_change_high) == pytest.approx((0, 1 / 17))
    assert np.isnan(last.false_positive_ml)


def test_one_patient_has_no_interval():
    row = step_summary(step_scores(list(cases())[:1])).iloc[-1]
    assert np.isnan(row.dice_per_case_change_low) and np.isnan(row.dice_pooled_change_high)


def test_no_cases_and_cases_with_different_steps_are_refused():
    with pytest.raises(DataError, match="no cases"):
        step_scores([])
    one, other = cases()
    mixed = step_scores([one, other._replace(liver=None)])
    with pytest.raises(DataError, match="inside the liver"):
        step_summary(mixed)
    with pytest.raises(DataError, match="every step once"):
        step_summary(pd.concat([step_scores([one])] * 2))
