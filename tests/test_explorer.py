import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from ipywidgets import IntSlider

from lits_helpers.explorer import Explorer, emptied, empty_panels, error_words, rendered
from lits_helpers.files import DataError


@pytest.fixture
def explorer():
    """A picture as white as its sliders add up to; sums above 9 are refused."""
    figure, [panel] = empty_panels(1, size=(2, 1))
    drawn = []

    def draw(left, right):
        drawn.append((left, right))
        if left + right > 9:
            raise DataError(f"{left} + {right} > 9: move one back")
        emptied(panel).imshow(np.full((4, 8), left + right), cmap="gray", vmin=0, vmax=9)
        return figure, f"{left} < {right}\nboth"

    made = Explorer(draw, dict(left=IntSlider(0, 0, 9), right=IntSlider(3, 0, 9)))
    made.drawn = drawn
    return made


def decoded(explorer):
    return cv2.imdecode(np.frombuffer(explorer.picture.value, np.uint8), cv2.IMREAD_COLOR)


def test_controls_stand_beside_words_and_picture(explorer):
    controls, shown = explorer.children
    assert controls.children == tuple(explorer.controls.values())
    assert shown.children == (explorer.words, explorer.picture)


def test_the_picture_is_a_jpeg_of_a_hundred_dots_an_inch(explorer):
    assert explorer.picture.format == "jpeg"
    assert explorer.picture.value[:2] == b"\xff\xd8"
    assert decoded(explorer).shape == (100, 200, 3)


def test_a_moved_slider_changes_the_picture(explorer):
    before = decoded(explorer)[50, 100, 0]
    explorer.controls["left"].value = 6
    assert before == pytest.approx(85, abs=2)  # 3 / 9 of 255
    assert decoded(explorer)[50, 100, 0] == pytest.approx(255, abs=2)


def test_words_are_no_markup(explorer):
    assert explorer.words.value == "0 &lt; 3<br>both"


def test_several_moves_at_once_redraw_once(explorer):
    explorer.drawn.clear()
    with explorer.at_once():
        explorer.controls["left"].value = 2
        explorer.controls["right"].value = 7
    assert explorer.drawn == [(2, 7)]


def test_after_an_error_within_at_once_the_sliders_still_redraw(explorer):
    with pytest.raises(ZeroDivisionError), explorer.at_once():
        1 / 0
    explorer.controls["left"].value = 2
    assert explorer.drawn[-1] == (2, 3)


def test_bad_data_is_told_in_words_and_the_picture_stays(explorer):
    before = explorer.picture.value
    explorer.controls["left"].value = 9
    assert explorer.words.value == "9 + 3 &gt; 9: move one back"
    assert explorer.picture.value == before
    explorer.controls["left"].value = 1
    assert explorer.words.value == "1 &lt; 3<br>both"


def test_where_widgets_cannot_run_its_text_says_what_to_do(explorer):
    assert "run the notebook" in repr(explorer)


def test_a_rendered_figure_is_not_shown_again_by_the_notebook():
    figure, _ = plt.subplots(figsize=(1, 1), dpi=300)
    picture = rendered(figure)
    assert plt.get_fignums() == []
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (100, 100, 3)


def test_the_style_of_the_reader_is_left_alone(explorer):
    with plt.rc_context({"font.size": 31}):
        explorer.controls["left"].value = 1
        assert plt.rcParams["font.size"] == 31


@pytest.mark.parametrize(("truth", "predicted", "words"), [
    ([[1, 1, 0]], [[0, 1, 1]], "Dice 0.50; 1 pixels missed, 1 false positive"),
    ([[0, 0, 0]], [[0, 0, 0]], "no Dice (both empty); 0 pixels missed, 0 false positive"),
    ([[1, 1, 1]], [[1, 1, 1]], "Dice 1.00; 0 pixels missed, 0 false positive"),
    ([[0, 0, 0]], [[0, 1, 0]], "Dice 0.00; 0 pixels missed, 1 false positive"),
])
def test_errors_in_words(truth, predicted, words):
    assert error_words(np.array(truth, bool), np.array(predicted, bool)) == words
