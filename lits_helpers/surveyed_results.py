"""The surveyed systems side by side: scores in one table, and their work on one page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from .cases import burden_errors, patients_of, pooled, score_cases
from .drawing import MASK_COLOURS, SMALL, dice_words, draw_legend, outlined, panels, styled
from .effects import stage_scores, step_summary
from .index import spacing_of
from .masks import LIVER, TUMOUR, read_labels
from .pictures import read_image
from .surveyed_systems import System, volumes
from .uncertainty import describe


@dataclass(frozen=True, eq=False)
class Result:
    """What one system did with the patients of a table.

    Attributes
    ----------
    cases : DataFrame
        Of :func:`lits_helpers.cases.score_cases`; ``seconds``, wall time of predicting the volume,
        without reading its files; and ``patient`` where the slice table has it.
    labels : dict
        Of the slices that were asked for, by their row in the table: uint8 (rows, columns), 0
        background, 1 liver, 2 tumour.
    """

    cases: pd.DataFrame
    labels: dict[object, np.ndarray]


def evaluate_system(system: System, table: pd.DataFrame, *, shown: pd.DataFrame | None = None) -> Result:
    """Let a system look at whole volumes, and score it in 3D at native resolution.

    Parameters
    ----------
    system : System
    table : DataFrame
        Slice table of whole volumes.
    shown : DataFrame, optional
        Rows of the table whose labels are to be kept, for :func:`page`.
    """
    seconds, labels = [], {}
    kept = set() if shown is None else set(shown.index)

    def cases() -> Iterator[tuple]:
        for rows, pictures in volumes(table):
            started = time.perf_counter()
            probabilities, liver = system.predictor.predict(pictures, rows.slice.tolist())
            seconds.append(time.perf_counter() - started)
            predicted = liver.astype(np.uint8) * np.uint8(LIVER)
            predicted[probabilities > system.threshold] = TUMOUR
            labels.update({row: plane for row, plane in zip(rows.index, predicted, strict=True) if row in kept})
            truth = np.stack([read_labels(path) for path in rows.mask_path])
            yield int(rows.volume.iloc[0]), truth, predicted, spacing_of(rows, rows.slice)

    scored = score_cases(cases(), predicts_liver=system.draws_liver)
    scored["seconds"] = seconds
    if "patient" in table:
        scored["patient"] = scored.volume.map(table.groupby("volume").patient.first())
    return Result(scored, labels)


def side_by_side(systems: Mapping[str, System], results: Mapping[str, Result]) -> pd.DataFrame:
    """One row a system.

    Returns
    -------
    DataFrame, indexed by the system's name
        - ``tumour_dice_per_case``, mean (both empty left out, one empty 0), with ``low`` and ``high``,
          its patient-level bootstrap 95 % interval, and the number of ``cases``
        - ``tumour_dice_pooled`` over all voxels
        - ``lesion_recall``, ``lesion_precision`` over all lesions, one shared voxel; NaN without any
        - ``burden_rmse``, as a share of the liver, by the system's own liver; NaN where it draws none
        - ``seconds_per_volume``, median; ``parameters``; ``training_seconds``, with those of a network
          that several systems share
    """
    rows = {}
    for name, system in systems.items():
        cases = results[name].cases
        dice, sums = describe(cases.tumour_dice, patients=patients_of(cases)), pooled(cases)
        rows[name] = {
            "tumour_dice_per_case": dice.value, "low": dice.low, "high": dice.high, "cases": dice.cases,
            "tumour_dice_pooled": sums["tumour_dice"],
            "lesion_recall": sums["recall_any"], "lesion_precision": sums["precision_any"],
            "burden_rmse": burden_errors(cases)["rmse"] if system.draws_liver else np.nan,
            "seconds_per_volume": cases.seconds.median(),
            "parameters": system.parameters,
            "training_seconds": system.seconds,
        }
    return pd.DataFrame.from_dict(rows, "index").rename_axis("system")


def filtering_effect(system: System, table: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of Chlebus's system before and after its forest.

    Parameters
    ----------
    system : System
        Whose predictor is :class:`lits_helpers.surveyed_systems.Filtered`.
    table : DataFrame
        Slice table of whole volumes, of patients that neither networks nor forest learnt from.

    Returns
    -------
    DataFrame
        Of :func:`lits_helpers.effects.step_summary`, of the steps ``"before"`` and ``"after"``.
    """
    def scores() -> Iterator[pd.DataFrame]:
        for rows, pictures in tqdm(volumes(table), "filtering", table.volume.nunique(), unit="volume", delay=2):
            probabilities, liver = system.predictor.cascade.predict(pictures, rows.slice.tolist())
            after = system.predictor.filtered(np.stack(pictures), probabilities, liver)
            truth = np.stack([read_labels(path) for path in rows.mask_path]) == TUMOUR
            stages = {"before": probabilities > system.threshold, "after": after > system.threshold}
            yield stage_scores(int(rows.volume.iloc[0]), truth, stages)

    return step_summary(pd.concat(scores(), ignore_index=True))


@styled
def page(shown: pd.DataFrame, results: Mapping[str, Result]) -> Figure:
    """The same slices by all systems: a row a slice, the truth first, each with its tumour's Dice.

    Parameters
    ----------
    shown : DataFrame
        Rows as :func:`evaluate_system` was given them; three to five are readable.
    results : mapping of str to Result
        By the system's name.
    """
    columns = len(results) + 1
    figure, axes = panels(len(shown), columns, size=(10, 1.9 * len(shown) + 0.9), pictures=True)
    for panel, name in zip(axes[0], ("truth", *results), strict=True):
        panel.set_title(name)
    for line, row in zip(axes, shown.itertuples(), strict=True):
        image, truth = read_image(row.image_path), read_labels(row.mask_path)
        outlined(line[0], image, truth)
        line[0].set_ylabel(f"volume {row.volume}\nslice {row.slice}")
        for panel, result in zip(line[1:], results.values(), strict=True):
            found = result.labels[row.Index]
            outlined(panel, image, found)
            panel.set_xlabel(dice_words(truth == TUMOUR, found == TUMOUR), fontsize=SMALL)
    draw_legend(figure, MASK_COLOURS, image=image)
    figure.suptitle("The same slices, all systems")
    return figure
