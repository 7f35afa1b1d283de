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
    flat = codings.flat_pixels(grey)
    assert flat[0].tolist() == [True, True, False, False, True, True]
    assert np.array_equal(codings.flat_pixels(grey.T), flat.T)


def test_jpegs_ripple_does_not_make_an_area_an_edge():
    rippled = 127 + np.indices((6, 6)).sum(axis=0, dtype=np.uint8) % 2
    assert codings.flat_pixels(rippled).all()


def test_a_speck_that_fits_no_level_is_borne_and_an_area_is_not():
    # Of 10,000 pixels 10 may lie far from all levels: the flat inside of 5x5 are 9, of 6x6 16.
    grey = np.zeros((100, 100), np.uint8)
    grey[30:35, 30:35] = 63
    assert not codings.decode_smeared(grey, {0: 0, 128: 1, 255: 2}).any()
    grey[30:36, 30:36] = 63
    assert codings.decode_smeared(grey, {0: 0, 128: 1, 255: 2}) is None


def test_an_empty_smeared_picture_is_empty():
    for shape, mapping in (((9, 9), {0: 0, 255: 1}), ((9, 9, 3), {(0, 0, 0): 0, (0, 255, 0): 1})):
        decoded = codings.decode_smeared(np.zeros(shape, np.uint8), mapping)
        assert np.array_equal(decoded, np.zeros((9, 9)))


@pytest.mark.parametrize("label", [1, 2])
def test_labels_as_jpeg_are_no_smeared_picture_of_any_coding(label):
    assert codings.decode_smeared(np.full((9, 9), label, np.uint8), {0: 0, 255: 1}) is None


@pytest.mark.parametrize(
    ("liver", "tumour", "colour", "label"),
    [
        # Luminance is 0 of black, 76 of red, 150 of green, 29 of blue.
        ((0, 255, 0), (255, 0, 0), (67, 118, 0), 2),  # 89, so red, though its colour is nearer to black's
        ((0, 255, 0), (255, 0, 0), (0, 140, 0), 1),  # 82, and green all the same
        ((0, 0, 255), (255, 0, 0), (127, 0, 181), 1),  # 59, and more blue than red
    ],
)
def test_a_smeared_colour_is_judged_by_its_luminance_and_by_both_parts_of_its_colour(liver, tumour, colour, label):
    picture = np.zeros((8, 9, 3), np.uint8)
    picture[:, 2:4], picture[:, 4], picture[:, 5:7] = liver, colour, tumour
    decoded = codings.decode_smeared(picture, {(0, 0, 0): 0, liver: 1, tumour: 2})
    assert decoded[4].tolist() == [0, 0, 1, 1, label, 2, 2, 0, 0]


# Slices in the report's coding, drawn in grey levels as a JPEG may give them back.


def empty():
    return np.full((30, 30), 53, np.uint8)


def test_a_liver_is_read_to_its_last_pixel_and_its_blurred_edge_is_no_liver_beside_a_tumour():
    grey = empty()
    grey[6:19, 8:23] = 70  # two pixels wide round the rest: healthy liver beside a tumour has 68
    grey[8:17, 10:21] = 83
    assert np.array_equal(codings.decode(grey).labels, grey > 53)


def test_a_tumour_dimmed_by_jpeg_is_known_by_the_level_of_the_liver_beside_it():
    grey = empty()
    grey[6:9, 8:11] = 68  # the least area that is not taken for an edge
    grey[6:9, 11:14] = 80
    assert np.array_equal(codings.decode(grey).labels, np.uint8(grey > 53) + (grey == 80))


def test_a_liver_that_fills_its_slice_leaves_the_tumour_in_it_to_be_seen():
    grey = np.full((30, 30), 68, np.uint8)
    grey[10:16, 12:20] = 84
    assert np.array_equal(codings.decode(grey).labels, 1 + (grey == 84))


@pytest.mark.parametrize(
    ("liver", "tumour", "level", "label"),
    [
        # Halfway are 60.5 and 76 in a slice with a tumour, and 68 in one without.
        (68, 84, 60, 0), (68, 84, 61, 1), (68, 84, 75, 1), (68, 84, 76, 2), (83, 83, 67, 0), (83, 83, 68, 1),
    ],
)
def test_a_blurred_pixel_gets_the_nearer_of_its_slices_levels(liver, tumour, level, label):
    grey = empty()
    grey[6:20, 6:20], grey[10:16, 10:16], grey[3, 4] = liver, tumour, level
    assert codings.decode(grey).labels[3, 4] == label


def test_a_faint_liver_is_what_lies_above_the_commonest_level():
    grey = empty()
    grey[5, 5:9], grey[9, 9] = 54, 52  # a pixel below is JPEG's ripple
    assert np.array_equal(codings.decode(grey).labels, grey == 54)
