"""Static figures, one family: grey CT, the same mask colours everywhere.

Every function takes arrays or tables and returns a figure that pyplot knows, so a notebook cell
reads ``plots.class_counts(table)`` and then ``plt.show()``, and the figure appears once. A *case*
is (image, labels, title): uint8 image, grey (rows, columns) or in the report's three-channel
coding (rows, columns, 3); labels 0 background, 1 liver, 2 tumour. *Marks* say how large a picture's
pixels are and which side is the patient's right (:func:`lits_helpers.drawing.slice_marks`), one for
each case; without them there is no scale bar and no side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from .distances import bounding_box
from .drawing import (
    DIAGNOSIS_COLOURS, ERROR_COLOURS, LINE_COLOURS, LIVER_COLOUR, MASK_COLOURS, SMALL, TRAINING_COLOUR,
    TUMOUR_COLOUR, VALIDATION_COLOUR, Marks, dice_words, draw_legend, draw_marks, draw_outline, error_map,
    outlined, panels, show_ct, styled, window_about,
)
from .index import REPORT_COUNTS
from .masks import LIVER, REPORT_TUMOUR_BAND, THRESHOLD, TUMOUR, Coding, report_target
from .splits import SPLITS

Case = tuple[np.ndarray, np.ndarray, str]

METRIC_TITLES = {
    "loss": "Loss",
    "dice_coef": "Dice, mean of batches",
    "iou": "IoU, mean of batches",
    "pooled_dice": "Dice, pooled over pixels",
    "pooled_iou": "IoU, pooled over pixels",
}


def _case_grid(rows: Sequence[Sequence[tuple]], title: str, marks: Sequence[Marks] = ()) -> Figure:
    """Rows of cases with outlines, or without where the labels are None; the first with marks, if any."""
    side = min(10 / len(rows[0]), 3.3)
    size = (side * len(rows[0]), (side + 0.2) * len(rows) + 0.8)
    figure, axes = panels(len(rows), len(rows[0]), size=size, pictures=True)
    for line, row in zip(axes, rows, strict=True):
        for panel, (image, labels, words) in zip(line, row, strict=True):
            outlined(panel, image, labels)
            panel.set_title(words)
    for panel, known in zip(axes[0], marks or [Marks()] * len(rows[0]), strict=True):
        draw_marks(panel, known)
    draw_legend(figure, MASK_COLOURS, image=rows[0][0][0])
    figure.suptitle(title)
    return figure


@styled
def example_slices(cases: Sequence[Case], *, marks: Sequence[Marks] = ()) -> Figure:
    """CT above the same CT with outlined masks, one column a case; three to five are readable."""
    above = [(image, None, title) for image, _, title in cases]
    below = [(image, labels, "") for image, labels, _ in cases]
    return _case_grid([above, below], "CT slices, and below with outlined masks", marks)


@styled
def augmentation_preview(rows: Sequence[Sequence[Case]]) -> Figure:
    """Slices and their transformed versions: one row a slice, the original first.

    Sides and scale are not marked: being mirrored and enlarged is what the augmentation does.
    """
    return _case_grid(rows, "Augmentation moves image and mask together")


@styled
def coding_example(coding: Coding, picture: np.ndarray, labels: np.ndarray) -> Figure:
    """A mask as stored, its levels with what they are taken for, and the labels it gives.

    Parameters
    ----------
    coding : lits_helpers.masks.Coding
        From :func:`lits_helpers.masks.detect`.
    picture : array (rows, columns), or uint8 (rows, columns, 3), red, green, blue
        The mask file's pixels.
    labels : uint8 array (rows, columns)
        0 background, 1 liver, 2 tumour, decoded from it.
    """
    figure, axes = panels(1, 3, size=(10, 3.6))
    stored, levels, decoded = axes[0]
    # Of 0, 1 and 2 nothing would be seen on the scale of a screen.
    scale = f", shown on a scale of 0 to {picture.max()}" if 0 < picture.max() < 64 else ""
    stored.imshow(picture, cmap="gray", vmin=0, vmax=picture.max() if scale else 255)
    stored.set_title(f"As stored{scale}")

    colours = ("#BBBBBB", LIVER_COLOUR, TUMOUR_COLOUR)
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    counts = [np.bincount(grey[labels == label], minlength=int(grey.max()) + 1) for label in range(3)]
    below = np.zeros(len(counts[0]))
    for label, count in enumerate(counts):
        levels.bar(range(len(count)), count, bottom=below, color=colours[label], width=1)
        below = below + count
    marks: dict[int, tuple] = {}
    for level, label in coding.mapping.items():
        place = round(float(np.dot(np.broadcast_to(level, 3), (0.299, 0.587, 0.114))))
        # Of the report's levels that lie side by side one picture holds one.
        rivals = [other for other in marks if grey.max() > TUMOUR and abs(other - place) <= 2]
        here = below[place] if place < len(below) else 0
        if all(here > below[other] for other in rivals):
            marks = {other: mark for other, mark in marks.items() if other not in rivals}
            marks[place] = (",".join(map(str, np.atleast_1d(level))), colours[label])
    for place, (words, colour) in marks.items():
        levels.axvline(place, color=colour, linestyle=":")
        levels.text(place, 1.01, words, transform=levels.get_xaxis_transform(), ha="center", fontsize=SMALL, rotation=30)
    levels.set(yscale="log", ylim=(0.5, 2 * grey.size), xlabel="luminance" if picture.ndim == 3 else "grey level")
    levels.set(ylabel="pixels (log scale)")
    levels.xaxis.get_major_locator().set_params(integer=True)
    levels.set_title("Its levels and what they mean", pad=34 if picture.ndim == 3 else 22)

    shown = np.zeros((*labels.shape, 4))
    for label in (LIVER, TUMOUR):
        shown[labels == label] = to_rgba(colours[label])
    decoded.set_facecolor("black")
    decoded.imshow(shown, interpolation="nearest")
    counted = f"liver {np.sum(labels == LIVER):,}, tumour {np.sum(labels == TUMOUR):,} pixels"
    decoded.set_title(f"Decoded labels\n{counted}")
    for panel in (stored, decoded):
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    draw_legend(figure, {"background": colours[0], **MASK_COLOURS})
    figure.suptitle(f"Mask coding {coding.name}{', smeared' if coding.smeared else ''}, from {coding.files:,} files")
    return figure


@styled
def class_counts(table: pd.DataFrame) -> Figure:
    """Slices of each diagnosis: counted, by the report's rule if it differs, and published.

    Parameters
    ----------
    table : DataFrame
        Slice table with ``diagnosis`` and ``report_diagnosis`` (0 empty, 1 liver only, 2 liver
        and tumour).

    References
    ----------
    Figure 6 of the report.
    """
    def counted(column: str) -> tuple[int, ...]:
        return tuple(int((table[column] == diagnosis).sum()) for diagnosis in range(3))

    counts = {"Counted from the masks": counted("diagnosis")}
    if not (table["diagnosis"] == table["report_diagnosis"]).all():
        counts["Same slices, by the report's rule"] = counted("report_diagnosis")
    counts["Published in the report"] = REPORT_COUNTS.values()

    figure, axes = panels(1, len(counts), size=(10 / 3 * len(counts), 3.2))
    for panel, (title, numbers) in zip(axes.flat, counts.items(), strict=True):
        bars = panel.bar(list(DIAGNOSIS_COLOURS), numbers, color=DIAGNOSIS_COLOURS.values())
        total = sum(numbers)
        panel.bar_label(bars, [f"{n:,}\n({n / max(total, 1):.0%})" for n in numbers], padding=2)
        panel.set(title=f"{title}\n({total:,} slices)", ylim=(0, 1.25 * max(*numbers, 1)))
        panel.set_xticks(range(3), [name.replace(" and ", " and\n") for name in DIAGNOSIS_COLOURS])
        panel.yaxis.set_major_formatter("{x:,.0f}")
    axes[0, 0].set_ylabel("slices")
    figure.suptitle("Slices of each diagnosis")
    return figure


@styled
def mask_conversion(cases: Sequence[Case]) -> Figure:
    """From stored mask to labels: its colours, its grey levels, the report's target, decoded.

    Parameters
    ----------
    cases : sequence of (coded mask, labels, title)
        Coded: uint8 (rows, columns, 3) RGB or (rows, columns). Labels: what it means.

    References
    ----------
    Figure 7 of the report.
    """
    figure, axes = panels(len(cases), 4, size=(10, 2.4 * len(cases) + 0.9), pictures=True)
    names = ("Mask as stored", "Its grey levels", "Report's target", "Decoded labels")
    colours = np.array([to_rgba(colour) for colour in ("black", LIVER_COLOUR, TUMOUR_COLOUR)])
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(name)
    for line, (coded, labels, title) in zip(axes, cases, strict=True):
        grey = coded if coded.ndim == 2 else cv2.cvtColor(coded, cv2.COLOR_RGB2GRAY)
        limits = dict(vmin=min(50, grey.min()), vmax=max(90, grey.max()))
        line[0].imshow(coded, cmap="gray", vmin=0, vmax=255)
        levels = line[1].imshow(grey, cmap="cividis", **limits)
        line[2].imshow(report_target(grey), cmap="gray", vmin=0, vmax=1)
        line[3].imshow(colours[labels], interpolation="nearest")
        line[0].set_ylabel(title)
        scale = figure.colorbar(levels, ax=line[1]).ax
        scale.tick_params(labelsize=SMALL)
        band = scale.axhspan(*REPORT_TUMOUR_BAND, fill=False, hatch="////", edgecolor="white", lw=0)
        target = scale.axhline(THRESHOLD * 255, color="black", lw=2)
    target = Line2D([], [], color=target.get_color(), lw=2, label=f"target above {THRESHOLD:.2f} of 255")
    low, high = REPORT_TUMOUR_BAND
    band = Patch(facecolor="grey", edgecolor="white", hatch=band.get_hatch(),
                 label=f"levels {low} to {high}, which mean a tumour to the report")
    draw_legend(figure, MASK_COLOURS, target, band)
    figure.suptitle("What a stored mask says")
    return figure


@styled
def split_overview(table: pd.DataFrame) -> Figure:
    """Slices of each volume by diagnosis: one row a volume, one panel a side of the split.

    A volume on more than one side has bars in several panels and its number in bold, and the
    title counts it.

    Parameters
    ----------
    table : DataFrame
        Slice table with ``volume``, ``diagnosis`` and ``split``.
    """
    counts = pd.crosstab([table["split"], table["volume"]], table["diagnosis"])
    sides = table.groupby("volume")["split"].unique()
    order = sorted(sides.index, key=lambda v: (min(SPLITS.index(side) for side in sides[v]), v))
    leaking = [volume for volume in order if len(sides[volume]) > 1]

    height = float(np.clip(0.18 * len(order) + 1.5, 2.8, 14))
    figure, axes = panels(1, 3, size=(10, height), sharex=True, sharey=True)
    for panel, split in zip(axes.flat, SPLITS, strict=True):
        here = counts[counts.index.get_level_values("split") == split].droplevel("split")
        here = here.reindex(index=order, columns=range(3), fill_value=0).to_numpy()
        starts = here.cumsum(axis=1) - here
        for lengths, left, colour in zip(here.T, starts.T, DIAGNOSIS_COLOURS.values(), strict=True):
            panel.barh(range(len(order)), lengths, left=left, color=colour)
        volumes = np.count_nonzero(here.sum(axis=1))
        panel.set(title=f"{split} (volumes: {volumes}, slices: {here.sum():,})", xlabel="slices")
        panel.grid(axis="y", linewidth=0.3)
    axes[0, 0].set_xlim(0, 1.04 * counts.sum(axis=1).max())
    axes[0, 0].set(ylabel="volume", ylim=(len(order) - 0.4, -0.6))  # the first on top
    axes[0, 0].set_yticks(range(len(order)), order, fontsize=min(SMALL, 50 * height / len(order)))
    for label, volume in zip(axes[0, 0].get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if volume in leaking else "normal")
    draw_legend(figure, DIAGNOSIS_COLOURS)
    verdict = f"{len(leaking)} on more than one side: leaks" if leaking else "none on two sides"
    figure.suptitle(f"Split of {len(order)} volumes, {verdict}")
    return figure


@styled
def training_curves(history: pd.DataFrame, *, monitor: str = "val_loss") -> Figure:
    """Training and validation in one panel a metric, with the best epoch marked.

    Parameters
    ----------
    history : DataFrame
        ``epoch`` and metrics, each with or without its ``val_`` partner; not drawn: ``seconds``.
    monitor : str
        Column that chooses the best epoch: lowest if it is a loss, otherwise highest. A history
        without it gets no mark.

    References
    ----------
    Figure 8 of the report.
    """
    metrics = [c for c in history if c not in ("epoch", "seconds") and not c.startswith("val_")]
    columns = min(len(metrics), 3 if len(metrics) <= 6 else 4)
    lines = -(-len(metrics) // columns)
    figure, axes = panels(lines, columns, size=(min(10 / 3 * columns, 10), 2.4 * lines + 0.8))
    for unused in axes.flat[len(metrics):]:
        unused.remove()
    curves = (("", TRAINING_COLOUR, "training"), ("val_", VALIDATION_COLOUR, "validation"))
    for panel, metric in zip(axes.flat, metrics):
        for prefix, colour, name in curves:
            if prefix + metric in history:
                values = history[prefix + metric]
                panel.plot(history["epoch"], values, ".-", color=colour, label=name)
        if monitor in history:
            sign = -1 if monitor.endswith("loss") else 1
            best = history["epoch"][(sign * history[monitor]).idxmax()]
            panel.axvline(best, color="grey", ls=":", label=f"best {monitor}: epoch {best}")
        title = METRIC_TITLES.get(metric, metric.replace("_", " ").capitalize())
        panel.set(title=title, xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        if metric == "learning_rate":
            panel.set_yscale("log")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle("Training")
    return figure


@styled
def dice_against_seconds(histories: Mapping[str, pd.DataFrame], *, data: str) -> Figure:
    """Validation Dice of several runs against the time they took: what learns fastest on this machine.

    Parameters
    ----------
    histories : mapping
        Name of each run to its history (:func:`lits_helpers.training.read_history`).
    data : str
        What the Dice was obtained on, for the title.
    """
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for (name, history), colour in zip(histories.items(), cycle(LINE_COLOURS)):
        axes.plot(history.seconds.cumsum(), history.val_pooled_dice, ".-", color=colour, label=name)
    axes.set(
        xlabel="seconds of training", ylabel="pooled tumour Dice", ylim=(0, 1),
        title=f"Validation patients, {data}, at the network's resolution",
    )
    axes.legend(loc="upper left")
    return figure


def _zoom(mask: np.ndarray) -> tuple[float, float, float]:
    """Left, top and side of a square around a mask, a quarter of the picture at least."""
    size = min(mask.shape)
    extent = max(part.stop - part.start for part in bounding_box(mask))
    side = min(max(size / 4, 1.5 * extent), size) if extent else size
    top, left = window_about(mask, side, side)
    return left, top, side


@styled
def predictions(
    cases: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, str]],
    *,
    target: str = "tumour",
    threshold: float = THRESHOLD,
    marks: Sequence[Marks] = (),
) -> Figure:
    """CT, truth, prediction, probability and errors, one row a slice.

    The frame in the whole CT is what the other four panels enlarge.

    Parameters
    ----------
    cases : sequence of (image, truth, probability, title)
        Truth: bool, or 0 and 1 (rows, columns). Probability: float in 0..1, same shape. The title
        stands at the left ("best: volume 3, slice 40"), and the slice's Dice below it.
    target : str
        ``"tumour"`` or ``"liver"``: what truth and probability are about.
    threshold : float
        Probabilities above it are the prediction.
    marks : sequence of Marks
        One a case: sides and scale in the CT, and the scale of what is enlarged.

    Raises
    ------
    ValueError
        If a truth holds labels, or its shape is not the probability's.

    References
    ----------
    Figure 9 of the report.
    """
    figure, axes = panels(len(cases), 5, size=(10, 2.0 * len(cases) + 1.1), pictures=True)
    names = ("CT", "Truth", "Prediction", "Probability", "Errors")
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(name)
    marks = marks or [Marks()] * len(cases)
    for line, (image, truth, probability, title), known in zip(axes, cases, marks, strict=True):
        predicted = probability > threshold
        # A row is two inches high: of longer words the lines are broken at a comma.
        words = [part if len(part) <= 24 else part.replace(", ", ",\n", 1) for part in title.split("\n")]
        line[0].set_ylabel("\n".join([*words, dice_words(truth, predicted)]))
        truth = truth == 1
        for panel in line[[0, 1, 2, 4]]:
            show_ct(panel, image)
        draw_outline(line[1], truth, MASK_COLOURS[target])
        draw_outline(line[2], predicted, MASK_COLOURS[target])
        heat = line[3].imshow(probability, cmap="inferno", vmin=0, vmax=1)
        line[4].imshow(error_map(truth, predicted), interpolation="nearest")
        left, top, side = _zoom(truth | predicted)
        line[0].add_patch(Rectangle((left, top), side, side, fill=False, edgecolor="white"))
        draw_marks(line[0], known)
        for panel in line[1:]:
            panel.set(xlim=(left, left + side), ylim=(top + side, top))
            panel.set_aspect(line[0].get_aspect())
        draw_marks(line[1], replace(known, is_radiological=False))
    scale = figure.colorbar(heat, ax=axes[:, 3].tolist(), location="bottom", shrink=0.9, pad=0.02)
    scale.ax.tick_params(labelsize=SMALL)
    draw_legend(figure, {target: MASK_COLOURS[target], **ERROR_COLOURS}, image=cases[0][0])
    figure.suptitle(f"Predicted {target} (probability above {threshold:g}) beside the truth")
    return figure


@styled
def confusion_matrix(matrix: pd.DataFrame) -> Figure:
    """Counts and their shares of the row, truth in rows and predictions in columns.

    Parameters
    ----------
    matrix : DataFrame of counts
        Index and columns name the classes; the names of both say the unit ("true slices").
    """
    counts = matrix.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = panels(1, 1, size=(4.2, 3.8))
    panel = axes[0, 0]
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        words = f"{counts[row, column]:,}\n({share:.1%})"
        colour = "white" if share > 0.6 else "black"
        panel.text(column, row, words, ha="center", va="center", color=colour, fontsize=11)
    panel.set_xticks(range(len(matrix.columns)), matrix.columns)
    panel.set_yticks(range(len(matrix.index)), matrix.index, rotation=90, va="center")
    panel.spines[:].set_visible(False)
    panel.set(xlabel=matrix.columns.name or "predicted", ylabel=matrix.index.name or "truth")
    figure.suptitle("Confusion matrix: count (share of the row)")
    return figure


@styled
def dice_distribution(slices: pd.DataFrame, patients: pd.DataFrame) -> Figure:
    """Dice of each slice and each patient with medians, and the patients' against tumour size.

    Parameters
    ----------
    slices, patients : DataFrame
        From :func:`lits_helpers.scoring.slice_scores` and ``patient_scores``. Their ``dice`` is
        NaN where truth and prediction are empty: left out, and counted in the label.
        ``truth_pixels`` is the size; a patient without a tumour is not in the right panel.
    """
    figure, axes = panels(1, 2, size=(10, 3.8), sharey=True)
    strips, by_size = axes[0]
    labels = []
    for place, (unit, table) in enumerate({"slices": slices, "patients": patients}.items()):
        kept = table["dice"].dropna()
        labels.append(f"{len(kept):,} {unit}\n{len(table) - len(kept):,} left out (both empty)")
        # Sideways scatter keeps equal values apart; it means nothing, so its seed is fixed.
        scatter = np.random.default_rng(0).uniform(-0.25, 0.25, len(kept))
        strips.plot(place + scatter, kept, "o", color=TRAINING_COLOUR, alpha=0.5, markersize=4)
        if len(kept):
            strips.hlines(kept.median(), place - 0.35, place + 0.35, color="black", linewidth=2)
            labels[-1] += f"\nmedian {kept.median():.2f}"
    strips.set_xticks((0, 1), labels)
    strips.set(title="Per slice, and per patient", ylabel="Dice")
    strips.set(xlim=(-0.5, 1.5), ylim=(-0.03, 1.03))
    with_tumour = patients[patients["truth_pixels"] > 0]
    sizes = with_tumour["truth_pixels"]
    by_size.plot(sizes, with_tumour["dice"], "o", color=TRAINING_COLOUR, alpha=0.7)
    by_size.set(title="Per patient with a tumour, by its size", xlabel="true tumour pixels")
    by_size.set_xscale("log")
    # Whole decades, in figures; 2 and 5 between them too where there is room for it.
    decades = np.log10([sizes.min(), sizes.max()]) if len(sizes) else np.array([0, 1])
    first, last = np.floor(decades[0]), max(np.ceil(decades[1]), np.floor(decades[0]) + 1)
    by_size.set_xlim(10**first / 1.1, 10**last * 1.1)
    by_size.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if last - first <= 2 else (1,)))
    by_size.xaxis.set_major_formatter("{x:,.0f}")
    by_size.xaxis.set_minor_formatter(NullFormatter())
    for panel in axes[0]:
        panel.grid(axis="y", linewidth=0.3)
    figure.suptitle("Distribution of Dice")
    return figure


@styled
def duplicate_slices(pairs: Sequence[tuple[np.ndarray, np.ndarray, str]]) -> Figure:
    """Slices that look alike, side by side, and what differs between them; one row a pair.

    Parameters
    ----------
    pairs : sequence of (first, second, title)
        uint8 (rows, columns), the second moved onto the first, as
        :func:`lits_helpers.duplicates.matched_pictures` reads them.
    """
    figure, axes = panels(len(pairs), 3, size=(9, 3.1 * len(pairs) + 0.9), pictures=True)
    for panel, words in zip(axes[0], ("First", "Second, moved onto it", "Second less first"), strict=True):
        panel.set_title(words)
    for line, (first, second, title) in zip(axes, pairs, strict=True):
        show_ct(line[0], first)
        show_ct(line[1], second)
        line[0].set_ylabel(title, fontsize=SMALL)
        difference = second.astype(np.int16) - first
        shown = line[2].imshow(difference, cmap="RdBu_r", vmin=-128, vmax=128)
    scale = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.3, pad=0.02, anchor=(1, 0))
    scale.set_label("grey levels, of 255", fontsize=SMALL)
    scale.ax.tick_params(labelsize=SMALL)
    figure.suptitle("Near-duplicate slices of different volumes, and their similarity")
    return figure
