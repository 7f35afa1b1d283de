"""What all figures share: theme, colours, CT in grey, outlines, scale bar, sides, legend."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from .conversion import RECORDS, slice_paths
from .distances import bounding_box
from .masks import DIAGNOSES, LIVER, TUMOUR
from .phantom import DESCRIPTION
from .scoring import dice
from .volumes import Geometry

# Sky blue and vermillion of Okabe and Ito's colour-blind safe palette
# (https://jfly.uni-koeln.de/color), far from each other and from grey in every simulated vision.
LIVER_COLOUR = "#56B4E9"
TUMOUR_COLOUR = "#D55E00"
MASK_COLOURS = {"liver": LIVER_COLOUR, "tumour": TUMOUR_COLOUR}
# At least 63 CIELAB units apart under normal vision, protanopia, deuteranopia and tritanopia.
ERROR_COLOURS = {"found": "#117733", "missed": "#F0E442", "false positive": "#B300B3"}
TRAINING_COLOUR, VALIDATION_COLOUR = "#0072B2", "#E69F00"  # of the same palette
# Of series beside each other, in this order; of more than five the sixth has the first one's again.
LINE_COLOURS = (TRAINING_COLOUR, VALIDATION_COLOUR, "#009E73", "#CC79A7", "#555555")

DIAGNOSIS_COLOURS = dict(zip(DIAGNOSES, ("#BBBBBB", LIVER_COLOUR, TUMOUR_COLOUR), strict=True))
CT_WINDOW = "CT window \N{MINUS SIGN}40 to 160 HU"  # the green channel's

# Figures are up to 10 inches wide: whole in a notebook at 100 dots an inch, and on a page of A4
# (17 cm of text) two thirds as large, where 9 points become 6, the smallest that is read with ease.
SMALL = 9
THEME = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.titlesize": 12,
    "figure.constrained_layout.use": True,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
# As a decorator this sets the theme for one call and leaves the reader's rcParams alone.
styled = plt.rc_context(THEME)

_ON_CT = dict(color="white", fontsize=SMALL, path_effects=[withStroke(linewidth=2, foreground="black")])


def compact_figures() -> None:
    """Let a notebook keep its figures as JPEG: pictures of CT noise take a quarter or less of PNG's room."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 60})


def show_ct(axes: Axes, image: np.ndarray, *, channel: int = 1) -> None:
    """Draw one slice in grey; of three channels the green one, -40 to 160 HU, unless told.

    Raises
    ------
    ValueError
        If the image is not uint8: its grey levels would not be comparable between figures.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"images are shown as uint8 0..255, got {image.dtype}: rescale it first")
    grey = image if image.ndim == 2 else image[..., channel]
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, aspect="equal")


def outline(mask: np.ndarray) -> np.ndarray:
    """The edges between a mask's pixels and the others, in image coordinates.

    Parameters
    ----------
    mask : bool array (rows, columns)

    Returns
    -------
    float array (edges, 2, 2)
        Both ends (x, y) of each pixel edge; integers are pixel centres, so edges lie on halves.
        The picture's border closes a mask that touches it; an empty mask has no edges.
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    level = np.stack([columns - 1.5, rows - 0.5, columns - 0.5, rows - 0.5], axis=1)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = np.stack([columns - 0.5, rows - 1.5, columns - 0.5, rows - 0.5], axis=1)
    return np.concatenate([level, upright]).reshape(-1, 2, 2)


def draw_outline(axes: Axes, mask: np.ndarray, colour: str) -> LineCollection:
    """Draw a mask's boundary along its pixel edges: one pixel shows, and none is no error."""
    lines = LineCollection(outline(mask), colors=colour, linewidths=1.3, capstyle="projecting")
    return axes.add_collection(lines, autolim=False)  # the picture, not the mask, sets the limits


def outlined(axes: Axes, image: np.ndarray, labels: np.ndarray | None, *, channel: int = 1) -> None:
    """Draw one slice and the outlines of its liver (tumours included) and tumour, if labelled."""
    show_ct(axes, image, channel=channel)
    if labels is not None:
        draw_outline(axes, labels >= LIVER, LIVER_COLOUR)
        draw_outline(axes, labels == TUMOUR, TUMOUR_COLOUR)


def error_map(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Colour the pixels of two bool masks (rows, columns) by :data:`ERROR_COLOURS`.

    Returns
    -------
    float array (rows, columns, 4)
        RGBA in 0..1; transparent where both masks are False.
    """
    colours = np.zeros((*truth.shape, 4))
    kinds = (truth & predicted, truth & ~predicted, ~truth & predicted)
    for pixels, colour in zip(kinds, ERROR_COLOURS.values(), strict=True):
        colours[pixels] = to_rgba(colour)
    return colours


def dice_words(truth: np.ndarray, predicted: np.ndarray) -> str:
    """Dice of two bool masks, in words because two empty ones have none."""
    value = dice(truth, predicted)
    return "no Dice (both empty)" if np.isnan(value) else f"Dice {value:.2f}"


def window_about(mask: np.ndarray, height: float, width: float) -> tuple[float, float]:
    """Top and left edge, in image coordinates, of a window of the picture about the middle of a bool mask.

    It lies within the picture, and in its middle where the mask is empty.
    """
    box = bounding_box(mask if mask.any() else np.ones_like(mask))
    top, left = (
        float(np.clip((part.start + part.stop - 1 - length) / 2, -0.5, whole - 0.5 - length))
        for part, length, whole in zip(box, (height, width), mask.shape, strict=True)
    )
    return top, left


def panels(
    lines: int, columns: int, *, size: tuple[float, float], pictures: bool = False, **shared: bool
) -> tuple[Figure, np.ndarray]:
    """A figure and its array of axes; those for pictures are bare."""
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, **shared)
    for panel in axes.flat:
        panel.tick_params(labelsize=SMALL)  # ticks are made when drawn, outside the style
        if pictures:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
    return figure, axes


def draw_legend(
    figure: Figure, colours: dict[str, str], *more: Artist, image: np.ndarray | None = None
) -> None:
    """Explain the colours below a figure and, if an image's coding tells it, the window."""
    handles = [Line2D([], [], color=colour, lw=3, label=name) for name, colour in colours.items()]
    handles += more
    window = CT_WINDOW if image is not None and image.ndim == 3 else None
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=window)


# Scale and sides ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marks:
    """What is known of a picture's place in the patient: :func:`draw_marks` draws that, and no more.

    Attributes
    ----------
    row_mm, column_mm : float
        Distance between rows and between columns, in mm. NaN where the spacing is not known: then
        there is no scale bar.
    is_radiological : bool
        Whether the patient's right is *known* to lie on the picture's left, as radiologists show
        it. Where nobody knows, no side is marked.
    """

    row_mm: float = math.nan
    column_mm: float = math.nan
    is_radiological: bool = False


def volume_marks(geometry: Geometry) -> Marks:
    """Of the slices of a volume as :func:`lits_helpers.volumes.read_volume` orders them.

    None, where the header says nothing (an identity affine, as many LiTS volumes have it).
    """
    _, row_mm, column_mm = geometry.spacing
    return Marks() if geometry.is_identity else Marks(row_mm, column_mm, True)


def slice_marks(rows: pd.DataFrame) -> list[Marks]:
    """Of slice files, one by one.

    The scale is the table's. Sides are known of files that this package wrote from a volume with an
    orientation (:func:`lits_helpers.conversion.convert_volumes`, the phantom). Nothing in other
    people's slice files says how they lie; the report's way of writing them follows whatever order
    a volume was stored in.

    Parameters
    ----------
    rows : DataFrame
        Of the slice table: ``image_path``, ``volume``, ``slice``, and ``row_mm``, ``column_mm`` (NaN,
        or no such columns, where the spacing is not known).
    """
    return [
        Marks(getattr(row, "row_mm", math.nan), getattr(row, "column_mm", math.nan), _is_oriented(row))
        for row in rows.itertuples()
    ]


def _is_oriented(row: tuple) -> bool:
    """Whether a row's image lies where this package writes one, with its word that it is oriented."""
    image = Path(row.image_path)
    if len(image.parents) < 3:
        return False
    root = image.parents[2]
    if image != slice_paths(root, row.volume, row.slice, image.suffix)[0]:
        return False
    try:
        return bool(json.loads((root / RECORDS / f"volume-{row.volume}.json").read_text(encoding="utf-8"))["spacing_known"])
    except (KeyError, OSError, TypeError, ValueError):
        return (root / DESCRIPTION).exists()


def draw_marks(axes: Axes, marks: Marks) -> None:
    """R and L at the sides of a CT, a scale bar at its lower right, each where it is known.

    Call it last: the bar's length is chosen for what the axes show. Pixels that are not square are
    drawn in their true proportion.
    """
    if np.isfinite([marks.row_mm, marks.column_mm]).all():
        axes.set_aspect(marks.row_mm / marks.column_mm)
        draw_scale_bar(axes, marks.column_mm)
    if marks.is_radiological:
        for place, side, towards in ((0.02, "R", "left"), (0.98, "L", "right")):
            axes.text(place, 0.5, side, transform=axes.transAxes, ha=towards, va="center", **_ON_CT)


def draw_scale_bar(axes: Axes, column_mm: float, *, colour: str = "white") -> None:
    """A bar of 1, 2 or 5 times a power of ten mm, at most a third of the axes' width; white or black."""
    left, right = sorted(axes.get_xlim())
    length = bar_length((right - left) * column_mm)
    end = right - 0.04 * (right - left)
    start = end - length / column_mm
    across = axes.get_xaxis_transform()
    bar = Line2D([start, end], [0.04, 0.04], color=colour, lw=2.5, solid_capstyle="butt", transform=across)
    around = "black" if colour == "white" else "white"
    bar.set_path_effects([withStroke(linewidth=4, foreground=around)])
    axes.add_artist(bar)  # which, unlike a plot, leaves the limits alone
    words = axes.text(end, 0.07, f"{length:g} mm", transform=across, ha="right", va="bottom", **_ON_CT)
    words.set(color=colour, path_effects=[withStroke(linewidth=2, foreground=around)])


def bar_length(width_mm: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50... mm (or 0.5, 0.2...) within a third of a width in mm."""
    most = width_mm / 3
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))
