"""The liver's region: where it is in a volume, how bright it is, and slices seen through it.

A network that looks at the liver alone spends its pixels there, and with the liver's own brightness
taken out it need not learn how contrast medium changes that. A region is one square for all slices
of a volume, so that a lesion keeps its size and place from slice to slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .postprocessing import largest_component
from .windows import WINDOWS

HU_SCALE = 40.0  # HU to a unit of the network's input: about twice a liver's noise at 2 to 3 mm
GREEN = WINDOWS["custom"]  # what the green channel of slices shows
MARGIN = 0.1  # of the liver's length, on each side
NEXT = 4  # two slices whose numbers differ by more do not count as neighbours


@dataclass(frozen=True)
class Region:
    """A square about a liver, in a volume's slices.

    Attributes
    ----------
    row, column : float
        Its centre, in pixels.
    half : float
        Half of its side, in pixels.
    level : float
        The liver's median, in HU, as the green channel of the slices shows it (-40 to 160 HU).
    """

    row: float
    column: float
    half: float
    level: float

    def map(self, size: int) -> np.ndarray:
        """Affine map from pixels of a ``size`` x ``size`` crop to those of the slice.

        Returns
        -------
        float64 array (2, 3)
            As :func:`lits_helpers.augmentation.affine_matrices` has them, for ``cv2.WARP_INVERSE_MAP``.
        """
        scale = 2 * self.half / size
        offset = (size - 1) / 2 * scale
        return np.array([[scale, 0, self.column - offset], [0, scale, self.row - offset]])


def hounsfield_of(green: np.ndarray) -> np.ndarray:
    """The HU that a slice's green channel shows, -40 to 160: float32, same shape."""
    return (green * np.float32(GREEN.width / 255) + np.float32(GREEN.level - GREEN.width / 2)).astype(np.float32)


def liver_region(liver: np.ndarray, green: np.ndarray) -> tuple[Region | None, np.ndarray]:
    """The region about a volume's liver, and the part of the mask that counted.

    Parameters
    ----------
    liver : bool array (slices, rows, columns)
        With its tumours. All but the largest connected part is taken for an error.
    green : uint8 array (slices, rows, columns)
        The slices' green channel.

    Returns
    -------
    region : Region or None
        None where the mask is empty.
    liver : bool array (slices, rows, columns)
        The largest part.
    """
    liver = largest_component(liver)
    shadow = liver.any(axis=0)
    if not shadow.any():
        return None, liver
    rows, columns = (np.flatnonzero(shadow.any(axis=axis)) for axis in (1, 0))
    (top, bottom), (left, right) = ((line[0], line[-1] + 1) for line in (rows, columns))
    half = max(bottom - top, right - left) / 2 * (1 + 2 * MARGIN)
    level = float(hounsfield_of(np.median(green[liver])))
    return Region((top + bottom - 1) / 2, (left + right - 1) / 2, half, level), liver


def neighbour_positions(numbers: Sequence[int]) -> np.ndarray:
    """For each slice of a volume the slice before, itself, and the one after.

    Parameters
    ----------
    numbers : sequence of int, rising
        Slice numbers. A slice is its own neighbour at the ends, and where the next is more than
        :data:`NEXT` away.

    Returns
    -------
    int array (slices, 3)
        Positions in ``numbers``.
    """
    numbers = np.asarray(numbers)
    here = np.arange(len(numbers))
    joined = np.diff(numbers) <= NEXT
    before, after = here.copy(), here.copy()
    before[1:] -= joined
    after[:-1] += joined
    return np.stack([before, here, after], axis=1)


def cropped(picture: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """A slice (uint8, up to four channels) through a map: (size, size[, channels]), interpolated linearly."""
    return cv2.warpAffine(
        picture, matrix, (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )


def placed(crop: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Put a crop's probabilities back into their slice: float32 (rows, columns), 0 outside the region."""
    return cv2.warpAffine(
        np.ascontiguousarray(crop, np.float32), matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0
    )
