"""Static figures of scores: cases, quartiles, means with their intervals; made like those of :mod:`plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .drawing import SMALL, TRAINING_COLOUR, draw_legend, panels, styled
from .uncertainty import Description, Scores, describe, scores_with_gain

_QUARTILES_COLOUR = "#BBBBBB"


@styled
def uncertainty_plot(
    runs: Mapping[object, Scores] | Sequence[Scores], *, scores: Sequence[str] = ("dice",)
) -> Figure:
    """Every case, quartiles, and mean with its patient-level bootstrap 95 % interval: a line a run.

    Exactly two runs on the same volumes get a second panel: their difference, case by case. Where
    its interval leaves out 0, the second run's gain is more than the choice of patients explains.

    Parameters
    ----------
    runs : mapping of name to scores, or sequence of scores
        As for :func:`lits_helpers.uncertainty.summarise_runs`: runs to be compared, seeds or folds.
    scores : sequence of str
        Columns of the runs' tables; a line of panels each. Undefined ones (NaN) are left out and
        counted.
    """
    found = {score: scores_with_gain(runs, score=score) for score in scores}
    number = len(runs)
    is_paired = all(len(tables) > number for tables in found.values())
    height = (0.62 * number + 0.7) * len(found) + 0.9
    figure, axes = panels(len(found), 1 + is_paired, size=(10 if is_paired else 7.5, max(height, 2.4)))
    for line, (score, tables) in zip(axes, found.items(), strict=True):
        tables = list(tables.items())
        words = score.replace("_", " ")
        _draw_runs(line[0], dict(tables[:number]))
        line[0].set(title=f"{words.capitalize()} of each case", xlabel=words)
        if is_paired:
            line[1].axvline(0, color="black", linewidth=0.8, linestyle=":")
            _draw_runs(line[1], dict(tables[number:]))
            line[1].set(title="Paired difference of each case", xlabel=f"{words}, difference")
    case = Line2D([], [], color=TRAINING_COLOUR, marker="o", ls="", ms=4, alpha=0.6, label="case")
    quartiles = Patch(color=_QUARTILES_COLOUR, label="quartiles and median")
    mean = Line2D([], [], color="black", marker="D", ms=5, lw=2, label="mean, 95 % interval over patients")
    draw_legend(figure, {}, case, quartiles, mean)
    figure.suptitle("Scores and how far they can be trusted")
    return figure


def _draw_runs(panel: Axes, tables: Mapping[object, pd.DataFrame]) -> None:
    """Runs from top to bottom, each a strip of cases with a box of quartiles, and the mean below."""
    descriptions = [describe(table.score, patients=table.patient) for table in tables.values()]
    for place, (table, found) in enumerate(zip(tables.values(), descriptions, strict=True)):
        kept = table.score.dropna()
        if not len(kept):
            continue
        panel.barh(
            place - 0.12, found.upper_quartile - found.lower_quartile, left=found.lower_quartile,
            height=0.42, color=_QUARTILES_COLOUR, alpha=0.6,
        )
        panel.vlines(found.median, place - 0.33, place + 0.09, color="#555555", linewidth=2)
        # Scatter across the strip keeps equal values apart; it means nothing, so its seed is fixed.
        scatter = np.random.default_rng(0).uniform(-0.15, 0.15, len(kept))
        panel.plot(kept, place - 0.12 + scatter, "o", color=TRAINING_COLOUR, alpha=0.6, markersize=4)
        panel.hlines(place + 0.25, found.low, found.high, color="black", linewidth=2)
        panel.plot(found.value, place + 0.25, "D", color="black", markersize=5)
    names = [_named(name, found) for name, found in zip(tables, descriptions, strict=True)]
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    panel.grid(axis="x", linewidth=0.3)


def _named(name: object, found: Description) -> str:
    """A run's name, its mean with interval, and its cases."""
    left_out = f", {found.left_out} left out" if found.left_out else ""
    interval = f" ({found.low:.2f} to {found.high:.2f})" if np.isfinite(found.low) else ""
    mean = f"{found.value:.2f}{interval}" if found.cases else "no score"
    return f"{name}\n{mean}\n{found.cases} cases{left_out}"


@styled
def bland_altman(cases: pd.DataFrame) -> Figure:
    """Predicted less true tumour burden against the mean of both, a point a case.

    Lines: the bias, and the 95 % limits of agreement, 1.96 standard deviations from it (with three
    cases or more).

    Parameters
    ----------
    cases : DataFrame
        ``burden_truth`` and ``burden_predicted``, shares of the liver's volume: of
        :func:`lits_helpers.cases.score_cases`.

    References
    ----------
    Bland and Altman, "Statistical methods for assessing agreement between two methods of clinical
    measurement", Lancet 327 (1986) 307.
    """
    known = cases.dropna(subset=["burden_truth", "burden_predicted"])
    mean = (known.burden_truth + known.burden_predicted) / 2
    error = known.burden_predicted - known.burden_truth
    figure, axes = panels(1, 1, size=(6, 3.8))
    panel = axes[0, 0]
    panel.scatter(100 * mean, 100 * error, s=22, color=TRAINING_COLOUR, zorder=3)
    panel.axhline(0, color="black", lw=0.6)
    panel.axhline(100 * error.mean(), color="black", lw=1.2, ls="--", label=f"bias {100 * error.mean():+.2f} %")
    if len(known) > 2:
        spread = 1.96 * error.std(ddof=1)
        words = f"limits of agreement \N{PLUS-MINUS SIGN}{100 * spread:.2f} %"
        for sign, label in ((-1, words), (1, None)):
            panel.axhline(100 * (error.mean() + sign * spread), color="black", lw=0.8, ls=":", label=label)
    panel.set(
        title=f"Tumour burden of {len(known)} cases", xlabel="mean of true and predicted burden (% of the liver)",
        ylabel="predicted less true (%)",
    )
    figure.legend(handles=panel.get_legend_handles_labels()[0], loc="outside lower center", ncols=2)
    return figure


@styled
def threshold_sweep(sweep: pd.DataFrame, curve: pd.DataFrame, *, chosen: float) -> Figure:
    """Dice by threshold, and the free-response curve of lesions, on validation patients.

    Parameters
    ----------
    sweep : DataFrame
        ``threshold`` and ``tumour_dice``, pooled: rows of :func:`lits_helpers.cases.pooled`.
    curve : DataFrame
        Of :func:`lits_helpers.lesions.froc`.
    chosen : float
        Threshold to be marked.
    """
    figure, axes = panels(1, 2, size=(9, 3.2))
    dice, response = axes[0]
    dice.plot(sweep.threshold, sweep.tumour_dice, "o-", ms=4, color=TRAINING_COLOUR)
    dice.axvline(chosen, color="black", lw=0.8, ls=":", label=f"chosen: {chosen:g}")
    dice.set(title="Tumour Dice, pooled over cases", xlabel="threshold", ylabel="Dice")
    dice.legend()
    response.plot(curve.false_positives_per_case, curve.recall, "o-", ms=4, color=TRAINING_COLOUR)
    for point in curve.iloc[[0, -1]].itertuples():
        place = (point.false_positives_per_case, point.recall)
        response.annotate(
            f"{point.threshold:g}", place, textcoords="offset points", xytext=(0, -6), ha="center", va="top", fontsize=SMALL
        )
    response.set(title="Lesions found (free response)", xlabel="false positives per case", ylabel="recall of lesions")
    response.set_ylim(-0.12, 1.03)  # with room for a threshold below a recall of 0
    for panel in axes[0]:
        panel.grid(lw=0.3)
    figure.suptitle("Validation patients: each point a threshold")
    return figure
