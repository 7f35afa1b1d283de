import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fitting import misfits
from matplotlib.image import AxesImage

from lits_helpers import calibration, explanation_plots

IMAGE = np.full((24, 31, 3), 90, np.uint8)
LABELS = np.zeros((24, 31), np.uint8)
LABELS[5:15, 5:20] = 1
LABELS[8:10, 8:11] = 2
MAP = np.linspace(0, 7, LABELS.size, dtype=np.float32).reshape(LABELS.shape)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def pictures(panel):
    return [artist for artist in panel.images if isinstance(artist, AxesImage)]


def drawn(figure):
    """A figure whose words are large enough, inside it and apart, whatever it holds."""
    assert misfits(figure) == []
    return figure


def test_each_map_has_its_own_scale_and_the_region_is_outlined():
    figure = drawn(explanation_plots.explanation_maps(IMAGE, LABELS, LABELS == 2, {"one": MAP, "two": 100 * MAP}))
    ct, one, two = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["CT", "one", "two"]
    assert pictures(one)[0].get_clim() == (0, 7) and pictures(two)[0].get_clim() == (0, 700)
    assert len(one.collections[0].get_segments()) == 10  # around 2 x 3 pixels


def test_seven_maps_take_two_lines_and_leave_no_empty_panel():
    figure = explanation_plots.explanation_maps(IMAGE, LABELS, LABELS == 2, {f"bottleneck, {12 + n} x {12 + n}": MAP for n in range(6)})
    assert len(drawn(figure).axes) == 7


def test_a_map_of_zeros_and_an_empty_region_are_drawn():
    nothing = np.zeros_like(MAP)
    assert len(drawn(explanation_plots.explanation_maps(IMAGE, 0 * LABELS, LABELS > 5, {"none": nothing})).axes) == 2


def check(steps, ranks):
    table = pd.DataFrame({"randomised": range(steps), "layer": "", "spearman": ranks, "ssim": np.linspace(1, 0, steps)})
    return table, np.stack([MAP] * steps)


def test_randomised_maps_stand_beside_the_trained_ones_with_their_likeness():
    checks = {"a": check(9, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, np.nan]), "b": check(9, np.zeros(9))}
    figure = drawn(explanation_plots.randomisation_maps(checks, LABELS == 2, columns=3))
    assert [panel.get_title() for panel in figure.axes[:3]] == ["trained", "4 of 8\nrandomised", "8 of 8\nrandomised"]
    words = [panel.get_xlabel() for panel in figure.axes]
    assert words == ["", "rank 0.60\nSSIM 0.50", "no rank\nSSIM 0.00", "", "rank 0.00\nSSIM 0.50", "rank 0.00\nSSIM 0.00"]


def test_six_steps_of_a_network_of_many_layers_stand_beside_each_other():
    figure = drawn(explanation_plots.randomisation_maps({"Gradient": check(19, np.zeros(19))}, LABELS == 2))
    assert [panel.get_title() for panel in figure.axes][1:] == [f"{n} of 18\nrandomised" for n in (4, 7, 11, 14, 18)]


def test_likeness_is_drawn_step_by_step_beside_maps_that_know_no_network():
    figure = drawn(explanation_plots.randomisation_curves({"a": check(3, [1, 0.4, -0.2])}, references={"nearness": 0.9}))
    rank, structure = figure.axes
    assert rank.lines[0].get_xydata().tolist() == [[0, 1], [1, 0.4], [2, -0.2]]
    assert structure.lines[0].get_ydata().tolist() == [1, 0.5, 0]
    assert [line.get_label() for line in rank.lines][-1] == "nearness: 0.90"


def test_six_methods_and_four_references_are_all_drawn():
    checks = {name: check(3, [1, 0.4, -0.2]) for name in "abcdef"}
    figure = drawn(explanation_plots.randomisation_curves(checks, references=dict.fromkeys("wxyz", 0.5)))
    rank, structure = figure.axes
    assert (len(rank.lines), len(structure.lines)) == (6 + 1 + 4, 6 + 1)  # the one is the line at 0


def test_of_each_level_the_maps_that_vary_most_are_drawn():
    coarse = np.zeros((3, 4, 3), np.float32)
    coarse[0, 0] = 1, 3, 2
    figure = drawn(explanation_plots.skip_maps(IMAGE, [np.repeat(MAP[..., None], 8, -1), coarse], ["fine", "coarse"], columns=4))
    assert len(figure.axes) == 5 + 4
    assert [panel.get_title() for panel in figure.axes[6:]] == ["map 1", "map 2", "map 0"]
    assert [panel.get_ylabel() for panel in (figure.axes[0], figure.axes[5])] == ["fine", "coarse"]


def test_ablation_shows_dice_and_the_change_against_all_skips():
    steps = pd.DataFrame({
        "step": ["all skips", "without 96 x 96", "without any"], "dice_pooled": [0.8, 0.5, 0.0],
        "dice_pooled_change": [0.0, -0.3, -0.8], "dice_pooled_change_low": [0.0, -0.5, -0.9],
        "dice_pooled_change_high": [0.0, -0.1, -0.7],
    })  # fmt: skip
    dice, change = drawn(explanation_plots.skip_ablation(steps)).axes
    assert dice.lines[0].get_xdata().tolist() == [0.8, 0.5, 0]
    assert [label.get_text() for label in dice.get_yticklabels()] == list(steps.step)
    assert [segment[:, 0].tolist() for segment in change.collections[0].get_segments()] == [[-0.5, -0.1], [-0.9, -0.7]]


def test_uncertainties_are_drawn_on_scales_that_hold_for_all_slices():
    answers = np.zeros((2, *LABELS.shape))
    answers[0, 8] = 1  # half of the answers say tumour in row 8
    found = calibration.predictive_uncertainty(answers)
    figure = drawn(explanation_plots.uncertainty_maps([(IMAGE, LABELS, found, "injected dropout")]))
    limits = [pictures(panel)[0].get_clim() for panel in figure.axes[1:4]]
    assert limits == [(0, 1), (0, 1), (0, 0.5)]
    assert pictures(figure.axes[3])[0].get_array().max() == pytest.approx(0.5)  # of 0 and 1
    assert len(pictures(figure.axes[4])) == 2


def test_reliability_names_error_bins_and_interval_and_lies_on_the_diagonal_where_it_should():
    probabilities = np.array([[[0.25, 0.25, 0.25, 0.25]], [[0.25, 0.25, 0.25, 0.25]]])
    truth = np.array([[[1, 0, 0, 0]], [[1, 1, 1, 0]]], bool)
    counts = calibration.calibration_counts(probabilities, truth, [1, 2], bins=4)
    figure = drawn(explanation_plots.reliability_diagram({"one pass": counts}))
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    # Patients: 0 and 0.5 off, together 0.25.
    assert words == ["kept word", "one pass: calibration error 0.2500 (0.0000 to 0.5000), 4 bins"]
    points = figure.axes[0].lines[1].get_xydata()
    assert points[~np.isnan(points[:, 0])].tolist() == [[0.25, 0.5]]
    assert "8 pixels of 2 patients" in figure.get_suptitle()


def test_a_single_patient_has_points_and_no_interval():
    counts = calibration.calibration_counts(np.full((1, 2, 2), 0.5), np.ones((1, 2, 2)), [1])
    figure = drawn(explanation_plots.reliability_diagram({"x": counts}))
    assert figure.legends[0].get_texts()[1].get_text() == "x: calibration error 0.5000, 10 bins"


def test_errors_left_are_drawn_beside_chance_and_groups_without_errors_have_no_point():
    doubt, wrong = np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, False, False, False])
    found = {"entropy": calibration.error_rejection(doubt, wrong)}
    rates = {"entropy": calibration.error_by_uncertainty(doubt, wrong, groups=4)}
    left, groups = drawn(explanation_plots.rejection_curves(found, rates)).axes
    assert left.lines[0].get_label() == "entropy: gain 1.00"
    assert left.lines[0].get_xydata()[0].tolist() == pytest.approx([25, 0])
    assert groups.lines[0].get_ydata().tolist() == pytest.approx([np.nan, np.nan, np.nan, 100], nan_ok=True)
