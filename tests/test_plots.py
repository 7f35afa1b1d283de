import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fitting import misfits
from matplotlib.colors import to_rgba

from lits_helpers import drawing, masks, plots

BLANK = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def texts(figure):
    """Every word of a figure, after drawing it (which must work too)."""
    figure.canvas.draw()
    found = figure.findobj(matplotlib.text.Text)
    return [text.get_text() for text in found if text.get_text()]


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def labels_with(liver=(), tumour=(), shape=(16, 16)):
    labels = np.zeros(shape, np.uint8)
    for rows, columns in liver:
        labels[rows, columns] = 1
    for rows, columns in tumour:
        labels[rows, columns] = 2
    return labels


LIVER_AND_TUMOUR = labels_with(liver=[(slice(2, 12), slice(1, 9))], tumour=[(slice(4, 7), slice(3, 5))])


def table_of(diagnoses, **columns):
    return pd.DataFrame({"diagnosis": diagnoses, "report_diagnosis": diagnoses, **columns})


# --- the family -------------------------------------------------------------------------------


def test_a_figure_leaves_the_readers_settings_alone():
    before = dict(plt.rcParams)
    plots.class_counts(table_of([0, 1]))
    assert dict(plt.rcParams) == before


def test_pyplot_knows_each_figure_so_that_show_shows_it_once():
    figure = plots.class_counts(table_of([0, 1, 2]))
    assert plt.get_fignums() == [figure.number]


def test_importing_figures_and_widgets_does_not_import_tensorflow():
    code = (
        "import sys, lits_helpers.plots, lits_helpers.widgets;"
        "print(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- class counts -----------------------------------------------------------------------------


def test_bars_are_the_counts_of_the_table_beside_those_of_the_report():
    figure = plots.class_counts(table_of([0] * 5 + [1] * 3 + [2] * 2))
    counted, reported = figure.axes
    assert [bar.get_height() for bar in counted.patches] == [5, 3, 2]
    assert [bar.get_height() for bar in reported.patches] == [19_777, 6_948, 2_631]
    assert [text.get_text() for text in counted.texts] == ["5\n(50%)", "3\n(30%)", "2\n(20%)"]
    assert "19,777\n(67%)" in texts(figure)


def test_the_reports_own_rule_gets_a_panel_where_it_differs():
    table = table_of([0, 1, 1, 2])
    table["report_diagnosis"] = [0, 2, 2, 2]
    figure = plots.class_counts(table)
    assert [bar.get_height() for bar in figure.axes[1].patches] == [1, 0, 3]
    assert "report's rule" in figure.axes[1].get_title()


def test_a_class_without_slices_has_a_bar_of_none():
    figure = plots.class_counts(table_of([1]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["0\n(0%)", "1\n(100%)", "0\n(0%)"]


# --- slices -----------------------------------------------------------------------------------


def test_examples_show_each_slice_bare_above_and_outlined_below():
    titles = ["empty", "liver only", "liver and tumour"]
    labels = [labels_with(), np.minimum(LIVER_AND_TUMOUR, 1), LIVER_AND_TUMOUR]
    figure = plots.example_slices([(BLANK, mask, title) for mask, title in zip(labels, titles)])
    above, below = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in above] == titles
    assert [len(axes.collections) for axes in above] == [0, 0, 0]
    edges = [[len(lines.get_segments()) for lines in axes.collections] for axes in below]
    assert edges == [[0, 0], [36, 0], [36, 10]]
    assert legend_texts(figure) == ["liver", "tumour"]
    assert "CT window −40 to 160 HU" in texts(figure)


def test_the_window_is_not_claimed_for_an_image_without_channels():
    figure = plots.example_slices([(BLANK[..., 0], labels_with(), "grey")])
    assert not any("HU" in text for text in texts(figure))


def test_augmentation_shows_one_row_a_slice_with_outlines_in_every_panel():
    row = [(BLANK, LIVER_AND_TUMOUR, "original"), (BLANK, LIVER_AND_TUMOUR[:, ::-1], "flipped")]
    figure = plots.augmentation_preview([row, row, row])
    assert [axes.get_title() for axes in figure.axes] == ["original", "flipped"] * 3
    original, flipped = (axes.collections[1].get_segments() for axes in figure.axes[:2])
    assert min(np.array(original)[..., 0].ravel()) == 2.5  # tumour columns 3 and 4
    assert min(np.array(flipped)[..., 0].ravel()) == 10.5  # become 11 and 12


# --- mask conversion --------------------------------------------------------------------------


def test_a_coded_mask_is_shown_as_stored_in_grey_as_target_and_decoded():
    coded = np.full((16, 16, 3), (76, 51, 0), np.uint8)
    coded[2:12, 1:9] = (78, 52, 127)
    coded[4:7, 3:5] = (79, 53, 255)
    figure = plots.mask_conversion([(coded, LIVER_AND_TUMOUR, "volume 1, slice 2")])
    stored, grey, target, decoded = (axes.images[0].get_array() for axes in figure.axes[:4])
    assert (stored == coded).all()
    assert [int(grey[y, x]) for y, x in ((0, 0), (2, 1), (4, 3))] == [53, 68, 84]
    assert np.count_nonzero(target) == 6 and target[4:7, 3:5].all()
    assert tuple(decoded[2, 1]) == to_rgba(drawing.LIVER_COLOUR)
    assert tuple(decoded[4, 3]) == to_rgba(drawing.TUMOUR_COLOUR)
    assert figure.axes[0].get_ylabel() == "volume 1, slice 2"
    assert legend_texts(figure)[:2] == ["liver", "tumour"]


def test_a_mask_stored_in_grey_is_shown_with_its_own_levels():
    figure = plots.mask_conversion([(LIVER_AND_TUMOUR * 127, LIVER_AND_TUMOUR, "0, 127, 254")])
    assert (figure.axes[1].images[0].get_array() == LIVER_AND_TUMOUR * 127).all()
    assert figure.axes[1].images[0].get_clim() == (0, 254)


# --- split ------------------------------------------------------------------------------------


def split_table(splits):
    return table_of([0, 1, 1, 2, 1], volume=[3, 3, 3, 3, 7], split=splits)


def test_each_side_of_a_split_has_a_bar_for_its_volumes_slices():
    figure = plots.split_overview(split_table(["train"] * 4 + ["test"]))
    train, validation, test = figure.axes
    widths = [[bar.get_width() for bar in axes.patches] for axes in (train, validation, test)]
    # Bars come by diagnosis, in each for volume 3 and then volume 7.
    assert widths == [[1, 0, 2, 0, 1, 0], [0] * 6, [0, 0, 0, 1, 0, 0]]
    assert [bar.get_x() for bar in train.patches[::2]] == [0, 1, 3]
    assert train.get_title() == "train (volumes: 1, slices: 4)"
    assert figure.get_suptitle() == "Split of 2 volumes, none on two sides"


def test_a_volume_on_two_sides_is_counted_in_the_title_and_bold():
    figure = plots.split_overview(split_table(["train", "test", "train", "test", "train"]))
    assert figure.get_suptitle() == "Split of 2 volumes, 1 on more than one side: leaks"
    weights = {t.get_text(): t.get_fontweight() for t in figure.axes[0].get_yticklabels()}
    assert weights == {"3": "bold", "7": "normal"}


# --- training ---------------------------------------------------------------------------------


HISTORY = pd.DataFrame({
    "epoch": [1, 2, 3],
    "loss": [0.9, 0.5, 0.3], "val_loss": [0.8, 0.4, 0.6],
    "pooled_dice": [0.2, 0.5, 0.7], "val_pooled_dice": [0.1, 0.3, 0.4],
    "learning_rate": [1e-3, 1e-3, 1e-4], "seconds": [9.0, 8.0, 8.0],
})  # fmt: skip


def lines_by_label(axes):
    return {line.get_label().split(":")[0]: line for line in axes.lines}


def test_each_metric_has_a_panel_with_its_training_and_validation_values():
    figure = plots.training_curves(HISTORY)
    loss, dice, rate = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        "Loss", "Dice, pooled over pixels", "Learning rate",
    ]
    assert lines_by_label(loss)["training"].get_ydata().tolist() == [0.9, 0.5, 0.3]
    assert lines_by_label(dice)["validation"].get_ydata().tolist() == [0.1, 0.3, 0.4]
    assert "validation" not in lines_by_label(rate)


@pytest.mark.parametrize(("monitor", "best"), [("val_loss", 2), ("val_pooled_dice", 3)])
def test_the_best_epoch_is_that_of_the_lowest_loss_or_the_highest_score(monitor, best):
    figure = plots.training_curves(HISTORY, monitor=monitor)
    assert legend_texts(figure) == ["training", "validation", f"best {monitor}: epoch {best}"]
    assert figure.axes[1].lines[-1].get_xdata() == [best, best]


def test_a_history_of_one_epoch_without_validation_is_drawn_unmarked():
    figure = plots.training_curves(HISTORY[["epoch", "loss"]].head(1))
    assert legend_texts(figure) == ["training"]
    assert figure.axes[0].lines[0].get_marker() == "."  # one point has no line to see


# --- predictions ------------------------------------------------------------------------------


TRUTH = np.zeros((40, 40), bool)
TRUTH[10:12, 20] = True
PROBABILITY = np.zeros((40, 40))
PROBABILITY[11:13, 20] = 0.4
CT = np.zeros((40, 40, 3), np.uint8)


def test_predictions_show_truth_prediction_probability_and_errors_with_dice_in_the_title():
    figure = plots.predictions([(CT, TRUTH, PROBABILITY, "best: volume 3, slice 40")], threshold=0.3)
    ct, truth, predicted, probability, errors, scale = figure.axes
    assert ct.get_ylabel() == "best: volume 3, slice 40\nDice 0.50"
    assert len(truth.collections[0].get_segments()) == 6
    assert len(predicted.collections[0].get_segments()) == 6
    assert probability.images[0].get_clim() == (0, 1)
    colours = errors.images[1].get_array()
    for row, kind in ((10, "missed"), (11, "found"), (12, "false positive")):
        assert tuple(colours[row, 20]) == to_rgba(drawing.ERROR_COLOURS[kind])
    assert legend_texts(figure) == ["tumour", "found", "missed", "false positive"]
    assert scale.get_xlim() == (0, 1)


def test_the_enlarged_square_holds_truth_and_prediction_and_is_framed_in_the_ct():
    figure = plots.predictions([(CT, TRUTH, PROBABILITY, "")], threshold=0.3)
    (frame,) = figure.axes[0].patches
    left, right = figure.axes[4].get_xlim()
    bottom, top = figure.axes[4].get_ylim()
    assert (frame.get_x(), frame.get_y()) == (left, top)
    assert right - left == bottom - top == 10  # a quarter of 40 pixels, at least
    assert left < 19.5 and right > 20.5 and top < 9.5 and bottom > 12.5


@pytest.mark.parametrize("corner", [(0, 0), (39, 39)])
def test_the_enlarged_square_stays_inside_the_picture(corner):
    truth = np.zeros((40, 40), bool)
    truth[corner] = True
    figure = plots.predictions([(CT, truth, np.zeros((40, 40)), "")])
    (left, right), (bottom, top) = figure.axes[1].get_xlim(), figure.axes[1].get_ylim()
    assert -0.5 <= left and right <= 39.5 and -0.5 <= top and bottom <= 39.5
    assert left <= corner[1] <= right and top <= corner[0] <= bottom


def test_a_slice_with_both_masks_empty_is_shown_whole_and_has_no_dice():
    nothing = np.zeros((40, 40), bool)
    figure = plots.predictions([(CT, nothing, nothing * 1.0, "empty")])
    assert figure.axes[0].get_ylabel() == "empty\nno Dice (both empty)"
    assert figure.axes[4].get_xlim() == (-0.5, 39.5)
    figure.canvas.draw()


def test_labels_in_place_of_a_truth_mask_are_refused():
    with pytest.raises(ValueError, match="2"):
        plots.predictions([(BLANK, LIVER_AND_TUMOUR, np.zeros((16, 16)), "")])


def test_a_long_title_is_broken_at_a_comma_and_a_short_one_is_not():
    titles = ("median: volume 103, slice 440", "volume 3, slice 4\nsmall, and dark")
    figure = plots.predictions([(CT, TRUTH, PROBABILITY, title) for title in titles])
    assert [panel.get_ylabel() for panel in figure.axes[:10:5]] == [
        "median: volume 103,\nslice 440\nDice 0.50", "volume 3, slice 4\nsmall, and dark\nDice 0.50",
    ]


def test_a_liver_prediction_is_outlined_and_named_as_liver():
    figure = plots.predictions([(CT, TRUTH, PROBABILITY, "")], target="liver")
    assert legend_texts(figure)[0] == "liver"
    assert tuple(figure.axes[1].collections[0].get_edgecolor()[0]) == to_rgba(drawing.LIVER_COLOUR)


# --- scores -----------------------------------------------------------------------------------


def test_the_confusion_matrix_prints_counts_and_shares_of_the_row():
    names = ["tumour", "no tumour"]
    matrix = pd.DataFrame([[3, 1], [0, 0]], pd.Index(names, name="true slices"), names)
    (axes,) = plots.confusion_matrix(matrix).axes
    printed = {text.get_position(): text.get_text() for text in axes.texts}
    assert printed == {
        (0, 0): "3\n(75.0%)", (1, 0): "1\n(25.0%)", (0, 1): "0\n(0.0%)", (1, 1): "0\n(0.0%)",
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true slices")
    assert [label.get_text() for label in axes.get_yticklabels()] == names


def test_dice_is_shown_by_slice_and_patient_and_undefined_ones_are_counted():
    slices = pd.DataFrame({"dice": [0.2, 0.4, 0.9, np.nan, np.nan]})
    patients = pd.DataFrame({"dice": [0.5, 0.7, 0.0, np.nan], "truth_pixels": [10, 1000, 0, 0]})
    strips, by_size = plots.dice_distribution(slices, patients).axes
    assert [label.get_text() for label in strips.get_xticklabels()] == [
        "3 slices\n2 left out (both empty)\nmedian 0.40",
        "3 patients\n1 left out (both empty)\nmedian 0.50",
    ]
    assert [dots.get_ydata().tolist() for dots in strips.lines] == [[0.2, 0.4, 0.9], [0.5, 0.7, 0]]
    (dots,) = by_size.lines
    assert dots.get_xydata().tolist() == [[10, 0.5], [1000, 0.7]]


def test_dice_that_is_undefined_everywhere_is_drawn_without_a_median():
    nothing = pd.DataFrame({"dice": [np.nan], "truth_pixels": [0]})
    figure = plots.dice_distribution(nothing, nothing)
    assert "0 slices\n1 left out (both empty)" in texts(figure)


def test_duplicate_slices_stand_beside_their_difference():
    first, second = np.full((8, 8), 200, np.uint8), np.full((8, 8), 90, np.uint8)
    figure = plots.duplicate_slices([(first, second, "volume 1 and 6"), (second, first, "volume 3 and 7")])
    pictures = [panel.images[0].get_array() for panel in figure.axes[:6]]
    assert [int(picture[0, 0]) for picture in pictures] == [200, 90, -110, 90, 200, 110]
    limits = [panel.images[0].get_clim() for panel in figure.axes[:6]]
    assert limits == [(0, 255), (0, 255), (-128, 128)] * 2
    assert {"volume 1 and 6", "volume 3 and 7", "Second less first", "grey levels, of 255"} <= set(texts(figure))


# --- fit to print -----------------------------------------------------------------------------


MANY = table_of([0, 1, 2] * 40, volume=np.repeat(range(60), 2), split=["train", "validation", "test"] * 40)
LONG_HISTORY = HISTORY.assign(accuracy=0.9, dice_coef=0.5, iou=0.4, pooled_iou=0.3)
SCORES = pd.DataFrame({"dice": [0.2, 0.4, np.nan], "truth_pixels": [200, 123_456, 0]})
ROW = [(CT, np.zeros((40, 40), np.uint8), "rotation\nby 12 degrees")] * 4
LINE = (CT, TRUTH, PROBABILITY, "median: volume 103, slice 440")
FIGURES = {
    "class_counts": lambda: plots.class_counts(table_of([0, 1, 2, 2]).assign(report_diagnosis=1)),
    "example_slices": lambda: plots.example_slices(ROW, marks=[drawing.Marks(0.7, 0.7, True)] * 4),
    "augmentation_preview": lambda: plots.augmentation_preview([ROW, ROW]),
    "coding_example": lambda: plots.coding_example(
        coding_of((0, 0, 0), (0, 255, 0), (255, 0, 0)), BLANK, labels_with()
    ),
    "mask_conversion": lambda: plots.mask_conversion([(BLANK, LIVER_AND_TUMOUR, "volume 103, slice 440")] * 3),
    "split_overview": lambda: plots.split_overview(MANY),
    "training_curves": lambda: plots.training_curves(LONG_HISTORY),
    "dice_against_seconds": lambda: plots.dice_against_seconds(
        {"report": LONG_HISTORY, "fast": LONG_HISTORY.assign(seconds=2.0)}, data="synthetic phantom"
    ),
    "predictions": lambda: plots.predictions([LINE] * 3, marks=[drawing.Marks(0.7, 0.7, True)] * 3),
    "confusion_matrix": lambda: plots.confusion_matrix(
        pd.DataFrame([[12_345, 1], [0, 7]], pd.Index(["tumour", "no tumour"], name="true slices"), ["tumour", "no tumour"])
    ),
    "dice_distribution": lambda: plots.dice_distribution(SCORES, SCORES),
    "duplicate_slices": lambda: plots.duplicate_slices([(BLANK[..., 0], BLANK[..., 0], "volume 1\nvolume 6")] * 2),
}


def test_every_figure_of_the_module_is_tried_for_print():
    public = {name for name, it in vars(plots).items() if getattr(it, "__module__", "") == plots.__name__ and name[0] != "_"}
    assert set(FIGURES) == public


@pytest.mark.parametrize("name", FIGURES)
def test_words_are_large_enough_inside_the_figure_and_apart(name):
    figure = FIGURES[name]()
    assert misfits(figure) == []
    assert figure.get_size_inches()[0] <= 10


def test_runs_are_drawn_against_the_seconds_they_took():
    history = pd.DataFrame({"seconds": [2.0, 3.0, 1.0], "val_pooled_dice": [0.1, 0.5, 0.4]})
    [axes] = plots.dice_against_seconds({"one": history}, data="a test").axes
    [line] = axes.lines
    assert line.get_xydata().tolist() == [[2.0, 0.1], [5.0, 0.5], [6.0, 0.4]]


def test_six_runs_are_six_lines():
    history = pd.DataFrame({"seconds": [2.0], "val_pooled_dice": [0.1]})
    [axes] = plots.dice_against_seconds({f"run {number}": history for number in range(6)}, data="a test").axes
    colours = [line.get_color() for line in axes.lines]
    assert len(colours) == 6
    assert len(set(colours)) == 5 and colours[5] == colours[0]


# --- scale and sides --------------------------------------------------------------------------


def test_predictions_mark_sides_in_the_ct_and_the_scale_there_and_enlarged():
    figure = plots.predictions([LINE], marks=[drawing.Marks(1.0, 0.5, True)])
    ct, truth, predicted = figure.axes[:3]
    assert {text.get_text() for text in ct.texts} == {"R", "L", "5 mm"}  # of 40 pixels, 20 mm
    assert {text.get_text() for text in truth.texts} == {"1 mm"}  # of 10 pixels, 5 mm
    assert [axes.get_aspect() for axes in (ct, truth, predicted)] == [2, 2, 2]


def test_a_mark_for_each_case_or_none():
    with pytest.raises(ValueError):
        plots.predictions([LINE, LINE], marks=[drawing.Marks()])


def test_nothing_is_marked_unless_it_is_told():
    for figure in (plots.predictions([LINE]), plots.example_slices(ROW)):
        assert not any(axes.texts for axes in figure.axes)


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [((7_700, 38_000), ["1,000", "2,000", "5,000", "10,000", "20,000", "50,000", "100,000"]),
     ((3, 200_000), ["1", "10", "100", "1,000", "10,000", "100,000", "1,000,000"]),
     ((100, 100), ["100", "200", "500", "1,000"])],
)  # fmt: skip
def test_the_size_axis_is_labelled_in_plain_figures(sizes, shown):
    patients = pd.DataFrame({"dice": [0.5, 0.7], "truth_pixels": sizes})
    figure = plots.dice_distribution(patients, patients)
    figure.canvas.draw()
    axis = figure.axes[1].xaxis
    low, high = figure.axes[1].get_xlim()
    assert [t.label1.get_text() for t in axis.get_major_ticks() if low <= t.get_loc() <= high] == shown
    assert not any(tick.label1.get_text() for tick in axis.get_minor_ticks())


# --- mask codings -----------------------------------------------------------------------------


def coding_of(*levels, **options):
    return masks.Coding("0/128/255", {level: label for label, level in enumerate(levels)}, files=7, **options)


def test_a_coding_shows_the_file_its_levels_and_the_labels_they_mean():
    picture = np.array([0, 128, 255], np.uint8)[LIVER_AND_TUMOUR]
    figure = plots.coding_example(coding_of(0, 128, 255, smeared=True), picture, LIVER_AND_TUMOUR)
    stored, levels, decoded = figure.axes
    assert stored.images[0].get_array().max() == 255
    bars = {(round(bar.get_x() + bar.get_width() / 2), bar.get_height()) for bar in levels.patches if bar.get_height()}
    assert bars == {(0, 256 - 80), (128, 80 - 6), (255, 6)}
    assert [text.get_text() for text in levels.texts] == ["0", "128", "255"]
    assert decoded.get_title() == "Decoded labels\nliver 74, tumour 6 pixels"
    assert "Mask coding 0/128/255, smeared, from 7 files" in texts(figure)
    assert legend_texts(figure) == ["background", "liver", "tumour"]


def test_labels_as_stored_are_brightened_and_the_title_says_so():
    figure = plots.coding_example(coding_of(0, 1, 2), LIVER_AND_TUMOUR, LIVER_AND_TUMOUR)
    assert figure.axes[0].get_title() == "As stored, shown on a scale of 0 to 2"
    assert [text.get_text() for text in figure.axes[1].texts] == ["0", "1", "2"]


def test_colours_are_marked_at_their_luminance_and_an_empty_mask_is_drawn():
    figure = plots.coding_example(coding_of((0, 0, 0), (0, 255, 0), (255, 0, 0)), BLANK, labels_with())
    texts(figure)
    assert [line.get_xdata()[0] for line in figure.axes[1].lines] == [0, 150, 76]


def test_of_neighbouring_levels_the_one_that_the_picture_holds_is_marked():
    coding = masks.Coding("report-jpg", {53: 0, 54: 1, 83: 1, 84: 2}, files=1)
    picture = np.full((8, 8), 53, np.uint8)
    picture[2:4] = 84
    figure = plots.coding_example(coding, picture, np.where(picture == 84, 2, 0))
    assert [text.get_text() for text in figure.axes[1].texts] == ["53", "84"]
