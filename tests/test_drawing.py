import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba

from lits_helpers import drawing

BLANK = np.zeros((16, 16, 3), np.uint8)
LIVER_AND_TUMOUR = np.zeros((16, 16), np.uint8)
LIVER_AND_TUMOUR[2:12, 1:9], LIVER_AND_TUMOUR[4:7, 3:5] = 1, 2


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_the_outline_of_one_pixel_is_its_four_edges():
    mask = np.zeros((5, 7), bool)
    mask[3, 2] = True
    edges = {frozenset(map(tuple, edge)) for edge in drawing.outline(mask).tolist()}
    left, right, top, bottom = 1.5, 2.5, 2.5, 3.5
    assert edges == {
        frozenset({(left, top), (right, top)}),
        frozenset({(left, bottom), (right, bottom)}),
        frozenset({(left, top), (left, bottom)}),
        frozenset({(right, top), (right, bottom)}),
    }


def test_a_mask_that_fills_the_picture_is_outlined_along_its_border():
    edges = drawing.outline(np.ones((3, 5), bool))
    assert len(edges) == 2 * (3 + 5)
    assert edges.reshape(-1, 2).min(axis=0).tolist() == [-0.5, -0.5]
    assert edges.reshape(-1, 2).max(axis=0).tolist() == [4.5, 2.5]


def test_a_hole_in_a_mask_is_outlined_too():
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    assert len(drawing.outline(mask)) == 20 + 4


def test_an_empty_mask_has_no_outline():
    assert drawing.outline(np.zeros((4, 4), bool)).shape == (0, 2, 2)


def test_the_liver_outline_goes_around_liver_and_tumour_and_the_tumour_has_its_own():
    _, axes = plt.subplots()
    drawing.outlined(axes, BLANK, LIVER_AND_TUMOUR)
    liver, tumour = axes.collections
    assert len(liver.get_segments()) == 2 * (10 + 8)
    assert len(tumour.get_segments()) == 2 * (3 + 2)
    assert tuple(liver.get_edgecolor()[0]) == to_rgba(drawing.LIVER_COLOUR)
    assert tuple(tumour.get_edgecolor()[0]) == to_rgba(drawing.TUMOUR_COLOUR)


def test_an_outline_at_the_border_leaves_the_picture_its_size():
    _, axes = plt.subplots()
    drawing.outlined(axes, BLANK, np.ones((16, 16), np.uint8))
    assert axes.get_xlim() == (-0.5, 15.5)
    assert axes.get_ylim() == (15.5, -0.5)


def test_a_slice_is_drawn_in_grey_from_its_green_channel_with_equal_aspect():
    _, axes = plt.subplots()
    image = np.dstack([np.full((4, 6), level, np.uint8) for level in (10, 20, 30)])
    drawing.show_ct(axes, image)
    (shown,) = axes.images
    assert (shown.get_array() == 20).all()
    assert (shown.get_cmap().name, *shown.get_clim()) == ("gray", 0, 255)
    assert axes.get_aspect() == 1


def test_an_image_that_is_not_uint8_is_refused_by_its_type():
    _, axes = plt.subplots()
    with pytest.raises(ValueError, match="float32"):
        drawing.show_ct(axes, np.zeros((4, 4), np.float32))


def test_each_kind_of_error_has_its_colour_and_the_rest_is_transparent():
    truth = np.array([[True, True], [False, False]])
    predicted = np.array([[True, False], [True, False]])
    colours = drawing.error_map(truth, predicted)
    assert tuple(colours[0, 0]) == to_rgba(drawing.ERROR_COLOURS["found"])
    assert tuple(colours[0, 1]) == to_rgba(drawing.ERROR_COLOURS["missed"])
    assert tuple(colours[1, 0]) == to_rgba(drawing.ERROR_COLOURS["false positive"])
    assert colours[1, 1, 3] == 0


# Colour vision without one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def cielab(colour, vision):
    red_green_blue = np.array(to_rgb(colour))
    linear = np.where(
        red_green_blue <= 0.04045, red_green_blue / 12.92, ((red_green_blue + 0.055) / 1.055) ** 2.4
    )
    seen = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ seen / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(
    ("colours", "apart"),
    [(drawing.MASK_COLOURS, 80), (drawing.ERROR_COLOURS, 60), (drawing.DIAGNOSIS_COLOURS, 25)],
    ids=["masks", "errors", "diagnoses"],
)
def test_colours_stay_apart_for_the_colour_blind(colours, apart, vision):
    seen = [cielab(colour, vision) for colour in colours.values()]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > apart
