import dataclasses

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from lits_helpers import drawing, widgets
from lits_helpers.augmentation import Augmentation
from lits_helpers.files import DataError

IMAGE = np.dstack([np.full((16, 16), level, np.uint8) for level in (10, 20, 30)])
LABELS = np.zeros((16, 16), np.uint8)
LABELS[2:6, 3:9] = 1


def control(widget, description):
    (found,) = [child for child in widget.children[0].children if getattr(child, "description", "") == description]
    return found


def picture(widget):
    """The axes of the figure the widget shows now."""
    (axes,) = widget.figure.axes
    return axes


def grey(widget):
    """The levels of the CT that it shows."""
    return picture(widget).images[0].get_array()


def test_moving_the_slice_slider_shows_the_next_slice():
    browser = widgets.slice_browser({"": ([IMAGE, IMAGE + 100], [LABELS, LABELS])}, number=0)
    assert browser.words.value == "slice 0"
    control(browser, "slice").value = 1
    assert browser.words.value == "slice 1"
    assert (grey(browser) == 120).all()


def test_a_single_slice_can_be_browsed():
    browser = widgets.slice_browser({"only": ([IMAGE], [LABELS])})
    assert control(browser, "slice").max == 0
    assert browser.words.value == "only: slice 0"


def test_outlines_can_be_switched_off():
    browser = widgets.slice_browser({"only": ([IMAGE], [LABELS])})
    assert len(picture(browser).collections[0].get_segments()) == 2 * (4 + 6)
    control(browser, "outlines").value = False
    assert len(picture(browser).collections) == 0


@pytest.mark.parametrize(("index", "level"), [(0, 20), (1, 10), (2, 30)])
def test_a_window_shows_its_channel(index, level):
    browser = widgets.slice_browser({"only": ([IMAGE], [LABELS])})
    control(browser, "window").index = index
    assert (grey(browser) == level).all()


@pytest.fixture
def explorer():
    """Two slices, all 50 HU and all 200 HU."""
    hounsfield = np.stack([np.full((8, 8), hu, np.int16) for hu in (50, 200)])
    return widgets.slice_browser({"": (hounsfield, None)}, number=0)


def shade(widget):
    """The grey level that fills the picture."""
    [level] = np.unique(grey(widget))
    return level


def test_a_window_starts_in_the_middle_of_its_greys_and_follows_its_sliders(explorer):
    assert shade(explorer) == 127  # 50 HU is the level
    control(explorer, "level (HU)").value = 250
    assert shade(explorer) == 0  # 400 wide at 250 begins at 50 HU
    control(explorer, "width (HU)").value = 800
    assert shade(explorer) == 63  # a quarter of the way from -150 to 650
    control(explorer, "slice").value = 1
    assert shade(explorer) == 111  # 350 / 800 of 255
    assert explorer.words.value == "slice 1: -150 to 650 HU"


def test_a_preset_moves_both_sliders(explorer):
    control(explorer, "preset").value = "bone"
    assert (control(explorer, "width (HU)").value, control(explorer, "level (HU)").value) == (1800, 400)
    assert explorer.words.value == "slice 0: -500 to 1300 HU"


def test_a_window_moved_by_hand_is_no_preset(explorer):
    control(explorer, "preset").value = "bone"
    control(explorer, "width (HU)").value = 100
    assert control(explorer, "preset").value == "by hand"
    assert (control(explorer, "width (HU)").value, control(explorer, "level (HU)").value) == (100, 400)


def test_a_preset_redraws_once(explorer, monkeypatch):
    drawn = []
    monkeypatch.setattr(explorer, "redraw", lambda: drawn.append(1))
    control(explorer, "preset").value = "bone"
    assert len(drawn) == 1


def two_volumes():
    """In HU: one slice of 50, and two of 0 and 100, whose second one is liver from column 3."""
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[1, :, 3:] = 1
    labels[1, 0, 7] = 2
    second = np.stack([np.full((8, 8), hu, np.int16) for hu in (0, 100)])
    return {"one": (np.full((1, 8, 8), 50, np.int16), labels[:1]), "two": (second, labels)}


def test_another_volume_shows_its_slices():
    browser = widgets.slice_browser(two_volumes(), number=0)
    assert (control(browser, "slice").max, shade(browser)) == (0, 127)
    control(browser, "volume").value = "two"
    assert (control(browser, "slice").max, shade(browser)) == (1, 95)  # 150 / 400 of 255
    control(browser, "slice").value = 1
    assert browser.words.value == "two: slice 1: -150 to 250 HU"
    assert shade(browser) == 159  # 250 / 400 of 255


def test_a_shorter_volume_shows_its_last_slice():
    browser = widgets.slice_browser(two_volumes(), number=0)
    control(browser, "volume").value = "two"
    control(browser, "slice").value = 1
    control(browser, "volume").value = "one"
    assert control(browser, "slice").value == 0
    assert browser.words.value.startswith("one: slice 0")


def test_masks_are_filled_as_densely_as_the_slider_says():
    browser = widgets.slice_browser({"two": two_volumes()["two"]}, number=1)
    assert len(picture(browser).images) == 1
    control(browser, "filled").value = 0.6
    filled = picture(browser).images[1].get_array()
    assert filled.shape == (8, 8, 4)
    assert filled[5, 2].tolist() == [0, 0, 0, 0]
    assert filled[5, 3].tolist() == [0x56, 0xB4, 0xE9, 153]  # the liver's colour, 0.6 of 255
    assert filled[0, 7].tolist() == [0xD5, 0x5E, 0x00, 153]


def test_slices_without_masks_have_no_controls_for_them():
    browser = widgets.slice_browser({"": (np.zeros((2, 8, 8), np.uint8), None)})
    assert list(browser.controls) == ["number"]


def test_a_table_is_browsed_by_volume_and_slice(table):
    browser = widgets.slice_browser(table.sample(frac=1, random_state=0))
    assert control(browser, "volume").options == ("volume 0", "volume 1", "volume 2", "volume 3")
    assert browser.words.value == "volume 0: slice 2"
    assert [len(lines.get_segments()) > 0 for lines in picture(browser).collections] == [True, True]
    control(browser, "volume").value = "volume 3"
    assert browser.words.value == "volume 3: slice 2"
    assert [len(lines.get_segments()) > 0 for lines in picture(browser).collections] == [True, False]


def test_an_unreadable_slice_is_told_in_words(table):
    browser = widgets.slice_browser(table)
    path = table[(table.volume == 0) & (table.slice == 3)].image_path.iloc[0]
    with open(path, "wb"):
        pass
    control(browser, "slice").value = 3
    assert "empty or cut short" in browser.words.value


@pytest.mark.parametrize(("volumes", "words"), [
    ({}, "no volumes"),
    ({"a": (np.zeros((0, 8, 8), np.int16), None)}, "a has 0 slices"),
    ({"a": (np.zeros((2, 8, 8), np.int16), LABELS[None])}, "2 slices, 1 masks"),
])
def test_volumes_that_cannot_be_browsed_are_refused(volumes, words):
    with pytest.raises(DataError, match=words):
        widgets.slice_browser(volumes)


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
    assert explorer.words.value == "Threshold 0.30: Dice 1.00; 0 pixels missed, 0 false positive"
    control(explorer, "threshold").value = 0.2
    assert explorer.words.value == "Threshold 0.20: Dice 0.80; 0 pixels missed, 1 false positive"
    added = picture(explorer).images[1].get_array()[9, 9]
    assert tuple(added) == to_rgba(drawing.ERROR_COLOURS["false positive"])


@pytest.mark.parametrize(("truth", "words"), [
    (np.zeros((16, 16), bool), "no Dice (both empty); 0 pixels missed, 0 false positive"),
    (np.ones((16, 16), bool), "Dice 0.00; 256 pixels missed, 0 false positive"),
])
def test_a_threshold_that_nothing_passes(truth, words):
    explorer = widgets.threshold_explorer(IMAGE, truth, np.zeros((16, 16)))
    assert explorer.words.value == f"Threshold 0.30: {words}"


def test_the_errors_fade_with_the_opacity():
    explorer = widgets.threshold_explorer(IMAGE, LABELS > 0, np.zeros((16, 16)))
    control(explorer, "filled").value = 0.25
    assert picture(explorer).images[1].get_alpha() == 0.25


def test_every_parameter_of_an_augmentation_has_a_control(playground):
    names = {field.name for field in dataclasses.fields(Augmentation)}
    assert names - {"shift"} | {"shift_down", "shift_right", "draw"} == set(playground.controls)


@pytest.mark.parametrize(("name", "value", "row"), [
    ("brightness", 0.5, [75, 70, 65, 60, 55, 50, 45, 40, 35, 30, 25, 20, 15, 10, 5, 0]),
    ("contrast", 0.5, [round(75 + (level - 75) / 2 + 1e-9) for level in range(150, -10, -10)]),
    ("gamma", 2, [round(level * level / 255) for level in range(150, -10, -10)]),
])
def test_grey_levels_change_as_their_slider_says(playground, name, value, row):
    playground.controls[name].value = value
    assert first_row(playground) == pytest.approx(row, abs=1)
    assert liver_box(playground) == (3, 8, 2, 5)


@pytest.mark.parametrize(("name", "value"), [("noise", 0.1), ("blur", 2), ("low_resolution", 4)])
def test_noise_blur_and_coarse_pixels_change_the_picture_and_leave_the_mask(playground, name, value):
    playground.controls[name].value = value
    assert first_row(playground) != list(range(150, -10, -10))
    assert liver_box(playground) == (3, 8, 2, 5)


def test_random_draws_stay_within_the_sliders(playground):
    control(playground, "shift right").value = -0.25
    boxes = set()
    for number in range(1, 7):
        control(playground, "random draw").value = number
        boxes.add(liver_box(playground)[::2])
    assert len(boxes) > 2  # drawn anew
    assert all(-1 <= left - 3 + 4 <= 9 and -4 <= top - 2 <= 4 for left, top in boxes)


def test_random_draws_at_zoom_2_make_the_liver_at_most_twice_as_large(playground):
    control(playground, "zoom").value = 2
    sizes = []
    for number in range(1, 7):
        control(playground, "random draw").value = number
        left, right, top, bottom = liver_box(playground)
        sizes.append((right - left + 1, bottom - top + 1))
    columns, rows = zip(*sizes)
    assert max(columns) <= 2 * 6 + 1 and max(rows) <= 2 * 4 + 1  # a pixel more where edges fall on its middle
    assert len(set(sizes)) > 1


def test_without_a_chance_random_draws_leave_the_greys(playground):
    control(playground, "brightness").value = 0.5
    control(playground, "random draw").value = 1
    assert first_row(playground) != list(range(150, -10, -10))
    control(playground, "chance of greys").value = 0
    assert first_row(playground) == list(range(150, -10, -10))


def test_lesions_are_implanted_into_the_liver_and_outlined(playground):
    assert len(picture(playground).collections[1].get_segments()) == 0
    control(playground, "chance of lesions").value = 1
    assert len(picture(playground).collections[1].get_segments()) > 0
    assert liver_box(playground) == (3, 8, 2, 5)


def test_a_distractor_takes_part_of_the_livers_outline(playground):
    before = len(picture(playground).collections[0].get_segments())
    control(playground, "of distractors").value = 1
    assert len(picture(playground).collections[0].get_segments()) != before
    assert len(picture(playground).collections[1].get_segments()) == 0


def test_a_grey_slice_can_be_changed():
    playground = widgets.augmentation_playground(IMAGE[..., 1], LABELS)
    control(playground, "brightness").value = 0.5
    assert (grey(playground) == 10).all()


def test_a_slice_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="square"):
        widgets.augmentation_playground(IMAGE[:10], LABELS[:10])


def test_all_six_are_found_in_one_place():
    six = {
        "slice_browser", "augmentation_playground", "threshold_explorer", "training_monitor",
        "prediction_reviewer", "model_playground",
    }
    assert six <= set(widgets.__all__)
    assert all(callable(getattr(widgets, name, None)) for name in six)


def test_a_widget_reuses_one_figure_and_leaves_none_open():
    browser = widgets.slice_browser({"": ([IMAGE, IMAGE], [LABELS, LABELS])}, number=0)
    before = browser.figure
    control(browser, "slice").value = 1
    assert browser.figure is before
    assert len(picture(browser).images) == 1
    assert plt.get_fignums() == []
