"""What all figures share: colours, style, CT in grey, outlines, error colours, legend."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .masks import DIAGNOSES, LIVER, TUMOUR
from .scoring import dice

# Sky blue and vermillion of Okabe and Ito's colour-blind safe palette
# (https://jfly.uni-koeln.de/color), far from each other and from grey in every simulated vision.
LIVER_COLOUR = "#56B4E9"
TUMOUR_COLOUR = "#D55E00"
MASK_COLOURS = {"liver": LIVER_COLOUR, "tumour": TUMOUR_COLOUR}
# At least 63 CIELAB units apart under normal vision, protanopia, deuteranopia and tritanopia.
ERROR_COLOURS = {"found": "#117733", "missed": "#F0E442", "false positive": "#B300B3"}
TRAINING_COLOUR, VALIDATION_COLOUR = "#0072B2", "#E69F00"  # of the same palette

DIAGNOSIS_COLOURS = dict(zip(DIAGNOSES, ("#BBBBBB", LIVER_COLOUR, TUMOUR_COLOUR), strict=True))
CT_WINDOW = "CT window \N{MINUS SIGN}40 to 160 HU"  # the green channel's

# As a decorator this sets the style for one call and leaves the reader's rcParams alone.
styled = plt.rc_context({
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 11,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
})


def compact_figures() -> None:
    """Let a notebook keep its figures as JPEG: pictures of CT noise take a quarter of PNG's room."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 75})


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


def panels(
    lines: int, columns: int, *, size: tuple[float, float], pictures: bool = False, **shared: bool
) -> tuple[Figure, np.ndarray]:
    """A figure and its array of axes; those for pictures are bare."""
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, **shared)
    for panel in axes.flat:
        panel.tick_params(labelsize=8)  # ticks are made when drawn, outside the style
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
