"""Static figure of a U-Net's size, which the model playground redraws at every step."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .drawing import TRAINING_COLOUR, VALIDATION_COLOUR, draw_legend, panels, styled

_WAYS = {"way down": TRAINING_COLOUR, "way up": VALIDATION_COLOUR}


@styled
def unet_overview(levels: pd.DataFrame) -> Figure:
    """Where a U-Net has its parameters, and where its memory: bars by level, the slice's own on top.

    Parameters
    ----------
    levels : DataFrame
        Of :func:`lits_helpers.model_size.unet_levels`.
    """
    figure, _ = panels(1, 2, size=(8, 3.4))
    draw_legend(figure, _WAYS)
    draw_unet(figure, levels)
    return figure


def draw_unet(figure: Figure, levels: pd.DataFrame) -> None:
    """Draw another network into a figure of :func:`unet_overview`."""
    parameters, memory = figure.axes
    places, millions = range(len(levels)), levels[["encoder", "decoder"]] / 1e6
    for panel in figure.axes:
        panel.clear()
        panel.tick_params(labelsize=8)
    parameters.barh(places, millions.encoder, color=_WAYS["way down"])
    parameters.barh(places, millions.decoder, left=millions.encoder, color=_WAYS["way up"])
    parameters.set(title="Parameters", xlabel="millions")
    memory.barh(places, levels["values"] * 4 / 1e6, color="#777777")
    memory.set(title="Results of all layers, for one slice", xlabel="MB, in 32 bits")
    sizes = [f"{size} x {size} x {filters}" for size, filters in zip(levels["size"], levels.filters, strict=True)]
    for panel, names in ((parameters, sizes), (memory, [""] * len(levels))):
        panel.set_yticks(places, names)
        panel.set_ylim(len(levels) - 0.5, -0.5)  # the slice's own level on top
    total = int(levels.encoder.sum() + levels.decoder.sum())
    figure.suptitle(f"U-Net of {total:,} parameters, level by level")
