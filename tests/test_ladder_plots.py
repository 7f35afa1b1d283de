"""The ladders' figures show the table they are given."""

import numpy as np
import pandas as pd
import pytest
from fitting import misfits
from matplotlib import pyplot as plt

from lits_helpers import ladder_plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


TABLE = pd.DataFrame(
    {
        "tumour_dice_per_case": [0.2, 0.5, np.nan], "low": [0.1, 0.4, np.nan], "high": [0.3, 0.6, np.nan],
        "gain": [np.nan, 0.3, np.nan], "gain_low": [np.nan, 0.1, np.nan], "gain_high": [np.nan, 0.4, np.nan],
        "cases": [4, 4, 0], "parameters": [100, 1000, 10000], "seconds_per_training_image": [0.1, 0.2, 0.4],
        "seconds_per_100_slices": [1.0, 2.0, 3.0],
    }
)


def test_rungs_stand_below_each_other_with_dice_gain_and_time():
    figure = ladder_plots.ladder_figure(TABLE.set_axis(["first", "second", "third"]), data="synthetic phantom")
    reached, gained, took = figure.axes
    assert [label.get_text() for label in reached.get_yticklabels()] == ["first", "second", "third"]
    assert reached.get_ylim() == (2.5, -0.5)  # the first on top
    assert reached.lines[0].get_xdata()[:2] == pytest.approx([0.2, 0.5])
    assert gained.lines[0].get_xdata()[1] == pytest.approx(0.3)
    assert [bar.get_width() for bar in took.patches] == [1, 2, 3]
    assert "synthetic phantom: up to 4 cases" in figure.get_suptitle()
    assert misfits(figure) == []


def test_filters_stand_at_their_parameters_and_say_where_they_were_only_timed():
    figure = ladder_plots.cost_figure(TABLE.set_axis([8, 16, 32]), data="synthetic phantom")
    reached, took = figure.axes
    assert reached.get_xscale() == took.get_xscale() == "log"
    assert took.lines[0].get_ydata() == pytest.approx([0.1, 0.2, 0.4])
    assert [text.get_text() for text in reached.texts] == ["8", "16", "32: timed only"]
    assert [text.get_text() for text in took.texts] == ["8", "16", "32"]
    assert misfits(figure) == []
