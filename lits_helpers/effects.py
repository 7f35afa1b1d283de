"""What each step of post-processing changes: scores before it and after, case by case and in all.

Dice is that of the tumour. A step that raises it by losing true lesions, or that only helps the
patients it was tuned on, is seen here; the score at the end alone does not show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .cases import MM3_PER_ML
from .files import DataError
from .lesions import match_lesions
from .postprocessing import PostProcessing, Spacing, tumour_steps
from .scoring import overlap
from .uncertainty import bootstrap_interval, ratio_of_sums


class Prediction(NamedTuple):
    """One case of :func:`step_scores`.

    Attributes
    ----------
    volume : int or str
        Its name in the table.
    truth, predicted : bool array (slices, rows, columns)
        Tumour. Probabilities are cut before: ``probability > 0.30``, or :func:`hysteresis`.
    spacing : (slice, row, column) in mm, or None where it is not known
    liver : bool array, optional
        With its tumours, for the step that needs it; the true one makes the result an oracle's.
    """

    volume: int | str
    truth: np.ndarray
    predicted: np.ndarray
    spacing: Spacing | None = None
    liver: np.ndarray | None = None


def step_scores(cases: Iterable[Prediction], *, options: PostProcessing = PostProcessing()) -> pd.DataFrame:
    """Score every case before post-processing and after each of its steps, as they add up.

    Options are to be chosen by this table of *validation* patients; on test patients it only says
    what the chosen ones did. One that is chosen by looking at test patients flatters the score.

    Parameters
    ----------
    cases : iterable of Prediction
        A generator keeps one case in memory at a time.
    options : PostProcessing

    Returns
    -------
    DataFrame
        The rows of :func:`stage_scores`, with ``"before"`` as the first step of each case.
    """
    tables = []
    for case in tqdm(cases, "post-processing", unit="case", delay=2):
        mask = case.predicted
        stages = {"before": mask}
        for name, step in tumour_steps(case.spacing, liver=case.liver, options=options):
            mask = stages[name] = step(mask)
        tables.append(stage_scores(case.volume, case.truth, stages, case.spacing))
    if not tables:
        raise DataError("there are no cases to score: is this part of the split empty?")
    return pd.concat(tables, ignore_index=True)


def stage_scores(
    volume: int | str, truth: np.ndarray, stages: dict[str, np.ndarray], spacing: Spacing | None = None
) -> pd.DataFrame:
    """Score several versions of one case's prediction, such as before and after a CRF.

    Parameters
    ----------
    volume : int or str
    truth : bool array (slices, rows, columns)
        Tumour.
    stages : dict of name to bool array, same shape
        In order; the first is what the others are compared with.
    spacing : (slice, row, column) in mm, or None where it is not known

    Returns
    -------
    DataFrame, one row a stage
        ``volume``, ``step`` (name of the stage), ``truth_voxels``, ``predicted_voxels``,
        ``intersection``, ``dice`` (NaN where truth and prediction are empty, 0 where one is),
        ``false_positive_voxels``, ``false_positive_ml`` (NaN without spacing), ``lesions``
        (components of the truth at faces, edges and corners), ``lesions_found`` (those that share
        a voxel with the prediction), ``true_lesions_lost`` (found in the first stage and not in
        this), ``components`` of the prediction and ``false_components``, those that share no voxel
        with the truth.
    """
    voxel_ml = np.prod(spacing) / MM3_PER_ML if spacing is not None else np.nan
    rows, found_first = [], None
    for step, mask in stages.items():
        counts, match = overlap(truth, mask), match_lesions(truth, mask)
        found, right = match.truth.touched, match.predicted.touched
        found_first = found if found_first is None else found_first
        false_voxels = counts.predicted_pixels - counts.intersection
        rows.append(
            {
                "volume": volume, "step": step, "truth_voxels": counts.truth_pixels,
                "predicted_voxels": counts.predicted_pixels, "intersection": counts.intersection,
                "dice": counts.dice, "false_positive_voxels": false_voxels,
                "false_positive_ml": false_voxels * voxel_ml, "lesions": len(found),
                "lesions_found": int(found.sum()), "true_lesions_lost": int((found_first & ~found).sum()),
                "components": len(right), "false_components": int((~right).sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def step_summary(scores: pd.DataFrame, *, repeats: int = 2000, seed: int = 0) -> pd.DataFrame:
    """What each step did over all patients, with the change and its patient-level interval.

    Parameters
    ----------
    scores : DataFrame
        From :func:`step_scores`, or several of :func:`stage_scores`; each case has every step.
    repeats, seed : int
        Of :func:`lits_helpers.uncertainty.bootstrap_interval`.

    Returns
    -------
    DataFrame, one row a step, in order
        ``step``; ``cases`` with tumour in truth, and ``dice_per_case``, their mean (prediction
        empty = 0), so that all steps average the same patients; ``dice_pooled`` over all voxels;
        for both ``..._change`` against the first step with ``..._change_low`` and ``..._high``,
        the 95 % interval of this difference by resampling patients; ``recall``, lesions found of
        all lesions, and ``precision``, right components of all components, of all patients together
        (NaN without any), with ``..._low`` and ``..._high``; and sums over all patients:
        ``false_positive_ml``, ``false_positive_voxels``, ``lesions``, ``lesions_found``,
        ``true_lesions_lost``, ``components``, ``false_components``; ``tumour_free_cases`` and, of
        these, ``tumour_free_cases_clean``, those with nothing predicted.
    """
    names = list(dict.fromkeys(scores.step))
    steps = {name: scores[scores.step == name].set_index("volume") for name in names}
    first = steps[names[0]]
    uneven = [name for name in names if not steps[name].index.equals(first.index)]
    if uneven or not first.index.is_unique:
        raise DataError(
            f"every case needs every step once, {uneven or 'a volume'} differs: give all cases the same "
            "options, and a liver to all of them or to none"
        )
    sums = ["false_positive_ml", "false_positive_voxels", "lesions", "lesions_found", "true_lesions_lost",
            "components", "false_components"]  # fmt: skip
    with_tumour = first.truth_voxels > 0
    rows = []
    for name, step in steps.items():
        parts = np.concatenate([_dice_parts(step), _dice_parts(first)], axis=1)
        change = (step.dice - first.dice)[with_tumour].to_numpy()
        low, high = bootstrap_interval(change, repeats=repeats, seed=seed)
        pooled_low, pooled_high = bootstrap_interval(parts, _pooled_change, repeats=repeats, seed=seed)
        rows.append(
            {
                "step": name, "cases": int(with_tumour.sum()),
                "dice_per_case": step.dice[with_tumour].mean(),
                "dice_per_case_change": change.mean() if change.size else np.nan,
                "dice_per_case_change_low": low, "dice_per_case_change_high": high,
                "dice_pooled": float(ratio_of_sums(_dice_parts(step), axis=0)),
                "dice_pooled_change": float(_pooled_change(parts, axis=0)),
                "dice_pooled_change_low": pooled_low, "dice_pooled_change_high": pooled_high,
                **_rate("recall", step.lesions_found, step.lesions, repeats, seed),
                **_rate("precision", step.components - step.false_components, step.components, repeats, seed),
                **step[sums].sum(skipna=False),
                "tumour_free_cases": int((~with_tumour).sum()),
                "tumour_free_cases_clean": int((step.predicted_voxels[~with_tumour] == 0).sum()),
            }
        )  # fmt: skip
    whole = [name for name in sums if name != "false_positive_ml"]
    return pd.DataFrame(rows).astype(dict.fromkeys(whole, int))


def _rate(name: str, hits: pd.Series, of: pd.Series, repeats: int, seed: int) -> dict[str, float]:
    """Share of all patients together, with the interval over patients."""
    parts = np.stack([hits, of], axis=1).astype(np.float64)
    low, high = bootstrap_interval(parts, ratio_of_sums, repeats=repeats, seed=seed)
    return {name: float(ratio_of_sums(parts, axis=0)), f"{name}_low": low, f"{name}_high": high}


def _dice_parts(step: pd.DataFrame) -> np.ndarray:
    """Numerator and denominator of each patient's Dice, (patients, 2)."""
    parts = [2 * step.intersection, step.truth_voxels + step.predicted_voxels]
    return np.stack(parts, axis=1).astype(np.float64)


def _pooled_change(parts: np.ndarray, axis: int) -> np.ndarray:
    """Pooled Dice of columns 0 and 1 less that of columns 2 and 3."""
    return ratio_of_sums(parts[..., :2], axis=axis) - ratio_of_sums(parts[..., 2:], axis=axis)
