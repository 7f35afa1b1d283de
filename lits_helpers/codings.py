"""Codings of labels as grey levels or colours: encode, and decode one picture.

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

import cv2
import numpy as np

from .files import DataError
from .windows import three_channels

BACKGROUND, LIVER, TUMOUR = 0, 1, 2

# What each coding stores for background, liver and tumour. A file of two levels alone does not
# tell whether it outlines the liver (tumours included) or the tumours.
CODINGS: dict[str, tuple | None] = {
    "labels": (0, 1, 2),
    "0/127/255": (0, 127, 255),
    "0/128/255": (0, 128, 255),
    "0/1": (0, 1, 1),
    "0/255": (0, 255, 255),
    "0/1 tumour": (0, 0, 1),
    "0/255 tumour": (0, 0, 255),
    "colours": ((0, 0, 0), (0, 255, 0), (255, 0, 0)),
    "report-jpg": None,  # by slice: see above
}

Level = int | tuple[int, int, int]

REPORT_LEVELS = {53: BACKGROUND, 54: LIVER, 55: TUMOUR, 68: LIVER, 83: LIVER, 84: TUMOUR}
_REPORT_LOWEST, _REPORT_HIGHEST = 30, 110  # 53 and 84, and the overshoot of JPEG at quality 50
_LARGEST_FAINT = 58  # above 53..55 with the ripple of JPEG, below any liver of usual size
NEAR = 40  # how far JPEG at quality 50 and more moves a level where the picture is flat
_FLAT = 16  # most that levels of 3x3 pixels differ where no edge is near
_LUMINANCE_WEIGHT = 2  # JPEG stores colour at half the resolution; 1, 4 and 8 were worse (real slices)


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
    if lossless and set(np.unique(grey).tolist()) <= set(REPORT_LEVELS):
        table = np.zeros(256, np.uint8)
        table[list(REPORT_LEVELS)] = list(REPORT_LEVELS.values())
        return DecodedMask(table[grey], coding, True)
    return DecodedMask(_decode_report_jpeg(grey), coding, False)


def _decode_report_jpeg(grey: np.ndarray) -> np.ndarray:
    """Labels of one JPEG in the report's coding, read in the context of the whole slice."""
    if grey.max() <= _LARGEST_FAINT:
        # Nothing, or a liver of so few pixels that it lies one level above the background, whose
        # own level is 52, 53 or 54 by the quality. Counting levels takes long: not for nothing.
        background = grey.min() if grey.min() == grey.max() else np.bincount(grey.ravel()).argmax()
        return (grey > background).astype(np.uint8)
    # Only the liver's surroundings are looked at: a tenth of the slice, and a third of the time.
    labels = np.zeros_like(grey)
    box = _surroundings(grey > _LARGEST_FAINT)
    part = grey[box]
    # Liver beside a large tumour is an area at 68. Blurred edges pass that level too, but thinly.
    has_tumour = _inner((part >= 62) & (part <= 74)).any()
    if not has_tumour:
        # All foreground is of one kind: liver at 83 or, where a tumour fills its slice, tumour at
        # 84. JPEG scatters single pixels by more than that, but hardly moves the mean of many. Of few
        # it does, at low quality (discs drawn under 8 pixels' radius, up to 83.7 at 75), and a small
        # liver is usual where a small tumour without any liver is not: the limit lies nearer to 84.
        inside = _inner(part >= 76)
        has_tumour = inside.any() and cv2.mean(part, inside)[0] > 83.7
    labels[box] = (part > 60).view(np.uint8) + (part > 75).view(np.uint8) if has_tumour else part > 67
    return labels


def _surroundings(inside: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold all True pixels of (rows, columns), and one around."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _inner(inside: np.ndarray) -> np.ndarray:
    """Pixels whose eight neighbours are True too: uint8 0 or 1 (rows, columns)."""
    return cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8))


def encode(labels: np.ndarray, coding: str) -> np.ndarray:
    """The picture of a label map in a known coding, ready to be written.

    Parameters
    ----------
    labels : integer array (rows, columns)
        0 background, 1 liver, 2 tumour.
    coding : str
        A name in :data:`CODINGS`.

    Returns
    -------
    uint8 array (rows, columns), or (rows, columns, 3), red, green, blue

    Raises
    ------
    ValueError
        If the coding is not known.
    """
    if coding not in CODINGS:
        raise ValueError(f"no coding {coding!r}: choose one of {', '.join(CODINGS)}")
    levels = CODINGS[coding]
    return three_channels(labels) if levels is None else np.array(levels, np.uint8)[labels]


def largest_channel(colours: np.ndarray) -> np.ndarray:
    """Largest of three channels by pixel: uint8 (rows, columns)."""
    red, green, blue = cv2.split(colours)  # NumPy's maximum over a short axis is thirty times slower
    return cv2.max(cv2.max(red, green), blue)


def flat_pixels(picture: np.ndarray) -> np.ndarray:
    """Where no edge is near: bool (rows, columns). What JPEG smears lies outside."""
    square = np.ones((3, 3), np.uint8)
    span = cv2.dilate(picture, square) - cv2.erode(picture, square)
    return (span if span.ndim == 2 else largest_channel(span)) <= _FLAT


def distance_to(picture: np.ndarray, level: Level) -> np.ndarray:
    """Largest difference of any channel from a level or colour: uint8 (rows, columns)."""
    difference = cv2.absdiff(picture, np.full_like(picture, level))
    return difference if difference.ndim == 2 else largest_channel(difference)


def decode_exact(picture: np.ndarray, mapping: dict[Level, int]) -> np.ndarray | None:
    """Labels of a picture that holds mapped levels or colours alone, or None."""
    labels = np.full(picture.shape[:2], 255, np.uint8)
    for level, label in mapping.items():
        labels[distance_to(picture, level) == 0] = label
    return None if (labels == 255).any() else labels


def decode_smeared(picture: np.ndarray, mapping: dict[Level, int]) -> np.ndarray | None:
    """Labels by the nearest level or colour; None if flat parts of the picture lie far from all.

    Of colours the luminance counts most, because JPEG stores the rest at half the resolution. A
    rim of wrong labels between two levels with a third between them has not been seen in grey at
    quality 75 and above: JPEG does not blur an edge, it ripples beside it.

    Parameters
    ----------
    picture : uint8 array (rows, columns) or (rows, columns, 3)
    mapping : dict
        Level or colour to label.
    """
    levels, labels = list(mapping), np.array(list(mapping.values()), np.uint8)
    far = np.min([distance_to(picture, level) for level in levels], axis=0) > NEAR
    if (far & flat_pixels(picture)).sum() > 0.001 * far.size or 0 < picture.max() <= 8:
        return None
    if picture.ndim == 2:
        table = np.abs(np.arange(256)[:, None] - np.array(levels)).argmin(axis=1)
        return labels[table][picture]
    # Where nothing but background is near there is nothing to weigh, and that is most of a slice.
    decoded = np.full(far.shape, labels[0])
    unsettled = distance_to(picture, levels[0]) > NEAR
    if not unsettled.any():
        return decoded
    weights = np.float32([_LUMINANCE_WEIGHT, 1, 1])
    pixels, centres = (
        cv2.cvtColor(colours.reshape(-1, 1, 3), cv2.COLOR_RGB2YCrCb).reshape(-1, 3) * weights
        for colours in (picture[unsettled], np.array(levels, np.uint8))
    )
    decoded[unsettled] = labels[np.argmin([np.square(pixels - c).sum(axis=1) for c in centres], axis=0)]
    return decoded
