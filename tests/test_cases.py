"""Scores of cases of a few voxels, worked out by hand."""

import numpy as np
import pytest
from medpy.metric import binary

from lits_helpers.cases import burden_errors, case_scores, lesion_rows, pooled, score_cases
from lits_helpers.files import DataError

SPACING = (5.0, 0.5, 0.8)  # a voxel of 2 mm3
SHAPE = (6, 7, 9)


def labels(liver=(), tumour=()):
    """Labels of one box of liver and one of tumour, each (first, last) index of three axes."""
    volume = np.zeros(SHAPE, np.uint8)
    for value, ends in ((1, liver), (2, tumour)):
        if ends:
            volume[tuple(slice(first, last + 1) for first, last in ends)] = value
    return volume


LIVER = (1, 4), (1, 5), (1, 8)  # 4 * 5 * 8 = 160 voxels
EMPTY = labels()
FULL = np.full(SHAPE, 2, np.uint8)
TRUTH = labels(LIVER, ((2, 3), (2, 3), (2, 4)))  # a tumour of 12 voxels
ONLY_LIVER = labels(LIVER)
SHIFTED = labels((), ((2, 3), (2, 3), (3, 5)))  # tumour alone, one column on: shares 8 of 12
WITH_LIVER = labels(((1, 4), (1, 5), (1, 4)), ((2, 3), (2, 3), (3, 5)))  # half the liver


def test_overlap_of_a_shifted_tumour_is_counted_by_hand():
    scores = case_scores(TRUTH, SHIFTED, SPACING)
    assert [scores[f"tumour_{kind}_voxels"] for kind in ("truth", "predicted", "shared")] == [12, 12, 8]
    assert scores["tumour_dice"] == pytest.approx(16 / 24)
    assert scores["tumour_iou"] == pytest.approx(8 / 16)
    assert scores["tumour_voe"] == pytest.approx(8 / 16)
    assert scores["tumour_rvd"] == 0


def test_distances_of_a_shifted_tumour_are_counted_by_hand():
    """All 12 voxels of either are surface; 4 of them are 0.8 mm from the other."""
    scores = case_scores(TRUTH, SHIFTED, SPACING, tolerance_mm=0.5)
    assert scores["tumour_assd_mm"] == pytest.approx(8 * 0.8 / 24)
    assert scores["tumour_rmsd_mm"] == pytest.approx(np.sqrt(8 * 0.64 / 24))
    assert scores["tumour_msd_mm"] == scores["tumour_hd95_mm"] == pytest.approx(0.8)
    assert scores["tumour_nsd"] == pytest.approx(16 / 24)
    assert case_scores(TRUTH, SHIFTED, SPACING)["tumour_nsd"] == 1  # within 2 mm


def test_rvd_is_above_zero_where_too_much_is_predicted():
    much, little = labels((), ((2, 3), (2, 3), (2, 7))), labels((), ((2, 2), (2, 3), (2, 4)))
    assert case_scores(TRUTH, much, SPACING)["tumour_rvd"] == pytest.approx((24 - 12) / 12)
    assert case_scores(TRUTH, little, SPACING)["tumour_rvd"] == pytest.approx(-0.5)


def test_a_tumour_of_one_voxel_is_scored():
    one = labels((), ((2, 2), (2, 2), (2, 2)))
    scores = case_scores(TRUTH, one, SPACING)
    assert scores["tumour_dice"] == pytest.approx(2 / 13)
    assert (scores["recall_any"], scores["recall_half"]) == (1, 0)
    assert case_scores(one, one, SPACING)["tumour_msd_mm"] == 0


def test_tumours_belong_to_the_liver():
    scores = case_scores(TRUTH, WITH_LIVER, SPACING)
    assert scores["liver_truth_voxels"] == 160
    assert scores["liver_predicted_voxels"] == 4 * 5 * 4 + 4  # the tumour's last column is outside the half
    assert scores["liver_dice"] == pytest.approx(2 * 84 / (160 + 84))
    assert scores["liver_voe"] == pytest.approx(1 - 84 / 160)


def test_a_predictor_of_tumours_alone_gets_no_liver_scores_and_an_oracles_burden():
    scores = case_scores(TRUTH, SHIFTED, SPACING)
    named = ("dice", "iou", "voe", "rvd", "assd_mm", "rmsd_mm", "msd_mm", "hd95_mm", "nsd")
    assert np.isnan([scores[f"liver_{name}"] for name in named]).all()
    assert scores["burden_truth"] == scores["burden_predicted"] == pytest.approx(12 / 160)
    assert scores["burden_liver"] == "truth (oracle)"


def test_a_predictor_of_the_liver_is_divided_by_its_own():
    scores = case_scores(TRUTH, WITH_LIVER, SPACING)
    assert scores["burden_predicted"] == pytest.approx(12 / 84)
    assert scores["burden_liver"] == "predicted"


def test_a_liver_that_was_to_be_predicted_and_is_not_has_failed():
    scores = case_scores(TRUTH, EMPTY, SPACING, predicts_liver=True)
    assert (scores["liver_dice"], scores["liver_rvd"]) == (0, -1)
    assert np.isnan(scores["burden_predicted"]) and scores["burden_liver"] == "predicted"


def test_volumes_are_in_cubic_millimetres():
    scores = case_scores(TRUTH, SHIFTED, SPACING)
    assert (scores["tumour_truth_mm3"], scores["tumour_predicted_mm3"]) == (24, 24)
    assert scores["liver_truth_mm3"] == 320


def test_two_empty_masks_have_no_tumour_scores_and_no_false_positives():
    scores = case_scores(ONLY_LIVER, EMPTY, SPACING)
    named = ("tumour_dice", "tumour_iou", "tumour_voe", "tumour_rvd", "tumour_assd_mm", "tumour_nsd")
    assert np.isnan([scores[name] for name in (*named, "recall_any", "precision_half", "f1_any")]).all()
    assert scores["false_positive_ml"] == 0
    assert scores["clean_share"] == 1


def test_a_prediction_without_tumour_in_truth_is_dice_0_with_its_volume_beside_it():
    scores = case_scores(ONLY_LIVER, SHIFTED, SPACING)
    assert scores["tumour_dice"] == scores["precision_any"] == scores["f1_any"] == 0
    assert np.isnan([scores[name] for name in ("tumour_rvd", "tumour_assd_mm", "recall_any")]).all()
    assert scores["false_positive_ml"] == pytest.approx(12 * 2 / 1000)
    assert (scores["tumour_free_slices"], scores["clean_slices"]) == (6, 4)


def test_a_tumour_that_is_missed_is_dice_0_without_distance():
    scores = case_scores(TRUTH, EMPTY, SPACING)
    assert scores["tumour_dice"] == scores["recall_any"] == scores["f1_any"] == 0
    assert scores["tumour_rvd"] == -1
    assert np.isnan([scores[name] for name in ("tumour_hd95_mm", "precision_any", "false_positive_ml")]).all()


def test_clean_slices_are_those_without_tumour_in_either():
    predicted = labels((), ((3, 4), (2, 3), (2, 4)))  # slice 4 has no tumour; 0, 1, 5 are left alone
    scores = case_scores(TRUTH, predicted, SPACING)
    assert (scores["tumour_free_slices"], scores["clean_slices"], scores["clean_share"]) == (4, 3, 0.75)
    assert np.isnan(case_scores(FULL, FULL, SPACING)["clean_share"])


def test_a_full_volume_is_found_by_itself():
    scores = case_scores(FULL, FULL, SPACING)
    assert scores["tumour_dice"] == scores["recall_half"] == scores["burden_truth"] == 1
    assert scores["tumour_msd_mm"] == 0


def test_without_spacing_nothing_is_in_millimetres_and_the_case_is_marked():
    known, unknown = (case_scores(TRUTH, WITH_LIVER, spacing) for spacing in (SPACING, None))
    lost = {name for name, value in unknown.items() if value != value and known[name] == known[name]}
    per_mask = ("assd_mm", "rmsd_mm", "msd_mm", "hd95_mm", "nsd")
    assert lost == {
        *(f"{mask}_{name}" for mask in ("liver", "tumour") for name in per_mask),
        "tumour_truth_mm3", "tumour_predicted_mm3", "liver_truth_mm3",
    }
    assert np.isnan(case_scores(EMPTY, SHIFTED, None)["false_positive_ml"])
    assert unknown["spacing_known"] is False and known["spacing_known"] is True
    assert unknown["burden_predicted"] == known["burden_predicted"]


# The challenge's convention -------------------------------------------------------------------


def lits(truth, predicted, **options):
    return case_scores(truth, predicted, SPACING, convention="lits2017", **options)


def test_lits_gives_two_empty_masks_a_dice_of_1():
    scores = lits(ONLY_LIVER, EMPTY)
    assert (scores["tumour_dice"], scores["tumour_iou"]) == (1, 1)
    assert lits(ONLY_LIVER, SHIFTED)["tumour_dice"] == 0


def test_lits_gives_a_prediction_without_liver_a_liver_dice_of_0():
    assert lits(TRUTH, SHIFTED)["liver_dice"] == 0
    assert lits(TRUTH, WITH_LIVER)["liver_dice"] == pytest.approx(2 * 84 / (160 + 84))


def test_lits_measures_distances_over_detected_lesions_alone():
    truth, predicted = TRUTH.copy(), TRUTH.copy()
    truth[1, 1, 8] = 2  # one more lesion, missed
    predicted[4, 5, 8] = 2  # and a false one
    assert case_scores(truth, predicted, SPACING)["tumour_msd_mm"] > 5
    scores = lits(truth, predicted)
    assert scores["detected_groups"] == 1
    assert scores["tumour_msd_mm"] == scores["tumour_voe"] == scores["tumour_rvd"] == 0
    assert scores["tumour_dice"] == pytest.approx(24 / 26)  # Dice stays that of the whole case


@pytest.mark.parametrize(("convention", "connectivity"), [("standard", 1), ("lits2017", 2)])
def test_surfaces_are_by_faces_and_of_the_challenge_by_edges_too(convention, connectivity):
    size = np.abs(np.mgrid[-6:7, -6:7, -6:7]).sum(axis=0)  # octahedra: steps of which faces see half
    truth, predicted = (np.where(size <= radius, 2, 0).astype(np.uint8) for radius in (6, 5))
    scores = case_scores(truth, predicted, SPACING, convention=convention)
    masks = predicted == 2, truth == 2
    expected = binary.assd(*masks, voxelspacing=SPACING, connectivity=connectivity)
    other = binary.assd(*masks, voxelspacing=SPACING, connectivity=3 - connectivity)
    assert scores["tumour_assd_mm"] == pytest.approx(expected)
    assert expected != pytest.approx(other)


def test_lits_averages_over_detected_lesions():
    truth, predicted = EMPTY.copy(), EMPTY.copy()
    truth[1, 1, 0:4] = predicted[1, 1, 0:4] = 2  # exact
    truth[4, 1, 0:4] = predicted[4, 1, 1:4] = 2  # a voxel of four missed: IoU 3/4, RVD -1/4
    scores = lits(truth, predicted)
    assert scores["detected_groups"] == 2
    assert scores["tumour_voe"] == pytest.approx((0 + 1 / 4) / 2)
    assert scores["tumour_rvd"] == pytest.approx(-1 / 8)
    assert scores["tumour_assd_mm"] == pytest.approx((0 + 0.8 / 7) / 2)


def test_lits_without_detected_lesions_has_no_distances():
    scores = lits(TRUTH, SHIFTED)  # IoU is exactly 0.5
    assert scores["detected_groups"] == 0
    assert np.isnan([scores[name] for name in ("tumour_voe", "tumour_rvd", "tumour_assd_mm")]).all()


def test_lits_joins_lesions_by_faces_and_the_standard_by_corners_too():
    truth = EMPTY.copy()
    truth[1, 1, 1] = truth[2, 2, 2] = 2
    assert case_scores(truth, truth, SPACING)["lesions"] == 1
    assert lits(truth, truth)["lesions"] == 2


@pytest.mark.parametrize("convention", ["standard", "lits2017"])
def test_a_case_without_tumour_in_truth_does_not_stop_the_scorer(convention):
    scores = case_scores(ONLY_LIVER, SHIFTED, SPACING, convention=convention)
    assert (scores["lesions"], scores["predicted_lesions"], scores["predicted_right_half"]) == (0, 1, 0)


def test_another_convention_is_refused():
    with pytest.raises(ValueError, match="'lits2018'"):
        case_scores(TRUTH, TRUTH, SPACING, convention="lits2018")


# Tables ---------------------------------------------------------------------------------------

CASES = [
    (3, TRUTH, SHIFTED, SPACING), (5, ONLY_LIVER, EMPTY, None),
    (8, ONLY_LIVER, SHIFTED, SPACING), (9, EMPTY, EMPTY, None),
]


def test_a_table_has_a_row_a_case_in_the_order_given():
    table = score_cases(iter(CASES))
    assert table.volume.tolist() == [3, 5, 8, 9]
    assert table.spacing_known.tolist() == [True, False, True, False]
    assert table.tumour_dice.tolist() == pytest.approx([2 / 3, np.nan, 0, np.nan], nan_ok=True)


def test_pooled_scores_add_up_before_they_divide():
    scores = pooled(score_cases(CASES))
    assert scores["tumour_dice"] == pytest.approx(2 * 8 / (12 + 24))
    assert (scores["recall_any"], scores["precision_any"], scores["recall_half"]) == (1, 0.5, 0)
    assert (scores["lesions"], scores["predicted_lesions"], scores["cases"]) == (1, 2, 4)
    assert np.isnan(scores["liver_dice"])


def test_burden_errors_are_those_worked_out_by_hand():
    twice = labels((), ((2, 3), (2, 3), (2, 7)))  # 24 voxels for 12
    table = score_cases([(1, TRUTH, twice, None), (2, TRUTH, EMPTY, None), (3, EMPTY, EMPTY, None)])
    errors = burden_errors(table)
    # +12 / 160 and -12 / 160; the third has no liver.
    assert errors["rmse"] == errors["largest_absolute_error"] == pytest.approx(0.075)
    assert errors["bias"] == pytest.approx(0)
    assert (errors["cases"], errors["left_out"], errors["liver"]) == (2, 1, "truth (oracle)")


def test_the_bias_of_the_burden_is_above_zero_where_too_much_is_predicted():
    errors = burden_errors(score_cases([(1, TRUTH, WITH_LIVER, None), (2, TRUTH, TRUTH, None)]))
    assert errors["bias"] == pytest.approx((12 / 84 - 12 / 160) / 2)
    assert errors["liver"] == "predicted"


def test_predictions_with_and_without_liver_are_warned_of():
    mixed = [(1, TRUTH, WITH_LIVER, SPACING), (2, TRUTH, EMPTY, SPACING)]
    with pytest.warns(UserWarning, match=r"volumes \[2\].*predicts_liver=True"):
        score_cases(mixed)
    assert score_cases(mixed, predicts_liver=True).liver_dice[1] == 0


def test_lesion_rows_hold_both_sides_of_all_cases():
    rows = lesion_rows(CASES)
    assert rows[["volume", "side"]].to_numpy().tolist() == [[3, "truth"], [3, "predicted"], [8, "predicted"]]
    assert rows.touched.tolist() == [True, True, False]
    assert rows.volume_mm3.tolist() == [24, 24, 24]


def test_cases_without_any_lesion_give_an_empty_table_with_columns():
    rows = lesion_rows([(9, EMPTY, EMPTY, None)])
    assert len(rows) == 0 and {"volume", "side", "diameter_mm", "touched"} <= set(rows)


@pytest.mark.parametrize(
    ("truth", "predicted", "spacing", "message"),
    [
        (TRUTH, SHIFTED[:3], SPACING, r"volume 7: truth has shape \(6, 7, 9\)"),
        (TRUTH, SHIFTED == 2, SPACING, "volume 7: predicted must hold whole-number labels, got bool"),
        (TRUTH * 127, SHIFTED, SPACING, "volume 7: truth holds labels 0 to 254"),
        (TRUTH[0], SHIFTED[0], SPACING, "volume 7: truth must be a volume"),
        (TRUTH, SHIFTED, (0.0, 1.0, 1.0), "volume 7: the spacing"),
    ],
)
def test_a_case_that_cannot_be_scored_is_named(truth, predicted, spacing, message):
    with pytest.raises(DataError, match=message):
        score_cases([(7, truth, predicted, spacing)])


def test_no_cases_and_a_case_that_comes_twice_are_refused():
    with pytest.raises(DataError, match="no cases"):
        score_cases([])
    with pytest.raises(DataError, match="volume 3 comes more than once"):
        score_cases([CASES[0], CASES[0]])
