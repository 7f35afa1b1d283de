import matplotlib

matplotlib.use("Agg")

import os
import threading

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from ipywidgets import Button, Checkbox, Play

from lits_helpers import model_widgets
from lits_helpers.files import DataError
from lits_helpers.model_size import unet_levels

IMAGE = np.full((16, 16, 3), 50, np.uint8)


def write_history(folder, losses, **columns):
    history = pd.DataFrame({"epoch": range(1, len(losses) + 1), "loss": losses, **columns})
    history.to_csv(folder / "history.csv", index=False)
    # Two files written within one tick of the clock would look the same.
    os.utime(folder / "history.csv", ns=(0, len(losses) * 10**9))


def above(monitor, kind):
    [found] = [child for child in monitor.children[0].children if isinstance(child, kind)]
    return found


def losses_shown(monitor):
    return monitor.figure.axes[0].lines[0].get_ydata().tolist()


@pytest.fixture
def monitor(tmp_path):
    write_history(tmp_path, [0.9, 0.7], val_loss=[1.0, 0.8], dice_coef=[0.1, 0.2], seconds=[3.0, 1.0])
    return model_widgets.training_monitor(tmp_path)


def test_the_monitor_shows_the_loss_of_the_epochs_so_far(monitor):
    assert losses_shown(monitor) == [0.9, 0.7]
    assert monitor.words.value == "2 epochs finished, 2.0 s each; lowest val_loss 0.800 in epoch 2"


def test_a_look_shows_the_epochs_finished_since(monitor, tmp_path):
    write_history(tmp_path, [0.9, 0.7, 0.5])
    assert losses_shown(monitor) == [0.9, 0.7]
    above(monitor, Button).click()
    assert losses_shown(monitor) == [0.9, 0.7, 0.5]
    assert monitor.words.value == "3 epochs finished"
    assert monitor.controls["first"].max == 3


def test_every_tick_of_the_browser_is_a_look(monitor, tmp_path):
    write_history(tmp_path, [0.9, 0.7, 0.5])
    above(monitor, Play).value += 1
    assert losses_shown(monitor) == [0.9, 0.7, 0.5]


def test_the_clock_runs_while_the_box_is_ticked(monitor):
    assert not above(monitor, Play).playing
    above(monitor, Checkbox).value = True
    assert above(monitor, Play).playing
    above(monitor, Checkbox).value = False
    assert not above(monitor, Play).playing


def test_a_look_without_news_draws_nothing(monitor):
    before = monitor.figure
    above(monitor, Button).click()
    assert monitor.figure is before


def test_the_first_epochs_can_be_left_out(monitor):
    monitor.controls["first"].value = 2
    assert losses_shown(monitor) == [0.7]


def best_shown(monitor):
    """The words of the legend that name a best epoch."""
    [legend] = monitor.figure.legends
    return [text.get_text() for text in legend.get_texts() if "best" in text.get_text()]


def test_the_best_epoch_is_marked_only_where_it_is_shown(tmp_path):
    write_history(tmp_path, [0.9, 0.7, 0.5], val_loss=[0.6, 1.0, 0.8])
    monitor = model_widgets.training_monitor(tmp_path)
    assert best_shown(monitor) == ["best val_loss: epoch 1"]
    monitor.controls["first"].value = 2
    assert best_shown(monitor) == []
    assert "lowest val_loss 0.600 in epoch 1" in monitor.words.value


def test_a_run_whose_validation_losses_are_no_numbers_is_shown(tmp_path):
    write_history(tmp_path, [0.9, 0.7], val_loss=[float("nan")] * 2)
    monitor = model_widgets.training_monitor(tmp_path)
    assert losses_shown(monitor) == [0.9, 0.7]
    assert best_shown(monitor) == []


def test_a_chosen_curve_stays_chosen_when_epochs_come(monitor, tmp_path):
    monitor.controls["metric"].value = "dice_coef"
    assert losses_shown(monitor) == [0.1, 0.2]
    write_history(tmp_path, [0.9, 0.7, 0.5], dice_coef=[0.1, 0.2, 0.3])
    above(monitor, Button).click()
    assert losses_shown(monitor) == [0.1, 0.2, 0.3]


def test_all_curves_can_be_shown_at_once(monitor):
    monitor.controls["metric"].index = 2
    assert len(monitor.figure.axes) == 2


def test_a_run_that_has_not_begun_is_waited_for(tmp_path):
    monitor = model_widgets.training_monitor(tmp_path / "run")
    assert "No epoch is finished yet" in monitor.words.value
    (tmp_path / "run").mkdir()
    write_history(tmp_path / "run", [0.9])
    above(monitor, Button).click()
    assert losses_shown(monitor) == [0.9]


@pytest.mark.parametrize("content", ["", "colour\nred\n", "epoch\nred\n"])
def test_a_file_that_is_no_history_is_named(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    words = model_widgets.training_monitor(tmp_path).words.value
    assert "history.csv: no table of epochs" in words


def test_the_monitor_starts_no_thread_and_leaves_no_figure_open(tmp_path):
    before = set(threading.enumerate())
    write_history(tmp_path, [0.9])
    above(model_widgets.training_monitor(tmp_path), Button).click()
    assert set(threading.enumerate()) == before
    assert plt.get_fignums() == []


def case(title, truth_columns, predicted_columns):
    """A slice of which 16 pixels a column are tumour, and found."""
    truth, probability = np.zeros((16, 16), bool), np.zeros((16, 16))
    truth[:, :truth_columns] = True
    probability[:, :predicted_columns] = 0.9
    return IMAGE, truth, probability, title


CASES = [case("good", 4, 4), case("empty", 0, 0), case("much added", 4, 12), case("missed", 2, 0)]


def titles(reviewer):
    """The cases from first to last."""
    found = []
    for rank in range(len(CASES)):
        reviewer.controls["rank"].value = rank
        found.append(reviewer.words.value.split(": ")[1])
    return found


def test_the_worst_comes_first_and_an_undefined_dice_last():
    # Dice 1, none, 2 * 4 / 16 = 0.5, and 0.
    assert titles(model_widgets.prediction_reviewer(CASES)) == ["missed", "much added", "good", "empty"]


@pytest.mark.parametrize(("order", "worst"), [("pixels missed", "missed"), ("false-positive pixels", "much added")])
def test_cases_are_sorted_by_what_is_chosen(order, worst):
    reviewer = model_widgets.prediction_reviewer(CASES)
    reviewer.controls["order"].value = order
    assert titles(reviewer)[0] == worst


def test_a_case_is_told_in_words():
    reviewer = model_widgets.prediction_reviewer(CASES)
    reviewer.controls["rank"].value = 1
    assert reviewer.words.value == "2 of 4: much added: Dice 0.50; 0 pixels missed, 128 false positive"


def test_truth_prediction_and_errors_are_side_by_side():
    reviewer = model_widgets.prediction_reviewer([CASES[2]])
    truth, predicted, errors = reviewer.figure.axes
    assert [panel.get_title() for panel in (truth, predicted, errors)] == ["Truth", "Prediction", "Errors"]
    assert [len(panel.collections[0].get_segments()) for panel in (truth, predicted)] == [40, 56]
    assert (errors.images[1].get_array()[..., 3] > 0).sum() == 12 * 16


def test_zoom_2_shows_half_of_the_rows_about_the_mask():
    reviewer = model_widgets.prediction_reviewer([CASES[2]])  # columns 0-11, middle 5.5
    reviewer.controls["zoom"].value = 2
    assert reviewer.figure.axes[0].get_xlim() == (1.5, 9.5)
    assert reviewer.figure.axes[0].get_ylim() == (11.5, 3.5)


def test_zoom_stays_within_the_picture():
    reviewer = model_widgets.prediction_reviewer([CASES[3]])  # columns 0 and 1
    reviewer.controls["zoom"].value = 4
    assert reviewer.figure.axes[0].get_xlim() == (-0.5, 3.5)


def test_without_truth_and_prediction_zoom_shows_the_middle():
    reviewer = model_widgets.prediction_reviewer([CASES[1]])
    reviewer.controls["zoom"].value = 4
    assert reviewer.figure.axes[0].get_xlim() == (5.5, 9.5)
    assert reviewer.figure.axes[0].get_ylim() == (9.5, 5.5)


def test_outlines_of_predictions_can_be_switched_off():
    reviewer = model_widgets.prediction_reviewer([CASES[2]])
    reviewer.controls["outlines"].value = False
    assert [len(panel.collections) for panel in reviewer.figure.axes] == [0, 0, 0]


def test_no_cases_are_refused():
    with pytest.raises(DataError, match="no predictions"):
        model_widgets.prediction_reviewer([])


def test_labels_in_place_of_a_truth_are_refused():
    with pytest.raises(ValueError, match="truth"):
        model_widgets.prediction_reviewer([(IMAGE, np.full((16, 16), 2), np.zeros((16, 16)), "")])


def test_the_model_starts_as_the_reports():
    words = model_widgets.model_playground().words.value.split("<br>")
    assert words[0] == "31,043,521 parameters, 124.2 MB"
    assert words[1] == "256 x 256 x 3 in, 256 x 256 x 1 out, 16 x 16 x 1024 at the bottom"


def test_depth_and_filters_change_the_model():
    playground = model_widgets.model_playground()
    playground.controls["depth"].value = 1
    playground.controls["filters"].value = 4
    # Worked out in test_model_size.
    assert playground.words.value.startswith("1,781 parameters")
    assert "128 x 128 x 8 at the bottom" in playground.words.value
    assert len(playground.figure.axes[0].patches) == 4


def test_a_size_that_cannot_be_halved_so_often_is_told_in_words():
    playground = model_widgets.model_playground()
    playground.controls["image_size"].value = 240
    playground.controls["depth"].value = 5
    assert "use 224 or 256" in playground.words.value


def bars(panel):
    return [round(bar.get_width(), 6) for bar in panel.patches]


def test_bars_are_parameters_by_level_and_way():
    levels = unet_levels(32, filters=4, depth=1)
    parameters, memory = model_widgets.unet_overview(levels).axes
    # Worked out in test_model_size: down 276, bottom 912, up 593 on the slice's own level.
    assert bars(parameters) == [0.000276, 0.000912, 0.000593, 0]
    assert bars(memory) == pytest.approx([32 * 32 * 56 * 4 / 1e6, 16 * 16 * 44 * 4 / 1e6])
    assert [label.get_text() for label in parameters.get_yticklabels()] == ["32 x 32 x 4", "16 x 16 x 8"]


def test_the_slices_own_level_is_on_top():
    parameters, memory = model_widgets.unet_overview(unet_levels(32, filters=4, depth=1)).axes
    for panel in (parameters, memory):
        low, high = panel.get_ylim()
        assert low > high


def test_another_network_takes_the_place_of_the_one_before():
    figure = model_widgets.unet_overview(unet_levels(32, filters=4, depth=1))
    model_widgets.draw_unet(figure, unet_levels())
    parameters, memory = figure.axes
    assert len(parameters.patches) == 10
    assert len(memory.patches) == 5
    assert figure.get_suptitle() == "U-Net of 31,043,521 parameters, level by level"
