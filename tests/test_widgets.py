import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from lits_helpers import plots, widgets

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


def test_the_playground_hands_its_values_to_the_transform_and_shows_the_result():
    def transform(image, labels, *, flip_horizontal, **others):
        received.update(others, flip_horizontal=flip_horizontal)
        return (image[:, ::-1], labels[:, ::-1]) if flip_horizontal else (image, labels)

    received = {}
    playground = widgets.augmentation_playground(IMAGE, LABELS, transform)
    assert received == {
        "rotation": 0, "shift_rows": 0, "shift_columns": 0, "shear": 0, "zoom": 1,
        "flip_horizontal": False, "flip_vertical": False, "elastic": 0,
    }
    left = np.array(picture(playground).collections[0].get_segments())[..., 0].min()
    control(playground, "rotation (°)").value = 15
    control(playground, "flip left and right").value = True
    flipped = np.array(picture(playground).collections[0].get_segments())[..., 0].min()
    assert received["rotation"] == 15
    assert (left, flipped) == (2.5, 6.5)  # columns 3..8 become 7..12


def test_the_threshold_moves_dice_and_errors():
    truth = np.zeros((16, 16), bool)
    truth[4, 4:6] = True
    probability = np.zeros((16, 16))
    probability[4, 4], probability[4, 5], probability[9, 9] = 0.9, 0.6, 0.3
    explorer = widgets.threshold_explorer(IMAGE, truth, probability)
    assert picture(explorer).get_title() == (
        "Threshold 0.50: Dice 1.00\n0 pixels missed, 0 false positive"
    )
    control(explorer, "threshold").value = 0.2
    assert picture(explorer).get_title() == (
        "Threshold 0.20: Dice 0.80\n0 pixels missed, 1 false positive"
    )
    added = picture(explorer).images[1].get_array()[9, 9]
    assert tuple(added) == to_rgba(plots.ERROR_COLOURS["false positive"])


def test_a_widget_reuses_one_figure_and_leaves_none_open():
    browser = widgets.browse_slices([IMAGE, IMAGE], [LABELS, LABELS], ["first", "second"])
    before = browser.result
    control(browser, "slice").value = 1
    assert browser.result is before
    assert len(picture(browser).images) == 1
    assert plt.get_fignums() == []
