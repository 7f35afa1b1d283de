"""Lesions of small volumes, matched by hand."""

import numpy as np

from lits_helpers.lesions import match_lesions


def test_one_prediction_over_three_lesions_finds_three_and_is_one_right():
    truth = np.zeros((3, 5, 12), bool)
    truth[1, 1:4, [1, 5, 9]] = True
    predicted = np.zeros_like(truth)
    predicted[1, 1:4, 1:10] = True
    counts = match_lesions(truth, predicted).counts()
    assert (counts.found, counts.lesions, counts.right, counts.predictions) == (3, 3, 1, 1)
