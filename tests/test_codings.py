import numpy as np
import pytest

from lits_helpers import codings

LABELS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("labels", [[0, 1, 2], [2, 1, 0]]),
        ("0/127/255", [[0, 127, 255], [255, 127, 0]]),
        ("0/128/255", [[0, 128, 255], [255, 128, 0]]),
        ("0/1", [[0, 1, 1], [1, 1, 0]]),
        ("0/255", [[0, 255, 255], [255, 255, 0]]),
        ("0/1 tumour", [[0, 0, 1], [1, 0, 0]]),
        ("0/255 tumour", [[0, 0, 255], [255, 0, 0]]),
    ],
)
def test_each_label_gets_the_level_that_the_codings_name_says(coding, expected):
    assert codings.encode(LABELS, coding).tolist() == expected


def test_colours_are_black_green_and_red():
    assert codings.encode(LABELS, "colours")[0].tolist() == [[0, 0, 0], [0, 255, 0], [255, 0, 0]]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no coding '0/7'.*0/128/255"):
        codings.encode(LABELS, "0/7")


def test_an_exact_decoder_takes_no_other_level():
    assert codings.decode_exact(np.array([[0, 5]], np.uint8), {0: 0, 5: 2}).tolist() == [[0, 2]]
    assert codings.decode_exact(np.array([[0, 4]], np.uint8), {0: 0, 5: 2}) is None


def test_the_nearest_level_counts_in_a_smeared_picture():
    grey = np.repeat(np.array([[3, 63, 66, 125, 190, 193, 250]], np.uint8), 3, axis=0)
    assert codings.decode_smeared(grey, {0: 0, 128: 1, 255: 2})[0].tolist() == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("level", [60, 190])
def test_a_flat_area_far_from_all_levels_does_not_fit(level):
    grey = np.zeros((32, 32), np.uint8)
    grey[4:20, 4:20] = level
    assert codings.decode_smeared(grey, {0: 0, 128: 1, 255: 2}) is None


def test_edges_are_not_flat_and_areas_are():
    grey = np.zeros((6, 6), np.uint8)
    grey[:, 3:] = 200
    assert codings.flat_pixels(grey)[0].tolist() == [True, True, False, False, True, True]
