"""Scores of sorted slices, against hand-worked tables and scikit-learn."""

import numpy as np
import pytest

from lits_helpers import sorting_scores
from lits_helpers.files import DataError
from lits_helpers.sorting_scores import confusion, roc_curves

EMPTY, LIVER, TUMOUR = "empty", "liver only", "liver and tumour"
# Two empty slices, both found; three livers, of which one is taken for tumour; one tumour, found.
TRUTH = np.array([0, 0, 1, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6]]
)


@pytest.fixture
def scores():
    return sorting_scores.sorting_scores(TRUTH, PROBABILITIES)


@pytest.fixture(scope="module")
def many():
    """400 slices sorted somewhat better than by chance, with ties."""
    random = np.random.default_rng(5)
    truth = random.choice(3, 400, p=(0.1, 0.6, 0.3))
    weights = random.integers(1, 12, (400, 3)) + 4 * (truth[:, None] == np.arange(3))
    return truth, weights / weights.sum(axis=1, keepdims=True)


def test_confusion_counts_each_slice_once_in_its_row():
    found = confusion(TRUTH, PROBABILITIES)
    assert found.to_numpy().tolist() == [[2, 0, 0], [0, 2, 1], [0, 0, 1]]
    assert found.loc[LIVER, TUMOUR] == 1 and found.loc[TUMOUR, LIVER] == 0


def test_each_class_is_scored_against_the_rest(scores):
    assert scores.slices.tolist() == [2, 3, 1, 6, 6]
    assert scores.accuracy[[EMPTY, LIVER, TUMOUR]].tolist() == pytest.approx([1, 5 / 6, 5 / 6])
    assert scores.precision[[EMPTY, LIVER, TUMOUR]].tolist() == pytest.approx([1, 1, 1 / 2])
    assert scores.sensitivity[[EMPTY, LIVER, TUMOUR]].tolist() == pytest.approx([1, 2 / 3, 1])
    assert scores.specificity[[EMPTY, LIVER, TUMOUR]].tolist() == pytest.approx([1, 1, 4 / 5])
    assert scores.f1[[EMPTY, LIVER, TUMOUR]].tolist() == pytest.approx([1, 4 / 5, 2 / 3])


def test_the_area_is_the_share_of_pairs_in_the_right_order(scores):
    # Tumour: 0.6 is above 0.1, 0.1, 0.2, 0.3 and below 0.7: 4 of 5. Liver: 0.7 and 0.4 above all of
    # 0.1, 0.3, 0.2; 0.2 above one and equal to one of three: 7.5 of 9.
    assert scores.auc[[EMPTY, LIVER, TUMOUR]].tolist() == pytest.approx([1, 7.5 / 9, 4 / 5])


def test_macro_is_the_mean_of_classes_and_overall_accuracy_stands_apart(scores):
    assert scores.loc["macro", "accuracy"] == pytest.approx((1 + 5 / 6 + 5 / 6) / 3)
    assert scores.loc["macro", "f1"] == pytest.approx((1 + 4 / 5 + 2 / 3) / 3)
    assert scores.loc["all classes", "accuracy"] == pytest.approx(5 / 6)
    assert scores.loc["all classes"].drop(["accuracy", "slices"]).isna().all()


def test_scores_agree_with_scikit_learn(many):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, probabilities = many
    found = sorting_scores.sorting_scores(truth, probabilities)
    predicted = probabilities.argmax(axis=1)
    precision, sensitivity, f1, slices = metrics.precision_recall_fscore_support(truth, predicted)
    assert np.allclose(found[["precision", "sensitivity", "f1", "slices"]][:3], np.transpose([precision, sensitivity, f1, slices]))
    assert found.loc["all classes", "accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    specificity = [metrics.recall_score(truth != k, predicted != k) for k in range(3)]
    accuracy = [metrics.accuracy_score(truth == k, predicted == k) for k in range(3)]
    areas = [metrics.roc_auc_score(truth == k, probabilities[:, k]) for k in range(3)]
    assert np.allclose(found[["specificity", "accuracy", "auc"]][:3], np.transpose([specificity, accuracy, areas]))
    assert found.loc["macro", "auc"] == pytest.approx(metrics.roc_auc_score(truth, probabilities, multi_class="ovr"))


def test_curves_agree_with_scikit_learn(many):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, probabilities = many
    curves = roc_curves(truth, probabilities)
    for number, name in enumerate((EMPTY, LIVER, TUMOUR)):
        points = curves[curves.diagnosis == name]
        expected = metrics.roc_curve(truth == number, probabilities[:, number], drop_intermediate=False)
        assert np.allclose(points[["false_positive_rate", "sensitivity", "threshold"]], np.transpose(expected))


def test_equal_probabilities_for_all_slices_give_the_diagonal_and_a_half():
    truth, probabilities = np.array([0, 1, 2, 2]), np.full((4, 3), 1 / 3)
    points = roc_curves(truth, probabilities)
    assert points[points.diagnosis == TUMOUR].iloc[:, 2:].to_numpy().tolist() == [[0, 0], [1, 1]]
    assert sorting_scores.sorting_scores(truth, probabilities).auc[TUMOUR] == 0.5


def test_a_class_that_is_not_there_has_no_sensitivity_and_no_area():
    found = sorting_scores.sorting_scores(np.array([0, 1, 1]), PROBABILITIES[[0, 2, 4]])  # the last goes to tumour
    assert found.loc[TUMOUR, ["sensitivity", "auc"]].isna().all()
    assert found.loc[TUMOUR, ["precision", "f1"]].tolist() == [0, 0]
    assert found.loc[TUMOUR, "specificity"] == pytest.approx(2 / 3)
    assert found.loc["macro", "sensitivity"] == pytest.approx((1 + 1 / 2) / 2)  # of the two that have one


def test_a_class_neither_there_nor_predicted_has_no_f1_and_no_curve():
    truth, probabilities = np.array([0, 1]), PROBABILITIES[[0, 2]]
    found = sorting_scores.sorting_scores(truth, probabilities)
    assert found.loc[TUMOUR, ["precision", "sensitivity", "f1", "auc"]].isna().all()
    assert found.loc[TUMOUR, "accuracy"] == 1
    assert set(roc_curves(truth, probabilities).diagnosis) == {EMPTY, LIVER}


def test_slices_all_of_one_class_have_no_specificity_for_it():
    found = sorting_scores.sorting_scores(np.array([0, 0]), PROBABILITIES[:2])
    assert found.loc[EMPTY, ["specificity", "auc"]].isna().all()
    assert found.loc[EMPTY, "sensitivity"] == 1


def test_one_slice_can_be_scored_and_has_no_curves():
    assert sorting_scores.sorting_scores(TRUTH[:1], PROBABILITIES[:1]).loc["all classes", "accuracy"] == 1
    assert roc_curves(TRUTH[:1], PROBABILITIES[:1]).empty


@pytest.mark.parametrize(
    ("truth", "probabilities", "named"),
    [
        ([], np.zeros((0, 3)), "no slices"),
        ([0, 1], np.zeros((3, 3)), r"2 slices.*\(3, 3\)"),
        ([0, 1], np.zeros((2, 2)), r"\(2, 2\)"),
        ([0, 3], np.full((2, 3), 1 / 3), r"\[3\]"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_name(truth, probabilities, named):
    with pytest.raises(DataError, match=named):
        confusion(truth, probabilities)
