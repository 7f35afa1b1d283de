"""A forest against scikit-learn's own, its file against damage, and scores worked out by hand."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from lits_helpers import candidate_filter
from lits_helpers.candidate_filter import (
    CandidateFilter, choose_filter_threshold, filter_candidates, out_of_fold, train_filter,
)
from lits_helpers.candidates import CandidateCase, candidate_table
from lits_helpers.files import DataError


def some_features(count=60, seed=3):
    """Random features, one of them often unknown, with labels that depend on them."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(random.normal(size=(count, 4)), columns=["size", "depth", "contrast", "volume_ml"])
    table.loc[random.random(count) < 0.3, "volume_ml"] = np.nan
    return table, (table["size"] + table.depth * random.normal(size=count) > 0.5).to_numpy()


# Two trees. The first asks whether "size" (feature 1) is at most 2, unknown ones go right; the
# second asks nothing.
HAND = {
    "names": np.array(["depth", "size"]), "roots": np.array([0, 3]),
    "left": np.array([1, -1, -1, -1]), "right": np.array([2, -1, -1, -1]), "feature": np.array([1, -1, -1, -1]),
    "threshold": np.array([2.0, -2, -2, -2]), "unknown_left": np.array([False] * 4),
    "share": np.array([0.5, 0.25, 1.0, 0.5]),
}  # fmt: skip


# The forest ------------------------------------------------------------------------------------


def test_two_small_trees_are_averaged_by_hand():
    features = pd.DataFrame({"size": [1, 2, 2.5, np.nan], "depth": 0.0})
    assert CandidateFilter(**HAND).probabilities(features).tolist() == [0.375, 0.375, 0.75, 0.75]


def test_probabilities_are_exactly_those_of_scikit_learn():
    features, true = some_features()
    other, _ = some_features(200, seed=4)
    reference = RandomForestClassifier(40, class_weight="balanced", random_state=5)
    reference.fit(features.to_numpy(np.float32), true)
    expected = reference.predict_proba(other.to_numpy(np.float32))[:, 1]
    assert len(np.unique(expected)) > 20
    assert np.array_equal(train_filter(features, true, seed=5, trees=40).probabilities(other), expected)


def test_no_candidates_have_no_probabilities():
    assert CandidateFilter(**HAND).probabilities(pd.DataFrame({"size": [], "depth": []})).shape == (0,)


def test_names_labels_and_features_that_are_never_known_are_not_learnt_from():
    features, true = some_features()
    features = features.assign(volume=1, candidate=2, true=true, texture=np.nan)
    assert train_filter(features, true, seed=0, trees=3).names.tolist() == ["size", "depth", "contrast", "volume_ml"]


def test_a_missing_feature_is_named():
    with pytest.raises(DataError, match="'depth'"):
        CandidateFilter(**HAND).probabilities(pd.DataFrame({"size": [1.0]}))


@pytest.mark.parametrize("true", [np.zeros(60, bool), np.ones(60, bool)], ids=["none", "all"])
def test_candidates_of_one_kind_teach_nothing(true):
    with pytest.raises(DataError, match="teach nothing"):
        train_filter(some_features()[0], true, seed=0)


def test_every_candidate_needs_a_label():
    with pytest.raises(DataError, match="60 candidates and 59 labels"):
        train_filter(some_features()[0], some_features()[1][1:], seed=0)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(DataError, match=r"lits-helpers\[survey\]"):
        train_filter(*some_features(), seed=0)


# Its file --------------------------------------------------------------------------------------


def test_a_filter_read_back_predicts_the_same(tmp_path):
    features, true = some_features()
    forest = train_filter(features, true, seed=1, trees=10)
    read = CandidateFilter.load(forest.save(tmp_path / "new" / "filter.npz"))
    assert np.array_equal(read.probabilities(features), forest.probabilities(features))


@pytest.mark.parametrize(
    "change",
    [
        {"left": np.array([0, -1, -1, -1])}, {"right": np.array([3, -1, -1, -1])}, {"left": np.array([-2, -1, -1, -1])},
        {"right": np.array([2, -1, 3, -1])}, {"feature": np.array([2, -1, -1, -1])}, {"roots": np.array([0, 4])},
        {"roots": np.array([1, 3])}, {"roots": np.array([], int)}, {"share": np.array([0.5, 2, 1, 0])},
        {"share": np.array([0.5, np.nan, 1, 0])}, {"share": np.array([0.5, 0.5, 1])},
        {"threshold": np.array([np.nan, -2, -2, -2])}, {"left": np.array([1.0, -1, -1, -1])},
    ],
    ids=[
        "loop", "into another tree", "no child", "half a leaf", "no such feature", "root beyond", "no first root",
        "no tree", "over 1", "NaN", "too short", "threshold NaN", "not whole",
    ],
)  # fmt: skip
def test_a_forest_whose_walks_might_not_end_well_is_refused(tmp_path, change):
    with pytest.raises(DataError, match="no usable candidate filter"):
        CandidateFilter.load(CandidateFilter(**HAND | change).save(tmp_path / "filter.npz"))


def test_a_sound_forest_made_by_hand_is_read(tmp_path):
    read = CandidateFilter.load(CandidateFilter(**HAND).save(tmp_path / "filter.npz"))
    assert read.names.tolist() == ["depth", "size"]


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    np.savez(tmp_path / "filter.npz", **HAND | {"names": np.array(["depth", None], object)})
    with pytest.raises(DataError, match="no usable candidate filter"):
        CandidateFilter.load(tmp_path / "filter.npz")


@pytest.mark.parametrize("content", [b"", b"not a forest", b"PK\x03\x04"], ids=["empty", "text", "half a zip"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "filter.npz").write_bytes(content)
    with pytest.raises(DataError, match="no usable candidate filter"):
        CandidateFilter.load(tmp_path / "filter.npz")


def test_a_single_array_and_a_damaged_file_are_refused(tmp_path):
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    content = bytearray(CandidateFilter(**HAND).save(tmp_path / "damaged.npz").read_bytes())
    content[60:70] = bytes(10)
    (tmp_path / "damaged.npz").write_bytes(content)
    for name in ("array.npz", "damaged.npz"):
        with pytest.raises(DataError, match="no usable candidate filter"):
            CandidateFilter.load(tmp_path / name)


def test_a_missing_file_and_another_ending_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        CandidateFilter.load(tmp_path / "filter.npz")
    with pytest.raises(DataError, match="is an .npz file"):
        CandidateFilter(**HAND).save(tmp_path / "filter.pkl")


# Out of fold -----------------------------------------------------------------------------------


def test_no_candidate_is_judged_by_a_forest_that_saw_its_patient(monkeypatch):
    features, true = some_features(30)
    patients = np.repeat(list("abcdef"), 5)
    seen = []

    class Judge:
        def __init__(self, training):
            self.patients = set(patients[training.index])

        def probabilities(self, judged):
            seen.append((self.patients, set(patients[judged.index])))
            return judged.index.to_numpy() / 30

    monkeypatch.setattr(candidate_filter, "train_filter", lambda training, labels, *, seed: Judge(training))
    found = out_of_fold(features, true, patients, seed=0, folds=3)
    assert np.array_equal(found, np.arange(30) / 30)
    assert len(seen) == 3
    assert all(trained | judged == set("abcdef") and not trained & judged for trained, judged in seen)


@pytest.mark.parametrize("folds", [1, 3])
def test_folds_need_a_patient_each(folds):
    with pytest.raises(DataError, match=f"{folds} folds of 2 patient"):
        out_of_fold(*some_features(4), ["a", "a", "b", "b"], seed=0, folds=folds)


# Filtering -------------------------------------------------------------------------------------

SHAPE = (3, 7, 9)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)


def drawn(*parts):
    """A mask of SHAPE, True in each of the index expressions."""
    mask = EMPTY.copy()
    for part in parts:
        mask[part] = True
    return mask


FIRST, SECOND = np.s_[0, 0, 0:4], np.s_[2, 4, 4:6]


def test_candidates_under_the_threshold_go_and_those_at_it_stay():
    mask = drawn(FIRST, SECOND)
    assert np.array_equal(filter_candidates(mask, [0.5, 0.4], threshold=0.5), drawn(FIRST))
    assert np.array_equal(filter_candidates(mask, [0.0, 0.0], threshold=0), mask)
    assert not filter_candidates(mask, [0.5, 0.4], threshold=0.6).any()
    assert np.array_equal(mask, drawn(FIRST, SECOND))


def test_an_empty_mask_stays_empty_and_a_full_one_is_one_candidate():
    assert not filter_candidates(EMPTY, [], threshold=0.5).any()
    assert filter_candidates(FULL, [0.9], threshold=0.5).all()
    assert not filter_candidates(FULL, [0.1], threshold=0.5).any()


def test_probabilities_of_another_mask_are_refused():
    with pytest.raises(DataError, match="has 2 candidates, got 3"):
        filter_candidates(drawn(FIRST, SECOND), [0.1, 0.2, 0.3], threshold=0.5)


# The threshold ---------------------------------------------------------------------------------

TRUE = [True, False, True, False]


@pytest.mark.parametrize(
    ("probabilities", "best"),
    [
        ([0.6, 0.3, 0.5, 0.3], 0.35),  # both true ones alone: 1
        ([0.6, 0.1, 0.4, 0.3], 0.35),
        ([0.6, 0.3, 0.2, 0.3], 0),  # all four: 2 * 2 / (2 + 4), as the first alone, 2 * 1 / (2 + 1)
        ([0.6, 0.7, 0.1, 0.8], 0),
    ],
)
def test_the_threshold_with_the_best_f1_is_chosen_and_of_equal_ones_the_lowest(probabilities, best):
    assert choose_filter_threshold(TRUE, probabilities) == best


def test_probabilities_of_other_candidates_choose_no_threshold():
    with pytest.raises(DataError, match="4 candidates and 3 probabilities"):
        choose_filter_threshold(TRUE, [0.1] * 3)


# A whole filter ---------------------------------------------------------------------------------


def test_a_filter_learns_to_keep_discs_and_to_reject_lines():
    rows, columns = np.ogrid[:48, :50]

    def case(volume):
        random = np.random.default_rng(volume)
        tumour = (np.hypot(rows - 14, columns - 15) < random.integers(4, 9))[None].repeat(3, 0)
        truth = tumour.copy()
        tumour[1, 30 + random.integers(10), 5 : 20 + random.integers(20)] = True
        image = random.integers(90, 110, tumour.shape).astype(np.uint8)
        return CandidateCase(volume, image, tumour, np.ones_like(tumour), truth)

    training, other = (candidate_table(map(case, volumes)) for volumes in (range(6), range(6, 10)))
    found = train_filter(training, training.true, seed=0, trees=20).probabilities(other)
    assert (found[other.true] > 0.5).all() and (found[~other.true] < 0.5).all()
    assert other.true.sum() == 4 and len(other) == 8
