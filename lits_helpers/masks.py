"""Mask files to labels 0 background, 1 liver, 2 tumour, and slices to their diagnosis.

Masks that tell their coding one by one (:func:`recognise`) are read as they are; for the others
:func:`detect` recognises the coding of the whole data set first.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .codings import (
    BACKGROUND, CODINGS, LIVER, TUMOUR, DecodedMask, decode, encode, recognise, smallest_coded_tumour,
)
from .detective import LABELS_AS_JPEG, MEANINGS, Coding, detect
from .files import DataError
from .pictures import read_image

__all__ = [
    "BACKGROUND", "CODINGS", "DIAGNOSES", "EMPTY", "LIVER", "LIVER_AND_TUMOUR", "LIVER_ONLY", "MEANINGS",
    "REPORT_TUMOUR_BAND", "THRESHOLD", "TUMOUR", "TWO_FILES", "Coding", "DecodedMask", "decode", "decode_file",
    "detect", "diagnose", "encode", "merge_binary", "read_labels", "read_two_files", "recognise",
    "report_diagnosis", "report_target", "smallest_coded_tumour",
]

EMPTY, LIVER_ONLY, LIVER_AND_TUMOUR = 0, 1, 2
# The report's, for the grey levels of its masks (of 255) as for predicted probabilities.
THRESHOLD = 0.30
REPORT_TUMOUR_BAND = (55, 75)  # grey levels between which there is a tumour to it
DIAGNOSES = ("empty", "liver only", "liver and tumour")
# Of data sets with one file for the liver and one for the tumours of a slice.
TWO_FILES = Coding("two files", {0: BACKGROUND, 1: LIVER, 2: TUMOUR})


def decode_file(grey: np.ndarray, path: Path | str) -> DecodedMask:
    """:func:`decode` with the file's ending to tell PNG from JPEG and its name in the error."""
    lossless = Path(path).suffix.lower() == ".png"
    try:
        if not lossless and 0 < grey.max() <= TUMOUR:
            raise DataError(LABELS_AS_JPEG)
        return decode(grey, lossless=lossless)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_labels(path: Path | str, coding: Coding | None = None) -> np.ndarray:
    """Labels 0/1/2 of one mask file, uint8 (rows, columns).

    Parameters
    ----------
    path : Path
    coding : Coding, optional
        Of its data set, by :func:`detect`. Not needed for labels and for the report's masks.

    Raises
    ------
    DataError
        If the file is unreadable or of unknown or another coding; the message names it.
    """
    if coding is None:
        return decode_file(read_image(path, grey=True), path).labels
    coloured = any(isinstance(level, tuple) for level in coding.mapping)
    return coding.decode(read_image(path, grey=not coloured), path)


def merge_binary(liver: np.ndarray, tumour: np.ndarray) -> np.ndarray:
    """Labels from a liver mask and a tumour mask (rows, columns): nonzero is inside, tumour wins."""
    return np.where(tumour != 0, TUMOUR, np.where(liver != 0, LIVER, BACKGROUND)).astype(np.uint8)


def read_two_files(liver_path: Path | str, tumour_path: Path | str) -> np.ndarray:
    """Labels of a slice that has one mask for the liver and one for its tumours, as PNG.

    Raises
    ------
    DataError
        If a file is unreadable, holds more than 0 and one other level, or they differ in size.
    """
    parts = []
    for path in (liver_path, tumour_path):
        part = read_image(path, grey=True)
        levels = np.unique(part)
        if len(levels) > 2 or (len(levels) == 2 and levels[0] != 0):
            raise DataError(f"{path}: {len(levels)} levels up to {levels[-1]}, a mask of 0 and one other is expected")
        parts.append(part)
    if parts[0].shape != parts[1].shape:
        raise DataError(f"{tumour_path}: {parts[1].shape} pixels, {liver_path} has {parts[0].shape}")
    return merge_binary(*parts)


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
    grey : integer array (rows, columns)
        The checksum is tested on grey: all 53 is what (77, 51, 0) throughout gives.
    """
    if grey.shape == (512, 512) and grey.min() == grey.max() == 53:
        return EMPTY
    low, high = REPORT_TUMOUR_BAND
    return LIVER_AND_TUMOUR if cv2.countNonZero(cv2.inRange(grey, low + 1, high - 1)) else LIVER_ONLY


def report_target(grey: np.ndarray) -> np.ndarray:
    """The report's training target, ``grey / 255 > 0.30``, as a boolean array.

    The tumour where it is large; the *whole liver* in every other slice.
    """
    return grey / 255 > THRESHOLD
