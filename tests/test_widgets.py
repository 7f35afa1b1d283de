import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from lits_helpers import drawing, widgets

IMAGE = np.dstack([np.full((16, 16), level, np.uint8) for level in (10, 20, 30)])
LABELS = np.zeros((16, 16), np.uint8)
LABELS[2:6, 3:9] = 1


def control(widget, description):
    (found,) = [child for child in widget.children if getattr(child, "description", "") == description]
    return found


def picture(widget):
    """The axes of the figure the widget shows now."""
    (axes,) = widget.result.axes
    return axes


def test_moving_the_slice_slider_shows_the_next_slice():
    browser = widgets.browse_slices([IMAGE, IMAGE + 100], [LABELS, LABELS], ["first", "second"])
    assert picture(browser).get_title() == "first"
    control(browser, "slice").value = 1
    assert picture(browser).get_title() == "second"
    assert (picture(browser).images[0].get_array() == 120).all()


def test_a_single_slice_can_be_browsed():
    browser = widgets.browse_slices([IMAGE], [LABELS], ["only"])
    assert control(browser, "slice").max == 0
    assert picture(browser).get_title() == "only"


def test_outlines_can_be_switched_off():
    browser = widgets.browse_slices([IMAGE], [LABELS], ["only"])
    assert len(picture(browser).collections[0].get_segments()) == 2 * (4 + 6)
    control(browser, "outlines").value = False
    assert len(picture(browser).collections) == 0


@pytest.mark.parametrize(("index", "level"), [(0, 20), (1, 10), (2, 30)])
def test_a_window_shows_its_channel(index, level):
    browser = widgets.browse_slices([IMAGE], [LABELS], ["only"])
    control(browser, "window").index = index
    assert (picture(browser).images[0].get_array() == level).all()


@pytest.fixture
def explorer():
    """Two slices, all 50 HU and all 200 HU."""
    return widgets.window_explorer(np.stack([np.full((8, 8), hu, np.int16) for hu in (50, 200)]), number=0)


def shade(widget):
    """The grey level that fills the picture."""
    [level] = np.unique(picture(widget).images[0].get_array())
    return level


def test_a_window_starts_in_the_middle_of_its_greys_and_follows_its_sliders(explorer):
    assert shade(explorer) == 127  # 50 HU is the level
    control(explorer, "level (HU)").value = 250
    assert shade(explorer) == 0  # 400 wide at 250 begins at 50 HU
    control(explorer, "width (HU)").value = 800
    assert shade(explorer) == 63  # a quarter of the way from -150 to 650
    control(explorer, "slice").value = 1
    assert shade(explorer) == 111  # 350 / 800 of 255
    assert picture(explorer).get_title() == "slice 1: -150 to 650 HU"


def test_a_preset_moves_both_sliders(explorer):
    control(explorer, "preset").value = "bone"
    assert (control(explorer, "width (HU)").value, control(explorer, "level (HU)").value) == (1800, 400)
    assert picture(explorer).get_title() == "slice 0: -500 to 1300 HU"


@pytest.fixture
def playground():
    """A slice whose columns are 150, 140, ... 0 in green; its liver fills columns 3-8, rows 2-5."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 1] = np.arange(150, -10, -10)
    return widgets.augmentation_playground(image, LABELS)


def first_row(widget):
    return picture(widget).images[0].get_array()[0].tolist()


def liver_box(widget):
    """First and last column, first and last row inside the liver's outline."""
    ends = np.array(picture(widget).collections[0].get_segments()).reshape(-1, 2)
    (left, top), (right, bottom) = ends.min(axis=0) + 0.5, ends.max(axis=0) - 0.5
    return left, right, top, bottom


def test_the_playground_starts_with_the_slice_as_it_is(playground):
    assert first_row(playground) == list(range(150, -10, -10))
    assert liver_box(playground) == (3, 8, 2, 5)


def test_a_quarter_to_the_right_moves_picture_and_outline_by_four_of_sixteen_columns(playground):
    control(playground, "shift right").value = 0.25
    assert first_row(playground) == [150] * 4 + list(range(150, 30, -10))
    assert liver_box(playground) == (7, 12, 2, 5)


def test_an_eighth_down_moves_the_outline_by_two_of_sixteen_rows(playground):
    control(playground, "shift down").value = 0.125
    assert liver_box(playground) == (3, 8, 4, 7)


def test_a_flip_mirrors_picture_and_outline(playground):
    control(playground, "flip left and right").value = True
    assert first_row(playground) == list(range(0, 160, 10))
    assert liver_box(playground) == (7, 12, 2, 5)


def test_right_stays_right_in_a_flipped_slice(playground):
    control(playground, "flip left and right").value = True
    control(playground, "shift right").value = 0.125
    assert liver_box(playground) == (9, 14, 2, 5)


def test_a_quarter_is_four_columns_in_a_zoomed_slice_too(playground):
    control(playground, "zoom").value = 0.5
    left, right, top, bottom = liver_box(playground)
    control(playground, "shift right").value = 0.25
    assert liver_box(playground) == (left + 4, right + 4, top, bottom)


def test_zoom_2_doubles_the_liver_about_the_centre(playground):
    control(playground, "zoom").value = 2
    # About 7.5: columns 2.5..8.5 become -2.5..9.5 and rows 1.5..5.5 become -4.5..3.5, then cut.
    assert liver_box(playground) == (0, 9, 0, 3)


def test_a_positive_angle_turns_anticlockwise(playground):
    control(playground, "rotation (°)").value = 45
    left, right, top, bottom = liver_box(playground)
    # The liver's centre, 2 left of 7.5 and 4 above, comes to 6 / sqrt(2) left, 2 / sqrt(2) above.
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((3.26, 6.09), abs=0.5)


def test_elastic_bends_the_picture(playground):
    control(playground, "elastic").value = 0.1
    assert first_row(playground) != list(range(150, -10, -10))


def test_the_threshold_starts_at_the_reports():
    explorer = widgets.threshold_explorer(IMAGE, LABELS > 0, np.zeros((16, 16)))
    assert control(explorer, "threshold").value == 0.30


def test_the_threshold_moves_dice_and_errors():
    truth = np.zeros((16, 16), bool)
    truth[4, 4:6] = True
    probability = np.zeros((16, 16))
    probability[4, 4], probability[4, 5], probability[9, 9] = 0.9, 0.6, 0.3
    explorer = widgets.threshold_explorer(IMAGE, truth, probability)
    assert picture(explorer).get_title() == (
        "Threshold 0.30: Dice 1.00\n0 pixels missed, 0 false positive"
    )
    control(explorer, "threshold").value = 0.2
    assert picture(explorer).get_title() == (
        "Threshold 0.20: Dice 0.80\n0 pixels missed, 1 false positive"
    )
    added = picture(explorer).images[1].get_array()[9, 9]
    assert tuple(added) == to_rgba(drawing.ERROR_COLOURS["false positive"])


def test_a_widget_reuses_one_figure_and_leaves_none_open():
    browser = widgets.browse_slices([IMAGE, IMAGE], [LABELS, LABELS], ["first", "second"])
    before = browser.result
    control(browser, "slice").value = 1
    assert browser.result is before
    assert len(picture(browser).images) == 1
    assert plt.get_fignums() == []
