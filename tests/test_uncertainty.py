"""Intervals that can be checked by counting draws, and comparisons worked out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lits_helpers.files import DataError
from lits_helpers.uncertainty import (
    bootstrap_interval, describe, paired_difference, ratio_of_sums, summarise_runs, uncertainty_table,
)

NAN = float("nan")


def test_an_interval_of_three_patients_is_that_of_their_27_draws():
    scores = np.array([0.0, 0.6, 0.9])
    draws = [np.mean(draw) for draw in itertools.product(scores, repeat=3)]
    low, high = bootstrap_interval(scores, repeats=20_000, level=0.9)
    assert low == pytest.approx(np.quantile(draws, 0.05), abs=0.02)
    assert high == pytest.approx(np.quantile(draws, 0.95), abs=0.02)


def test_an_interval_is_reproducible_and_depends_on_its_seed():
    scores = np.random.default_rng(1).random(12)
    assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores, seed=3)
    assert bootstrap_interval(scores, seed=3) != bootstrap_interval(scores, seed=4)


def test_one_patient_has_no_interval():
    assert np.isnan(bootstrap_interval(np.array([0.8]))).all()


def test_a_pooled_score_adds_before_it_divides():
    parts = np.array([[1, 10], [9, 10]])
    assert ratio_of_sums(parts, axis=0) == 0.5
    assert np.isnan(ratio_of_sums(np.zeros((2, 2)), axis=0))


# One score ------------------------------------------------------------------------------------


def test_a_description_leaves_out_what_is_undefined_and_counts_it():
    found = describe([0.2, NAN, 0.4, 0.9, NAN])
    assert found.value == pytest.approx(0.5) and found.median == 0.4
    assert (found.lower_quartile, found.upper_quartile) == (pytest.approx(0.3), pytest.approx(0.65))
    assert (found.cases, found.patients, found.left_out) == (3, 3, 2)
    assert 0.2 <= found.low < 0.5 < found.high <= 0.9


def test_the_interval_is_that_of_an_independent_bootstrap():
    scores = np.random.default_rng(4).beta(4, 2, 30)
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20_000, random_state=1).confidence_interval
    found = describe(scores, repeats=20_000)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_a_pooled_score_has_the_quartiles_of_the_cases_and_an_interval_around_the_ratio():
    # Ratios 1/2, 9/10 and undefined; pooled 10/12. Drawn twice, the first gives 1/2, the second 9/10.
    found = describe([[1, 2], [9, 10], [0, 0]])
    assert found.value == pytest.approx(10 / 12) and found.median == pytest.approx(0.7)
    assert (found.low, found.high) == (0.5, 0.9)
    assert (found.cases, found.left_out) == (2, 1)


def test_a_numerator_over_nothing_enters_a_pooled_score():
    found = describe([[3, 0], [1, 2]])  # three false positives in a patient that has no tumour
    assert found.value == 2 and found.median == 0.5 and found.cases == 2


def test_cases_of_one_patient_are_drawn_together():
    # Two patients of 20 cases, one all 0 and one all 1: drawing cases would give about 0.35 to 0.65.
    found = describe([0.0] * 20 + [1.0] * 20, patients=["a"] * 20 + ["b"] * 20)
    assert (found.low, found.value, found.high) == (0, 0.5, 1)
    assert (found.cases, found.patients) == (40, 2)


@pytest.mark.parametrize(("values", "cases"), [([], 0), ([NAN, NAN], 0)])
def test_no_score_at_all_is_described_as_none(values, cases):
    found = describe(values)
    assert (found.cases, found.left_out) == (cases, len(values))
    assert np.isnan([found.value, found.low, found.high, found.median, found.upper_quartile]).all()


def test_a_single_patient_has_a_value_and_no_interval():
    found = describe([0.7])
    assert found.value == found.median == 0.7 and np.isnan([found.low, found.high]).all()


def test_values_of_another_shape_or_without_their_patients_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        describe(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="3 values, but 2 patients"):
        describe([1, 2, 3], patients=["a", "b"])


# Two runs -------------------------------------------------------------------------------------


def patients(scores, **more):
    """A table of scores by volume, as patient_scores gives it."""
    return pd.DataFrame({"volume": list(scores), "dice": list(scores.values()), **more})


def test_a_difference_is_taken_patient_by_patient_whatever_the_order():
    found = paired_difference(patients({1: 0.5, 2: 0.6, 3: 0.9}), patients({3: 0.8, 1: 0.7, 2: 0.6}))
    assert found.mean == pytest.approx((0.2 + 0 - 0.1) / 3)
    assert (found.better, found.worse, found.equal) == (1, 1, 1)
    assert (found.cases, found.left_out, found.undefined_in_one) == (3, 0, 0)


def test_an_equal_gain_for_all_has_an_interval_of_no_width_though_patients_differ_widely():
    first = np.array([0.0, 0.25, 0.5, 0.75])
    found = paired_difference(first, first + 0.125)
    assert (found.low, found.mean, found.high) == (0.125, 0.125, 0.125)


def test_the_pairs_are_drawn_and_not_the_runs_apart():
    gains = np.array([0.0, 0.3, 0.6])
    draws = [np.mean(draw) for draw in itertools.product(gains, repeat=3)]
    found = paired_difference(np.array([0.1, 0.4, 0.2]), np.array([0.1, 0.7, 0.8]))
    assert (found.low, found.high) == pytest.approx((np.quantile(draws, 0.025), np.quantile(draws, 0.975)), abs=0.11)
    assert found.low >= 0


def test_a_distance_gets_better_by_falling():
    found = paired_difference([5.0, 8.0, 2.0], [4.0, 7.0, 2.5], higher_is_better=False)
    assert (found.better, found.worse, found.mean) == (2, 1, -0.5)


def test_pairs_without_a_score_are_left_out_and_those_of_one_side_counted():
    found = paired_difference([0.5, NAN, NAN], [0.75, 0.0, NAN])
    assert (found.mean, found.cases, found.left_out, found.undefined_in_one) == (0.25, 1, 2, 1)
    assert (found.better, found.worse, found.equal) == (1, 0, 0)


def test_runs_on_different_patients_are_refused_with_their_names():
    with pytest.raises(DataError, match=r"volumes \[2\] only in the first and \[5, 7\] only in the second"):
        paired_difference(patients({1: 0, 2: 0}), patients({1: 0, 5: 0, 7: 0}))
    with pytest.raises(DataError, match=r"\[2\] only in the first:"):
        paired_difference([0.1, 0.2, 0.3], [0.1, 0.2])


def test_a_volume_that_comes_twice_is_refused():
    twice = pd.concat([patients({1: 0, 4: 0}), patients({4: 1})])
    with pytest.raises(DataError, match=r"volumes \[4\] have more than one row"):
        paired_difference(twice, twice)


def test_an_unknown_score_is_named_beside_those_there_are():
    with pytest.raises(ValueError, match="no column 'hd95': choose one of .*dice"):
        paired_difference(patients({1: 0}), patients({1: 0}), score="hd95")


def test_volumes_of_one_patient_are_drawn_together_in_a_difference():
    first = patients({1: 0.0, 2: 0.0, 3: 0.0}, patient=[1, 1, 3])
    found = paired_difference(first, patients({1: 0.25, 2: 0.75, 3: 1.0}))
    assert (found.cases, found.patients) == (3, 2)
    assert (found.low, found.high) == (0.5, 1)  # one patient or the other, twice


# Several runs ---------------------------------------------------------------------------------


def test_seeds_are_averaged_within_the_patient_before_patients_are_drawn():
    found = summarise_runs([patients({1: 0.0, 2: 0.5}), patients({2: 1.0, 1: 0.5})])
    assert found.kind == "seeds" and found.runs.to_dict() == {1: 0.25, 2: 0.75}
    assert (found.lowest, found.mean, found.highest) == (0.25, 0.5, 0.75)
    # Patients 0.25 and 0.75 over the seeds; four scores drawn apart would reach from 0 to 1.
    assert found.patients.cases == 2
    assert (found.patients.low, found.patients.value, found.patients.high) == (0.25, 0.5, 0.75)


def test_more_seeds_do_not_make_more_patients():
    run = patients(dict(enumerate(np.linspace(0, 1, 7))))
    alone, five = summarise_runs([run]).patients, summarise_runs([run] * 5).patients
    assert five == alone


def test_the_patients_of_all_folds_are_drawn_together():
    found = summarise_runs({"a": patients({1: 0.25, 2: 0.75, 3: NAN}), "b": patients({4: 1.0})})
    assert found.kind == "folds" and found.runs.to_dict() == {"a": 0.5, "b": 1}
    assert found.mean == 0.75 and found.patients.value == pytest.approx(2 / 3)
    assert (found.patients.cases, found.patients.left_out) == (3, 1)


def test_a_fold_without_any_score_is_named_and_takes_no_part():
    found = summarise_runs({1: patients({1: 0.5}), 2: patients({2: NAN})})
    assert np.isnan(found.runs[2]) and found.mean == 0.5 and found.patients.left_out == 1


def test_a_patient_is_averaged_over_the_seeds_that_score_it():
    found = summarise_runs([patients({1: NAN, 2: 1.0, 3: NAN}), patients({1: 0.0, 2: 0.5, 3: NAN})])
    assert found.patients.value == pytest.approx((0 + 0.75) / 2) and found.patients.left_out == 1


def test_runs_that_share_some_patients_are_neither_seeds_nor_folds():
    with pytest.raises(DataError, match=r"\[1\] only in run 1 and \[3\] only in run 2"):
        summarise_runs([patients({1: 0, 2: 0}), patients({2: 0, 3: 0})])


def test_a_patient_whose_volumes_lie_in_two_folds_is_named():
    with pytest.raises(DataError, match=r"patients \[7\] are in more than one fold"):
        summarise_runs([patients({1: 0, 2: 0}, patient=[7, 2]), patients({3: 0}, patient=[7])])


def test_a_summary_of_runs_reads_as_two_lines():
    first, second = str(summarise_runs([patients({1: 0.25, 2: 0.75, 3: NAN}), patients({4: 1.0})])).splitlines()
    assert first == "dice, mean by fold: 1: 0.500, 2: 1.000 (mean 0.750, 0.500 to 1.000)"
    assert second.startswith("dice, mean over 3 cases of 3 patients: 0.667 (95 % interval 0.")
    assert second.endswith("; 1 left out)")


def test_no_runs_are_refused():
    with pytest.raises(DataError, match="no runs"):
        summarise_runs([])


# Table ----------------------------------------------------------------------------------------


def test_a_table_has_a_row_for_each_run_and_score():
    runs = {"a": patients({1: 0.5, 2: 0.75}, iou=[0.25, 0.5]), "b": patients({3: 1.0}, iou=[1.0])}
    table = uncertainty_table(runs, scores=("dice", "iou"))
    assert table[["run", "score", "value", "cases"]].to_numpy().tolist() == [
        ["a", "dice", 0.625, 2], ["b", "dice", 1, 1], ["a", "iou", 0.375, 2], ["b", "iou", 1, 1],
    ]


def test_two_runs_on_the_same_patients_get_a_row_of_their_difference():
    table = uncertainty_table({"a": [0.5, 0.75, NAN], "b": [0.75, 1.0, 0.0]}).set_index("run")
    assert table.index.tolist() == ["a", "b", "b - a"]
    row = table.loc["b - a"]
    assert (row.low, row.value, row.high, row.cases, row.left_out) == (0.25, 0.25, 0.25, 2, 1)
