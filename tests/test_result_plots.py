import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fitting import misfits

from lits_helpers import result_plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def run(**dice):
    """Scores of volumes 1, 2, 3."""
    return pd.DataFrame({"volume": [1, 2, 3], "dice": dice["dice"]})


def test_each_case_of_a_run_is_a_point():
    figure = result_plots.uncertainty_plot({"ours": run(dice=[0.2, 0.4, 0.9])})
    [panel] = figure.axes
    places = [value for points in panel.collections for value in np.asarray(points.get_offsets())[:, 0].tolist()]
    places += [value for line in panel.lines for value in np.atleast_1d(line.get_xdata()).tolist()]
    assert {0.2, 0.4, 0.9} <= {round(float(value), 6) for value in places}
    assert "ours" in panel.get_yticklabels()[0].get_text()


def test_two_runs_on_the_same_volumes_get_a_panel_of_differences():
    runs = {"a": run(dice=[0.2, 0.4, 0.9]), "b": run(dice=[0.3, 0.6, 0.9])}
    figure = result_plots.uncertainty_plot(runs)
    assert len(figure.axes) == 2 and "difference" in figure.axes[1].get_title().lower()
    assert figure.axes[1].get_yticklabels()[0].get_text().startswith("b - a\n0.10 (")


def test_runs_on_other_volumes_are_not_paired():
    other = run(dice=[0.1, 0.2, 0.3]).assign(volume=[4, 5, 6])
    assert len(result_plots.uncertainty_plot({"a": run(dice=[0.2, 0.4, 0.9]), "b": other}).axes) == 1


BURDENS = pd.DataFrame({"burden_truth": [0.01, 0.04, 0.10, np.nan], "burden_predicted": [0.02, 0.03, 0.07, 0.5]})


def test_each_burden_is_a_point_in_percent_of_the_liver():
    [panel] = result_plots.bland_altman(BURDENS).axes
    points = np.asarray(panel.collections[0].get_offsets())
    assert points == pytest.approx(np.array([[1.5, 1], [3.5, -1], [8.5, -3]]))
    assert panel.get_title() == "Tumour burden of 3 cases"


def test_bias_and_limits_of_agreement_are_stated():
    words = [text.get_text() for text in result_plots.bland_altman(BURDENS).legends[0].get_texts()]
    # Errors 1, -1, -3 % have mean -1 and standard deviation 2.
    assert words == ["bias -1.00 %", "limits of agreement \N{PLUS-MINUS SIGN}3.92 %"]


def test_two_cases_have_a_bias_and_no_limits():
    figure = result_plots.bland_altman(BURDENS[:2] + [0, 0.01])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bias +1.00 %"]


def test_a_sweep_marks_the_chosen_threshold_and_draws_the_free_response():
    sweep = pd.DataFrame({"threshold": [0.1, 0.5, 0.9], "tumour_dice": [0.3, 0.6, 0.2]})
    curve = pd.DataFrame({"threshold": [0.1, 0.5, 0.9], "recall": [1, 0.5, 0.25], "false_positives_per_case": [4, 1, 0]})
    dice, response = result_plots.threshold_sweep(sweep, curve, chosen=0.5).axes
    assert dice.lines[0].get_ydata().tolist() == [0.3, 0.6, 0.2]
    assert dice.get_legend().get_texts()[0].get_text() == "chosen: 0.5"
    assert response.lines[0].get_xydata().tolist() == [[4, 1], [1, 0.5], [0, 0.25]]
    assert [note.get_text() for note in response.texts] == ["0.1", "0.9"]


SWEEP = pd.DataFrame({"threshold": [0.1, 0.5, 0.9], "tumour_dice": [0.3, 0.6, 0.2]})
CURVE = pd.DataFrame({"threshold": [0.1, 0.5, 0.9], "recall": [1, 0.5, 0], "false_positives_per_case": [4, 1, 0]})
FIGURES = {
    "uncertainty_plot": lambda: result_plots.uncertainty_plot(
        {"patients apart": run(dice=[0.2, 0.4, 0.9]), "neighbours in training": run(dice=[0.3, 0.6, 0.9])}
    ),
    "bland_altman": lambda: result_plots.bland_altman(BURDENS),
    "threshold_sweep": lambda: result_plots.threshold_sweep(SWEEP, CURVE, chosen=0.5),
}


def test_every_figure_of_the_module_is_tried_for_print():
    public = {
        name for name, it in vars(result_plots).items()
        if getattr(it, "__module__", "") == result_plots.__name__ and name[0] != "_"
    }
    assert set(FIGURES) == public


@pytest.mark.parametrize("name", FIGURES)
def test_words_are_large_enough_inside_the_figure_and_apart(name):
    figure = FIGURES[name]()
    assert misfits(figure) == []
    assert figure.get_size_inches()[0] <= 10
