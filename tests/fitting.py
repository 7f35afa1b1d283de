"""Whether the words of a figure can be read: large enough, inside the figure, with a gap between them."""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text

SMALLEST = 8  # points


def misfits(figure: Figure) -> list[str]:
    """What is wrong with a figure's words once it is drawn, in words; nothing where all fit."""
    figure.canvas.draw()
    words = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    # Ticks beyond an axis are objects too, but never drawn.
    shown = {id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
             for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()] for text in (tick.label1, tick.label2)}
    drawn = {id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
             for tick in axis._update_ticks() for text in (tick.label1, tick.label2)}
    words = [text for text in words if id(text) not in shown or id(text) in drawn]
    boxes = {id(text): text.get_window_extent() for text in words}
    found = [f"{text.get_text()!r} has {text.get_fontsize():g} points" for text in words if text.get_fontsize() < SMALLEST]
    for text in words:
        box = boxes[id(text)]
        if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1:
            found.append(f"{text.get_text()!r} is cut off")
    for one, other in combinations(words, 2):
        a, b = boxes[id(one)], boxes[id(other)]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > -2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
            found.append(f"{one.get_text()!r} lies over {other.get_text()!r}")
    return found
