import matplotlib

matplotlib.use("Agg")

import pytest

from lits_helpers.explorer_plots import draw_unet, unet_overview
from lits_helpers.model_size import unet_levels


def bars(panel):
    return [round(bar.get_width(), 6) for bar in panel.patches]


def test_bars_are_parameters_by_level_and_way():
    levels = unet_levels(32, filters=4, depth=1)
    parameters, memory = unet_overview(levels).axes
    # Worked out in test_model_size: down 276, bottom 912, up 593 on the slice's own level.
    assert bars(parameters) == [0.000276, 0.000912, 0.000593, 0]
    assert bars(memory) == pytest.approx([32 * 32 * 56 * 4 / 1e6, 16 * 16 * 44 * 4 / 1e6])
    assert [label.get_text() for label in parameters.get_yticklabels()] == ["32 x 32 x 4", "16 x 16 x 8"]


def test_the_slices_own_level_is_on_top():
    parameters, memory = unet_overview(unet_levels(32, filters=4, depth=1)).axes
    for panel in (parameters, memory):
        low, high = panel.get_ylim()
        assert low > high


def test_another_network_takes_the_place_of_the_one_before():
    figure = unet_overview(unet_levels(32, filters=4, depth=1))
    draw_unet(figure, unet_levels())
    parameters, memory = figure.axes
    assert len(parameters.patches) == 10
    assert len(memory.patches) == 5
    assert figure.get_suptitle() == "U-Net of 31,043,521 parameters, level by level"
