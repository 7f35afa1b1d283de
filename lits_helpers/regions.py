"""The liver's region: where it is in a volume, how bright it is, and slices seen through it.

A network that looks at the liver alone spends its pixels there, and with the liver's own brightness
taken out it need not learn what contrast medium does to that. A region is one square for all slices
of a volume, so that a lesion keeps its size and place from slice to slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .distances import bounding_box
from .postprocessing import largest_component

MARGIN = 0.1  # of the liver's length, on each side
MIDDLE = 128  # what the liver's median becomes in a crop
NEXT = 4  # slices whose numbers differ by more are no neighbours


@dataclass(frozen=True)
class Region:
    """A square about a liver, in fractions of its slices, and so for any size of them.

    Attributes
    ----------
    row, column : float
        Its centre, 0 at the upper and left edge of the slice, 1 at the lower and right one.
    half : float
        Half of its side.
    level : int
        The liver's median in the green channel, 0..255.
    """

    row: float
    column: float
    half: float
    level: int

    def map(self, size: int, shape: tuple[int, int]) -> np.ndarray:
        """Affine map from pixels of a ``size`` x ``size`` crop to those of a slice of a shape.

        Returns
        -------
        float64 array (2, 3)
            As :func:`lits_helpers.augmentation.affine_matrices` has them, for ``cv2.WARP_INVERSE_MAP``:
            pixel centres are whole numbers.
        """
        down, right = (2 * self.half * length / size for length in shape)
        top, left = ((centre - self.half) * length - 0.5 for centre, length in zip((self.row, self.column), shape))
        return np.array([[right, 0, left + right / 2], [0, down, top + down / 2]])


def liver_region(liver: np.ndarray, green: np.ndarray) -> tuple[Region | None, np.ndarray]:
    """The region about a volume's liver, and the part of the mask that counted.

    Parameters
    ----------
    liver : bool array (slices, rows, columns)
        With its tumours. All but the largest connected part is taken for an error.
    green : uint8 array (slices, rows, columns)
        The slices' green channel, at the same size.

    Returns
    -------
    region : Region or None
        None where the mask is empty.
    liver : bool array (slices, rows, columns)
        The largest part.
    """
    liver = largest_component(liver)
    if not liver.any():
        return None, liver
    sides = zip(bounding_box(liver.any(axis=0)), liver.shape[1:], strict=True)
    ends = [(side.start / length, side.stop / length) for side, length in sides]
    half = max(high - low for low, high in ends) / 2 * (1 + 2 * MARGIN)
    (top, bottom), (left, right) = ends
    return Region((top + bottom) / 2, (left + right) / 2, half, int(np.median(green[liver]))), liver


def neighbours(numbers: Sequence[int]) -> np.ndarray:
    """For each slice of a volume the slice before, itself, and the one after.

    Parameters
    ----------
    numbers : sequence of int, rising
        Slice numbers. A slice stands in for its neighbour at the ends, and where the next one is more
        than :data:`NEXT` away.

    Returns
    -------
    int array (slices, 3)
        Positions in ``numbers``.
    """
    here = np.arange(len(numbers))
    joined = np.diff(numbers) <= NEXT
    before, after = here.copy(), here.copy()
    before[1:] -= joined
    after[:-1] += joined
    return np.stack([before, here, after], axis=1)


def liver_crops(
    green: Sequence[np.ndarray], numbers: Sequence[int], region: Region, size: int, *, wanted: Iterable[int]
) -> np.ndarray:
    """Slices and their neighbours, seen through the region, with the liver in the middle of the range.

    Parameters
    ----------
    green : sequence of uint8 arrays (rows, columns)
        The volume's slices, green channel.
    numbers : sequence of int, rising
        Their numbers.
    region : Region
    size : int
        Rows and columns of a crop.
    wanted : positions in ``green``

    Returns
    -------
    uint8 array (wanted, size, size, 3)
        The slice before, the slice, the slice after: 0.78 HU a level, :data:`MIDDLE` the liver's median.
    """
    groups = neighbours(numbers)
    crops = []
    for position in wanted:
        stacked = cv2.merge([green[other] for other in groups[position]])
        crop = through(stacked, region.map(size, stacked.shape[:2]), size)
        crops.append((crop.astype(np.int16) + (MIDDLE - region.level)).clip(0, 255).astype(np.uint8))
    return np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)


def through(picture: np.ndarray, matrix: np.ndarray, size: int, *, nearest: bool = False) -> np.ndarray:
    """A picture, or with ``nearest`` labels, through a map: (size, size[, channels]); edges are repeated."""
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.warpAffine(
        picture, matrix, (size, size), flags=method | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def put_back(crop: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A crop's probabilities in their slice: float32 (rows, columns), 0 outside the region."""
    return cv2.warpAffine(crop.astype(np.float32), matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0)
