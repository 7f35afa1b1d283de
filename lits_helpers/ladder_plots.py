"""Figures of the ladders: what each rung reaches, gains and takes, and Dice against cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .drawing import SMALL, TRAINING_COLOUR, panels, styled


@styled
def ladder_figure(table: pd.DataFrame, *, data: str) -> Figure:
    """Mean tumour Dice per case, gain over the rung before, and time to predict; a line a rung, the first on top.

    Bars are patient-level bootstrap 95 % intervals.

    Parameters
    ----------
    table : DataFrame
        Of :func:`lits_helpers.ladder.ladder_table`.
    data : str
        What the numbers were obtained on, for the title.
    """
    figure, axes = panels(1, 3, size=(10, 0.34 * len(table) + 1.4), sharey=True)
    reached, gained, took = axes[0]
    places = np.arange(len(table))
    _intervals(reached, table.tumour_dice_per_case, table.low, table.high, places, horizontal=True)
    reached.set(title="Validation patients", xlabel="tumour Dice per case, mean")
    _intervals(gained, table.gain, table.gain_low, table.gain_high, places, horizontal=True)
    gained.axvline(0, color="black", lw=0.8, ls=":")
    gained.set(title="Gain, patient by patient", xlabel="tumour Dice, difference")
    took.barh(places, table.seconds_per_100_slices, height=0.5, color="#BBBBBB")
    took.set(title="Prediction", xlabel="seconds per 100 slices")
    reached.set_yticks(places, table.index)
    reached.set_ylim(len(table) - 0.5, -0.5)
    for panel in axes[0]:
        panel.grid(axis="x", lw=0.3)
    figure.suptitle(f"{data}: up to {table.cases.max()} cases, equal seconds of training, 95 % intervals over patients")
    return figure


@styled
def cost_figure(table: pd.DataFrame, *, data: str) -> Figure:
    """Mean tumour Dice per case and seconds per training image against parameters.

    Parameters
    ----------
    table : DataFrame
        Of :func:`lits_helpers.ladder.cost_ladder`. Networks that were only timed have no Dice.
    data : str
        What the numbers were obtained on, for the title.
    """
    figure, axes = panels(1, 2, size=(9, 3.4))
    reached, took = axes[0]
    _intervals(reached, table.tumour_dice_per_case, table.low, table.high, table.parameters, horizontal=False)
    reached.set(title="After equal seconds of training", ylabel="tumour Dice per case, mean", ylim=(-0.02, 1))
    took.plot(table.parameters, table.seconds_per_training_image, "o-", ms=5, color=TRAINING_COLOUR)
    took.set(title="A training image", ylabel="seconds", yscale="log")
    for panel, values in ((reached, table.tumour_dice_per_case), (took, table.seconds_per_training_image)):
        panel.set(xscale="log", xlabel="parameters")
        panel.set_xlim(table.parameters.min() / 3, table.parameters.max() * 8)  # room for words
        panel.grid(lw=0.3)
        for number, parameters, value in zip(table.index, table.parameters, values, strict=True):
            words, height = (f"{number}", value) if np.isfinite(value) else (f"{number}: timed only", 0)
            panel.annotate(
                words, (parameters, height), xytext=(8, 0), textcoords="offset points", va="center", fontsize=SMALL
            )
    figure.suptitle(f"{data}: the report's U-Net by filters of its first level")
    return figure


def _intervals(
    panel: Axes, values: pd.Series, low: pd.Series, high: pd.Series, places: np.ndarray | pd.Series, *, horizontal: bool
) -> None:
    lines = panel.hlines if horizontal else panel.vlines
    lines(places, low, high, color="black", lw=2)
    points = (values, places) if horizontal else (places, values)
    panel.plot(*points, "D", ms=5, color=TRAINING_COLOUR)
