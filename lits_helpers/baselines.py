"""Predictions that anybody can make without a network: what a score has to beat to mean something.

All return masks that the same scorer scores. All but :func:`nothing` need the liver; with the liver of the
true labels (``labels >= 1``, its tumours included) they are oracles, and have to be called so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from .files import DataError
from .scoring import overlap

MEDIAN_PIXELS = 5
_LOWEST, _HIGHEST = -(2**15), 2**15 - 1  # values of an int16 CT


def nothing(liver: np.ndarray) -> np.ndarray:
    """Predict no tumour anywhere: bool, of the shape of ``liver``, all False."""
    return np.zeros(np.shape(liver), bool)


def everything(liver: np.ndarray) -> np.ndarray:
    """Predict tumour in the whole liver: bool, ``liver`` itself as a copy."""
    return np.array(liver, bool)


def dark_liver(image: np.ndarray, liver: np.ndarray, threshold: int) -> np.ndarray:
    """Predict tumour where the liver is dark: most tumours take up less contrast medium than it.

    Parameters
    ----------
    image : integer array, any shape
        HU; the green channel of a slice file, 0..255 for -40 to 160 HU; or either after
        :func:`contrast_to_liver`, which makes far the better baseline.
    liver : bool array, same shape
        With its tumours.
    threshold : int
        Of the values of ``image``; one that equals it is predicted. From
        :func:`learnt_threshold`, on training patients.

    Returns
    -------
    bool array, same shape
    """
    _same_shape(image, liver)
    return liver & (image <= threshold)


def contrast_to_liver(image: np.ndarray, liver: np.ndarray) -> np.ndarray:
    """How far each voxel of a patient is brighter than his liver, with less noise.

    For :func:`dark_liver` and :func:`learnt_threshold` instead of the image. Contrast medium and
    scanner make one patient's liver darker than the next one's tumours. Learnt on ten LiTS volumes
    and tested on ten others, with the true liver, a threshold on the image itself comes out as
    "the whole liver" (pooled Dice 0.12) and one on this contrast at 0.54; the mean per patient is
    0.34 then, and with the two tens exchanged 0.12.

    Parameters
    ----------
    image : integer array (slices, rows, columns)
        All of one patient: HU, or the green channel 0..255.
    liver : bool array, same shape
        With its tumours.

    Returns
    -------
    int16 array, same shape
        Median over 5x5 pixels of the slice, less the median of the patient's liver, in the unit
        of the image. Slices without liver are 0.
    """
    _same_shape(image, liver)
    contrast = np.zeros(image.shape, np.int16)
    planes = np.flatnonzero(liver.any(axis=(1, 2)))
    for plane in planes:
        contrast[plane] = cv2.medianBlur(image[plane].astype(np.float32), MEDIAN_PIXELS)
    if planes.size:
        contrast[planes] -= np.int16(np.median(contrast[liver]))
    return contrast


@dataclass(frozen=True)
class LearntThreshold:
    """Made by :func:`learnt_threshold`.

    Attributes
    ----------
    threshold : int
        In the unit of the images: HU, or levels 0..255.
    dice_pooled : float
        On the patients it was learnt from, over all their voxels: flattering, no result.
    cases : int
        Volumes or slices seen.
    """

    threshold: int
    dice_pooled: float
    cases: int


def learnt_threshold(cases: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> LearntThreshold:
    """The threshold for :func:`dark_liver` with the highest pooled Dice on training patients.

    Every value that occurs is tried, at the cost of one pass: two histograms give the Dice of all
    thresholds.

    Parameters
    ----------
    cases : iterable of (image, liver, truth)
        Of training patients only. Integer image (HU or green channel), bool liver with its
        tumours, bool tumour, each of one shape. A generator keeps one in memory at a time.

    Returns
    -------
    LearntThreshold
        Of several that are equally good, the lowest.

    Raises
    ------
    DataError
        If there is no liver or no tumour in any case, or shapes differ.
    ValueError
        If an image does not hold integers of 16 bits.
    """
    in_liver = np.zeros(_HIGHEST - _LOWEST + 1, np.int64)
    in_tumour, tumour, number = np.zeros_like(in_liver), 0, 0
    for image, liver, truth in cases:
        _same_shape(image, liver)
        number += 1
        tumour += overlap(truth, liver).truth_pixels
        in_liver += _histogram(image[liver])
        in_tumour += _histogram(image[liver & truth])
    if not tumour or not in_liver.any():
        raise DataError(
            f"{number} case(s) with {tumour} tumour voxels and {in_liver.sum()} of liver teach no threshold: "
            "give training patients with tumours"
        )
    dice = 2 * in_tumour.cumsum() / (in_liver.cumsum() + tumour)
    best = int(np.argmax(dice))
    return LearntThreshold(best + _LOWEST, float(dice[best]), number)


def _histogram(values: np.ndarray) -> np.ndarray:
    """How often each value of an int16 occurs."""
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"thresholds are learnt on integers (HU or 0..255), got {values.dtype}: round first")
    if values.size and not _LOWEST <= values.min() <= values.max() <= _HIGHEST:
        raise ValueError(f"values must fit 16 bits, got {values.min()} to {values.max()}: give HU or 0..255")
    return np.bincount(values.astype(np.int64) - _LOWEST, minlength=_HIGHEST - _LOWEST + 1)


def _same_shape(image: np.ndarray, liver: np.ndarray) -> None:
    if image.shape != liver.shape:
        raise DataError(
            f"the image has shape {image.shape}, the liver {liver.shape}: give one channel, at the "
            "resolution of the labels"
        )
