"""Scores of small volumes worked out by hand."""

import numpy as np

from lits_helpers.cases import case_scores


def test_two_empty_cases_have_no_dice():
    empty = np.zeros((3, 4, 5), np.uint8)
    assert np.isnan(case_scores(empty, empty, (5, 1, 1))["tumour_dice"])
