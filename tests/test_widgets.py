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


def test_the_playground_starts_with_the_slice_as_it_is():
    axes = picture(widgets.augmentation_playground(IMAGE, LABELS))
    assert (axes.images[0].get_array() == 20).all()
    edges = np.array(axes.collections[0].get_segments())
    assert edges[..., 0].min() == 2.5 and edges[..., 0].max() == 8.5  # columns 3 to 8


@pytest.mark.parametrize(
    ("description", "value", "columns"),
    [
        ("shift right", 0.25, (7, 12)),  # by 4 of 16
        ("flip left and right", True, (7, 12)),
        ("rotation (°)", 0, (3, 8)),
    ],
)
def test_a_slider_moves_the_mask_with_the_picture(description, value, columns):
    playground = widgets.augmentation_playground(IMAGE, LABELS)
    control(playground, description).value = value
    edges = np.array(picture(playground).collections[0].get_segments())[..., 0]
    assert (edges.min() + 0.5, edges.max() - 0.5) == columns


def test_zoom_enlarges_and_elastic_bends():
    playground = widgets.augmentation_playground(IMAGE, LABELS)

    def pixels():
        edges = np.array(picture(playground).collections[0].get_segments())
        return np.ptp(edges[..., 0]) * np.ptp(edges[..., 1])

    before = pixels()
    control(playground, "zoom").value = 2
    assert pixels() > 1.5 * before  # and partly beyond the border
    control(playground, "zoom").value = 1
    assert pixels() == before
    control(playground, "elastic").value = 0.1
    assert pixels() != before


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
