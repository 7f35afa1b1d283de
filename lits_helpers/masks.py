"""Label codings: from a mask file of unknown coding to 0 background, 1 liver, 2 tumour.

The report's mask files are not label maps. They went through the routine that makes display
pictures of CT slices (:func:`lits_helpers.windows.three_channels`) and were saved as JPEG, so the
grey level of a label depends on what else is in the slice:

=====================================  ==========  =====  ======
slice                                  background  liver  tumour
=====================================  ==========  =====  ======
with a tumour of 0.1 % of its pixels       53        68     84
otherwise                                  53        83     84
liver under 0.1 %, no such tumour          53        54     55
=====================================  ==========  =====  ======

One level between liver and tumour does not survive JPEG, hence "otherwise" hides small tumours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .files import DataError
from .pictures import read_image

BACKGROUND, LIVER, TUMOUR = 0, 1, 2
EMPTY, LIVER_ONLY, LIVER_AND_TUMOUR = 0, 1, 2
# The report's, for the grey levels of its masks (of 255) as for predicted probabilities.
THRESHOLD = 0.30
DIAGNOSES = ("empty", "liver only", "liver and tumour")

_REPORT_EXACT = {53: BACKGROUND, 54: LIVER, 55: TUMOUR, 68: LIVER, 83: LIVER, 84: TUMOUR}
_REPORT_LOWEST, _REPORT_HIGHEST = 30, 110  # 53 and 84, and the overshoot of JPEG at quality 50
_LARGEST_FAINT = 58  # above 53..55 with the ripple of JPEG, below any liver of usual size


@dataclass(frozen=True)
class DecodedMask:
    """A mask file's labels, and how far they can be trusted.

    Attributes
    ----------
    labels : uint8 array (rows, columns)
        0 background, 1 liver, 2 tumour.
    coding : str
        ``"labels"`` or ``"report-jpg"``.
    small_tumours_known : bool
        False where tumours below :func:`smallest_coded_tumour` cannot be told from liver.
    """

    labels: np.ndarray
    coding: str
    small_tumours_known: bool


def smallest_coded_tumour(pixels: int) -> int:
    """Pixels a label needs to get a level of its own in the report's coding.

    Parameters
    ----------
    pixels : int
        Size of the whole slice; 512 * 512 gives 263.
    """
    return pixels - int(pixels * 0.999)


def recognise(grey: np.ndarray) -> str:
    """Name the coding of a mask from its grey levels.

    Parameters
    ----------
    grey : array (rows, columns)
        As :func:`lits_helpers.pictures.read_image` gives it with ``grey=True``.

    Returns
    -------
    str
        ``"labels"`` (values 0, 1, 2) or ``"report-jpg"`` (the report's display coding).

    Raises
    ------
    DataError
        For any other set of levels.
    """
    lowest, highest = int(grey.min()), int(grey.max())
    if highest <= TUMOUR:
        return "labels"
    if _REPORT_LOWEST <= lowest and highest <= _REPORT_HIGHEST:
        return "report-jpg"
    levels = np.unique(grey)
    raise DataError(
        f"unknown mask coding with {len(levels)} grey levels from {lowest} to {highest}: expected "
        "labels 0/1/2, or the report's slice masks with levels 53 to 84"
    )


def decode(grey: np.ndarray, *, lossless: bool = False) -> DecodedMask:
    """Turn the grey levels of a mask into labels.

    Parameters
    ----------
    grey : array (rows, columns)
        Of any size, JPEG-smeared or not.
    lossless : bool
        Whether the file was PNG. Then the report's coding is exact, small tumours included,
        unless the PNG was made from a JPEG, which its levels show.

    Returns
    -------
    DecodedMask

    Raises
    ------
    DataError
        If the coding is unknown.
    """
    coding = recognise(grey)
    if coding == "labels":
        return DecodedMask(grey.astype(np.uint8), coding, True)
    if lossless and set(np.unique(grey).tolist()) <= set(_REPORT_EXACT):
        table = np.zeros(256, np.uint8)
        table[list(_REPORT_EXACT)] = list(_REPORT_EXACT.values())
        return DecodedMask(table[grey], coding, True)
    return DecodedMask(_decode_report_jpeg(grey), coding, False)


def _decode_report_jpeg(grey: np.ndarray) -> np.ndarray:
    """Labels of one JPEG in the report's coding, read in the context of the whole slice."""
    counts = np.bincount(grey.ravel(), minlength=256)
    if not counts[_LARGEST_FAINT + 1 :].any():
        # Nothing, or a liver of so few pixels that it lies one level above the background, whose
        # own level is 52, 53 or 54 by the quality.
        return (grey > counts.argmax()).astype(np.uint8)
    # Liver beside a large tumour is an area at 68. Blurred edges pass that level too, but thinly.
    square = np.ones((3, 3), np.uint8)
    middle = cv2.inRange(grey, 62, 74)
    has_tumour = cv2.erode(middle, square).any()
    if not has_tumour:
        # All foreground is of one kind: liver at 83 or, where a tumour fills its slice, tumour at
        # 84. JPEG scatters single pixels by more than that, but hardly moves the mean.
        inside = cv2.erode(cv2.inRange(grey, 76, 255), square) > 0
        has_tumour = inside.any() and grey[inside].mean() > 83.5
    if has_tumour:
        return (grey > 60).astype(np.uint8) + (grey >= 76)
    return (grey >= 68).astype(np.uint8)


def decode_file(grey: np.ndarray, path: Path | str) -> DecodedMask:
    """:func:`decode` with the file's ending to tell PNG from JPEG and its name in the error."""
    try:
        return decode(grey, lossless=Path(path).suffix.lower() == ".png")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_labels(path: Path | str) -> np.ndarray:
    """Labels 0/1/2 of one mask file, uint8 (rows, columns).

    Raises
    ------
    DataError
        If the file is unreadable or of unknown coding; the message names it.
    """
    return decode_file(read_image(path, grey=True), path).labels


def diagnose(labels: np.ndarray) -> int:
    """0 for a slice without liver and tumour, 1 for liver only, 2 where there is a tumour."""
    return int(labels.max())


def report_diagnosis(grey: np.ndarray) -> int:
    """The report's own classification of a mask (its section 4.1), kept for the lesson.

    "Empty" is the checksum ``mask.sum() == 33554432``, 512 * 512 pixels of (77, 51, 0); tumour
    is any grey level between 55 and 75; the rest is liver. The middle band really holds *healthy
    liver beside a large tumour*, and below JPEG quality 99 also the blurred edge of any liver.

    Parameters
    ----------
    grey : uint8 array (rows, columns)
        The checksum is tested on grey: all 53 is what (77, 51, 0) throughout gives.
    """
    if grey.shape == (512, 512) and (grey == 53).all():
        return EMPTY
    return LIVER_AND_TUMOUR if ((grey > 55) & (grey < 75)).any() else LIVER_ONLY


def report_target(grey: np.ndarray) -> np.ndarray:
    """The report's training target, ``grey / 255 > 0.30``, as a boolean array.

    The tumour where it is large; the *whole liver* in every other slice.
    """
    return grey / 255 > THRESHOLD
