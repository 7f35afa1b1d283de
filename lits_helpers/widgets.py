"""The figures of :mod:`lits_helpers.plots`, interactive: six widgets, each the last line of its cell.

Nothing depends on one: stored widgets do not render on GitHub, so a static figure of the same content
stands beside it.

=======================================================  ============================================
widget                                                   static figure
=======================================================  ============================================
:func:`slice_browser`                                    :func:`lits_helpers.plots.example_slices`
:func:`augmentation_playground`                          ``plots.augmentation_preview``
:func:`threshold_explorer`                               ``plots.predictions``,
                                                         ``result_plots.threshold_sweep``
:func:`~lits_helpers.model_widgets.training_monitor`     ``plots.training_curves``
:func:`~lits_helpers.model_widgets.prediction_reviewer`  ``plots.predictions``
:func:`~lits_helpers.model_widgets.model_playground`     ``model_widgets.unet_overview``
=======================================================  ============================================

In every one the Tab key goes from control to control, and the arrow keys move the slider that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from ipywidgets import Checkbox, Dropdown, FloatSlider, IntSlider
from matplotlib.colors import to_rgba

from . import drawing
from .augmentation import (
    Augmentation, IntensityChange, affine_matrices, change_intensity, warp_pair,
)
from .explorer import Explorer, emptied, empty_panels, error_words
from .files import DataError
from .masks import THRESHOLD, read_labels
from .model_widgets import model_playground, prediction_reviewer, training_monitor
from .pictures import read_image
from .synthesis import implant
from .windows import WINDOWS, windowed

__all__ = [
    "CHANNELS", "augmentation_playground", "model_playground", "prediction_reviewer", "slice_browser",
    "threshold_explorer", "training_monitor",
]

# What the report's three channels show, and which they are.
CHANNELS = {
    "\N{MINUS SIGN}40 to 160 HU (green)": 1,
    "\N{MINUS SIGN}45 to 105 HU (red)": 0,
    "histogram-equalised (blue)": 2,
}
_SIZE = (5.2, 5.4)  # inches; at 100 dots each, a slice of 512x512 is shown about pixel by pixel
_BY_HAND = "by hand"

Slices = Sequence[np.ndarray]


class _Files(Sequence):
    """Pictures that are read when they are shown; the last few are kept."""

    def __init__(self, paths: Sequence[Path | str], read: Callable[[Path | str], np.ndarray]):
        self._paths, self._read = list(paths), lru_cache(maxsize=4)(read)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> np.ndarray:
        return self._read(self._paths[number])


def slice_browser(
    volumes: pd.DataFrame | Mapping[object, tuple[Slices, Slices | None]], *, number: int | None = None
) -> Explorer:
    """Go through volumes slice by slice: window, outlines, and masks filled as densely as wanted.

    Controls that would have nothing to choose from are left out.

    Parameters
    ----------
    volumes : DataFrame, or mapping of name to (slices, labels)
        A slice table (``volume``, ``slice``, ``image_path``, ``mask_path``), whose files are read when
        they are shown; or arrays. Slices: int16 (slices, rows, columns) in HU, whose window is chosen,
        or uint8 (slices, rows, columns) or (slices, rows, columns, 3), windowed before, whose channel is
        chosen. Labels: uint8 (slices, rows, columns), 0 background, 1 liver, 2 tumour; or None.
    number : int, optional
        Position of the slice shown first; by default the middle one.

    Raises
    ------
    DataError
        If there are no volumes, one has no slices, or its labels are of another number.
    """
    if isinstance(volumes, pd.DataFrame):
        series = {
            f"volume {volume}": (
                _Files(rows.image_path, read_image), _Files(rows.mask_path, read_labels),
                [f"slice {position}" for position in rows["slice"]],
            )
            for volume, rows in volumes.sort_values(["volume", "slice"]).groupby("volume")
        }
    else:
        series = {
            str(name): (slices, labels, [f"slice {position}" for position in range(len(slices))])
            for name, (slices, labels) in volumes.items()
        }
    for name, (slices, labels, _) in series.items():
        if not len(slices) or (labels is not None and len(labels) != len(slices)):
            counts = f"{len(slices)} slices, {0 if labels is None else len(labels)} masks"
            raise DataError(f"{name or 'the volume'} has {counts}: slices are needed, and a mask for each or none")
    if not series:
        raise DataError("there are no volumes to go through: is the table empty?")
    first, labelled = next(iter(series)), any(labels is not None for _, labels, _ in series.values())
    sample = series[first][0][0]
    in_hounsfield = sample.dtype != np.uint8
    figure, [panel] = empty_panels(1, size=_SIZE, colours=drawing.MASK_COLOURS if labelled else None)

    def draw(volume=first, number=0, width=0, level=0, channel=1, outlines=False, opacity=0):
        slices, labels, titles = series[volume]
        number = min(number, len(slices) - 1)  # of a volume before it
        image, mask = slices[number], None if labels is None else labels[number]
        words = ": ".join(filter(None, [volume, titles[number]]))
        if in_hounsfield:
            image = (windowed(image, width=width, level=level) * 255).astype(np.uint8)
            words += f": {level - width / 2:.0f} to {level + width / 2:.0f} HU"
        drawing.outlined(emptied(panel), image, mask if outlines else None, channel=channel)
        if opacity and mask is not None:
            panel.imshow(_filled(mask, opacity), interpolation="nearest")
        return figure, words

    controls: dict = {}
    if len(series) > 1:
        controls["volume"] = Dropdown(options=list(series), description="volume")
    start = len(series[first][0]) // 2 if number is None else number
    controls["number"] = IntSlider(start, 0, len(series[first][0]) - 1, description="slice")
    if in_hounsfield:
        controls["width"] = IntSlider(WINDOWS["abdomen"].width, 1, 2500, description="width (HU)")
        controls["level"] = IntSlider(WINDOWS["abdomen"].level, -1000, 1000, description="level (HU)")
    elif sample.ndim == 3:
        controls["channel"] = Dropdown(options=CHANNELS, description="window")
    if labelled:
        controls["outlines"] = Checkbox(True, description="outlines")
        controls["opacity"] = FloatSlider(0, min=0, max=1, step=0.05, description="filled")
    preset = Dropdown(options=[_BY_HAND, *WINDOWS], value="abdomen", description="preset")
    browser = Explorer(draw, controls, above=[preset] if in_hounsfield else [])
    if len(series) > 1:
        _follow_volume(browser, series)
    if in_hounsfield:
        _follow_preset(browser, preset)
    return browser


def _filled(labels: np.ndarray, opacity: float) -> np.ndarray:
    """Liver and tumour in their colours, as densely as wanted: uint8 (rows, columns, 4)."""
    colours = [(0, 0, 0, 0), *(to_rgba(colour, opacity) for colour in drawing.MASK_COLOURS.values())]
    return (255 * np.array(colours)).round().astype(np.uint8)[labels]


def _follow_volume(browser: Explorer, series: Mapping) -> None:
    """Let the slider reach to the end of the volume that is shown."""
    def reach(change: dict) -> None:
        browser.controls["number"].max = len(series[change["new"]][0]) - 1

    browser.controls["volume"].observe(reach, "value")


def _follow_preset(browser: Explorer, preset: Dropdown) -> None:
    """Move the window's sliders to a preset that is chosen; moved by hand they are at none."""
    def take(change: dict) -> None:
        if change["new"] != _BY_HAND:
            with browser.at_once():
                for name, value in WINDOWS[change["new"]]._asdict().items():
                    browser.controls[name].value = int(value)

    def leave(change: dict) -> None:
        if not browser.is_moving:
            preset.value = _BY_HAND

    preset.observe(take, "value")
    for name in ("width", "level"):
        browser.controls[name].observe(leave, "value")


def augmentation_playground(image: np.ndarray, labels: np.ndarray) -> Explorer:
    """Try every change of an Augmentation on one slice; the outlines must follow the picture.

    At random draw 0 the slice is changed by as much as the sliders say. The others are what training
    would see: drawn from an :class:`~lits_helpers.augmentation.Augmentation` that reaches this far
    either way, each change of grey levels with the chance below them. Synthetic lesions and distractors, with
    chances of their own, are others in every draw.

    Parameters
    ----------
    image : uint8 array (size, size) or (size, size, 3)
    labels : uint8 array (size, size)
        0 background, 1 liver, 2 tumour.

    Raises
    ------
    ValueError
        If the slice is not square, as slices are in training.
    """
    size = len(labels)
    if labels.shape != (size, size) or image.shape[:2] != labels.shape:
        raise ValueError(f"a square slice and its labels are needed, got {image.shape} and {labels.shape}")
    image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
    figure, [panel] = empty_panels(1, size=_SIZE, colours=drawing.MASK_COLOURS)

    def draw(draw: int, lesions: float, distractors: float, **values: float) -> tuple:
        matrix, bent, change = _drawn(draw, size, **values) if draw else _as_set(size, **values)
        picture, mask = warp_pair(image, labels, matrix, bent)
        implant(picture, mask, np.random.default_rng(draw), lesions=lesions, distractors=distractors)
        drawing.outlined(emptied(panel), change_intensity(picture, change), mask)
        return figure, f"Random draw {draw}" if draw else "Changed as the sliders say"

    def slider(start: float, low: float, high: float, step: float, words: str) -> FloatSlider:
        digits = ".3f" if step < 0.01 else ".2f"
        return FloatSlider(start, min=low, max=high, step=step, readout_format=digits, description=words)

    return Explorer(draw, dict(
        draw=IntSlider(0, 0, 30, description="random draw"),
        rotation=slider(0, -45, 45, 1, "rotation (°)"),
        shift_down=slider(0, -0.3, 0.3, 0.01, "shift down"),
        shift_right=slider(0, -0.3, 0.3, 0.01, "shift right"),
        shear=slider(0, -30, 30, 1, "shear (°)"),
        zoom=slider(1, 0.5, 2, 0.05, "zoom"),
        horizontal_flip=Checkbox(False, description="flip left and right"),
        vertical_flip=Checkbox(False, description="flip up and down"),
        elastic=slider(0, 0, 0.1, 0.005, "elastic"),
        brightness=slider(1, 0.5, 1.5, 0.05, "brightness"),
        contrast=slider(1, 0.5, 1.5, 0.05, "contrast"),
        gamma=slider(1, 0.5, 2, 0.05, "gamma"),
        noise=slider(0, 0, 0.2, 0.01, "noise"),
        blur=slider(0, 0, 4, 0.1, "blur (pixels)"),
        low_resolution=slider(1, 1, 4, 0.1, "coarser by"),
        intensity_probability=slider(1, 0, 1, 0.05, "chance of greys"),
        lesions=slider(0, 0, 1, 0.05, "chance of lesions"),
        distractors=slider(0, 0, 1, 0.05, "of distractors"),
    ))


def _as_set(
    size: int, *, rotation: float, shift_down: float, shift_right: float, shear: float, zoom: float,
    horizontal_flip: bool, vertical_flip: bool, elastic: float, intensity_probability: float, **greys: float,
) -> tuple[np.ndarray, np.ndarray | None, IntensityChange]:
    """Map, displacement and change of grey levels that are exactly the sliders'."""
    matrix = affine_matrices(
        size,
        rotation=np.float64(rotation),
        shear=np.float64(shear),
        shift=np.zeros(2),
        scale=np.array([-1 if horizontal_flip else 1, -1 if vertical_flip else 1]) / zoom,
    )
    # Shifted last, so that right stays right when flipped; the map looks back, to the source.
    matrix[:, 2] -= matrix[:, :2] @ (shift_right * size, shift_down * size)
    bent = Augmentation(elastic=elastic).displacement(np.random.default_rng(0), size)
    return matrix, bent, IntensityChange(**greys)


def _drawn(
    number: int, size: int, *, shift_down: float, shift_right: float, zoom: float, gamma: float, **values: float
) -> tuple[np.ndarray, np.ndarray | None, IntensityChange]:
    """The same, drawn at random; the sliders say how far it may reach."""
    for name in ("brightness", "contrast"):
        values[name] = abs(values[name] - 1)
    augmentation = Augmentation(**{
        **values, "rotation": abs(values["rotation"]), "shear": abs(values["shear"]),
        "zoom": 1 - min(zoom, 1 / zoom),  # of the scale, which is one over the magnification
        "shift": max(abs(shift_down), abs(shift_right)), "gamma": max(gamma, 1 / gamma) - 1,
    })
    random = np.random.default_rng(number)
    [matrix], bent = augmentation.matrices(random, 1, size), augmentation.displacement(random, size)
    return matrix, bent, next(iter(augmentation.intensities(random, 1)), IntensityChange())


def threshold_explorer(image: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> Explorer:
    """Move the threshold, and see what it finds, misses and adds.

    Parameters
    ----------
    image : uint8 array (rows, columns) or (rows, columns, 3)
    truth : bool array (rows, columns)
    probability : float array (rows, columns)
        In 0..1; values above the threshold are predicted.
    """
    truth = np.asarray(truth, bool)
    figure, [panel] = empty_panels(1, size=_SIZE, colours=drawing.ERROR_COLOURS)

    def draw(threshold: float, opacity: float) -> tuple:
        predicted = probability > threshold
        drawing.show_ct(emptied(panel), image)
        panel.imshow(drawing.error_map(truth, predicted), interpolation="nearest", alpha=opacity)
        return figure, f"Threshold {threshold:.2f}: {error_words(truth, predicted)}"

    return Explorer(draw, dict(
        threshold=FloatSlider(THRESHOLD, min=0, max=1, step=0.01, description="threshold"),
        opacity=FloatSlider(1, min=0, max=1, step=0.05, description="filled"),
    ))
