"""What all widgets share: controls beside a line of words and one picture, which is redrawn at every step.

The picture is a matplotlib figure rendered to a JPEG in the kernel, in an ``ipywidgets.Image``: plain
ipywidgets, which run in JupyterLab, Notebook 7, VS Code, Colab, Kaggle and Voila alike. A figure that
stays, with its axes filled anew, takes about 40 ms a step on 512x512; shown by ``interactive`` it took
90 (`make bench`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape

import cv2
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import HTML, Box, DOMWidget, Image, Layout, ValueWidget, VBox
from ipywidgets.widgets.widget_description import DescriptionWidget
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from . import drawing
from .files import DataError

# Of noise, JPEG takes half of PNG's room or less, and notebooks keep it. Without thinned-out colours thin outlines
# keep theirs.
_JPEG = (
    cv2.IMWRITE_JPEG_QUALITY, 80, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)
_DPI = 100


class Explorer(Box):
    """Controls, and beside them words above a picture; below each other where there is no room.

    Parameters
    ----------
    draw : callable
        Takes a keyword for each control; returns the figure to be shown and the words above it, a
        line each. The same figure every time, with its axes filled anew, is the quick way.
    controls : mapping of name to widget
        Sliders, boxes and lists with a ``value``; a change of any redraws. All can be reached with
        the Tab key and moved with the arrow keys.
    above : sequence of widgets, optional
        Shown above the controls, and not read.

    Attributes
    ----------
    controls : dict
    is_moving : bool
        Whether :meth:`at_once` is at work.
    figure : matplotlib.figure.Figure
        As last drawn.
    words : ipywidgets.HTML
    picture : ipywidgets.Image
        JPEG.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        controls: Mapping[str, ValueWidget],
        *,
        above: Sequence[DOMWidget] = (),
    ):
        self.controls = dict(controls)
        self.words = HTML()
        self.picture = Image(format="jpeg", layout=Layout(max_width="100%", height="auto", align_self="flex-start"))
        self._draw, self.is_moving = draw, False
        for control in self.controls.values():
            control.observe(self._changed, "value")
        for control in (*above, *self.controls.values()):
            if isinstance(control, DescriptionWidget) and control.description:
                control.style.description_width = "110px"
                control.layout.width = "300px"
        self.redraw()
        super().__init__(
            [
                VBox([*above, *self.controls.values()]),
                VBox([self.words, self.picture], layout=Layout(max_width="100%")),
            ],
            layout=Layout(flex_flow="row wrap", align_items="flex-start"),
        )

    def __repr__(self) -> str:
        # Where widgets cannot run, this stands in for them.
        return "[A widget: run the notebook to move its sliders. Its static figure stands beside it.]"

    def _changed(self, change: dict) -> None:
        if not self.is_moving:
            self.redraw()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it controls can be moved; it ends with one redraw."""
        self.is_moving = True
        try:
            yield
        finally:
            self.is_moving = False
        self.redraw()

    @drawing.styled
    def redraw(self) -> None:
        """Show what the controls say; a DataError is shown in words, above the picture before."""
        try:
            values = {name: control.value for name, control in self.controls.items()}
            self.figure, words = self._draw(**values)
            self.picture.value = rendered(self.figure)
        except DataError as error:
            words = str(error)
        self.words.value = escape(words).replace("\n", "<br>")


def rendered(figure: Figure) -> bytes:
    """A figure as JPEG of 100 dots an inch; it is taken from pyplot, or a notebook would show it again.

    Its layout is found the first time and then kept, so that the picture does not jump.
    """
    plt.close(figure)
    figure.set_dpi(_DPI)  # the reader's own may be another
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")
    picture = cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)
    return cv2.imencode(".jpg", picture, _JPEG)[1].tobytes()


@drawing.styled
def empty_panels(
    columns: int, *, size: tuple[float, float], colours: Mapping[str, str] | None = None
) -> tuple[Figure, Sequence[Axes]]:
    """A figure that stays: panels for pictures in a row, to be filled anew at every step, and a legend."""
    figure, axes = drawing.panels(1, columns, size=size, pictures=True)
    if colours:
        drawing.draw_legend(figure, dict(colours))
    plt.close(figure)
    return figure, axes[0]


def emptied(panel: Axes) -> Axes:
    """A panel without what the last step drew."""
    panel.clear()
    panel.set_axis_off()
    return panel


def error_words(truth: np.ndarray, predicted: np.ndarray) -> str:
    """Dice of two bool masks, and the pixels that one has and the other has not."""
    missed, added = np.count_nonzero(truth & ~predicted), np.count_nonzero(predicted & ~truth)
    return f"{drawing.dice_words(truth, predicted)}; {missed:,} pixels missed, {added:,} false positive"
