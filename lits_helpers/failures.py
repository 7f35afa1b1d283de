"""Which lesions were found, missed or invented, and what may explain it: size, contrast, place."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from .distances import bounding_box
from .lesions import LesionMatch
from .masks import LIVER
from .windows import WINDOWS

# Below these a lesion is called small or faint. 10 mm is the shortest that RECIST 1.1 measures;
# the contrast is ours: about the noise of one pixel of an abdominal CT.
SMALL_MM, SMALL_PIXELS = 10.0, 100
FAINT_HU = 15.0
_REACH = 5  # pixels round a lesion that its contrast is taken to
_HU_PER_LEVEL = WINDOWS["custom"].width / 255


def explained(match: LesionMatch, truth: np.ndarray, green: np.ndarray) -> pd.DataFrame:
    """Describe every lesion of the truth and every predicted one that touches none.

    Parameters
    ----------
    match : LesionMatch
        Of the tumours (label 2) of ``truth`` and of a prediction.
    truth : uint8 array (slices, rows, columns)
        0 background, 1 liver, 2 tumour.
    green : uint8 array, same shape
        The green channel of the slices: -40 to 160 HU.

    Returns
    -------
    DataFrame, one row a lesion
        ``kind`` (``found`` at any overlap, ``missed``, ``false positive``), ``slice`` (the one
        that shows most of it), ``row``, ``column`` (of its centre), ``voxels``, ``volume_mm3`` and
        ``diameter_mm`` (NaN where the spacing is not known), ``contrast_hu`` (its mean less that
        of the liver within 5 pixels; NaN without liver there; values beyond -40 to 160 HU count
        as these), ``place``, ``reason`` in words.
    """
    tables = []
    extent = bounding_box(truth >= LIVER)
    for table, labels, of_truth in (
        (match.truth, match.truth_labels, True), (match.predicted, match.predicted_labels, False),
    ):
        rows = table if of_truth else table[~table.touched]
        boxes = find_objects(labels) if len(table) else []
        for lesion in rows.itertuples():
            kind = ("found" if lesion.touched else "missed") if of_truth else "false positive"
            box = _moved(boxes[lesion.lesion - 1], match.box)
            inside = labels[boxes[lesion.lesion - 1]] == lesion.lesion
            tables.append({"kind": kind, **_described(lesion, inside, box, truth, green, extent)})
    columns = [
        "kind", "slice", "row", "column", "voxels", "volume_mm3", "diameter_mm", "contrast_hu", "place", "reason",
    ]
    return pd.DataFrame(tables, columns=columns)


def _moved(box: tuple[slice, ...], outer: tuple[slice, ...]) -> tuple[slice, ...]:
    """A box within another, in the coordinates of the whole volume."""
    return tuple(slice(b.start + o.start, b.stop + o.start) for b, o in zip(box, outer, strict=True))


def _described(
    lesion, inside: np.ndarray, box: tuple[slice, ...], truth: np.ndarray, green: np.ndarray, extent: tuple[slice, ...]
) -> dict:
    number = int(inside.sum(axis=(1, 2)).argmax())
    wide = tuple(
        slice(max(part.start - _REACH, 0), min(part.stop + _REACH, length))
        for part, length in zip(box[1:], truth.shape[1:], strict=True)
    )
    place = tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box[1:], wide, strict=True))
    around = np.zeros((len(inside), *(part.stop - part.start for part in wide)), np.uint8)
    around[(slice(None), *place)] = inside
    own = around > 0
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _REACH + 1, 2 * _REACH + 1))
    near = np.stack([cv2.dilate(plane, disc) for plane in around]) > 0
    close = np.stack([cv2.dilate(plane, np.ones((3, 3), np.uint8)) for plane in around]) > 0
    tissue, grey = truth[box[0]][(slice(None), *wide)], green[box[0]][(slice(None), *wide)]
    liver = near & ~own & (tissue == LIVER)
    contrast = (grey[own].mean() - grey[liver].mean()) * _HU_PER_LEVEL if liver.any() else np.nan
    outside = not (tissue[own] >= LIVER).any()
    at_edge = not outside and (tissue[close] < LIVER).any()
    middle = (lesion.centre_slice, lesion.centre_row, lesion.centre_column)
    return {
        "slice": box[0].start + number, "row": round(middle[1]), "column": round(middle[2]),
        "voxels": lesion.voxels, "volume_mm3": lesion.volume_mm3, "diameter_mm": lesion.diameter_mm,
        "contrast_hu": contrast, "place": "outside the liver" if outside else _place(middle, extent),
        "reason": _reason(lesion, inside, contrast, outside, at_edge),
    }


def _place(middle: Sequence[float], liver: tuple[slice, ...]) -> str:
    """Third of the liver's box from below, and half from the viewer's left, which is the patient's right."""
    slices, _, columns = liver
    height = (middle[0] - slices.start) / max(slices.stop - 1 - slices.start, 1)
    third = ("lower", "middle", "upper")[min(int(3 * height), 2)]
    side = "right" if middle[2] <= (columns.start + columns.stop - 1) / 2 else "left"
    return f"{third} third, {side} half"


def _reason(lesion, inside: np.ndarray, contrast: float, outside: bool, at_edge: bool) -> str:
    known = not np.isnan(lesion.diameter_mm)
    small = lesion.diameter_mm < SMALL_MM if known else inside.sum(axis=(1, 2)).max() < SMALL_PIXELS
    words = [
        "small" if small else "", "faint" if abs(contrast) < FAINT_HU else "",
        "outside the liver" if outside else "", "at the liver's edge" if at_edge else "",
    ]
    return ", ".join(filter(None, words)) or "none of these"


def counted_reasons(lesions: pd.DataFrame) -> pd.DataFrame:
    """How many lesions of each kind have each trait; a lesion with two is counted in both.

    Returns
    -------
    DataFrame
        ``kind``, ``lesions``, ``small``, ``faint``, ``at the liver's edge``, ``outside the liver``.
    """
    traits = ("small", "faint", "at the liver's edge", "outside the liver")
    rows = [
        {"kind": kind, "lesions": len(some), **{trait: int(some.reason.str.contains(trait).sum()) for trait in traits}}
        for kind, some in ((kind, lesions[lesions.kind == kind]) for kind in ("found", "missed", "false positive"))
    ]
    return pd.DataFrame(rows)
