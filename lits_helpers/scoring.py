"""Evaluation in NumPy: counts for each slice first, every score from those counts.

One pass over the masks gives a table of pixel counts (:func:`slice_scores`), one row a slice.
Everything else is computed from that table: it is small, can be saved, and shows where a number
comes from. The patient is the unit: slices of one patient resemble each other, so intervals
resample patients. A volume counts as a patient unless the table names one in ``patient``.

Where truth and prediction are both empty, Dice and IoU are undefined: NaN here, left out of means
and counted. Where only one of them is empty they are 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from .files import DataError
from .uncertainty import bootstrap_interval, quotient, ratio_of_sums


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
        One row a slice; columns ``volume`` and ``slice`` are used, and ``patient``, from
        :func:`lits_helpers.audit.with_patients`, is kept where there is one.
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
    scores = pd.DataFrame(rows)
    return scores.assign(patient=table["patient"].to_numpy()) if "patient" in table else scores


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
        no tumour and none is predicted; 0 where one is). Where the slices name a ``patient``, so
        does each volume: two scans of one patient are scored apart, and drawn together.
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
    if "patient" in slices:
        patients["patient"] = patients.volume.map(slices.groupby("volume").patient.first())
    return patients


def summary(slices: pd.DataFrame, *, repeats: int = 2000, seed: int = 0) -> pd.DataFrame:
    """All scores of one evaluation, each named by its aggregation and its rule for empty masks.

    Parameters
    ----------
    slices : DataFrame
        From :func:`slice_scores`. Give all slices of the test patients, those without tumour
        too; testing tumour slices alone is an oracle, and has to be called so.
    repeats, seed : int
        Of :func:`lits_helpers.uncertainty.bootstrap_interval`.

    Returns
    -------
    DataFrame, one row a metric; pixel accuracy last
        ``metric``; ``value``; ``low`` and ``high``, the patient-level bootstrap 95 % interval;
        ``cases``, the patients that enter the value; ``unit``, what each counts once
        (``"pixel"``, ``"patient"`` or ``"slice"``); ``left_out``, how many such units the metric's
        rule leaves out. Values lie in [0, 1], except false positives, a number of pixels. Where
        a patient has several volumes (column ``patient``), names and unit say ``"volume"`` in
        place of ``"patient"``; the patients are drawn and are the cases all the same.
    """
    patients = patient_scores(slices)
    has_tumour = patients.truth_pixels > 0
    of_volume = patients.set_index("volume").get("patient", pd.Series(patients.volume.array, patients.volume))
    unit = "volume" if of_volume.duplicated().any() else "patient"

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
        parts = pd.concat([numerator, denominator], axis=1)
        parts = parts.groupby(slices.volume.map(of_volume)).sum()
        return row(metric, "pixel", parts, left_out=0)

    def mean(metric: str, unit: str, volumes: pd.Series, scores: pd.Series) -> dict:
        """Mean over units, NaN left out; a patient whose units are all left out is no case."""
        kept = scores.dropna()
        parts = kept.groupby(volumes.map(of_volume)).agg(["sum", "size"])
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
                f"Dice per {unit} (mean; {unit}s without tumour in truth left out)",
                unit,
                patients.volume,
                patients.dice.where(has_tumour),
            ),
            mean(
                f"Dice per {unit} (mean; both-empty {unit}s left out, truth alone empty = 0)",
                unit,
                patients.volume,
                patients.dice,
            ),
            mean(
                f"False-positive pixels per {unit} without tumour in truth (mean)",
                unit,
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


def _dice(counts: Overlap | pd.DataFrame) -> np.ndarray:
    """Dice of one overlap, or of each row of a table with the same three columns."""
    return quotient(2 * counts.intersection, counts.truth_pixels + counts.predicted_pixels)


def _iou(counts: Overlap | pd.DataFrame) -> np.ndarray:
    """Intersection over union, as :func:`_dice`."""
    union = counts.truth_pixels + counts.predicted_pixels - counts.intersection
    return quotient(counts.intersection, union)
