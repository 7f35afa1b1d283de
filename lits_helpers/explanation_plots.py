"""Static figures of explanations and uncertainties; made like those of :mod:`plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .calibration import Rejection, Uncertainty, expected_calibration_error, reliability
from .drawing import (
    ERROR_COLOURS, LINE_COLOURS, MASK_COLOURS, TRAINING_COLOUR, draw_legend, draw_outline,
    error_map, outlined, panels, show_ct, styled,
)
from .masks import LIVER, THRESHOLD

_WIDTH = 7  # inches: nine figures of this width leave notebook 09 below 500 kB
_REGION_COLOUR = "#FFFFFF"  # on the dark end of inferno, where both mask colours are hard to see
_REGION = Patch(facecolor="#444444", edgecolor=_REGION_COLOUR, label="explained region, on the maps")


@styled
def explanation_maps(
    image: np.ndarray, labels: np.ndarray, region: np.ndarray, maps: Mapping[str, np.ndarray]
) -> Figure:
    """A slice with its masks, and what maps say of a region; each map on a scale of its own.

    Parameters
    ----------
    image : uint8 array (rows, columns, 3) or (rows, columns)
    labels : uint8 array (rows, columns)
        0 background, 1 liver, 2 tumour.
    region : bool array (rows, columns)
        What is explained.
    maps : mapping of title to float array (rows, columns), 0 or larger
        Of :func:`lits_helpers.explanation.saliency` and ``grad_cam``. Up to eleven.
    """
    columns = min(len(maps) + 1, 4)
    lines = -(-(len(maps) + 1) // columns)
    side = _WIDTH / columns
    figure, axes = panels(lines, columns, size=(_WIDTH, (side + 0.3) * lines + 0.9), pictures=True)
    first, *others = axes.flat
    outlined(first, image, labels)
    first.set_title("CT")
    for panel, (title, found) in zip(others, maps.items()):
        _draw_map(panel, found, region)
        panel.set_title(title)
    for unused in others[len(maps):]:
        unused.remove()
    draw_legend(figure, MASK_COLOURS, _REGION, image=image)
    figure.suptitle("What the network looks at; brightest is each map's largest value")
    return figure


def _draw_map(panel: Axes, found: np.ndarray, region: np.ndarray) -> None:
    panel.imshow(found, cmap="inferno", vmin=0, vmax=max(float(found.max()), 1e-30))
    draw_outline(panel, region, _REGION_COLOUR)


@styled
def randomisation_maps(
    checks: Mapping[str, tuple[pd.DataFrame, np.ndarray]], region: np.ndarray, *, columns: int = 6
) -> Figure:
    """Maps of the trained network beside those of ever more randomised ones; a row a method.

    Parameters
    ----------
    checks : mapping of method to (table, maps)
        Of :func:`lits_helpers.explanation.randomisation_check`, all of one network.
    region : bool array (rows, columns)
    columns : int
        Steps shown, evenly chosen: the first is the trained network, the last one without any
        trained layer.
    """
    steps = len(next(iter(checks.values()))[1])
    chosen = np.unique(np.linspace(0, steps - 1, columns).round().astype(int))
    side = _WIDTH / len(chosen)
    figure, axes = panels(len(checks), len(chosen), size=(_WIDTH, (side + 0.5) * len(checks) + 1.0), pictures=True)
    for line, (method, (table, maps)) in zip(axes, checks.items(), strict=True):
        line[0].set_ylabel(method)
        for panel, step in zip(line, chosen, strict=True):
            _draw_map(panel, maps[step], region)
            row = table.iloc[step]
            rank = "no rank" if np.isnan(row.spearman) else f"rank {row.spearman:.2f}"
            panel.set_xlabel(f"{rank}\nSSIM {row.ssim:.2f}" if step else "", fontsize=8)
    for panel, step in zip(axes[0], chosen, strict=True):
        panel.set_title("trained" if step == 0 else f"{step} of {steps - 1}\nrandomised")
    draw_legend(figure, {}, _REGION)
    figure.suptitle("Does the map change when the network forgets, layer by layer?")
    return figure


@styled
def randomisation_curves(
    checks: Mapping[str, tuple[pd.DataFrame, np.ndarray]], *, references: Mapping[str, float] | None = None
) -> Figure:
    """Similarity to the trained network's map, by the number of layers randomised.

    Parameters
    ----------
    checks : mapping of method to (table, maps)
        As for :func:`randomisation_maps`.
    references : mapping of name to float, optional
        Rank correlations of maps that know no network, drawn as lines across.
    """
    figure, axes = panels(1, 2, size=(_WIDTH, 3.3), sharex=True)
    names = {"spearman": "Rank correlation", "ssim": "Structural similarity"}
    for panel, (score, title) in zip(axes[0], names.items(), strict=True):
        for (method, (table, _)), colour in zip(checks.items(), cycle(LINE_COLOURS)):
            panel.plot(table.randomised, table[score], "o-", ms=3, color=colour, label=method)
        panel.axhline(0, color="black", lw=0.6)
        panel.set(title=title, xlabel="layers randomised, from the answer down", ylim=(-1.05, 1.05))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(lw=0.3)
    for (name, value), style in zip((references or {}).items(), cycle((":", "--", "-."))):
        axes[0, 0].axhline(value, color="black", lw=1, ls=style, label=f"{name}: {value:.2f}")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle("Likeness to the trained network's map")
    return figure


@styled
def skip_maps(
    image: np.ndarray, features: Sequence[np.ndarray], titles: Sequence[str], *, columns: int = 4
) -> Figure:
    """What skip connections carry: of each level the maps that vary most over the slice.

    Parameters
    ----------
    image : uint8 array (rows, columns, 3) or (rows, columns)
    features : sequence of float array (rows, columns, maps)
        Of :func:`lits_helpers.skip_connections.feature_maps`, one a level. Each map is drawn from its
        lowest to its highest value.
    titles : sequence of str
    columns : int
        Maps a level.
    """
    side = _WIDTH / (columns + 1)
    figure, axes = panels(len(features), columns + 1, size=(_WIDTH, (side + 0.1) * len(features) + 0.8), pictures=True)
    for line, maps, title in zip(axes, features, titles, strict=True):
        line[0].set_ylabel(title)
        show_ct(line[0], image)
        order = np.argsort(-maps.std(axis=(0, 1)))
        for panel, number in zip(line[1:], order):
            panel.imshow(maps[..., number], cmap="gray")
            panel.set_title(f"map {number}")
        for unused in line[1 + maps.shape[-1]:]:
            unused.remove()
    figure.suptitle("What the skip connections carry: the maps that vary most")
    return figure


@styled
def skip_ablation(steps: pd.DataFrame) -> Figure:
    """Pooled tumour Dice without skip connections, and the change with its interval over patients.

    Parameters
    ----------
    steps : DataFrame
        Of :func:`lits_helpers.skip_connections.skip_ablation`.
    """
    figure, axes = panels(1, 2, size=(_WIDTH, 0.42 * len(steps) + 1.6), sharey=True)
    dice, change = axes[0]
    places = np.arange(len(steps))
    dice.plot(steps.dice_pooled, places, "o", color=TRAINING_COLOUR)
    for place, value in zip(places, steps.dice_pooled, strict=True):
        dice.annotate(f"{value:.2f}", (value, place), textcoords="offset points", xytext=(0, 5), ha="center", fontsize=8)
    dice.set(title="Tumour Dice, pooled over voxels", xlabel="Dice", xlim=(-0.05, 1.05), ylim=(len(steps) - 0.5, -0.6))
    dice.set_yticks(places, steps.step)
    change.axvline(0, color="black", lw=0.8, ls=":")
    others = steps.iloc[1:]
    change.hlines(places[1:], others.dice_pooled_change_low, others.dice_pooled_change_high, color="black", lw=1.5)
    change.plot(others.dice_pooled_change, places[1:], "D", ms=5, color="black")
    change.set(title="Change, 95 % interval over patients", xlabel="Dice, difference")
    for panel in axes[0]:
        panel.grid(axis="x", lw=0.3)
    figure.suptitle("A trained network whose skip connections carry nothing")
    return figure


@styled
def uncertainty_maps(cases: Sequence[tuple[np.ndarray, np.ndarray, Uncertainty, str]]) -> Figure:
    """CT, mean probability, its entropy, the answers' spread, and errors at the report's threshold: a row a slice.

    Parameters
    ----------
    cases : sequence of (image, labels, uncertainty, title)
        Image uint8, labels 0/1/2 (rows, columns), and an :class:`lits_helpers.calibration.Uncertainty`
        of arrays of that shape.
    """
    figure, axes = panels(len(cases), 5, size=(_WIDTH, 1.5 * len(cases) + 1.4), pictures=True)
    names = ("CT and truth", "Mean probability", "Entropy (bit)", "Spread (SD)", "Errors")
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(name)
    shown = [None] * 5
    for line, (image, labels, found, title) in zip(axes, cases, strict=True):
        line[0].set_ylabel(title)
        outlined(line[0], image, labels)
        shown[1] = line[1].imshow(found.mean, cmap="inferno", vmin=0, vmax=1)
        shown[2] = line[2].imshow(found.entropy, cmap="viridis", vmin=0, vmax=1)
        shown[3] = line[3].imshow(np.sqrt(found.variance), cmap="viridis", vmin=0, vmax=0.5)
        show_ct(line[4], image)
        line[4].imshow(error_map(labels > LIVER, found.mean > THRESHOLD), interpolation="nearest")
    for column in (1, 2, 3):
        scale = figure.colorbar(shown[column], ax=axes[:, column].tolist(), location="bottom", shrink=0.9, pad=0.02)
        scale.ax.tick_params(labelsize=8)
    draw_legend(figure, {**MASK_COLOURS, **ERROR_COLOURS}, image=cases[0][0])
    figure.suptitle("Where the answers doubt and where they differ")
    return figure


@styled
def reliability_diagram(counts: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of tumour by probability, with intervals over patients, and how many pixels say what.

    Parameters
    ----------
    counts : mapping of name to DataFrame
        Of :func:`lits_helpers.calibration.calibration_counts`, of the same pixels and bins.
    """
    figure, axes = panels(1, 2, size=(_WIDTH, 4.2))
    shares, sizes = axes[0]
    shares.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":", label="kept word")
    for (name, one), colour in zip(counts.items(), cycle(LINE_COLOURS)):
        table, error = reliability(one), expected_calibration_error(one)
        interval = "" if np.isnan(error.low) else f" ({error.low:.4f} to {error.high:.4f})"
        label = f"{name}: calibration error {error.value:.4f}{interval}, {error.bins} bins"
        known = table.dropna(subset=["tumour_share", "tumour_share_low"])
        shares.vlines(known.probability, known.tumour_share_low, known.tumour_share_high, color=colour, lw=1, alpha=0.6)
        shares.plot(table.probability, table.tumour_share, "o-", ms=4, color=colour, label=label)
        sizes.stairs(table.pixels, [*table.low, 1], color=colour, lw=1.5)
    shares.set(title="What was said and what was so", xlabel="probability of tumour", ylabel="share that is tumour")
    shares.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    sizes.set(title="Pixels in each bin", xlabel="probability of tumour", ylabel="pixels (log scale)", yscale="log")
    handles, _ = shares.get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center")
    figure.suptitle(f"Calibration, {error.pixels:,} pixels of {error.patients} patients; 95 % intervals over patients")
    return figure


@styled
def rejection_curves(rejections: Mapping[str, Rejection], errors: Mapping[str, pd.DataFrame]) -> Figure:
    """Errors left as the least sure pixels are checked, and error rates from sure to unsure.

    Parameters
    ----------
    rejections : mapping of name to Rejection
        Of :func:`lits_helpers.calibration.error_rejection`.
    errors : mapping of name to DataFrame
        Of :func:`lits_helpers.calibration.error_by_uncertainty`, under the same names.
    """
    figure, axes = panels(1, 2, size=(_WIDTH, 3.6))
    left, rates = axes[0]
    for (name, found), colour in zip(rejections.items(), cycle(LINE_COLOURS)):
        curve = found.curve[found.curve.checked > 0]
        left.plot(100 * curve.checked, 100 * curve.errors_left, color=colour, label=f"{name}: gain {found.gain:.2f}")
        # Without errors a group has no place on a log scale.
        rate = errors[name].error_rate.where(errors[name].error_rate > 0)
        rates.plot(range(1, len(rate) + 1), 100 * rate, "o-", ms=4, color=colour)
    left.plot(100 * curve.checked, 100 * (1 - curve.checked), color="black", lw=0.8, ls=":", label="chance: gain 0")
    left.set(title="Errors left", xlabel="pixels checked, least sure first (%)", ylabel="errors left (%)", xscale="log")
    rates.set(title="Error rate", xlabel="groups of pixels, the surest first", ylabel="wrong pixels (%, log scale)", yscale="log")
    rates.xaxis.get_major_locator().set_params(integer=True)
    for panel in axes[0]:
        panel.grid(lw=0.3)
    handles, _ = left.get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle("Do errors lie where the network is unsure?")
    return figure
