"""Static figures of volumes, codings, resolution and published results; made like those of :mod:`plots`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .drawing import (
    LINE_COLOURS, LIVER_COLOUR, MASK_COLOURS, SMALL, TRAINING_COLOUR, TUMOUR_COLOUR, Marks, draw_legend, draw_marks,
    outlined, panels, styled,
)
from .masks import LIVER, TUMOUR
from .plots import Case

# Usual CT numbers in HU (Hounsfield scale; liver in the portal venous phase).
TISSUES = {
    "air": (-1024, -950), "fat": (-120, -60), "water": (-10, 10), "liver with contrast": (80, 130),
    "bone": (300, 1200),
}  # fmt: skip
_TISSUE_COLOURS = (*LINE_COLOURS[:4], "#F0E442")  # yellow, of the same palette: the bars are grey
_REFUSED_COLOUR = "#AAAAAA"


@styled
def gallery(cases: Sequence[Case], title: str, *, marks: Sequence[Marks] = ()) -> Figure:
    """Cases in one row, outlined where they have labels.

    Parameters
    ----------
    cases : sequence of (image, labels or None, title)
        Images uint8, grey (rows, columns) or (rows, columns, 3).
    title : str
    marks : sequence of Marks
        What is known of scale and sides, one a case (:func:`lits_helpers.drawing.volume_marks`).
    """
    side = min(2.5, 10 / len(cases))
    figure, axes = panels(1, len(cases), size=(side * len(cases), side + 0.8), pictures=True)
    for panel, (image, labels, words), known in zip(axes[0], cases, marks or [Marks()] * len(cases), strict=True):
        outlined(panel, image, labels)
        draw_marks(panel, known)
        panel.set_title(words, fontsize=SMALL)
    if any(labels is not None for _, labels, _ in cases):
        draw_legend(figure, MASK_COLOURS)
    figure.suptitle(title)
    return figure


@styled
def hounsfield_histogram(hounsfield: np.ndarray, labels: np.ndarray) -> Figure:
    """How often each CT number occurs: in a whole volume, and close up in liver and tumour.

    Parameters
    ----------
    hounsfield : int16 array (slices, rows, columns)
        In HU.
    labels : uint8 array, same shape
        0 background, 1 liver, 2 tumour.
    """
    figure, axes = panels(1, 2, size=(9, 3.4))
    whole, close = axes[0]
    whole.hist(hounsfield.ravel(), bins=np.arange(-1024, 1300, 8), color="#555555")
    for (tissue, (low, high)), colour in zip(TISSUES.items(), _TISSUE_COLOURS, strict=True):
        whole.axvspan(low, high, color=colour, alpha=0.5, lw=0, label=tissue, zorder=0)
    whole.set(title="All voxels", xlabel="HU", ylabel="voxels", yscale="log")
    bins = np.arange(-50, 250, 4)
    for label, colour, name in ((LIVER, LIVER_COLOUR, "liver"), (TUMOUR, TUMOUR_COLOUR, "tumour")):
        values = hounsfield[labels == label]
        if values.size:
            title = f"{name}: median {np.median(values):.0f} HU"
            close.hist(values, bins=bins, density=True, histtype="step", lw=1.5, color=colour, label=title)
    close.set(title="Labelled voxels", xlabel="HU", ylabel="share of voxels per HU")
    if labels.any():
        close.margins(y=0.35)  # room for the legend above the curves
        close.legend(loc="upper left")
    figure.legend(handles=whole.get_legend_handles_labels()[0], loc="outside lower center", ncols=len(TISSUES))
    figure.suptitle("CT numbers")
    return figure


@styled
def coding_damage(scores: pd.DataFrame) -> Figure:
    """What is left of labels after a coding and JPEG, by quality.

    Parameters
    ----------
    scores : DataFrame
        ``coding``, ``quality`` (0 to 100; 101 stands for PNG), ``tumour_dice`` (with the true
        labels, pooled over slices) and ``right_diagnosis`` (share of slices).
    """
    figure, axes = panels(1, 2, size=(9, 3.5), sharex=True)
    qualities = sorted(scores.quality.unique())
    titles = {"tumour_dice": "Tumour Dice, pooled", "right_diagnosis": "Slices with the right diagnosis, share"}
    for panel, (what, title) in zip(axes[0], titles.items(), strict=True):
        codings = zip(scores.groupby("coding", sort=False), cycle(LINE_COLOURS))
        for number, ((coding, rows), colour) in enumerate(codings):
            rows = rows.sort_values("quality")
            places = [qualities.index(quality) for quality in rows.quality]
            width = max(5 - 1.3 * number, 1.2)  # of lines that coincide the wider show beside the narrower
            panel.plot(places, rows[what], "o-", ms=width + 2, lw=width, color=colour, label=coding)
        names = ["PNG" if quality > 100 else str(quality) for quality in qualities]
        panel.set(title=title, xlabel="JPEG quality", xticks=range(len(names)), xticklabels=names)
        panel.grid(axis="y", lw=0.3)
    handles, _ = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle("Decoded labels against the true ones")
    return figure


@styled
def resolution_ceiling(lesions: pd.DataFrame, sizes: Sequence[int]) -> Figure:
    """The best Dice that a network of some input size can reach, lesion by lesion.

    Parameters
    ----------
    lesions : DataFrame
        ``diameter_mm`` and, for each size, ``dice_<size>``.
    sizes : sequence of int
        Rows and columns of the input, in pixels.
    """
    figure, axes = panels(1, 1, size=(6.5, 3.6))
    panel = axes[0, 0]
    for size, colour in zip(sizes, cycle(LINE_COLOURS)):
        panel.scatter(lesions.diameter_mm, lesions[f"dice_{size}"], s=14, color=colour, label=f"{size} x {size}")
    panel.axvline(10, color="#555555", lw=0.8, ls=":")
    panel.set(title="Dice of a perfect answer, made smaller and larger again", ylabel="Dice of the lesion",
              xlabel="diameter of a ball of the lesion's volume (mm; dotted: 10)")
    panel.set_ylim(top=1.02)
    panel.legend(title="network input")
    return figure


@styled
def comparability_card(
    rows: pd.DataFrame,
    value: float,
    *,
    low: float = np.nan,
    high: float = np.nan,
    metric: str = "Dice",
    name: str = "this run",
) -> Figure:
    """Published numbers and your own: in colour what compares with it, in grey what does not, and why.

    Parameters
    ----------
    rows : DataFrame
        From :func:`lits_helpers.comparability.comparable_rows`, asked with what holds of your figure.
    value, low, high : float
        Your figure and its 95 % interval, in [0, 1].
    metric : str
        The one that is drawn; numbers in other metrics do not belong on its axis and are counted.
    name : str
        Of your figure.
    """
    shown = rows[rows.metric == metric].sort_values(["comparable", "value"], ascending=False)
    figure, axes = panels(1, 1, size=(11, 1.7 + 0.3 * len(shown)))
    panel = axes[0, 0]
    panel.hlines(0, low, high, color="black", linewidth=2)
    panel.plot(value, 0, "D", color="black", markersize=6)
    labels, reasons = [f"{name}: {value:.2f}"], ["95 % interval over patients" if np.isfinite(low) else "no interval"]
    for place, row in enumerate(shown.itertuples(), start=1):
        colour = TRAINING_COLOUR if row.comparable else _REFUSED_COLOUR
        panel.plot(row.value, place, "o", color=colour, markersize=6)
        labels.append(f"{row.method} ({row.authors} {row.year}): {row.value:g}")
        reasons.append(row.reason)
    panel.set_yticks(range(len(labels)), labels)
    panel.set(xlim=(0, 1), ylim=(len(labels) - 0.5, -0.7), xlabel=metric)  # the own figure on top
    panel.grid(axis="x", linewidth=0.3)
    panel.axvline(value, color="black", linewidth=0.6, linestyle=":")
    colours = ["black", *np.where(shown.comparable, TRAINING_COLOUR, "#666666")]
    for place, (reason, colour) in enumerate(zip(reasons, colours, strict=True)):
        panel.text(1.02, place, fill(reason, 76, break_on_hyphens=False), color=colour, fontsize=8, va="center", linespacing=0.95)
        panel.get_yticklabels()[place].set_color(colour)
    other = len(rows) - len(shown)
    figure.suptitle(
        f"{shown.comparable.sum()} of {len(shown)} published numbers compare with {name} "
        f"({other} in other metrics not drawn)"
    )
    own = Line2D([], [], color="black", marker="D", lw=2, label=name)
    yes = Line2D([], [], color=TRAINING_COLOUR, marker="o", ls="", label="comparable")
    no = Line2D([], [], color=_REFUSED_COLOUR, marker="o", ls="", label="not comparable, and why")
    draw_legend(figure, {}, own, yes, no)
    return figure
