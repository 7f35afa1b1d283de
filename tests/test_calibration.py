import numpy as np
import pandas as pd
import pytest

from lits_helpers import calibration
from lits_helpers.files import DataError


# Uncertainty ----------------------------------------------------------------------------------


def test_entropy_is_one_bit_at_a_half_and_nothing_at_0_and_1():
    # 1/4: -(1/4)(-2) - (3/4) log2(3/4) = 0.8113.
    found = calibration.binary_entropy(np.array([0, 0.25, 0.5, 0.75, 1]))
    assert found == pytest.approx([0, 0.8113, 1, 0.8113, 0], abs=1e-4)


def test_two_sure_answers_that_contradict_are_all_disagreement():
    found = calibration.predictive_uncertainty(np.array([[0.0], [1.0]]))
    assert [found.mean[0], found.entropy[0], found.variance[0], found.mutual_information[0]] == [0.5, 1, 0.25, 1]


def test_two_doubting_answers_that_agree_are_no_disagreement():
    found = calibration.predictive_uncertainty(np.array([[0.5], [0.5]]))
    assert [found.mean[0], found.entropy[0], found.variance[0], found.mutual_information[0]] == [0.5, 1, 0, 0]


def test_a_single_answer_has_entropy_and_no_variance():
    found = calibration.predictive_uncertainty(np.full((1, 2, 3, 5), 0.25))
    assert found.entropy.shape == (2, 3, 5) and found.entropy.dtype == np.float32
    assert found.entropy == pytest.approx(0.8113, abs=1e-4) and not found.variance.any()


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="1.2"):
        calibration.predictive_uncertainty(np.array([[1.2]]))
    with pytest.raises(ValueError, match="-0.5"):
        calibration.calibration_counts(np.full((1, 1, 1), -0.5), np.zeros((1, 1, 1)), [1])


# Calibration ----------------------------------------------------------------------------------


@pytest.fixture
def counts():
    """Two patients, a slice of 2 x 4 each, four bins of a quarter.

    Patient 7: five pixels of 0.1 without tumour, two of 0.6 of which one is tumour, one of 1, tumour.
    Patient 3: eight pixels of 0.9, of which six are tumour.
    """
    probabilities = np.array([[[0.1, 0.1, 0.1, 0.1], [0.1, 0.6, 0.6, 1]], [[0.9] * 4, [0.9] * 4]])
    truth = np.array([[[0, 0, 0, 0], [0, 0, 1, 1]], [[1, 1, 1, 1], [1, 1, 0, 0]]])
    return calibration.calibration_counts(probabilities, truth, [7, 3], bins=4)


def test_pixels_are_counted_by_patient_and_bin_with_empty_bins_kept(counts):
    found = counts.set_index(["patient", "bin"])
    assert found.pixels.tolist() == [0, 0, 0, 8, 5, 0, 2, 1]
    assert found.tumour_pixels.tolist() == [0, 0, 0, 6, 0, 0, 1, 1]
    assert found.loc[(7, 2), "probability_sum"] == pytest.approx(1.2)
    assert found.loc[(7, 3), ["low", "high"]].tolist() == [0.75, 1]


def test_the_reliability_table_says_what_was_said_and_what_was_so(counts):
    found = calibration.reliability(counts)
    assert found.pixels.tolist() == [5, 0, 2, 9] and found.patients.tolist() == [1, 0, 1, 2]
    assert found.probability.tolist() == pytest.approx([0.1, np.nan, 0.6, 8.2 / 9], nan_ok=True)
    assert found.tumour_share.tolist() == pytest.approx([0, np.nan, 0.5, 7 / 9], nan_ok=True)


def test_the_interval_of_a_bin_draws_patients(counts):
    last = calibration.reliability(counts).iloc[-1]
    # Both patients, or one of them twice: 7 of 9, 6 of 8 or 1 of 1.
    assert (last.tumour_share_low, last.tumour_share_high) == pytest.approx((0.75, 1))


def test_the_calibration_error_weighs_gaps_by_pixels(counts):
    found = calibration.expected_calibration_error(counts)
    # Gaps 0.1 (5 pixels), 0.1 (2) and (8.2 - 7) / 9 (9): (0.5 + 0.2 + 1.2) / 16.
    assert found.value == pytest.approx(1.9 / 16)
    assert (found.bins, found.pixels, found.patients) == (4, 16, 2)
    # Patient 7 alone: (0.5 + 0.2 + 0) / 8; patient 3 alone: (7.2 - 6) / 8.
    assert (found.low, found.high) == pytest.approx((0.7 / 8, 1.2 / 8))


def test_probabilities_that_keep_their_word_have_no_error():
    truth = np.array([[[1, 0, 0, 0]]])
    counts = calibration.calibration_counts(np.full((1, 1, 4), 0.25), truth, ["a"])
    assert calibration.expected_calibration_error(counts).value == pytest.approx(0)


def test_one_patient_has_no_interval():
    counts = calibration.calibration_counts(np.full((2, 1, 1), 0.5), np.ones((2, 1, 1)), ["a", "a"])
    found = calibration.expected_calibration_error(counts)
    assert found.value == 0.5 and found.patients == 1 and np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize("inside", [np.array([True, False]), np.array([[[True, True, False]], [[False] * 3]])])
def test_only_what_is_inside_counts(inside):
    probabilities = np.array([[[0.9, 0.9, 0.9]], [[0.1, 0.1, 0.1]]])
    counts = calibration.calibration_counts(probabilities, probabilities > 0.5, [1, 2], inside=inside)
    assert counts.pixels.sum() == (3 if inside.ndim == 1 else 2) and calibration.reliability(counts).pixels[0] == 0
    assert calibration.expected_calibration_error(counts).patients == 1  # the other has no pixel inside


def test_an_empty_and_a_full_truth_are_counted_too():
    truth = np.stack([np.zeros((3, 5), bool), np.ones((3, 5), bool)])
    found = calibration.reliability(calibration.calibration_counts(truth.astype(float), truth, [1, 2]))
    assert found.tumour_share[[0, 9]].tolist() == [0, 1] and found.pixels[[0, 9]].tolist() == [15, 15]


def test_no_pixels_and_other_shapes_are_refused():
    one = np.zeros((1, 2, 2))
    with pytest.raises(DataError, match="no pixel is inside"):
        calibration.calibration_counts(one, one, [1], inside=np.array([False]))
    with pytest.raises(ValueError, match="2 patients"):
        calibration.calibration_counts(one, one, [1, 2])
    with pytest.raises(DataError, match="no pixels"):
        calibration.error_rejection(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="same pixels"):
        calibration.error_by_uncertainty(np.zeros(3), np.zeros(4))


# Errors ---------------------------------------------------------------------------------------


def test_error_rates_go_from_the_surest_to_the_least_sure():
    uncertainty = np.array([0.4, 0.1, 0.3, 0.2])
    found = calibration.error_by_uncertainty(uncertainty, np.array([True, False, True, False]), groups=2)
    assert found.lowest.tolist() == [0.1, 0.3] and found.highest.tolist() == [0.2, 0.4]
    assert found.pixels.tolist() == [2, 2] and found.error_rate.tolist() == [0, 1]


def test_pixels_of_equal_uncertainty_stay_in_one_group():
    uncertainty = np.array([0, 0, 0, 0, 0, 0, 0, 1.0])
    found = calibration.error_by_uncertainty(uncertainty, uncertainty > 0, groups=4)
    assert found.pixels.tolist() == [7, 1] and found.wrong_pixels.tolist() == [0, 1]


def test_an_uncertainty_that_puts_errors_first_gains_all():
    found = calibration.error_rejection(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False]))
    # From all errors to none over half of the pixels: a triangle of 1/4.
    assert (found.area, found.best_area, found.gain) == pytest.approx((0.25, 0.25, 1))
    assert found.curve.errors_left[found.curve.checked == 0.25].item() == pytest.approx(0.5)


def test_an_uncertainty_that_puts_errors_last_loses_as_much():
    found = calibration.error_rejection(np.array([0.9, 0.8, 0.2, 0.1]), np.array([False, False, True, True]))
    assert (found.area, found.gain) == pytest.approx((0.75, -1))


def test_an_uncertainty_that_is_the_same_everywhere_is_chance():
    found = calibration.error_rejection(np.zeros((3, 5)), np.arange(15).reshape(3, 5) == 0)
    assert (found.area, found.gain) == pytest.approx((0.5, 0))


def test_ties_are_checked_in_random_order():
    # The first two share one error: half of it is found with each.
    found = calibration.error_rejection(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, False, False, False]))
    assert found.area == pytest.approx(0.25)
    assert found.gain == pytest.approx(0.25 / (0.5 - 0.125))


@pytest.mark.parametrize("wrong", [np.zeros(4, bool), np.ones(4, bool)])
def test_without_errors_or_with_nothing_else_there_is_no_gain(wrong):
    assert np.isnan(calibration.error_rejection(np.arange(4.0), wrong).gain)


def test_the_gain_orders_by_rank_alone():
    random = np.random.default_rng(0)
    uncertainty, wrong = random.random(200), random.random(200) < 0.2
    found = calibration.error_rejection(uncertainty, wrong)
    assert calibration.error_rejection(np.exp(5 * uncertainty), wrong).gain == pytest.approx(found.gain)
    # It is 2 AUROC - 1 of the uncertainty as a detector of errors.
    right = pd.Series(uncertainty[~wrong])
    auroc = np.mean([(right < one).mean() for one in uncertainty[wrong]])
    assert found.gain == pytest.approx(2 * auroc - 1)
