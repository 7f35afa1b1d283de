"""The figures of :mod:`lits_helpers.plots`, interactive.

Each function returns an ``ipywidgets.interactive``, the last line of its cell. Nothing depends on
one: stored widgets do not render on GitHub, so the static figure stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import Checkbox, Dropdown, FloatSlider, IntSlider, ValueWidget, interactive
from matplotlib.axes import Axes

from . import drawing
from .augmentation import Augmentation, affine_matrices, warp_pair
from .masks import THRESHOLD
from .windows import WINDOWS, windowed

# What the report's three channels show, and which they are.
CHANNELS = {
    "\N{MINUS SIGN}40 to 160 HU (green)": 1,
    "\N{MINUS SIGN}45 to 105 HU (red)": 0,
    "histogram-equalised (blue)": 2,
}


@drawing.styled
def _interactive(
    draw: Callable[..., str], colours: dict[str, str], **controls: ValueWidget
) -> interactive:
    """Controls above one picture; ``draw(axes, **values)`` fills it and returns its title."""
    figure, axes = plt.subplots(figsize=(4.2, 4.7))
    if colours:
        drawing.draw_legend(figure, colours)
    plt.close(figure)  # or the notebook would show it once more, outside the widget

    def redraw(**values):
        axes.clear()
        axes.set_title(draw(axes, **values), fontsize=10)
        axes.set_axis_off()
        return figure

    for control in controls.values():
        control.style.description_width = "110px"
    return interactive(redraw, {"auto_display": True}, **controls)


def browse_slices(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], titles: Sequence[str]
) -> interactive:
    """Go through slices, with or without outlines, in each of the report's channels.

    Parameters
    ----------
    images : sequence of uint8 arrays (rows, columns, 3)
    labels : sequence of uint8 arrays (rows, columns)
        0 background, 1 liver, 2 tumour.
    titles : sequence of str
    """
    def draw(axes: Axes, number: int, outlines: bool, channel: int) -> str:
        drawing.outlined(axes, images[number], labels[number] if outlines else None, channel=channel)
        return titles[number]

    return _interactive(
        draw,
        drawing.MASK_COLOURS,
        number=IntSlider(0, 0, len(images) - 1, description="slice"),
        outlines=Checkbox(True, description="outlines"),
        channel=Dropdown(options=CHANNELS, description="window"),
    )


def window_explorer(hounsfield: np.ndarray, *, number: int | None = None) -> interactive:
    """Move the window over a CT volume, or take a preset.

    Parameters
    ----------
    hounsfield : int16 array (slices, rows, columns)
        In HU.
    number : int, optional
        The slice shown first; by default the middle one.
    """
    def draw(axes: Axes, number: int, width: int, level: int) -> str:
        grey = windowed(hounsfield[number], width=width, level=level)
        drawing.show_ct(axes, (grey * 255).astype(np.uint8))
        return f"slice {number}: {level - width / 2:.0f} to {level + width / 2:.0f} HU"

    width = IntSlider(400, 1, 2500, description="width (HU)")
    level = IntSlider(50, -1000, 1000, description="level (HU)")
    preset = Dropdown(options=["", *WINDOWS], description="preset")

    def take(change: dict) -> None:
        if change["new"]:
            width.value, level.value = WINDOWS[change["new"]]

    preset.observe(take, "value")
    middle = len(hounsfield) // 2 if number is None else number
    explorer = _interactive(
        draw, {}, number=IntSlider(middle, 0, len(hounsfield) - 1, description="slice"), width=width, level=level
    )
    preset.style.description_width = "110px"
    explorer.children = (preset, *explorer.children)
    return explorer


def augmentation_playground(image: np.ndarray, labels: np.ndarray) -> interactive:
    """Try transformations of one slice; the outlines must follow the picture.

    Parameters
    ----------
    image : uint8 array (size, size) or (size, size, 3)
    labels : uint8 array (size, size)
        0 background, 1 liver, 2 tumour.
    """
    size = len(labels)

    def draw(
        axes: Axes, rotation: float, shift_down: float, shift_right: float, shear: float,
        zoom: float, flip_horizontal: bool, flip_vertical: bool, elastic: float,
    ) -> str:
        matrix = affine_matrices(
            size,
            rotation=np.float64(rotation),
            shear=np.float64(shear),
            shift=np.zeros(2),
            scale=np.array([-1 if flip_horizontal else 1, -1 if flip_vertical else 1]) / zoom,
        )
        # Shifted last, so that right stays right when flipped; the map looks back, to the source.
        matrix[:, 2] -= matrix[:, :2] @ (shift_right * size, shift_down * size)
        bent = Augmentation(elastic=elastic).displacement(np.random.default_rng(0), size)
        drawing.outlined(axes, *warp_pair(image, labels, matrix, bent))
        return "Transformed slice"

    return _interactive(
        draw,
        drawing.MASK_COLOURS,
        rotation=FloatSlider(0, min=-45, max=45, step=1, description="rotation (°)"),
        shift_down=FloatSlider(0, min=-0.3, max=0.3, step=0.01, description="shift down"),
        shift_right=FloatSlider(0, min=-0.3, max=0.3, step=0.01, description="shift right"),
        shear=FloatSlider(0, min=-30, max=30, step=1, description="shear (°)"),
        zoom=FloatSlider(1, min=0.5, max=2, step=0.05, description="zoom"),
        flip_horizontal=Checkbox(False, description="flip left and right"),
        flip_vertical=Checkbox(False, description="flip up and down"),
        elastic=FloatSlider(
            0, min=0, max=0.1, step=0.005, readout_format=".3f", description="elastic"
        ),
    )


def threshold_explorer(
    image: np.ndarray, truth: np.ndarray, probability: np.ndarray
) -> interactive:
    """Move the threshold, and see what it finds, misses and adds.

    Parameters
    ----------
    image : uint8 array (rows, columns) or (rows, columns, 3)
    truth : bool array (rows, columns)
    probability : float array (rows, columns)
        In 0..1; values above the threshold are predicted.
    """
    truth = np.asarray(truth, bool)

    def draw(axes: Axes, threshold: float) -> str:
        predicted = probability > threshold
        drawing.show_ct(axes, image)
        axes.imshow(drawing.error_map(truth, predicted), interpolation="nearest")
        missed, added = np.count_nonzero(truth & ~predicted), np.count_nonzero(predicted & ~truth)
        return (
            f"Threshold {threshold:.2f}: {drawing.dice_words(truth, predicted)}\n"
            f"{missed:,} pixels missed, {added:,} false positive"
        )

    return _interactive(
        draw,
        drawing.ERROR_COLOURS,
        threshold=FloatSlider(THRESHOLD, min=0, max=1, step=0.01, description="threshold"),
    )
