"""Widgets about a network: how its training goes, what it gets wrong, how large it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ipywidgets import Button, Checkbox, Dropdown, FloatSlider, IntSlider, Layout, Play, SelectionSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from . import drawing, plots
from .explorer import Explorer, emptied, empty_panels, error_words
from .files import DataError, shown
from .masks import THRESHOLD
from .model_size import unet_levels, unet_memory
from .scoring import overlap

_ALL = "all (slower)"
_WAYS = {"way down": drawing.TRAINING_COLOUR, "way up": drawing.VALIDATION_COLOUR}


def training_monitor(folder: str | os.PathLike, *, seconds: float = 5) -> Explorer:
    """The curves of a run while it trains in another notebook or in a terminal.

    With the box ticked it looks for new epochs every few seconds. The browser keeps the time: no
    thread is started, and it ends with the page. While a cell of the same notebook trains, no widget
    answers.

    Parameters
    ----------
    folder : path
        Of the run, that holds or will hold ``history.csv``; :func:`lits_helpers.training.run_folder`
        names it.
    seconds : float
        Between looks.
    """
    path = Path(folder) / "history.csv"
    blank, _ = empty_panels(1, size=(5, 3))
    known: dict = {"stamp": None, "history": pd.DataFrame(), "trouble": ""}

    def draw(metric: str, first: int) -> tuple[Figure, str]:
        history = known["history"]
        if history.empty:
            return blank, known["trouble"] or f"No epoch is finished yet: there is no {shown(path)}"
        later = history[history.epoch >= min(first, history.epoch.max())]
        if metric != _ALL:
            wanted = dict.fromkeys(["epoch", metric, f"val_{metric}", "val_loss"])
            later = later[[name for name in wanted if name in later]]
        # The best of those shown would be another epoch than the words name.
        is_shown = (best := _best(history)) is not None and best.epoch in later.epoch.values
        figure = plots.training_curves(later, monitor="val_loss" if is_shown else "")
        if metric != _ALL:
            figure.set_size_inches(6.4, 3.8)  # one panel may be larger than one of many
        return figure, _progress(history)

    def look(*_: object) -> None:
        stamp = path.stat().st_mtime_ns if path.exists() else None
        if stamp == known["stamp"]:
            return
        known.update(stamp=stamp, **_history(path))
        history, metric = known["history"], monitor.controls["metric"]
        with monitor.at_once():
            if len(history):
                names = [n for n in history if n not in ("epoch", "seconds") and not n.startswith("val_")]
                chosen = metric.value
                metric.options = [*sorted(names, key=lambda name: name != "loss"), _ALL]
                metric.value = chosen if chosen in metric.options else names[0]
                monitor.controls["first"].max = int(history.epoch.max())

    now, ticked = Button(description="look now"), Checkbox(False, description=f"look every {seconds:g} s")
    # Its own buttons are icons, which a page of Voila fetches from elsewhere: a box stands for them.
    clock = Play(max=10**6, interval=int(1000 * seconds), layout=Layout(display="none"))
    monitor = Explorer(
        draw,
        dict(
            metric=Dropdown(options=["loss"], description="curves"),
            first=IntSlider(1, 1, 1, description="from epoch"),
        ),
        above=[now, ticked, clock],
    )
    now.on_click(look)
    clock.observe(look, "value")
    ticked.observe(lambda change: clock.set_trait("playing", change["new"]), "value")
    look()
    return monitor


def _history(path: Path) -> dict[str, object]:
    """The finished epochs of a run, or why they cannot be read; without TensorFlow, which ``runs`` needs."""
    if not path.exists():
        return {"history": pd.DataFrame(), "trouble": ""}
    try:
        history = pd.read_csv(path)
        return {"history": history.astype({"epoch": int}), "trouble": ""}
    except (OSError, ValueError, KeyError) as error:
        return {"history": pd.DataFrame(), "trouble": f"{path}: no table of epochs ({error}): is it a run's?"}


def _best(history: pd.DataFrame) -> pd.Series | None:
    """The epoch with the lowest validation loss, if any has one."""
    if "val_loss" not in history or history.val_loss.isna().all():
        return None
    return history.loc[history.val_loss.idxmin()]


def _progress(history: pd.DataFrame) -> str:
    """How far a run is, in words."""
    words = f"{len(history)} epochs finished"
    if "seconds" in history:
        words += f", {history.seconds.median():.1f} s each"
    if (best := _best(history)) is not None:
        words += f"; lowest val_loss {best.val_loss:.3f} in epoch {best.epoch:.0f}"
    return words


def prediction_reviewer(
    cases: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, str]],
    *,
    target: str = "tumour",
    threshold: float = THRESHOLD,
) -> Explorer:
    """Truth, prediction and errors of slices side by side, the worst first.

    Parameters
    ----------
    cases : sequence of (image, truth, probability, title)
        As :func:`lits_helpers.plots.predictions` takes them.
    target : str
        ``"tumour"`` or ``"liver"``: what truth and probability are about.
    threshold : float
        Probabilities above it are the prediction.

    Raises
    ------
    DataError
        If there are no cases.
    ValueError
        If a truth holds labels, or its shape is not the probability's.
    """
    if not len(cases):
        raise DataError("there are no predictions to review: is this part of the split empty?")
    orders = _orders(cases, threshold)
    colours = {target: drawing.MASK_COLOURS[target], **drawing.ERROR_COLOURS}
    figure, panels = empty_panels(3, size=(9.6, 3.8), colours=colours)

    def draw(order: str, rank: int, zoom: float, outlines: bool) -> tuple[Figure, str]:
        image, truth, probability, title = cases[orders[order][rank]]
        truth, predicted = truth == 1, probability > threshold
        for panel, words in zip(panels, ("Truth", "Prediction", "Errors"), strict=True):
            drawing.show_ct(emptied(panel), image)
            panel.set_title(words)
        if outlines:
            drawing.draw_outline(panels[0], truth, colours[target])
            drawing.draw_outline(panels[1], predicted, colours[target])
        panels[2].imshow(drawing.error_map(truth, predicted), interpolation="nearest")
        for panel in panels:
            _enlarge(panel, truth | predicted, zoom)
        return figure, f"{rank + 1} of {len(cases)}: {title}: {error_words(truth, predicted)}"

    return Explorer(draw, dict(
        order=Dropdown(options=list(orders), description="worst by"),
        rank=IntSlider(0, 0, len(cases) - 1, description="case"),
        zoom=FloatSlider(1, min=1, max=8, step=0.5, description="zoom"),
        outlines=Checkbox(True, description="outlines"),
    ))


def _orders(cases: Sequence[tuple], threshold: float) -> dict[str, np.ndarray]:
    """Positions of the cases, the worst first by each measure; an undefined Dice comes last."""
    found = [
        overlap(truth, probability > threshold)
        for _, truth, probability, _ in tqdm(cases, desc="Scoring", delay=2)
    ]
    measures = {
        "Dice": [case.dice for case in found],  # NumPy sorts NaN to the end
        "pixels missed": [case.intersection - case.truth_pixels for case in found],
        "false-positive pixels": [case.intersection - case.predicted_pixels for case in found],
    }
    return {name: np.argsort(values, kind="stable") for name, values in measures.items()}


def _enlarge(panel: Axes, mask: np.ndarray, zoom: float) -> None:
    """Show a part of the picture about the middle of a mask; zoom 1 is all of it."""
    height, width = (length / zoom for length in mask.shape)
    top, left = drawing.window_about(mask, height, width)
    panel.set(xlim=(left, left + width), ylim=(top + height, top))


@drawing.styled
def unet_overview(levels: pd.DataFrame) -> Figure:
    """Where a U-Net has its parameters, and where its memory: bars by level, the slice's own on top.

    Parameters
    ----------
    levels : DataFrame
        Of :func:`lits_helpers.model_size.unet_levels`.
    """
    figure, _ = drawing.panels(1, 2, size=(8, 3.4))
    drawing.draw_legend(figure, _WAYS)
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


def model_playground() -> Explorer:
    """How depth and filters make a U-Net large: parameters, memory, and the sizes of its levels.

    By arithmetic (:mod:`lits_helpers.model_size`): no network is built. It starts as the report's.
    """
    figure = unet_overview(unet_levels())

    def draw(depth: int, filters: int, image_size: int, batch_size: int) -> tuple[Figure, str]:
        try:
            levels = unet_levels(image_size, filters=filters, depth=depth)
        except ValueError as error:  # a size that cannot be halved so often
            return figure, f"{error}. Below is the network before."
        memory = unet_memory(levels, batch_size=batch_size)
        bottom = levels.iloc[-1]
        draw_unet(figure, levels)
        return figure, (
            f"{levels.encoder.sum() + levels.decoder.sum():,} parameters, {memory['weights']:,.1f} MB\n"
            f"{image_size} x {image_size} x 3 in, {image_size} x {image_size} x 1 out, "
            f"{bottom['size']} x {bottom['size']} x {bottom['filters']} at the bottom\n"
            f"about {memory['training'] / 1000:,.1f} GB to train with batches of {batch_size}"
        )

    return Explorer(draw, dict(
        depth=IntSlider(4, 1, 6, description="depth"),
        filters=SelectionSlider(options=[4, 8, 16, 32, 64, 128], value=64, description="filters"),
        image_size=IntSlider(256, 32, 512, step=16, description="image size"),
        batch_size=SelectionSlider(options=[1, 2, 4, 8, 16, 32], value=32, description="batch size"),
    ))
