"""Evaluation in NumPy: counts for each slice first, every score from those counts.

One pass over the masks gives a table of pixel counts (:func:`slice_scores`), one row a slice.
Everything else is computed from that table: it is small, can be saved, and shows where a number
comes from. The patient (one CT volume) is the unit: slices of one patient resemble each other, so
intervals resample patients.

Where truth and prediction are both empty, Dice and IoU are undefined: NaN here, left out of means
and counted. Where only one of them is empty they are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from .files import DataError


@dataclass(frozen=True)
class Overlap:
    """Pixel counts of two binary masks; made by :func:`overlap`.

    Attributes
    ----------
    truth_pixels, predicted_pixels : int
        Pixels (or voxels) of each mask.
    intersection : int
        Pixels in both.
    """

    truth_pixels: int
    predicted_pixels: int
    intersection: int

    @property
    def dice(self) -> float:
        """``2 * |T and P| / (|T| + |P|)``, in [0, 1]; NaN where both are empty."""
        return float(_dice(self))

    @property
    def iou(self) -> float:
        """``|T and P| / |T or P|``, in [0, 1]; NaN where both are empty."""
        return float(_iou(self))


def overlap(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
    """Count the pixels of two binary masks, and those they share.

    Parameters
    ----------
    truth, predicted : array, any shape, one and the same
        Boolean, or numbers that are 0 or 1.

    Returns
    -------
    Overlap

    Raises
    ------
    ValueError
        If the shapes differ, or a mask holds something other than 0 and 1 (label 2, grey 255, a
        probability), which would be counted as tumour in one reading and not in another.
    """
    truth, predicted = _binary(truth, "truth"), _binary(predicted, "predicted")
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth has shape {truth.shape}, predicted {predicted.shape}: bring the prediction "
            "back to the size of the truth first"
        )
    return Overlap(
        truth_pixels=int(np.count_nonzero(truth)),
        predicted_pixels=int(np.count_nonzero(predicted)),
        intersection=int(np.count_nonzero(truth & predicted)),
    )


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Dice of two binary masks, in [0, 1]; NaN where both are empty. As :func:`overlap`."""
    return overlap(truth, predicted).dice


def iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Intersection over union, in [0, 1]; NaN where both are empty. As :func:`overlap`."""
    return overlap(truth, predicted).iou


def slice_scores(
    table: pd.DataFrame, pairs: Iterable[tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    """Score slices one by one; the only step that sees pixels.

    Parameters
    ----------
    table : DataFrame
        One row a slice; columns ``volume`` and ``slice`` are used.
    pairs : iterable of (truth, predicted)
        For each row, in the table's order: two binary arrays (rows, columns) at the slice's
        native resolution. A generator keeps one slice in memory at a time.

    Returns
    -------
    DataFrame, one row a slice, in the same order
        ``volume``, ``slice``, ``truth_pixels``, ``predicted_pixels``, ``intersection``,
        ``dice``, ``iou`` (NaN where both masks are empty), ``pixels`` (size of the slice),
        ``correct_pixels`` (tumour or background in both masks).

    Raises
    ------
    DataError
        If there are no slices, a slice stands in the table twice, rows and pairs differ in
        number, or a pair cannot be compared; the message names volume and slice.
    """
    keys = table[["volume", "slice"]]
    if keys.empty:
        raise DataError("there are no slices to score: is this part of the split empty?")
    if keys.duplicated().any():
        twice = keys[keys.duplicated()].iloc[0]
        raise DataError(
            f"volume {twice['volume']} slice {twice['slice']} is in the table more than once and "
            "would count more than once: drop the duplicates"
        )

    rows = []
    for done, (key, pair) in enumerate(zip_longest(keys.itertuples(index=False), pairs)):
        if key is None or pair is None:
            came = "more" if key is None else f"only {done}"
            raise DataError(
                f"the table has {len(keys)} slices, but {came} pairs of masks came: give one "
                "(truth, predicted) for each row, in the table's order"
            )
        volume, number = key
        try:
            counts = overlap(*pair)
        except ValueError as error:
            raise DataError(f"volume {volume} slice {number}: {error}") from error
        pixels = np.size(pair[0])
        wrong = counts.truth_pixels + counts.predicted_pixels - 2 * counts.intersection
        rows.append(
            {
                "volume": volume,
                "slice": number,
                "truth_pixels": counts.truth_pixels,
                "predicted_pixels": counts.predicted_pixels,
                "intersection": counts.intersection,
                "dice": counts.dice,
                "iou": counts.iou,
                "pixels": pixels,
                "correct_pixels": pixels - wrong,
            }
        )
    return pd.DataFrame(rows)


def patient_scores(slices: pd.DataFrame) -> pd.DataFrame:
    """Pool each patient's slices: the score of the volume, as far as its slices are there.

    Parameters
    ----------
    slices : DataFrame
        From :func:`slice_scores`.

    Returns
    -------
    DataFrame, one row a volume, ordered by it
        ``volume``, ``slices`` (their number), ``truth_pixels``, ``predicted_pixels``,
        ``intersection``, ``false_positive_pixels``, ``dice``, ``iou`` (NaN where the patient has
        no tumour and none is predicted; 0 where one is).
    """
    patients = slices.groupby("volume", as_index=False).agg(
        slices=("slice", "size"),
        truth_pixels=("truth_pixels", "sum"),
        predicted_pixels=("predicted_pixels", "sum"),
        intersection=("intersection", "sum"),
    )
    patients["false_positive_pixels"] = patients.predicted_pixels - patients.intersection
    patients["dice"] = _dice(patients)
    patients["iou"] = _iou(patients)
    return patients


def summary(slices: pd.DataFrame, *, repeats: int = 2000, seed: int = 0) -> pd.DataFrame:
    """All scores of one evaluation, each named by its aggregation and its rule for empty masks.

    Parameters
    ----------
    slices : DataFrame
        From :func:`slice_scores`. Give all slices of the test patients, those without tumour
        too; testing tumour slices alone is an oracle, and has to be called so.
    repeats, seed : int
        Of :func:`bootstrap_interval`.

    Returns
    -------
    DataFrame, one row a metric; pixel accuracy last
        ``metric``; ``value``; ``low`` and ``high``, the patient-level bootstrap 95 % interval;
        ``cases``, the patients that enter the value; ``unit``, what each counts once
        (``"pixel"``, ``"patient"`` or ``"slice"``); ``left_out``, how many such units the metric's
        rule leaves out. Values lie in [0, 1], except false positives, a number of pixels.
    """
    patients = patient_scores(slices)
    has_tumour = patients.truth_pixels > 0

    def row(metric: str, unit: str, parts: pd.DataFrame, left_out: int) -> dict:
        parts = parts.to_numpy(np.float64)
        low, high = bootstrap_interval(parts, ratio_of_sums, repeats=repeats, seed=seed)
        return {
            "metric": metric,
            "value": float(ratio_of_sums(parts, axis=0)),
            "low": low,
            "high": high,
            "cases": len(parts),
            "unit": unit,
            "left_out": left_out,
        }

    def pooled(metric: str, numerator: pd.Series, denominator: pd.Series) -> dict:
        """Pixels of all patients added up, then divided."""
        parts = pd.concat([numerator, denominator], axis=1).groupby(slices.volume).sum()
        return row(metric, "pixel", parts, left_out=0)

    def mean(metric: str, unit: str, volumes: pd.Series, scores: pd.Series) -> dict:
        """Mean over units, NaN left out; a patient whose units are all left out is no case."""
        kept = scores.dropna()
        parts = kept.groupby(volumes).agg(["sum", "size"])
        return row(metric, unit, parts, left_out=len(scores) - len(kept))

    size = slices.truth_pixels + slices.predicted_pixels
    called_right = (slices.truth_pixels > 0) == (slices.predicted_pixels > 0)
    return pd.DataFrame(
        [
            pooled(
                "Dice, pooled over all slices (undefined only if all are empty)",
                2 * slices.intersection,
                size,
            ),
            pooled(
                "IoU, pooled over all slices (undefined only if all are empty)",
                slices.intersection,
                size - slices.intersection,
            ),
            mean(
                "Dice per patient (mean; patients without tumour in truth left out)",
                "patient",
                patients.volume,
                patients.dice.where(has_tumour),
            ),
            mean(
                "Dice per patient (mean; both-empty patients left out, truth alone empty = 0)",
                "patient",
                patients.volume,
                patients.dice,
            ),
            mean(
                "False-positive pixels per patient without tumour in truth (mean)",
                "patient",
                patients.volume,
                patients.false_positive_pixels.where(~has_tumour),
            ),
            mean(
                "Dice per slice (mean; both-empty slices left out)",
                "slice",
                slices.volume,
                slices.dice,
            ),
            mean(
                "Dice per slice (mean; LiTS convention, both empty = 1)",
                "slice",
                slices.volume,
                slices.dice.fillna(1.0),
            ),
            mean(
                "Slices called right, tumour or none (the report's accuracy; detection, not overlap)",
                "slice",
                slices.volume,
                called_right.astype(np.float64),
            ),
            pooled(
                "Pixel accuracy, pooled over all slices (mostly background; for comparison only)",
                slices.correct_pixels,
                slices.pixels,
            ),
        ]
    )


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    repeats: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval, by drawing whole patients with replacement.

    Parameters
    ----------
    values : array (patients,) or (patients, columns)
        One score for each patient, or the counts a pooled score is made of. Undefined scores are
        to be left out before.
    statistic : callable (array, axis) -> array
        Reduces the patients' axis: ``numpy.mean``, ``numpy.median``, :func:`ratio_of_sums`. Called
        once, with all draws, (repeats, patients) or (repeats, patients, columns), and axis 1.
    repeats : int
        Number of draws.
    seed : int
        Equal seeds give equal draws.
    level : float
        Share of the draws inside the interval, in (0, 1).

    Returns
    -------
    low, high : float
        NaN with fewer than two patients, who say nothing about how patients differ. Draws for
        which the statistic is undefined are left out.

    References
    ----------
    Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    values = np.asarray(values)
    patients = len(values)
    if patients < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(patients, size=(repeats, patients))
    results = statistic(values[drawn], axis=1)
    results = results[~np.isnan(results)]
    if not results.size:
        return float("nan"), float("nan")
    low, high = np.quantile(results, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio_of_sums(parts: np.ndarray, axis: int) -> np.ndarray:
    """Add up numerators and denominators over patients, then divide: a pooled score.

    Parameters
    ----------
    parts : array (..., patients, 2)
        Numerator and denominator of each patient.
    axis : int
        The patients' axis.

    Returns
    -------
    float64 array (...)
        NaN where the denominators add up to 0.
    """
    sums = parts.sum(axis=axis)
    return _quotient(sums[..., 0], sums[..., 1])


@dataclass(frozen=True)
class Detection:
    """How many slices were called right, tumour or none; made by :func:`report_detection`.

    Attributes
    ----------
    correct, incorrect : int
        Slices.
    percentage : float
        Correct slices of all, in percent.
    confusion : DataFrame (2, 2)
        Slices; rows ``truth`` and columns ``predicted``, each ``"tumour"`` and ``"no tumour"``.
    """

    correct: int
    incorrect: int
    percentage: float
    confusion: pd.DataFrame


def report_detection(slices: pd.DataFrame) -> Detection:
    """Count correct slices as the report does: tumour somewhere in both masks, or in neither.

    This is detection, and says nothing about overlap: a prediction at the wrong end of the slice
    is correct, and so is one of ten times the size. The report's text claims that it compares
    the masks; its code tests ``predicted.any() == truth.any()``. Its 173 correct slices of 200
    (86.5 %), called pixel accuracy there, are this count.

    Parameters
    ----------
    slices : DataFrame
        From :func:`slice_scores`.

    Returns
    -------
    Detection

    References
    ----------
    "Liver Tumor Segmentation using U-Net" (2023), the results on 200 test slices.
    """
    truth, predicted = slices.truth_pixels > 0, slices.predicted_pixels > 0
    correct = int((truth == predicted).sum())
    words = {True: "tumour", False: "no tumour"}
    confusion = (
        pd.crosstab(truth, predicted, rownames=["truth"], colnames=["predicted"])
        # A kind of slice that does not occur still gets its row or column of zeros.
        .reindex(index=list(words), columns=list(words), fill_value=0)
        .rename(index=words, columns=words)
    )
    return Detection(correct, len(slices) - correct, 100 * correct / len(slices), confusion)


def _binary(mask: np.ndarray, name: str) -> np.ndarray:
    """A mask as bool, refusing values that are neither 0 nor 1."""
    mask = np.asarray(mask)
    if mask.dtype == bool:
        return mask
    strange = mask[(mask != 0) & (mask != 1)]
    if strange.size:
        raise ValueError(
            f"{name} must hold 0 and 1 only, got {strange[0]}: choose what counts first, as in "
            "labels == 2 or probabilities > 0.30"
        )
    return mask == 1


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Division that is NaN, without a warning, where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    undefined = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _dice(counts: Overlap | pd.DataFrame) -> np.ndarray:
    """Dice of one overlap, or of each row of a table with the same three columns."""
    return _quotient(2 * counts.intersection, counts.truth_pixels + counts.predicted_pixels)


def _iou(counts: Overlap | pd.DataFrame) -> np.ndarray:
    """Intersection over union, as :func:`_dice`."""
    union = counts.truth_pixels + counts.predicted_pixels - counts.intersection
    return _quotient(counts.intersection, union)
