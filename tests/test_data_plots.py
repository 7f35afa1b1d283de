import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fitting import misfits

from lits_helpers import data_plots, drawing


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def labelled_volume():
    """Air with a liver of 100 HU, 30 of whose voxels are tumour of 60 HU."""
    hounsfield, labels = np.full((2, 20, 20), -1000, np.int16), np.zeros((2, 20, 20), np.uint8)
    hounsfield[:, 5:15, 5:15], labels[:, 5:15, 5:15] = 100, 1
    hounsfield[0, 5:8, 5:15], labels[0, 5:8, 5:15] = 60, 2
    return hounsfield, labels


def test_the_histogram_counts_every_voxel_and_gives_the_medians():
    whole, close = data_plots.hounsfield_histogram(*labelled_volume()).axes
    heights = [patch.get_height() for patch in whole.patches]
    assert 600 in heights and 170 in heights and 30 in heights  # air, liver, tumour
    assert [text.get_text() for text in close.get_legend().get_texts()] == [
        "liver: median 100 HU", "tumour: median 60 HU",
    ]


def test_a_volume_without_tumour_has_a_histogram_too():
    hounsfield, labels = labelled_volume()
    _, close = data_plots.hounsfield_histogram(hounsfield, labels * 0).axes
    assert close.get_title() == "Labelled voxels"


def test_a_gallery_outlines_what_is_labelled_and_explains_the_colours_only_then():
    grey, labels = np.zeros((8, 8), np.uint8), np.eye(8, dtype=np.uint8)
    figure = data_plots.gallery([(grey, None, "plain"), (grey, labels, "outlined")], "two")
    plain, outlined = figure.axes
    assert len(plain.collections) == 0 and len(outlined.collections) == 2
    assert len(figure.legends) == 1 and figure.get_suptitle() == "two"
    assert data_plots.gallery([(grey, None, "plain")], "one").legends == []


def test_damage_is_drawn_by_coding_and_quality_with_png_last():
    scores = pd.DataFrame({
        "coding": ["a", "a", "b", "b"], "quality": [101, 75, 101, 75],
        "tumour_dice": [1, 0.5, 0.9, 0.8], "right_diagnosis": [1, 0.25, 1, 1],
    })
    dice, right = data_plots.coding_damage(scores).axes
    assert [line.get_ydata().tolist() for line in dice.lines] == [[0.5, 1], [0.8, 0.9]]
    assert right.lines[0].get_ydata().tolist() == [0.25, 1]
    assert [text.get_text() for text in dice.get_xticklabels()] == ["75", "PNG"]


def test_each_lesion_is_a_point_for_each_size():
    lesions = pd.DataFrame({"diameter_mm": [5.0, 30.0], "dice_256": [0.9, 1.0], "dice_96": [0.6, 0.9]})
    (panel,) = data_plots.resolution_ceiling(lesions, (256, 96)).axes
    assert [points.get_offsets().tolist() for points in panel.collections[:2]] == [[[5, 0.9], [30, 1.0]], [[5, 0.6], [30, 0.9]]]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["256 x 256", "96 x 96"]


def test_six_codings_are_six_lines_and_six_sizes_six_sets_of_points():
    scores = pd.DataFrame({"coding": list("abcdef"), "quality": 101, "tumour_dice": 1.0, "right_diagnosis": 1.0})
    assert [len(panel.lines) for panel in data_plots.coding_damage(scores).axes] == [6, 6]
    sizes = (512, 256, 128, 96, 64, 32)
    lesions = pd.DataFrame({"diameter_mm": [5.0], **{f"dice_{size}": [0.9] for size in sizes}})
    (panel,) = data_plots.resolution_ceiling(lesions, sizes).axes
    assert len(panel.collections) == 6


def card(*rows):
    """(method, value, metric, comparable, reason) as comparable_rows gives them."""
    table = pd.DataFrame(rows, columns=["method", "value", "metric", "comparable", "reason"])
    return table.assign(authors="A et al.", year=2020)


CARD = card(
    ("better", 0.9, "Dice", False, "split: by slice, not by patient (leaks)"), ("equal", 0.625, "Dice", True, "same test volumes"),
    ("worse", 0.3, "Dice", True, "same test volumes"), ("other", 0.5, "IoU", False, "metric: IoU, not Dice"),
)


def test_the_card_sets_your_own_number_first_then_comparable_ones_by_value_then_the_others():
    (panel,) = data_plots.comparability_card(CARD, 0.5, low=0.4, high=0.6, name="mine").axes
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "mine: 0.50", "equal (A et al. 2020): 0.625", "worse (A et al. 2020): 0.3", "better (A et al. 2020): 0.9",
    ]
    assert [line.get_xdata()[0] for line in panel.lines[:4]] == [0.5, 0.625, 0.3, 0.9]
    low, high = panel.collections[0].get_segments()[0][:, 0]
    assert (low, high) == (0.4, 0.6)
    assert panel.yaxis_inverted()


def test_the_card_colours_what_is_comparable_and_writes_why_the_rest_is_not():
    figure = data_plots.comparability_card(CARD, 0.5)
    (panel,) = figure.axes
    assert [line.get_color() for line in panel.lines[1:4]] == ["#0072B2", "#0072B2", "#AAAAAA"]
    words = [text.get_text() for text in panel.texts]
    assert words == ["no interval", "same test volumes", "same test volumes", "split: by slice, not by patient (leaks)"]
    assert figure.get_suptitle() == "2 of 3 published numbers compare with this run (1 in other metrics not drawn)"


def test_a_card_on_which_nothing_compares_is_drawn_too():
    figure = data_plots.comparability_card(CARD[:1], 0.5)
    assert figure.get_suptitle().startswith("0 of 1 published")
    assert data_plots.comparability_card(CARD[3:], 0.5).axes[0].get_yticklabels()[0].get_text() == "this run: 0.50"


def test_a_gallery_marks_the_cases_that_it_is_told_of():
    grey = np.zeros((30, 30), np.uint8)
    marks = [drawing.Marks(1, 1, True), drawing.Marks()]
    known, unknown = data_plots.gallery([(grey, None, "known"), (grey, None, "unknown")], "two", marks=marks).axes
    assert {text.get_text() for text in known.texts} == {"R", "L", "10 mm"}
    assert len(unknown.texts) == 0


def test_codings_that_score_the_same_show_one_beside_the_other():
    scores = pd.DataFrame({"coding": ["a", "b", "c"], "quality": 90, "tumour_dice": 1.0, "right_diagnosis": 1.0})
    dice, _ = data_plots.coding_damage(scores).axes
    widths = [line.get_linewidth() for line in dice.lines]
    assert (np.diff(widths) < -1).all()  # in points; the narrowest is drawn last


NAMES = ("liver: 150 wide at 30 HU", "abdomen: 400 wide at 50 HU", "lungs: 1500 wide at -600 HU", "bone: 1800 wide at 400 HU")
DAMAGE = pd.DataFrame({
    "coding": ["0/127/255", "colours", "report-jpg", "labels"], "quality": [75, 90, 100, 101],
    "tumour_dice": [1, 0.9, 0.8, 0.7], "right_diagnosis": [1, 0.9, 0.8, 0.7],
})
LESIONS = pd.DataFrame({"diameter_mm": [5.0, 30.0], "dice_256": [0.9, 1.0], "dice_96": [0.6, 0.9]})
LONG_CARD = card(*[(f"a method with a long name, number {n}", 0.9 - n / 30, "Dice", False, "data: LiTS test, not phantom; "
                    "split: challenge, not by patient; target: liver, not tumour; both-empty cases: 1") for n in range(20)])
FIGURES = {
    "gallery": lambda: data_plots.gallery(
        [(np.zeros((40, 40), np.uint8), None, name) for name in NAMES], "Windows", marks=[drawing.Marks(0.7, 0.7, True)] * 4
    ),
    "hounsfield_histogram": lambda: data_plots.hounsfield_histogram(*labelled_volume()),
    "coding_damage": lambda: data_plots.coding_damage(DAMAGE),
    "resolution_ceiling": lambda: data_plots.resolution_ceiling(LESIONS, (256, 96)),
    "comparability_card": lambda: data_plots.comparability_card(LONG_CARD, 0.5),
}


def test_every_figure_of_the_module_is_tried_for_print():
    public = {name for name, it in vars(data_plots).items() if getattr(it, "__module__", "") == data_plots.__name__}
    assert set(FIGURES) == public


@pytest.mark.parametrize("name", FIGURES)
def test_words_are_large_enough_inside_the_figure_and_apart(name):
    figure = FIGURES[name]()
    assert misfits(figure) == []
    assert figure.get_size_inches()[0] <= 11
